"""The seam to `dcap-qvl`, Phala's implementation of Intel's quote verification.

Only its offline core is used. Its errors are one text type; here they become `DcapError`. It returns
normally for outdated platforms, so the caller must look at `DcapResult.status`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import dcap_qvl

from cocoon_attestation.evidence import TdxCollateralBytes

_FIELDS: Final = {
    "tee_tcb_svn": "tee_tcb_svn",
    "mr_seam": "mrseam",
    "mr_signer_seam": "mrsignerseam",
    "seam_attributes": "seam_attributes",
    "td_attributes": "td_attributes",
    "xfam": "xfam",
    "mr_td": "mrtd",
    "mr_config_id": "mrconfigid",
    "mr_owner": "mrowner",
    "mr_owner_config": "mrownerconfig",
    "rt_mr0": "rtmr0",
    "rt_mr1": "rtmr1",
    "rt_mr2": "rtmr2",
    "rt_mr3": "rtmr3",
    "report_data": "report_data",
}
_ENCLAVE_FIELDS: Final = {
    "cpu_svn": "cpu_svn",
    "attributes": "attributes",
    "mr_enclave": "mrenclave",
    "mr_signer": "mrsigner",
    "report_data": "report_data",
}
_TCB_MESSAGES: Final = (
    "No matching TCB level",
    "TDX module TCB level",
    "TCB status is invalid",
    "QE ISVSVN",
)
"""Refusals that concern the TCB level; they only choose the id of the failed check, never the verdict."""


class DcapError(Exception):
    """The library refused. Never leaves this package: it becomes a failed check."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.about_tcb = any(text in message for text in _TCB_MESSAGES)


@dataclass(frozen=True, slots=True, kw_only=True)
class DcapResult:
    """What the library read from an authentic quote."""

    status: str
    """Converged TCB status, for example ``UpToDate``."""
    advisories: tuple[str, ...]
    tcb_date: str
    """Date of the matched TCB level, ISO 8601."""
    platform_level: tuple[int, ...]
    """The level of TCB info that the platform matched, as `level_key` names it."""
    qe_isv_svn: int
    """The level of the QE identity that the quoting enclave matched."""
    evaluation: int
    """The lower evaluation number of TCB info and QE identity."""
    version: int
    """Version of the quote."""
    tee_type: int
    """0x81 TDX, 0 SGX."""
    report: dict[str, bytes]
    """The report under the names of `report.TdReport`, of an SGX quote of `report.EnclaveReport`."""
    ppid: bytes
    """16 bytes."""
    fmspc: bytes
    """6 bytes."""
    pce_id: bytes
    """2 bytes."""
    instance_id: bytes | None
    """Platform instance id, 16 bytes, of platforms with several packages."""
    flags: tuple[str, str, str]
    """Dynamic platform, cached keys, SMT: ``True``, ``False`` or ``Undefined``."""
    expires_at: int
    """Unix time in seconds at which the first certificate, list or statement expires."""


def dcap_verify(quote: bytes, collateral: TdxCollateralBytes, *, root: bytes, now: int) -> DcapResult:
    """Verify `quote` under the DER certificate `root` at Unix time `now`.

    Raises:
        DcapError: the library refused, failed, or answered in an unknown form.
    """
    try:
        claims = dcap_qvl.QuoteVerifier(root).verify_with_policy(
            quote, _library_collateral(collateral), now, dcap_qvl.QuotePolicy.claims_only(now)
        )
        return _result(json.loads(claims.to_json()))
    except Exception as error:  # seam to a third-party library: every failure is a refusal
        raise DcapError(f"dcap-qvl: {error}") from error
    except BaseException as error:
        # A panic of the Rust core arrives as pyo3's PanicException, outside of Exception.
        if type(error).__module__ != "pyo3_runtime":
            raise
        raise DcapError("dcap-qvl: internal failure") from error


