"""Token endpoints that misbehave, each kind of fault at each system, before the keeper as it is built for production;
and ``system: oauth2`` through the gateway with everything that its configuration may add to a request.

All pairs of system and fault run at the same time, each with a sandbox and a keeper of its own.
"""

import asyncio
import contextlib
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from proxy.config import parse_config
from proxy.errors import TokenUnavailableError
from proxy.metrics import Metrics
from proxy.sandbox import Fault, Sandbox, SandboxSettings
from proxy.sandbox.faults import Endpoint
from proxy.sandbox.settings import AgsSettings, Client, VeeamSettings
from proxy.sandbox.state import TokenCall
from proxy.tokens.factory import build_keeper
from proxy.tokens.keeper import Keeper
from proxy.tokens.source import Credential
from proxy.tokens.stores.memory import MemoryStore
from tests.support.gateway import running_gateway, until
from tests.support.tokens import Journal

SECRET = "s3cr%t"
Identity = dict[str, Any]


@dataclass(frozen=True)
class System:
    """identity: its section before a sandbox. login, renewal: what the calls are named there. path: of its API."""

    identity: Callable[[Sandbox], Identity]
    endpoint: Endpoint
    login: str
    renewal: str
    path: str = "/adm/v1/devices"


def user(sandbox: Sandbox) -> Identity:
    return {"username": sandbox.username, "password": sandbox.password}


def ags(sandbox: Sandbox) -> Identity:
    who = [{"name": "username", "value": sandbox.username}]
    signing_on = [*who, {"name": "password", "value": sandbox.password}]
    section = {"system": "ags", "base_url": sandbox.ags_url, "auth_service_id": "sso-1", "tenant_id": "nagra"}
    return {**section, "sign_on": signing_on, "refresh_parameters": who}


def oauth2(sandbox: Sandbox, **more: Any) -> Identity:
    return {"system": "oauth2", "token_url": sandbox.token_url, "client_id": "backend", "client_secret": SECRET, **more}


SYSTEMS = {
    "keycloak": System(
        lambda sandbox: {
            "system": "keycloak",
            "token_url": sandbox.token_url,
            "client_id": "crm_client",
            **user(sandbox),
        },
        *("token", "password", "refresh_token"),
    ),
    "oauth2, password": System(
        lambda sandbox: oauth2(sandbox, client_auth="basic", **user(sandbox)), "token", "password", "refresh_token"
    ),
    "oauth2, client_credentials": System(
        lambda sandbox: oauth2(sandbox, client_auth="post", grant="client_credentials"),
        *("token", "client_credentials", "client_credentials"),
    ),
    "ags": System(ags, "ags", "signOn", "refresh", "/ags-api/devices"),
    "veeam": System(
        lambda sandbox: {"system": "veeam", "token_url": sandbox.veeam_token_url, **user(sandbox)},
        *("veeam", "Password", "Refresh_token", "/veeam-api/devices"),
    ),
}


@dataclass(frozen=True)
class Case:
    """A fault and what is made of it. result: the metric's label. spent: the refresh token is rotated although no
    usable answer came. pause: seconds that must lie between the fault and the next call."""

    fault: Fault
    result: str
    spent: bool = False
    pause: float = 0.0


FAULTS = {
    "null": Case(Fault("null-fields"), "malformed", spent=True),
    "numbers": Case(Fault("number-fields"), "malformed", spent=True),
    "empty texts": Case(Fault("empty-fields"), "malformed", spent=True),
    "a line break in the token": Case(
        Fault("set-fields", values={"access_token": "eyJ\r\nX-Injected: 1"}), "malformed", spent=True
    ),
    "HTML": Case(Fault("html"), "malformed"),
    "an empty 200": Case(Fault("reply", status=200), "malformed"),
    "20 MiB": Case(Fault("big-body"), "malformed"),
    "a redirect": Case(Fault("redirect"), "malformed", pause=1.0),
    "half a JSON": Case(Fault("half-json"), "network", spent=True),
    "a reset after the rotation": Case(Fault("rotate-then-reset"), "network", spent=True),
    "a closed connection": Case(Fault("close"), "network"),
    "502 of a balancer": Case(Fault("reply", status=502, body="<html>"), "http_error"),
    "429, seconds": Case(Fault("rate-limit", retry_after="2"), "rate_limited", pause=2.0),
    # Dates are cut to whole seconds, on both sides.
    "429, a date": Case(Fault("rate-limit", retry_after="3", retry_date=True), "rate_limited", pause=1.9),
    "503, seconds": Case(Fault("reply", status=503, headers={"Retry-After": "2"}), "http_error", pause=2.0),
}
PAIRS = [(system, fault) for system in SYSTEMS for fault in FAULTS]
IDS = [f"{system}-{fault}" for system, fault in PAIRS]
SHORT = 4
"""Seconds that tokens live where renewals are watched."""


