"""Attestation results under the claim names of EAR (draft-ietf-rats-ear-04) with an AR4SI vector.

A view of a result that was reached elsewhere: checks go in, a JSON-ready claims set comes out. It is not
signed, so it proves nothing to a third party; whoever wants that repeats the verification. Nothing
simulated, skipped or tolerated is ever ``affirming``. Rules: docs/spec/ear.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from cocoon_attestation.checks import Check, Verdict

EAR_PROFILE: Final = "tag:ietf.org,2026:rats/ear#04"
DEVELOPER: Final = "Cocoon"
HARDWARE_ONLY: Final = "urn:x-cocoon:policy:v1:hardware-only"
"""Policy id where no policy was given."""

AFFIRMING: Final = 2
WARNING: Final = 32
CONTRAINDICATED: Final = 96
FORGED: Final = 99
"""AR4SI: cryptographic validation of the evidence failed."""
_STATUS: Final = {0: "none", AFFIRMING: "affirming", WARNING: "warning", CONTRAINDICATED: "contraindicated"}

_IDENTITY: Final = "instance-identity"
_CONFIGURATION: Final = "configuration"
_EXECUTABLES: Final = "executables"
_HARDWARE: Final = "hardware"
_OPAQUE: Final = "runtime-opaque"


def _of(prefix: str, names: str) -> tuple[str, ...]:
    """Check ids of one prefix."""
    return tuple(f"{prefix}.{name}" for name in names.split())


_INTEL: Final = "root collateral collateral_time evaluation qe sig chain tcb consistency"
CLAIMS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        _IDENTITY: (
            "challenge",
            "policy.platform",
            *_of("binding", "seal_key validity network node report_data"),
            *_of("tdx", "attestation_key platform report_data paravisor"),
            *_of("sgx", "attestation_key platform report_data"),
            *_of("snp", "key_kind hwid csp chip report_data paravisor"),
            *_of("gpu", "serial nonce distinct"),
            *_of("policy", "device"),
        ),
        _HARDWARE: (
            "tee.kind",
            *_of("tdx", f"module {_INTEL}"),
            *_of("sgx", _INTEL),
            *_of("snp", "length algorithm chain dates crl tcb_layout tcb_match sig"),
            *_of("snp", "product cpuid tcb_order tcb_min platform"),
            *_of("gpu", "allowed chain dates kind fwid ocsp sig vbios count"),
        ),
        _CONFIGURATION: (
            *_of("policy", "validity"),
            *_of("tdx", "xfam owner"),
            *_of("snp", "policy host_data"),
            *_of("gpu", "feature mode topology"),
            *_of("rtmr3", "config gpu"),
            *_of("release", "gpu"),
        ),
        _EXECUTABLES: (
            *_of("binding", "release"),
            *_of("release", "models"),
            *_of("tdx", "measurement"),
            *_of("sgx", "mrenclave mrsigner"),
            *_of("snp", "measurement id_block"),
            *_of("rtmr3", "replay grammar models"),
            *_of("gpu", "driver rim_chain rim_sig rim_ocsp rim_version rim_conflict rim_match"),
            *_of("eventlog", "rtmr0 rtmr1 rtmr2 rtmr3 types preimage separators preboot"),
            *_of("eventlog", "exit_boot ready unique"),
        ),
        _OPAQUE: (
            *_of("tdx", "attributes service_td"),
            *_of("sgx", "attributes"),
            *_of("snp", "debug migration vmpl"),
            *_of("rtmr3", "gpu_mode"),
        ),
    }
)
"""AR4SI claim → the checks that decide it. Every check decides exactly one."""
FORGERY: Final = frozenset(
    (
        *_of("tdx", "root attestation_key qe sig chain"),
        *_of("sgx", "root attestation_key qe sig chain"),
        *_of("snp", "chain sig"),
        *_of("gpu", "chain sig rim_chain rim_sig"),
        *_of("rtmr3", "replay"),
        *_of("eventlog", "rtmr0 rtmr1 rtmr2 rtmr3"),
    )
)
"""Checks whose failure means that cryptographic validation failed."""
_CLAIM_OF: Final = {check: claim for claim, checks in CLAIMS.items() for check in checks}
_DEVICES: Final = frozenset({"gpu", "policy.device", "release.gpu", "rtmr3.gpu", "rtmr3.gpu_mode"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A result to show. `accepted` and `undecided` are the verifier's own words; checks are not judged anew."""

    checks: Sequence[Check]
    accepted: bool
    """The verdict. A result that is not accepted is never affirming, whatever its checks say."""
    simulated: bool
    """True under any root that is not a vendor's."""
    issued_at: int
    """Time of the verdict, Unix seconds."""
    expires_at: int | None = None
    """End of the result, Unix seconds."""
    nonce: bytes | None = None
    """Challenge that the evidence answers, 8 to 64 bytes."""
    policy_digest: bytes | None = None
    """Digest of the policy, 32 bytes; None: the hardware alone was looked at, which is never affirming."""
    tolerated: bool = False
    """True if the platform is not up to date and was accepted nevertheless."""


