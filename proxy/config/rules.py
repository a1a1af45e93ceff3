"""What must hold between keys.

Pure. Reads the written tree and not the models, so that one wrong value hides no other fault.
"""

from collections.abc import Callable, Iterator
from typing import Any

from proxy.config import schema
from proxy.config.faults import nearest
from proxy.config.web import fold
from proxy.errors import Fault

_Section = dict[str, Any]
_Rule = Callable[[_Section], Iterator[Fault]]
_GRANT_KEYS = {
    "password": {"username", "password"},
    "client_credentials": set[str](),
    "refresh_token": {"refresh_token"},
}
_AUTH_KEYS = {
    "none": set[str](),
    "post": {"client_secret"},
    "basic": {"client_secret"},
    "private_key_jwt": {"private_key", "audience"},
    "tls": set[str](),
}
_OPTIONAL = {"audience"}
_OWN_HEADERS = {"content-type": "", "x-correlation-id": ""}
_AGS_HEADERS = {"x-auth-service-id": "auth_service_id", "nv-tenant-id": "tenant_id", "authorization": ""}
"""Fields that a token request writes itself, and the key that says what into them."""
_FORWARDED = {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"}
_OWN_FORM = {
    "grant_type": "grant",
    "client_id": "client_id",
    "client_secret": "client_auth post or basic, and client_secret_file",
    "username": "grant password, and username",
    "password": "grant password, and password_file",
    "refresh_token": "grant refresh_token, and refresh_token_file",
    "client_assertion": "client_auth private_key_jwt, and private_key_file",
    "client_assertion_type": "client_auth private_key_jwt",
}
"""The same of a form. Not ``scope``: a refresh is sent without the configured one, and a server may ask for it."""
_VEEAM_FORM = {"grant_type": "", "refresh_token": "", "username": "username", "password": "password_file"}


def section(value: object) -> _Section:
    """A mapping without the keys that are null; empty when it is none (another fault says so)."""
    return {key: item for key, item in value.items() if item is not None} if isinstance(value, dict) else {}


def sections(value: object) -> list[tuple[schema.Key, _Section]]:
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    return [(key, section(item)) for key, item in items if isinstance(item, dict)]


def check_tree(tree: _Section) -> list[Fault]:
    """Every rule between keys that a written tree breaks."""
    rules: tuple[Callable[[_Section], Iterator[Fault]], ...] = (
        _shapes,
        _identities,
        _routes,
        _headers,
        _stores,
        _proxies,
    )
    return [fault for rule in rules for fault in rule(tree)]


def _shapes(tree: _Section) -> Iterator[Fault]:
    """What the schema says of a section as a whole: twins, keys that need each other."""
    for place in schema.places(tree):
        if not isinstance(place.value, dict):
            continue
        given, where = section(place.value), schema.dotted
        for node in [node for node in place.nodes if "properties" in node][:1]:
            for name in schema.twins(node):
                if name in given and f"{name}_file" in given:
                    yield Fault(where((*place.path, name)), f"give either {name} or {name}_file, not both")
                if name == node.get("x-needs") and not _has(given, name):
                    yield Fault(where((*place.path, f"{name}_file")), f"is required, or {name} in its place")
            for name, needed in node.get("dependentRequired", {}).items():
                for other in needed:
                    if name in given and other not in given:
                        yield Fault(where((*place.path, other)), f"is required, as {name} is given")


def _has(given: _Section, name: str) -> bool:
    return name in given or f"{name}_file" in given


def _identities(tree: _Section) -> Iterator[Fault]:
    for name, identity in sections(tree.get("identities")):
        path = f"identities.{name}"
        yield from _added_headers(path, identity)
        yield from _added_fields(path, identity)
        if identity.get("system") in ("keycloak", "oauth2"):
            yield from _credentials(path, identity)


def _added_headers(path: str, identity: _Section) -> Iterator[Fault]:
    own = dict(_OWN_HEADERS)
    if identity.get("system") == "ags":
        own |= _AGS_HEADERS
    elif identity.get("client_auth") == "basic":
        own["authorization"] = ""
    names = [str(name) for name in section(identity.get("headers"))]
    for name in names:
        if name.lower() in own:
            instead = f": set {own[name.lower()]}" if own[name.lower()] else ""
            yield Fault(f"{path}.headers.{name}", f"the token request writes this field itself{instead}")
    yield from _twice(f"{path}.headers", names)


def _added_fields(path: str, identity: _Section) -> Iterator[Fault]:
    veeam = identity.get("system") == "veeam"
    own = dict(_VEEAM_FORM if veeam else _OWN_FORM)
    if identity.get("client_auth") == "basic":
        own.pop("client_id", None)  # it is in the header, and a server may ask for it in the form as well
    for name in map(str, section(identity.get("extra"))):
        key = own.get(name.lower() if veeam else name)
        if key is not None:
            instead = f": set {key}" if key else ""
            yield Fault(f"{path}.extra.{name}", f"the token request writes this field itself{instead}")


def _credentials(path: str, identity: _Section) -> Iterator[Fault]:
    """Each grant and each client authentication needs its own keys, and a key nothing uses is a mistake."""
    for choice, default, table in (("grant", "password", _GRANT_KEYS), ("client_auth", "none", _AUTH_KEYS)):
        chosen = identity.get(choice, default)
        if not isinstance(chosen, str) or chosen not in table:
            continue
        for key in sorted(table[chosen] - _OPTIONAL):
            if not _has(identity, key):
                either = f", or {key}_file in its place" if key != "username" else ""
                yield Fault(f"{path}.{key}", f"is required with {choice} {chosen}{either}")
        for key in sorted(set().union(*table.values()) - table[chosen]):
            if _has(identity, key):
                given = key if key in identity else f"{key}_file"
                users = " or ".join(name for name in table if key in table[name])
                yield Fault(f"{path}.{given}", f"is not used with {choice} {chosen}; {choice} {users} would use it")
    if identity.get("client_auth") == "tls" and "cert_file" not in section(identity.get("tls")):
        yield Fault(f"{path}.tls.cert_file", "is required with client_auth tls")
    if identity.get("client_auth") == "tls" and str(identity.get("token_url", "")).lower().startswith("http:"):
        yield Fault(f"{path}.token_url", "expected https:// with client_auth tls: no certificate is shown without TLS")


def _routes(tree: _Section) -> Iterator[Fault]:
    identities = section(tree.get("identities"))
    seen: dict[str, schema.Key] = {}
    for index, route in sections(tree.get("routes")):
        path, prefix, name = f"routes.{index}", route.get("path"), route.get("identity")
        if isinstance(prefix, str):
            plain = prefix.rstrip("/")
            if plain in seen:
                yield Fault(f"{path}.path", f"is the same prefix as that of routes.{seen[plain]}")
            seen.setdefault(plain, index)
        if isinstance(name, str) and name not in identities:
            known = list(identities)
            yield Fault(f"{path}.identity", f"no identity has this name{nearest(name, known) or _listed(known)}")
        elif isinstance(name, str):
            yield from _injected(path, route, section(identities[name]))


def _listed(known: list[str]) -> str:
    return f"; there are: {', '.join(known)}" if known else "; none is configured"


def _injected(path: str, route: _Section, identity: _Section) -> Iterator[Fault]:
    default = "nv-authorizations" if identity.get("system") == "ssp" else "Authorization"
    header = str(section(identity.get("inject")).get("header", default))
    headers = section(route.get("headers"))
    for group in ("set", "remove"):
        names = headers.get(group)
        for name in names if isinstance(names, dict | list) else ():
            if fold(str(name)) == fold(header):
                where = f"{path}.headers.set.{name}" if group == "set" else f"{path}.headers.remove"
                yield Fault(where, f"the identity's token goes into {header}: it cannot be configured here")


def _stores(tree: _Section) -> Iterator[Fault]:
    store = section(tree.get("store"))
    if len(store.keys() & {"file", "redis"}) > 1:
        yield Fault("store", "give either file or redis, not both")


def _proxies(tree: _Section) -> Iterator[Fault]:
    for group in ("identities", "routes"):
        for name, one in sections(tree.get(group)):
            proxy, path = section(one.get("proxy")), f"{group}.{name}.proxy"
            if "username" in proxy and not _has(proxy, "password"):
                yield Fault(f"{path}.password", "is required with username, or password_file in its place")
            if _has(proxy, "password") and "username" not in proxy:
                yield Fault(f"{path}.username", "is required with password")
            if proxy and "url" not in proxy:
                yield Fault(f"{path}.url", "is required: where the proxy listens")


def _headers(tree: _Section) -> Iterator[Fault]:
    for index, route in sections(tree.get("routes")):
        names = [str(name) for name in section(section(route.get("headers")).get("set"))]
        for name in names:
            folded = fold(name)
            if folded == "x-correlation-id" or (route.get("forwarded") is True and folded in _FORWARDED):
                also = "" if folded == "x-correlation-id" else " with forwarded: true"
                yield Fault(f"routes.{index}.headers.set.{name}", f"the gateway writes this field itself{also}")
        yield from _twice(f"routes.{index}.headers.set", names)


def _twice(path: str, names: list[str]) -> Iterator[Fault]:
    lower = [name.lower() for name in names]
    for name in sorted({name for name in lower if lower.count(name) > 1}):
        yield Fault(f"{path}.{name}", "is set twice; the case of a field's name does not matter")
