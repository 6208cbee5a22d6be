"""The digest of a policy is over one canonical text, whatever the order in which the policy was made."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from cocoon_attestation.policy_vendor import open_snp_policy
from cocoon_attestation.reference import TeeKind


def canonical(value: object) -> str:
    """Canonical JSON written without the library's options: sorted keys, no blanks, ASCII."""
    if isinstance(value, dict):
        members = (f"{canonical(key)}:{canonical(value[key])}" for key in sorted(value))
        return "{" + ",".join(members) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    return json.dumps(value)


def test_digest_is_over_the_canonical_text(lab: Any, amd: Any, nvidia: Any) -> None:
    policy = lab.policy(
        snp=open_snp_policy(roots=(amd.root,)),
        gpu=nvidia.policy(gpu_count=2),
        tee_kinds=frozenset({TeeKind.TDX, TeeKind.SEV_SNP}),
        denied_advisories=frozenset({"INTEL-SA-00002", "INTEL-SA-00001", "ADVISORY-\u00e9"}),
    )
    text = canonical(policy.to_dict())
    assert text.isascii()
    assert policy.digest == hashlib.sha256(b"cocoon/v1/policy" + text.encode()).digest()
    assert json.loads(text) == policy.to_dict()


def test_order_of_members_does_not_matter(lab: Any) -> None:
    names = ["INTEL-SA-00003", "INTEL-SA-00001", "INTEL-SA-00002"]
    digests = {
        lab.policy(denied_advisories=frozenset(order)).digest
        for order in (names, sorted(names), names[::-1])
    }
    assert len(digests) == 1