def ear_claims(result: Result, *, build: str) -> dict[str, object]:
    """The claims set of an EAR, JSON-ready.

    Args:
        result: what was decided.
        build: name and version of the verifying software.
    """
    parts: dict[str, list[Check]] = {"cpu": [], "gpu": []}
    for check in result.checks:
        parts["gpu" if _about_devices(check.id) else "cpu"].append(check)
    submods = {name: _submod(checks, result) for name, checks in parts.items() if checks}
    if not submods:  # nothing could be checked
        submods = {"cpu": _submod([], result)}
    document: dict[str, object] = {
        "eat_profile": EAR_PROFILE,
        "iat": result.issued_at,
        "ear_verifier_id": {"developer": DEVELOPER, "build": build},
        "ear_status": _STATUS[_overall(result.checks, result)],
        "submods": submods,
    }
    if result.expires_at is not None and result.accepted:
        document["exp"] = result.expires_at
    if result.nonce is not None:
        document["eat_nonce"] = result.nonce.hex()
    return document


def _about_devices(id: str) -> bool:
    return id in _DEVICES or id.partition(".")[0] in _DEVICES


def _submod(checks: Sequence[Check], result: Result) -> dict[str, object]:
    return {
        "ear_status": _STATUS[_overall(checks, result)],
        "ear_trustworthiness_vector": _vector(checks, result),
        "ear_appraisal_policy_ids": [_policy_id(result.policy_digest)],
        "ear_verifier_claims": {
            "cocoon_simulated": result.simulated,
            "cocoon_signed": False,
            "cocoon_failed": _ids(checks, Verdict.FAIL),
            "cocoon_not_checked": _ids(checks, Verdict.SKIP),
        },
    }


def _policy_id(digest: bytes | None) -> str:
    return HARDWARE_ONLY if digest is None else f"urn:x-cocoon:policy:v1:{digest.hex()}"


def _overall(checks: Iterable[Check], result: Result) -> int:
    """The tier of a whole result; never better than the worst claim."""
    verdicts = {check.verdict for check in checks}
    if Verdict.FAIL in verdicts:
        return CONTRAINDICATED
    if not result.accepted or result.simulated or not verdicts:
        return 0
    caution = Verdict.SKIP in verdicts or result.tolerated or result.policy_digest is None
    return WARNING if caution else AFFIRMING


def _vector(checks: Iterable[Check], result: Result) -> dict[str, int]:
    """AR4SI claims by name; one that nothing is said about is left out, which means none."""
    grouped: dict[str, list[Check]] = {claim: [] for claim in CLAIMS}
    for check in checks:
        if claim := _CLAIM_OF.get(check.id):
            grouped[claim].append(check)
    vector = {claim: _value(claim, found, result) for claim, found in grouped.items()}
    return {claim: value for claim, value in vector.items() if value > 0}


def _value(claim: str, checks: Sequence[Check], result: Result) -> int:
    failed = _ids(checks, Verdict.FAIL)
    if failed:
        return FORGED if FORGERY.intersection(failed) else CONTRAINDICATED
    made = [check for check in checks if check.verdict is Verdict.PASS]
    if result.simulated or not made:
        return 0
    # Without a policy the values compared with are somebody's options, not a whole set of references.
    doubt = result.tolerated if claim == _HARDWARE else result.policy_digest is None
    caution = len(made) < len(checks) or doubt
    return WARNING if caution else AFFIRMING


def _ids(checks: Iterable[Check], verdict: Verdict) -> list[str]:
    return sorted({check.id for check in checks if check.verdict is verdict})
