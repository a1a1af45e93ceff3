"""Whether the operator API takes a token, and in which words it refuses one."""

import hashlib

from aiohttp import web

from proxy.sandbox import ags, veeam
from proxy.sandbox.signing import Claims, Signer, expired
from proxy.sandbox.ssp import judge_ssp
from proxy.sandbox.state import SandboxState, System
from proxy.sandbox.verdicts import Verdict

_MAX_CACHED = 4096
_CREDENTIALS = frozenset({"authorization", "proxy-authorization", "nv-authorizations", "x-api-key"})


def fingerprint(value: str) -> str:
    """The first 8 hex digits of the SHA-256 of a credential: enough to tell two apart, not to use one."""
    return hashlib.sha256(value.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def shown_headers(headers: tuple[tuple[bytes, bytes], ...]) -> list[list[str]]:
    """Names and values as they came, in order; a credential's value becomes its fingerprint, the scheme stays."""
    shown = []
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1"), raw_value.decode("latin-1")
        if name.lower() in _CREDENTIALS:
            scheme, space, token = value.partition(" ")
            value = f"{scheme} sha256:{fingerprint(token)}" if space else f"sha256:{fingerprint(value)}"
        shown.append([name, value])
    return shown


class Verifier:
    """Judges the credential of a request. A signature is checked once; time, session and role at every request."""

    def __init__(self, state: SandboxState, signer: Signer) -> None:
        self._state = state
        self._signer = signer
        self._verified: dict[tuple[System, str], Claims] = {}

    def system(self, path: str) -> tuple[System, str]:
        """Whose credential the API asks for at a path, and the path below that system's prefix."""
        settings = self._state.settings
        prefixes: tuple[tuple[System, str], ...] = (
            ("ags", settings.ags.api_prefix),
            ("veeam", settings.veeam.api_prefix),
            ("ssp", settings.ssp.api_prefix),
        )
        for system, prefix in prefixes:
            if prefix and (path == prefix or path.startswith(f"{prefix}/")):
                return system, path.removeprefix(prefix) or "/"
        return "keycloak", path

    def judge(self, system: System, request: web.Request) -> tuple[Verdict, str]:
        """The verdict on a request's credential, and the credential's fingerprint ("" without one)."""
        name, scheme = self._place(system)
        values = request.headers.getall(name, ())
        if len(values) != 1:
            return ("repeated" if values else "missing"), ""
        given, space, token = values[0].partition(" ")
        if not scheme:
            return ("scheme" if space else self._verdict(system, given)), fingerprint(token or given)
        if given.lower() != scheme.lower():
            return "scheme", fingerprint(token or given)
        return self._verdict(system, token), fingerprint(token)

    def _place(self, system: System) -> tuple[str, str]:
        """The header a system's credential comes in, and the scheme word before it."""
        if system == "ssp":
            return "nv-authorizations", ""
        if system == "ags":
            return self._state.settings.ags.api_header, self._state.settings.ags.api_scheme
        return "Authorization", "Bearer"

    def _verdict(self, system: System, token: str) -> Verdict:
        if system == "ssp":
            return judge_ssp(token, self._state.settings.ssp, self._state.now())
        claims = self._verified.get((system, token))
        if claims is None:
            claims = self._read(system, token)
            if claims is None:
                return "signature"
            if len(self._verified) >= _MAX_CACHED:
                self._verified.clear()
            self._verified[system, token] = claims
        return self._judge_claims(system, claims)

    def _read(self, system: System, token: str) -> Claims | None:
        """The claims of an access token of that system that was signed here, else None."""
        if system == "ags":
            claims = self._signer.read_ags(token)
            return claims if claims is not None and claims["typ"] == ags.ACCESS else None
        if system == "veeam":
            claims = self._signer.read_veeam(token)
            return claims if claims is not None and claims["aud"] == veeam.ACCESS_AUDIENCE else None
        return self._signer.read_access(token)

    def _judge_claims(self, system: System, claims: Claims) -> Verdict:
        state = self._state
        if (ags.expired_token if system == "ags" else expired)(claims, state.now()):
            return "expired"
        if system == "keycloak" and claims["iat"] < state.not_before:
            return "stale"
        if state.settings.check_session and not state.access_alive(claims["jti"]):
            return "revoked"
        role = state.settings.required_role
        if system == "keycloak" and role and role not in claims["realm_access"]["roles"]:
            return "role"
        return "valid"
