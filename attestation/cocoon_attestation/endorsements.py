"""Endorsements that a verifier got itself, to judge evidence by in place of what the node stapled.

They are no more trusted than stapled ones: every statement is checked by its own signature, dates and rules.
See docs/spec/endorsements.md, section 9.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from cocoon_attestation.errors import ConfigError
from cocoon_attestation.evidence import Evidence, SnpEvidence, TdxCollateralBytes, TdxEvidence
from cocoon_attestation.types import Digest32

_TAG = b"cocoon/v1/endorsements"


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpEndorsements:
    """What `verify_snp` needs beside the report."""

    certificate: bytes
    """VCEK or VLEK, DER."""
    issuer_chain: str
    """ASK or ASVK and ARK, PEM."""
    crl: bytes
    """Revocation list of the product, DER."""

    def to_json(self) -> dict[str, str]:
        """The file that an SNP enclave reads: bytes in hex."""
        return {
            "certificate": self.certificate.hex(),
            "issuer_chain": self.issuer_chain,
            "crl": self.crl.hex(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceEndorsements:
    """What vouches for one GPU or switch."""

    rims: tuple[bytes, ...]
    """Signed manifests, XML."""
    ocsp_responses: tuple[bytes, ...]
    """DER, about the device's chain and the signers of the manifests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnEndorsements:
    """What the verifier got itself. A part that is None stays as the node stapled it."""

    collateral: TdxCollateralBytes | None = None
    """For TDX evidence."""
    snp: SnpEndorsements | None = None
    """For SEV-SNP evidence."""
    devices: tuple[DeviceEndorsements, ...] | None = None
    """For every device of the evidence, in its order."""
    ocsp_nonce: bytes | None = None
    """32 bytes of the verifier's that the revocation answers in `devices` carry; set with `devices`."""

    def __post_init__(self) -> None:
        """Answers without a nonce of ours, or a nonce without answers, would be checked by the wrong one."""
        if (self.devices is None) is not (self.ocsp_nonce is None):
            raise ConfigError("endorsements of devices go with the nonce of their revocation answers")

    @property
    def digest(self) -> Digest32:
        """H("cocoon/v1/endorsements" ‖ every part, length-prefixed u32): names the exact bytes.

        A part is a field of this value or of the values inside, in the order of their fields, each after
        one byte that says whether it is there; lists begin with their length as u32.
        """
        state = hashlib.sha256(_TAG)
        for piece in _pieces(self):
            state.update(piece)
        return Digest32(state.digest())

    def applied(self, evidence: Evidence) -> Evidence:
        """`evidence` with these endorsements in place of the stapled ones. Its digest stays.

        Raises:
            ConfigError: they are for another kind of TEE, or for another number of devices.
        """
        cpu, devices = evidence.cpu, evidence.devices
        if self.collateral is not None:
            if not isinstance(cpu, TdxEvidence):
                raise ConfigError("collateral is for TDX evidence")
            cpu = dataclasses.replace(cpu, collateral=self.collateral)
        if self.snp is not None:
            if not isinstance(cpu, SnpEvidence):
                raise ConfigError("AMD's endorsements are for SEV-SNP evidence")
            cpu = dataclasses.replace(
                cpu,
                certificate=self.snp.certificate,
                issuer_chain=self.snp.issuer_chain,
                crl=self.snp.crl,
            )
        if self.devices is not None:
            if len(self.devices) != len(devices):
                raise ConfigError("endorsements for another number of devices than the evidence shows")
            devices = tuple(
                dataclasses.replace(device, rims=own.rims, ocsp_responses=own.ocsp_responses)
                for device, own in zip(devices, self.devices, strict=True)
            )
        return dataclasses.replace(evidence, cpu=cpu, devices=devices)


def _pieces(value: object) -> Iterable[bytes]:
    """Every byte of a value with the length before it: one value, one sequence."""
    match value:
        case None:
            yield b"\x00"
        case bytes():
            yield b"\x01" + len(value).to_bytes(4) + value
        case str():
            yield from _pieces(value.encode("utf-8"))
        case tuple():
            yield b"\x01" + len(value).to_bytes(4)
            for item in value:
                yield from _pieces(item)
        case OwnEndorsements() | SnpEndorsements() | DeviceEndorsements() | TdxCollateralBytes():
            yield b"\x01"
            for field in dataclasses.fields(value):
                yield from _pieces(getattr(value, field.name))
        case _:
            raise TypeError(f"{type(value).__name__} is no part of endorsements")
