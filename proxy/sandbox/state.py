"""Everything a sandbox remembers, open to be read and edited by tests while it runs.

One event loop owns it; nothing here waits, so no lock guards it.
"""

import base64
import copy
import secrets
import uuid
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from proxy.sandbox.faults import Endpoint, Fault
from proxy.sandbox.settings import Client, Realm, SandboxSettings, User

System = Literal["keycloak", "ags", "veeam", "ssp"]
Event = dict[str, str | int | float]

_MAX_ISSUED = 20_000
_MAX_SESSIONS = 20_000
_MAX_DEVICES = 20_000
_MAX_ASSERTIONS = 20_000


@dataclass
class Session:
    """One login. ``detached``: its client was cut off after a reused refresh token (Keycloak's K4 behaviour).

    realm, client_id: of AGS the service and the device's id, of Veeam "".
    last_used: jti of the refresh token presented last, last_uses: how often. spent: the jtis presented before that one;
    Keycloak compares whole seconds here, which lets a reuse within one second pass, and a test must not miss it.
    """

    sid: str
    realm: str
    client_id: str
    username: str
    scope: str
    offline: bool
    started: int
    last_refresh: int
    system: System = "keycloak"
    detached: bool = False
    last_used: str = ""
    last_uses: int = 0
    spent: deque[str] = field(default_factory=lambda: deque(maxlen=1000))


@dataclass
class Attempts:
    """A user's password failures, for the quick login check. Times are the sandbox's own, in seconds."""

    last_failure: float = float("-inf")
    locked_until: float = float("-inf")
    in_progress: bool = False


@dataclass(frozen=True, slots=True)
class Received:
    """One request the API saw. ``headers`` are the raw ones, kept out of ``repr`` since a token is among them.

    system: whose token the API asked for at that path. fingerprint: of the credential that came, "" without one.
    """

    at: float
    method: str
    target: str
    verdict: str
    fingerprint: str
    headers: tuple[tuple[bytes, bytes], ...] = field(repr=False)
    system: System = "keycloak"


@dataclass(frozen=True, slots=True)
class TokenCall:
    """One request a token system saw, faults included. Form and headers are kept out of ``repr``.

    realm: of AGS the ``x-auth-service-id``, of Veeam "". grant: the grant type, of AGS the call's name. form: the
    fields, of AGS the JSON object; {} when it was neither. certificate: the common name of the caller's TLS certificate
    or "".
    """

    at: float
    operation: Endpoint
    realm: str
    grant: str
    form: Mapping[str, Any] = field(repr=False)
    headers: tuple[tuple[bytes, bytes], ...] = field(repr=False)
    certificate: str = ""


