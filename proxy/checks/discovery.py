"""AGS: which sign-on services there are, what each asks for, and whether the configuration brings it."""

from collections.abc import Callable

from proxy.checks.finding import Finding, hint, ok, plain, problem
from proxy.checks.visit import Visit
from proxy.errors import TokenError
from proxy.tokens.systems.ags import Ags, Service, services

_LISTED = 12


async def discovered(visit: Visit, ags: Ags, tell: Callable[[Finding], None], progress: Callable[[str], None]) -> bool:
    """Whether a sign-on is worth trying, as far as this shows."""
    subject, advice = f"identity {visit.name}", "the sign-on is tried all the same"
    progress(f"{subject}: asking {visit.place} for its sign-on services")
    try:
        reply = await visit.ask(ags.discovery())
    except TokenError as error:
        tell(hint(subject, f"the sign-on services cannot be listed: {error.words}", advice=advice))
        return True
    try:
        found = services(reply)
    except TokenError:
        tell(hint(subject, "the sign-on services cannot be listed", f"HTTP {reply.status} to servicediscovery", advice))
        return True
    if not found:
        tell(hint(subject, "AGS lists no sign-on service for this tenant", f"HTTP {reply.status}", advice))
        return True
    tell(ok(subject, "sign-on services, with their mandatory parameters", _listed(found)))
    return _fits(visit.name, ags, found, tell)


def _fits(name: str, ags: Ags, found: list[Service], tell: Callable[[Finding], None]) -> bool:
    subject, section = f"identity {name}", f"identities.{name}"
    wanted, given = ags.service, ags.sign_on_names
    service = next((service for service in found if service.name == wanted), None)
    if service is None:
        advice = f"set {section}.auth_service_id to one of those that AGS lists, to the letter"
        tell(problem(subject, f'there is no sign-on service "{wanted}"', _listed(found), advice))
        return False
    missing = [plain(each, 60) for each in service.mandatory if each not in given]
    if missing:
        evidence = f"configured: {', '.join(given)}"
        advice = f"add them to {section}.sign_on"
        tell(problem(subject, f"the sign-on lacks mandatory parameters: {', '.join(missing)}", evidence, advice))
    return not missing


def _listed(found: list[Service]) -> str:
    names = [
        f"{plain(service.name, 60)} ({', '.join(plain(each, 60) for each in service.mandatory[:_LISTED]) or 'none'})"
        for service in found[:_LISTED]
    ]
    return "; ".join(names) + (" and more" if len(found) > _LISTED else "")
