"""A4: genuine hardware, but a guest that its host can look into, or firmware that is too old.

The host chooses attributes, service TDs, CPU features, privilege levels and firmware. It owns the machine,
so every signature is right; only the rules on what was signed stand between it and the prompt.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from cocoon.v1 import evidence_pb2
from cocoon_attestation.binding import report_data
from cocoon_attestation.policy import Policy
from cocoon_attestation.reference import SnpRelease, TeeKind
from cocoon_attestation.snp.policy import DEFAULT_MINIMUM_TCB
from cocoon_attestation.snp.report import Product, SigningKey
from cocoon_enclave.attestation.simulated_gpu_pki import seeded_random
from cocoon_enclave.attestation.simulated_node import SimulatedSnpAttester, simulated_snp_rules
from cocoon_enclave.attestation.simulated_snp import SimulatedAmd

TD15 = {"tee_tcb_svn_2": bytes.fromhex("050104") + bytes(13), "mrservicetd": bytes(48)}


def attributes(*bits: int, sept_ve_disable: bool = True) -> bytes:
    value = sum(1 << bit for bit in bits) | (sept_ve_disable << 28)
    return value.to_bytes(8, "little")


def test_the_honest_guests_are_accepted(lab: Any) -> None:
    assert lab.appraise().simulated
    assert lab.appraise(lab.evidence(report=TD15)).simulated


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("debug", attributes(0)),
        ("profiling of the host", attributes(4)),
        ("performance profiling", attributes(5)),
        ("reserved bit of the debug group", attributes(7)),
        ("SEPT_VE_DISABLE off", attributes(sept_ve_disable=False)),
        ("migratable", attributes(29)),
        ("reserved bit", attributes(40)),
        ("performance counters that the release does not have", attributes(63)),
    ],
)
def test_guest_whose_attributes_open_it(lab: Any, name: str, flags: bytes) -> None:
    assert lab.failures(lab.evidence(report={"td_attributes": flags})) == ("tdx.attributes",), name


def test_release_that_asks_for_debug_does_not_help(lab: Any) -> None:
    """Even a registry that lists a debuggable release cannot make one acceptable."""
    release = dataclasses.replace(lab.release, td_attributes=attributes(0))
    evidence = lab.evidence(
        binding=lab.binding(release_id=release.release_id), report={"td_attributes": attributes(0)}
    )
    assert lab.failures(evidence, policy=lab.policy(releases=(release,))) == ("tdx.attributes",)


def test_service_td_that_could_read_or_migrate_the_guest(lab: Any) -> None:
    evidence = lab.evidence(report={**TD15, "mrservicetd": b"\x01" * 48})
    assert lab.failures(evidence) == ("tdx.service_td",)


@pytest.mark.parametrize("xfam", ["e718060000000000", "e702060000000001", "0300000000000000"])
def test_other_cpu_features_than_the_release_was_reviewed_with(lab: Any, xfam: str) -> None:
    assert lab.failures(lab.evidence(report={"xfam": bytes.fromhex(xfam)})) == ("tdx.xfam",)


def test_old_module(lab: Any) -> None:
    old = bytes.fromhex("040104") + bytes(13)
    assert lab.failures(lab.evidence(report={"tee_tcb_svn": old})) == ("tdx.tcb",)


def test_module_of_somebody_else(lab: Any) -> None:
    assert lab.failures(lab.evidence(report={"mrsignerseam": b"\x01" * 48})) == ("tdx.module",)
    assert lab.failures(lab.evidence(report={"seam_attributes": b"\x01" * 8})) == ("tdx.module",)


def test_guest_behind_a_paravisor(lab: Any) -> None:
    """The cloud's own layer sits inside the TD and measures elsewhere: nothing here shows what runs."""
    zero = {f"rtmr{i}": bytes(48) for i in range(4)}
    evidence = lab.evidence(report={**zero, "report_data": b"\x01" * 32 + bytes(32)})
    assert "tdx.paravisor" in lab.failures(evidence)


# --- SEV-SNP ------------------------------------------------------------------------------------------------


