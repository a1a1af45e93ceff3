"""``proxy`` of routes and identities: an HTTP proxy on the way to a server, from the file or from the environment."""

from collections.abc import Iterator, Mapping
from ipaddress import ip_address, ip_network
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from proxy.config.base import Model
from proxy.config.secrets import Secret, SecretValue
from proxy.config.types import Address, FilePath
from proxy.config.web import ProxyUrl, UserName

NONE = "none"


class ForwardProxy(Model):
    """An HTTP proxy on the way to a server. Written as its URL, as `none`, or as a mapping where it wants to know who
    asks."""

    url: ProxyUrl | None = Field(default=None, description="Where it listens: http://host:port.")
    username: UserName | None = Field(default=None, description="User name it wants (Basic, RFC 7617).")
    password: Secret | None = Field(default=None, description="That user's password.")
    password_file: FilePath | None = Field(default=None, description="File that holds the password.")

    @property
    def place(self) -> tuple[str, int] | None:
        """Host and port; None for a direct way."""
        if self.url is None:
            return None
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or 80

    def credentials(self) -> tuple[str, str] | None:
        """User name and password as they are now. Raises SecretError when a file cannot be read."""
        secret: SecretValue | None = self.secret("password")
        return None if self.username is None or secret is None else (self.username, secret.read())

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: object) -> object:
        if isinstance(data, dict | cls):
            return data
        if not isinstance(data, str):
            raise ValueError(
                "expected none, a URL such as http://proxy.example.com:3128, or a mapping with the key url"
            )
        return {} if data == NONE else {"url": data}

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        short = {"type": "string", "pattern": "^(none|http://[^/?#@]+/?)$"}
        return {"anyOf": [short, handler.resolve_ref_schema(handler(core))]}


def from_environment(tree: Mapping[str, Any], environ: Mapping[str, str]) -> Iterator[tuple[list[str], object, str]]:
    """What ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY`` say for each server that names no ``proxy`` of its own: the
    place, what to write there, and the variable. The lower-case names win, as everywhere."""
    routes, identities = tree.get("routes"), tree.get("identities")
    servers: list[tuple[list[str], Any, tuple[str, ...]]] = []
    if isinstance(routes, list):
        servers += [(["routes", str(index)], route, ("upstream",)) for index, route in enumerate(routes)]
    if isinstance(identities, dict):
        servers += [(["identities", str(name)], one, ("token_url", "base_url")) for name, one in identities.items()]
    for place, section, keys in servers:
        if not isinstance(section, dict) or section.get("proxy") is not None:
            continue
        for url in (section.get(key) for key in keys):
            if isinstance(url, str) and (named := _named(url, environ)) is not None:
                yield [*place, "proxy"], *named


def _named(url: str, environ: Mapping[str, str]) -> tuple[object, str] | None:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return None  # another fault says so
    name, value = variable(environ, f"{parts.scheme}_proxy")
    if not value or exempt(host, port, environ):
        return None
    return _written(value if "://" in value else f"http://{value}"), name


def variable(environ: Mapping[str, str], name: str) -> tuple[str, str]:
    """What a variable such as ``https_proxy`` is called here, and its value; the lower-case name wins."""
    name = name if environ.get(name) else name.upper()
    return name, environ.get(name, "").strip()


def exempt(host: str, port: int, environ: Mapping[str, str]) -> bool:
    """Whether no proxy is asked for this host: this machine, and what ``NO_PROXY`` lists, which are names (and what is
    below them), addresses, networks, or ``*`` for everything."""
    entries = variable(environ, "no_proxy")[1].lower().split(",")
    return Address(host, 0).is_loopback or any(_covers(entry.strip(), host.lower(), port) for entry in entries)


def _covers(entry: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    try:
        return ip_address(host) in ip_network(entry, strict=False)
    except ValueError:
        pass
    name, colon, wanted = entry.rpartition(":")
    if colon and wanted.isdigit() and ":" not in name.strip("[]"):
        if int(wanted) != port:
            return False
        entry = name
    entry = entry.removeprefix("*").lstrip(".").strip("[]")
    return bool(entry) and (host == entry or host.endswith(f".{entry}"))


def _written(value: str) -> object:
    """The variable's URL as a person would write it here: credentials do not belong in a URL."""
    try:
        parts: SplitResult = urlsplit(value)
    except ValueError:
        return value
    user, at, place = parts.netloc.rpartition("@")
    if not at:
        return value
    name, _, password = user.partition(":")
    return {"url": f"{parts.scheme}://{place}", "username": unquote(name), "password": unquote(password)}
