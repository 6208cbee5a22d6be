"""A7: a node that shows GPUs it does not have, or GPUs that are not in the state it claims.

The attacker owns machines with genuine GPUs and can ask them for fresh reports. No hardware binds a GPU to
a CPU: the nonce, the report data and the measured guest together must.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from cocoon.v1 import evidence_pb2
from cocoon_attestation.appraisal import appraise
from cocoon_attestation.errors import EvidenceRejectedError, MalformedError
from cocoon_attestation.gpu.report import FeatureFlag, Opaque
from cocoon_attestation.policy import Policy
from cocoon_enclave.attestation.attester import DeviceSource, make_evidence, measure
from cocoon_enclave.attestation.simulated import SimulatedAttester
from cocoon_enclave.attestation.simulated_gpu import SimulatedDevice, SimulatedNvidia
from cocoon_enclave.attestation.simulated_gpu_pki import seeded_random
from cocoon_enclave.attestation.simulated_node import SimulatedGpus

etree: Any = importlib.import_module("lxml.etree")
BOOT_NONCE = b"\x0b" * 32
SWID = "{http://standards.iso.org/iso/19770/-2/2015/schema.xsd}"


class Scene:
    """A network that accepts GPU nodes, with a vendor whose GPUs anybody may own."""

    def __init__(self, lab: Any) -> None:
        self.lab = lab
        self.vendor = SimulatedNvidia(now=lab.now, rng=seeded_random(b"a07"))
        rules = dataclasses.replace(self.vendor.policy(gpu_count=1), gpu_count=None)
        self.policy: Policy = lab.policy(gpu=rules)

    def gpus(self, *devices: SimulatedDevice) -> SimulatedGpus:
        return SimulatedGpus(self.vendor, devices, clock=lambda: self.lab.now)

    def evidence(self, own: SimulatedGpus, shown: DeviceSource | None = None, **summary: bool) -> bytes:
        """What a node presents that measured `own` at boot and shows `shown`."""
        lab = self.lab
        attester = SimulatedAttester(lab.platform, clock=lambda: lab.now)
        payload = own.summary(BOOT_NONCE, **summary)
        measure(attester, config_hash=lab.config_hash, models=[lab.model], gpu=payload)
        return make_evidence(
            attester,
            binding=lab.binding(),
            seal_public_key=lab.seal_public_key,
            challenge=lab.challenge,
            devices=shown or own.evidence,
        )

    def stopped_by(self, evidence: bytes, policy: Policy | None = None) -> tuple[str, ...]:
        with pytest.raises(EvidenceRejectedError) as caught:
            appraise(evidence, policy=policy or self.policy, challenge=self.lab.challenge, now=self.lab.now)
        assert caught.value.checks is not None
        return tuple(sorted({check.id for check in caught.value.checks.failed}))


@pytest.fixture(scope="module")
def scene(lab: Any) -> Scene:
    return Scene(lab)


def changed(
    source: SimulatedGpus, change: Callable[[evidence_pb2.DeviceEvidence], object]
) -> Callable[[bytes], Sequence[evidence_pb2.DeviceEvidence]]:
    """Device evidence that the node edits before the CPU signs over it: the digest covers the edit."""

    def shown(nonce: bytes) -> Sequence[evidence_pb2.DeviceEvidence]:
        devices = source.evidence(nonce)
        for device in devices:
            change(device)
        return devices

    return shown


def with_rims(*rims: bytes) -> Callable[[evidence_pb2.DeviceEvidence], object]:
    def change(device: evidence_pb2.DeviceEvidence) -> None:
        del device.rims[:]
        device.rims.extend(rims)

    return change


def test_the_honest_node_is_accepted(scene: Scene) -> None:
    lab = scene.lab
    evidence = scene.evidence(scene.gpus(scene.vendor.gpu()))
    assert (
        appraise(evidence, policy=scene.policy, challenge=lab.challenge, now=lab.now).claims["gpu_count"]
        == 1
    )


# --- borrowed -------------------------------------------------------------------------------------------------


def test_fresh_evidence_borrowed_from_another_machine(scene: Scene) -> None:
    """The other machine answers with the right nonce: only the measured guest tells."""
    own, other = scene.gpus(scene.vendor.gpu()), scene.gpus(scene.vendor.gpu())
    assert scene.stopped_by(scene.evidence(own, other.evidence)) == ("rtmr3.gpu",)


def test_one_gpu_shown_as_two(scene: Scene) -> None:
    one, two = scene.vendor.gpu(), scene.vendor.gpu()
    own, twice = scene.gpus(one, two), scene.gpus(one, one)
    assert scene.stopped_by(scene.evidence(own, twice.evidence)) == ("gpu.distinct", "rtmr3.gpu")


def test_evidence_recorded_earlier(scene: Scene) -> None:
    own = scene.gpus(scene.vendor.gpu())
    recorded = own.evidence(b"\x01" * 32)
    assert scene.stopped_by(scene.evidence(own, lambda nonce: recorded)) == (
        "gpu.nonce",
        "gpu.ocsp",
        "gpu.rim_ocsp",
    )


def test_fresh_report_swapped_in_after_the_cpu_signed(scene: Scene) -> None:
    own = scene.gpus(scene.vendor.gpu())
    message = evidence_pb2.Evidence.FromString(scene.evidence(own))
    other = evidence_pb2.Evidence.FromString(scene.evidence(own))
    message.devices[0].CopyFrom(other.devices[0])
    assert scene.stopped_by(message.SerializeToString()) == ("binding.report_data",)


# --- missing and hidden -----------------------------------------------------------------------------------------


def test_missing_gpu(scene: Scene) -> None:
    one, two = scene.vendor.gpu(), scene.vendor.gpu()
    shown = scene.gpus(one)
    evidence = scene.evidence(scene.gpus(one, two), shown.evidence)
    assert scene.stopped_by(evidence) == ("gpu.count", "rtmr3.gpu")


def test_all_gpus_missing(scene: Scene) -> None:
    evidence = scene.evidence(scene.gpus(scene.vendor.gpu()), lambda nonce: [])
    assert scene.stopped_by(evidence) == ("rtmr3.gpu",)


def test_fewer_gpus_than_the_policy_demands(scene: Scene) -> None:
    evidence = scene.evidence(scene.gpus(scene.vendor.gpu()))
    demanding = scene.lab.policy(gpu=scene.vendor.policy(gpu_count=8))
    assert scene.stopped_by(evidence, demanding) == ("gpu.count",)


def test_board_without_one_of_its_switches(scene: Scene) -> None:
    board = scene.vendor.board()
    evidence = scene.evidence(scene.gpus(*board), scene.gpus(*board[:11]).evidence)
    assert scene.stopped_by(evidence) == ("gpu.topology", "rtmr3.gpu")


# --- state ----------------------------------------------------------------------------------------------------


def test_confidential_computing_is_off(scene: Scene) -> None:
    """The signed report does not say so: the measured guest does."""
    evidence = scene.evidence(scene.gpus(scene.vendor.gpu()), confidential=False)
    assert scene.stopped_by(evidence) == ("rtmr3.gpu_mode",)


def test_developer_tools_are_on(scene: Scene) -> None:
    evidence = scene.evidence(scene.gpus(scene.vendor.gpu()), devtools=True)
    assert scene.stopped_by(evidence) == ("rtmr3.gpu_mode",)


def test_gpus_joined_in_another_way_than_the_guest_measured(scene: Scene) -> None:
    """Measured as one GPU alone, later put into a mode in which memory leaves the chip."""
    single = scene.vendor.gpu()
    later = scene.vendor.gpu(pdi=single.pdi, mode=FeatureFlag.MULTI)
    evidence = scene.evidence(scene.gpus(single), scene.gpus(later).evidence)
    assert scene.stopped_by(evidence) == ("rtmr3.gpu_mode",)


def test_summary_rewritten_by_the_host(scene: Scene) -> None:
    evidence = scene.evidence(scene.gpus(scene.vendor.gpu()), devtools=True)
    message = evidence_pb2.Evidence.FromString(evidence)
    event = message.tdx.runtime_events[2]
    event.payload = event.payload[:2] + b"\x00" + event.payload[3:]
    assert scene.stopped_by(message.SerializeToString()) == ("rtmr3.replay",)


# --- firmware and manifests ---------------------------------------------------------------------------------------


def test_firmware_changed_after_boot(scene: Scene) -> None:
    good = scene.vendor.gpu()
    values = list(good.measurements)
    values[9] = bytes(48)
    own, shown = scene.gpus(good), scene.gpus(dataclasses.replace(good, measurements=tuple(values)))
    assert scene.stopped_by(scene.evidence(own, shown.evidence)) == ("gpu.rim_match",)


def test_manifest_swapped_for_one_of_another_version(scene: Scene) -> None:
    """The attacker's firmware has a genuine manifest, but of another version than the signed one."""
    own = scene.gpus(scene.vendor.gpu())
    other = scene.vendor.rim("999.99", {9: (scene.vendor._gpu_measurements[9],)})
    evidence = scene.evidence(own, changed(own, with_rims(other, scene.vendor.gpu_rims[1])))
    assert scene.stopped_by(evidence) == ("gpu.rim_version",)


