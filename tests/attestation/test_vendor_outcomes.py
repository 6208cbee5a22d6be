"""Raw SEV-SNP, GPU and event log evidence: what is accepted, refused, or left undecided."""

from __future__ import annotations

import base64
import dataclasses
import json
from typing import Any

import pytest

from cocoon_attestation.errors import ConfigError, MalformedError
from cocoon_attestation.gpu.evidence import GpuDevice
from cocoon_attestation.policy import Policy
from cocoon_attestation.policy_vendor import open_snp_policy
from cocoon_attestation.reference import SnpRelease, TeeKind
from cocoon_attestation.snp.policy import DEFAULT_MINIMUM_TCB
from cocoon_attestation.snp.report import Product
from cocoon_attestation.vendor.eventlog import QUOTE_NOT_JUDGED, verify_raw_eventlog
from cocoon_attestation.vendor.gpu import GpuOptions, read_devices, verify_raw_gpu
from cocoon_attestation.vendor.outcome import Outcome, OutcomeVerdict
from cocoon_attestation.vendor.snp import SnpOptions, verify_raw_snp
from cocoon_enclave.attestation.simulated_gpu import SimulatedNvidia
from cocoon_enclave.attestation.simulated_snp import ReportFields, SimulatedAmd

NOW = 1_800_000_000
NONCE = b"\x4e" * 32
MEASUREMENT = b"\x01" * 48


def failed(outcome: Outcome) -> list[str]:
    return sorted({check.id for check in outcome.checks.failed})


# --- SEV-SNP ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def snp_policy(lab: Any, amd: SimulatedAmd) -> Policy:
    release = SnpRelease(name="snp", measurement=MEASUREMENT, models=(lab.model,))
    policy: Policy = lab.policy(
        releases=(release,),
        tee_kinds=frozenset({TeeKind.SEV_SNP}),
        snp=open_snp_policy(roots=(amd.root,)),
    )
    return policy


def snp(
    amd: SimulatedAmd, options: SnpOptions, *, crl: bool = True, now: int = NOW, **fields: Any
) -> Outcome:
    chip = amd.chip()
    report = chip.report(ReportFields(measurement=MEASUREMENT, report_data=b"\x02" * 64, **fields))
    return verify_raw_snp(
        report, chip.certificate, amd.chain_pem.encode(), amd.crl() if crl else None, options, now
    )


def test_session_policy_leaves_freshness_and_configuration_open(
    amd: SimulatedAmd, snp_policy: Policy
) -> None:
    outcome = snp(amd, SnpOptions(policy=snp_policy, report_data=b"\x02" * 64))
    assert outcome.verdict is OutcomeVerdict.ACCEPTED
    assert outcome.scope == "hardware and software"
    assert [check.id for check in outcome.checks.skipped] == ["snp.host_data"]
    assert "SIMULATED: the policy names a development root" in outcome.warnings
    assert outcome.tcb_status is None
    json.dumps(outcome.to_dict())


def test_claims_of_a_report(amd: SimulatedAmd, snp_policy: Policy) -> None:
    claims = snp(amd, SnpOptions(policy=snp_policy)).claims
    usual = DEFAULT_MINIMUM_TCB[Product.GENOA]
    assert claims["product"] == Product.GENOA.value
    assert claims["reported_tcb"] == claims["committed_tcb"] == str(usual)
    assert claims["valid_until"] == NOW + 30 * 86_400
    assert len(str(claims["chip_id"])) == 128
    assert claims["simulated"] is True
    stranger = snp(amd, SnpOptions()).claims
    unknown = ("product", "reported_tcb", "committed_tcb", "valid_until")
    assert {name: stranger[name] for name in unknown} == dict.fromkeys(unknown)
    assert stranger["simulated"] is False
    assert stranger["measurement"] == MEASUREMENT.hex()
    masked = dataclasses.replace(amd.chip(), chip_id=bytes(64))
    report = masked.report(ReportFields(measurement=MEASUREMENT, key_info=0b10))
    options = SnpOptions(policy=snp_policy)
    shown = verify_raw_snp(report, masked.certificate, amd.chain_pem.encode(), amd.crl(), options, NOW)
    assert failed(shown) == ["snp.hwid"]
    assert shown.claims["chip_id"] is shown.claims["platform_id"] is None
    assert claims["platform_id"] is not None


def test_certificate_may_be_pem_and_stand_in_front_of_its_issuers(
    amd: SimulatedAmd, snp_policy: Policy
) -> None:
    chip = amd.chip()
    report = chip.report(ReportFields(measurement=MEASUREMENT))
    text = base64.encodebytes(chip.certificate)
    pem = b"\n-----BEGIN CERTIFICATE-----\r\n" + text + b"-----END CERTIFICATE-----\n"
    issuers, options = amd.chain_pem.encode(), SnpOptions(policy=snp_policy)
    for certificate, chain in ((pem, issuers), (chip.certificate, pem + issuers), (pem, issuers + pem)):
        outcome = verify_raw_snp(report, certificate, chain, amd.crl(), options, NOW)
        assert not outcome.checks.failed
    other = base64.encodebytes(amd.chip().certificate)
    for broken in (pem[:200], pem.replace(text[:4], b"*" * 4), pem.replace(text, b"")):
        with pytest.raises(MalformedError):
            verify_raw_snp(report, broken, issuers, amd.crl(), options, NOW)
    with pytest.raises(MalformedError):
        verify_raw_snp(report, chip.certificate, pem.replace(text, other) + issuers, None, options, NOW)


