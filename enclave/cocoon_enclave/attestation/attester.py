"""The seam between the enclave and the hardware that vouches for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from cocoon.v1 import evidence_pb2
from cocoon_attestation.binding import KeyBinding, beacon_challenge, gpu_digest, gpu_nonce, report_data
from cocoon_attestation.errors import ConfigError
from cocoon_attestation.evidence import parse_evidence
from cocoon_attestation.gpu_summary import parse_gpu_summary
from cocoon_attestation.reference import TeeKind
from cocoon_attestation.rtmr3 import (
    CONFIG_EVENT,
    GPU_EVENT,
    MODEL_EVENT,
    NO_GPU,
    READY_EVENT,
    RuntimeEvent,
    parse_runtime_log,
)
from cocoon_attestation.types import exact_bytes

REPORT_DATA_SIZE: Final = 64

CpuEvidence = evidence_pb2.TdxEvidence | evidence_pb2.SnpEvidence
"""The part of `Evidence` that a CPU produces."""


class Attester(Protocol):
    """A trusted execution environment that can measure events and sign report data."""

    @property
    def kind(self) -> TeeKind:
        """Kind of TEE."""
        ...

    @property
    def simulated(self) -> bool:
        """True if no hardware stands behind the evidence. Shown to people wherever a node is shown."""
        ...

    def extend(self, name: str, payload: bytes) -> None:
        """Measure one runtime event. Irrevocable.

        Raises:
            UnsupportedError: this machine cannot extend its register.
        """
        ...

    def attest(self, report_data: bytes) -> CpuEvidence:
        """Evidence over 64 bytes of report data, with the events so far and fresh collateral.

        Raises:
            UnsupportedError: no TEE here.
            UnavailableError: the platform did not answer; a retry may help.
        """
        ...


DeviceSource = Callable[[bytes], Sequence[evidence_pb2.DeviceEvidence]]
"""Evidence of all GPUs and switches, in device order, for a 32-byte nonce that every device signs."""


def measure(attester: Attester, *, config_hash: bytes, models: list[bytes], gpu: bytes = NO_GPU) -> None:
    """Extend the four kinds of events, in their order. Call once, before serving.

    On SEV-SNP, which has no run-time register, nothing is extended: configuration, models and the demand
    for GPUs are fixed at launch, and only the form is checked here.

    Args:
        attester: the TEE.
        config_hash: SHA-256 of the measured configuration, 32 bytes.
        models: model digests, 32 bytes each, all different.
        gpu: payload of the GPU event: an encoded `GpuSummary`, after the GPUs were attested locally.

    Raises:
        MalformedError: a length is wrong, there is no model, or one is named twice.
    """
    events = [
        RuntimeEvent(name=CONFIG_EVENT, payload=config_hash),
        *(RuntimeEvent(name=MODEL_EVENT, payload=model) for model in models),
        RuntimeEvent(name=GPU_EVENT, payload=gpu),
        RuntimeEvent(name=READY_EVENT, payload=b""),
    ]
    parse_runtime_log(events)  # refuse before the register is spoilt
    if gpu != NO_GPU:
        parse_gpu_summary(gpu)
    if attester.kind is TeeKind.SEV_SNP:
        return
    for event in events:
        attester.extend(event.name, event.payload)


def make_evidence(
    attester: Attester,
    *,
    binding: KeyBinding,
    seal_public_key: bytes,
    challenge: bytes = b"",
    beacon: tuple[int, bytes] | None = None,
    devices: DeviceSource | None = None,
) -> bytes:
    """Serialized `cocoon.v1.Evidence` for a verifier's challenge, or for a masterchain block.

    Args:
        attester: the TEE; all events must have been measured.
        binding: the current key binding.
        seal_public_key: HPKE public key of the binding, 1216 bytes.
        challenge: the verifier's nonce, 32 bytes; empty if `beacon` is given.
        beacon: seqno and root hash of the block, for evidence to publish.
        devices: asks the GPUs and switches of this node; None on a node without.

    Raises:
        ConfigError: both or neither of challenge and beacon.
        MalformedError: a length is wrong.
    """
    if (beacon is None) == (not challenge):
        raise ConfigError("evidence answers either a challenge or a beacon")
    message = evidence_pb2.Evidence(
        key_binding=binding.to_boc(), seal_public_key=seal_public_key, challenge=challenge
    )
    if beacon is not None:
        message.challenge = beacon_challenge(*beacon)
        message.beacon.seqno, message.beacon.root_hash = beacon
    if devices is not None:
        message.devices.extend(devices(gpu_nonce(binding.hash, message.challenge)))
    shown = gpu_digest([device.report for device in message.devices])
    data = report_data(binding.hash, shown, message.challenge)
    cpu = attester.attest(exact_bytes(data, REPORT_DATA_SIZE, "report data"))
    if isinstance(cpu, evidence_pb2.TdxEvidence):
        message.tdx.CopyFrom(cpu)
    else:
        message.snp.CopyFrom(cpu)
    evidence = message.SerializeToString(deterministic=True)
    parse_evidence(evidence)  # never hand out what a verifier could not read
    return evidence
