"""What a sandbox is made of: realms, clients, users, lifetimes. All times are whole seconds unless a name says so.

Everything here may be edited while the sandbox runs (``sandbox.state.settings.access_life = 5``); the next request
sees it. Secrets stay out of every ``repr``.
"""

from dataclasses import dataclass, field
from typing import Literal

RejectStyle = Literal["401", "403", "200"]

OPERATOR_ROLE = "operatorRole"
PLATFORM_REALM = "nagra"


@dataclass
class Client:
    """One OAuth client, known in every realm. With neither of the three credentials it is public (RFC 6749 2.1).

    secret: by post or basic. public_key: PEM, RSA or P-256; the client proves itself by private_key_jwt (RFC 7523).
    certificate_name: the common name its TLS certificate must carry (RFC 8705 2.1, of the subject the CN only).
    """

    client_id: str
    secret: str | None = field(default=None, repr=False)
    enabled: bool = True
    direct_access_grants: bool = True
    service_account: bool = False
    public_key: str | None = field(default=None, repr=False)
    certificate_name: str | None = None

    @property
    def public(self) -> bool:
        return self.secret is None and self.public_key is None and self.certificate_name is None


@dataclass
class User:
    """One user, known in every realm. ``fully_set_up`` False: Keycloak's "required action" is pending."""

    username: str
    password: str = field(repr=False)
    roles: tuple[str, ...] = (OPERATOR_ROLE, "offline_access", "uma_authorization")
    enabled: bool = True
    fully_set_up: bool = True


@dataclass
class Realm:
    """One realm; ``require_https`` makes it refuse everybody while the sandbox speaks plain HTTP."""

    name: str
    enabled: bool = True
    require_https: bool = False


@dataclass
class AgsSettings:
    """AGS. Lifetimes are those of the vendor's pages: access 1 hour, refresh 2 days, session at most 30 days.

    services: what discovery lists and ``x-auth-service-id`` may be; none makes discovery a 404. tenant_id: "" takes any
    ``nv-tenant-id``. sign_on_parameters are mandatory, optional_parameters only listed, password_parameters marked as
    passwords; a sign-on's ``username`` and ``password`` are checked against the sandbox's users. refresh_parameters:
    what a refresh must bring. require_device: a sign-on needs ``deviceInformation`` or ``clientId``. accounts: those
    that match; more than one is answered with 300. exp_milliseconds: the tokens' times as older deployments show them.
    fixed_counts_down: ``fixed_refresh_expires_in`` is what is left of the session, else its whole length every time.
    api_prefix: the part of the API that asks for an AGS token, in api_header after api_scheme ("": bare).
    """

    services: tuple[str, ...] = ("sso-1", "Customer Auth Service")
    tenant_id: str = ""
    sign_on_parameters: tuple[str, ...] = ("username", "password")
    optional_parameters: tuple[str, ...] = ()
    password_parameters: tuple[str, ...] = ("password",)
    refresh_parameters: tuple[str, ...] = ("username",)
    require_device: bool = False
    accounts: tuple[str, ...] = ("account_123",)
    access_life: int = 3600
    refresh_life: int = 172800
    session_max: int = 2592000
    exp_milliseconds: bool = False
    fixed_counts_down: bool = True
    api_prefix: str = "/ags-api"
    api_header: str = "Authorization"
    api_scheme: str = "Bearer"


@dataclass
class VeeamSettings:
    """Veeam Backup for Azure. mfa: a login is answered with an ``mfa_token``. refresh_credentials: a refresh must bring
    ``Username`` and ``Password`` too, as the vendor's example does. api_prefix: what asks for a Veeam token.
    """

    access_life: int = 3600
    refresh_life: int = 14 * 86400
    mfa: bool = False
    refresh_credentials: bool = True
    api_prefix: str = "/veeam-api"


@dataclass
class SspSettings:
    """The content of an SSP credentials file; signing_key is base64, None makes a random one at construction.

    max_life: the longest a caller's token may still live, in seconds; 0 sets no limit. api_prefix: what asks for one.
    """

    tenant_id: str = PLATFORM_REALM
    credential_name: str = "Credential_CRM"
    credential_id: str = "816794"
    signing_key: str | None = field(default=None, repr=False)
    privilege: tuple[str, ...] = ("SMS",)
    max_life: int = 0
    api_prefix: str = "/ssp-api"


@dataclass
class SandboxSettings:
    """Defaults are those of the platform: access 5 minutes, refresh 30 minutes, rotation on.

    password: None makes a random one at construction. refresh_life: Keycloak's *SSO Session Idle*. session_max: *SSO
    Session Max*. offline_idle: how long an unused offline session lives. max_reuse: how often a rotated refresh token
    may come again. login_time: how long one password check takes, in seconds; while it runs, other logins of the same
    user are refused as Keycloak 26 does. quick_login_ms, quick_login_wait: Keycloak's brute-force quick login check.
    reject: how the API says "bad token" (``401``, ``403`` with the result body, or that body with HTTP ``200``).
    check_session: whether the API also asks if the token's session still lives. required_role: "" asks for none.
    assertion_skew, assertion_life: how far ahead the ``iat`` of a private_key_jwt may be, and how old it may get.
    tick_ms: the pause between two server-sent events. rotation, max_reuse, reject and check_session hold for every
    system; access_life, refresh_life and session_max are Keycloak's, the others have their own.
    """

    username: str = "crm_client_user"
    password: str | None = field(default=None, repr=False)
    client_id: str = "crm_client"
    clients: tuple[Client, ...] = (Client("crm_client"), Client("ua-grant"))
    users: tuple[User, ...] = ()
    realms: tuple[Realm, ...] = (Realm(PLATFORM_REALM), Realm("UA"))
    access_life: int = 300
    refresh_life: int = 1800
    session_max: int = 36000
    offline_idle: int = 30 * 86400
    rotation: bool = True
    max_reuse: int = 0
    login_time: float = 0.0
    quick_login_ms: int = 1000
    quick_login_wait: int = 60
    scopes: tuple[str, ...] = ("profile", "email", "offline_access")
    reject: RejectStyle = "403"
    check_session: bool = True
    required_role: str = OPERATOR_ROLE
    assertion_skew: int = 15
    assertion_life: int = 60
    tick_ms: int = 1000
    ags: AgsSettings = field(default_factory=AgsSettings)
    veeam: VeeamSettings = field(default_factory=VeeamSettings)
    ssp: SspSettings = field(default_factory=SspSettings)
