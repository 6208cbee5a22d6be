"""The appraisal policy: what evidence must say to be accepted.

The registry contract gives a policy, read with block proofs; a client may only make it stricter
(`Policy.tightened`). There is no default that accepts anything: a policy without releases, models or
TEE kinds cannot be made. See docs/spec/policy.md.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from cocoon_attestation.errors import ConfigError
from cocoon_attestation.gpu.policy import GpuPolicy
from cocoon_attestation.policy_vendor import check_vendor_roots, gpu_to_dict, require_strict, snp_to_dict
from cocoon_attestation.reference import AnyRelease, Release, SnpRelease, TeeKind
from cocoon_attestation.roots import intel_root
from cocoon_attestation.snp.policy import SnpPolicy
from cocoon_attestation.tdx.requirements import NO_DATES

MAINNET_GLOBAL_ID: Final = -239
"""TON mainnet. No policy for it can name a development root, whatever a registry says."""
UP_TO_DATE: Final = "UpToDate"
OPTIONAL_STATUSES: Final = frozenset(
    {"SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded"}
)
"""TCB statuses that a policy may add. OutOfDate* can have grace; TDRelaunchAdvised* and Revoked never pass."""

DEFAULT_COLLATERAL_AGE_S: Final = 7 * 86_400
DEFAULT_SESSION_LIMIT_S: Final = 600
DEFAULT_CLOCK_SKEW_S: Final = 60
MAX_GRACE_S: Final = 30 * 86_400
"""Longest time after a TCB recovery in which a session accepts an outdated platform."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """An appraisal policy. Raises `ConfigError` at construction if it is empty or contradictory."""

    global_id: int
    """TON network that key bindings must name."""
    releases: tuple[AnyRelease, ...]
    """Allowed releases of every kind of TEE, at least one."""
    models: frozenset[bytes]
    """Allowed model digests, 32 bytes each, at least one. Every model of a node must be allowed."""
    min_tcb_evaluation: int
    """Smallest accepted tcbEvaluationDataNumber of TCB info and of QE identity."""
    tee_kinds: frozenset[TeeKind] = frozenset({TeeKind.TDX})
    """Accepted kinds of TEE."""
    dev_root: bytes | None = None
    """DER certificate of a development root. If set, evidence is simulated and *only* this root counts."""
    statuses: frozenset[str] = frozenset({UP_TO_DATE})
    """Accepted TCB statuses."""
    allowed_advisories: frozenset[str] = frozenset()
    """Advisories tolerated with a status other than UpToDate; any other one rejects."""
    denied_advisories: frozenset[str] = frozenset()
    """Advisories that reject whatever the status is."""
    grace_s: int = 0
    """Seconds after a TCB recovery in which OutOfDate counts as UpToDate and OutOfDateConfigurationNeeded as
    ConfigurationNeeded; 0 = none. It starts with the date of the first newer TCB level."""
    recovery_dates: Mapping[int, int] = field(default_factory=lambda: NO_DATES)
    """By tcbEvaluationDataNumber: Unix time at which that recovery took effect, where it is later than the
    date of its levels. The vendor publishes these dates; levels carry the date of the advisory."""
    allowed_modules: frozenset[bytes] = frozenset()
    """MRSEAM values, 48 bytes each; empty = every TDX module that Intel's TCB info lists."""
    allowed_platforms: frozenset[bytes] | None = None
    """Platform ids that may serve; None = all that are not denied."""
    denied_platforms: frozenset[bytes] = frozenset()
    """Platform ids that may not serve, 32 bytes each."""
    node: bytes | None = None
    """Account id that the key binding must name, 32 bytes; None = any."""
    max_collateral_age_s: int = DEFAULT_COLLATERAL_AGE_S
    """Longest time since the issue date of TCB info and QE identity, in seconds."""
    session_limit_s: int = DEFAULT_SESSION_LIMIT_S
    """Longest use of one appraisal, in seconds."""
    clock_skew_s: int = DEFAULT_CLOCK_SKEW_S
    """How far `not_before` of a binding may lie in the future, in seconds."""
    not_after: int | None = None
    """Unix time in seconds after which the policy itself is stale; None = never."""
    snp: SnpPolicy | None = None
    """Rules for SEV-SNP platforms; None = the defaults. Measurement, report data and host data are left
    open here: appraisal fills them in from releases and evidence."""
    gpu: GpuPolicy | None = None
    """Rules for GPUs; None = a node that shows devices is refused. An open `gpu_count` means: as many as
    the measured software says; a number means: exactly so many, also for nodes without devices."""
    digest: bytes = field(init=False, repr=False, compare=False)
    """H("cocoon/v1/policy" ‖ canonical JSON of `to_dict`), 32 bytes."""

    def __post_init__(self) -> None:
        """Check that the policy can accept something and that every value has its form."""
        _check_members(self)
        _check_numbers(self)
        if self.dev_root is not None:
            _check_root(self.dev_root, self.global_id)
        require_strict(self.snp, self.gpu)
        check_vendor_roots(self.snp, self.gpu, simulated=self.simulated)
        object.__setattr__(self, "recovery_dates", MappingProxyType(dict(self.recovery_dates)))
        object.__setattr__(self, "digest", _digest(self.to_dict()))

    @property
    def root(self) -> bytes:
        """DER certificate of the one root of trust for the TEE vendor's chain."""
        return intel_root() if self.dev_root is None else self.dev_root

    @property
    def root_sha256(self) -> bytes:
        """SHA-256 of `root`."""
        return hashlib.sha256(self.root).digest()

    @property
    def simulated(self) -> bool:
        """True if the policy accepts simulated evidence (and nothing else)."""
        return self.dev_root is not None

    @property
    def tdx_releases(self) -> tuple[Release, ...]:
        """The allowed releases of TDX guests."""
        return tuple(r for r in self.releases if isinstance(r, Release) and r.tee is TeeKind.TDX)

    @property
    def snp_releases(self) -> tuple[SnpRelease, ...]:
        """The allowed releases of SEV-SNP guests."""
        return tuple(r for r in self.releases if isinstance(r, SnpRelease))

    def release(self, release_id: bytes) -> AnyRelease | None:
        """The allowed release with that id."""
        return next((r for r in self.releases if r.release_id == release_id), None)

    def to_dict(self) -> dict[str, object]:
        """The policy as a JSON-ready object; the canonical form of it is what `digest` hashes.

        `snp`, `gpu`, `grace_s` and `recovery_dates` are members only if the policy has them.
        """
        optional: dict[str, object] = {}
        if self.grace_s:
            optional["grace_s"] = self.grace_s
            optional["recovery_dates"] = {str(number): date for number, date in self.recovery_dates.items()}
        if self.gpu is not None:
            optional["gpu"] = gpu_to_dict(self.gpu)
        if self.snp is not None:
            optional["snp"] = snp_to_dict(self.snp)
        return {
            **optional,
            "allowed_advisories": sorted(self.allowed_advisories),
            "allowed_modules": _hexes(self.allowed_modules),
            "allowed_platforms": None if self.allowed_platforms is None else _hexes(self.allowed_platforms),
            "clock_skew_s": self.clock_skew_s,
            "denied_advisories": sorted(self.denied_advisories),
            "denied_platforms": _hexes(self.denied_platforms),
            "global_id": self.global_id,
            "max_collateral_age_s": self.max_collateral_age_s,
            "min_tcb_evaluation": self.min_tcb_evaluation,
            "models": _hexes(self.models),
            "node": None if self.node is None else self.node.hex(),
            "not_after": self.not_after,
            "releases": _hexes(r.release_id for r in self.releases),
            "root_sha256": self.root_sha256.hex(),
            "session_limit_s": self.session_limit_s,
            "simulated": self.simulated,
            "statuses": sorted(self.statuses),
            "tee_kinds": sorted(kind.label for kind in self.tee_kinds),
        }

    def tightened(
        self,
        *,
        releases: Iterable[bytes] | None = None,
        models: Iterable[bytes] | None = None,
        node: bytes | None = None,
        min_tcb_evaluation: int = 0,
        denied_platforms: Iterable[bytes] = (),
        allowed_platforms: Iterable[bytes] | None = None,
        denied_advisories: Iterable[str] = (),
        statuses: Iterable[str] | None = None,
        max_grace_s: int | None = None,
        max_collateral_age_s: int | None = None,
        session_limit_s: int | None = None,
        not_after: int | None = None,
    ) -> Policy:
        """A policy that accepts no more: sets are intersected, limits take the stricter value.

        Args:
            releases: ids of the releases to keep.
            models: model digests to keep.
            node: the only node to accept.
            min_tcb_evaluation: a higher minimum.
            denied_platforms: platform ids to deny as well.
            allowed_platforms: platform ids to keep.
            denied_advisories: advisories to deny as well.
            statuses: TCB statuses to keep.
            max_grace_s: shorter grace in seconds; 0 for none.
            max_collateral_age_s: a lower limit in seconds.
            session_limit_s: a lower limit in seconds.
            not_after: an earlier end, Unix time in seconds.

        Raises:
            ConfigError: nothing acceptable would be left.
        """
        if node is not None and self.node not in (None, node):
            raise ConfigError("policy: the node contradicts the one already required")
        kept_releases = self.releases
        if releases is not None:
            wanted = frozenset(releases)
            kept_releases = tuple(r for r in self.releases if r.release_id in wanted)
        grace = _lower(self.grace_s, max_grace_s)
        return dataclasses.replace(
            self,
            releases=kept_releases,
            models=self.models if models is None else self.models & frozenset(models),
            node=self.node if node is None else node,
            min_tcb_evaluation=max(self.min_tcb_evaluation, min_tcb_evaluation),
            denied_platforms=self.denied_platforms | frozenset(denied_platforms),
            allowed_platforms=_intersection(self.allowed_platforms, allowed_platforms),
            denied_advisories=self.denied_advisories | frozenset(denied_advisories),
            statuses=self.statuses if statuses is None else self.statuses & frozenset(statuses),
            grace_s=grace,
            recovery_dates=self.recovery_dates if grace else NO_DATES,
            max_collateral_age_s=_lower(self.max_collateral_age_s, max_collateral_age_s),
            session_limit_s=_lower(self.session_limit_s, session_limit_s),
            not_after=not_after if self.not_after is None else _lower(self.not_after, not_after),
        )