class SandboxState:
    """Users, sessions, counters, faults and the clock of one sandbox.

    counters: what succeeded (``logins``, ``refreshes``, ``client_credentials``, ``logouts``); every attempt, those that
    met a fault included (``token_requests``, ``token_requests_<grant>``, ``logout_requests``, ``api_requests``); what
    was refused (``token_refusals``, ``reused_refresh_tokens``, ``lockouts``, ``api_rejections``,
    ``api_rejections_<why>``); faults met (``faults_token``, ``faults_logout``, ``faults_api``). Those of the other
    systems have the system's name in front or, with faults, behind: ``ags_logins``, ``ags_refreshes``, ``ags_logouts``,
    ``ags_requests``, ``ags_requests_signOn``, ``ags_refusals``, ``ags_reused_refresh_tokens``, ``ags_api_requests``,
    ``ags_api_rejections``, ``faults_ags``, and so on. Absent ones read 0.
    received, token_calls: the last requests of either side. devices: AGS's client ids and their users. assertions: when
    each private_key_jwt seen may be forgotten, by client and jti.
    """

    def __init__(self, settings: SandboxSettings, clock: Callable[[], float]) -> None:
        self._initial = copy.deepcopy(settings)
        if self._initial.password is None:
            self._initial.password = secrets.token_urlsafe(18)
        if self._initial.ssp.signing_key is None:
            self._initial.ssp.signing_key = base64.b64encode(secrets.token_bytes(32)).decode()
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Back to the state of a fresh start: the same users, passwords and keys, but no sessions and no faults."""
        self.settings = copy.deepcopy(self._initial)
        self.users: dict[str, User] = {user.username: user for user in self.settings.users}
        self.users.setdefault(
            self.settings.username, User(self.settings.username, password=str(self.settings.password))
        )
        self.clients: dict[str, Client] = {client.client_id: client for client in self.settings.clients}
        self.clients.setdefault(self.settings.client_id, Client(self.settings.client_id))
        self.realms: dict[str, Realm] = {realm.name: realm for realm in self.settings.realms}
        self.sessions: dict[str, Session] = {}
        self.issued: dict[str, str | None] = {}
        self.attempts: dict[str, Attempts] = {}
        self.devices: dict[str, str] = {}
        self.assertions: dict[tuple[str, str], float] = {}
        self.faults: dict[Endpoint, list[Fault]] = {"token": [], "logout": [], "api": [], "ags": [], "veeam": []}
        self.counters: Counter[str] = Counter()
        self.events: deque[Event] = deque(maxlen=200)
        self.received: deque[Received] = deque(maxlen=100)
        self.token_calls: deque[TokenCall] = deque(maxlen=100)
        self.clock_shift = 0.0
        self.not_before = 0

    def now(self) -> float:
        """Unix seconds by the platform's own clock."""
        return self._clock() + self.clock_shift

    def record(self, kind: str, **details: str | int | float) -> None:
        self.events.append({"at": round(self.now(), 3), "kind": kind, **details})

    def count(self, system: System, what: str) -> None:
        """One more of a counter that every system has; Keycloak's have no prefix."""
        self.counters[what if system == "keycloak" else f"{system}_{what}"] += 1

    def open_session(
        self, realm: str, client_id: str, username: str, scope: str, system: System = "keycloak"
    ) -> Session:
        now = int(self.now())
        session = Session(
            sid=str(uuid.uuid4()),
            realm=realm,
            client_id=client_id,
            username=username,
            scope=scope,
            offline="offline_access" in scope.split(),
            started=now,
            last_refresh=now,
            system=system,
        )
        _drop_oldest(self.sessions, _MAX_SESSIONS)
        self.sessions[session.sid] = session
        return session

    def session_ends(self, session: Session) -> int | None:
        """When the session ends unless it is refreshed, in Unix seconds; None for an offline one, which idles out."""
        if session.offline:
            return None
        if session.system == "veeam":
            return session.last_refresh + self.settings.veeam.refresh_life
        lives = self.settings.ags if session.system == "ags" else self.settings
        return min(session.last_refresh + lives.refresh_life, session.started + lives.session_max)

    def session_alive(self, session: Session) -> bool:
        ends = self.session_ends(session)
        if ends is None:
            ends = session.last_refresh + self.settings.offline_idle
        return self.sessions.get(session.sid) is session and int(self.now()) <= ends

    def spend(self, session: Session, jti: str) -> str | None:
        """Count this use of a refresh token; a use too many detaches the session, so the valid successor dies too.

        The answer is then what Keycloak says of it, else None.
        """
        if not self.settings.rotation:
            return None
        words = None
        if jti in session.spent:
            words = "Stale token"
        elif jti == session.last_used and session.last_uses > self.settings.max_reuse:
            words = "Maximum allowed refresh token reuse exceeded"
        if words is not None:
            session.detached = True
            self.count(session.system, "reused_refresh_tokens")
            self.record("refresh_token_reused", system=session.system, user=session.username, words=words)
            return words
        if jti != session.last_used:
            if session.last_used:
                session.spent.append(session.last_used)
            session.last_used, session.last_uses = jti, 0
        session.last_uses += 1
        return None

    def remember_device(self, client_id: str, username: str) -> None:
        _drop_oldest(self.devices, _MAX_DEVICES)
        self.devices[client_id] = username

    def first_use(self, client_id: str, jti: str, until: float) -> bool:
        """Whether a private_key_jwt was not seen before; from now on it was, until it is too old anyway."""
        now = self.now()
        if self.assertions.get((client_id, jti), now) > now:
            return False
        _drop_oldest(self.assertions, _MAX_ASSERTIONS)
        self.assertions[client_id, jti] = until
        return True

    def remember_access(self, jti: str, sid: str | None) -> None:
        _drop_oldest(self.issued, _MAX_ISSUED)
        self.issued[jti] = sid

    def access_alive(self, jti: str) -> bool:
        """Whether the access token was issued here, not revoked since, and its session (if any) still stands."""
        if jti not in self.issued:
            return False
        sid = self.issued[jti]
        if sid is None:
            return True
        session = self.sessions.get(sid)
        return session is not None and not session.detached and self.session_alive(session)

    def revoke_sessions(self) -> int:
        """End every session, as an administrator's "sign out all"; the access tokens die with them. Says how many."""
        ended = len(self.sessions)
        self.sessions.clear()
        self.issued.clear()
        self.record("sessions_revoked", sessions=ended)
        return ended

    def revoke_access_tokens(self) -> int:
        """Make the API refuse every access token issued so far; the sessions and refresh tokens stay good."""
        revoked = len(self.issued)
        self.issued.clear()
        self.record("access_tokens_revoked", tokens=revoked)
        return revoked

    def push_not_before(self, at: int | None = None) -> int:
        """Set the not-before policy (default: now): tokens with an older ``iat`` are refused."""
        self.not_before = int(self.now()) if at is None else at
        self.record("not_before", policy=self.not_before)
        return self.not_before

    def add_fault(self, endpoint: Endpoint, fault: Fault) -> None:
        self.faults[endpoint].append(fault)

    def clear_faults(self) -> None:
        for queue in self.faults.values():
            queue.clear()


def _drop_oldest(mapping: dict[Any, Any], limit: int) -> None:
    while len(mapping) >= limit:
        del mapping[next(iter(mapping))]
