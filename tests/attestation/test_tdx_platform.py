"""Facts about the platform that an accepted quote gives, and edges of the binding's life."""

from __future__ import annotations

from typing import Any

import pytest

from cocoon_attestation.policy import DEFAULT_CLOCK_SKEW_S
from cocoon_attestation.reference import TeeKind
from cocoon_attestation.tdx.platform import platform_id


def test_claims_name_the_platform_and_its_instance(lab: Any) -> None:
    enclave = lab.appraise()
    claims = enclave.claims
    ppid = bytes.fromhex(str(claims["ppid"]))
    assert len(ppid) == 16
    assert enclave.platform_id == platform_id(TeeKind.TDX, ppid)
    assert len(bytes.fromhex(str(claims["platform_instance_id"]))) == 16
    assert len(bytes.fromhex(str(claims["fmspc"]))) == 6
    assert claims["root_sha256"] == lab.policy().root_sha256.hex()


def test_platform_ids_of_different_kinds_never_meet() -> None:
    ids = {platform_id(kind, bytes(16)) for kind in (TeeKind.TDX, TeeKind.SEV_SNP, None)}
    assert len(ids) == 3


@pytest.mark.parametrize(
    ("start", "end", "accepted"),
    [
        (0, 1, True),  # one second is a life
        (-1, 0, False),  # over at its last second
        (DEFAULT_CLOCK_SKEW_S, 3600, True),
        (DEFAULT_CLOCK_SKEW_S + 1, 3600, False),
        (30, 10, False),  # ends before it starts, both within the allowed skew
        (30, 30, False),
    ],
)
def test_edges_of_the_life_of_a_binding(lab: Any, start: int, end: int, accepted: bool) -> None:
    binding = lab.binding(not_before=lab.now + start, not_after=lab.now + end)
    evidence = lab.evidence(binding=binding)
    if accepted:
        assert lab.appraise(evidence).expires_at <= lab.now + end
    else:
        assert lab.failures(evidence) == ("binding.validity",)
