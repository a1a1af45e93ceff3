"""``identities``: one managed token each. Which keys there are depends on ``system``."""

from typing import Annotated, Any, Literal

from pydantic import Field

from proxy.config.base import ClientTls, Model, one_of
from proxy.config.forwardproxy import ForwardProxy
from proxy.config.secrets import Secret
from proxy.config.types import Duration, FilePath, Flag, Part
from proxy.config.web import BaseUrl, CredentialHeader, EndpointUrl, HeaderName, HeaderValue, Label, Scheme

Grant = Literal["password", "client_credentials", "refresh_token"]
ClientAuth = Literal["none", "post", "basic", "private_key_jwt", "tls"]


class Refresh(Model):
    """When a token is refreshed before its end."""

    ahead: Part = Field(
        default=0.25, gt=0, lt=1, description="Part of the token's life, before its end, in which it is refreshed."
    )
    ahead_max: Annotated[float, Duration(1, 86400)] = Field(
        default=60.0, description="The ahead window is never longer than this."
    )
    jitter: Part = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Moves an early refresh earlier by up to this part, so that replicas spread out.",
    )
    min_interval: Annotated[float, Duration(0.1, 3600)] = Field(
        default=5.0, description="Early refreshes are at least this far apart."
    )
    idle_interval: Annotated[float, Duration(1, 30 * 86400)] = Field(
        default=86400.0,
        description="A refresh token is used at least this often, even without traffic, so that a session that ends "
        "when unused (Keycloak's offline session) never does; at most a tenth of its idle time.",
    )


class Inject(Model):
    """The header field that carries the token to the upstream."""

    header: CredentialHeader = Field(default="Authorization", description="Name of the header field.")
    scheme: Scheme = Field(default="Bearer", description='Word before the token; "" for the bare token.')


class Parameter(Model):
    """One named parameter of an AGS sign-on."""

    model_config = one_of("value")

    name: Label = Field(description="The parameter's name, as /servicediscovery lists it.")
    value: Secret | None = Field(default=None, description="Its value.")
    value_file: FilePath | None = Field(default=None, description="File that holds its value.")


class IdentityBase(Model):
    """What every identity has."""

    timeout: Annotated[float, Duration(0.1, 600)] = Field(
        default=10.0, description="One exchange with the token endpoint; also the longest a request waits for a token."
    )
    refresh: Refresh = Field(default=Refresh(), description="When the token is refreshed before its end.")
    inject: Inject = Field(default=Inject(), description="The header field that carries the token to the upstream.")
    expect_roles: list[Label] = Field(
        default=[], description="Roles the token should carry; `check` and a warning at login name those that it lacks."
    )

    @property
    def binding(self) -> tuple[str | None, ...]:
        """Whom the configuration logs in as, and where: a pair that was stored for another binding is not used."""
        return ()


class RemoteIdentity(IdentityBase):
    """An identity whose token comes from a server."""

    tls: ClientTls = Field(default=ClientTls(), description="TLS towards the token endpoint.")
    proxy: ForwardProxy = Field(
        default=ForwardProxy(),
        description="HTTP proxy on the way to the token endpoint: its URL, `none`, or a mapping. By default what "
        "HTTPS_PROXY, HTTP_PROXY and NO_PROXY say; never for this machine's own addresses.",
    )
    headers: dict[HeaderName, HeaderValue] = Field(
        default={}, repr=False, description="Further header fields of token requests."
    )
    logout: Flag = Field(
        default=True,
        description="End the session at exit, when the gateway opened it itself and owns it alone. For keycloak and "
        "ags: of oauth2 and veeam no logout is known, and their sessions end by themselves.",
    )

    @property
    def endpoint(self) -> str:
        """The URL that tokens come from, or that their endpoints are under."""
        raise NotImplementedError

    @property
    def account(self) -> str:
        """Whom it logs in as, for people."""
        raise NotImplementedError


