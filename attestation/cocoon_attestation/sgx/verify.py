"""SGX authenticity and platform: the checks of `cocoon_attestation.tdx`, recorded as ``sgx.*``.

An SGX quote is signed and endorsed like a TDX quote; collateral has other ids, and the guest is an
enclave. So the routine is the same one, and only the ids of its checks differ.
"""

from __future__ import annotations

import dataclasses
import hmac
from typing import Final

from cocoon_attestation.checks import CheckList
from cocoon_attestation.sgx.quote import SgxQuote
from cocoon_attestation.tdx.collateral import Collateral
from cocoon_attestation.tdx.platform import TdxPlatform
from cocoon_attestation.tdx.requirements import PlatformRequirements
from cocoon_attestation.tdx.verify import verify_quote

TCB_INFO_FORM: Final = ("SGX", 3)
QE_IDENTITY_FORM: Final = ("QE", 2)
_PAGE: Final = "docs/spec/appraisal.md#"


def verify_sgx_quote(
    quote: SgxQuote,
    collateral: Collateral | None,
    *,
    policy: PlatformRequirements,
    now: int,
    checks: CheckList,
) -> TdxPlatform | None:
    """Record the authenticity checks; return facts on the platform if the library accepted the quote.

    Args:
        quote: parsed quote.
        collateral: parsed collateral with the SGX forms of TCB info and QE identity.
        policy: gives the root, the TCB rules and the platform lists.
        now: Unix time in seconds to verify at.
        checks: where the verdicts go.

    Raises:
        MalformedError: the certificate chain inside the quote does not decode.
    """
    found = CheckList()
    # The library stops at a debuggable enclave, as it does at a debuggable TD: one fault, one check.
    found.record("tdx.attributes", not quote.report.debug, "the enclave's DEBUG bit")
    platform = verify_quote(
        quote,
        collateral,
        policy=policy,
        now=now,
        checks=found,
        forms=(TCB_INFO_FORM, QE_IDENTITY_FORM),
    )
    for check in found.checks[1:]:
        id = check.id.replace("tdx.", "sgx.", 1)
        detail = check.detail.replace("tdx.", "sgx.")
        checks.checks.append(dataclasses.replace(check, id=id, detail=detail, spec=_PAGE + id))
    return platform


def validate_enclave(
    quote: SgxQuote,
    *,
    mrenclave: frozenset[bytes] | None,
    mrsigner: frozenset[bytes] | None,
    checks: CheckList,
) -> None:
    """Record the checks on the attested enclave.

    Args:
        quote: parsed quote; authenticated elsewhere.
        mrenclave: allowed measurements, 32 bytes each; None: not compared, the check is skipped.
        mrsigner: allowed signers, likewise.
        checks: where the verdicts go.
    """
    report = quote.report
    flags = report.attributes[0]
    faults = [] if flags & 1 else ["not initialised"]
    if report.debug:
        faults.append("the DEBUG bit is set: the host can read the enclave")
    checks.record(
        "sgx.attributes",
        not faults,
        f"ATTRIBUTES {report.attributes.hex()}: {'; '.join(faults) or 'initialised, not debuggable'}",
        inputs=(("attributes", report.attributes.hex()),),
    )
    _one_of("sgx.mrenclave", report.mrenclave, mrenclave, checks)
    _one_of("sgx.mrsigner", report.mrsigner, mrsigner, checks)


def _one_of(id: str, found: bytes, allowed: frozenset[bytes] | None, checks: CheckList) -> None:
    if allowed is None:
        checks.skip(id, f"no reference value to compare with {found.hex()}")
    else:
        same = any(hmac.compare_digest(found, one) for one in allowed)
        checks.record(id, same, f"found {found.hex()}")