def _digest(document: Mapping[str, object]) -> bytes:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(b"cocoon/v1/policy" + text.encode("ascii")).digest()


def _hexes(values: Iterable[bytes]) -> list[str]:
    return sorted(value.hex() for value in values)


def _intersection(
    current: frozenset[bytes] | None, wanted: Iterable[bytes] | None
) -> frozenset[bytes] | None:
    if wanted is None:
        return current
    return frozenset(wanted) if current is None else current & frozenset(wanted)


def _lower(current: int, wanted: int | None) -> int:
    return current if wanted is None else min(current, wanted)


def _check_members(policy: Policy) -> None:
    if not policy.releases:
        raise ConfigError("policy: no release is allowed", hint="name at least one release")
    if len({r.release_id for r in policy.releases}) != len(policy.releases):
        raise ConfigError("policy: a release is listed twice")
    if len({r.measurement for r in policy.snp_releases}) != len(policy.snp_releases):
        raise ConfigError("policy: two SEV-SNP releases have one measurement")
    if not policy.models:
        raise ConfigError("policy: no model is allowed", hint="name at least one model digest")
    if not policy.tee_kinds or not all(isinstance(kind, TeeKind) for kind in policy.tee_kinds):
        raise ConfigError("policy: no known TEE kind is allowed")
    if not policy.statuses or not policy.statuses <= OPTIONAL_STATUSES | {UP_TO_DATE}:
        raise ConfigError(
            "policy: a TCB status is unknown or may never be allowed",
            hint="allowed: " + ", ".join(sorted(OPTIONAL_STATUSES | {UP_TO_DATE})),
        )
    if policy.allowed_platforms is not None and not policy.allowed_platforms:
        raise ConfigError("policy: no platform is allowed")
    _check_lengths("model", policy.models, 32)
    _check_lengths("platform", policy.denied_platforms | (policy.allowed_platforms or frozenset()), 32)
    _check_lengths("TDX module", policy.allowed_modules, 48)
    _check_lengths("node", () if policy.node is None else (policy.node,), 32)