def test_session_policy_is_strict(amd: SimulatedAmd, snp_policy: Policy) -> None:
    options = SnpOptions(policy=snp_policy)
    assert failed(snp(amd, options, crl=False)) == ["snp.crl"]
    assert failed(snp(amd, options, vmpl=1)) == ["snp.vmpl"]
    assert failed(snp(amd, options, platform_info=1)) == ["snp.platform"]
    assert failed(snp(amd, SnpOptions(policy=snp_policy, report_data=bytes(64)))) == ["snp.report_data"]
    other = dataclasses.replace(snp_policy.snp_releases[0], measurement=bytes(48))
    changed = dataclasses.replace(snp_policy, releases=(other,))
    assert failed(snp(amd, SnpOptions(policy=changed))) == ["snp.measurement"]


def test_development_root_needs_a_policy_that_names_it(amd: SimulatedAmd) -> None:
    assert "snp.chain" in failed(snp(amd, SnpOptions()))


def test_milan_is_genuine_but_no_session_takes_it(samples: Any) -> None:
    entry = samples.entry("snp", "milan_v2")
    at = 1_735_689_600
    report, cert = samples.read(entry["file"]), samples.read(entry["cert"])
    outcome = verify_raw_snp(report, cert, b"", None, SnpOptions(), at)
    assert outcome.verdict is OutcomeVerdict.ACCEPTED
    assert outcome.claims["product"] == Product.MILAN.value
    assert any("Milan" in warning for warning in outcome.warnings)
    model = b"\x05" * 32
    session = Policy(
        global_id=-239,
        releases=(SnpRelease(name="x", measurement=b"\x03" * 48, models=(model,)),),
        models=frozenset({model}),
        min_tcb_evaluation=18,
    )
    refused = verify_raw_snp(report, cert, b"", None, SnpOptions(policy=session), at)
    assert {"snp.product", "snp.tcb_min", "snp.measurement", "snp.crl"} <= set(failed(refused))


def test_malformed_snp_inputs(amd: SimulatedAmd) -> None:
    chip = amd.chip()
    report = chip.report(ReportFields())
    faults: list[tuple[bytes, bytes, bytes, bytes | None]] = [
        (report[:-1], chip.certificate, b"", None),
        (report, b"x", b"", None),
        (report, chip.certificate, b"x", None),
        (report, chip.certificate, b"", b"x"),
    ]
    for one, cert, chain, crl in faults:
        with pytest.raises(MalformedError):
            verify_raw_snp(one, cert, chain, crl, SnpOptions(), NOW)


# --- GPU -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gpu_policy(lab: Any, nvidia: SimulatedNvidia) -> Policy:
    policy: Policy = lab.policy(gpu=nvidia.policy(gpu_count=8))
    return policy


@pytest.fixture(scope="module")
def machine(nvidia: SimulatedNvidia) -> tuple[GpuDevice, ...]:
    """A board whose manifests and answers come beside the evidence, as on the command line."""
    return nvidia.evidence(nvidia.board(), NONCE, now=NOW)


def bare(devices: tuple[GpuDevice, ...]) -> tuple[list[GpuDevice], list[bytes], list[bytes]]:
    """Devices without endorsements, all manifests, all answers."""
    rims = list(dict.fromkeys(rim for device in devices for rim in device.rims))
    answers = list(dict.fromkeys(answer for device in devices for answer in device.ocsp_responses))
    return [dataclasses.replace(one, rims=(), ocsp_responses=()) for one in devices], rims, answers


def test_whole_machine_with_endorsements_beside_it(
    machine: tuple[GpuDevice, ...], gpu_policy: Policy
) -> None:
    devices, rims, answers = bare(machine)
    outcome = verify_raw_gpu(devices, rims, answers, GpuOptions(nonce=NONCE, policy=gpu_policy), NOW)
    assert outcome.verdict is OutcomeVerdict.ACCEPTED
    assert not outcome.checks.skipped
    assert outcome.scope == "hardware and firmware"
    assert outcome.warnings == ("SIMULATED: the policy names a development root",)
    assert outcome.claims["gpu_count"] == 8