def test_old_driver_with_its_own_valid_manifest(scene: Scene) -> None:
    """Everything matches, and the driver has a known hole: a matching manifest is not enough."""
    version = "535.104.05"
    good = scene.vendor.gpu()
    rim = scene.vendor.rim(version, {9: (good.measurements[9],)})
    opaque = {**good.opaque, Opaque.DRIVER_VERSION: version.encode() + b"\0"}
    old = dataclasses.replace(good, opaque=opaque, rims=(rim, good.rims[1]))
    found = scene.stopped_by(scene.evidence(scene.gpus(good), scene.gpus(old).evidence))
    assert found == ("gpu.driver",)


def edited(rim: bytes, change: Callable[[Any], object]) -> bytes:
    root = etree.fromstring(rim)
    change(root)
    return bytes(etree.tostring(root))


def test_manifest_edited(scene: Scene) -> None:
    own = scene.gpus(scene.vendor.gpu())

    def allow_anything(root: Any) -> None:
        for resource in root.iter(f"{SWID}Resource"):
            resource.set("active", "False")

    rims = [edited(rim, allow_anything) for rim in scene.vendor.gpu_rims]
    evidence = scene.evidence(own, changed(own, with_rims(*rims)))
    assert "gpu.rim_sig" in scene.stopped_by(evidence)


