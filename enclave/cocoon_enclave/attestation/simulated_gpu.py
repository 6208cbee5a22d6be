"""Simulated NVIDIA GPUs and switches: evidence in the vendor's exact form under development roots.

There is no GPU behind it and it protects nothing. It exists so that a whole eight-GPU node can run and
be verified without hardware, and so that tests can produce evidence with exactly one fault.
See docs/spec/gpu.md.
"""

from __future__ import annotations

import copy
import functools
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from cocoon_attestation.gpu.evidence import GpuDevice
from cocoon_attestation.gpu.policy import DeviceKind, GpuPolicy
from cocoon_attestation.gpu.report import (
    GPU_BLOCKS,
    STATUS_OFF,
    STATUS_ON,
    SWITCH_BLOCKS,
    FeatureFlag,
    Opaque,
)
from cocoon_enclave.attestation.simulated_gpu_pki import (
    Random,
    Signer,
    chain_pem,
    make_authority,
    make_ocsp_response,
    make_signer,
)
from cocoon_enclave.attestation.simulated_rim import make_rim

DRIVER_VERSION: Final = "590.12"
VBIOS_VERSION: Final = "96.00.A5.00.01"
SWITCH_VERSION: Final = "96.10.73.00.01"
DRIVER_INDICES: Final = (6, 9, 17, 22)
VBIOS_INDICES: Final = (0, 1, 2, 3)
_GPU_SERIAL_PREFIX: Final = b"\x41"
_SWITCH_SERIAL_PREFIX: Final = b"\x50"


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedDevice:
    """One device: its keys, what it reports and what vouches for it. Replace a field to break it."""

    kind: DeviceKind
    pdi: bytes
    """8 bytes; also the end of the serial number of the device certificate."""
    chain: tuple[Signer, ...]
    """Signing key, device, provisioner, family, root."""
    opaque: Mapping[int, bytes]
    measurements: tuple[bytes, ...]
    rims: tuple[bytes, ...]
    rim_chain: tuple[Signer, ...]
    tail: bytes = field(default=b"")
    """Bytes after the signature."""

    def report(self, nonce: bytes, *, response_nonce: bytes = b"\x52" * 32) -> bytes:
        """The request with `nonce` and the signed answer to it."""
        record = b"".join(
            struct.pack("<BBHBH", number, 1, len(value) + 3, 1, len(value)) + value
            for number, value in enumerate(self.measurements, start=1)
        )
        opaque = b"".join(
            struct.pack("<HH", number, len(value)) + value for number, value in self.opaque.items()
        )
        signed = b"".join(
            (
                b"\x11\xe0\x01\xff" + nonce + b"\x00",
                b"\x11\x60\x00\x00" + bytes((len(self.measurements),)) + len(record).to_bytes(3, "little"),
                record,
                response_nonce,
                len(opaque).to_bytes(2, "little"),
                opaque,
            )
        )
        r, s = decode_dss_signature(self.chain[0].key.sign(signed, ec.ECDSA(hashes.SHA384())))
        return signed + r.to_bytes(48, "big") + s.to_bytes(48, "big") + self.tail


