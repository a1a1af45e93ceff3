"""``routes``: which path goes to which upstream, signed by which identity."""

from typing import Annotated, Literal

from pydantic import Field

from proxy.config.base import ClientTls, Model
from proxy.config.forwardproxy import ForwardProxy
from proxy.config.types import Count, Duration, Flag, Size
from proxy.config.web import AllowRule, BaseUrl, HeaderName, HeaderValue, Label, RoutePath

Status = Annotated[int, Field(ge=300, le=599)]


class RouteHeaders(Model):
    """Changes to a request's header fields on the way to the upstream."""

    set: dict[HeaderName, HeaderValue] = Field(
        default={}, repr=False, description="Fields to set; a client's own of the same name are replaced."
    )
    remove: list[HeaderName] = Field(default=[], description="Fields to drop.")


class Rejected(Model):
    """How this upstream says that a token is bad."""

    statuses: list[Status] = Field(default=[401, 403], description="Statuses that mean it.")
    result_codes: list[Label] = Field(
        default=["99999:403"],
        description="Values of the top-level `resultCode` of a JSON body (up to 64 KiB, any status) that mean it.",
    )


class Timeouts(Model):
    """How long an upstream may take."""

    connect: Annotated[float, Duration(0.01, 600)] = Field(default=5.0, description="To a connection, TLS included.")
    response: Annotated[float, Duration(0.01, 86400)] = Field(
        default=60.0, description="From the request sent to the response's head."
    )
    idle: Annotated[float, Duration(0.01, 86400)] = Field(
        default=300.0, description="Longest silence inside an upstream's body; tunnels and event streams excepted."
    )


class Route(Model):
    """One path prefix. The longest prefix wins, on whole path segments."""

    path: RoutePath = Field(description="Path prefix. It is also the metrics' `route` label.")
    upstream: BaseUrl = Field(description="Where requests go: scheme, host, port, optional base path.")
    identity: str | None = Field(default=None, description="Name of the identity that signs; null forwards unsigned.")
    strip_prefix: Flag = Field(
        default=False, description="Whether `path` is cut off before the upstream sees the target."
    )
    host: Literal["upstream", "preserve"] = Field(
        default="upstream", description="Whose Host the upstream sees: its own, or the client's."
    )
    headers: RouteHeaders = Field(default=RouteHeaders(), description="Changes to the request's header fields.")
    forwarded: Flag = Field(
        default=False,
        description="true: adds X-Forwarded-For, -Proto and -Host as seen here. "
        "A client's own are dropped unless it is a trusted proxy.",
    )
    allow: list[AllowRule] = Field(
        default=[],
        description='What may be asked for, such as "GET /adm/**"; empty allows everything. '
        "* stands for any method, or for text within a path segment, ** for whole segments.",
    )
    rejected: Rejected = Field(default=Rejected(), description="How this upstream says that a token is bad.")
    replay_limit: Annotated[int, Size(0, 2**30)] = Field(
        default=2**20, description="Request bodies up to this size can be sent again after a refresh."
    )
    max_body: Annotated[int, Size(0, 2**50)] = Field(
        default=2**30, description="Longer request bodies are refused (413)."
    )
    timeouts: Timeouts = Field(default=Timeouts(), description="How long the upstream may take.")
    tls: ClientTls = Field(default=ClientTls(), description="TLS towards the upstream.")
    proxy: ForwardProxy = Field(
        default=ForwardProxy(),
        description="HTTP proxy on the way to the upstream: its URL, `none`, or a mapping. "
        "By default what HTTPS_PROXY, HTTP_PROXY and NO_PROXY say; never for this machine's own addresses.",
    )
    max_connections: Count = Field(default=256, ge=1, le=65535, description="Connections to the upstream at one time.")
