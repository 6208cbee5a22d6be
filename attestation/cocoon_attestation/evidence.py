"""Evidence as bytes and as a value: strict and bounded.

`parse_evidence` decides nothing about trust; it turns untrusted bytes into a value whose lengths are
facts, or raises. Nothing that is hashed is ever encoded again: digests are taken over the bytes as they
came. See docs/spec/evidence.md.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from cocoon.v1 import evidence_pb2
from cocoon_attestation.binding import KeyBinding, beacon_challenge, beacon_preimage, parse_key_binding
from cocoon_attestation.errors import MalformedError
from cocoon_attestation.rtmr3 import RuntimeEvent
from cocoon_attestation.types import Digest32, digest32, exact_bytes

MAX_EVIDENCE: Final = 8 * 1024 * 1024
"""Longest evidence in bytes: eight GPUs and four switches with their manifests fit."""
MAX_KEY_BINDING: Final = 1024
SEAL_PUBLIC_KEY_SIZE: Final = 1216
"""HPKE public key of MLKEM768_X25519."""
MAX_QUOTE: Final = 64 * 1024
MAX_EVENTS: Final = 64
MAX_EVENT_NAME: Final = 64
MAX_EVENT_PAYLOAD: Final = 4 * 1024
MAX_CHAIN: Final = 32 * 1024
MAX_CRL: Final = 512 * 1024
MAX_SIGNED_JSON: Final = 128 * 1024
MAX_DEVICES: Final = 16
MAX_DEVICE_REPORT: Final = 16 * 1024
MAX_DEVICE_ENDORSEMENTS: Final = 16
MAX_DEVICE_ENDORSEMENT: Final = 256 * 1024
SNP_REPORT_SIZE: Final = 1184


@dataclass(frozen=True, slots=True, kw_only=True)
class Beacon:
    """The masterchain block that published evidence was made after."""

    seqno: int
    root_hash: bytes
    """Representation hash of the block, 32 bytes."""

    @property
    def challenge(self) -> Digest32:
        """The challenge that follows from the block."""
        return beacon_challenge(self.seqno, self.root_hash)

    @property
    def preimage(self) -> bytes:
        """The bytes whose SHA-256 is `challenge`."""
        return beacon_preimage(self.seqno, self.root_hash)


@dataclass(frozen=True, slots=True, kw_only=True)
class TdxCollateralBytes:
    """Intel's statements as they came; `tdx.collateral` parses them."""

    pck_crl_issuer_chain: str
    root_ca_crl: bytes
    pck_crl: bytes
    tcb_info_issuer_chain: str
    tcb_info: str
    tcb_info_signature: bytes
    qe_identity_issuer_chain: str
    qe_identity: str
    qe_identity_signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TdxEvidence:
    """Evidence of an Intel TDX guest."""

    quote: bytes
    """At most 64 KiB; may carry unsigned trailing bytes, which are never read."""
    runtime_events: tuple[RuntimeEvent, ...]
    collateral: TdxCollateralBytes | None
    """None if the node stapled none: a failed check, not a parse error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpEvidence:
    """Evidence of an AMD SEV-SNP guest."""

    report: bytes
    """1184 bytes."""
    certificate: bytes
    """DER. Empty, like the two below, if the node stapled none: a failed check, not a parse error."""
    issuer_chain: str
    """PEM."""
    crl: bytes
    """DER."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceEvidence:
    """Evidence of one GPU or NVLink switch."""

    kind: int
    """`evidence_pb2.DeviceKind`, never unspecified."""
    report: bytes
    certificate_chain: str
    rims: tuple[bytes, ...]
    ocsp_responses: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What an enclave presents. Untrusted until `appraise` accepted it."""

    digest: Digest32
    """SHA-256 of the bytes that were parsed; recorded on chain for published evidence."""
    binding: KeyBinding
    seal_public_key: bytes
    """1216 bytes."""
    challenge: Digest32
    beacon: Beacon | None
    cpu: TdxEvidence | SnpEvidence | None
    """None if the evidence names no TEE; always rejected."""
    devices: tuple[DeviceEvidence, ...]


def evidence_digest(evidence: bytes) -> Digest32:
    """SHA-256 of the exact evidence bytes."""
    return Digest32(hashlib.sha256(evidence).digest())


def parse_evidence(data: bytes) -> Evidence:
    """Read serialized `cocoon.v1.Evidence`.

    Raises:
        MalformedError: not that message, an unknown field, or a field of wrong or excessive length.
    """
    if not isinstance(data, bytes) or len(data) > MAX_EVIDENCE:
        raise MalformedError(f"evidence: at most {MAX_EVIDENCE} bytes expected")
    message = evidence_pb2.Evidence()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise MalformedError("evidence: not a protobuf message of its type") from error
    _refuse_unknown(message)
    if len(message.devices) > MAX_DEVICES:
        raise MalformedError(f"evidence: at most {MAX_DEVICES} devices expected")
    binding_boc = _bounded(message.key_binding, MAX_KEY_BINDING, "key_binding")
    return Evidence(
        digest=evidence_digest(data),
        binding=parse_key_binding(binding_boc),
        seal_public_key=exact_bytes(message.seal_public_key, SEAL_PUBLIC_KEY_SIZE, "seal_public_key"),
        challenge=digest32(message.challenge, "challenge"),
        beacon=_beacon(message.beacon) if message.HasField("beacon") else None,
        cpu=_cpu(message),
        devices=tuple(_device(device) for device in message.devices),
    )


def _cpu(message: evidence_pb2.Evidence) -> TdxEvidence | SnpEvidence | None:
    if message.HasField("tdx"):
        return _tdx(message.tdx)
    if message.HasField("snp"):
        return _snp(message.snp)
    return None


def _beacon(message: evidence_pb2.Beacon) -> Beacon:
    _refuse_unknown(message)
    return Beacon(seqno=message.seqno, root_hash=digest32(message.root_hash, "beacon root_hash"))


def _tdx(message: evidence_pb2.TdxEvidence) -> TdxEvidence:
    _refuse_unknown(message)
    if len(message.runtime_events) > MAX_EVENTS:
        raise MalformedError(f"evidence: at most {MAX_EVENTS} runtime events expected")
    return TdxEvidence(
        quote=_bounded(message.quote, MAX_QUOTE, "quote"),
        runtime_events=tuple(_event(event) for event in message.runtime_events),
        collateral=_collateral(message.collateral) if message.HasField("collateral") else None,
    )


def _event(message: evidence_pb2.RuntimeEvent) -> RuntimeEvent:
    _refuse_unknown(message)
    name = message.name
    if not 1 <= len(name) <= MAX_EVENT_NAME or not name.isascii() or not name.isprintable():
        raise MalformedError(f"runtime event: name of 1 to {MAX_EVENT_NAME} printable characters expected")
    payload = _bounded(message.payload, MAX_EVENT_PAYLOAD, "runtime event payload", empty=True)
    return RuntimeEvent(name=name, payload=payload)


def _collateral(message: evidence_pb2.TdxCollateral) -> TdxCollateralBytes:
    _refuse_unknown(message)
    return TdxCollateralBytes(
        pck_crl_issuer_chain=_text(message.pck_crl_issuer_chain, MAX_CHAIN, "pck_crl_issuer_chain"),
        root_ca_crl=_bounded(message.root_ca_crl, MAX_CRL, "root_ca_crl"),
        pck_crl=_bounded(message.pck_crl, MAX_CRL, "pck_crl"),
        tcb_info_issuer_chain=_text(message.tcb_info_issuer_chain, MAX_CHAIN, "tcb_info_issuer_chain"),
        tcb_info=_text(message.tcb_info, MAX_SIGNED_JSON, "tcb_info"),
        tcb_info_signature=exact_bytes(message.tcb_info_signature, 64, "tcb_info_signature"),
        qe_identity_issuer_chain=_text(
            message.qe_identity_issuer_chain, MAX_CHAIN, "qe_identity_issuer_chain"
        ),
        qe_identity=_text(message.qe_identity, MAX_SIGNED_JSON, "qe_identity"),
        qe_identity_signature=exact_bytes(message.qe_identity_signature, 64, "qe_identity_signature"),
    )


def _snp(message: evidence_pb2.SnpEvidence) -> SnpEvidence:
    _refuse_unknown(message)
    return SnpEvidence(
        report=exact_bytes(message.report, SNP_REPORT_SIZE, "SNP report"),
        certificate=_bounded(message.certificate, MAX_CHAIN, "SNP certificate", empty=True),
        issuer_chain=_text(message.issuer_chain, MAX_CHAIN, "SNP issuer_chain", empty=True),
        crl=_bounded(message.crl, MAX_CRL, "SNP crl", empty=True),
    )


def _device(message: evidence_pb2.DeviceEvidence) -> DeviceEvidence:
    _refuse_unknown(message)
    if message.kind not in (evidence_pb2.DEVICE_KIND_GPU, evidence_pb2.DEVICE_KIND_SWITCH):
        raise MalformedError("device evidence: unknown kind")
    return DeviceEvidence(
        kind=int(message.kind),
        report=_bounded(message.report, MAX_DEVICE_REPORT, "device report"),
        certificate_chain=_text(message.certificate_chain, MAX_CHAIN, "device certificate_chain"),
        rims=_endorsements(message.rims, "device rims"),
        ocsp_responses=_endorsements(message.ocsp_responses, "device ocsp_responses"),
    )


def _endorsements(values: Sequence[bytes], what: str) -> tuple[bytes, ...]:
    if len(values) > MAX_DEVICE_ENDORSEMENTS:
        raise MalformedError(f"{what}: at most {MAX_DEVICE_ENDORSEMENTS} expected")
    return tuple(_bounded(value, MAX_DEVICE_ENDORSEMENT, what) for value in values)


def _bounded(value: bytes, limit: int, what: str, *, empty: bool = False) -> bytes:
    if len(value) > limit or (not value and not empty):
        raise MalformedError(f"{what}: 1 to {limit} bytes expected, {len(value)} found")
    return value


def _text(value: str, limit: int, what: str, *, empty: bool = False) -> str:
    """ASCII text: PEM and Intel's JSON need nothing else, and text then has one length."""
    if (not value and not empty) or len(value) > limit or not value.isascii():
        raise MalformedError(f"{what}: 1 to {limit} ASCII characters expected")
    return value


def _refuse_unknown(message: Message) -> None:
    """A field that this version does not know could change the meaning: fail closed."""
    if len(UnknownFieldSet(message)):
        raise MalformedError(f"{message.DESCRIPTOR.name}: unknown field")
