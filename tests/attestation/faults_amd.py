"""Single faults in SEV-SNP evidence."""

from __future__ import annotations

import dataclasses
import datetime as dt
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cocoon_attestation.checks import CheckList
from cocoon_attestation.snp import report as layout
from cocoon_attestation.snp.policy import DEFAULT_MINIMUM_TCB, amd_roots
from cocoon_attestation.snp.report import Product, SigningKey
from cocoon_enclave.attestation.simulated_snp import SIMULATED_CSP, sign_report

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from tests.attestation.fault_case import Build, Case, World
    from tests.attestation.kit_amd import AT
else:
    from fault_case import Build, Case, World
    from kit_amd import AT

USUAL = DEFAULT_MINIMUM_TCB[Product.GENOA]


def checked(**arguments: Any) -> Build:
    """The guest with arguments of `Guest.check`."""
    return lambda world: world.guest.check(**arguments)[1]


def reported(**fields: Any) -> Case:
    """A case about one field of the report."""
    return Case(good=checked(), bad=checked(fields=fields))


def ruled(**rules: Any) -> Case:
    """A case about one rule of the policy."""
    return Case(good=checked(), bad=checked(rules=rules))


def other_key(world: World) -> CheckList:
    key = world.amd.chip(hwid=world.guest.chip.chip_id).key
    return world.guest.check(edit=lambda report: sign_report(report, key))[1]


def other_tcb(world: World) -> CheckList:
    chip = world.amd.chip(tcb=dataclasses.replace(USUAL, microcode=83))
    return world.guest.check(chip=chip)[1]


def other_chip(world: World) -> CheckList:
    return world.guest.check(chip=dataclasses.replace(world.guest.chip, chip_id=b"\x07" * 64))[1]


def revoked(world: World) -> CheckList:
    return world.guest.check(crl=world.amd.crl(revoked=[world.amd.ask.serial_number]))[1]


def chips(*, own: bool) -> Build:
    def build(world: World) -> CheckList:
        chip = world.guest.chip.chip_id if own else b"\x01" * 64
        return world.guest.check(rules={"chip_ids": frozenset({chip})})[1]

    return build


def vlek(*providers: str) -> Build:
    def build(world: World) -> CheckList:
        return world.guest.check(
            chip=world.amd.chip(kind=SigningKey.VLEK),
            chain=world.amd.vlek_chain_pem,
            fields={"key_info": SigningKey.VLEK << 2},
            rules={"vlek_csps": frozenset(providers)},
        )[1]

    return build


PARAVISOR_DATA = b"\x44" * 32 + bytes(32)


def under_a_paravisor(world: World) -> CheckList:
    """Everything that Azure writes into a guest of its paravisor, and the policy expects that report data."""
    fields = {"family_id": b"\x01" + bytes(15), "image_id": b"\x02" + bytes(15)}
    fields["report_data"] = PARAVISOR_DATA
    return world.guest.check(fields=fields, rules={"report_data": PARAVISOR_DATA})[1]


CASES: dict[str, Case] = {
    "snp.algorithm": reported(signature_algorithm=2),
    "snp.chain": ruled(roots=amd_roots()),
    # A list of that age would be stale as well: there is none, and the policy asks for none.
    "snp.dates": Case(
        good=checked(),
        bad=checked(at=AT + dt.timedelta(days=366), crl=None, rules={"require_crl": False}),
    ),
    "snp.crl": Case(good=checked(), bad=revoked),
    "snp.key_kind": reported(key_info=SigningKey.VLEK << 2),
    "snp.tcb_layout": reported(overwrite={0x1E2: b"\x01"}),
    "snp.tcb_match": Case(good=checked(), bad=other_tcb),
    "snp.hwid": Case(good=checked(), bad=other_chip),
    "snp.csp": Case(good=vlek(SIMULATED_CSP), bad=vlek("CN=somebody else")),
    "snp.sig": Case(good=checked(), bad=other_key),
    "snp.product": ruled(products=frozenset({Product.TURIN})),
    "snp.cpuid": reported(cpuid=(0x19, 0x01, 0x01)),
    "snp.debug": reported(policy=1 << 17 | layout.POLICY_DEBUG),
    "snp.migration": reported(policy=1 << 17 | layout.POLICY_MIGRATE_MA),
    "snp.policy": ruled(policy_forbidden=layout.POLICY_SMT),
    "snp.tcb_order": reported(committed_tcb=dataclasses.replace(USUAL, microcode=90)),
    "snp.tcb_min": reported(launch_tcb=dataclasses.replace(USUAL, snp=22)),
    "snp.platform": reported(platform_info=layout.PLATFORM_ECC),
    "snp.chip": Case(good=chips(own=True), bad=chips(own=False)),
    "snp.vmpl": reported(vmpl=1),
    "snp.paravisor": Case(good=checked(), bad=under_a_paravisor),
    "snp.measurement": reported(measurement=bytes(48)),
    "snp.host_data": reported(host_data=b"\x01" * 32),
    "snp.id_block": ruled(minimum_guest_svn=1),
    "snp.report_data": reported(report_data=bytes(64)),
}
