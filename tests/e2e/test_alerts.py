"""The alerts before a real Prometheus that scrapes the demo: a fault goes in, its alert rings, and ends when mended."""

import signal
from pathlib import Path

import yaml

from tests.support.watched import RULES, Watched, watched
from tests.unit.test_rules import identifiers

# The rules in time lapse: what is replaced, by what.
FASTER = {
    "recording.yaml": [("[2m]", "[6s]"), ("[10m]", "[6s]")],
    "alerts.yaml": [("* 120 >= 3", "* 6 >= 3"), ("* 600 >= 5", "* 6 >= 5"), ("[90s]", "[4s]")],
}


def in_time_lapse(folder: Path) -> list[Path]:
    """Copies of the rules in which every wait is 2 s, and windows of minutes are seconds."""
    copies = []
    for file in RULES:
        text = file.read_text()
        for slow, fast in FASTER[file.name]:
            assert slow in text
            text = text.replace(slow, fast)
        document = yaml.safe_load(text)
        for rule in (rule for group in document["groups"] for rule in group["rules"] if "for" in rule):
            rule["for"] = "2s"
        copies.append(folder / file.name)
        copies[-1].write_text(yaml.safe_dump(document))
    return copies


async def every_rule_can_be_evaluated(here: Watched) -> None:
    """As it is written, not in time lapse; and what it asks for is there."""
    rules = [rule for file in RULES for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]
    for rule in rules:
        await here.prometheus.query(rule["expr"])
    for name in sorted({name for rule in rules for name in identifiers(rule["expr"])}):
        assert await here.prometheus.query(f"last_over_time({name}[5m])"), name
    assert {(rule["health"], rule.get("lastError", "")) for rule in await here.prometheus.rules()} == {("ok", "")}


async def the_provider_refuses_us(here: Watched) -> None:
    await here.tell_sandbox("POST", "/faults/token", {"kind": "reject", "times": None})
    alert = await here.rings("OpentvProxyTokenUnusable", 20)
    assert alert["labels"]["severity"] == "critical"
    assert alert["annotations"]["summary"] == "Every request that needs the token of opentv gets 503"
    assert await here.panel("Tokens") == [0]
    assert (await here.rings("OpentvProxyLoginSuspended", 10))["labels"]["identity"] == "opentv"
    assert await here.panel("Login suspended") == [1]
    status, body = await here.ask("GET", f"{here.proxy}/adm/v1/accounts/4711")
    identity = (await here.status())["identities"]["opentv"]
    assert (status, identity["state"], identity["last_refresh"]["result"]) == (503, "suspended", "invalid_credentials")
    words = "the provider refused the user name or the password"
    assert words in body
    assert words in identity["last_refresh"]["detail"]
    assert words in next(line for line in here.process.err if "result=invalid_credentials" in line)
    await here.tell_sandbox("DELETE", "/faults")
    assert await here.refresh() == 200
    await here.is_over("OpentvProxyTokenUnusable", "OpentvProxyLoginSuspended", seconds=15)
    assert await here.panel("Tokens") == [1]


async def the_platform_is_gone(here: Watched) -> None:
    await here.tell_sandbox("POST", "/faults/api", {"kind": "close", "times": None})
    alert = await here.rings("OpentvProxyUpstreamDown", 20)
    assert alert["annotations"]["summary"].startswith("Most requests to / get 502 or 504")
    assert max(await here.panel("Errors by reason")) > 0
    assert (await here.rings("OpentvProxyErrorBudgetBurnFast", 10))["labels"]["route"] == "/"
    await here.tell_sandbox("DELETE", "/faults")
    await here.is_over("OpentvProxyUpstreamDown", seconds=15)


async def the_user_loses_the_role_while_clocks_differ(here: Watched) -> None:
    await here.tell_sandbox("PUT", "/users/crm_client_user", {"roles": []})
    await here.tell_sandbox("POST", "/clock", {"shift_s": 43})
    assert await here.refresh() == 200
    alert = await here.rings("OpentvProxyRejectionsNotCured", 20)
    assert "of the requests to /, and a new token does not help" in alert["annotations"]["summary"]
    assert max(await here.panel("Refused tokens")) > 0
    alert = await here.rings("OpentvProxyClockSkew", 10)
    assert ": 43." in alert["annotations"]["description"] or ": 42." in alert["annotations"]["description"]
    await here.tell_sandbox("PUT", "/users/crm_client_user", {"roles": ["operatorRole"]})
    await here.tell_sandbox("POST", "/clock", {"shift_s": 0})
    assert await here.refresh() == 200
    await here.is_over("OpentvProxyRejectionsNotCured", "OpentvProxyClockSkew", seconds=15)


async def the_process_is_gone(here: Watched) -> None:
    here.process.send(signal.SIGKILL)
    await here.rings("OpentvProxyAbsent", 15)
    assert await here.prometheus.alerts("OpentvProxyReplicaAbsent") == []


async def test_a_fault_rings_its_alert_shows_on_its_panel_and_in_words_and_is_over_once_mended(tmp_path: Path) -> None:
    async with watched(tmp_path / "prometheus", in_time_lapse(tmp_path)) as here:
        # Before its first scrape Prometheus knows of no gateway.
        await here.is_over("OpentvProxyAbsent", seconds=10)
        assert await here.prometheus.alerts() == []
        # Short lives, and sessions whose end comes into sight.
        await here.tell_sandbox("PUT", "/settings", {"access_life": 6, "session_max": 15})
        assert await here.refresh() == 200
        await the_platform_is_gone(here)
        await here.tell_sandbox("PUT", "/settings", {"session_max": 36000})
        assert await here.refresh() == 200
        await the_provider_refuses_us(here)
        await every_rule_can_be_evaluated(here)
        await the_user_loses_the_role_while_clocks_differ(here)
        await the_process_is_gone(here)
