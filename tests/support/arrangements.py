"""How a site is set up wrongly: what is arranged at its platform, its identity and its route before ``check`` runs."""

import json
import socket
from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from proxy.sandbox import Fault
from tests.support.checks import (
    Answer,
    Arrange,
    Site,
    certified,
    client_certificate,
    demanding,
    private_authority,
    reply,
)
from tests.support.httpproxy import http_proxy

NOT_FOUND = reply("404 Not Found", b"<html><title>Not here</title>", content_type="text/html")


def identity(**changes: Any) -> Arrange:
    return lambda site: site.identity.update(changes)


def fault(kind: Any, **fields: Any) -> Arrange:
    return lambda site: site.sandbox.state.add_fault("token", Fault(kind, **fields))


def user(**changes: Any) -> Arrange:
    return lambda site: vars(site.sandbox.state.users[site.sandbox.username]).update(changes)


def client(**changes: Any) -> Arrange:
    return lambda site: vars(site.sandbox.state.clients["crm_client"]).update(changes)


def realm(**changes: Any) -> Arrange:
    return lambda site: vars(site.sandbox.state.realms["nagra"]).update(changes)


def setting(**changes: Any) -> Arrange:
    return lambda site: vars(site.sandbox.state.settings).update(changes)


def without(*keys: str) -> Arrange:
    return lambda site: [site.identity.pop(key) for key in keys]


def token_url(old: str, new: str) -> Arrange:
    return lambda site: site.identity.update(token_url=site.sandbox.token_url.replace(old, new))


def clock(seconds: float) -> Arrange:
    return lambda site: vars(site.sandbox.state).update(clock_shift=seconds)


def both(*arrangements: Arrange) -> Arrange:
    return lambda site: [arrange(site) for arrange in arrangements]


def service_account(site: Site) -> None:
    for key in ("username", "password", "expect_roles"):
        del site.identity[key]
    site.identity.update(grant="client_credentials", client_auth="basic", client_secret="sandbox-secret")


def answered(answer: bytes) -> Arrange:
    """Something else than a provider answers."""

    async def arrange(site: Site) -> None:
        site.identity["token_url"] = f"http://127.0.0.1:{await site.serve(answer)}/realms/nagra/token"

    return arrange


def by_tls(*names: str, authority: str = "known", trust: bool = True, scheme: str = "https", **life: float) -> Arrange:
    """The provider by TLS, with a certificate of these names. authority: known to the configuration, or other."""

    async def arrange(site: Site) -> None:
        ca = site.authority if authority != "other" else private_authority("Somebody Else")
        port = await site.serve(reply("200 OK"), certified(ca, *names, **life))
        site.identity["token_url"] = f"{scheme}://localhost:{port}/token"
        site.identity["tls"] = {"ca_file": site.ca_file} if trust else {}

    return arrange


def by_proxy(answer: bytes | None = None, *, wants: str | None = None, intercepts: bool = False) -> Arrange:
    """The provider by an HTTP proxy, which gives this answer to CONNECT, wants credentials, or opens TLS itself."""

    async def arrange(site: Site) -> None:
        way = await site.stack.enter_async_context(http_proxy())
        way.answer, way.wants = answer, wants
        site.identity |= {"token_url": "https://kc.example.com/realms/nagra/token", "proxy": way.url}
        if intercepts:
            by = certified(private_authority("Somebody Else"), "localhost")
            site.identity["token_url"] = f"https://localhost:{await site.serve(reply('200 OK'), by)}/token"
            site.identity["tls"] = {"ca_file": site.ca_file}

    return arrange


def mutual(*, unknown: bool = False, at: str = "provider") -> Arrange:
    """The provider, or the upstream, demands a client's certificate. unknown: it gets one of another authority."""

    async def arrange(site: Site) -> None:
        context = certified(site.authority, "127.0.0.1")
        site.authority.configure_trust(context)
        context.verify_mode = context.verify_mode.CERT_REQUIRED
        port = await site.stack.enter_async_context(demanding(context))
        tls: Mapping[str, Any] = {"ca_file": site.ca_file}
        if unknown:
            tls = {"ca_file": site.ca_file, **client_certificate(site.folder, site.name)}
        if at == "provider":
            site.identity |= {"token_url": f"https://127.0.0.1:{port}/token", "tls": tls}
        else:
            site.route |= {"upstream": f"https://127.0.0.1:{port}", "tls": tls}

    return arrange


