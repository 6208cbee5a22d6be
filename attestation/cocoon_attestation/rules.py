"""What each check of an appraisal demands: the text behind ``cocoon explain CHECK``.

docs/spec/appraisal.md states the same rules; a test keeps the two and the code in step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

_PAGE: Final = "docs/spec/appraisal.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """The rule of one check."""

    id: str
    """Stable id of the check."""
    rule: str
    """What must hold, in one or two sentences."""
    source: str
    """Where the rule comes from: a vendor's specification, or this project's protocol."""

    @property
    def spec(self) -> str:
        """Section of the specification."""
        return f"{_PAGE}#{self.id}"


_PROTOCOL: Final = "Cocoon protocol v1"
_DCAP: Final = "Intel TDX DCAP quoting library API; Intel PCS API v4"
_MODULE: Final = "Intel TDX module specification"

_RULES: Final = (
    ("policy.validity", "The policy is not past its own end (`not_after`).", _PROTOCOL),
    (
        "challenge",
        "The evidence answers the challenge that the verifier chose. If it names a masterchain block, "
        "the challenge follows from that block.",
        _PROTOCOL,
    ),
    ("binding.seal_key", "The seal public key has the hash that the key binding names.", _PROTOCOL),
    (
        "binding.validity",
        "The time lies between `not_before` (less the clock skew) and `not_after`, and the two are at most "
        "24 hours apart.",
        _PROTOCOL,
    ),
    ("binding.network", "The key binding is for the policy's TON network.", _PROTOCOL),
    (
        "binding.node",
        "The key binding names the node that the policy requires, if it requires one.",
        _PROTOCOL,
    ),
    (
        "binding.release",
        "The key binding names an allowed release, and the one whose measurements were recognised.",
        _PROTOCOL,
    ),
    (
        "binding.report_data",
        "The 64 bytes that the hardware signed are H(tag ‖ binding hash ‖ GPU digest) ‖ challenge.",
        _PROTOCOL,
    ),
    ("tee.kind", "The evidence is of a kind of TEE that the policy allows.", _PROTOCOL),
    ("snp.supported", "This version can judge SEV-SNP evidence.", _PROTOCOL),
    ("gpu.supported", "This version can judge GPU evidence.", _PROTOCOL),
    ("tdx.measurement", "MRTD, RTMR0, RTMR1 and RTMR2 are those of one allowed release.", _MODULE),
    (
        "tdx.attributes",
        "TDATTRIBUTES equal the release's; no debug or profiling bit, SEPT_VE_DISABLE set, not migratable, "
        "no reserved bit.",
        _MODULE,
    ),
    ("tdx.xfam", "XFAM equals the release's, and its fixed bits are set.", _MODULE),
    (
        "tdx.module",
        "The TDX module is Intel's production module (MRSIGNERSEAM and SEAMATTRIBUTES zero) and, if the "
        "policy lists modules, one of them.",
        _MODULE,
    ),
    ("tdx.service_td", "No service TD is bound to the guest (MRSERVICETD is zero).", _MODULE),
    ("tdx.owner", "MRCONFIGID, MROWNER and MROWNERCONFIG, which the host chooses, are zero.", _MODULE),
    (
        "tdx.root",
        "The certificate chains of the quote and of all collateral end in the policy's root, byte for byte.",
        _DCAP,
    ),
    (
        "tdx.collateral",
        "TCB info and QE identity are there, of the TDX form and correctly signed; TCB info is for the platform "
        "family of the PCK certificate; both revocation lists are of the right issuers.",
        _DCAP,
    ),
    (
        "tdx.collateral_time",
        "TCB info, QE identity and both revocation lists are in date, and the first two no older than the "
        "policy allows.",
        _DCAP,
    ),
    (
        "tdx.evaluation",
        "tcbEvaluationDataNumber of TCB info and of QE identity is at least the policy's minimum: no rollback.",
        _DCAP,
    ),
    (
        "tdx.attestation_key",
        "The quoting enclave's report data is SHA-256(attestation key ‖ authentication data) and 32 zero bytes.",
        _DCAP,
    ),
    (
        "tdx.qe",
        "The quoting enclave's report is signed by the PCK key, is not debuggable, and agrees with the QE "
        "identity.",
        _DCAP,
    ),
    ("tdx.sig", "The attestation key signed header and body of the quote.", _DCAP),
    (
        "tdx.chain",
        "The library accepts every certificate path and signature, nothing is revoked, and the quoting enclave "
        "is at a known level.",
        _DCAP,
    ),
    (
        "tdx.tcb",
        "The TCB status of platform, module and quoting enclave together is one that the policy allows, with "
        "no advisory that it does not tolerate.",
        _DCAP,
    ),
    ("tdx.consistency", "The library and our own parser read the same quote and collateral.", _PROTOCOL),
    ("tdx.platform", "The platform is not denied and, if the policy lists platforms, listed.", _PROTOCOL),
    ("rtmr3.replay", "The runtime events, replayed from zero, give exactly the quoted RTMR3.", _PROTOCOL),
    (
        "rtmr3.grammar",
        "The events are cocoon.config, one or more different cocoon.model, cocoon.gpu, cocoon.ready: each in "
        "its place, nothing else.",
        _PROTOCOL,
    ),
    ("rtmr3.config", "The measured configuration is the one that the key binding names.", _PROTOCOL),
    ("rtmr3.models", "Every measured model is allowed.", _PROTOCOL),
    ("rtmr3.gpu", "The guest measured that it has no GPU exactly if the evidence shows none.", _PROTOCOL),
)

RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {id: Rule(id=id, rule=rule, source=source) for id, rule, source in _RULES}
)
"""Rules by check id."""