def test_manifest_wrapped_around_a_genuine_one(scene: Scene) -> None:
    """XML signature wrapping: a genuine signed tag inside of a document with other values."""
    own = scene.gpus(scene.vendor.gpu())
    genuine = scene.vendor.gpu_rims[0]
    outer = etree.fromstring(genuine)
    for signature in outer.findall("{http://www.w3.org/2000/09/xmldsig#}Signature"):
        outer.remove(signature)
    inner = etree.fromstring(genuine)
    outer.append(inner)
    outer.append(inner.find("{http://www.w3.org/2000/09/xmldsig#}Signature"))
    wrapped = bytes(etree.tostring(outer))
    evidence = scene.evidence(own, changed(own, with_rims(wrapped, scene.vendor.gpu_rims[1])))
    try:
        found = scene.stopped_by(evidence)
    except MalformedError:
        return
    assert "gpu.rim_sig" in found


def test_manifest_of_a_look_alike_vendor(scene: Scene) -> None:
    other = SimulatedNvidia(now=scene.lab.now, rng=seeded_random(b"look-alike"))
    own = scene.gpus(scene.vendor.gpu())
    evidence = scene.evidence(own, changed(own, with_rims(*other.gpu_rims)))
    assert "gpu.rim_chain" in scene.stopped_by(evidence)


def test_no_manifests(scene: Scene) -> None:
    own = scene.gpus(scene.vendor.gpu())
    found = scene.stopped_by(scene.evidence(own, changed(own, with_rims())))
    assert "gpu.rim_match" in found
    assert all(id.startswith("gpu.rim_") for id in found)


def test_revocation_answers_left_out(scene: Scene) -> None:
    own = scene.gpus(scene.vendor.gpu())
    shown = changed(own, lambda device: device.ClearField("ocsp_responses"))
    assert scene.stopped_by(scene.evidence(own, shown)) == ("gpu.ocsp", "gpu.rim_ocsp")


def test_gpu_of_a_look_alike_vendor(scene: Scene) -> None:
    other = SimulatedNvidia(now=scene.lab.now, rng=seeded_random(b"look-alike"))
    fake = SimulatedGpus(other, [other.gpu()], clock=lambda: scene.lab.now)
    assert scene.stopped_by(scene.evidence(fake)) == ("gpu.chain", "gpu.rim_chain")


def test_modes_mixed_in_one_machine(scene: Scene) -> None:
    mixed = (scene.vendor.gpu(), scene.vendor.gpu(mode=FeatureFlag.MULTI))
    own = scene.gpus(scene.vendor.gpu(pdi=mixed[0].pdi), scene.vendor.gpu(pdi=mixed[1].pdi))
    found = scene.stopped_by(scene.evidence(own, scene.gpus(*mixed).evidence))
    assert found == ("gpu.mode", "rtmr3.gpu_mode")


def test_gpus_shown_to_a_client_whose_policy_knows_none(scene: Scene) -> None:
    evidence = scene.evidence(scene.gpus(scene.vendor.gpu()))
    assert scene.stopped_by(evidence, scene.lab.policy()) == ("gpu.allowed", "rtmr3.gpu")
