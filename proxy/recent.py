"""Pure: what counters gained lately, from readings taken now and then."""

from collections import deque
from collections.abc import Hashable, Mapping
from typing import Final, Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

WINDOW: Final = 60.0  # seconds


class Recent(Generic[Key]):
    """Counters over the last ``window`` seconds, or since the first reading while that is younger.

    State: the readings, oldest first; of those as old as the window only the youngest is kept.
    """

    def __init__(self, window: float = WINDOW) -> None:
        self._window = window
        self._readings: deque[tuple[float, Mapping[Key, float]]] = deque()

    def note(self, at: float, counts: Mapping[Key, float]) -> None:
        """One reading, kept as it is. at: seconds of a clock that does not jump."""
        self._readings.append((at, counts))
        while len(self._readings) > 1 and at - self._readings[1][0] >= self._window:
            self._readings.popleft()

    def gained(self, at: float, counts: Mapping[Key, float]) -> tuple[float, dict[Key, float]]:
        """Seconds, and what each counter gained in them. A counter that is new began at 0."""
        began, before = self._readings[0] if self._readings else (at, counts)
        return at - began, {key: max(count - before.get(key, 0), 0) for key, count in counts.items()}