def pck_family(chain: bytes) -> tuple[bytes, bytes]:
    """FMSPC (6 bytes) and PCE-ID (2 bytes) in the SGX extension of the first certificate of a PEM chain.

    Raises:
        DcapError: there is no such extension.
    """
    try:
        extension = dcap_qvl.parse_pck_extension_from_pem(chain)
        return bytes(extension.fmspc), bytes(extension.pce_id)
    except Exception as error:  # seam to a third-party library: every failure is a refusal
        raise DcapError(f"dcap-qvl: {error}") from error


def _library_collateral(collateral: TdxCollateralBytes) -> Any:
    return dcap_qvl.QuoteCollateralV3(
        pck_crl_issuer_chain=collateral.pck_crl_issuer_chain,
        root_ca_crl=collateral.root_ca_crl,
        pck_crl=collateral.pck_crl,
        tcb_info_issuer_chain=collateral.tcb_info_issuer_chain,
        tcb_info=collateral.tcb_info,
        tcb_info_signature=collateral.tcb_info_signature,
        qe_identity_issuer_chain=collateral.qe_identity_issuer_chain,
        qe_identity=collateral.qe_identity,
        qe_identity_signature=collateral.qe_identity_signature,
    )


def _result(claims: dict[str, Any]) -> DcapResult:
    ((kind, report),) = claims["report"].items()
    if kind not in ("TD10", "TD15", "SgxEnclave"):
        raise ValueError(f"report of kind {kind}")
    platform = claims["platform"]
    pck = platform["pck"]
    return DcapResult(
        status=str(claims["tcb"]["status"]),
        advisories=tuple(str(advisory) for advisory in claims["tcb"]["advisory_ids"]),
        tcb_date=datetime.fromtimestamp(platform["tcb_date_tag"], UTC).date().isoformat(),
        platform_level=level_key(platform["tcb_level"]["tcb"]),
        qe_isv_svn=int(claims["qe"]["tcb_level"]["tcb"]["isvsvn"]),
        evaluation=int(claims["tcb"]["eval_data_number"]),
        version=int(claims["header"]["version"]),
        tee_type=int(claims["header"]["tee_type"]),
        report=_enclave(report) if kind == "SgxEnclave" else _report(kind, report),
        ppid=bytes(pck["ppid"]),
        fmspc=bytes(pck["fmspc"]),
        pce_id=bytes(pck["pce_id"]),
        instance_id=bytes(pck["platform_instance_id"]) if pck["platform_instance_id"] else None,
        flags=(str(pck["dynamic_platform"]), str(pck["cached_keys"]), str(pck["smt_enabled"])),
        expires_at=min(claims["earliest_expiration_date"], claims["qe_iden_earliest_expiration_date"]),
    )


def level_key(tcb: Mapping[str, Any]) -> tuple[int, ...]:
    """What tells one TCB level from another: SGX components, PCESVN, TDX components.

    Raises:
        KeyError, TypeError, ValueError: not the ``tcb`` member of a level.
    """
    sgx, tdx = tcb["sgxtcbcomponents"], tcb.get("tdxtcbcomponents") or ()
    return (*(int(one["svn"]) for one in sgx), int(tcb["pcesvn"]), *(int(one["svn"]) for one in tdx))


def _report(kind: str, report: dict[str, Any]) -> dict[str, bytes]:
    base = report["base"] if kind == "TD15" and "base" in report else report
    values = {ours: bytes.fromhex(base[theirs]) for theirs, ours in _FIELDS.items()}
    if kind == "TD15":
        values["tee_tcb_svn_2"] = bytes.fromhex(report["tee_tcb_svn2"])
        values["mrservicetd"] = bytes.fromhex(report["mr_service_td"])
    return values


def _enclave(report: dict[str, Any]) -> dict[str, bytes]:
    return {ours: bytes.fromhex(report[theirs]) for theirs, ours in _ENCLAVE_FIELDS.items()}
