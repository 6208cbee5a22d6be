"""The verifier: bytes, policy, roots and time in; values or errors out. No I/O, no clock, no network."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cocoon_attestation.appraisal import appraise
    from cocoon_attestation.binding import KeyBinding, parse_key_binding
    from cocoon_attestation.bundle import (
        Bundle,
        ChainFacts,
        parse_bundle,
        verify_bundle,
    )
    from cocoon_attestation.checkpoint import (
        Checkpoint,
        verify_checkpoint,
    )
    from cocoon_attestation.checks import Check, CheckList, Verdict
    from cocoon_attestation.endorsements import DeviceEndorsements, OwnEndorsements, SnpEndorsements
    from cocoon_attestation.errors import (
        CocoonError,
        ConfigError,
        EngineError,
        EvidenceRejectedError,
        LogProofError,
        MalformedError,
        PaymentError,
        ReceiptRejectedError,
        RejectedError,
        SealingError,
        UnavailableError,
        UnsupportedError,
    )
    from cocoon_attestation.merkle import (
        MerkleTree,
        verify_consistency,
        verify_inclusion,
    )
    from cocoon_attestation.payment import PriceList
    from cocoon_attestation.policy import Policy
    from cocoon_attestation.policy_toml import policy_from_toml
    from cocoon_attestation.receipt import (
        Receipt,
        parse_receipt,
        verify_receipt,
    )
    from cocoon_attestation.reference import Release, SnpRelease, TeeKind
    from cocoon_attestation.sealing import open_request, seal_request
    from cocoon_attestation.verified import VerifiedEnclave

_HOME = {
    "Bundle": "cocoon_attestation.bundle",
    "ChainFacts": "cocoon_attestation.bundle",
    "Check": "cocoon_attestation.checks",
    "CheckList": "cocoon_attestation.checks",
    "Checkpoint": "cocoon_attestation.checkpoint",
    "CocoonError": "cocoon_attestation.errors",
    "ConfigError": "cocoon_attestation.errors",
    "DeviceEndorsements": "cocoon_attestation.endorsements",
    "EngineError": "cocoon_attestation.errors",
    "EvidenceRejectedError": "cocoon_attestation.errors",
    "KeyBinding": "cocoon_attestation.binding",
    "LogProofError": "cocoon_attestation.errors",
    "MalformedError": "cocoon_attestation.errors",
    "MerkleTree": "cocoon_attestation.merkle",
    "OwnEndorsements": "cocoon_attestation.endorsements",
    "PaymentError": "cocoon_attestation.errors",
    "Policy": "cocoon_attestation.policy",
    "PriceList": "cocoon_attestation.payment",
    "Receipt": "cocoon_attestation.receipt",
    "ReceiptRejectedError": "cocoon_attestation.errors",
    "RejectedError": "cocoon_attestation.errors",
    "Release": "cocoon_attestation.reference",
    "SealingError": "cocoon_attestation.errors",
    "SnpEndorsements": "cocoon_attestation.endorsements",
    "SnpRelease": "cocoon_attestation.reference",
    "TeeKind": "cocoon_attestation.reference",
    "UnavailableError": "cocoon_attestation.errors",
    "UnsupportedError": "cocoon_attestation.errors",
    "Verdict": "cocoon_attestation.checks",
    "VerifiedEnclave": "cocoon_attestation.verified",
    "appraise": "cocoon_attestation.appraisal",
    "open_request": "cocoon_attestation.sealing",
    "parse_bundle": "cocoon_attestation.bundle",
    "parse_key_binding": "cocoon_attestation.binding",
    "parse_receipt": "cocoon_attestation.receipt",
    "policy_from_toml": "cocoon_attestation.policy_toml",
    "seal_request": "cocoon_attestation.sealing",
    "verify_bundle": "cocoon_attestation.bundle",
    "verify_checkpoint": "cocoon_attestation.checkpoint",
    "verify_consistency": "cocoon_attestation.merkle",
    "verify_inclusion": "cocoon_attestation.merkle",
    "verify_receipt": "cocoon_attestation.receipt",
}

__all__ = [
    "Bundle",
    "ChainFacts",
    "Check",
    "CheckList",
    "Checkpoint",
    "CocoonError",
    "ConfigError",
    "DeviceEndorsements",
    "EngineError",
    "EvidenceRejectedError",
    "KeyBinding",
    "LogProofError",
    "MalformedError",
    "MerkleTree",
    "OwnEndorsements",
    "PaymentError",
    "Policy",
    "PriceList",
    "Receipt",
    "ReceiptRejectedError",
    "RejectedError",
    "Release",
    "SealingError",
    "SnpEndorsements",
    "SnpRelease",
    "TeeKind",
    "UnavailableError",
    "UnsupportedError",
    "Verdict",
    "VerifiedEnclave",
    "appraise",
    "open_request",
    "parse_bundle",
    "parse_key_binding",
    "parse_receipt",
    "policy_from_toml",
    "seal_request",
    "verify_bundle",
    "verify_checkpoint",
    "verify_consistency",
    "verify_inclusion",
    "verify_receipt",
]


def __getattr__(name: str) -> object:
    """Import a public name from its module on first use, so that importing the package costs nothing."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
