"""Single faults in raw quotes: SGX, and the report data of TDX."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from cocoon_attestation.checks import CheckList
from cocoon_attestation.sgx.quote import parse_sgx_quote
from cocoon_attestation.sgx.verify import validate_enclave
from cocoon_attestation.tdx import platform as platform_checks
from cocoon_attestation.tdx.dcap import DcapResult, dcap_verify
from cocoon_enclave.attestation import simulated_pki as pki

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from tests.attestation.fault_case import Build, Case, World
    from tests.attestation.kit_intel import REPORT_DATA
else:
    from fault_case import Build, Case, World
    from kit_intel import REPORT_DATA


def judged(quote: dict[str, Any] | None = None, **changes: Any) -> Build:
    """An SGX quote; `quote` are arguments of `Intel.sgx`, `changes` are options."""
    return lambda world: world.intel.judge(world.intel.sgx(**(quote or {})), **changes).checks


def case(bad: Build, **fine: Any) -> Case:
    """The good quote beside it; `fine` are options that make a check that is optional."""
    return Case(good=judged(**fine), bad=bad)


def stated(world: World, **arguments: Any) -> CheckList:
    """The quote under other statements of Intel's stand-in."""
    return world.intel.judge(world.intel.sgx(), world.intel.statements("sgx", **arguments)).checks


def other_family(world: World) -> CheckList:
    document = json.loads(world.intel.statements("sgx"))
    document["tcb_info"] = text = document["tcb_info"].replace("c0c000000000", "c0c000000001")
    document["tcb_info_signature"] = pki.sign_raw(world.intel.platform.tcb_signer.key, text.encode()).hex()
    return world.intel.judge(world.intel.sgx(), json.dumps(document).encode()).checks


def own_key(world: World) -> CheckList:
    quote, key = world.intel.sgx(), pki.new_key(world.lab.random)
    signed = quote[:432]
    forged = signed + quote[432:436] + pki.sign_raw(key, signed) + pki.raw_public_key(key) + quote[564:]
    return world.intel.judge(forged).checks


def changed_body(quote: bytes) -> bytes:
    return quote[:400] + bytes((quote[400] ^ 1,)) + quote[401:]


def disagreement(world: World) -> CheckList:
    """No evidence is known that two parsers read differently; so one of them lies."""

    def lying(*arguments: Any, **named: Any) -> DcapResult:
        return dataclasses.replace(dcap_verify(*arguments, **named), fmspc=bytes(6))

    with mock.patch.object(platform_checks, "dcap_verify", lying):
        return world.intel.judge(world.intel.sgx()).checks


def signer(*, right: bool) -> Build:
    """No command names a signer; this rule is for callers of the library."""

    def build(world: World) -> CheckList:
        quote = parse_sgx_quote(world.intel.sgx())
        allowed = quote.report.mrsigner if right else bytes(32)
        checks = CheckList()
        validate_enclave(quote, mrenclave=None, mrsigner=frozenset({allowed}), checks=checks)
        return checks

    return build


def right_enclave(world: World) -> CheckList:
    quote = world.intel.sgx()
    return world.intel.judge(quote, mrtd=parse_sgx_quote(quote).report.mrenclave).checks


def other_enclave_signer(world: World) -> CheckList:
    identity = dataclasses.replace(world.intel.platform.quoting_enclave, isv_prod_id=2)
    return world.intel.judge(world.intel.sgx(qe=identity)).checks


def revoked(world: World) -> CheckList:
    return stated(world, revoked=(world.intel.platform.pck.certificate.serial_number,))


def listed(world: World) -> CheckList:
    policy = world.lab.policy(allowed_platforms=frozenset({bytes(32)}))
    return world.intel.judge(world.intel.sgx(), policy=policy).checks


DEBUG = bytes.fromhex("07") + bytes(7) + bytes.fromhex("e7") + bytes(7)
CASES: dict[str, Case] = {
    "tdx.report_data": Case(
        good=lambda world: world.intel.judge(world.intel.tdx(), report_data=REPORT_DATA).checks,
        bad=lambda world: world.intel.judge(world.intel.tdx(), report_data=bytes(64)).checks,
    ),
    "sgx.attributes": case(judged({"attributes": DEBUG})),
    "sgx.mrenclave": Case(good=right_enclave, bad=judged(mrtd=bytes(32))),
    "sgx.mrsigner": Case(good=signer(right=True), bad=signer(right=False)),
    "sgx.report_data": case(judged(report_data=bytes(64)), report_data=REPORT_DATA),
    "sgx.root": case(judged(root=None)),
    "sgx.collateral": case(other_family),
    "sgx.collateral_time": case(judged(now=1_800_000_000 + 31 * 86_400)),
    "sgx.evaluation": case(judged(min_tcb_evaluation=20), min_tcb_evaluation=19),
    "sgx.attestation_key": case(own_key),
    "sgx.qe": case(other_enclave_signer),
    "sgx.sig": case(judged({"edit": changed_body})),
    "sgx.chain": case(revoked),
    "sgx.tcb": case(lambda world: stated(world, status="OutOfDate")),
    "sgx.consistency": case(disagreement),
    "sgx.platform": case(listed),
}
