"""The configuration's root and its small sections. Names and defaults are what users see: renaming one breaks them."""

from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, Literal

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from proxy.config.base import ListenTls, Model, one_of
from proxy.config.identities import Identity
from proxy.config.routes import Route
from proxy.config.secrets import Secret
from proxy.config.types import Address, Count, Duration, FilePath, Flag, ListenAddress, NetworkField, PlacePath, Size
from proxy.config.web import CredentialHeader, Label, UserName

IDENTITY_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
IdentityName = Annotated[str, Field(pattern=IDENTITY_NAME)]


class Listen(Model):
    """The proxied port. Written as ``host:port``, or as a mapping when there is more to say."""

    address: ListenAddress = Field(default=Address("127.0.0.1", 8080), description="host:port of the proxied port.")
    reuse_port: Flag = Field(default=False, description="Let several processes listen on the same port (SO_REUSEPORT).")
    tls: ListenTls | None = Field(default=None, description="TLS on the proxied port; null serves plain HTTP.")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: object) -> object:
        if isinstance(data, dict | cls):
            return data
        if isinstance(data, str | Address):
            return {"address": data}
        raise ValueError("expected host:port, such as 127.0.0.1:8080, or a mapping with keys such as address, tls")

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        mapping = handler.resolve_ref_schema(handler(core))
        return {"anyOf": [dict(mapping["properties"]["address"]), mapping]}


class BasicUser(Model):
    """One client that presents a user name and a password (RFC 7617)."""

    model_config = one_of("password")

    password: Secret | None = Field(default=None, description="The client's password.")
    password_file: FilePath | None = Field(default=None, description="File that holds the client's password.")


class ApiKeys(Model):
    """Clients that present a key in a header field."""

    model_config = one_of("keys")

    header: CredentialHeader = Field(default="X-Api-Key", description="Header field that carries the key.")
    keys: list[Secret] | None = Field(default=None, min_length=1, description="The keys.")
    keys_file: FilePath | None = Field(
        default=None, description="File with one key a line; lines that begin with # are comments."
    )


class Clients(Model):
    """Who may use the gateway: it lends operator rights to whoever reaches it."""

    allow_from: list[NetworkField] = Field(
        default=[IPv4Network("127.0.0.0/8"), IPv6Network("::1/128")], description="Networks that clients may come from."
    )
    trusted_proxies: list[NetworkField] = Field(default=[], description="Networks whose X-Forwarded-For is believed.")
    basic: dict[UserName, BasicUser] = Field(
        default={}, description="Clients with a password, by user name (RFC 7617)."
    )
    api_keys: ApiKeys | None = Field(default=None, description="Clients with a key in a header field.")
    require: Literal["any", "all"] = Field(
        default="any",
        description="With several of basic, api_keys and client certificates: does any one admit, or are all needed.",
    )
    open: Flag = Field(
        default=False, description="true permits to listen beyond loopback, open to the world, without any credential."
    )


class Limits(Model):
    """What clients may take up."""

    connections: Count = Field(default=10000, ge=1, le=1000000, description="Client connections at one time.")
    connections_per_address: Count = Field(
        default=1000, ge=1, le=1000000, description="Of them, from one address; an IPv6 /64 counts as one."
    )
    head_time: Annotated[float, Duration(0.1, 3600)] = Field(
        default=20.0, description="For a request's head to arrive whole."
    )
    body_idle: Annotated[float, Duration(0.1, 86400)] = Field(
        default=60.0, description="Longest silence inside a request's body."
    )
    keepalive: Annotated[float, Duration(0.1, 86400)] = Field(
        default=75.0, description="Longest wait for the next request."
    )
    head_size: Annotated[int, Size(1024, 2**24)] = Field(
        default=65536, description="A request's head, request line included."
    )
    target_size: Annotated[int, Size(64, 2**20)] = Field(
        default_factory=lambda before: min(16384, before.get("head_size", 16384)),
        json_schema_extra={"default": 16384},
        description="A request's target, which is part of the head: where head_size is less, that is the default.",
    )


class FileStore(Model):
    """Token pairs, encrypted, in files, shared by the processes of one host."""

    path: PlacePath = Field(
        description="One file for all identities; or a folder, one that exists or ends with a slash, with a file each."
    )
    key_file: FilePath = Field(
        description="One key a line, 32 random bytes in base64 each; the first encrypts, all decrypt."
    )


class RedisStore(Model):
    """Token pairs, encrypted, in Redis, shared by replicas."""

    model_config = one_of("url")

    url: Secret | None = Field(
        default=None,
        description="redis://, rediss://, unix://, redis+sentinel:// or redis+cluster:// URL, with user and password "
        "if needed, and options of redis-py in its query.",
    )
    url_file: FilePath | None = Field(default=None, description="File that holds the URL.")
    key_file: FilePath = Field(
        description="One key a line, 32 random bytes in base64 each; the first encrypts, all decrypt."
    )
    prefix: Label = Field(default="opentv-proxy:", description="Begins every key in Redis.")


class Store(Model):
    """Where token pairs outlive the process. Written as ``memory``, ``{file: …}`` or ``{redis: …}``."""

    file: FileStore | None = Field(default=None, description="Token pairs, encrypted, in files.")
    redis: RedisStore | None = Field(default=None, description="Token pairs, encrypted, in Redis, shared by replicas.")

    @property
    def kind(self) -> Literal["memory", "file", "redis"]:
        return "file" if self.file else "redis" if self.redis else "memory"

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: object) -> object:
        if isinstance(data, dict | cls):
            return data
        if data != "memory":
            raise ValueError("expected memory, {file: {path, key_file}} or {redis: {url_file, key_file, prefix}}")
        return {}

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"const": "memory", "type": "string"}, handler.resolve_ref_schema(handler(core))]}


class Shutdown(Model):
    """How the gateway ends."""

    drain: Annotated[float, Duration(0, 3600)] = Field(
        default=25.0, description="For requests in flight to finish after SIGTERM."
    )


class Log(Model):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severity that is written."
    )
    format: Literal["json", "console"] = Field(
        default="json", description="One JSON object a line, or lines for people."
    )
    access: Literal["all", "errors", "off"] = Field(
        default="all",
        description="Which requests are written. errors: those answered with 400 or more, by the gateway or by the "
        "upstream (not 499, a client that left), and answers that were broken off in the middle.",
    )


class Config(Model):
    """The whole configuration of the gateway."""

    listen: Listen = Field(default=Listen(), description="The proxied port: host:port, or a mapping.")
    admin: ListenAddress = Field(
        default=Address("127.0.0.1", 9090),
        description="host:port of probes, metrics and status; never on the proxied port.",
    )
    clients: Clients = Field(default=Clients(), description="Who may use the gateway.")
    identities: dict[IdentityName, Identity] = Field(default={}, description="One managed token each, by name.")
    routes: list[Route] = Field(
        min_length=1, description="Which path goes to which upstream, signed by which identity."
    )
    limits: Limits = Field(default=Limits(), description="What clients may take up.")
    store: Store = Field(default=Store(), description="Where token pairs outlive the process: memory, or a mapping.")
    shutdown: Shutdown = Field(default=Shutdown(), description="How the gateway ends.")
    log: Log = Field(default=Log(), description="What is written to standard error.")
    uvloop: Flag = Field(default=True, description="Use uvloop's event loop where it is installed.")

    def __repr__(self) -> str:
        """No content: a repr in a traceback is no place for a site's whole set-up."""
        return f"<Config of {len(self.identities)} identities, {len(self.routes)} routes>"

    __str__ = __repr__
