"""Process: what the gateway takes of its machine, its store, and which configuration is in force."""

from typing import Final

from grafana_foundation_sdk.models import common

from grafana.look import GRAPH_HEIGHT, AnyPanel, bad_above, bad_below, counts, graph, plain, states, tile, words
from grafana.queries import Query, increase, of_gateway, quantile, rate, selector, total

_INSTANCE: Final = "{{instance}}"

CPU: Final = graph(
    501,
    "CPU",
    words(
        "Share of one core. A gateway is one process with one thread, so 100 % is all that it can take.",
        "below 70 %.",
        "above 90 % requests queue up (*Event loop lag*): run more replicas, or more processes with"
        " `listen.reuse_port`.",
    ),
    "percentunit",
    Query(rate(selector("process_cpu_seconds_total")), _INSTANCE),
    steps=bad_above(0.7, 0.9),
).min(0)

MEMORY: Final = graph(
    502,
    "Memory",
    words(
        "Memory that the process holds (resident).",
        "flat after the first minutes: 60 to 100 MB, and some kilobytes for each open connection.",
        "a climb without an end is a fault of ours, and worth a report with this graph; a restart costs no token that"
        " is stored.",
    ),
    "bytes",
    Query(selector("process_resident_memory_bytes"), _INSTANCE),
).min(0)

LAG: Final = graph(
    503,
    "Event loop lag",
    words(
        "How late the process gets to what is due, 99 times of 100 not later than this: a delay that every step of"
        " every request may meet.",
        "below 10 ms.",
        "more work than one core can do (*CPU*), or a machine whose cores are taken by others.",
    ),
    "s",
    Query(quantile(0.99, of_gateway("event_loop_lag_seconds_bucket"), "instance"), _INSTANCE),
    steps=bad_above(0.01, 0.1),
).min(0)

FILES: Final = (
    graph(
        504,
        "Open files",
        words(
            "Open files and sockets, as a share of what the process may open.",
            "below 70 %.",
            "each client takes one, each upstream connection another. At 100 % no connection is accepted any more:"
            " raise the limit (`LimitNOFILE`, `ulimit -n`), or lower `limits.connections`.",
        ),
        "percentunit",
        Query(f"{selector('process_open_fds')} / {selector('process_max_fds')}", _INSTANCE),
        steps=bad_above(0.7, 0.9),
    )
    .min(0)
    .axis_soft_max(0.1)
)

STORE: Final = counts(
    505,
    "Store errors",
    words(
        "Operations of the token store that failed.",
        "none.",
        "the token at hand keeps serving. With Redis down, each replica goes on with a session of its own; with a file,"
        " see its folder's rights and space. The log line `store failed` has the words.",
    ),
    Query(total(increase(of_gateway("store_errors_total")), "store", "operation"), "{{store}} {{operation}}"),
)

CONFIGURATION: Final = (
    tile(
        506,
        "Configuration",
        words(
            "Whether the last reading of the configuration succeeded, on the replica that is worst off.",
            "in force.",
            "the file on disk is not what runs: its faults are in the log, under `reload refused`. What was in"
            " force before still is.",
        ),
        "none",
        bad_below(1, 1),
        Query(f"min({of_gateway('config_last_reload_successful')})", "", now=True),
        width=4,
    )
    .mappings([states((0, "REFUSED"), (1, "in force"))])
    .text_mode(common.BigValueTextMode.VALUE)
    .color_mode(common.BigValueColorMode.BACKGROUND)
    .no_value("no gateway")
    .height(GRAPH_HEIGHT)
)

VERSION: Final = tile(
    507,
    "Versions",
    words(
        "How many replicas run which version, on which Python.",
        "one version, but for the time of an upgrade.",
        "an upgrade that did not reach every replica.",
    ),
    "short",
    plain(),
    Query(
        f"count by (version, python_version) ({of_gateway('build_info')})",
        "{{version}} on Python {{python_version}}",
        now=True,
    ),
    width=4,
).height(GRAPH_HEIGHT)

PANELS: Final[list[AnyPanel]] = [CPU, MEMORY, LAG, FILES, STORE, CONFIGURATION, VERSION]
