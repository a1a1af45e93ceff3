"""The configuration: what it may say (models), how it is read (load_config), what it says now (render_effective)."""

from proxy.config.base import ClientTls, ListenTls, files_of
from proxy.config.effective import render_effective
from proxy.config.files import ConfigFiles
from proxy.config.forwardproxy import ForwardProxy
from proxy.config.identities import (
    AgsIdentity,
    ClientAuth,
    Grant,
    Identity,
    IdentityBase,
    Inject,
    KeycloakIdentity,
    OAuth2Identity,
    Parameter,
    Refresh,
    RemoteIdentity,
    SspIdentity,
    TokenEndpointIdentity,
    TokenFileIdentity,
    VeeamIdentity,
)
from proxy.config.load import Loaded, load_config, parse_config
from proxy.config.model import (
    ApiKeys,
    BasicUser,
    Clients,
    Config,
    FileStore,
    Limits,
    Listen,
    Log,
    RedisStore,
    Shutdown,
    Store,
)
from proxy.config.routes import Rejected, Route, RouteHeaders, Timeouts
from proxy.config.safety import warnings
from proxy.config.schema import json_schema, schema_text
from proxy.config.secrets import SecretValue
from proxy.config.types import Address
from proxy.config.watch import FileWatcher

__all__ = [
    "Address",
    "AgsIdentity",
    "ApiKeys",
    "BasicUser",
    "ClientAuth",
    "ClientTls",
    "Clients",
    "Config",
    "ConfigFiles",
    "FileStore",
    "FileWatcher",
    "ForwardProxy",
    "Grant",
    "Identity",
    "IdentityBase",
    "Inject",
    "KeycloakIdentity",
    "Limits",
    "Listen",
    "ListenTls",
    "Loaded",
    "Log",
    "OAuth2Identity",
    "Parameter",
    "RedisStore",
    "Refresh",
    "Rejected",
    "RemoteIdentity",
    "Route",
    "RouteHeaders",
    "SecretValue",
    "Shutdown",
    "SspIdentity",
    "Store",
    "Timeouts",
    "TokenEndpointIdentity",
    "TokenFileIdentity",
    "VeeamIdentity",
    "files_of",
    "json_schema",
    "load_config",
    "parse_config",
    "render_effective",
    "schema_text",
    "warnings",
]
