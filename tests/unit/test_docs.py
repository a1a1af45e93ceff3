"""The documents name what the code has: every error, every event, no metric that is not there, no link to nowhere."""

import ast
import re
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Final, get_args

import pytest

from proxy.config import json_schema
from proxy.counters import DenyReason, RejectionOutcome, StoreOperation, Trigger, UpstreamErrorReason
from proxy.errors import ProblemKind, RefreshResult
from proxy.metrics import Metrics
from proxy.tokens.plan import State
from proxy.tokens.systems.keycloak import KNOWN

ROOT: Final = Path(__file__).resolve().parents[2]
DOCUMENTS: Final = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
DECISIONS: Final = sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))
ERRORS: Final = (ROOT / "docs/errors.md").read_text()
ANSWERING: Final = [ROOT / "proxy/tls.py", *sorted((ROOT / "proxy/gateway").rglob("*.py"))]
GATEWAY: Final = [ast.parse(file.read_text()) for file in ANSWERING]
CODE: Final = [
    ast.parse(file.read_text()) for file in sorted((ROOT / "proxy").rglob("*.py")) if "sandbox" not in file.parts
]

# RFC 9209 2.3: every error type there is.
PROXY_ERRORS: Final = frozenset(
    f"{group}_{name}"
    for group, names in {
        "dns": "timeout error",
        "destination": "not_found unavailable ip_prohibited ip_unroutable",
        "connection": "refused terminated timeout read_timeout write_timeout limit_reached",
        "tls": "protocol_error certificate_error alert_received",
        "http": "request_error request_denied response_incomplete response_timeout upgrade_failed protocol_error",
        "http_response": "header_section_size header_size body_size trailer_section_size trailer_size"
        " transfer_coding content_coding",
        "proxy": "internal_response internal_error configuration_error loop_detected",
    }.items()
    for name in names.split()
)
# The client library's own (process_*, python_*) aside, every name begins so.
METRIC: Final = re.compile(r"\bopentv_proxy_[a-z_]+[a-z]\b")
LINK: Final = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
FENCE: Final = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)


def shown(file: Path) -> str:
    return str(file.relative_to(ROOT))


def constants(trees: list[ast.Module]) -> Iterator[object]:
    yield from (node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant))


