"""Appraisal."""
from __future__ import annotations
from datetime import datetime
from cocoon_attestation.policy import Policy
from cocoon_attestation.verified import VerifiedEnclave


def appraise(evidence: bytes, *, policy: Policy, challenge: bytes, now: datetime | int) -> VerifiedEnclave:
    """Being written."""
    raise NotImplementedError
