"""Evidence of one or more devices as it travels: fields of a device, and NVIDIA's JSON list."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Final, NoReturn

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.gpu.policy import DeviceKind

MAX_JSON: Final = 4 << 20
MAX_DEVICES: Final = 32
MAX_RIMS: Final = 4
_SWITCH_ARCHITECTURES: Final = frozenset({"LS10", "LS_10"})
_GPU_ARCHITECTURES: Final = frozenset({"HOPPER", "BLACKWELL"})


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuDevice:
    """Evidence of one device. All of it is untrusted input."""

    kind: DeviceKind
    report: bytes
    """SPDM request and response."""
    certificate_chain: bytes
    """PEM, leaf first, root last."""
    rims: tuple[bytes, ...] = ()
    """Signed manifests, XML."""
    ocsp_responses: tuple[bytes, ...] = ()
    """DER, for the device chain and for the signers of the manifests."""


def parse_evidence_list(data: bytes) -> tuple[GpuDevice, ...]:
    """Parse NVIDIA's JSON evidence: a list of ``{arch, certificate, evidence, …}`` in base64.

    The list may also stand in an object under ``evidence_list``, and one device may stand alone. The nonce
    and versions beside the evidence are ignored: only the signed report counts.

    Raises:
        MalformedError: larger than 4 MiB, more than 32 devices, or not of this form.
    """
    if len(data) > MAX_JSON:
        raise MalformedError("the GPU evidence is too long")
    try:
        document = json.loads(
            bytes(data).decode("utf-8-sig"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except (ValueError, RecursionError) as error:
        raise MalformedError("the GPU evidence is not JSON") from error
    outer = document.get("arch") if isinstance(document, dict) else None
    if isinstance(document, dict):
        alone = "evidence" in document and "evidence_list" not in document
        entries = [document] if alone else document.get("evidence_list")
    else:
        entries = document
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_DEVICES:
        raise MalformedError(f"the GPU evidence is not a list of 1 to {MAX_DEVICES} devices")
    return tuple(_device(entry, outer) for entry in entries)


def _device(entry: object, outer_architecture: object) -> GpuDevice:
    if not isinstance(entry, dict):
        raise MalformedError("an entry of the GPU evidence is not an object")
    architecture = entry.get("arch", outer_architecture)
    if not isinstance(architecture, str):
        raise MalformedError("an entry of the GPU evidence has no architecture")
    architecture = architecture.upper()
    if architecture in _SWITCH_ARCHITECTURES:
        kind = DeviceKind.SWITCH
    elif architecture in _GPU_ARCHITECTURES:
        kind = DeviceKind.GPU
    else:
        raise MalformedError("an entry of the GPU evidence has no known architecture")
    return GpuDevice(
        kind=kind,
        report=_base64(entry.get("evidence"), "evidence"),
        certificate_chain=_base64(entry.get("certificate"), "certificate"),
    )


def _base64(value: object, what: str) -> bytes:
    if not isinstance(value, str):
        raise MalformedError(f"{what} is missing")
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedError(f"{what} is not base64") from error


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise MalformedError("a key is repeated in the GPU evidence")
    return result


def _no_constant(name: str) -> NoReturn:
    raise MalformedError(f"{name} is not a value of GPU evidence")
