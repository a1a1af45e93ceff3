"""File, environment and flags: which one wins, and how the result shows it."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from proxy.config import Config, KeycloakIdentity, Loaded, load_config, render_effective
from proxy.config.yamlfile import parse_yaml
from proxy.errors import ConfigError

FILE = """\
listen: 127.0.0.1:1111
identities:
  my-idp:
    system: keycloak
    token_url: https://idp.example.com/token
    client_id: crm
    username: alice
    password_file: secrets/password
routes:
  - {path: /, upstream: https://one.example.com, identity: my-idp}
  - {path: /two, upstream: https://two.example.com, identity: null}
log: {level: warning}
"""
P = "OPENTV_PROXY__"

Load = Callable[..., Loaded]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Writes the file (FILE unless told), then loads it with what is given."""

    def load(
        environ: Mapping[str, str] | None = None, flags: Mapping[str, object] | None = None, file: str = FILE
    ) -> Loaded:
        path = tmp_path / "proxy.yaml"
        path.write_text(file)
        return load_config(path, environ or {}, flags or {}, read_secrets=False)

    return load


def idp(config: Config, name: str = "my-idp") -> KeycloakIdentity:
    identity = config.identities[name]
    assert isinstance(identity, KeycloakIdentity)
    return identity


def test_flags_over_environment_over_file_over_defaults(load: Load) -> None:
    """Each layer changes only what it says."""
    assert str(load().config.listen.address) == "127.0.0.1:1111"
    environ = {f"{P}LISTEN": "127.0.0.1:2222", f"{P}ADMIN": "127.0.0.1:2223", f"{P}LOG__FORMAT": "console"}
    loaded = load(environ, {"listen": "127.0.0.1:3333", "log.level": None}).config
    assert str(loaded.listen.address) == "127.0.0.1:3333"
    assert str(loaded.admin) == "127.0.0.1:2223"
    assert (loaded.log.level, loaded.log.format, loaded.log.access) == ("warning", "console", "all")


@pytest.mark.parametrize(
    ("name", "value", "read", "expected"),
    [
        ("ROUTES__0__UPSTREAM", "https://three", lambda c: c.routes[0].upstream, "https://three"),
        ("routes__1__Path", "/three", lambda c: c.routes[1].path, "/three"),
        ("ROUTES__2", '{"path": "/3", "upstream": "https://h"}', lambda c: c.routes[2].path, "/3"),
        ("ROUTES", '[{"path": "/", "upstream": "https://h"}]', lambda c: len(c.routes), 1),
        ("ROUTES__0__IDENTITY", "null", lambda c: c.routes[0].identity, None),
        ("ROUTES__0__REJECTED__STATUSES", "[401]", lambda c: c.routes[0].rejected.statuses, [401]),
        ("ROUTES__0__MAX_CONNECTIONS", "9", lambda c: c.routes[0].max_connections, 9),
        ("ROUTES__0__HEADERS__SET", '{"nv-x": "1"}', lambda c: c.routes[0].headers.set, {"nv-x": "1"}),
        ("IDENTITIES__MY_IDP__CLIENT_ID", "12", lambda c: idp(c).client_id, "12"),
        ("IDENTITIES__MY-IDP__REFRESH__AHEAD", "0.5", lambda c: idp(c).refresh.ahead, 0.5),
        ("IDENTITIES__MY_IDP__INJECT__SCHEME", "", lambda c: idp(c).inject.scheme, ""),
        ("CLIENTS", '{"require": "all"}', lambda c: c.clients.require, "all"),
        (
            "LISTEN__REUSE_PORT",
            "true",
            lambda c: (str(c.listen.address), c.listen.reuse_port),
            ("127.0.0.1:1111", True),
        ),
        ("SHUTDOWN__DRAIN", "5s", lambda c: c.shutdown.drain, 5.0),
        ("UVLOOP", "false", lambda c: c.uvloop, False),
        ("LIMITS", '{"connections": 7}', lambda c: c.limits.connections, 7),
        ("LIMITS__HEAD_SIZE", "8KiB", lambda c: (c.limits.head_size, c.limits.target_size), (8192, 8192)),
        ("IDENTITIES__MY_IDP__REFRESH__JITTER", "0", lambda c: idp(c).refresh.jitter, 0.0),
        ("IDENTITIES__MY_IDP__TLS", '{"verify": false}', lambda c: idp(c).tls.verify, False),
    ],
)
def test_a_variable_names_its_place(
    load: Load, name: str, value: str, read: Callable[[Config], object], expected: object
) -> None:
    """Any place of the tree can be set, lists by number, names whatever their case and dashes."""
    assert read(load({f"{P}{name}": value}).config) == expected


def test_a_password_in_a_variable_is_taken_as_it_is(load: Load) -> None:
    """Text that looks like JSON, a number or null stays text where text is expected."""
    for password in ('{"a"', "[", "null", "007", "true", " x "):
        secret = idp(load({f"{P}IDENTITIES__MY_IDP__PASSWORD": password}).config).secret("password")
        assert secret is not None
        assert (secret.path, secret.read()) == (None, password)


def test_one_twin_replaces_the_other_of_a_lower_layer(load: Load, tmp_path: Path) -> None:
    """password_file in the image's file, password in the environment: no fault, the environment wins."""
    assert idp(load().config).password_file == tmp_path / "secrets/password"
    loaded = load({f"{P}IDENTITIES__MY_IDP__PASSWORD": "p"})
    assert idp(loaded.config).password_file is None
    assert "identities.my-idp.password_file" not in loaded.origins


def test_what_the_environment_says_deeper_counts(load: Load) -> None:
    """A mapping as JSON, and a variable for one key in it; text that is short for a key, and another key beside it."""
    environ = {f"{P}LIMITS": '{"head_time": "4s", "keepalive": "6s"}', f"{P}LIMITS__HEAD_TIME": "5s"}
    limits = load(environ).config.limits
    assert (limits.head_time, limits.keepalive) == (5.0, 6.0)
    environ = {f"{P}ROUTES__1__PROXY": "http://p:1", f"{P}ROUTES__1__PROXY__USERNAME": "u"}
    loaded = load(environ | {f"{P}ROUTES__1__PROXY__PASSWORD": "pw"})
    assert loaded.config.routes[1].proxy.url == "http://p:1"
    assert "url: http://p:1 # env OPENTV_PROXY__ROUTES__1__PROXY\n" in re.sub(r" +", " ", render_effective(loaded))
    environ = {f"{P}STORE__REDIS__URL": "redis://h", f"{P}STORE__REDIS__KEY_FILE": "k"}
    assert load(environ, file=f"{FILE}store: memory\n").config.store.kind == "redis"


def test_a_relative_path_from_outside_starts_at_the_working_directory(load: Load) -> None:
    """It was written where the process runs, in JSON as in plain text."""
    name = f"{P}IDENTITIES__MY_IDP__TLS"
    for environ in ({f"{name}__CA_FILE": "ca.pem"}, {name: '{"ca_file": "ca.pem"}'}):
        assert idp(load(environ).config).tls.ca_file == Path.cwd() / "ca.pem"


def test_a_gateway_by_environment_alone() -> None:
    """No file is needed."""
    environ = {
        f"{P}LISTEN": "127.0.0.1:0",
        f"{P}IDENTITIES__OPENTV__SYSTEM": "keycloak",
        f"{P}IDENTITIES__OPENTV__TOKEN_URL": "https://idp/token",
        f"{P}IDENTITIES__OPENTV__CLIENT_ID": "crm",
        f"{P}IDENTITIES__OPENTV__USERNAME": "alice",
        f"{P}IDENTITIES__OPENTV__PASSWORD": "secret",
        f"{P}ROUTES__0__PATH": "/",
        f"{P}ROUTES__0__UPSTREAM": "https://h",
        f"{P}ROUTES__0__IDENTITY": "opentv",
        "UNRELATED": "x",
        "OPENTV_PROXY_LISTEN": "not ours: one underscore",
    }
    loaded = load_config(None, environ, {}, search=())
    assert loaded.path is None
    assert loaded.config.routes[0].identity == "opentv"
    assert idp(loaded.config, "opentv").username == "alice"


def test_eleven_routes_by_environment() -> None:
    """Places of a list are counted, not spelled: 10 comes after 9."""
    environ = {
        f"{P}ROUTES__{index}__{key}": value
        for index in range(11)
        for key, value in (("PATH", f"/{index}"), ("UPSTREAM", "http://127.0.0.1:1"))
    }
    config = load_config(None, environ, {}, search=()).config
    assert [route.path for route in config.routes] == [f"/{index}" for index in range(11)]


@pytest.mark.parametrize(
    ("environ", "fault"),
    [
        ({"LISTN": "x"}, "listn: unknown key; did you mean listen? (set by OPENTV_PROXY__LISTN)"),
        ({"ROUTES__7__PATH": "/x"}, "routes.7: no such place in a list of 2"),
        ({"ROUTES": "[oops"}, "routes: the variable OPENTV_PROXY__ROUTES is not valid JSON at character 2"),
        (
            {"CLIENTS": '{"open": true, "open": false}'},
            "clients: the variable OPENTV_PROXY__CLIENTS is not valid JSON: a key",
        ),
        ({"ROUTES": "x"}, "routes: expected a list (set by OPENTV_PROXY__ROUTES)"),
        ({"LISTEN__": "x"}, "the variable OPENTV_PROXY__LISTEN__ names no key"),
        ({"LISTEN": "8080"}, "listen: expected host:port"),
        (
            {"IDENTITIES__MY_IDP__PASSWORD": "zz", "IDENTITIES__MY_IDP__PASSWORD_FILE": "pw"},
            (
                "identities.my-idp.password_file: give either password or password_file, not both: "
                f"{P}IDENTITIES__MY_IDP__PASSWORD and {P}IDENTITIES__MY_IDP__PASSWORD_FILE set them"
            ),
        ),
        (
            {"IDENTITIES__MY_IDP": '{"password": "zz", "password_file": "pw"}'},
            (
                "identities.my-idp.password_file: give either password or password_file, not both: "
                "OPENTV_PROXY__IDENTITIES__MY_IDP sets them"
            ),
        ),
        (
            {"CLIENTS__BASIC": '{"crm": {"password": "zz"}}', "CLIENTS__BASIC__CRM__PASSWORD_FILE": "pw"},
            (
                "clients.basic.crm.password_file: give either password or password_file, not both: "
                "OPENTV_PROXY__CLIENTS__BASIC and OPENTV_PROXY__CLIENTS__BASIC__CRM__PASSWORD_FILE set them"
            ),
        ),
        (
            {"STORE__FILE__PATH": "p", "STORE__REDIS__URL": "redis://h"},
            "store.redis: give either file or redis, not both: OPENTV_PROXY__STORE__FILE__PATH and ",
        ),
        (
            {"LOG__LEVEL": "info", "log__level": "debug"},
            "log.level: the variables OPENTV_PROXY__LOG__LEVEL and OPENTV_PROXY__log__level both name it",
        ),
        (
            {"LIMITS": "5", "LIMITS__HEAD_TIME": "5s"},
            (
                "limits: is no mapping of keys, and OPENTV_PROXY__LIMITS__HEAD_TIME sets one in it (set by "
                "OPENTV_PROXY__LIMITS)"
            ),
        ),
        (
            {"STORE": "memory", "STORE__REDIS__URL": "redis://h"},
            "store: is no mapping of keys, and OPENTV_PROXY__STORE__REDIS__URL sets one in it",
        ),
        ({"LOG__LEVEL__X": "info"}, "log.level: is no mapping of keys, and OPENTV_PROXY__LOG__LEVEL__X sets"),
        (
            {"ROUTES__0__UPSTREAM": ""},
            "routes.0.upstream: is empty: expected a URL such as https://host.example.com:8443/path (set by",
        ),
        ({"IDENTITIES__MY_IDP__TOKEN_URL": ""}, "identities.my-idp.token_url: is empty: expected a URL such as https"),
        ({"ROUTES__0__PROXY": ""}, "routes.0.proxy: expected none or the URL of an HTTP proxy such as http://proxy."),
    ],
)
def test_a_wrong_variable_is_named(load: Load, environ: dict[str, str], fault: str) -> None:
    """Who looks into the file for the fault finds nothing there, so the variable is named."""
    with pytest.raises(ConfigError) as caught:
        load({f"{P}{name}": value for name, value in environ.items()})
    assert fault in str(caught.value)


def test_where_the_file_is_looked_for(tmp_path: Path) -> None:
    """-c, then the variable, then the usual places; a named file must exist."""
    for name in ("c", "variable", "usual"):
        (tmp_path / name).write_text(f"routes: [{{path: /{name}, upstream: 'https://h'}}]")
    search = (tmp_path / "nothing", tmp_path / "usual")
    variable = {"OPENTV_PROXY_CONFIG": str(tmp_path / "variable")}
    found = [
        load_config(tmp_path / "c", variable, {}, search=search),
        load_config(None, variable, {}, search=search),
        load_config(None, {}, {}, search=search),
    ]
    assert [loaded.config.routes[0].path for loaded in found] == ["/c", "/variable", "/usual"]
    with pytest.raises(ConfigError, match="nothing does not exist"):
        load_config(tmp_path / "nothing", {}, {}, search=search)
    with pytest.raises(ConfigError, match="no configuration: no file at"):
        load_config(None, {}, {}, search=())


def test_the_effective_configuration_says_where_each_value_is_from(load: Load) -> None:
    """flag, env, file or default, one value a line."""
    environ = {f"{P}ROUTES__0__TIMEOUTS__CONNECT": "3", f"{P}ROUTES__2": '{"path": "/3", "upstream": "https://h"}'}
    flags = {"listen.address": "127.0.0.1:2222", "admin": "127.0.0.1:0", "log.format": "console"}
    text = render_effective(load(environ, flags))
    lines = {re.sub(r" +", " ", line).strip() for line in text.splitlines()}
    assert {
        "address: 127.0.0.1:2222 # flag --listen",
        "admin: 127.0.0.1:0 # flag --admin",
        "level: warning # file",
        "format: console # flag --log-format",
        "connect: 3s # env OPENTV_PROXY__ROUTES__0__TIMEOUTS__CONNECT",
        "- path: /3 # env OPENTV_PROXY__ROUTES__2",
        "response: 1m # default",
        "identity: null # file",
        "store: memory # default",
    } <= lines


def test_the_effective_configuration_masks_what_is_secret(load: Load) -> None:
    """Literal secrets, further form fields, and headers that may carry a credential."""
    file = FILE.replace("password_file: secrets/password", "password: hunter2\n    extra: {otp: hunter2}").replace(
        "identity: my-idp", "identity: my-idp, headers: {set: {X-Auth-Key: hunter2, nv-tenant-id: nagra}}"
    )
    text = render_effective(
        load({f"{P}CLIENTS__BASIC__CRM__PASSWORD": "hunter2", f"{P}CLIENTS__API_KEYS__KEYS": '["hunter2"]'}, file=file)
    )
    assert "hunter2" not in text
    assert text.count("********") == 5
    assert "nv-tenant-id: nagra" in text


@pytest.mark.parametrize(
    ("url", "written"),
    [
        ("https://h/token?key=hunter2&v=1&hunter2", '"https://h/token?key=********&v=********&********"'),
        ("https://h/token?hunter2", '"https://h/token?********"'),
        ("https://h/token", "https://h/token"),
    ],
)
def test_the_effective_configuration_masks_what_a_url_asks(load: Load, url: str, written: str) -> None:
    """Some servers take a key in the query; the audience is mostly such a URL as well, and may name a user."""
    text = render_effective(load(file=FILE.replace("https://idp.example.com/token", f"'{url}'")))
    assert f"    token_url: {written} " in text
    more = "client_auth: private_key_jwt, private_key: hunter2"
    file = (
        f"identities: {{a: {{system: oauth2, token_url: 'https://h', grant: client_credentials, client_id: c, {more},"
    )
    rest = " audience: 'http://u:hunter2@h/?hunter2'}}\nroutes: [{path: /, upstream: 'https://h', identity: a}]\n"
    text = render_effective(load(file=file + rest))
    assert 'audience: "http://********@h/?********"' in text
    assert "hunter2" not in text


def test_the_effective_configuration_reads_back(load: Load, tmp_path: Path) -> None:
    """Without literal secrets it is a configuration that means the same."""
    first = load({f"{P}ROUTES__0__HEADERS__SET": '{"X-Y": "no"}', f"{P}LOG__ACCESS": "off"})
    tree, faults = parse_yaml(render_effective(first))
    again = tmp_path / "again.yaml"
    again.write_text(render_effective(first))
    assert (bool(tree), faults) == (True, [])
    assert load_config(again, {}, {}, read_secrets=False).config == first.config
