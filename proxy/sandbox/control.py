"""The control API under ``/_sandbox``: see and change what the platform does. JSON in, JSON out; no credential leaves
but where one is asked for (``refresh-token``, ``ssp-credentials``).

=============================================== =====================================================================
``GET /_sandbox``                               clock, settings, users, clients, realms, counters, faults, last events
``GET /_sandbox/requests``                      the last requests of either side, without credentials
``GET, POST, PUT, DELETE /_sandbox/faults/E``   E is ``token``, ``logout``, ``ags``, ``veeam`` or ``api``: list, add,
                                                replace all, clear; an object or a list (``faults`` has the kinds)
``DELETE /_sandbox/faults``                     clear them all
``POST /_sandbox/revoke-sessions``              every session ends, and its tokens with it
``POST /_sandbox/revoke-access-tokens``         the API refuses the tokens issued so far, refresh tokens stay good
``POST /_sandbox/not-before``                   ``{"at": unix seconds}``, default now
``POST /_sandbox/clock``                        ``{"shift_s": 600}``: the platform's clock against ours
``POST /_sandbox/refresh-token``                ``{"client_id", "realm", "offline"}``: a seed file's content
``POST /_sandbox/ssp-credentials``              an SSP credentials file's content
``POST /_sandbox/reset``                        as freshly started: no sessions, no faults, the first passwords
``PUT /_sandbox/settings``                      lifetimes, rotation, ``reject`` … (``settings.SandboxSettings``)
``PUT /_sandbox/settings/S``                    S is ``ags``, ``veeam`` or ``ssp``: what each has of its own
``PUT /_sandbox/users/NAME``                    ``password``, ``roles``, ``enabled``, ``fully_set_up``
``PUT /_sandbox/clients/ID``                    ``secret``, ``public_key``, ``certificate_name``, ``enabled``,
                                                ``direct_access_grants``, ``service_account``; an unknown ID is added
``PUT /_sandbox/realms/NAME``                   ``enabled``, ``require_https``
=============================================== =====================================================================

A PUT changes the fields it names. What is wrong is answered with 400 or 404 and ``{"error": words}``.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, cast, get_args

from aiohttp import web

from proxy.sandbox.edit import EditError, edit
from proxy.sandbox.faults import Endpoint, parse_fault
from proxy.sandbox.misbehave import json_response
from proxy.sandbox.settings import Client
from proxy.sandbox.ssp import credentials_file
from proxy.sandbox.state import SandboxState
from proxy.sandbox.verify import shown_headers

PREFIX = "/_sandbox"

_HIDDEN = frozenset({"password", "secret", "signing_key", "clients", "users", "realms", "ags", "veeam", "ssp"})
_ENDPOINTS: tuple[str, ...] = get_args(Endpoint)
SeedMaker = Callable[[str | None, str | None, bool], str]


class Control:
    """The handlers. ``make_seed`` answers a refresh token for (client id, realm, offline), None for the defaults."""

    def __init__(self, state: SandboxState, make_seed: SeedMaker) -> None:
        self._state = state
        self._make_seed = make_seed
        self._actions: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "revoke-sessions": lambda _: {"sessions": state.revoke_sessions()},
            "revoke-access-tokens": lambda _: {"tokens": state.revoke_access_tokens()},
            "not-before": self._not_before,
            "clock": self._clock,
            "refresh-token": self._seed,
            "ssp-credentials": lambda _: credentials_file(state.settings.ssp),
            "reset": self._reset,
        }

    async def handle(self, request: web.Request) -> web.StreamResponse:
        head, _, tail = request.path.removeprefix(PREFIX).strip("/").partition("/")
        try:
            raw = json.loads(await request.read() or b"{}")
            return json_response(200, self._answer(request.method, head, tail, raw))
        except EditError as exc:
            return json_response(exc.status, {"error": str(exc)})
        except ValueError as exc:
            return json_response(400, {"error": str(exc)})

    def _answer(self, method: str, head: str, tail: str, raw: object) -> dict[str, Any]:
        if method == "GET" and not head:
            return self.overview()
        if method == "GET" and head == "requests":
            return {"requests": self._requests(), "token_requests": self._token_requests()}
        if head == "faults":
            return self._faults(method, tail, raw)
        if method == "PUT":
            return _visible(self._edit(head, tail, raw))
        if method == "POST" and head in self._actions:
            if not isinstance(raw, dict):
                raise EditError(400, "expected a JSON object")
            return self._actions[head](raw)
        raise EditError(404, f"nothing answers {method} {PREFIX}/{head[:40]}")

    def overview(self) -> dict[str, Any]:
        """Everything there is to see, without passwords and secrets."""
        state = self._state
        return {
            "now": state.now(),
            "clock_shift_s": state.clock_shift,
            "not_before": state.not_before,
            "sessions": len(state.sessions),
            "counters": dict(state.counters),
            "faults": {name: [asdict(fault) for fault in queue] for name, queue in state.faults.items()},
            "settings": _visible(state.settings),
            **{name: _visible(own) for name, own in self._own().items()},
            "users": [_visible(user) for user in state.users.values()],
            "clients": [_visible(client) for client in state.clients.values()],
            "realms": [_visible(realm) for realm in state.realms.values()],
            "events": list(state.events)[-50:],
        }

    def _own(self) -> dict[str, object]:
        settings = self._state.settings
        return {"ags": settings.ags, "veeam": settings.veeam, "ssp": settings.ssp}

    def _requests(self) -> list[dict[str, Any]]:
        return [
            {
                "at": seen.at,
                "method": seen.method,
                "target": seen.target,
                "system": seen.system,
                "verdict": seen.verdict,
                "fingerprint": seen.fingerprint,
                "headers": shown_headers(seen.headers),
            }
            for seen in self._state.received
        ]

    def _token_requests(self) -> list[dict[str, Any]]:
        return [
            {
                "at": seen.at,
                "operation": seen.operation,
                "realm": seen.realm,
                "grant": seen.grant,
                "fields": list(seen.form),
                "headers": shown_headers(seen.headers),
            }
            for seen in self._state.token_calls
        ]

    def _faults(self, method: str, endpoint: str, raw: object) -> dict[str, Any]:
        queues = self._state.faults
        if method == "DELETE" and not endpoint:
            self._state.clear_faults()
            return {"faults": []}
        if endpoint not in _ENDPOINTS:
            raise EditError(404, f"faults belong to one of {', '.join(_ENDPOINTS)}")
        queue = queues[cast(Endpoint, endpoint)]
        if method in ("POST", "PUT"):
            faults = [parse_fault(item) for item in (raw if isinstance(raw, list) else [raw])]
            queue[:] = [*(queue if method == "POST" else ()), *faults]
        elif method == "DELETE":
            queue.clear()
        elif method != "GET":
            raise EditError(405, "GET, POST, PUT or DELETE")
        return {"faults": [asdict(fault) for fault in queue]}

    def _edit(self, kind: str, name: str, raw: object) -> object:
        if kind == "settings" and not name:
            return edit(self._state.settings, raw)
        tables: dict[str, dict[str, Any]] = {
            "settings": self._own(),
            "users": self._state.users,
            "clients": self._state.clients,
            "realms": self._state.realms,
        }
        if kind == "clients" and name and name not in self._state.clients:
            self._state.clients[name] = edit(Client(name), raw)
        elif name not in tables.get(kind, {}):
            raise EditError(
                404, "expected settings[/SYSTEM], users/NAME or realms/NAME of one that exists, or clients/ID"
            )
        return edit(tables[kind][name], raw)

    def _not_before(self, raw: dict[str, Any]) -> dict[str, Any]:
        at = raw.get("at")
        if at is not None and (isinstance(at, bool) or not isinstance(at, int)):
            raise EditError(400, "at: expected Unix seconds as a whole number")
        return {"not_before": self._state.push_not_before(at)}

    def _clock(self, raw: dict[str, Any]) -> dict[str, Any]:
        shift = raw.get("shift_s")
        if isinstance(shift, bool) or not isinstance(shift, (int, float)) or abs(shift) > 1e9:
            raise EditError(400, "shift_s: expected seconds")
        self._state.clock_shift = float(shift)
        return {"now": self._state.now(), "clock_shift_s": self._state.clock_shift}

    def _seed(self, raw: dict[str, Any]) -> dict[str, Any]:
        client, realm = raw.get("client_id"), raw.get("realm")
        if client is not None and client not in self._state.clients:
            raise EditError(400, "client_id: no such client")
        if realm is not None and realm not in self._state.realms:
            raise EditError(400, "realm: no such realm")
        return {"refresh_token": self._make_seed(client, realm, raw.get("offline") is True)}

    def _reset(self, _raw: dict[str, Any]) -> dict[str, Any]:
        self._state.reset()
        return self.overview()


def _visible(shown: object) -> dict[str, Any]:
    """A dataclass without its secrets; the settings without the tables that stand beside them."""
    return {name: value for name, value in vars(shown).items() if name not in _HIDDEN}
