"""Every wrong setting that the platforms make possible, and what ``check`` says of it: finding, evidence, what to do.

The words are those of docs/check.md, row by row.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from tests.support.arrangements import (
    NOT_FOUND,
    ags,
    ags_fault,
    ags_setting,
    another_header,
    another_key,
    answered,
    both,
    by_proxy,
    by_tls,
    challenged,
    client,
    clock,
    fault,
    identity,
    mute_upstream,
    mutual,
    only_get,
    realm,
    result_code,
    route,
    service_account,
    setting,
    signing,
    ssp,
    token_file,
    token_url,
    upstream,
    upstream_by_tls,
    user,
    veeam,
    veeam_setting,
    without,
    wrong_ags_path,
    wrong_veeam_path,
)
from tests.support.checks import Arrange, Told, documented, reply, told


@dataclass(frozen=True)
class Row:
    """contacts: requests for a login, for a refresh, for a logout."""

    arrange: Arrange
    contacts: tuple[int, int, int] = (1, 0, 0)


NOBODY = (0, 0, 0)
HTML = {"content_type": "text/html"}

PROVIDER: dict[str, Row] = {
    "the realm's name is wrong": Row(token_url("/nagra/", "/nosuch/")),
    "the realm is disabled": Row(realm(enabled=False)),
    "the realm requires HTTPS": Row(realm(require_https=True)),
    "the path is wrong": Row(answered(NOT_FOUND), NOBODY),
    "the path is wrong, behind an ingress": Row(
        answered(reply("404 Not Found", b"default backend - 404", content_type="text/plain")), NOBODY
    ),
    "a proxy answers with a page": Row(
        answered(reply("200 OK", b"<title>Access Denied</title>", **HTML, server="squid/5.7", via="1.1 proxy")), NOBODY
    ),
    "a captive portal": Row(
        answered(reply("302 Found", location="https://portal.example.com/login?x=1", server="portal")), NOBODY
    ),
    "`http://`, and the site redirects to `https://`": Row(
        answered(reply("301 Moved", location="https://127.0.0.1/realms/nagra/token")), NOBODY
    ),
    "the provider has moved": Row(answered(reply("308 Moved", location="/auth/token")), NOBODY),
    "the configured proxy is not there": Row(identity(proxy="http://127.0.0.1:1"), NOBODY),
    "the configured proxy wants another password": Row(by_proxy(wants="gate:word"), NOBODY),
    "the configured proxy opens no way": Row(by_proxy(reply("403 Forbidden")), NOBODY),
    "the configured proxy opens TLS itself": Row(by_proxy(intercepts=True), NOBODY),
    "a proxy wants a login": Row(answered(reply("407 Proxy Authentication Required", b"<html>", **HTML)), NOBODY),
    "a load balancer without a backend": Row(
        answered(reply("502 Bad Gateway", b"<title>502 Bad Gateway</title>", **HTML, server="nginx")), NOBODY
    ),
    "the provider is down": Row(fault("reply", status=503)),
    "the provider fails": Row(fault("reply", status=500, body='{"error":"unknown_error"}')),
    "too many requests": Row(fault("rate-limit")),
    "nothing listens": Row(identity(token_url="http://127.0.0.1:1/token"), NOBODY),
    "an unknown host": Row(identity(token_url="http://no-such-host.invalid/token"), NOBODY),
    "a slow answer": Row(both(fault("delay", delay_ms=60000), identity(timeout=0.5))),
    "no answer": Row(fault("close")),
    "half an answer": Row(fault("half-json")),
    "no HTTP": Row(answered(b"SSH-2.0-OpenSSH_9.2\r\n"), NOBODY),
    "JSON of something else": Row(answered(reply("200 OK", b'{"hello":1}', content_type="application/json")), NOBODY),
    "a reply of nulls": Row(fault("null-fields")),
    "a token of another type": Row(fault("set-fields", values={"token_type": "mac"})),
    "a reply of 20 MiB": Row(fault("big-body")),
}
TLS: dict[str, Row] = {
    "`https://`, and the port has no TLS": Row(token_url("http:", "https:"), NOBODY),
    "`http://`, and the port has TLS": Row(by_tls("localhost", scheme="http"), NOBODY),
    "a private authority": Row(by_tls("localhost", trust=False), NOBODY),
    "another authority than that of `ca_file`, such as a proxy's that opens TLS": Row(
        by_tls("localhost", authority="other"), NOBODY
    ),
    "another name": Row(by_tls("kc.internal", "kc2.internal"), NOBODY),
    "an expired certificate": Row(by_tls("localhost", since=-400, days=-3), NOBODY),
    "a certificate of tomorrow": Row(by_tls("localhost", since=3), NOBODY),
    "a client certificate is demanded": Row(mutual(), NOBODY),
    "a client certificate of an unknown authority": Row(mutual(unknown=True), NOBODY),
}
CLIENT: dict[str, Row] = {
    "an unknown client": Row(identity(client_id="nosuch")),
    "the client is disabled": Row(client(enabled=False)),
    "a wrong client secret": Row(
        both(client(secret="sandbox-secret"), identity(client_auth="post", client_secret="someone-elses-4711"))
    ),
    "no client secret": Row(client(secret="sandbox-secret")),
    "Direct Access Grants is off": Row(client(direct_access_grants=False)),
    "Service Accounts is off": Row(both(client(secret="sandbox-secret"), service_account)),
    "the client is public, for client_credentials": Row(
        both(service_account, identity(client_auth="none"), without("client_secret"))
    ),
    "private_key_jwt: another key": Row(another_key),
    "private_key_jwt: another audience": Row(both(signing, identity(audience="https://elsewhere.example.com"))),
    "private_key_jwt: the clocks differ": Row(both(signing, clock(-43))),
    "private_key_jwt: no key in the file": Row(both(signing, identity(private_key="not a key")), NOBODY),
    "a secret, where the client signs": Row(
        both(signing, without("private_key"), identity(client_auth="post", client_secret="x-4711-x"))
    ),
    "an unknown scope": Row(identity(scope="nosuch")),
    "offline_access is not allowed": Row(both(user(roles=("operatorRole",)), identity(scope="offline_access"))),
}
USER: dict[str, Row] = {
    "a wrong password, or a locked user": Row(identity(password="not the password")),
    "the user is disabled": Row(user(enabled=False)),
    "the user is not fully set up (an expired or temporary password, a missing name)": Row(user(fully_set_up=False)),
}
OTHERS: dict[str, Row] = {
    "AGS: several accounts match": Row(both(ags(), ags_setting(accounts=("home", "holiday")))),
    "AGS: an unknown `auth_service_id`": Row(ags(auth_service_id="sso-7"), NOBODY),
    "AGS: a mandatory parameter is missing": Row(ags(sign_on=[{"name": "username", "value": "dave"}]), NOBODY),
    "AGS: a wrong password": Row(
        ags(sign_on=[{"name": "username", "value": "dave"}, {"name": "password", "value": "x"}])
    ),
    "AGS: another tenant": Row(both(ags(), ags_setting(tenant_id="other"))),
    "AGS: no service, or another form": Row(both(ags(), ags_setting(services=()))),
    "AGS: the path is wrong": Row(wrong_ags_path, NOBODY),
    "AGS: `refresh_parameters` lacks one": Row(ags(refresh_parameters=[]), (1, 1, 1)),
    "AGS: the refresh is refused": Row(both(ags(), ags_fault("reject")), (1, 1, 1)),
    "AGS: too many refreshes": Row(both(ags(), ags_fault("rate-limit")), (1, 1, 1)),
    "AGS: half an answer to the refresh": Row(both(ags(), ags_fault("half-json")), (1, 1, 1)),
    "AGS: a page answers the refresh": Row(both(ags(), ags_fault("html")), (1, 1, 1)),
    "Veeam: multi-factor authentication": Row(both(veeam(), veeam_setting(mfa=True))),
    "Veeam: a wrong password": Row(veeam(password="not the password")),
    "Veeam: the path is wrong": Row(wrong_veeam_path, NOBODY),
    "SSP: the credentials file is no JSON": Row(ssp("{"), NOBODY),
    "SSP: the credentials file has no key": Row(ssp('{"credentialId": "1"}'), NOBODY),
    "SSP: an unknown credential": Row(ssp('{"credentialId": "1", "signingKey": "c2VjcmV0c2VjcmV0"}'), NOBODY),
    "token_file: the file is missing": Row(token_file(None), NOBODY),
    "token_file: the file is empty": Row(token_file("\n"), NOBODY),
    "token_file: half a token": Row(token_file("eyJhbGciOiJSUzI1NiJ9.eyJle"), NOBODY),
}
FAILING = PROVIDER | TLS | CLIENT | USER | OTHERS

AFTER_LOGIN: dict[str, Row] = {
    "a role of `expect_roles` is missing": Row(
        both(user(roles=("uma_authorization",)), setting(required_role="")), (1, 1, 1)
    ),
    "the provider's clock is ahead": Row(clock(43), (1, 1, 1)),
    "the provider's clock is behind": Row(clock(-43), (1, 1, 1)),
    "the provider's clock is a little off": Row(clock(5), (1, 1, 1)),
    "a very short life": Row(setting(access_life=4), (1, 1, 1)),
    "a short life": Row(setting(access_life=8), (1, 1, 1)),
    "the refresh token ends first": Row(fault("set-fields", values={"refresh_expires_in": 10}), (1, 1, 1)),
    "not-before is later than the token": Row(
        lambda site: site.sandbox.state.push_not_before(int(site.sandbox.state.now()) + 60), (1, 1, 1)
    ),
    "no lifetime": Row(fault("set-fields", values={"access_token": "opaque", "expires_in": None}), (1, 1, 1)),
    "no refresh token": Row(fault("set-fields", drop=("refresh_token",))),
    "`expect_roles`, and an opaque token": Row(
        fault("set-fields", values={"access_token": "opaque-access-token"}), (1, 1, 1)
    ),
    "the refresh is refused": Row(fault("reject", grant="refresh_token"), (1, 1, 1)),
    "the refresh's answer is lost": Row(fault("rotate-then-reset", grant="refresh_token"), (1, 1, 1)),
    "`logout: false`": Row(identity(logout=False), (1, 1, 0)),
}
UPSTREAMS: dict[str, Row] = {
    "the platform takes the token (by status)": Row(setting(reject="403"), (1, 1, 1)),
    "the platform takes the token (by `resultCode`)": Row(setting(reject="200"), (1, 1, 1)),
    "the platform takes the token, and knows no HEAD": Row(upstream(only_get), (1, 1, 1)),
    "the platform refuses the token (401)": Row(upstream(challenged), (1, 1, 1)),
    "the platform refuses the token (403)": Row(upstream(reply("403 Forbidden")), (1, 1, 1)),
    "the platform refuses the token (by `resultCode`)": Row(upstream(result_code("99999:403")), (1, 1, 1)),
    "it answers without a token, and not with one": Row(upstream(another_header), (1, 1, 1)),
    "a refusal that `rejected.statuses` lacks": Row(
        both(setting(reject="401"), route(rejected={"statuses": [403]})), (1, 1, 1)
    ),
    "a refusal that `rejected.result_codes` lacks": Row(upstream(result_code("12345:401", "ok")), (1, 1, 1)),
    "it answers alike with and without": Row(upstream(reply("404 Not Found")), (1, 1, 1)),
    "nothing listens there": Row(route(upstream="http://127.0.0.1:1"), (1, 1, 1)),
    "a host that is not known": Row(route(upstream="http://no-such-host.invalid"), (1, 1, 1)),
    "it closes without an answer": Row(upstream(b""), (1, 1, 1)),
    "it speaks no HTTP": Row(upstream(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), (1, 1, 1)),
    "it fails": Row(upstream(reply("503 Sorry", server="envoy")), (1, 1, 1)),
    "a proxy on the way wants a login": Row(
        upstream(reply("407 Proxy Authentication Required", server="squid")), (1, 1, 1)
    ),
    "it redirects to `https://`": Row(upstream(reply("308 Moved", location="https://127.0.0.1/x")), (1, 1, 1)),
    "it redirects to another host": Row(
        upstream(reply("302 Found", location="https://login.example.com/?next=1")), (1, 1, 1)
    ),
    "`https://`, and no TLS there": Row(
        lambda site: site.route.update(upstream=site.sandbox.url.replace("http", "https")), (1, 1, 1)
    ),
    "`https://`, and silence there": Row(mute_upstream, (1, 1, 1)),
    "`http://`, and TLS there": Row(upstream_by_tls("localhost", scheme="http"), (1, 1, 1)),
    "its authority is private": Row(upstream_by_tls("localhost", trust=False), (1, 1, 1)),
    "its certificate is for another name": Row(upstream_by_tls("api.internal"), (1, 1, 1)),
    "its certificate ends soon": Row(upstream_by_tls("localhost", days=3.5), (1, 1, 1)),
    "it demands a client certificate": Row(mutual(at="upstream"), (1, 1, 1)),
}
SITUATIONS = (*FAILING, *AFTER_LOGIN, *UPSTREAMS)


def run(table: Mapping[str, Row], factory: pytest.TempPathFactory) -> dict[str, Told]:
    return asyncio.run(told({name: row.arrange for name, row in table.items()}, factory.mktemp("check")))


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Told]:
    return run(FAILING, tmp_path_factory)


@pytest.fixture(scope="module")
def working(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Told]:
    return run(AFTER_LOGIN | UPSTREAMS, tmp_path_factory)


@pytest.mark.parametrize("situation", FAILING)
def test_a_wrong_identity_is_told_in_words_to_act_on_after_one_login_at_most(
    situation: str, failing: dict[str, Told]
) -> None:
    one = failing[situation]
    assert one.says(documented()[situation]), one
    assert one.contacts == FAILING[situation].contacts


@pytest.mark.parametrize("situation", FAILING)
def test_a_wrong_identity_is_one_problem_and_not_several(situation: str, failing: dict[str, Told]) -> None:
    problems = [line for line in failing[situation].lines if line["severity"] == "problem"]
    clocks = [line for line in problems if line["finding"].startswith("clock differs")]
    wanted = documented()[situation].severity == "problem"
    assert len(problems) - len(clocks) == wanted, failing[situation]


@pytest.mark.parametrize("situation", AFTER_LOGIN | UPSTREAMS)
def test_what_shows_after_a_login_is_told_with_one_exchange_of_each_kind(
    situation: str, working: dict[str, Told]
) -> None:
    one = working[situation]
    assert one.says(documented()[situation]), one
    assert one.contacts == (AFTER_LOGIN | UPSTREAMS)[situation].contacts


def test_each_part_of_a_finding_fits_into_two_lines_of_a_terminal(
    failing: dict[str, Told], working: dict[str, Told]
) -> None:
    parts = [part for one in (failing | working).values() for line in one.lines for part in line.values()]
    # Of 100 columns, with the indent.
    assert [part for part in parts if len(part) > 190] == []
