"""Real NVIDIA evidence of Hopper, Blackwell and NVLink switches, and what must happen to each."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import json
from typing import Any

import pytest

from cocoon_attestation.checks import CheckList
from cocoon_attestation.errors import MalformedError
from cocoon_attestation.gpu.certificates import device_identity, parse_pem_chain
from cocoon_attestation.gpu.evidence import GpuDevice, parse_evidence_list
from cocoon_attestation.gpu.ocsp import parse_ocsp, revocation_problem
from cocoon_attestation.gpu.policy import RIM_CHECKS, DeviceKind, GpuPolicy
from cocoon_attestation.gpu.report import parse_gpu_report
from cocoon_attestation.gpu.rim import parse_rim, rim_chain_problem, verify_rim
from cocoon_attestation.gpu.verify import GpuClaims, verify_gpu
from cocoon_attestation.roots.nvidia import nvidia_device_root, nvidia_rim_root

AT = dt.datetime(2025, 6, 1, tzinfo=dt.UTC)
GENUINE = GpuPolicy.dangerous_genuine_only()
DRIVER_545 = "nvidia/rim/driver_GH100_545.00.swidtag"
DRIVER_550 = "nvidia/rim/driver_GH100_550.144.03.xml"
VBIOS_5E = "nvidia/rim/vbios_1010_0200_882_96005E0001.swidtag"
VBIOS_74 = "nvidia/rim/vbios_1010_0205_862_9600740020.swidtag"


def device(samples: Any, name: str, *rims: str, **changes: Any) -> GpuDevice:
    entry = samples.entry("nvidia", name)
    chain = samples.read(entry.get("chain", "nvidia/h100_550.chain.pem"))
    one = GpuDevice(
        kind=DeviceKind.GPU,
        report=samples.read(entry["file"]),
        certificate_chain=chain,
        rims=tuple(samples.read(rim) for rim in rims),
    )
    return dataclasses.replace(one, **changes)


def run(
    *devices: GpuDevice, policy: GpuPolicy = GENUINE, nonce: bytes | None = None, at: dt.datetime = AT
) -> tuple[GpuClaims, CheckList]:
    return verify_gpu(devices, policy, nonce or parse_gpu_report(devices[0].report).nonce, at)


def failed(checks: CheckList) -> list[str]:
    return sorted({check.id for check in checks.failed})


@pytest.mark.parametrize("name", ["h100_545", "h100_550", "b200_575", "h100_coco_trailing"])
def test_genuine_gpu_passes_every_check_that_was_not_waived(samples: Any, name: str) -> None:
    claims, checks = run(device(samples, name))
    assert failed(checks) == []
    assert {check.id for check in checks.skipped} == GENUINE.waived - {"gpu.topology"}
    assert not checks.accepted
    assert not claims.simulated
    expected = samples.entry("nvidia", name)["checks"]
    assert claims.gpus[0].driver_version == expected["driver"]
    assert claims.gpus[0].chip == ("GB100" if name.startswith("b200") else "GH100")


@pytest.mark.parametrize(
    "name", ["h100_545", "h100_550", "b200_575", "h100_coco_trailing", "neg_h100_bad_signature"]
)
def test_fields_are_read_as_published(samples: Any, name: str) -> None:
    expected = samples.entry("nvidia", name)["checks"]
    one = device(samples, name)
    report = parse_gpu_report(one.report)
    assert report.nonce.hex() == expected["request_nonce"]
    assert report.response_nonce.hex() == expected["response_nonce"]
    assert len(report.measurements) == expected["blocks"]
    assert report.driver_version == expected["driver"]
    assert (report.project, report.project_sku) == (expected["project"], expected["project_sku"])
    assert report.chip_sku == expected["chip_sku"]
    assert report.ppcie == (expected["ppcie"] == "aa")
    assert (report.fwid.hex() if report.fwid else None) == expected["fwid"]
    flag = expected["feature_flag"]
    assert report.feature_flag == (None if flag is None else int.from_bytes(bytes.fromhex(flag), "little"))
    assert len(report.opaque) == len(expected["opaque_ids"])
    identity = device_identity(parse_pem_chain(one.certificate_chain))
    if expected["fwid_matches_leaf"] is not None:
        assert (identity.fwid == report.fwid) == expected["fwid_matches_leaf"]


def test_complete_evidence_of_545_matches_both_manifests(samples: Any) -> None:
    one = device(samples, "h100_545", DRIVER_545, VBIOS_5E)
    policy = dataclasses.replace(GENUINE, gpu_count=1, require_rims=True)
    _, checks = run(one, policy=policy)
    assert failed(checks) == []
    assert {check.id for check in checks.skipped} == {
        "gpu.ocsp",
        "gpu.rim_ocsp",
        "gpu.driver",
        "gpu.vbios",
    }
    [match] = [check for check in checks if check.id == "gpu.rim_match"]
    assert "33 active entries" in match.detail  # 21 of the driver and 12 of the VBIOS


@pytest.mark.parametrize(
    "at", [dt.datetime(2023, 6, 26, tzinfo=dt.UTC), dt.datetime(2025, 6, 23, tzinfo=dt.UTC)]
)
def test_manifests_expire_with_their_signers(samples: Any, at: dt.datetime) -> None:
    one = device(samples, "h100_545", DRIVER_545, VBIOS_5E)
    _, checks = run(one, at=at)
    assert failed(checks) == ["gpu.rim_chain"]


def test_firmware_without_fwid_is_an_exception(samples: Any) -> None:
    strict = dataclasses.replace(GENUINE, allow_missing_fwid=False)
    _, checks = run(device(samples, "h100_545"), policy=strict)
    assert failed(checks) == ["gpu.fwid"]
    assert not run(device(samples, "h100_550"), policy=strict)[1].failed


def test_manifest_of_another_driver_does_not_fit(samples: Any) -> None:
    _, checks = run(device(samples, "h100_550", DRIVER_550))
    assert failed(checks) == ["gpu.rim_match", "gpu.rim_version"]
    [match] = [check for check in checks.failed if check.id == "gpu.rim_match"]
    assert "[7, 22, 31, 39, 40]" in match.detail


def test_manifest_of_another_vbios_does_not_fit(samples: Any) -> None:
    _, checks = run(device(samples, "h100_545", DRIVER_545, VBIOS_74))
    assert "gpu.rim_version" in failed(checks)


@pytest.mark.parametrize(
    "rims", [(DRIVER_545,), (VBIOS_5E,), (DRIVER_545, DRIVER_545), (DRIVER_545, VBIOS_5E, DRIVER_550)]
)
def test_one_manifest_for_each_version_is_needed(samples: Any, rims: tuple[str, ...]) -> None:
    _, checks = run(device(samples, "h100_545", *rims))
    assert "gpu.rim_version" in failed(checks)


def test_missing_manifests_fail_where_they_are_required(samples: Any) -> None:
    policy = dataclasses.replace(GENUINE, require_rims=True)
    _, checks = run(device(samples, "h100_545"), policy=policy)
    assert set(failed(checks)) == set(RIM_CHECKS)


def test_report_of_another_gpu_is_rejected(samples: Any) -> None:
    _, checks = run(device(samples, "neg_h100_bad_signature"))
    assert failed(checks) == ["gpu.fwid", "gpu.sig"]


@pytest.mark.parametrize("name", ["neg_h100_550_meas_flip", "neg_h100_550_nonce_flip"])
def test_changed_report_breaks_the_signature(samples: Any, name: str) -> None:
    _, checks = run(device(samples, name))
    assert failed(checks) == ["gpu.sig"]


def test_changed_nonce_is_not_the_one_we_sent_either(samples: Any) -> None:
    sent = parse_gpu_report(device(samples, "h100_550").report).nonce
    _, checks = run(device(samples, "neg_h100_550_nonce_flip"), nonce=sent)
    assert failed(checks) == ["gpu.nonce", "gpu.sig"]


def test_old_nonce_is_a_replay(samples: Any) -> None:
    _, checks = run(device(samples, "h100_550"), nonce=b"\x07" * 32)
    assert failed(checks) == ["gpu.nonce"]


def test_stray_byte_after_the_signature(samples: Any) -> None:
    """One zero byte is known from the field; the signature is never looked for from the end."""
    one = device(samples, "h100_coco_trailing")
    assert failed(run(one)[1]) == []
    for tail in (b"\x01", b"\x00\x00"):
        with pytest.raises(MalformedError):
            parse_gpu_report(one.report[:-1] + tail)
    assert failed(run(dataclasses.replace(one, report=one.report[:-1]))[1]) == []


def test_eight_gpus_and_four_switches_are_one_machine(samples: Any) -> None:
    gpus = parse_evidence_list(samples.read("nvidia/ppcie_8gpu.evidence.json"))
    switches = parse_evidence_list(samples.read("nvidia/ppcie_4switch.evidence.json"))
    policy = dataclasses.replace(GENUINE, gpu_count=8, require_switches=True)
    claims, checks = run(*gpus, *switches, policy=policy)
    assert failed(checks) == []
    assert len(claims.gpus) == 8
    assert [check.id for check in checks if check.id == "gpu.topology"] == ["gpu.topology"]
    assert all(claim.vbios_version == "96.10.73.00.01" for claim in claims.devices[8:])


def test_incomplete_machines_are_rejected(samples: Any) -> None:
    gpus = parse_evidence_list(samples.read("nvidia/ppcie_8gpu.evidence.json"))
    switches = parse_evidence_list(samples.read("nvidia/ppcie_4switch.evidence.json"))
    policy = dataclasses.replace(GENUINE, require_switches=True)
    assert failed(run(*gpus, policy=policy)[1]) == ["gpu.topology"]
    assert failed(run(*gpus, *switches[:3])[1]) == ["gpu.topology"]
    assert failed(run(*gpus[:7], *switches)[1]) == ["gpu.topology"]
    assert failed(run(*gpus, *switches[:3], switches[0])[1]) == ["gpu.distinct", "gpu.topology"]
    assert failed(run(*gpus[:7], gpus[0], *switches)[1]) == ["gpu.distinct", "gpu.topology"]
    assert "gpu.count" in failed(run(*gpus, policy=dataclasses.replace(GENUINE, gpu_count=4))[1])


def test_a_gpu_of_another_machine_is_noticed(samples: Any) -> None:
    gpus = parse_evidence_list(samples.read("nvidia/ppcie_8gpu.evidence.json"))
    switches = parse_evidence_list(samples.read("nvidia/ppcie_4switch.evidence.json"))
    stranger = device(samples, "neg_h100_bad_signature")
    _, checks = run(*gpus[:7], stranger, *switches)
    assert {"gpu.topology", "gpu.nonce", "gpu.sig"} <= set(failed(checks))


def test_switch_shown_as_gpu_is_malformed(samples: Any) -> None:
    [switch, *_] = parse_evidence_list(samples.read("nvidia/ppcie_4switch.evidence.json"))
    with pytest.raises(MalformedError):
        run(dataclasses.replace(switch, kind=DeviceKind.GPU))
    with pytest.raises(MalformedError):
        run(device(samples, "h100_550", kind=DeviceKind.SWITCH))


def provider_answers(samples: Any) -> list[tuple[bytes, tuple[GpuDevice, ...]]]:
    """Nonce and devices of recorded answers of three providers."""
    found = []
    for bundle in ("near_direct", "nanogpt"):
        answer = json.loads(samples.read(f"bundles/{bundle}/attestation.json"))
        devices = parse_evidence_list(answer["nvidia_payload"].encode())
        found.append((bytes.fromhex(answer["request_nonce"]), devices))
    answer = json.loads(samples.read("bundles/redpill_chutes/attestation.json"))
    for instance in answer["all_attestations"]:
        devices = parse_evidence_list(json.dumps(instance["gpu_evidence"]).encode())
        quote = base64.b64decode(instance["intel_quote"])
        found.append((quote[48 + 520 : 48 + 552], devices))
    return found


def test_recorded_provider_answers_are_genuine_and_fresh(samples: Any) -> None:
    answers = provider_answers(samples)
    assert sum(len(devices) for _, devices in answers) == 49
    for nonce, devices in answers:
        _, checks = run(*devices, nonce=nonce, at=dt.datetime(2026, 6, 10, tzinfo=dt.UTC))
        assert failed(checks) == []


def test_relay_that_chose_the_nonce_itself_is_not_fresh(samples: Any) -> None:
    client_nonce = "732f6f1c1b4445d4ab4ad892728343f7fcb0f595ce79f91ecfdeaae657bb7c7e"
    _, devices = provider_answers(samples)[-1]
    _, checks = run(*devices, nonce=bytes.fromhex(client_nonce))
    assert failed(checks) == ["gpu.nonce"]


@pytest.mark.parametrize(
    ("name", "version", "active"),
    [
        (DRIVER_545, "545.00", 21),
        (VBIOS_5E, "96.00.5E.00.01", 12),
        (DRIVER_550, "550.144.03", 21),
        (VBIOS_74, "96.00.74.00.20", 12),
    ],
)
def test_genuine_manifest_is_read(samples: Any, name: str, version: str, active: int) -> None:
    parsed = parse_rim(samples.read(name))
    at = parsed.chain[0].not_valid_before_utc + dt.timedelta(days=10)
    assert rim_chain_problem(parsed.chain, {nvidia_rim_root()}, at) is None
    rim = verify_rim(parsed)
    assert not isinstance(rim, str)
    assert (rim.chip, rim.version, len(rim.active)) == ("GH100", version, active)


def test_manifest_with_a_bad_signature_is_rejected(samples: Any) -> None:
    parsed = parse_rim(samples.read("nvidia/rim/neg_driver_bad_signature.xml"))
    at = dt.datetime(2025, 2, 1, tzinfo=dt.UTC)
    assert rim_chain_problem(parsed.chain, {nvidia_rim_root()}, at) is None
    assert isinstance(verify_rim(parsed), str)


def test_manifest_of_a_foreign_root_is_rejected(samples: Any) -> None:
    parsed = parse_rim(samples.read("nvidia/rim/neg_driver_wrong_root.xml"))
    at = dt.datetime(2025, 3, 1, tzinfo=dt.UTC)
    assert not isinstance(verify_rim(parsed), str)
    assert rim_chain_problem(parsed.chain, {nvidia_rim_root()}, at) is not None
    assert rim_chain_problem(parsed.chain, {nvidia_device_root()}, at) is not None


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("good", None),
        ("revoked", "keyCompromise"),
        ("hold", "certificateHold"),
        ("nonce_mismatch", "nonce"),
    ],
)
def test_revocation_answers(samples: Any, name: str, problem: str | None) -> None:
    chain = parse_pem_chain(samples.read("nvidia/ocsp_synthetic/chain.pem"))
    response = parse_ocsp(samples.read(f"nvidia/ocsp_synthetic/{name}.ocsp.der"))
    at = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)
    found = revocation_problem(chain, [0], [response], bytes(range(32)), at)
    if problem is None:
        assert found is None
    else:
        assert found is not None
        assert problem in found


@pytest.mark.parametrize("name", ["h100_550", "b200_575", "h100_coco_trailing"])
def test_every_truncation_is_malformed(samples: Any, name: str) -> None:
    data = device(samples, name).report.removesuffix(b"\x00" if name.endswith("trailing") else b"")
    for length in range(len(data)):
        with pytest.raises(MalformedError):
            parse_gpu_report(data[:length])


@pytest.mark.parametrize("name", ["h100_550", "b200_575"])
def test_no_changed_report_passes(samples: Any, flips: Any, name: str) -> None:
    one = device(samples, name)
    nonce = parse_gpu_report(one.report).nonce
    for offset, changed in flips(one.report, 13):
        try:
            _, checks = run(dataclasses.replace(one, report=changed), nonce=nonce)
        except MalformedError:
            continue
        assert "gpu.sig" in failed(checks), f"a changed byte at {offset} was not noticed"


def test_no_changed_chain_passes(samples: Any, flips: Any) -> None:
    """The text of PEM has bytes that mean nothing; whatever still decodes to the same is the same."""
    one = device(samples, "h100_550")
    chain = parse_pem_chain(one.certificate_chain)
    for _, changed in flips(one.certificate_chain, 17):
        broken = dataclasses.replace(one, certificate_chain=changed)
        try:
            _, checks = run(broken)
        except MalformedError:
            continue
        assert checks.failed or parse_pem_chain(changed) == chain


@pytest.mark.parametrize("name", [DRIVER_545, VBIOS_5E])
def test_no_changed_manifest_gives_other_values(samples: Any, flips: Any, name: str) -> None:
    at = dt.datetime(2025, 6, 1, tzinfo=dt.UTC)
    data = samples.read(name)
    genuine = verify_rim(parse_rim(data))
    assert not isinstance(genuine, str)
    for _, changed in flips(data, 97):
        try:
            parsed = parse_rim(changed)
            rim = verify_rim(parsed)
        except MalformedError:
            continue
        if isinstance(rim, str) or rim_chain_problem(parsed.chain, {nvidia_rim_root()}, at):
            continue
        assert (rim.chip, rim.version, rim.active) == (genuine.chip, genuine.version, genuine.active)
