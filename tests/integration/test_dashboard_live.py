"""Every query of the dashboard before a real Prometheus: in normal work none is empty, and a fault shows where its
panel says it does."""

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Final

import aiohttp
import yaml

from proxy.sandbox import AgsSettings, Fault, Sandbox, SandboxSettings
from tests.support.dashboard import Dashboard, Query, chosen, everything, substituted, tables_first_column
from tests.support.gateway import ROOT, Gateway, running_gateway, until
from tests.support.process import Process, running
from tests.support.prometheus import Prometheus, Series, running_prometheus

DASHBOARD: Final = Dashboard()
JOB: Final = "gateway"
SCRAPE: Final = 1.0  # seconds, as running_prometheus has it

# After the faults: panel, what its legend says (INSTANCE: that of our gateway), how its newest value compares.
SHOWN: Final = [
    (101, "crm", "==", 0),
    (101, "opentv", "==", 1),
    (102, "crm", "<", 1),
    (103, "crm", ">=", 1),
    (104, "up", "==", 2),
    (105, "5xx", ">", 0.01),
    (207, "rejected", ">", 0),
    (208, "http_error", ">", 0),
    (208, "invalid_credentials", ">", 0),
    (210, "crm", "==", 0),
    (212, "crm", "==", 1),
    (212, "opentv", "==", 0),
    (213, "crm INSTANCE", ">", 80),
    (301, "none", ">", 0),
    (302, "502", ">", 0),
    (302, "503", ">", 0),
    (303, "5xx", ">", 0.01),
    (303, "4xx", ">", 0.01),
    (306, "replayed", ">", 0),
    (309, "allow", ">", 0),
    (401, "connect", ">", 0),
    (506, "", "==", 0),
]


@dataclass
class Scene:
    """Two gateways that one Prometheus scrapes: the demo, whose own traffic nothing troubles, and one of ours with a
    platform of its own that faults can be put into. begun: when they ran, on the monotonic clock."""

    demo: Process
    gateway: Gateway
    sandbox: Sandbox
    prometheus: Prometheus
    begun: float

    @property
    def instance(self) -> str:
        return self.gateway.admin_url.removeprefix("http://")

    async def evaluate(self, query: Query, values: dict[str, str]) -> list[Series]:
        """What Grafana would draw of the last minute; of an instant query, one point a series."""
        step = max(SCRAPE, query.min_step)
        expr = substituted(query.expr, values, step, SCRAPE)
        now = time.time()
        if query.instant:
            return [Series(one.labels, [(now, one.value)]) for one in await self.prometheus.query(expr, now)]
        return await self.prometheus.query_range(expr, now - 60, now, step)

    async def newest(self, number: int, legend: str) -> float | None:
        """The last value of the panel's series with that legend, as it stands with every variable at All."""
        values = everything(DASHBOARD, JOB)
        for query in DASHBOARD.queries():
            if query.panel == number:
                for series in await self.evaluate(query, values):
                    if query.name(series.labels) == legend.replace("INSTANCE", self.instance):
                        return series.points[-1][1]
        return None


def configuration(sandbox: Sandbox) -> dict[str, Any]:
    who = {"username": sandbox.username, "password": sandbox.password}
    sign_on = [{"name": name, "value": value} for name, value in who.items()]
    crm = {"system": "keycloak", "token_url": sandbox.token_url, "client_id": sandbox.client_id, **who}
    ags = {"system": "ags", "base_url": sandbox.ags_url, "auth_service_id": "sso-1", "tenant_id": "nagra"}
    return {
        "identities": {
            "crm": crm | {"refresh": {"min_interval": "500ms"}},
            "ags": ags | {"sign_on": sign_on, "refresh_parameters": sign_on[:1]},
        },
        "routes": [
            {"path": "/adm", "upstream": sandbox.url, "identity": "crm"},
            {"path": "/ags-api", "upstream": sandbox.url, "identity": "ags"},
            {"path": "/dead", "upstream": "http://127.0.0.1:9", "identity": None},
            {"path": "/closed", "upstream": sandbox.url, "identity": None, "allow": ["GET /closed/door"]},
        ],
    }


@contextlib.asynccontextmanager
async def requests(gateway: Gateway, *paths: str) -> AsyncIterator[None]:
    """One every tenth of a second, the paths in turn."""

    async def send() -> None:
        async with aiohttp.ClientSession() as http:
            while True:
                for path in paths:
                    async with http.get(gateway.url + path) as answer:
                        await answer.read()
                    await asyncio.sleep(0.1)

    sending = asyncio.create_task(send())
    try:
        yield
        assert not sending.done(), sending
    finally:
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sending


