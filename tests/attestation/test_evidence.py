"""`parse_evidence`: strict, bounded, and `MalformedError` for everything else."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cocoon.v1 import evidence_pb2
from cocoon_attestation import evidence as module
from cocoon_attestation.binding import beacon_challenge
from cocoon_attestation.errors import MalformedError
from cocoon_attestation.evidence import (
    MAX_EVIDENCE,
    SnpEvidence,
    TdxEvidence,
    evidence_digest,
    parse_evidence,
)


@pytest.fixture(scope="module")
def good(lab: Any) -> bytes:
    evidence: bytes = lab.evidence()
    return evidence


def edited(data: bytes, change: Callable[[Any], object]) -> bytes:
    message = evidence_pb2.Evidence.FromString(data)
    change(message)
    return message.SerializeToString(deterministic=True)


def test_fields(lab: Any, good: bytes) -> None:
    parsed = parse_evidence(good)
    assert parsed.binding == lab.binding()
    assert parsed.seal_public_key == lab.seal_public_key
    assert parsed.challenge == lab.challenge
    assert parsed.beacon is None
    assert parsed.devices == ()
    assert parsed.digest == evidence_digest(good) == hashlib.sha256(good).digest()
    assert isinstance(parsed.cpu, TdxEvidence)
    assert list(parsed.cpu.runtime_events) == lab.events()
    assert parsed.cpu.collateral is not None


def test_beacon(lab: Any, good: bytes) -> None:
    def add(message: Any) -> None:
        message.beacon.seqno, message.beacon.root_hash = 9, b"\x01" * 32

    beacon = parse_evidence(edited(good, add)).beacon
    assert beacon is not None
    assert beacon.challenge == beacon_challenge(9, b"\x01" * 32)


def test_snp_and_devices(good: bytes) -> None:
    def change(message: Any) -> None:
        message.snp.report = bytes(1184)
        message.snp.certificate = b"c"
        message.snp.issuer_chain = "i"
        message.snp.crl = b"l"
        message.devices.add(
            kind=evidence_pb2.DEVICE_KIND_SWITCH,
            report=b"r",
            certificate_chain="c",
            rims=[b"1", b"2"],
            ocsp_responses=[b"3"],
        )

    parsed = parse_evidence(edited(good, change))
    assert isinstance(parsed.cpu, SnpEvidence)
    assert parsed.devices[0].rims == (b"1", b"2")


def test_no_cpu_evidence_parses_as_none(good: bytes) -> None:
    assert parse_evidence(edited(good, lambda m: m.ClearField("tdx"))).cpu is None


def test_missing_collateral_parses_as_none(good: bytes) -> None:
    parsed = parse_evidence(edited(good, lambda m: m.tdx.ClearField("collateral")))
    assert isinstance(parsed.cpu, TdxEvidence)
    assert parsed.cpu.collateral is None


def _set(path: str, value: object) -> Callable[[Any], object]:
    *parents, name = path.split(".")

    def change(message: Any) -> None:
        for parent in parents:
            message = getattr(message, parent)
        setattr(message, name, value)

    return change


def _event(name: str, payload: bytes = b"") -> Callable[[Any], object]:
    return lambda message: message.tdx.runtime_events.add(name=name, payload=payload)


def _device(**fields: Any) -> Callable[[Any], object]:
    values = {"kind": 1, "report": b"r", "certificate_chain": "c", **fields}
    return lambda message: message.devices.add(**values)


FAULTS: dict[str, Callable[[Any], object]] = {
    "no-binding": _set("key_binding", b""),
    "long-binding": _set("key_binding", b"\x01" * 1025),
    "bad-binding": _set("key_binding", b"\x01" * 100),
    "short-key": _set("seal_public_key", bytes(1215)),
    "long-key": _set("seal_public_key", bytes(1217)),
    "no-key": _set("seal_public_key", b""),
    "short-challenge": _set("challenge", bytes(31)),
    "no-challenge": _set("challenge", b""),
    "beacon-hash": _set("beacon.root_hash", bytes(31)),
    "empty-beacon": _set("beacon.seqno", 0),
    "no-quote": _set("tdx.quote", b""),
    "long-quote": _set("tdx.quote", bytes(64 * 1024 + 1)),
    "many-events": lambda m: [m.tdx.runtime_events.add(name="e") for _ in range(61)],
    "empty-event-name": _event(""),
    "long-event-name": _event("x" * 65),
    "nul-event-name": _event("cocoon\0ready"),
    "non-ascii-event-name": _event("cocoön.ready"),
    "long-event-payload": _event("x", bytes(4097)),
    "tcb-signature": _set("tdx.collateral.tcb_info_signature", bytes(63)),
    "qe-signature": _set("tdx.collateral.qe_identity_signature", bytes(65)),
    "no-tcb-info": _set("tdx.collateral.tcb_info", ""),
    "long-tcb-info": _set("tdx.collateral.tcb_info", " " * (128 * 1024 + 1)),
    "non-ascii-tcb-info": _set("tdx.collateral.tcb_info", "ä"),
    "no-qe-identity": _set("tdx.collateral.qe_identity", ""),
    "no-root-crl": _set("tdx.collateral.root_ca_crl", b""),
    "no-pck-crl": _set("tdx.collateral.pck_crl", b""),
    "long-crl": _set("tdx.collateral.pck_crl", bytes(512 * 1024 + 1)),
    "long-chain": _set("tdx.collateral.pck_crl_issuer_chain", "x" * (32 * 1024 + 1)),
    "no-chain": _set("tdx.collateral.tcb_info_issuer_chain", ""),
    "snp-report": _set("snp.report", bytes(1183)),
    "device-kind": _device(kind=0),
    "unknown-device-kind": _device(kind=7),
    "device-report": _device(report=b""),
    "device-report-size": _device(report=bytes(16 * 1024 + 1)),
    "device-chain": _device(certificate_chain=""),
    "many-rims": _device(rims=[b"r"] * 17),
    "empty-rim": _device(rims=[b""]),
    "many-devices": lambda m: [_device()(m) for _ in range(17)],
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_limits(good: bytes, fault: Callable[[Any], object]) -> None:
    with pytest.raises(MalformedError):
        parse_evidence(edited(good, fault))


UNKNOWN_FIELD = b"\xf8\x07\x01"
"""Field 127, varint 1."""


def test_unknown_fields_at_every_level(good: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_evidence(good + UNKNOWN_FIELD)
    paths: list[Callable[[Any], Any]] = [
        lambda m: m.tdx,
        lambda m: m.tdx.collateral,
        lambda m: m.tdx.runtime_events[0],
        lambda m: m.beacon,
        lambda m: m.snp,
        lambda m: m.devices[0],
    ]
    for path in paths:

        def change(message: Any, path: Callable[[Any], Any] = path) -> None:
            message.beacon.root_hash = bytes(32)
            _device()(message)
            path(message).MergeFromString(UNKNOWN_FIELD)

        with pytest.raises(MalformedError):
            parse_evidence(edited(good, change))


def test_unknown_tee_kind_is_an_unknown_field(good: bytes) -> None:
    """A kind of TEE that this version does not know would be a new field of the oneof."""
    other = edited(good, lambda m: m.ClearField("tdx")) + b"\x42\x03abc"
    with pytest.raises(MalformedError):
        parse_evidence(other)


def test_size_is_bounded(good: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_EVIDENCE", len(good))
    assert parse_evidence(good)
    monkeypatch.setattr(module, "MAX_EVIDENCE", len(good) - 1)
    with pytest.raises(MalformedError):
        parse_evidence(good)
    assert MAX_EVIDENCE < 16 * 1024 * 1024


def test_truncations(good: bytes) -> None:
    for length in range(0, len(good), 97):
        with pytest.raises(MalformedError):
            parse_evidence(good[:length])


@given(st.binary(max_size=1000))
def test_arbitrary_bytes(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_evidence(data)


@settings(max_examples=200)
@given(data=st.data())
def test_edited_evidence_parses_or_is_malformed(lab: Any, good: bytes, data: st.DataObject) -> None:
    changed = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    try:
        parsed = parse_evidence(bytes(changed))
    except MalformedError:
        return
    assert parsed.digest == hashlib.sha256(changed).digest()
