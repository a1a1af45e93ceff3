"""The operator's side: probes, metrics, status, a refresh by hand. Never on the proxied port, never a token."""

from proxy.admin.seams import Check, Readiness, Refresher, StatusSource
from proxy.admin.server import AdminServer

__all__ = ["AdminServer", "Check", "Readiness", "Refresher", "StatusSource"]
