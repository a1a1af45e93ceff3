"""Where a Keycloak realm's token endpoint is, when it is not where token_url says: a few harmless GETs on that host."""

import re
from collections.abc import Awaitable, Callable
from typing import Final

from proxy.errors import TokenError
from proxy.tokens.systems.base import Reply, TokenRequest
from proxy.tokens.systems.replies import json_object

_PREFIXES: Final = ("", "/auth", "/keycloak/auth", "/keycloak")
_URL: Final = re.compile(r"(https?://[^/?#]+)([^?#]*?)/realms/([^/?#]+)[^?#]*(?:\?.*)?")


def name_in(token_url: str) -> str:
    """The realm that a token URL names; "" when it names none."""
    match = _URL.fullmatch(token_url)
    return match[3] if match else ""


async def token_endpoint(token_url: str, ask: Callable[[TokenRequest], Awaitable[Reply]]) -> str:
    """The URL to use in its place; "" when the realm is at none of the usual paths either. ask: may raise TokenError.

    By OpenID Connect Discovery 1.0, section 4: a realm has its document below its own path.
    """
    match = _URL.fullmatch(token_url)
    if match is None:
        return ""
    origin, prefix, realm = match.groups()
    for path in dict.fromkeys((prefix, *_PREFIXES)):
        document = f"{origin}{path}/realms/{realm}/.well-known/openid-configuration"
        try:
            reply = await ask(TokenRequest("GET", document, (("Accept", "application/json"),), b""))
        except TokenError:
            return ""
        if reply.status == 200 and isinstance((json_object(reply) or {}).get("token_endpoint"), str):
            found = f"{origin}{path}/realms/{realm}/protocol/openid-connect/token"
            return found if found != token_url.partition("?")[0] else ""
    return ""
