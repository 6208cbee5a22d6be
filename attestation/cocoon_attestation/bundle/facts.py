"""What a bundle is verified against: facts of the chain that somebody proved."""

from __future__ import annotations

from dataclasses import dataclass

from cocoon_attestation.policy import Policy
from cocoon_attestation.types import digest32


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestedBinding:
    """A key binding that the node contract has recorded."""

    binding_hash: bytes
    """Representation hash of the key binding, 32 bytes."""
    evidence_digest: bytes
    """SHA-256 of the evidence that was recorded with it, 32 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainFacts:
    """What block proofs show about the registry and one node. Made by `cocoon_ton.proof`.

    Raises `MalformedError` at construction if a digest has the wrong length.
    """

    global_id: int
    """TON network that the trust anchor belongs to."""
    registry: str
    """Address of the registry contract whose state was proved, in the raw form ``workchain:hex``."""
    node: bytes
    """Account id of the node contract, 32 bytes."""
    policy: Policy
    """Appraisal policy from the registry's state."""
    bindings: tuple[AttestedBinding, ...]
    """The node's recorded key bindings: current, then previous."""
    tree_size: int
    """Size of the anchored checkpoint."""
    root: bytes
    """Root of the anchored checkpoint, 32 bytes."""
    anchored_at: int
    """Unix time at which that checkpoint was anchored."""
    block_time: int
    """Unix time of the proved block."""

    def __post_init__(self) -> None:
        """Check lengths."""
        digest32(self.node, "chain facts node")
        digest32(self.root, "chain facts root")
        for binding in self.bindings:
            digest32(binding.binding_hash, "chain facts binding hash")
            digest32(binding.evidence_digest, "chain facts evidence digest")
