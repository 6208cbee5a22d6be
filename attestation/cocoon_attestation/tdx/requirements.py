"""What the verification of an Intel quote needs to know about the verifier's policy.

`cocoon_attestation.policy.Policy` has this form; `PlatformRules` is the same without releases and
models, for commands that look at a raw quote.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final, Protocol

from cocoon_attestation.roots import intel_root

NEVER: Final = "Revoked"
"""The one TCB status that nothing can allow."""
NO_DATES: Final[Mapping[int, int]] = MappingProxyType({})


class PlatformRequirements(Protocol):
    """Rules for the platform behind a quote."""

    @property
    def root(self) -> bytes:
        """DER certificate of the one root of trust."""
        ...

    @property
    def root_sha256(self) -> bytes:
        """SHA-256 of `root`."""
        ...

    @property
    def simulated(self) -> bool:
        """True if the root is not Intel's: nothing about hardware is proved under it."""
        ...

    @property
    def min_tcb_evaluation(self) -> int:
        """Smallest accepted tcbEvaluationDataNumber; 0: not compared, the check is skipped."""
        ...

    @property
    def max_collateral_age_s(self) -> int | None:
        """Longest time since the issue date of TCB info and QE identity; None: until they expire."""
        ...

    @property
    def statuses(self) -> frozenset[str]:
        """Accepted TCB statuses."""
        ...

    @property
    def allowed_advisories(self) -> frozenset[str] | None:
        """Advisories tolerated with a status other than UpToDate; None: all."""
        ...

    @property
    def denied_advisories(self) -> frozenset[str]:
        """Advisories that reject whatever the status is."""
        ...

    @property
    def grace_s(self) -> int:
        """Seconds after a TCB recovery in which an outdated platform counts as current; 0: none."""
        ...

    @property
    def recovery_dates(self) -> Mapping[int, int]:
        """Unix time of a recovery by tcbEvaluationDataNumber, where it is later than the level's date."""
        ...

    @property
    def allowed_platforms(self) -> frozenset[bytes] | None:
        """Platform ids that may serve; None: all that are not denied."""
        ...

    @property
    def denied_platforms(self) -> frozenset[bytes]:
        """Platform ids that may not serve."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformRules:
    """`PlatformRequirements` for a raw quote: the hardware alone. See the Protocol for each field."""

    custom_root: bytes | None = None
    """DER certificate that replaces Intel's; None: Intel's."""
    min_tcb_evaluation: int = 0
    max_collateral_age_s: int | None = None
    statuses: frozenset[str] = frozenset({"UpToDate"})
    allowed_advisories: frozenset[str] | None = None
    denied_advisories: frozenset[str] = frozenset()
    grace_s: int = 0
    recovery_dates: Mapping[int, int] = field(default_factory=lambda: NO_DATES)
    allowed_platforms: frozenset[bytes] | None = None
    denied_platforms: frozenset[bytes] = frozenset()

    @property
    def root(self) -> bytes:
        """DER certificate of the one root of trust."""
        return intel_root() if self.custom_root is None else self.custom_root

    @property
    def root_sha256(self) -> bytes:
        """SHA-256 of `root`."""
        return hashlib.sha256(self.root).digest()

    @property
    def simulated(self) -> bool:
        """True if the root is not Intel's."""
        return self.root != intel_root()
