"""Who a token request says it comes from, as Keycloak judges it (RFC 6749 2.3): none, post, basic, private_key_jwt or
tls.
"""

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote_plus

from proxy.sandbox.assertions import check_assertion, claimed_client
from proxy.sandbox.forms import same
from proxy.sandbox.replies import RefusalError
from proxy.sandbox.settings import Client
from proxy.sandbox.state import SandboxState

_BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_WORDS = "Invalid client or Invalid client credentials"


@dataclass(frozen=True)
class ClientRequest:
    """What of a request says who sends it. issuer: the realm's URL. certificate: its TLS certificate's common name."""

    form: Mapping[str, str] = field(repr=False)
    authorization: str | None = field(repr=False)
    issuer: str
    certificate: str


def authenticate(state: SandboxState, request: ClientRequest) -> Client:
    """The client this request proves to be. Raises RefusalError with the status and words Keycloak 26 uses."""
    form = request.form
    client_id, secret = form.get("client_id"), form.get("client_secret")
    if request.authorization is not None and request.authorization[:6].lower() == "basic ":
        client_id, secret = _basic(request.authorization[6:])
    elif "client_assertion" in form:
        client_id = claimed_client(form)
    client = state.clients.get(client_id or "")
    if client is None or not client.enabled:
        raise RefusalError(401, "invalid_client", _WORDS)
    if client.public_key is not None:
        check_assertion(state, client, form, request.issuer)
    elif client.certificate_name is not None:
        if client.certificate_name != request.certificate:
            raise RefusalError(401, "unauthorized_client", _WORDS)
    elif "client_assertion" in form or (client.secret is not None and not same(client.secret, secret or "")):
        raise RefusalError(401, "unauthorized_client", _WORDS)
    return client


def _basic(credentials: str) -> tuple[str, str]:
    """Id and secret, each form-decoded: a raw ``%`` in them is the error the platform reports as unexpected."""
    try:
        name, _, secret = base64.b64decode(credentials.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as exc:
        raise RefusalError(401, "invalid_client", _WORDS) from exc
    if _BROKEN_ESCAPE.search(name) or _BROKEN_ESCAPE.search(secret):
        raise RefusalError(400, "unauthorized_client", "Unexpected error when authenticating client")
    return unquote_plus(name), unquote_plus(secret)
