"""Every system through the keeper: lost answers, nonsense, pauses, clocks (B7, B9, B10, B11), devices, files, seeds."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.config import (
    AgsIdentity,
    IdentityBase,
    KeycloakIdentity,
    OAuth2Identity,
    SspIdentity,
    TokenFileIdentity,
    VeeamIdentity,
)
from proxy.errors import TokenError, TokenUnavailableError
from proxy.metrics import Metrics
from proxy.tokens.factory import build_keeper
from proxy.tokens.keeper import Keeper
from proxy.tokens.source import Credential
from proxy.tokens.stores.memory import MemoryStore
from proxy.tokens.systems.base import Reply, TokenRequest
from tests.support.tokens import TOKEN_URL, FakeClock, Journal, Wing, held, jwt, replied, settle

LOST = TokenError("network", "the connection broke", lost=True)
PARTS = [{"name": "username", "value": "dave"}, {"name": "password", "value": "d4ve"}]
AGS = {"base_url": "https://ags.example.com/ags", "auth_service_id": "sso-1", "tenant_id": "nagra", "sign_on": PARTS}
USER = {"username": "dave", "password": "d4ve"}
OAUTH = {"token_url": TOKEN_URL, "client_id": "crm", **USER}
REMOTE: dict[str, IdentityBase] = {
    "keycloak": KeycloakIdentity.model_validate({"system": "keycloak", **OAUTH}),
    "oauth2": OAuth2Identity.model_validate({"system": "oauth2", **OAUTH}),
    "ags": AgsIdentity.model_validate({"system": "ags", **AGS, "device": {"model": "x"}}),
    "veeam": VeeamIdentity.model_validate({"system": "veeam", "token_url": "https://10.0.0.5/token", **USER}),
}


class Provider:
    """Answers any of the systems. script: what comes first, for token calls. calls: (kind, seconds since the start)."""

    def __init__(self, clock: FakeClock, offset: float = 0.0) -> None:
        self.clock, self.offset = clock, offset
        self.script: list[Reply | TokenError] = []
        self.calls: list[tuple[str, float]] = []
        self.requests: list[TokenRequest] = []
        self.life, self.session = 300, 2592000

    async def exchange(
        self, request: TokenRequest, correlation_id: str, *, probing: bool = False, within: float | None = None
    ) -> Reply:
        assert correlation_id
        assert (probing, within) in ((True, None), (False, None), (False, 3.0))
        kind = "login"
        if request.url.lower().endswith(("out",)):
            kind = "logout"
        elif request.url.endswith("/refresh") or b"grant_type=refresh_token" in request.body.lower():
            kind = "refresh"
        self.calls.append((kind, round(self.clock.mono() - 1000.0, 3)))
        self.requests.append(request)
        if self.script and kind != "logout":
            step = self.script.pop(0)
            if isinstance(step, TokenError):
                raise step
            return step
        now = int(self.clock.wall() + self.offset)
        ends = int(self.session - (self.clock.mono() - 1000.0))
        fields = {
            "access_token": jwt(iat=now, exp=now + self.life, jti=len(self.calls)),
            "refresh_token": jwt(iat=now, exp=now + 86400, jti=-len(self.calls)),
            "expires_in": self.life,
            "token_type": "bearer",
            "client_id": "device-7",
            "fixed_refresh_expires_in": max(ends, 3600),
        }
        return replied(200, fields)

    def reread_tls(self) -> None:
        """There is none."""

    async def close(self) -> None:
        """Nothing is open."""

    def kinds(self) -> list[str]:
        return [kind for kind, _ in self.calls]


Start = Callable[..., Awaitable[tuple[Keeper, Provider, FakeClock]]]


@pytest.fixture
def journal() -> Journal:
    """The log of every keeper that ``start`` starts."""
    return Journal()


@pytest.fixture
async def start(journal: Journal) -> AsyncIterator[Start]:
    """A started keeper of an identity, its provider and the clock that both live by."""
    made: list[tuple[Keeper, FakeClock]] = []

    async def started(
        identity: IdentityBase, *script: Reply | TokenError, offset: float = 0.0
    ) -> tuple[Keeper, Provider, FakeClock]:
        clock = FakeClock()
        provider = Provider(clock, offset)
        provider.script = list(script)
        parts: dict[str, Any] = {"store": MemoryStore(), "metrics": Metrics("test"), "log": journal, "clock": clock}
        keeper = build_keeper("x", identity, draw=lambda: 0.0, transport=provider, **parts)
        await keeper.start()
        await settle()
        made.append((keeper, clock))
        return keeper, provider, clock

    yield started
    for keeper, clock in made:
        closing = asyncio.ensure_future(keeper.close())
        while not closing.done():
            await clock.advance(0.5)
        await closing


@pytest.mark.parametrize("name", REMOTE)
@pytest.mark.parametrize("lost", [LOST, replied(502), replied(200, b'{"access_token": "ey'), replied(200, b"")])
async def test_a_lost_rotation_costs_one_further_use_and_one_login(
    start: Start, name: str, lost: Reply | TokenError
) -> None:
    keeper, provider, clock = await start(REMOTE[name])
    provider.script = [lost, lost]
    await clock.advance(290)
    assert keeper.current() is not None
    assert provider.kinds() == ["login", "refresh", "refresh", "login"]


NONSENSE = {
    "null": replied(200, b"null"),
    "numbers": replied(200, {"access_token": 7, "expires_in": 300}),
    "empty": replied(200, {"access_token": "", "expires_in": 300}),
    "CRLF": replied(200, {"access_token": "a\r\nX-Evil: 1", "expires_in": 300}),
    "HTML": replied(200, b"<html>Sorry</html>"),
    "redirect": replied(302, location="https://elsewhere.example.com"),
    "MAC": replied(200, {"access_token": "a", "token_type": "mac", "expires_in": 300}),
    "too large": TokenError("malformed", "longer than 1 MiB", lost=True),
    "dead": replied(200, {"access_token": jwt(iat=1, exp=1), "token_type": "bearer"}),
}


@pytest.mark.parametrize("name", REMOTE)
@pytest.mark.parametrize("answer", NONSENSE.values(), ids=list(NONSENSE))
async def test_nonsense_is_refused_in_words_and_makes_no_hot_loop(
    start: Start, name: str, answer: Reply | TokenError
) -> None:
    keeper, provider, clock = await start(REMOTE[name], *[answer] * 1000)
    await clock.advance(60)
    assert 3 <= len(provider.calls) <= 15
    assert keeper.current() is None
    with pytest.raises(TokenUnavailableError) as caught:
        await keeper.obtain()
    assert "Evil" not in caught.value.words
    provider.script = []
    await clock.advance(20)
    assert keeper.current() is not None


@pytest.mark.parametrize("name", REMOTE)
@pytest.mark.parametrize("value", ["40", "Tue, 14 Nov 2023 22:14:00 GMT"])
async def test_a_provider_that_says_when_is_asked_then(start: Start, name: str, value: str) -> None:
    keeper, provider, clock = await start(REMOTE[name], replied(429, retry_after=value))
    await clock.advance(39)
    assert provider.kinds() == ["login"]
    await clock.advance(3)
    assert provider.kinds() == ["login", "login"]
    assert keeper.current() is not None


@pytest.mark.parametrize("name", REMOTE)
async def test_refused_credentials_are_tried_again_after_a_minute_and_then_two(start: Start, name: str) -> None:
    no = replied(401, {"error": "invalid_grant", "error_description": "Invalid user credentials"})
    no = replied(401) if name in ("ags", "veeam") else no
    keeper, provider, clock = await start(REMOTE[name], no, no, no)
    await clock.advance(200)
    assert [at for _, at in provider.calls] == [0, 60, 180]
    assert keeper.status()["state"] == "suspended"


@pytest.mark.parametrize("name", REMOTE)
@pytest.mark.parametrize("offset", [-600, 600])
async def test_clocks_that_jump_or_differ_cost_one_refresh_at_most(start: Start, name: str, offset: float) -> None:
    keeper, provider, clock = await start(REMOTE[name], offset=offset)
    await clock.advance(100)
    assert provider.kinds() == ["login"]
    clock.set_wall(7200)
    await clock.advance(5)
    clock.set_wall(-7200)
    await clock.advance(5)
    assert len(provider.calls) <= 2
    clock.suspend(3600)
    assert keeper.current() is None
    await keeper.obtain()
    assert provider.kinds()[-1] == "refresh"
    assert len(provider.calls) <= 3


async def test_a_device_is_introduced_once_and_after_ags_forgot_it(start: Start) -> None:
    keeper, provider, clock = await start(REMOTE["ags"])
    assert b"deviceInformation" in provider.requests[0].body
    provider.script = [replied(401), replied(404)]
    clock.suspend(400)
    await keeper.obtain()
    assert provider.kinds() == ["login", "refresh", "login", "login"]
    assert b'"clientId":"device-7"' in provider.requests[2].body
    assert b"deviceInformation" in provider.requests[3].body


@pytest.mark.parametrize(
    ("answers", "kinds", "later"),
    [
        ([replied(400), replied(403), replied(403)], ["refresh", "login", "login"], []),
        ([replied(400), replied(404), replied(401)], ["refresh", "login", "login"], []),
        ([replied(400), replied(401)], ["refresh", "login"], []),
        ([LOST, LOST, replied(404)], ["refresh", "refresh", "login"], ["login"]),
    ],
)
async def test_a_forgotten_device_costs_one_more_sign_on_and_a_refused_password_none(
    start: Start, answers: list[Reply | TokenError], kinds: list[str], later: list[str]
) -> None:
    keeper, provider, clock = await start(REMOTE["ags"])
    provider.script = answers
    clock.suspend(400)
    waiting = asyncio.ensure_future(keeper.obtain())
    await clock.advance(1.5)
    assert provider.kinds() == ["login", *kinds]
    await clock.advance(5)
    assert provider.kinds() == ["login", *kinds, *later]
    assert keeper.usable() == bool(later)
    with pytest.raises(TokenUnavailableError):
        await waiting


async def test_an_ags_session_is_replaced_before_its_fixed_end_and_signed_out(start: Start) -> None:
    keeper, provider, clock = await start(REMOTE["ags"])
    provider.session = 0
    for _ in range(72):
        await clock.advance(10)
        assert keeper.current() is not None
    assert provider.kinds().count("login") == 1
    keeper, provider, clock = await start(REMOTE["ags"], replied(201, {**GRANTED, "fixed_refresh_expires_in": 900}))
    await clock.advance(900)
    assert provider.kinds().count("login") == 2
    assert provider.kinds().count("logout") == 1
    assert (keeper.current() is not None) == (provider.calls[-1][1] < 900)


GRANTED = {"access_token": "first", "refresh_token": "r", "expires_in": 300, "client_id": "device-7"}


def token_file(file: Path, **changes: Any) -> IdentityBase:
    values = {"system": "token_file", "file": str(file), "timeout": "4s"}
    return TokenFileIdentity.model_validate(values | changes)


async def test_a_missing_token_file_is_waited_for(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "token"
    keeper, provider, clock = await start(token_file(file))
    await clock.advance(30)
    assert keeper.usable() is False
    with pytest.raises(TokenUnavailableError, match="does not exist"):
        await keeper.obtain()
    file.write_text("eyJhbGciOi")
    await clock.advance(10)
    with pytest.raises(TokenUnavailableError, match="cut off"):
        await keeper.obtain()
    file.write_text(jwt(exp=clock.wall() + 300))
    await clock.advance(3)
    assert keeper.usable() is True
    assert provider.calls == []


async def test_a_rejected_token_waits_for_its_file_to_change_at_most_the_timeout(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("opaque-1")
    keeper, _, clock = await start(token_file(file))
    credential = keeper.current()
    assert credential is not None
    waiting = keeper.rejected(credential)
    assert waiting is not None
    assert not isinstance(waiting, Credential)
    await clock.advance(2)
    file.write_text("opaque-2")
    await clock.advance(0.5)
    newer = await waiting
    assert newer is not None
    assert newer.line == b"Authorization: Bearer opaque-2\r\n"
    keeper.served(newer)
    before = clock.mono()
    waiting = keeper.rejected(newer)
    assert waiting is not None
    assert not isinstance(waiting, Credential)
    await clock.advance(4)
    assert (await waiting) is None
    assert clock.mono() == before + 4
    assert keeper.rejected(newer) is None


async def refused(keeper: Keeper, clock: FakeClock) -> float:
    """Seconds that a request waits whose token the platform refuses, and that gets no other."""
    began = clock.mono()
    outcome = keeper.rejected(held(keeper))
    if outcome is not None:
        assert not isinstance(outcome, Credential)
        waiting = asyncio.ensure_future(outcome)
        await settle()
        while not waiting.done():
            await clock.advance(0.25)
        assert (await waiting) is None
    return clock.mono() - began


@pytest.mark.parametrize("token", ["opaque", "a JWT"])
async def test_a_rejection_that_the_file_does_not_cure_is_no_failure_and_is_waited_for_ever_more_rarely(
    start: Start, journal: Journal, tmp_path: Path, token: str
) -> None:
    file = tmp_path / "token"
    keeper, _, clock = await start(token_file(file))
    file.write_text("opaque-1" if token == "opaque" else jwt(exp=clock.wall() + 86400))
    await clock.advance(2)
    waits = []
    for _ in range(200):
        seconds = await refused(keeper, clock)
        waits += [round(clock.mono() - seconds - 1002, -1)] if seconds else []
        status = keeper.status()
        assert (status["state"], status["consecutive_failures"]) == ("fresh", 0)
        await clock.advance(10 - seconds)
    assert waits == [0, 30, 90, 210, 450, 930, 1830]
    assert [level for level, event, _ in journal.lines if "failed" in event] == ["warning"]  # missing, at the start
    file.write_text("opaque-2")
    keeper.credentials_changed()
    await clock.advance(0.1)
    assert b"opaque-2" in held(keeper).line


async def test_why_a_token_file_cannot_be_used_is_told_from_the_first_look_on(
    start: Start, journal: Journal, tmp_path: Path
) -> None:
    keeper, _, clock = await start(token_file(tmp_path / "token"))
    last = keeper.status()["last_refresh"]
    assert isinstance(last, dict)
    assert "does not exist" in last["detail"]
    assert len(journal.events("token exchange failed")) == 1
    await clock.advance(4)
    assert len(journal.events("token exchange failed")) == 1


async def test_a_changed_file_is_taken_up_though_the_old_token_works(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("opaque-1")
    keeper, _, clock = await start(token_file(file))
    file.write_text("opaque-2")
    keeper.credentials_changed()
    await clock.advance(0.1)
    credential = held(keeper)
    assert b"opaque-2" in credential.line
    file.write_text("")
    keeper.credentials_changed()
    await clock.advance(10)
    assert keeper.current() is credential


async def test_a_token_in_a_file_that_dies_is_not_sent(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "token"
    keeper, _, clock = await start(token_file(file, timeout="2s"))
    file.write_text(jwt(exp=clock.wall() + 100))
    await clock.advance(3)
    assert keeper.current() is not None
    await clock.advance(100)
    assert keeper.current() is None
    with pytest.raises(TokenUnavailableError, match="has expired"):
        await keeper.obtain()


async def test_ssp_tokens_are_renewed_ahead_of_their_end_and_when_the_key_changes(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "credentials.json"
    file.write_text(json.dumps({"credentialId": "1", "signingKey": "a2V5"}))
    identity = SspIdentity.model_validate({"system": "ssp", "credentials_file": str(file), "lifetime": "60s"})
    keeper, provider, clock = await start(identity)
    first = keeper.current()
    assert first is not None
    assert first.line.startswith(b"nv-authorizations: eyJ")
    for _ in range(60):
        await clock.advance(5)
        assert keeper.current() is not None
    second = keeper.current()
    file.write_text(json.dumps({"credentialId": "2", "signingKey": "a2V5"}))
    keeper.credentials_changed()
    await clock.advance(0.1)
    assert keeper.current() is not second
    file.write_text("{")
    keeper.credentials_changed()
    await clock.advance(5)
    assert keeper.current() is not None
    clock.suspend(3600)
    assert keeper.current() is None
    await clock.advance(10)
    with pytest.raises(TokenUnavailableError, match="is no JSON"):
        await keeper.obtain()
    assert provider.calls == []


async def test_another_seed_opens_another_session_though_the_old_one_works(wing: Wing, tmp_path: Path) -> None:
    file = tmp_path / "refresh-token.txt"
    file.write_text(wing.provider.seed())
    keeper = await wing.started(grant="refresh_token", refresh_token_file=str(file))
    keeper.credentials_changed()
    await wing.clock.advance(1)
    assert wing.provider.count("refresh_token") == 1
    file.write_text(wing.provider.seed())
    keeper.credentials_changed()
    await wing.clock.advance(1)
    assert wing.refreshes()[("login", "credentials_changed", "success")] == 1
    file.write_text("session-9-0")
    keeper.credentials_changed()
    await wing.clock.advance(400)
    assert keeper.current() is not None
    assert wing.provider.open_sessions() == 2
    stored = await wing.store.load("opentv")
    assert stored is not None
    assert stored.seed is not None


async def test_after_a_restart_a_seed_that_was_replaced_meanwhile_is_taken_up(wing: Wing, tmp_path: Path) -> None:
    file = tmp_path / "refresh-token.txt"
    file.write_text(wing.provider.seed())
    first = await wing.started(grant="refresh_token", refresh_token_file=str(file))
    await first.stop_renewing()
    await wing.started(grant="refresh_token", refresh_token_file=str(file))
    await wing.clock.advance(2)
    assert wing.provider.count("refresh_token") == 1
    file.write_text(wing.provider.seed())
    third = await wing.started(grant="refresh_token", refresh_token_file=str(file))
    assert third.current() is not None
    await wing.clock.advance(2)
    assert wing.refreshes()[("login", "credentials_changed", "success")] == 1


@pytest.mark.parametrize(("interval", "times"), [("1h", 24), ("12h", 2), ("24h", 1)])
async def test_an_idle_session_is_used_as_often_as_configured(wing: Wing, interval: str, times: int) -> None:
    wing.provider.offline, wing.provider.maximum, wing.provider.life = True, 1e9, 40 * 86400
    await wing.started(refresh={"idle_interval": interval})
    await wing.clock.skip(86400 + 600)
    assert abs(wing.provider.count("refresh_token") - times) <= (times > 10)
