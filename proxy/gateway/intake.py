"""Reading from a connection: not faster than what is read can be passed on, and not more in one go than others can wait
for."""

import asyncio


class Intake(asyncio.Protocol):
    """reading_paused: whoever takes what is read takes no more for now. catching_up: what came is read in several goes,
    one a turn of the event loop, and nothing more is taken in meanwhile."""

    __slots__ = ("_due", "catching_up", "reading_paused", "transport")

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.reading_paused = False
        self.catching_up = False
        self._due = False  # the next go

    def pause_reading(self) -> None:
        """Take nothing more in."""
        if not self.reading_paused and self.transport is not None:
            self.reading_paused = True
            if not self.catching_up:
                self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if self.reading_paused and self.transport is not None:
            self.reading_paused = False
            if self.catching_up:
                self._schedule()
            else:
                self.transport.resume_reading()

    def catch_up(self, more: bool) -> None:
        """Whether there is more to be read of what came."""
        if more != self.catching_up:
            self.catching_up = more
            if self.transport is not None and not self.reading_paused:
                self.transport.pause_reading() if more else self.transport.resume_reading()
        if more and not self.reading_paused:
            self._schedule()

    def read_on(self) -> None:
        """The next go, which calls ``catch_up`` again."""

    def _schedule(self) -> None:
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._go)

    def _go(self) -> None:
        self._due = False
        if self.catching_up and not self.reading_paused:
            self.read_on()
