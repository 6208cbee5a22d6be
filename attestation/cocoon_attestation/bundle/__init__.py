"""Offline bundles: one file that proves one answer, without a network. See docs/spec/bundle.md."""

from cocoon_attestation.bundle.document import MAX_BUNDLE, MEDIA_TYPE, Bundle, parse_bundle
from cocoon_attestation.bundle.facts import AttestedBinding, ChainFacts
from cocoon_attestation.bundle.verify import AppraiseEvidence, verify_bundle

__all__ = [
    "MAX_BUNDLE",
    "MEDIA_TYPE",
    "AppraiseEvidence",
    "AttestedBinding",
    "Bundle",
    "ChainFacts",
    "parse_bundle",
    "verify_bundle",
]
