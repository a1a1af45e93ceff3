"""What the admin port shows, as it asks for it. Whoever wires the gateway provides these."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Check:
    """One condition of readiness. words: why it does not hold, for the operator; no line breaks, no secret."""

    name: str
    ok: bool
    words: str = ""


class Readiness(Protocol):
    def checks(self) -> Sequence[Check]:
        """Read from state at hand; a probe must not wait for anybody."""


class StatusSource(Protocol):
    def status(self) -> Mapping[str, object]:
        """The contract's ``/status`` document, ready for JSON."""


class Refresher(Protocol):
    def identities(self) -> Collection[str]:
        """Names of the identities there are now."""

    async def refresh(self, name: str) -> Mapping[str, object]:
        """Refresh now, ending a suspension; the outcome as ``last_refresh`` of ``/status`` has it.

        Its ``result`` is ``success`` or the metric's label of the failure, its ``detail`` the words. Raises
        TokenUnavailableError where no exchange could be made. Cancelling the caller never cancels the refresh.
        """