def events() -> set[str]:
    """What log lines are called: the first argument of a logger's methods."""
    calls = [node for tree in CODE for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
    return {
        str(word.value)
        for call in calls
        if isinstance(call.func, ast.Attribute)
        and call.func.attr in {"info", "warning", "error", "exception", "critical"}
        for word in ast.walk(call.args[0])
        if isinstance(word, ast.Constant) and isinstance(word.value, str)
    }


def statuses() -> set[int]:
    """The 4xx and 5xx that the gateway's own code speaks of."""
    known = {status.value for status in HTTPStatus if status >= 400} | {499}
    return {number for number in constants(GATEWAY) if isinstance(number, int) and number in known}


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("problem type", {f"urn:opentv-proxy:problem:{kind}" for kind in get_args(ProblemKind)}),
        ("refresh result", set(get_args(RefreshResult))),
        ("upstream error reason", set(get_args(UpstreamErrorReason))),
        ("Proxy-Status error", PROXY_ERRORS & set(map(str, constants(GATEWAY)))),
        ("status", set(map(str, statuses()))),
        ("reason of a refusal", set(get_args(DenyReason))),
        ("outcome of a rejection", set(get_args(RejectionOutcome))),
        ("store operation", set(get_args(StoreOperation))),
        ("token state", set(get_args(State))),
        ("refresh trigger", set(get_args(Trigger))),
        ("log event", events()),
        ("words of Keycloak", set(KNOWN)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_error_a_person_may_see_is_explained(what: str, words: set[str]) -> None:
    """Whoever finds one in an answer, a metric or the log finds it in docs/errors.md too, written just so."""
    assert words, f"no {what} found in the code: this test looks in the wrong place"
    ticked = {code.strip().lower() for code in re.findall(r"`([^`\n]+)`", ERRORS)}
    assert sorted(word for word in words if word.lower() not in ticked) == []


def test_no_proxy_status_error_is_explained_that_is_never_sent() -> None:
    explained = set(re.findall(r"`(\w+)`", ERRORS)) & PROXY_ERRORS
    assert explained <= set(map(str, constants(GATEWAY)))


def metric_names() -> set[str]:
    metrics = Metrics("1")
    metrics.route("/").count("GET", 200)
    metrics.store("memory")
    identity = metrics.identity("opentv")
    identity.access_expiry = identity.access_issued = identity.refresh_expiry = identity.session_end = 1.0
    identity.last_success = identity.next_refresh = identity.clock_skew = 1.0
    families = list(metrics.collect())
    return {sample.name for family in families for sample in family.samples} | {family.name for family in families}


@pytest.mark.parametrize("document", DOCUMENTS, ids=shown)
def test_no_document_names_a_metric_that_does_not_exist(document: Path) -> None:
    """An alert that is copied from a document must be able to ring."""
    assert sorted(set(METRIC.findall(document.read_text())) - metric_names()) == []


def anchors(document: Path) -> set[str]:
    """The headings' anchors as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+?) *$", FENCE.sub("", document.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=shown)
def test_every_link_of_a_document_leads_somewhere(document: Path) -> None:
    """Links and pictures within the checkout: the file is there, and the heading in it."""
    broken = []
    for link in LINK.findall(FENCE.sub("", document.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=shown)
def test_every_file_of_ours_that_a_document_names_is_there(document: Path) -> None:
    named = re.findall(r"`((?:proxy|tests|config|docs)/[\w./-]+?)/?`", document.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_document_that_the_code_names_is_there() -> None:
    named = {
        name
        for folder in ("proxy", "tests")
        for file in (ROOT / folder).rglob("*.py")
        if file != Path(__file__)
        for name in re.findall(r"(?<![\w/.-])docs/[\w/-]+(?:\.md)?", file.read_text())
    }
    assert sorted(name for name in named if not (ROOT / name).exists() and not list(ROOT.glob(f"{name}*"))) == []


def test_every_configuration_key_that_a_document_names_exists() -> None:
    """Those written as a path: ``limits.head_time``, ``timeouts.response``."""
    schema = json_schema()
    sections: dict[str, set[str]] = {}
    for node in [schema, *schema["$defs"].values()]:
        for option in [node, *node.get("anyOf", [])]:
            for key, value in option.get("properties", {}).items():
                for target in re.findall(r"#/\$defs/(\w+)", str(value)):
                    options = [schema["$defs"][target], *schema["$defs"][target].get("anyOf", [])]
                    sections.setdefault(key, set()).update(*(set(one.get("properties", {})) for one in options))
    wrong = [
        f"{shown(document)}: {section}.{key}"
        for document in DOCUMENTS
        for section, key in re.findall(r"`([a-z_]+)\.([a-z_]+)`", document.read_text())
        if section in sections and key not in sections[section] and key not in {"md", "py", "yaml", "json"}
    ]
    assert wrong == []


@pytest.mark.parametrize("record", DECISIONS, ids=lambda file: file.stem)
def test_a_decision_is_one_page_of_four_parts(record: Path) -> None:
    """Context, options, decision and cost, at most 60 lines, so that it is read."""
    text = record.read_text()
    assert len(text.splitlines()) <= 60
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Context", "Options", "Decision", "What it costs"]
    assert text.startswith(f"# {record.name[:4]} ")


def test_decisions_are_numbered_without_a_gap_and_all_are_listed() -> None:
    assert [int(record.name[:4]) for record in DECISIONS] == list(range(1, len(DECISIONS) + 1))
    index = (ROOT / "docs/decisions/README.md").read_text()
    assert [record.name for record in DECISIONS] == re.findall(r"\((\d{4}-[\w-]+\.md)\)", index)
