"""`VerifiedEnclave`: the only value that sealing accepts, and only `appraise` makes one.

The invariant of the code base (no plaintext leaves unless it is sealed to an appraised key) rests on
this type, so it cannot be built, copied with changes, subclassed or unpickled by anybody else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from types import MappingProxyType
from typing import Final, NoReturn

from cocoon_attestation.binding import KeyBinding
from cocoon_attestation.checks import CheckList
from cocoon_attestation.reference import AnyRelease, TeeKind

_ISSUER: Final = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedEnclave:
    """Result of a successful appraisal (the Attestation Result of RFC 9334).

    Valid until `expires_at`; whoever uses it checks the time again.
    """

    issuer: InitVar[object]
    """Private token; anything else than the one of this module raises `TypeError`."""
    binding: KeyBinding
    """The keys that the hardware vouches for."""
    binding_hash: bytes
    """Representation hash of the binding's cell, 32 bytes."""
    seal_public_key: bytes
    """HPKE public key that requests are sealed to, 1216 bytes."""
    models: tuple[bytes, ...]
    """Digests of the loaded models in the order they were measured, 32 bytes each."""
    release: AnyRelease
    """The release whose reference values matched."""
    tee: TeeKind
    simulated: bool
    """True if the root of trust is a development root: nothing about hardware is proved."""
    platform_id: bytes
    """32 bytes: H("cocoon/v1/platform" ‖ tee u8 ‖ vendor's platform identifier)."""
    checks: CheckList
    """Every check that was made; all passed."""
    policy_digest: bytes
    """Digest of the policy that was applied, 32 bytes."""
    evidence_digest: bytes
    """SHA-256 of the evidence bytes."""
    appraised_at: int
    """Unix time in seconds that the appraisal was made for."""
    expires_at: int
    """Unix time in seconds: earliest end of keys, collateral, policy and session."""
    claims: Mapping[str, object]
    """JSON-ready facts for display: measurements, TCB status, platform."""

    def __post_init__(self, issuer: object) -> None:
        """Refuse construction from outside of this package's appraisal."""
        if issuer is not _ISSUER:
            raise TypeError("only cocoon_attestation.appraise makes a VerifiedEnclave")

    def __init_subclass__(cls, **_: object) -> NoReturn:
        """Refuse subclasses: one could skip the check above."""
        raise TypeError("VerifiedEnclave cannot be subclassed")

    def __reduce__(self) -> NoReturn:
        """Refuse pickling and copying: unpickling would skip the check above."""
        raise TypeError("VerifiedEnclave cannot be pickled or copied")

    @property
    def release_id(self) -> bytes:
        """Id of the matched release, 32 bytes."""
        return self.binding.release_id

    @property
    def key_id(self) -> bytes:
        """Id of the seal key: SHA-256 of the public key, 32 bytes."""
        return self.binding.seal_key_hash

    def is_current(self, now: int) -> bool:
        """Tell whether the result may still be used at Unix time `now`."""
        return self.appraised_at <= now < self.expires_at

    def to_dict(self) -> dict[str, object]:
        """The result as a JSON-ready object."""
        return {
            "tee": self.tee.label,
            "simulated": self.simulated,
            "node": self.binding.node.hex(),
            "binding_hash": self.binding_hash.hex(),
            "release": {"id": self.release_id.hex(), "name": self.release.name},
            "models": [model.hex() for model in self.models],
            "platform_id": self.platform_id.hex(),
            "policy_digest": self.policy_digest.hex(),
            "evidence_digest": self.evidence_digest.hex(),
            "appraised_at": self.appraised_at,
            "expires_at": self.expires_at,
            "claims": dict(self.claims),
            "checks": [check.to_dict() for check in self.checks],
        }


def _issue(
    *,
    binding: KeyBinding,
    seal_public_key: bytes,
    models: tuple[bytes, ...],
    release: AnyRelease,
    tee: TeeKind,
    simulated: bool,
    platform_id: bytes,
    checks: CheckList,
    policy_digest: bytes,
    evidence_digest: bytes,
    appraised_at: int,
    expires_at: int,
    claims: Mapping[str, object],
) -> VerifiedEnclave:
    """Make the value. Called by `cocoon_attestation.appraisal` and nowhere else (a test proves it)."""
    return VerifiedEnclave(
        issuer=_ISSUER,
        binding=binding,
        binding_hash=binding.hash,
        seal_public_key=seal_public_key,
        models=models,
        release=release,
        tee=tee,
        simulated=simulated,
        platform_id=platform_id,
        checks=checks,
        policy_digest=policy_digest,
        evidence_digest=evidence_digest,
        appraised_at=appraised_at,
        expires_at=expires_at,
        claims=MappingProxyType(dict(claims)),
    )