class SimulatedNvidia:
    """The stand-in for NVIDIA: device root, manifest root, and responders below every issuer."""

    def __init__(self, *, now: int, rng: Random, chip: str = "GH100", signed_at: int | None = None) -> None:
        """The same `now` and `rng` give the same roots and devices.

        Args:
            now: Unix time in seconds; everything starts a day earlier.
            rng: source of randomness; see `seeded_random`.
            chip: name of the GPU.
            signed_at: when the manifests were signed, Unix time: signers live two years; None: `now`.
        """
        self._start = datetime.fromtimestamp(now, UTC) - timedelta(days=1)
        self._rng = rng
        self.chip = chip
        self.device_root = make_authority("SIMULATED Device Identity CA", None, start=self._start, rng=rng)
        self._family = self._authority(f"SIMULATED {chip} Identity", self.device_root)
        self._gpu_ica = self._authority(f"SIMULATED {chip} Provisioner ICA", self._family)
        self._switch_ica = self._authority("SIMULATED LS_10 Provisioner ICA", self._family)
        self.rim_root = make_authority("SIMULATED CoRIM signing Root CA", None, start=self._start, rng=rng)
        level2 = self._authority(f"SIMULATED Reference Value {chip} CA", self.rim_root)
        level3 = self._authority(f"SIMULATED Reference Value L3 {chip}", level2)
        signed = datetime.fromtimestamp(signed_at or now, UTC) - timedelta(days=1)
        end = signed + timedelta(days=730)
        signer = make_signer("SIMULATED RIM L4 Signer", level3, start=signed, end=end, rng=rng)
        self.rim_chain = (signer, level3, level2, self.rim_root)
        self._responders: dict[bytes, Signer] = {}
        self._fwid, self._switch_fwid = rng(48), rng(48)
        self._gpu_measurements = tuple(rng(48) for _ in range(GPU_BLOCKS))
        self._switch_measurements = tuple(rng(48) for _ in range(SWITCH_BLOCKS))

    def drawing_from(self, rng: Random) -> Self:
        """The same vendor with another source of randomness: devices of another machine."""
        other = copy.copy(self)
        other._rng = rng
        return other

    @functools.cached_property
    def gpu_rims(self) -> tuple[bytes, ...]:
        """Manifests of driver and VBIOS. Needs the extra ``gpu``."""
        return tuple(
            self.rim(version, {index: (self._gpu_measurements[index],) for index in indices})
            for version, indices in ((DRIVER_VERSION, DRIVER_INDICES), (VBIOS_VERSION, VBIOS_INDICES))
        )

    @functools.cached_property
    def switch_rims(self) -> tuple[bytes, ...]:
        """Manifest of the switches. Needs the extra ``gpu``."""
        values = {index: (value,) for index, value in enumerate(self._switch_measurements)}
        return (self.rim(SWITCH_VERSION, values, chip="LS10"),)

    def rim(self, version: str, values: Mapping[int, Sequence[bytes]], *, chip: str | None = None) -> bytes:
        """A manifest signed by this vendor: allowed 48-byte values by index."""
        return make_rim(chip=chip or self.chip, version=version, values=values, signer_chain=self.rim_chain)

    def policy(self, *, gpu_count: int) -> GpuPolicy:
        """A policy that names these development roots and is as strict as the default otherwise."""
        return GpuPolicy(
            gpu_count=gpu_count,
            device_roots=frozenset({self.device_root.der}),
            rim_roots=frozenset({self.rim_root.der}),
        )

    def gpu(
        self,
        *,
        pdi: bytes | None = None,
        mode: FeatureFlag = FeatureFlag.SINGLE,
        switch_pdis: Sequence[bytes] = (),
    ) -> SimulatedDevice:
        """One GPU. `switch_pdis` are the switches behind its links, in the order of 18 links."""
        identity = pdi or self._rng(8)
        links = b"".join(pdi[::-1] for pdi in switch_pdis)
        opaque: dict[int, bytes] = {
            Opaque.VBIOS_VERSION: bytes.fromhex("00a5009601000000"),
            Opaque.CHIP_SKU: b"885\x00",
            Opaque.PROJECT: b"G520\x00",
            Opaque.PROJECT_SKU: b"0200\x00",
            Opaque.DRIVER_VERSION: DRIVER_VERSION.encode() + b"\x00",
            Opaque.NVDEC0_STATUS: bytes((STATUS_OFF,)),
            Opaque.FWID: self._fwid,
            Opaque.PPCIE_STATUS: bytes((STATUS_ON if mode is FeatureFlag.PPCIE else STATUS_OFF,)),
            Opaque.OPAQUE_VERSION: b"\x01\x00",
            Opaque.FEATURE_FLAG: mode.to_bytes(2, "little"),
        }
        if links:
            opaque[Opaque.SWITCH_PDI] = links
        return SimulatedDevice(
            kind=DeviceKind.GPU,
            pdi=identity,
            chain=self._device_chain(
                self.chip, "GSP", _GPU_SERIAL_PREFIX + identity, self._fwid, self._gpu_ica
            ),
            opaque=opaque,
            measurements=self._gpu_measurements,
            rims=self.gpu_rims,
            rim_chain=self.rim_chain,
        )

    def switch(self, *, pdi: bytes | None = None, gpu_pdis: Sequence[bytes] = ()) -> SimulatedDevice:
        """One NVLink switch with the ids of the 8 GPUs behind it."""
        identity = pdi or self._rng(8)
        return SimulatedDevice(
            kind=DeviceKind.SWITCH,
            pdi=identity,
            chain=self._device_chain(
                "LS_10", "FSP", _SWITCH_SERIAL_PREFIX + identity, self._switch_fwid, self._switch_ica
            ),
            opaque={
                Opaque.VBIOS_VERSION: SWITCH_VERSION.encode(),
                Opaque.SWITCH_PDI: identity,
                Opaque.SWITCH_GPU_PDIS: b"".join(gpu_pdis).ljust(128, b"\xff"),
            },
            measurements=self._switch_measurements,
            rims=self.switch_rims,
            rim_chain=self.rim_chain,
        )

    def board(self) -> tuple[SimulatedDevice, ...]:
        """Eight GPUs behind four switches in protected PCIe mode, GPUs first."""
        gpu_pdis = [self._rng(8) for _ in range(8)]
        switch_pdis = [self._rng(8) for _ in range(4)]
        links = [switch_pdis[i % 4] for i in range(18)]
        gpus = [self.gpu(pdi=pdi, mode=FeatureFlag.PPCIE, switch_pdis=links) for pdi in gpu_pdis]
        return (*gpus, *(self.switch(pdi=pdi, gpu_pdis=gpu_pdis) for pdi in switch_pdis))

    def evidence(
        self, devices: Sequence[SimulatedDevice], nonce: bytes, *, now: int
    ) -> tuple[GpuDevice, ...]:
        """The evidence of all `devices` with `nonce`, revocation answers of the same nonce included."""
        at = datetime.fromtimestamp(now, UTC)
        answers: dict[bytes, bytes] = {}
        evidence: list[GpuDevice] = []
        for device in devices:
            pairs = [*pairwise(device.chain[1:]), *pairwise(device.rim_chain)]
            for child, issuer in pairs:
                if child.der not in answers:
                    answers[child.der] = self.answer(child.certificate, issuer, nonce, at)
            evidence.append(
                GpuDevice(
                    kind=device.kind,
                    report=device.report(nonce),
                    certificate_chain=chain_pem(device.chain),
                    rims=device.rims,
                    ocsp_responses=tuple(answers[child.der] for child, _ in pairs),
                )
            )
        return tuple(evidence)

    def answer(self, certificate: x509.Certificate, issuer: Signer, nonce: bytes, at: datetime) -> bytes:
        """An OCSP response that `certificate` is good."""
        return make_ocsp_response(certificate, issuer, self.responder(issuer), nonce=nonce, at=at)

    def responder(self, issuer: Signer) -> Signer:
        """The OCSP responder that `issuer` certified."""
        if issuer.der not in self._responders:
            self._responders[issuer.der] = make_signer(
                "SIMULATED OCSP responder", issuer, start=self._start, rng=self._rng, ocsp_signing=True
            )
        return self._responders[issuer.der]

    def with_chain(self, device: SimulatedDevice, *, fwid: bytes) -> SimulatedDevice:
        """`device` with a new signing key certified for `fwid`."""
        leaf = make_signer(
            f"{self.chip} A01 GSP FMC LF",
            device.chain[1],
            start=self._start,
            rng=self._rng,
            fwid=fwid,
            blackwell=self.chip.startswith("GB"),
        )
        return replace(device, chain=(leaf, *device.chain[1:]))

    def _device_chain(
        self, chip: str, core: str, serial: bytes, fwid: bytes, ica: Signer
    ) -> tuple[Signer, ...]:
        device = make_authority(
            f"{chip} A01 {core} BROM",
            ica,
            start=self._start,
            rng=self._rng,
            serial=int.from_bytes(serial, "big"),
        )
        leaf = make_signer(
            f"{chip} A01 {core} FMC LF",
            device,
            start=self._start,
            rng=self._rng,
            fwid=fwid,
            blackwell=chip.startswith("GB"),
        )
        return (leaf, device, ica, self._family, self.device_root)

    def _authority(self, name: str, parent: Signer) -> Signer:
        return make_authority(name, parent, start=self._start, rng=self._rng)