def test_missing_endorsements_fail_under_a_policy(
    machine: tuple[GpuDevice, ...], gpu_policy: Policy
) -> None:
    devices, rims, answers = bare(machine)
    options = GpuOptions(nonce=NONCE, policy=gpu_policy)
    assert failed(verify_raw_gpu(devices, rims, [], options, NOW)) == ["gpu.ocsp", "gpu.rim_ocsp"]
    assert "gpu.rim_match" in failed(verify_raw_gpu(devices, [], answers, options, NOW))
    loose = dataclasses.replace(options, hardware_only=True)
    assert verify_raw_gpu(devices, [], answers, loose, NOW).verdict is OutcomeVerdict.REJECTED


def test_other_nonces(machine: tuple[GpuDevice, ...], gpu_policy: Policy) -> None:
    devices, rims, answers = bare(machine)
    other = GpuOptions(nonce=b"\x01" * 32, policy=gpu_policy, ocsp_nonce=NONCE)
    assert failed(verify_raw_gpu(devices, rims, answers, other, NOW)) == ["gpu.nonce"]
    ocsp = GpuOptions(nonce=NONCE, policy=gpu_policy, ocsp_nonce=b"\x01" * 32)
    assert failed(verify_raw_gpu(devices, rims, answers, ocsp, NOW)) == ["gpu.ocsp", "gpu.rim_ocsp"]


def test_genuine_device_without_manifests_is_undecided(samples: Any) -> None:
    entry = samples.entry("nvidia", "h100_550")
    devices = read_devices(samples.read(entry["file"]), samples.read(entry["chain"]))
    nonce = bytes.fromhex(entry["checks"]["request_nonce"])
    outcome = verify_raw_gpu(devices, [], [], GpuOptions(nonce=nonce), NOW)
    assert outcome.verdict is OutcomeVerdict.UNDECIDED
    assert "gpu.rim_" in outcome.reason
    hardware = verify_raw_gpu(devices, [], [], GpuOptions(nonce=nonce, hardware_only=True), NOW)
    assert hardware.verdict is OutcomeVerdict.ACCEPTED
    assert hardware.scope == "hardware"


def test_manifest_for_a_switch_is_no_manifest_for_a_gpu(
    nvidia: SimulatedNvidia, machine: tuple[GpuDevice, ...]
) -> None:
    devices, _, _ = bare(machine)
    with pytest.raises(MalformedError):
        verify_raw_gpu(devices[:1], list(nvidia.switch_rims), [], GpuOptions(nonce=NONCE), NOW)


def test_gpu_options_are_checked(lab: Any, machine: tuple[GpuDevice, ...]) -> None:
    devices, _, _ = bare(machine)
    with pytest.raises(ConfigError):
        verify_raw_gpu(devices, [], [], GpuOptions(nonce=b"short"), NOW)
    with pytest.raises(ConfigError):
        verify_raw_gpu(devices, [], [], GpuOptions(nonce=NONCE, policy=lab.policy()), NOW)
    with pytest.raises(ConfigError):
        read_devices(devices[0].report, None)


def test_raw_report_and_list_are_read_alike(machine: tuple[GpuDevice, ...]) -> None:
    devices, _, _ = bare(machine)
    for device, arch in ((devices[0], "HOPPER"), (devices[-1], "LS10")):
        listed = json.dumps(
            [
                {
                    "arch": arch,
                    "certificate": base64.b64encode(device.certificate_chain).decode(),
                    "evidence": base64.b64encode(device.report).decode(),
                }
            ]
        ).encode()
        assert (
            read_devices(device.report, device.certificate_chain) == read_devices(listed, None) == (device,)
        )
    for data in (b"", b"[]", b"{", b"\x11"):
        with pytest.raises(MalformedError):
            read_devices(data, b"x")


# --- event logs --------------------------------------------------------------------------------------------


def test_log_against_a_quote(samples: Any) -> None:
    log = samples.read("eventlog/dstack_quote_report.json")
    quote = samples.read("tdx/dstack_90c06f.quote.bin")
    outcome = verify_raw_eventlog(log, quote)
    assert outcome.verdict is OutcomeVerdict.ACCEPTED
    assert outcome.warnings == (QUOTE_NOT_JUDGED,)
    assert outcome.claims["format"] == "dstack"
    assert outcome.claims["replayed_rtmr"] == outcome.claims["quote_rtmr"]
    boot: Any = outcome.claims["boot_events"]
    assert boot[-1]["name"] == "system-ready"
    assert outcome.claims["app_events"] == ["LIUM_MINER_HOTKEY"]


def test_log_without_a_quote_is_undecided(samples: Any) -> None:
    outcome = verify_raw_eventlog(samples.read("eventlog/gcp_cos113.ccel.bin"), None)
    assert outcome.verdict is OutcomeVerdict.UNDECIDED
    assert outcome.claims["format"] == "ccel"
    assert "boot_events" not in outcome.claims
    assert not outcome.warnings


def test_malformed_log_or_quote(samples: Any) -> None:
    log = samples.read("eventlog/gcp_cos113.ccel.bin")
    with pytest.raises(MalformedError):
        verify_raw_eventlog(log, b"quote")
    with pytest.raises(MalformedError):
        verify_raw_eventlog(log[:100], None)
