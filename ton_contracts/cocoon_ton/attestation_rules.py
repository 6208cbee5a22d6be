"""What a registry demands of Intel platforms on chain, and how it follows from Intel's own statements. Pure.

The contract cannot read Intel's signed JSON at a sane price, so governance names *rules*: one per platform
family and TDX module version. Anybody can make the rule of a family from its collateral and compare.
Rules: ``docs/spec/onchain-attestation.md``, section 5.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pytoniq_core import Cell

from cocoon_attestation.errors import MalformedError, RejectedError
from cocoon_attestation.tdx.collateral import Collateral
from cocoon_attestation.types import exact_bytes, uint
from cocoon_ton import opcodes
from cocoon_ton.cells import Reader, begin, finish

UP_TO_DATE: Final = frozenset({"UpToDate"})


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationRule:
    """What a registry demands of one platform family and TDX module.

    Raises `MalformedError` at construction if a field has the wrong length or range.
    """

    anchor: bytes
    """x coordinate of the trusted key, 32 bytes."""
    qe_mrsigner: bytes
    """Signer of the quoting enclave, 32 bytes."""
    min_qe_svn: int
    fmspc: bytes
    """6 bytes."""
    min_components: bytes
    """16 bytes, least value of each."""
    min_pce_svn: int
    min_tee_tcb_svn: bytes
    """16 bytes, least value of each; byte 1, the module's major version, must be equal."""
    evaluation: int
    """tcbEvaluationDataNumber that this was taken from."""
    valid_until: int
    """Unix time in seconds."""

    def __post_init__(self) -> None:
        """Check lengths and ranges."""
        for name, length in (
            ("anchor", 32),
            ("qe_mrsigner", 32),
            ("fmspc", 6),
            ("min_components", 16),
            ("min_tee_tcb_svn", 16),
        ):
            exact_bytes(getattr(self, name), length, f"attestation rule {name}")
        uint(self.min_qe_svn, 16, "attestation rule min_qe_svn")
        uint(self.min_pce_svn, 16, "attestation rule min_pce_svn")
        uint(self.evaluation, 32, "attestation rule evaluation")
        uint(self.valid_until, 32, "attestation rule valid_until")

    @property
    def cell(self) -> Cell:
        """``AttestationRule``; its hash names the rule."""
        return finish(
            begin(opcodes.ATTESTATION_RULE)
            .store_uint(self.valid_until, 32)
            .store_bytes(self.fmspc)
            .store_uint(self.min_pce_svn, 16)
            .store_uint(self.min_qe_svn, 16)
            .store_bytes(self.qe_mrsigner)
            .store_bytes(self.min_components)
            .store_bytes(self.min_tee_tcb_svn)
            .store_uint(self.evaluation, 32)
            .store_bytes(self.anchor)
        )


def parse_rule(cell: Cell) -> AttestationRule:
    """Read an attestation rule.

    Raises:
        MalformedError: anything else.
    """
    reader = Reader(cell)
    reader.tag(opcodes.ATTESTATION_RULE)
    rule = AttestationRule(
        valid_until=reader.uint(32),
        fmspc=reader.raw(6),
        min_pce_svn=reader.uint(16),
        min_qe_svn=reader.uint(16),
        qe_mrsigner=reader.raw(32),
        min_components=reader.raw(16),
        min_tee_tcb_svn=reader.raw(16),
        evaluation=reader.uint(32),
        anchor=reader.raw(32),
    )
    reader.end()
    return rule


def rule_from_collateral(
    collateral: Collateral,
    *,
    anchor: bytes,
    module_major: int,
    statuses: frozenset[str] = UP_TO_DATE,
) -> AttestationRule:
    """The rule that Intel's statements give for one version of the TDX module.

    The levels that count are the newest ones of an accepted status, down to the first that is not accepted.
    Collateral must be authenticated before (`cocoon_attestation.tdx.verify`): this only reads it.

    Args:
        collateral: TCB info of the family and QE identity.
        anchor: x coordinate of the trusted key, 32 bytes.
        module_major: major version of the TDX module, byte 1 of TEE_TCB_SVN.
        statuses: accepted TCB statuses.

    Raises:
        MalformedError: statements of another form.
        RejectedError: no level of an accepted status, or no such module.
    """
    tcb_info, qe_identity = _table(collateral.tcb_info.text), _table(collateral.qe_identity.text)
    try:
        platform = _lowest(tcb_info["tcbLevels"], statuses)
        enclave = _lowest(qe_identity["tcbLevels"], statuses)
        svns = _svns(platform["tdxtcbcomponents"])
        if module_major:
            modules = {module["id"]: module for module in tcb_info["tdxModuleIdentities"]}
            module = modules.get(f"TDX_{module_major:02X}")
            if module is None:
                raise RejectedError(f"the TCB info knows no TDX module of version {module_major}")
            least = _lowest(module["tcbLevels"], statuses)["isvsvn"]
            svns = bytes([least, module_major]) + svns[2:]
        return AttestationRule(
            anchor=anchor,
            qe_mrsigner=collateral.qe_identity.mrsigner,
            min_qe_svn=enclave["isvsvn"],
            fmspc=collateral.tcb_info.fmspc,
            min_components=_svns(platform["sgxtcbcomponents"]),
            min_pce_svn=platform["pcesvn"],
            min_tee_tcb_svn=svns,
            evaluation=min(collateral.tcb_info.evaluation, collateral.qe_identity.evaluation),
            valid_until=min(collateral.tcb_info.next_update, collateral.qe_identity.next_update),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MalformedError("TCB info or QE identity: levels of another form") from error


def _table(text: bytes) -> Mapping[str, Any]:
    """JSON that `parse_collateral` has read before, so it is an object."""
    table: Mapping[str, Any] = json.loads(text)
    return table


def _lowest(levels: list[Mapping[str, Any]], statuses: frozenset[str]) -> Mapping[str, Any]:
    """Versions of the lowest of the accepted levels at the top; levels come newest first."""
    accepted: list[Mapping[str, Any]] = []
    for level in levels:
        if level["tcbStatus"] not in statuses:
            break
        accepted.append(level["tcb"])
    if not accepted:
        raise RejectedError("the newest TCB level has no accepted status")
    return accepted[-1]


def _svns(components: list[Mapping[str, int]]) -> bytes:
    return bytes(component["svn"] for component in components)
