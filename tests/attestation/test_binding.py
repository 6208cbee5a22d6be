"""Key binding, report data and challenges."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytoniq_core.boc.builder import Builder as OracleBuilder

from cocoon_attestation.binding import (
    KEY_BINDING_TAG,
    KeyBinding,
    beacon_challenge,
    gpu_digest,
    gpu_nonce,
    key_binding_from_cell,
    parse_key_binding,
    report_data,
)
from cocoon_attestation.cell import Cell, CellBuilder
from cocoon_attestation.errors import MalformedError

digests = st.binary(min_size=32, max_size=32)
u32 = st.integers(0, 2**32 - 1)
bindings = st.builds(
    KeyBinding,
    node=digests,
    seal_key_hash=digests,
    receipt_key=digests,
    tls_spki_hash=digests,
    config_hash=digests,
    release_id=digests,
    not_before=u32,
    not_after=u32,
    global_id=st.integers(-(2**31), 2**31 - 1),
)


def sample() -> KeyBinding:
    return KeyBinding(
        node=b"\x01" * 32,
        seal_key_hash=b"\x02" * 32,
        receipt_key=b"\x03" * 32,
        tls_spki_hash=b"\x04" * 32,
        config_hash=b"\x05" * 32,
        release_id=b"\x06" * 32,
        not_before=1,
        not_after=2,
        global_id=-239,
    )


@given(bindings)
def test_round_trip(binding: KeyBinding) -> None:
    assert parse_key_binding(binding.to_boc()) == binding
    assert key_binding_from_cell(binding.cell) == binding


@given(bindings)
def test_layout_agrees_with_oracle(binding: KeyBinding) -> None:
    rest = OracleBuilder()
    for field in (binding.tls_spki_hash, binding.config_hash, binding.release_id):
        rest.store_bytes(field)
    rest.store_uint(binding.not_before, 32).store_uint(binding.not_after, 32).store_int(
        binding.global_id, 32
    )
    root = OracleBuilder().store_uint(0xC0C00001, 32)
    for field in (binding.node, binding.seal_key_hash, binding.receipt_key):
        root.store_bytes(field)
    root.store_ref(rest.end_cell())
    assert binding.hash == root.end_cell().hash


@given(bindings, st.data())
def test_every_changed_byte_is_malformed_or_another_binding(
    binding: KeyBinding, data: st.DataObject
) -> None:
    boc = bytearray(binding.to_boc())
    boc[data.draw(st.integers(0, len(boc) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        changed = parse_key_binding(bytes(boc))
    except MalformedError:
        return
    assert changed != binding
    assert changed.hash != binding.hash


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_key_binding(data)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("node", b"\x01" * 31),
        ("receipt_key", b""),
        ("release_id", "00" * 32),
        ("not_before", -1),
        ("not_after", 2**32),
        ("global_id", 2**31),
    ],
)
def test_construction_checks_fields(field: str, value: object) -> None:
    with pytest.raises(MalformedError, match=field):
        dataclasses.replace(sample(), **{field: value})  # type: ignore[arg-type]


def rebuilt(**changes: object) -> Cell:
    """The sample's cell with one structural fault."""
    rest = sample().cell.refs[0]
    builder = CellBuilder().uint(int(str(changes.get("tag", KEY_BINDING_TAG))), 32)
    for value in (1, 2, 3):
        builder.raw(bytes([value]) * 32, 32)
    if "extra_bit" in changes:
        builder.uint(0, 1)
    if "no_ref" not in changes:
        builder.ref(rest if "empty_ref" not in changes else CellBuilder().build())
    if "extra_ref" in changes:
        builder.ref(rest)
    return builder.build()


def test_rebuilt_sample_is_the_sample() -> None:
    assert rebuilt() == sample().cell


@pytest.mark.parametrize("fault", ["extra_bit", "no_ref", "empty_ref", "extra_ref"])
def test_structural_faults_are_malformed(fault: str) -> None:
    with pytest.raises(MalformedError):
        parse_key_binding(rebuilt(**{fault: True}).to_boc())


def test_another_records_tag_is_malformed() -> None:
    with pytest.raises(MalformedError):
        parse_key_binding(rebuilt(tag=0xC0C00002).to_boc())


def test_report_data() -> None:
    binding_hash, digest, challenge = b"\x01" * 32, b"\x02" * 32, b"\x03" * 32
    data = report_data(binding_hash, digest, challenge)
    assert data[:32] == hashlib.sha256(b"cocoon/v1/report-data" + binding_hash + digest).digest()
    assert data[32:] == challenge
    assert len(data) == 64


def test_gpu_digest_is_injective_over_lists() -> None:
    assert gpu_digest([]) == bytes(32)
    lists = [[b""], [b"", b""], [b"ab"], [b"a", b"b"], [b"b", b"a"], [b"ab", b""]]
    assert len({gpu_digest(item) for item in lists}) == len(lists)
    expected = hashlib.sha256(b"cocoon/v1/gpu" + b"\x00\x00\x00\x02ab" + b"\x00\x00\x00\x01c").digest()
    assert gpu_digest([b"ab", b"c"]) == expected


def test_nonce_and_beacon() -> None:
    assert gpu_nonce(b"\x01" * 32, b"\x02" * 32) == (
        hashlib.sha256(b"cocoon/v1/gpu-nonce" + b"\x01" * 32 + b"\x02" * 32).digest()
    )
    assert beacon_challenge(7, b"\x02" * 32) == (
        hashlib.sha256(b"cocoon/v1/beacon" + b"\x00\x00\x00\x07" + b"\x02" * 32).digest()
    )


def test_argument_lengths_are_checked() -> None:
    with pytest.raises(MalformedError):
        report_data(b"", bytes(32), bytes(32))
    with pytest.raises(MalformedError):
        report_data(bytes(32), bytes(32), bytes(31))
    with pytest.raises(MalformedError):
        gpu_nonce(bytes(32), bytes(33))
    with pytest.raises(MalformedError):
        beacon_challenge(2**32, bytes(32))
    with pytest.raises(MalformedError):
        beacon_challenge(0, b"")
