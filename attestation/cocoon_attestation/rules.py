"""What each check of an appraisal demands: the text behind ``cocoon explain CHECK``.

docs/spec/appraisal.md states the same rules, for vendor evidence together with snp.md, gpu.md and
eventlog.md; tests keep pages, rules and code in step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from cocoon_attestation.rules_vendor import VENDOR_RULES

_PAGE: Final = "docs/spec/appraisal.md"
_PAGES: Final = {id: f"docs/spec/{id.partition('.')[0]}.md" for id, _, _ in VENDOR_RULES}


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
        return f"{_PAGES.get(self.id, _PAGE)}#{self.id}"


_PROTOCOL: Final = "Cocoon protocol v1"
_DCAP: Final = "Intel TDX DCAP quoting library API; Intel PCS API v4"
_MODULE: Final = "Intel TDX module specification"
_SGX: Final = "Intel SDM volume 3D; SGX ECDSA quote library reference"

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
    (
        "policy.platform",
        "SEV-SNP: the platform is not denied and, if the policy lists platforms, listed; a masked chip id is "
        "refused where a list is kept.",
        _PROTOCOL,
    ),
    (
        "policy.device",
        "No GPU and no switch that the evidence shows is on the policy's list of denied platforms.",
        _PROTOCOL,
    ),
    ("release.models", "SEV-SNP: every model that the measured release loads is allowed.", _PROTOCOL),
    (
        "release.gpu",
        "SEV-SNP: the evidence shows as many GPUs as the measured release demands.",
        _PROTOCOL,
    ),
    ("gpu.allowed", "If the evidence shows devices, the policy has rules for GPUs.", _PROTOCOL),
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
        "tdx.paravisor",
        "The guest measures itself: not all four registers are zero with a report data of 32 bytes and zeros, "
        "which is the mark of a paravisor whose virtual TPM speaks for the guest.",
        _MODULE,
    ),
    (
        "tdx.report_data",
        "Raw quotes only: the report data equals the 64 bytes that were given.",
        _MODULE,
    ),
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
    (
        "rtmr3.gpu",
        "The measured summary names exactly the devices that the evidence shows, in their order; it is `none` "
        "exactly if the evidence shows none.",
        _PROTOCOL,
    ),
    (
        "rtmr3.gpu_mode",
        "The measured guest found confidential computing on and developer tools off, and the GPUs joined as they "
        "signed themselves.",
        _PROTOCOL,
    ),
    (
        "sgx.attributes",
        "SGX quotes: the enclave is initialised and not debuggable.",
        _SGX,
    ),
    ("sgx.mrenclave", "SGX quotes: MRENCLAVE equals the one that was given.", _SGX),
    ("sgx.mrsigner", "SGX quotes: MRSIGNER is an allowed one. No reference: skipped.", _SGX),
    ("sgx.report_data", "SGX quotes: the report data equals the 64 bytes that were given.", _SGX),
)
_SHARED: Final = (
    "root",
    "collateral",
    "collateral_time",
    "evaluation",
    "attestation_key",
    "qe",
    "sig",
    "chain",
    "tcb",
    "consistency",
    "platform",
)
"""Checks on SGX quotes that are those on TDX quotes; collateral then has the ids ``SGX`` and ``QE``."""


def _sgx_rules() -> tuple[tuple[str, str, str], ...]:
    tdx = {id: rule for id, rule, _ in _RULES}
    return tuple((f"sgx.{name}", f"SGX quotes: {tdx[f'tdx.{name}']}", _DCAP) for name in _SHARED)


RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        id: Rule(id=id, rule=rule, source=source)
        for id, rule, source in (*_RULES, *_sgx_rules(), *VENDOR_RULES)
    }
)
"""Rules by check id."""
