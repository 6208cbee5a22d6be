"""Simulated AMD and NVIDIA beside the simulated Intel: their roots, and the chip and devices of one machine.

What is kept of them is a few keys and two seeds; certificates and manifests follow from these. Whoever has
them can make any evidence of this network. See docs/spec/simulated-tee.md.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from cocoon_attestation.dev_roots import DevRoots
from cocoon_attestation.errors import ConfigError
from cocoon_attestation.gpu.report import FeatureFlag
from cocoon_attestation.types import parse_hex
from cocoon_enclave.attestation.simulated_gpu import SimulatedDevice, SimulatedNvidia
from cocoon_enclave.attestation.simulated_gpu_pki import seeded_random
from cocoon_enclave.attestation.simulated_pki import Random
from cocoon_enclave.attestation.simulated_snp import (
    AmdAuthorities,
    SimulatedAmd,
    SimulatedChip,
)

CHIP_DAYS: Final = 3650
MODES: Final = {"single": FeatureFlag.SINGLE, "multi": FeatureFlag.MULTI, "ppcie": FeatureFlag.PPCIE}
"""How the GPUs of a simulated node are joined, by the name that policies use."""
BOARD_GPUS: Final = 8
_SEED: Final = 32
_AUTHORITIES: Final = ("ark", "ask", "asvk")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shared:
    """What all machines of a network have in common."""

    made_at: int
    amd: AmdAuthorities
    nvidia_seed: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DevVendors:
    """Simulated AMD and NVIDIA, and what one machine has of them."""

    shared: _Shared
    chip: SimulatedChip
    """The machine's SEV-SNP signing key."""
    device_seed: bytes
    """From which the machine's GPUs and switches follow, 32 bytes."""

    def __repr__(self) -> str:
        """The chip only: everything else is secret."""
        return f"DevVendors(SIMULATED, {self.chip!r})"

    @classmethod
    def create(cls, now: int, rng: Random) -> Self:
        """New vendors at Unix time `now`, and one machine."""
        amd = SimulatedAmd(now=now, rng=rng)
        shared = _Shared(made_at=now, amd=amd.authorities, nvidia_seed=rng(_SEED))
        return cls(shared=shared, chip=amd.chip(days=CHIP_DAYS), device_seed=rng(_SEED))

    def sibling(self, now: int, rng: Random) -> DevVendors:
        """Another machine of the same vendors."""
        return replace(self, chip=self.amd(now, rng).chip(days=CHIP_DAYS), device_seed=rng(_SEED))

    @property
    def roots(self) -> DevRoots:
        """The vendors' roots, for the extension of the network's root."""
        nvidia = self.nvidia(self.shared.made_at)
        amd = SimulatedAmd(now=self.shared.made_at, rng=_no_random, authorities=self.shared.amd)
        return DevRoots(
            amd={amd.product: amd.root.der},
            nvidia_device=nvidia.device_root.der,
            nvidia_rim=nvidia.rim_root.der,
        )

    def amd(self, now: int, rng: Random) -> SimulatedAmd:
        """The stand-in for AMD; what it signs starts at Unix time `now`."""
        return SimulatedAmd(now=now, rng=rng, authorities=self.shared.amd)

    def nvidia(self, now: int) -> SimulatedNvidia:
        """The stand-in for NVIDIA, with manifests signed at Unix time `now`; its devices are this machine's."""
        vendor = _nvidia(self.shared.nvidia_seed, self.shared.made_at, now)
        return vendor.drawing_from(seeded_random(self.device_seed))

    def to_dict(self) -> dict[str, object]:
        """Everything, private keys included, JSON-ready."""
        amd = self.shared.amd
        return {
            "made_at": self.shared.made_at,
            "amd": {
                "ark_key": _key_pem(amd.ark_key),
                "ask_key": _key_pem(amd.ask_key),
                **{name: _pem(getattr(amd, name)) for name in _AUTHORITIES},
            },
            "chip": {
                "key": _key_pem(self.chip.key),
                "certificate": self.chip.certificate.hex(),
                "chip_id": self.chip.chip_id.hex(),
            },
            "nvidia_seed": self.shared.nvidia_seed.hex(),
            "device_seed": self.device_seed.hex(),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, object]) -> Self:
        """Read what `to_dict` wrote.

        Raises:
            ValueError, KeyError, TypeError, MalformedError: something else; the caller says which file.
        """
        amd, chip = _table(document["amd"]), _table(document["chip"])
        certificates = {
            name: x509.load_pem_x509_certificate(_text(amd[name]).encode("ascii")) for name in _AUTHORITIES
        }
        authorities = AmdAuthorities(
            ark_key=_rsa(_text(amd["ark_key"])), ask_key=_rsa(_text(amd["ask_key"])), **certificates
        )
        made_at = document["made_at"]
        if type(made_at) is not int:
            raise TypeError("made_at is not a number")
        seed = parse_hex(document["nvidia_seed"], _SEED, "nvidia_seed")
        return cls(
            shared=_Shared(made_at=made_at, amd=authorities, nvidia_seed=seed),
            chip=SimulatedChip(
                key=_ec(_text(chip["key"])),
                certificate=bytes.fromhex(_text(chip["certificate"])),
                chip_id=parse_hex(chip["chip_id"], 64, "chip_id"),
            ),
            device_seed=parse_hex(document["device_seed"], _SEED, "device_seed"),
        )


def simulated_devices(
    vendor: SimulatedNvidia, *, count: int, mode: FeatureFlag
) -> tuple[SimulatedDevice, ...]:
    """GPUs of a node, then its switches. The same vendor object gives others at every call.

    Raises:
        ConfigError: protected PCIe with another number of GPUs than 8.
    """
    if mode is not FeatureFlag.PPCIE:
        return tuple(vendor.gpu(mode=mode) for _ in range(count))
    if count != BOARD_GPUS:
        raise ConfigError(f"gpu.mode: protected PCIe joins {BOARD_GPUS} GPUs, not {count}")
    return vendor.board()


@functools.lru_cache(maxsize=4)
def _nvidia(seed: bytes, made_at: int, now: int) -> SimulatedNvidia:
    return SimulatedNvidia(
        now=made_at, rng=seeded_random(hashlib.sha256(seed).digest()), signed_at=max(now, made_at)
    )


def _no_random(size: int) -> bytes:
    raise RuntimeError(f"{size} random bytes asked for where nothing is made")


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode("ascii")


def _key_pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")


def _rsa(pem: str) -> rsa.RSAPrivateKey:
    key = load_pem_private_key(pem.encode("ascii"), password=None)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise TypeError("not an RSA key")
    return key


def _ec(pem: str) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(pem.encode("ascii"), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TypeError("not an elliptic curve key")
    return key


def _table(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise TypeError("an object expected")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text expected")
    return value


def mode_of(name: str, count: int) -> FeatureFlag:
    """The mode called `name`; the empty name means alone for one GPU, protected PCIe for eight, NVLink else."""
    if name:
        return MODES[name]
    return {1: FeatureFlag.SINGLE, BOARD_GPUS: FeatureFlag.PPCIE}.get(count, FeatureFlag.MULTI)