def _check_lengths(what: str, values: Iterable[bytes], length: int) -> None:
    if any(not isinstance(value, bytes) or len(value) != length for value in values):
        raise ConfigError(f"policy: every {what} has {length} bytes")


def _check_numbers(policy: Policy) -> None:
    if not -(2**31) <= policy.global_id < 2**31:
        raise ConfigError("policy: global_id is a signed 32-bit integer")
    if policy.min_tcb_evaluation < 1:
        raise ConfigError("policy: min_tcb_evaluation must be at least 1")
    if min(policy.max_collateral_age_s, policy.session_limit_s) < 1 or policy.clock_skew_s < 0:
        raise ConfigError("policy: a time limit is not positive")
    if not 0 <= policy.grace_s <= MAX_GRACE_S:
        raise ConfigError(f"policy: grace_s must be 0 to {MAX_GRACE_S}")
    if policy.recovery_dates and not policy.grace_s:
        raise ConfigError("policy: recovery_dates have no meaning without grace_s")
    if any(number < 1 or not 0 <= date < 2**40 for number, date in policy.recovery_dates.items()):
        raise ConfigError("policy: recovery_dates are Unix times by evaluation number")


def _check_root(der: bytes, global_id: int) -> None:
    """A development root must verify under its own key, and never serves mainnet."""
    if global_id == MAINNET_GLOBAL_ID:
        raise ConfigError(
            "policy: mainnet cannot have a development root",
            hint="simulated evidence belongs to a development network",
        )
    try:
        root = x509.load_der_x509_certificate(der)
        root.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise ConfigError("policy: dev_root is not a self-signed DER certificate") from error