class Snp:
    """A simulated SEV-SNP machine under the attacker's control."""

    def __init__(self, lab: Any, product: Product) -> None:
        self.lab = lab
        self.vendor = SimulatedAmd(product=product, now=lab.now, rng=seeded_random(b"a04"))
        self.release = SnpRelease(name="snp", measurement=b"\x01" * 48, models=(lab.model,))
        self.policy: Policy = lab.policy(
            releases=(self.release,),
            tee_kinds=frozenset({TeeKind.SEV_SNP}),
            snp=simulated_snp_rules(self.vendor),
        )

    def evidence(self, *, tcb: Any = None, kind: SigningKey = SigningKey.VCEK, **changes: Any) -> bytes:
        lab = self.lab
        binding = lab.binding(release_id=self.release.release_id)
        chip = self.vendor.chip(tcb=tcb, kind=kind)
        attester = SimulatedSnpAttester(self.vendor, self.release, config_hash=lab.config_hash, chip=chip)
        fields = attester.fields(report_data(binding.hash, bytes(32), lab.challenge))
        if tcb is not None:
            changes |= dict.fromkeys(("reported_tcb", "committed_tcb", "launch_tcb", "current_tcb"), tcb)
        message = evidence_pb2.Evidence(
            key_binding=binding.to_boc(),
            seal_public_key=lab.seal_public_key,
            challenge=lab.challenge,
            snp=attester.sign(dataclasses.replace(fields, **changes)),
        )
        if kind is SigningKey.VLEK:
            message.snp.issuer_chain = self.vendor.vlek_chain_pem
        return message.SerializeToString(deterministic=True)

    def failures(self, **changes: Any) -> tuple[str, ...]:
        found: tuple[str, ...] = self.lab.failures(self.evidence(**changes), policy=self.policy)
        return found


@pytest.fixture(scope="module", params=[Product.GENOA, Product.TURIN])
def snp(lab: Any, request: pytest.FixtureRequest) -> Snp:
    return Snp(lab, request.param)


def test_the_honest_snp_guest_is_accepted(snp: Snp) -> None:
    assert snp.lab.appraise(snp.evidence(), policy=snp.policy).tee is TeeKind.SEV_SNP


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"policy": 0x30000 | 1 << 19}, "snp.debug"),
        ({"policy": 0x30000 | 1 << 18}, "snp.migration"),
        ({"report_id_ma": b"\x01" * 32}, "snp.migration"),
        ({"vmpl": 1}, "snp.vmpl"),
        ({"vmpl": 0xFFFFFFFF}, "snp.vmpl"),
        ({"platform_info": 0b101}, "snp.platform"),
        ({"platform_info": 0b100001}, "snp.platform"),
    ],
)
def test_snp_guest_that_its_host_can_open(snp: Snp, changes: dict[str, Any], check: str) -> None:
    assert snp.failures(**changes) == (check,)


@pytest.mark.parametrize("part", ["boot_loader", "snp", "microcode"])
def test_old_firmware_has_a_genuine_certificate_too(snp: Snp, part: str) -> None:
    """The host rolls one part back; AMD certifies the older version just as well."""
    usual = DEFAULT_MINIMUM_TCB[snp.vendor.product]
    old = dataclasses.replace(usual, **{part: getattr(usual, part) - 1})
    assert snp.failures(tcb=old) == ("snp.tcb_min",)


def test_firmware_that_can_be_rolled_back_under_the_guest(snp: Snp) -> None:
    usual = DEFAULT_MINIMUM_TCB[snp.vendor.product]
    old = dataclasses.replace(usual, microcode=usual.microcode - 1)
    assert snp.failures(committed_tcb=old) == ("snp.tcb_order", "snp.tcb_min")
    assert snp.failures(launch_tcb=old) == ("snp.tcb_min",)


def test_key_of_a_cloud_provider_that_nobody_chose(snp: Snp) -> None:
    found = snp.failures(kind=SigningKey.VLEK, key_info=SigningKey.VLEK << 2)
    assert found == ("snp.csp",)


def test_milan_whose_keys_may_be_out(lab: Any) -> None:
    assert Snp(lab, Product.MILAN).failures() == ("snp.product",)
