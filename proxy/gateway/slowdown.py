"""How long the refusal of a wrong credential is held back, by address. Pure: ``now`` is an argument, seconds.

Right credentials are never slowed, so nobody is kept out by a neighbour behind the same address who tries one after the
other. That one has two answers a second, however many tries wait for one, and each costs a connection.
"""

from ipaddress import IPv6Address
from typing import Final

_FREE: Final = 10  # wrong ones in a row that are answered at once: a person's typing errors, a forgotten rotation
_INTERVAL: Final = 0.5  # seconds between two answers after these
_LONGEST: Final = 10.0  # seconds that one is held back
_ADDRESSES_MAX: Final = 4096


class Slowdown:
    """State: when the next answer is due, by address (bounded; who is forgotten begins anew); held-back answers, by
    peer, which take up connections."""

    __slots__ = ("_due", "_held")

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        self._held: dict[str, int] = {}

    def wrong(self, address: str, now: float) -> float:
        """One more wrong credential from this address; the seconds its answer is to be held back."""
        key = neighbourhood(address)
        due = max(self._due.pop(key, 0.0), now - _FREE * _INTERVAL) + _INTERVAL
        if len(self._due) >= _ADDRESSES_MAX:
            self._forget(now)
        self._due[key] = due = min(due, now + _LONGEST)
        return max(0.0, due - now)

    def hold(self, peer: str, most: int) -> bool:
        """Whether one more answer may be held back on a connection of this peer, which may have ``most`` at a time: who
        keeps the most connections waiting must not leave none to its neighbours."""
        held = self._held.get(peer, 0)
        if held >= most:
            return False
        self._held[peer] = held + 1
        return True

    def release(self, peer: str) -> None:
        """One of them is answered, or its client has left."""
        held = self._held.pop(peer, 1) - 1
        if held:
            self._held[peer] = held

    def _forget(self, now: float) -> None:
        long_ago = now - _FREE * _INTERVAL
        self._due = {address: due for address, due in self._due.items() if due > long_ago}
        while len(self._due) >= _ADDRESSES_MAX:
            del self._due[next(iter(self._due))]


def neighbourhood(address: str) -> str:
    """Whom one client may be: an IPv6 client has a network of 64 bits for itself, so all its addresses are one."""
    if ":" not in address:
        return address
    parsed = IPv6Address(address.partition("%")[0])
    return str(parsed.ipv4_mapped or IPv6Address(int(parsed) >> 64 << 64))