@dataclass
class Scene:
    system: System
    sandbox: Sandbox
    keeper: Keeper

    def calls(self, since: int = 0) -> list[TokenCall]:
        return list(self.sandbox.state.token_calls)[since:]

    async def asked(self, http: aiohttp.ClientSession, credential: Credential) -> int:
        """What the platform says to a request that is signed so."""
        name, _, value = credential.line.decode().strip().partition(": ")
        async with http.get(self.sandbox.url + self.system.path, headers={name: value}) as reply:
            return reply.status

    @property
    def results(self) -> list[str]:
        history: Any = self.keeper.status()["history"]
        return [one["result"] for one in history]


@contextlib.asynccontextmanager
async def scene(
    name: str, prepare: Callable[[Sandbox, System], object] = lambda *_: None, *, life: int = 300, **changes: Any
) -> AsyncIterator[Scene]:
    """A keeper that has begun. prepare: what is arranged before that."""
    system = SYSTEMS[name]
    backend = Client("backend", secret=SECRET, service_account=True)
    settings = SandboxSettings(clients=(Client("crm_client"), backend), required_role="", access_life=life)
    settings.ags, settings.veeam = AgsSettings(access_life=life), VeeamSettings(access_life=life)
    async with Sandbox(settings) as sandbox:
        section = system.identity(sandbox) | changes
        routes = [{"path": "/", "upstream": sandbox.url, "identity": "it"}]
        identity = parse_config({"identities": {"it": section}, "routes": routes}).identities["it"]
        keeper = build_keeper("it", identity, store=MemoryStore(), metrics=Metrics("test"), log=Journal())
        prepare(sandbox, system)
        await keeper.start()
        try:
            yield Scene(system, sandbox, keeper)
        finally:
            await keeper.close()


@dataclass(frozen=True)
class Renewal:
    """status: what the platform says to the new token. calls, pauses: what the token endpoint saw after the fault was
    in place, and the seconds from one to the next."""

    status: int
    calls: list[str]
    pauses: list[float]
    results: list[str]


async def renewal(system: str, fault: str) -> Renewal:
    """The platform refuses the token, and the renewal meets the fault, once."""
    async with scene(system) as here, aiohttp.ClientSession() as http:
        old = await here.keeper.obtain()
        here.sandbox.state.add_fault(here.system.endpoint, replace(FAULTS[fault].fault, grant=here.system.renewal))
        begun = len(here.calls())
        here.sandbox.state.revoke_access_tokens()
        new = None
        async with asyncio.timeout(25):
            while new is None:
                outcome = here.keeper.rejected(old)
                new = await outcome if isinstance(outcome, Awaitable) else outcome
                await asyncio.sleep(0.05)
        calls = here.calls(begun)
        pauses = [later.at - sooner.at for sooner, later in pairwise(calls)]
        return Renewal(await here.asked(http, new), [call.grant for call in calls], pauses, here.results)


@dataclass(frozen=True)
class Siege:
    """What a fault that does not end costs: calls in WATCHED seconds, the longest that one request waited for its
    answer, and the words that it was given."""

    calls: int
    longest: float
    words: set[str]


WATCHED = 4.0


async def siege(system: str, fault: str) -> Siege:
    """Requests come all the time, and there never was a token."""

    def break_it(sandbox: Sandbox, kind: System) -> None:
        sandbox.state.add_fault(kind.endpoint, replace(FAULTS[fault].fault, grant=kind.login, times=None))

    async with scene(system, break_it) as here:
        clock, longest, words = asyncio.get_running_loop().time, 0.0, set()
        ends = clock() + WATCHED
        while clock() < ends:
            began = clock()
            with pytest.raises(TokenUnavailableError) as caught:
                await here.keeper.obtain()
            words.add(caught.value.words)
            longest = max(longest, clock() - began)
            await asyncio.sleep(0.05)
        return Siege(len(here.calls()), longest, words)


