"""A fake platform for the demo, for integrators and for the tests; imports nothing else of ``proxy``.

It is what the gateway is *not* allowed to trust: token endpoints like those of Keycloak, AGS and Veeam with real
signatures, rotation and expiry (``keycloak``, ``ags``, ``veeam``), the operator API that checks their tokens and SSP's
(``api``, ``verify``, ``ssp``), and a control API that makes all of it misbehave (``control``, ``faults``). One module
per protocol. It has no access control of its own beyond the tokens: keep it on loopback.
"""

from proxy.sandbox.faults import Fault
from proxy.sandbox.platform import Sandbox, run_sandbox
from proxy.sandbox.settings import (
    AgsSettings,
    Client,
    Realm,
    SandboxSettings,
    SspSettings,
    User,
    VeeamSettings,
)
from proxy.sandbox.state import SandboxState

__all__ = [
    "AgsSettings",
    "Client",
    "Fault",
    "Realm",
    "Sandbox",
    "SandboxSettings",
    "SandboxState",
    "SspSettings",
    "User",
    "VeeamSettings",
    "run_sandbox",
]
