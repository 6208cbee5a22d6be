"""Who may join a registry: its policy, its rules for quotes, and what stood behind a node's key binding. Pure.

Layouts: ``ton_contracts/cocoon.tlb``. Rules: ``docs/spec/contracts.md``, section 2.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from pytoniq_core import Cell

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.reference import TeeKind
from cocoon_ton.attestation_rules import AttestationRule
from cocoon_ton.cells import Reader, read_dict
from cocoon_ton.node import KeyRecord, parse_key_record

STATUS_BITS: Final = ("SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded")
NO_ROOT: Final = bytes(32)
"""`dev_root_hash` of a policy under which the vendor's root counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryPolicy:
    """What evidence must say, apart from releases, models and denied platforms."""

    tee_kinds: frozenset[TeeKind]
    min_tcb_evaluation: int
    statuses: frozenset[str] = frozenset()
    """TCB statuses accepted besides ``UpToDate``."""
    dev_root_hash: bytes = NO_ROOT
    """SHA-256 of the DER development root, or zeros: the vendor's root counts."""
    recorded: Mapping[TeeKind, int] = field(default_factory=dict)
    """TEE kinds that may join without a quote that Pck verified, with the digest of their evidence only ->
    least stake in nanoton. Any other kind needs such a quote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleEntry:
    """What is asked of quotes of one platform family."""

    rule: AttestationRule
    since: int
    """Unix time at which it was added."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyClaim:
    """A key binding and what stood behind it when the registry listed it. Ids: 32 bytes."""

    release_id: bytes
    """That the binding names; if a quote was verified, also the one that the quote shows."""
    rule: bytes
    """Hash of the rule of the quote that Pck verified; zeros: only the digest of the evidence is recorded."""
    platform_id: bytes
    """Of that quote; zeros without."""
    record: KeyRecord

    @property
    def verified(self) -> bool:
        """True if a Pck contract verified a quote for it."""
        return any(self.rule)


def parse_claim(cell: Cell) -> KeyClaim:
    """Read a key binding with what stands behind it.

    Raises:
        MalformedError: anything else.
    """
    reader = Reader(cell)
    release_id, rule, platform_id = reader.raw(32), reader.raw(32), reader.raw(32)
    record = parse_key_record(reader.ref())
    reader.end()
    return KeyClaim(release_id=release_id, rule=rule, platform_id=platform_id, record=record)


def parse_policy(cell: Cell) -> RegistryPolicy:
    """Read a policy cell. A list of kinds that does not parse lets nobody in, here as in the contract.

    Raises:
        MalformedError: not a policy.
    """
    reader = Reader(cell)
    kinds, statuses = reader.uint(8), reader.uint(8)
    minimum, dev_root_hash = reader.uint(32), reader.raw(32)
    listed = reader.maybe_ref()
    reader.end()
    try:
        recorded = read_dict(listed, 8, lambda r: r.coins())
    except MalformedError:
        recorded = {}
    return RegistryPolicy(
        tee_kinds=frozenset(kind for kind in TeeKind if kinds >> kind.value & 1),
        statuses=frozenset(name for bit, name in enumerate(STATUS_BITS) if statuses >> bit & 1),
        min_tcb_evaluation=minimum,
        dev_root_hash=dev_root_hash,
        recorded={kind: recorded[kind.value] for kind in TeeKind if kind.value in recorded},
    )
