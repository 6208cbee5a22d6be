"""How a head is believed."""

from __future__ import annotations

import enum


class TrustMode(enum.Enum):
    """Where trust in the masterchain head comes from. Accounts are proved against it in every mode."""

    VERIFY = "verify"
    """Validator signatures, block by block from the pinned init block. The default, and for money."""
    PROVE = "prove"
    """At least three liteservers of which more than two thirds name the same block."""
    OBSERVE = "observe"
    """Whatever one liteserver says. For tests."""