@dataclass(frozen=True)
class Week:
    """Requests by their status, and renewals, while the provider's clock was off."""

    statuses: set[int]
    renewals: int


async def off_by(system: str, seconds: float) -> Week:
    def shift(sandbox: Sandbox, _: System) -> None:
        sandbox.state.clock_shift = seconds

    refresh = {"min_interval": "500ms", "ahead": 0.5, "jitter": 0}
    async with scene(system, shift, life=SHORT, refresh=refresh) as here, aiohttp.ClientSession() as http:
        statuses = set()
        ends = asyncio.get_running_loop().time() + 1.5 * SHORT
        while asyncio.get_running_loop().time() < ends:
            statuses.add(await here.asked(http, await here.keeper.obtain()))
            await asyncio.sleep(0.1)
        return Week(statuses, len(here.calls()) - 1)


@dataclass(frozen=True)
class Findings:
    renewals: dict[tuple[str, str], Renewal]
    sieges: dict[tuple[str, str], Siege]
    clocks: dict[tuple[str, float], Week]


SHIFTS = [(system, seconds) for system in SYSTEMS for seconds in (600.0, -600.0)]


@pytest.fixture(scope="module")
def found() -> Findings:
    async def run() -> Findings:
        async with asyncio.TaskGroup() as group:
            renewals = {pair: group.create_task(renewal(*pair)) for pair in PAIRS}
            sieges = {pair: group.create_task(siege(*pair)) for pair in PAIRS}
            clocks = {shift: group.create_task(off_by(*shift)) for shift in SHIFTS}
        return Findings(
            {pair: task.result() for pair, task in renewals.items()},
            {pair: task.result() for pair, task in sieges.items()},
            {shift: task.result() for shift, task in clocks.items()},
        )

    return asyncio.run(run())


@pytest.mark.parametrize("pair", PAIRS, ids=IDS)
def test_a_renewal_that_goes_wrong_once_ends_in_a_good_token(pair: tuple[str, str], found: Findings) -> None:
    """At most one further use of the old refresh token, then one login (B7); nothing unchecked is used (B9)."""
    system, case, seen = SYSTEMS[pair[0]], FAULTS[pair[1]], found.renewals[pair]
    assert seen.status == 200
    spent = case.spent and system.renewal != system.login
    assert seen.calls == [system.renewal, system.renewal, *([system.login] if spent else [])]
    assert case.result in seen.results
    assert "operator" not in seen.results
    assert "invalid_credentials" not in seen.results
    # Retry-After, seconds and date (B10); a clock of the sandbox and ours may round to another millisecond.
    assert seen.pauses[0] >= case.pause - 0.01


@pytest.mark.parametrize("pair", PAIRS, ids=IDS)
def test_a_fault_that_does_not_end_is_told_in_words_without_a_hot_loop(pair: tuple[str, str], found: Findings) -> None:
    case, seen = FAULTS[pair[1]], found.sieges[pair]
    assert 1 <= seen.calls <= 2 + WATCHED / max(case.pause, 1.0)
    assert seen.words
    assert not [words for words in seen.words if "eyJ" in words or SECRET in words or "\n" in words]


@pytest.mark.parametrize("shift", SHIFTS, ids=str)
def test_a_provider_whose_clock_is_off_by_ten_minutes_costs_nothing(shift: tuple[str, float], found: Findings) -> None:
    """No dead token is sent, and none is renewed for looking dead (B11): a renewal every half life, as always."""
    seen = found.clocks[shift]
    assert seen.statuses == {200}
    assert 1 <= seen.renewals <= 5


ODD_CLIENT, ODD_SECRET = "back end:1%41", "a%b+c:d/=& ~"
EXTRA = {"audience": "crm & co", "resource": "https://api.example.com/a?b=c"}
HEADERS = {"X-Request-Source": "crm", "Cookie": "a=b"}