class TokenEndpointIdentity(RemoteIdentity):
    """An RFC 6749 token endpoint: what ``keycloak`` and ``oauth2`` share."""

    token_url: EndpointUrl = Field(description="The token endpoint's URL, whole; it is never composed.")
    grant: Grant = Field(
        default="password", description="How the first token is had. Later ones come by refresh where possible."
    )
    client_id: Label = Field(description="The client's identifier at the provider.")
    client_auth: ClientAuth = Field(default="none", description="How the client proves who it is. It is never probed.")
    client_secret: Secret | None = Field(default=None, description="Secret of client_auth post and basic.")
    client_secret_file: FilePath | None = Field(default=None, description="File that holds the client secret.")
    username: Label | None = Field(default=None, description="User of grant password.")
    password: Secret | None = Field(default=None, description="Password of grant password.")
    password_file: FilePath | None = Field(default=None, description="File that holds the password.")
    scope: Label | None = Field(default=None, description="Scopes to ask for, separated by spaces.")
    refresh_token: Secret | None = Field(default=None, description="First refresh token of grant refresh_token.")
    refresh_token_file: FilePath | None = Field(
        default=None, description="File that holds the first refresh token; it is only read, never written."
    )
    private_key: Secret | None = Field(default=None, description="PEM private key of client_auth private_key_jwt.")
    private_key_file: FilePath | None = Field(default=None, description="File that holds the PEM private key.")
    audience: Label | None = Field(default=None, description="Audience of private_key_jwt; by default the token URL.")
    extra: dict[Label, str] = Field(
        default={}, repr=False, description="Further form fields, at login and at refresh; none that other keys fill."
    )

    @property
    def endpoint(self) -> str:
        return self.token_url

    @property
    def account(self) -> str:
        return self.username or self.client_id

    @property
    def binding(self) -> tuple[str | None, ...]:
        return self.token_url, self.grant, self.client_id, self.username, self.scope


class KeycloakIdentity(TokenEndpointIdentity):
    """Keycloak, and the OpenTV Video Platform, which runs one."""

    system: Literal["keycloak"] = Field(description="Which kind of system issues the token.")


class OAuth2Identity(TokenEndpointIdentity):
    """Any RFC 6749 server."""

    system: Literal["oauth2"] = Field(description="Which kind of system issues the token.")


class AgsIdentity(RemoteIdentity):
    """Nagra's Authentication Gateway Service."""

    system: Literal["ags"] = Field(description="Which kind of system issues the token.")
    base_url: BaseUrl = Field(description="URL that /signOn and /refresh are under.")
    auth_service_id: Label = Field(description="Value of x-auth-service-id; may contain spaces.")
    tenant_id: Label = Field(description="Value of nv-tenant-id.")
    sign_on: list[Parameter] = Field(min_length=1, description="Parameters of /signOn.")
    refresh_parameters: list[Parameter] = Field(default=[], description="Parameters of /refresh.")
    device: dict[str, Any] = Field(
        default={}, description="deviceInformation of the first sign-on; left out when empty."
    )

    @property
    def endpoint(self) -> str:
        return self.base_url

    @property
    def account(self) -> str:
        names = [part.value.get_secret_value() for part in self.sign_on if part.name == "username" and part.value]
        return names[0] if names else self.auth_service_id

    @property
    def binding(self) -> tuple[str | None, ...]:
        shared = {part.name for part in self.refresh_parameters} | {"username"}
        named = [(part.name, part.value.get_secret_value() if part.value else "") for part in self.sign_on]
        # Not the password: a changed one opens no other session.
        who = (f"{name}={value if name in shared else ''}" for name, value in named)
        return self.base_url, self.auth_service_id, self.tenant_id, *who


class VeeamIdentity(RemoteIdentity):
    """Veeam Backup for Azure and what speaks like it."""

    model_config = one_of("password")

    system: Literal["veeam"] = Field(description="Which kind of system issues the token.")
    token_url: EndpointUrl = Field(description="The token endpoint's URL, whole.")
    username: Label = Field(description="User name.")
    password: Secret | None = Field(default=None, description="Password.")
    password_file: FilePath | None = Field(default=None, description="File that holds the password.")
    extra: dict[Label, str] = Field(
        default={}, repr=False, description="Further form fields, at login and at refresh; none that other keys fill."
    )

    @property
    def endpoint(self) -> str:
        return self.token_url

    @property
    def account(self) -> str:
        return self.username

    @property
    def binding(self) -> tuple[str | None, ...]:
        return self.token_url, self.username


class SspIdentity(IdentityBase):
    """OpenTV's SSP scheme: the gateway signs the tokens itself."""

    system: Literal["ssp"] = Field(description="Which kind of system issues the token.")
    credentials_file: FilePath = Field(description="The platform's credentials file (JSON, with the signing key).")
    lifetime: Annotated[float, Duration(5, 86400)] = Field(
        default=300.0, description="Life of each token the gateway signs."
    )
    inject: Inject = Field(
        default=Inject(header="nv-authorizations", scheme=""),
        description="The header field that carries the token; by default nv-authorizations, without a scheme.",
    )


class TokenFileIdentity(IdentityBase):
    """A token in a file that something else keeps fresh."""

    system: Literal["token_file"] = Field(description="Which kind of system issues the token.")
    file: FilePath = Field(
        description="File that holds the token; waited for when missing, read again when it changes."
    )


Identity = Annotated[
    KeycloakIdentity | OAuth2Identity | AgsIdentity | VeeamIdentity | SspIdentity | TokenFileIdentity,
    Field(discriminator="system"),
]
