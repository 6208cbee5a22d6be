"""Time that only goes forward.

The host sets the guest's wall clock. It is read once, at start; from there on the monotonic counter
(on TDX: the guest's own time stamp counter, which the host cannot turn back) carries it. So a host that
turns the clock back cannot bring an expired key, deadline or authorization back to life.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Where the time comes from."""

    def now(self) -> float:
        """Unix time in seconds; never goes back."""
        ...


class MonotonicClock:
    """Wall clock at start plus monotonic time since."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        """Unix time in seconds; never goes back."""
        return self._offset + time.monotonic()