@contextlib.asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[Scene]:
    settings = SandboxSettings(access_life=4, ags=AgsSettings(access_life=4))
    async with (
        Sandbox(settings) as sandbox,
        running("demo", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--traffic") as demo,
        running_gateway(configuration(sandbox), folder) as gateway,
    ):
        begun = time.monotonic()
        sandbox.state.clock_shift = 90
        targets = [gateway.admin_url, await demo.says(r"admin listening on (http\S+)")]
        async with (
            running_prometheus(folder / "prometheus", {JOB: targets}) as prometheus,
            requests(gateway, "/adm/v1/devices", "/ags-api/devices"),
        ):
            await prometheus.targets_up(2)
            yield Scene(demo, gateway, sandbox, prometheus, begun)


def shows(found: list[Series]) -> bool:
    return any(isfinite(value) for series in found for _, value in series.points)


async def nothing_is_empty(here: Scene) -> None:
    """In normal work, every query of every panel answers, whatever is chosen."""
    some = {"instance": chosen(here.instance), "identity": "ags", "route": "/ags-api"}
    every = everything(DASHBOARD, JOB)
    for values in (every, every | some):
        empty = list(DASHBOARD.queries())

        async def all_show(values: dict[str, str] = values, empty: list[Query] = empty) -> bool:
            empty[:] = [query for query in empty if not shows(await here.evaluate(query, values))]
            return not empty

        with contextlib.suppress(AssertionError):
            await until(all_show, 15, "")
        assert [str(query) for query in empty] == [], values


async def the_legends_name_what_the_series_have(here: Scene) -> None:
    for query in DASHBOARD.all_queries():
        for series in await here.evaluate(query, everything(DASHBOARD, JOB)):
            assert query.labels() <= series.labels.keys(), (query, series.labels)
            told_apart = series.labels.keys() - query.labels() - {"__name__", "job"}
            assert not told_apart or "instance" in query.labels(), (query, told_apart)


async def the_variables_offer_what_there_is(here: Scene) -> None:
    found: dict[str, list[str]] = {}
    for name, variable in DASHBOARD.variables.items():
        if variable["type"] == "query":
            match = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            assert match
            selector = substituted(match[1], everything(DASHBOARD, JOB), 1, SCRAPE)
            found[name] = await here.prometheus.get(f"label/{match[2]}/values", **{"match[]": selector})
    assert found.pop("job") == [JOB]
    assert len(found.pop("instance")) == 2
    assert found == {
        "identity": ["ags", "crm", "opentv"],
        "route": ["/", "/adm", "/ags-api", "/closed", "/dead", "none"],
    }


async def every_metric_is_served(here: Scene) -> None:
    served = set(await here.prometheus.get("label/__name__/values"))
    assert {name for query in DASHBOARD.all_queries() for name, _ in query.selectors()} <= served
    assert set(tables_first_column(ROOT / "docs/dashboard.md", "## Left out")) <= served


async def test_in_normal_work_no_panel_is_empty_and_each_fault_shows_on_its_own(tmp_path: Path) -> None:
    async with scene(tmp_path) as here:
        await nothing_is_empty(here)
        await the_legends_name_what_the_series_have(here)
        await the_variables_offer_what_there_is(here)
        await every_metric_is_served(here)
        await break_things(here)
        await the_faults_show(here)


async def break_things(here: Scene) -> None:
    """A refused token; sessions that end; a reload; a provider that fails, then refuses the password; a configuration
    that is wrong."""
    # A reading of the configuration counts as a reload from then on.
    await until(lambda: time.monotonic() - here.begun > 11, 15, "gateways that are no longer new")
    state = here.sandbox.state
    state.add_fault("api", Fault("reject"))
    await until(lambda: not state.faults["api"], 5, "a refused token")
    logins = state.counters["logins"]
    state.revoke_sessions()
    await until(lambda: state.counters["logins"] > logins, 10, "a new login")
    await reload(here.gateway, {})
    state.add_fault("token", Fault("reply", status=500, times=2))
    await until(lambda: not state.faults["token"], 10, "two failed refreshes")
    state.users[here.sandbox.username].password = "changed"
    state.revoke_sessions()
    await reload(here.gateway, {"listen": "nowhere"})


async def reload(gateway: Gateway, changes: dict[str, Any]) -> None:
    config = yaml.safe_load(gateway.config_file.read_text()) | changes
    gateway.config_file.write_text(yaml.safe_dump(config))
    gateway.hup()


async def the_faults_show(here: Scene) -> None:
    compare = {"==": float.__eq__, ">=": float.__ge__, ">": float.__gt__, "<": float.__lt__}
    missing: list[object] = []
    latest: dict[tuple[int, str], float | None] = {}

    async def all_show() -> bool:
        missing.clear()
        for number, legend, sign, limit in SHOWN:
            value = latest[number, legend] = await here.newest(number, legend)
            if value is None or not compare[sign](value, float(limit)):
                missing.append((DASHBOARD.panel(number)["title"], legend, f"{value} is not {sign} {limit}"))
        marks = [(query, await here.evaluate(query, everything(DASHBOARD, JOB))) for query in DASHBOARD.marks()]
        missing.extend(f"annotation {query.title}" for query, found in marks if not shows(found))
        return not missing

    async with requests(here.gateway, "/dead/end", "/closed/window", "/nowhere"):
        with contextlib.suppress(AssertionError):
            await until(all_show, 20, "")
    assert missing == []