def key_pair(file: Path) -> str:
    """Writes the private key; the public one as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem, nothing = serialization.Encoding.PEM, serialization.NoEncryption()
    file.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, nothing))
    return key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo).decode()


async def test_oauth2_proves_the_client_in_each_way_and_sends_what_is_added_to_each_request(tmp_path: Path) -> None:
    """Five identities of one gateway: logins, renewals ahead of the end, no failed request, all seen at the sandbox."""
    clients = (
        Client("public"),
        Client("posting", secret=ODD_SECRET),
        Client(ODD_CLIENT, secret=ODD_SECRET),
        Client("signing", public_key=key_pair(tmp_path / "key.pem")),
        Client("service", secret=ODD_SECRET, service_account=True),
    )
    settings = SandboxSettings(clients=clients, required_role="", access_life=SHORT)
    async with Sandbox(settings) as sandbox:
        common = {"system": "oauth2", "token_url": sandbox.token_url, "extra": EXTRA, "headers": HEADERS}
        common |= {"refresh": {"min_interval": "500ms", "ahead": 0.5}, "scope": "profile"}
        how: dict[str, Identity] = {
            "public": {**user(sandbox)},
            "posting": {**user(sandbox), "client_auth": "post", "client_secret": ODD_SECRET},
            "basic": {**user(sandbox), "client_auth": "basic", "client_secret": ODD_SECRET, "client_id": ODD_CLIENT},
            "signing": {**user(sandbox), "client_auth": "private_key_jwt", "private_key_file": "key.pem"},
            "service": {"grant": "client_credentials", "client_auth": "post", "client_secret": ODD_SECRET},
        }
        config = {
            "identities": {name: {**common, "client_id": name, **section} for name, section in how.items()},
            "routes": [{"path": f"/{name}", "upstream": sandbox.url, "identity": name} for name in how],
        }
        statuses: dict[str, set[int]] = {name: set() for name in how}
        async with running_gateway(config, tmp_path) as gateway, aiohttp.ClientSession() as http:

            async def renewed() -> bool:
                for name, seen in statuses.items():
                    async with http.get(f"{gateway.url}/{name}/devices") as reply:
                        seen.add(reply.status)
                return all(len(calls(sandbox, name)) >= 3 for name in ("public", "posting", "signing", "service"))

            await until(renewed, 20, "two renewals of each")
            assert await gateway.stop() == 0
        assert statuses == {name: {200} for name in how}
        seen = {name: calls(sandbox, name) for name in how}
        for call in (call for each in seen.values() for call in each):
            headers = {name.lower().decode(): value.decode() for name, value in call.headers}
            assert EXTRA.items() <= call.form.items()
            assert {name.lower(): value for name, value in HEADERS.items()}.items() <= headers.items()
        assert [call.grant for call in seen["posting"][:3]] == ["password", "refresh_token", "refresh_token"]
        assert {call.form["client_secret"] for call in seen["posting"]} == {ODD_SECRET}
        assert not {"client_secret", "client_assertion"} & set().union(*(call.form for call in seen["public"]))
        # Form-encoded before base64 (RFC 6749 2.3.1), and not in the form too.
        assert {decoded(call) for call in seen["basic"]} == {"back+end%3A1%2541:a%25b%2Bc%3Ad%2F%3D%26+~"}
        assert not {"client_id", "client_secret"} & set().union(*(call.form for call in seen["basic"]))
        assertions = [call.form["client_assertion"] for call in seen["signing"]]
        assert len(set(assertions)) == len(assertions)
        # No refresh token and no session: each renewal is a login, and nothing is logged out.
        assert {call.grant for call in seen["service"]} == {"client_credentials"}
        assert {call.form.get("scope") for call in seen["service"]} == {"profile"}
        assert sandbox.state.counters["logout_requests"] == 0  # OAuth 2.0 has no such call


def calls(sandbox: Sandbox, name: str) -> list[TokenCall]:
    """Those of one of the identities above: the one that proves itself by Basic names no client in its forms."""
    found = list(sandbox.state.token_calls)
    return [call for call in found if call.form.get("client_id") == (None if name == "basic" else name)]


def decoded(call: TokenCall) -> str:
    (value,) = (value for name, value in call.headers if name.lower() == b"authorization")
    return b64decode(value.removeprefix(b"Basic ")).decode()