def signing(site: Site) -> None:
    """A client that proves itself by a signed JWT, with the right key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    vars(site.sandbox.state.clients["crm_client"]).update(public_key=public.decode())
    site.identity.update(client_auth="private_key_jwt", private_key=_pem(key))


def _pem(key: rsa.RSAPrivateKey) -> str:
    nothing = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, nothing).decode()


def another_key(site: Site) -> None:
    signing(site)
    site.identity["private_key"] = _pem(rsa.generate_private_key(public_exponent=65537, key_size=2048))


def ags(**changes: Any) -> Arrange:
    def arrange(site: Site) -> None:
        sandbox = site.sandbox
        who = [{"name": "username", "value": sandbox.username}]
        signing_on = [*who, {"name": "password", "value": sandbox.password}]
        site.identity = {"system": "ags", "base_url": sandbox.ags_url, "auth_service_id": "sso-1", "tenant_id": "nagra"}
        site.identity |= {"sign_on": signing_on, "refresh_parameters": who, "timeout": 3} | changes
        site.route |= {"upstream": sandbox.ags_api_url}

    return arrange


def ags_fault(kind: Any) -> Arrange:
    """Of the refresh, which is all that ``check`` asks after its sign-on."""
    return lambda site: site.sandbox.state.add_fault("ags", Fault(kind, grant="refresh"))


def ags_setting(**changes: Any) -> Arrange:
    return lambda site: vars(site.sandbox.state.settings.ags).update(changes)


def veeam_setting(**changes: Any) -> Arrange:
    return lambda site: vars(site.sandbox.state.settings.veeam).update(changes)


def veeam(**changes: Any) -> Arrange:
    def arrange(site: Site) -> None:
        sandbox = site.sandbox
        site.identity = {"system": "veeam", "token_url": sandbox.veeam_token_url, "timeout": 3}
        site.identity |= {"username": sandbox.username, "password": sandbox.password} | changes
        site.route |= {"upstream": sandbox.veeam_api_url}

    return arrange


async def wrong_ags_path(site: Site) -> None:
    ags()(site)
    site.identity["base_url"] = f"http://127.0.0.1:{await site.serve(NOT_FOUND)}/agsx"


async def wrong_veeam_path(site: Site) -> None:
    veeam()(site)
    site.identity["token_url"] = f"http://127.0.0.1:{await site.serve(NOT_FOUND)}/token"


def ssp(content: str) -> Arrange:
    def arrange(site: Site) -> None:
        site.identity = {"system": "ssp", "credentials_file": site.file(content)}
        site.route |= {"upstream": site.sandbox.ssp_api_url}

    return arrange


def token_file(content: str | None) -> Arrange:
    def arrange(site: Site) -> None:
        site.identity = {"system": "token_file", "file": "nosuch" if content is None else site.file(content)}

    return arrange


def upstream(answer: bytes | Answer) -> Arrange:
    """A server that says this to everybody, or what a function of the request's head says."""

    async def arrange(site: Site) -> None:
        site.route |= {"upstream": f"http://127.0.0.1:{await site.serve(answer)}"}

    return arrange


def mute_upstream(site: Site) -> None:
    """The kernel takes connections there, and nobody says a word."""
    listener = site.stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    site.route |= {"upstream": f"https://127.0.0.1:{listener.getsockname()[1]}", "timeouts": {"connect": 0.5}}


def route(**changes: Any) -> Arrange:
    return lambda site: site.route.update(changes)


def upstream_by_tls(*names: str, trust: bool = True, scheme: str = "https", **life: float) -> Arrange:
    async def arrange(site: Site) -> None:
        port = await site.serve(reply("204 No Content"), certified(site.authority, *names, **life))
        trusting = {"ca_file": site.ca_file} if trust else {}
        site.route |= {"upstream": f"{scheme}://localhost:{port}", "tls": trusting}

    return arrange


def only_get(head: bytes) -> bytes:
    if head.startswith(b"HEAD"):
        return reply("405 Method Not Allowed")
    return reply("200 OK" if b"\r\nAuthorization: Bearer eyJ" in head else "403 Forbidden")


def challenged(_: bytes) -> bytes:
    challenge = 'Bearer realm="x", error="invalid_token", error_description="The audience is not ours"'
    return reply("401 Unauthorized", www_authenticate=challenge)


def result_code(code: str, signed: str = "") -> Answer:
    """Always 200, with a JSON body that has the code."""

    def answer(head: bytes) -> bytes:
        told = signed if signed and b"\r\nAuthorization: Bearer eyJ" in head else code
        body = json.dumps({"resultCode": told, "result": "none"}).encode()
        return reply("200 OK", b"" if head.startswith(b"HEAD") else body, content_type="application/json")

    return answer


def another_header(head: bytes) -> bytes:
    return reply("401 Unauthorized" if b"\r\nAuthorization:" in head else "200 OK")
