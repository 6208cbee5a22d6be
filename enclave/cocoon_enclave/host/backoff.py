"""How long the host waits before it repeats something that was refused: every attempt costs fees."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Final

FIRST_S: Final = 60.0
LAST_S: Final = 3600.0


@dataclass(slots=True)
class Backoff:
    """Remembers what failed, by name. Times in seconds of any one clock."""

    _failures: dict[Hashable, tuple[int, float]] = field(default_factory=dict)

    def failed(self, name: Hashable, now: float) -> None:
        """`name` failed: twice as long a wait as the last time, from one minute to one hour."""
        count, _ = self._failures.get(name, (0, 0.0))
        self._failures[name] = (count + 1, now + min(LAST_S, FIRST_S * 2.0 ** min(count, 10)))

    def worked(self, name: Hashable) -> None:
        """`name` succeeded, or is of no more interest."""
        self._failures.pop(name, None)

    def waits(self, name: Hashable, now: float) -> bool:
        """True while `name` must not be tried again."""
        return now < self._failures.get(name, (0, 0.0))[1]
