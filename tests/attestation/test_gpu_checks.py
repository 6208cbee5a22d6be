"""Each GPU check fails alone on simulated evidence with exactly that fault."""

from __future__ import annotations

import dataclasses
import datetime as dt
import sys
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from cocoon_attestation.errors import ConfigError, MalformedError
from cocoon_attestation.gpu.policy import DeviceKind, GpuPolicy
from cocoon_attestation.gpu.report import STATUS_ON, FeatureFlag, Opaque
from cocoon_attestation.gpu.verify import verify_gpu
from cocoon_attestation.gpu.versions import driver_at_least, vbios_at_least
from cocoon_attestation.roots.nvidia import nvidia_device_root
from cocoon_enclave.attestation.simulated_gpu import (
    DRIVER_INDICES,
    DRIVER_VERSION,
    VBIOS_INDICES,
    VBIOS_VERSION,
    SimulatedNvidia,
)
from cocoon_enclave.attestation.simulated_gpu_pki import (
    chain_pem,
    make_ocsp_response,
    make_signer,
    seeded_random,
)

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from tests.attestation.kit_nvidia import AT, NONCE, NOW, Machine, Topology, rim, with_rims
else:
    from kit_nvidia import AT, NONCE, NOW, Machine, Topology, rim, with_rims

LATE = dt.datetime(2031, 1, 1, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def machine(nvidia: SimulatedNvidia) -> Machine:
    return Machine(nvidia)


def test_healthy_gpu_is_accepted(machine: Machine) -> None:
    claims, checks = machine.check()
    assert checks.accepted
    assert claims.simulated
    [gpu] = claims.gpus
    assert (gpu.chip, gpu.driver_version, gpu.vbios_version) == ("GH100", DRIVER_VERSION, VBIOS_VERSION)
    assert gpu.serial.endswith(machine.gpu.pdi.hex())
    assert gpu.mode is FeatureFlag.SINGLE
    assert all(check.spec == f"docs/spec/gpu.md#{check.id}" for check in checks)
    assert all(check.detail.startswith(("gpu 0: ", "machine: ")) for check in checks)


def test_healthy_machine_of_eight_is_accepted(machine: Machine) -> None:
    board = machine.vendor.board()
    claims, checks = machine.check(*machine.evidence(*board), rules={"gpu_count": 8})
    assert checks.accepted
    assert len(claims.gpus) == 8
    assert {gpu.mode for gpu in claims.gpus} == {FeatureFlag.PPCIE}
    assert len({claim.serial for claim in claims.devices}) == 12


def test_blackwell_is_accepted() -> None:
    vendor = SimulatedNvidia(now=NOW, rng=seeded_random(b"blackwell"), chip="GB100")
    machine = Machine(vendor)
    gpu = vendor.gpu(mode=FeatureFlag.MULTI)
    gpu = dataclasses.replace(gpu, opaque={**gpu.opaque, Opaque.CHIP_NAME: b"GB100\x00"})
    claims, checks = machine.check(*machine.evidence(gpu))
    assert checks.accepted
    assert claims.gpus[0].mode is FeatureFlag.MULTI
    wrong = dataclasses.replace(gpu, opaque={**gpu.opaque, Opaque.CHIP_NAME: b"GB102\x00"})
    assert machine.failed(*machine.evidence(wrong)) == ["gpu.rim_version"]


def test_development_root_is_refused_by_the_usual_policy(machine: Machine) -> None:
    usual = GpuPolicy(gpu_count=1)
    assert machine.failed(rules={"device_roots": usual.device_roots}) == ["gpu.chain"]
    assert machine.failed(rules={"rim_roots": usual.rim_roots}) == ["gpu.rim_chain"]


def test_chain_of_a_look_alike_vendor_is_refused(machine: Machine) -> None:
    impostor = SimulatedNvidia(now=NOW, rng=seeded_random(b"impostor"))
    [evidence] = impostor.evidence([impostor.gpu()], NONCE, now=NOW)
    [own] = machine.evidence()
    forged = dataclasses.replace(evidence, rims=own.rims)
    failed = machine.failed(forged)
    assert failed[0] == "gpu.chain"


@pytest.mark.parametrize("cut", [(0, 1, 2, 4), (0, 2, 1, 3, 4), (0, 1, 2, 3)])
def test_chain_must_be_complete_and_in_order(machine: Machine, cut: Sequence[int]) -> None:
    [evidence] = machine.evidence()
    chain = chain_pem([machine.gpu.chain[i] for i in cut])
    broken = dataclasses.replace(evidence, certificate_chain=chain)
    try:
        failed = machine.failed(broken)
    except MalformedError:
        return
    assert "gpu.chain" in failed


def test_genuine_root_pasted_behind_a_chain(machine: Machine) -> None:
    """It signed none of it. What the claims call simulated is only which root the chain names."""
    [evidence] = machine.evidence()
    below = chain_pem(machine.gpu.chain[:4])
    root = x509.load_der_x509_certificate(nvidia_device_root()).public_bytes(Encoding.PEM)
    pasted = dataclasses.replace(evidence, certificate_chain=below + root)
    claims, checks = machine.check(pasted, rules={"device_roots": GpuPolicy(gpu_count=1).device_roots})
    assert "gpu.chain" in {check.id for check in checks.failed}
    assert not claims.simulated


def test_leaf_must_not_sign_for_another_leaf(machine: Machine) -> None:
    """A chain that slips a device-made certificate between the device and its signing key."""
    leaf = make_signer(
        "GH100 A01 GSP FMC LF",
        machine.gpu.chain[0],
        start=AT - dt.timedelta(days=1),
        rng=seeded_random(b"leaf"),
        fwid=machine.gpu.opaque[Opaque.FWID],
    )
    chain = (leaf, *machine.gpu.chain[1:])
    gpu = dataclasses.replace(machine.gpu, chain=chain)
    assert machine.failed(*machine.evidence(gpu)) == ["gpu.chain"]


def test_dates_of_the_chain(machine: Machine) -> None:
    early = AT - dt.timedelta(days=2)
    failed = machine.failed(at=early)
    assert failed == ["gpu.dates", "gpu.ocsp", "gpu.rim_chain", "gpu.rim_ocsp"]
    quiet = {"require_ocsp": False, "require_rims": False}
    bare = [dataclasses.replace(one, rims=(), ocsp_responses=()) for one in machine.evidence()]
    assert machine.failed(*bare, at=early, rules=quiet) == ["gpu.dates"]


def test_manifest_signer_expires(machine: Machine) -> None:
    bare = [dataclasses.replace(one, ocsp_responses=()) for one in machine.evidence()]
    failed = machine.failed(*bare, at=LATE, rules={"require_ocsp": False})
    assert failed == ["gpu.rim_chain"]


def test_kind_and_chip_are_taken_from_the_certificate(machine: Machine) -> None:
    assert machine.failed(rules={"chips": frozenset({"GB100"})}) == ["gpu.kind"]


def test_switch_certificate_cannot_sign_for_a_gpu(machine: Machine) -> None:
    switch = machine.vendor.switch()
    gpu = dataclasses.replace(machine.gpu, chain=switch.chain)
    failed = machine.failed(*machine.evidence(gpu), rules={"allow_missing_fwid": True})
    assert "gpu.kind" in failed


def test_serial_lists(machine: Machine) -> None:
    serial = machine.check()[0].gpus[0].serial
    assert machine.check(rules={"serials": frozenset({serial})})[1].accepted
    assert machine.failed(rules={"serials": frozenset({"00"})}) == ["gpu.serial"]
    assert machine.failed(rules={"denied_serials": frozenset({serial})}) == ["gpu.serial"]


def test_firmware_id_must_be_the_certified_one(machine: Machine) -> None:
    other = machine.opaque(FWID=b"\x01" * 48)
    assert machine.failed(*machine.evidence(other)) == ["gpu.fwid"]
    missing = machine.opaque(FWID=None)
    assert machine.failed(*machine.evidence(missing)) == ["gpu.fwid"]
    assert machine.check(*machine.evidence(missing), rules={"allow_missing_fwid": True})[1].accepted
    certified = machine.vendor.with_chain(other, fwid=b"\x01" * 48)
    assert machine.check(*machine.evidence(certified))[1].accepted


def test_signature_of_another_key_fails(machine: Machine) -> None:
    [evidence] = machine.evidence()
    other = machine.vendor.gpu()
    forged = dataclasses.replace(machine.gpu, chain=other.chain).report(NONCE)
    assert machine.failed(dataclasses.replace(evidence, report=forged)) == ["gpu.sig"]


def test_signing_key_of_another_kind(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cocoon_attestation.gpu.certificates.p384_key", lambda _: None)
    assert "gpu.sig" in machine.failed()


@pytest.mark.parametrize("part", [slice(-96, -48), slice(-48, None)])
def test_zero_signature_fails(machine: Machine, part: slice) -> None:
    [evidence] = machine.evidence()
    report = bytearray(evidence.report)
    report[part] = bytes(48)
    assert machine.failed(dataclasses.replace(evidence, report=bytes(report))) == ["gpu.sig"]


def test_nonce_is_the_one_of_the_request(machine: Machine) -> None:
    [evidence] = machine.evidence()
    stale = machine.gpu.report(b"\x01" * 32, response_nonce=NONCE)
    assert machine.failed(dataclasses.replace(evidence, report=stale)) == ["gpu.nonce"]
    # The revocation answers carry the verifier's nonce too, unless the policy names another.
    assert set(machine.failed(nonce=b"\x02" * 32)) == {"gpu.nonce", "gpu.ocsp", "gpu.rim_ocsp"}
    rules = {"ocsp_nonce": NONCE}
    assert machine.failed(nonce=b"\x02" * 32, rules=rules) == ["gpu.nonce"]


@pytest.mark.parametrize(
    ("check", "rules"),
    [
        ("gpu.driver", {"minimum_driver": MappingProxyType({"GH100": "590.13"})}),
        ("gpu.driver", {"minimum_driver": MappingProxyType({"GB100": "1.0"})}),
        ("gpu.vbios", {"minimum_vbios": MappingProxyType({"G520": "96.00.A5.00.02"})}),
        ("gpu.vbios", {"minimum_vbios": MappingProxyType({"1010": "90.00.00.00.00"})}),
        ("gpu.feature", {"modes": frozenset({FeatureFlag.PPCIE})}),
        ("gpu.feature", {"opaque_versions": frozenset({7})}),
        ("gpu.count", {"gpu_count": 2}),
    ],
)
def test_one_rule_fails_one_check(machine: Machine, check: str, rules: dict[str, Any]) -> None:
    assert machine.failed(rules=rules) == [check]


def test_minimum_that_is_not_set_is_visible(machine: Machine) -> None:
    nothing: MappingProxyType[str, str] = MappingProxyType({})
    for rules, skipped in (
        ({"minimum_driver": nothing}, {"gpu.driver"}),
        ({"minimum_vbios": nothing}, {"gpu.vbios"}),
    ):
        _, checks = machine.check(rules=rules)
        assert {check.id for check in checks.skipped} == skipped
        assert not checks.failed
        assert not checks.accepted
    board = machine.evidence(*machine.vendor.board())
    _, checks = machine.check(*board, rules={"gpu_count": 8, "minimum_switch": ""})
    assert [check.id for check in checks.skipped] == ["gpu.vbios"] * 4
    assert not checks.failed


def test_what_a_genuine_device_is_not_asked_is_visible(machine: Machine) -> None:
    rules = dataclasses.replace(
        GpuPolicy.dangerous_genuine_only(), device_roots=frozenset({machine.vendor.device_root.der})
    )
    bare = [dataclasses.replace(one, rims=(), ocsp_responses=()) for one in machine.evidence()]
    _, checks = verify_gpu(bare, rules, NONCE, AT)
    assert not checks.failed
    assert {check.id for check in checks.skipped} == rules.waived - {"gpu.topology"}


@pytest.mark.parametrize(
    "changes",
    [
        {"FEATURE_FLAG": b"\x09\x00"},
        {"FEATURE_FLAG": b"\x02\x00"},
        {"OPAQUE_VERSION": b"\x02\x00"},
    ],
)
def test_feature_records_must_make_sense(machine: Machine, changes: dict[str, bytes]) -> None:
    failed = machine.failed(*machine.evidence(machine.opaque(**changes)))
    assert failed[0] == "gpu.feature"
    # A lone GPU that says it is in protected PCIe mode also misses its switches.
    assert failed[1:] == (["gpu.topology"] if changes.get("FEATURE_FLAG") == b"\x02\x00" else [])


def test_early_firmware_shows_its_mode_by_the_protected_pcie_status_alone(machine: Machine) -> None:
    claims, checks = machine.check(*machine.evidence(machine.opaque(FEATURE_FLAG=None)))
    assert checks.accepted
    assert claims.gpus[0].mode is FeatureFlag.SINGLE
    joined = machine.opaque(FEATURE_FLAG=None, PPCIE_STATUS=bytes((STATUS_ON,)))
    claims, checks = machine.check(*machine.evidence(joined))
    assert [check.id for check in checks.failed] == ["gpu.topology"]
    assert claims.gpus[0].mode is FeatureFlag.PPCIE


def test_gpus_of_different_modes_do_not_mix(machine: Machine) -> None:
    multi = machine.vendor.gpu(mode=FeatureFlag.MULTI)
    evidence = machine.evidence(machine.gpu, multi)
    assert machine.failed(*evidence, rules={"gpu_count": 2}) == ["gpu.mode"]


def test_one_gpu_shown_twice_is_noticed(machine: Machine) -> None:
    evidence = machine.evidence(machine.gpu, machine.gpu)
    assert machine.failed(*evidence, rules={"gpu_count": 2}) == ["gpu.distinct"]


def test_no_device_is_no_evidence(machine: Machine) -> None:
    _, checks = verify_gpu((), machine.rules(), NONCE, AT)
    assert [check.id for check in checks.failed] == ["gpu.count", "gpu.distinct"]
    _, checks = verify_gpu((), GpuPolicy.dangerous_genuine_only(), NONCE, AT)
    assert [check.id for check in checks.failed] == ["gpu.distinct"]


def test_gpu_behind_a_foreign_switch(machine: Machine) -> None:
    board = Topology(machine)
    links = board.devices[3].opaque[Opaque.SWITCH_PDI]
    board.rewire(3, Opaque.SWITCH_PDI, b"\x99" * 8 + links[8:])
    assert board.failed() == ["gpu.topology"]


def test_gpu_that_sees_three_switches(machine: Machine) -> None:
    board = Topology(machine)
    first = board.devices[3].opaque[Opaque.SWITCH_PDI][:8]
    board.rewire(3, Opaque.SWITCH_PDI, first * 18)
    assert board.failed() == ["gpu.topology"]


def test_unused_links_are_ignored(machine: Machine) -> None:
    board = Topology(machine)
    links = board.devices[3].opaque[Opaque.SWITCH_PDI]
    board.rewire(3, Opaque.SWITCH_PDI, links[:-16] + bytes(16))
    evidence = machine.evidence(*board.devices)
    assert machine.check(*evidence, rules={"gpu_count": 8})[1].accepted


def test_switch_that_lists_a_foreign_gpu(machine: Machine) -> None:
    board = Topology(machine)
    ports = board.devices[9].opaque[Opaque.SWITCH_GPU_PDIS]
    board.rewire(9, Opaque.SWITCH_GPU_PDIS, b"\x99" * 8 + ports[8:])
    assert board.failed() == ["gpu.topology"]


def test_switch_with_the_id_of_another(machine: Machine) -> None:
    board = Topology(machine)
    board.rewire(9, Opaque.SWITCH_PDI, board.devices[10].pdi)
    assert board.failed() == ["gpu.topology"]


def test_switches_are_needed_in_protected_pcie_mode(machine: Machine) -> None:
    board = Topology(machine)
    board.devices = board.devices[:8]
    assert board.failed() == ["gpu.topology"]
    rules = {"gpu_count": 8, "require_switches": False}
    _, checks = machine.check(*machine.evidence(*board.devices), rules=rules)
    assert checks.failed == ()
    assert [check.id for check in checks.skipped] == ["gpu.topology"]


def test_old_switch_is_refused(machine: Machine) -> None:
    board = Topology(machine)
    evidence = machine.evidence(*board.devices)
    rules = {"gpu_count": 8, "minimum_switch": "96.10.73.00.02"}
    assert machine.failed(*evidence, rules=rules) == ["gpu.vbios"] * 4


def test_manifest_with_another_value(machine: Machine) -> None:
    driver = rim(machine, DRIVER_VERSION, *DRIVER_INDICES, values={9: (b"\x01" * 48,)})
    assert machine.failed(with_rims(machine, driver, machine.vendor.gpu_rims[1])) == ["gpu.rim_match"]


def test_manifest_with_alternatives(machine: Machine) -> None:
    choices = (b"\x01" * 48, machine.gpu.measurements[9], b"\x02" * 48)
    driver = rim(machine, DRIVER_VERSION, *DRIVER_INDICES, values={9: choices})
    assert machine.check(with_rims(machine, driver, machine.vendor.gpu_rims[1]))[1].accepted


def test_manifest_about_a_block_that_does_not_exist(machine: Machine) -> None:
    """A switch has 31 blocks: an active entry 40 has nothing to compare with."""
    board = Topology(machine)
    values = {index: (value,) for index, value in enumerate(board.devices[8].measurements)}
    wrong = machine.vendor.rim("96.10.73.00.01", {**values, 40: (bytes(48),)}, chip="LS10")
    board.devices[8] = dataclasses.replace(board.devices[8], rims=(wrong,))
    assert board.failed() == ["gpu.rim_match"]


def test_manifest_without_an_active_entry(machine: Machine) -> None:
    empty = rim(machine, DRIVER_VERSION)
    assert machine.failed(with_rims(machine, empty, machine.vendor.gpu_rims[1])) == ["gpu.rim_match"]


def test_manifests_that_speak_about_one_block(machine: Machine) -> None:
    driver = rim(machine, DRIVER_VERSION, *DRIVER_INDICES, VBIOS_INDICES[0])
    failed = machine.failed(with_rims(machine, driver, machine.vendor.gpu_rims[1]))
    assert failed == ["gpu.rim_conflict"]


def test_video_decoder_may_differ_while_it_is_off(machine: Machine) -> None:
    driver = rim(machine, DRIVER_VERSION, *DRIVER_INDICES, values={35: (b"\x01" * 48,)})
    rims = (driver, machine.vendor.gpu_rims[1])
    assert machine.check(with_rims(machine, *rims))[1].accepted
    decoding = machine.opaque(NVDEC0_STATUS=b"\xaa")
    assert machine.failed(with_rims(machine, *rims, device=decoding)) == ["gpu.rim_match"]
    silent = machine.opaque(NVDEC0_STATUS=None)
    assert machine.failed(with_rims(machine, *rims, device=silent)) == ["gpu.rim_match"]


@pytest.mark.parametrize("change", [{"version": "590.13"}, {"chip": "GB100"}])
def test_manifest_of_another_version_or_chip(machine: Machine, change: dict[str, str]) -> None:
    other = {"version": DRIVER_VERSION, **change}
    driver = rim(machine, other.pop("version"), *DRIVER_INDICES, **other)
    failed = machine.failed(with_rims(machine, driver, machine.vendor.gpu_rims[1]))
    assert failed == ["gpu.rim_version"]


def test_versions_are_compared_without_case(machine: Machine) -> None:
    vbios = rim(machine, VBIOS_VERSION.lower(), *VBIOS_INDICES)
    assert machine.check(with_rims(machine, machine.vendor.gpu_rims[0], vbios))[1].accepted


def test_edited_manifest(machine: Machine) -> None:
    driver, vbios = machine.vendor.gpu_rims
    edited = driver.replace(machine.gpu.measurements[9].hex().encode(), b"01" * 48)
    assert edited != driver
    failed = machine.failed(with_rims(machine, edited, vbios))
    assert failed[0] == "gpu.rim_sig"


def test_missing_manifests(machine: Machine) -> None:
    bare = with_rims(machine)
    assert set(machine.failed(bare)) == {
        "gpu.rim_chain",
        "gpu.rim_sig",
        "gpu.rim_ocsp",
        "gpu.rim_version",
        "gpu.rim_conflict",
        "gpu.rim_match",
    }
    _, checks = machine.check(bare, rules={"require_rims": False})
    assert checks.failed == ()
    assert not checks.accepted


class Answers:
    """One GPU with revocation answers that can be replaced."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        [self.evidence] = machine.evidence()
        self.device, self.issuer = machine.gpu.chain[1], machine.gpu.chain[2]

    def failed(self, answer: bytes | None, *, keep: bool = False) -> list[str]:
        """Verify with `answer` in the place of the one about the device, or beside it."""
        rest = self.evidence.ocsp_responses[0 if keep else 1 :]
        responses = (*((answer,) if answer is not None else ()), *rest)
        changed = dataclasses.replace(self.evidence, ocsp_responses=responses)
        return self.machine.failed(changed)

    def make(self, **changes: Any) -> bytes:
        arguments: dict[str, Any] = {"nonce": NONCE, "at": AT}
        responder = changes.pop("responder", self.machine.vendor.responder(self.issuer))
        issuer = changes.pop("issuer", self.issuer)
        certificate = changes.pop("certificate", self.device.certificate)
        return make_ocsp_response(certificate, issuer, responder, **{**arguments, **changes})


@pytest.fixture
def answers(machine: Machine) -> Answers:
    return Answers(machine)


def test_good_answer_replaces_a_good_answer(answers: Answers) -> None:
    responses = (answers.make(), *answers.evidence.ocsp_responses[1:])
    evidence = dataclasses.replace(answers.evidence, ocsp_responses=responses)
    assert answers.machine.check(evidence)[1].accepted


@pytest.mark.parametrize(
    "changes",
    [
        {"status": ocsp.OCSPCertStatus.REVOKED, "reason": x509.ReasonFlags.key_compromise},
        {"status": ocsp.OCSPCertStatus.REVOKED, "reason": x509.ReasonFlags.certificate_hold},
        {"status": ocsp.OCSPCertStatus.REVOKED},
        {"status": ocsp.OCSPCertStatus.UNKNOWN},
        {"nonce": None},
        {"nonce": bytes(32)},
        {"at": AT - dt.timedelta(days=2)},
        {"at": AT + dt.timedelta(days=1)},
    ],
)
def test_answer_that_does_not_clear_the_device(answers: Answers, changes: dict[str, Any]) -> None:
    assert answers.failed(answers.make(**changes)) == ["gpu.ocsp"]


@pytest.mark.parametrize("position", [1, 2, 3])
def test_each_certificate_between_leaf_and_root_can_be_revoked(answers: Answers, position: int) -> None:
    chain = answers.machine.gpu.chain
    revoked = answers.make(
        certificate=chain[position].certificate,
        issuer=chain[position + 1],
        responder=answers.machine.vendor.responder(chain[position + 1]),
        status=ocsp.OCSPCertStatus.REVOKED,
    )
    assert answers.failed(revoked, keep=True) == ["gpu.ocsp"]


def test_missing_answer(answers: Answers) -> None:
    assert answers.failed(None) == ["gpu.ocsp"]


def test_one_bad_answer_outweighs_a_good_one(answers: Answers) -> None:
    revoked = answers.make(status=ocsp.OCSPCertStatus.REVOKED)
    assert answers.failed(revoked, keep=True) == ["gpu.ocsp"]


def responder_below(issuer: Any, **changes: Any) -> Any:
    arguments: dict[str, Any] = {
        "start": AT - dt.timedelta(days=1),
        "rng": seeded_random(b"responder"),
        "ocsp_signing": True,
    }
    return make_signer("SIMULATED responder", issuer, **{**arguments, **changes})


def test_responder_must_be_for_ocsp_signing(answers: Answers) -> None:
    responder = responder_below(answers.issuer, ocsp_signing=False)
    assert answers.failed(answers.make(responder=responder)) == ["gpu.ocsp"]


def test_responder_must_be_certified_by_the_issuer(answers: Answers) -> None:
    responder = responder_below(answers.machine.vendor.device_root)
    assert answers.failed(answers.make(responder=responder)) == ["gpu.ocsp"]
    impostor = SimulatedNvidia(now=NOW, rng=seeded_random(b"impostor"))
    responder = responder_below(impostor.gpu().chain[2])
    assert answers.failed(answers.make(responder=responder)) == ["gpu.ocsp"]


def test_responder_expires(answers: Answers) -> None:
    responder = responder_below(answers.issuer, end=AT - dt.timedelta(hours=1))
    assert answers.failed(answers.make(responder=responder)) == ["gpu.ocsp"]


def test_device_cannot_answer_for_itself(answers: Answers) -> None:
    assert answers.failed(answers.make(responder=answers.machine.gpu.chain[0])) == ["gpu.ocsp"]


def test_revoked_manifest_signer(machine: Machine) -> None:
    [evidence] = machine.evidence()
    signer, issuer = machine.gpu.rim_chain[:2]
    revoked = make_ocsp_response(
        signer.certificate,
        issuer,
        machine.vendor.responder(issuer),
        nonce=NONCE,
        at=AT,
        status=ocsp.OCSPCertStatus.REVOKED,
    )
    responses = (*evidence.ocsp_responses, revoked)
    changed = dataclasses.replace(evidence, ocsp_responses=responses)
    assert machine.failed(changed) == ["gpu.rim_ocsp"]


@pytest.mark.parametrize("position", [0, 1, 2])
def test_each_signer_below_the_manifest_root_can_be_revoked(machine: Machine, position: int) -> None:
    [evidence] = machine.evidence()
    signer, issuer = machine.gpu.rim_chain[position : position + 2]
    revoked = make_ocsp_response(
        signer.certificate,
        issuer,
        machine.vendor.responder(issuer),
        nonce=NONCE,
        at=AT,
        status=ocsp.OCSPCertStatus.REVOKED,
    )
    changed = dataclasses.replace(evidence, ocsp_responses=(*evidence.ocsp_responses, revoked))
    assert machine.failed(changed) == ["gpu.rim_ocsp"]


def test_revocation_may_be_waived_but_stays_visible(machine: Machine) -> None:
    bare = [dataclasses.replace(one, ocsp_responses=()) for one in machine.evidence()]
    assert machine.failed(*bare) == ["gpu.ocsp", "gpu.rim_ocsp"]
    _, checks = machine.check(*bare, rules={"require_ocsp": False})
    assert checks.failed == ()
    assert {check.id for check in checks.skipped} == {"gpu.ocsp", "gpu.rim_ocsp"}
    assert not checks.accepted


@pytest.mark.parametrize(
    ("version", "minimum", "enough"),
    [
        ("570.172.08", "570.172.08", True),
        ("570.86", "570.172.08", False),
        ("1000.1", "999.999.99", True),
        ("570", "570.1", False),
        ("", "1.0", False),
        (None, "1.0", False),
        ("57O.1", "1.0", False),
        ("٥٧٠.1", "1.0", False),
    ],
)
def test_driver_versions_are_ordered_by_number(version: str | None, minimum: str, enough: bool) -> None:
    assert driver_at_least(version, minimum) is enough


@pytest.mark.parametrize(
    ("version", "minimum", "enough"),
    [
        ("96.00.A5.00.01", "96.00.9F.00.01", True),
        ("96.00.a5.00.01", "96.00.A5.00.01", True),
        ("96.00.99.00.01", "96.00.9F.00.01", False),
        ("96.00.A5.00", "96.00.9F.00.01", False),
        (None, "96.00.9F.00.01", False),
    ],
)
def test_vbios_versions_are_ordered_by_hex_byte(version: str | None, minimum: str, enough: bool) -> None:
    assert vbios_at_least(version, minimum) is enough


@pytest.mark.parametrize(
    "wrong",
    [{"gpu_count": 0}, {"device_roots": frozenset()}, {"rim_roots": frozenset()}, {"ocsp_nonce": b"x"}],
)
def test_policy_that_cannot_be_meant_is_refused(machine: Machine, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        machine.rules(**wrong)


def test_usual_policy_waives_nothing(machine: Machine) -> None:
    assert machine.rules().waived == frozenset()
    assert "gpu.ocsp" in GpuPolicy.dangerous_genuine_only().waived


def test_inputs_have_limits(machine: Machine) -> None:
    [evidence] = machine.evidence()
    # Just within them everything is looked at, and refused for what it is.
    assert "gpu.distinct" in machine.failed(*[evidence] * 32)
    assert "gpu.rim_version" in machine.failed(dataclasses.replace(evidence, rims=evidence.rims * 2))
    answers = (evidence.ocsp_responses * 3)[:16]
    assert machine.check(dataclasses.replace(evidence, ocsp_responses=answers))[1].accepted
    with pytest.raises(MalformedError):
        machine.check(*[evidence] * 33)
    with pytest.raises(MalformedError):
        machine.check(dataclasses.replace(evidence, rims=evidence.rims * 3))
    with pytest.raises(MalformedError):
        machine.check(dataclasses.replace(evidence, ocsp_responses=evidence.ocsp_responses * 3))
    with pytest.raises(MalformedError):
        machine.check(dataclasses.replace(evidence, kind=DeviceKind.SWITCH))
    with pytest.raises(ValueError, match="32 bytes"):
        machine.check(nonce=b"short")
    with pytest.raises(ValueError, match="time zone"):
        machine.check(at=dt.datetime(2027, 1, 15))


@pytest.mark.parametrize("missing", ["DRIVER_VERSION", "VBIOS_VERSION", "PROJECT"])
def test_report_without_a_version_is_malformed(machine: Machine, missing: str) -> None:
    gpu = machine.opaque(**{missing: None})
    with pytest.raises(MalformedError):
        machine.check(*machine.evidence(gpu))
