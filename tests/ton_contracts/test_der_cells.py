"""Certificates in cells: nothing is lost, nothing that is read together is split, hostile bytes are refused."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pytoniq_core import Cell

from cocoon_attestation.errors import MalformedError
from cocoon_enclave.attestation import simulated_pki as pki
from cocoon_enclave.attestation.simulated import DevPlatform
from cocoon_ton.der_cells import CELL_BYTES, certificate_cell, snake

from .pck_kit import platform_with, seeded

PLATFORM = DevPlatform.create(1_790_000_000, seeded("platform"))
LEAF = PLATFORM.pck.certificate.tbs_certificate_bytes
AUTHORITY = PLATFORM.platform_ca.certificate.tbs_certificate_bytes


def pieces(cell: Cell) -> list[bytes]:
    """The bytes of each cell of a snake."""
    found = []
    following: Cell | None = cell
    while following is not None:
        assert len(following.bits) % 8 == 0
        found.append(following.bits.tobytes())
        assert len(following.refs) <= 1
        following = following.refs[0] if following.refs else None
    return found


@pytest.mark.parametrize("tbs", [LEAF, AUTHORITY, PLATFORM.root.certificate.tbs_certificate_bytes])
def test_the_cells_hold_the_certificate(tbs: bytes) -> None:
    found = pieces(certificate_cell(tbs))
    assert b"".join(found) == tbs
    assert max(map(len, found)) <= CELL_BYTES
    assert len(found) <= len(tbs) // CELL_BYTES + 3


@pytest.mark.parametrize("svn", [3, 127, 128, 255])
def test_what_is_read_together_lies_in_one_cell(svn: int) -> None:
    tcb = pki.PlatformTcb(sgx_components=(svn,) * 16, pce_svn=svn * 200)
    tbs = platform_with(PLATFORM, tcb, 1_790_000_000).pck.certificate.tbs_certificate_bytes
    ends = set(itertools.accumulate(len(piece) for piece in pieces(certificate_cell(tbs))))
    together = [bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200"), b"\x17\x0d2"]
    together += [bytes.fromhex("060b2a864886f84d010d0102") + bytes([number]) for number in range(1, 18)]
    together += [bytes.fromhex("060a2a864886f84d010d0104040600")[:-1], bytes.fromhex("0603551d13")]
    for known in together:
        at = tbs.find(known)
        assert at > 0
        length = {0x30: 27 + 32, 0x17: 15}.get(known[0], len(known) + 2)
        assert not ends & set(range(at + 1, at + length)), known.hex()


def test_lengths_must_fit() -> None:
    assert pieces(snake(b"abcd", (1, 3))) == [b"a", b"bcd"]
    with pytest.raises(MalformedError):
        snake(b"abcd", (1, 2))
    with pytest.raises(MalformedError):
        snake(bytes(128), (128,))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_give_cells_or_malformed(data: bytes) -> None:
    try:
        found = pieces(certificate_cell(data))
    except MalformedError:
        return
    assert b"".join(found) == data


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(LEAF) - 1), st.integers(0, 255), st.booleans())
def test_damaged_certificates_give_cells_or_malformed(at: int, value: int, cut: bool) -> None:
    data = LEAF[:at] + bytes([value]) + (b"" if cut else LEAF[at + 1 :])
    try:
        found = pieces(certificate_cell(data))
    except MalformedError:
        return
    assert b"".join(found) == data


def test_a_huge_certificate_is_refused() -> None:
    with pytest.raises(MalformedError):
        certificate_cell(bytes(9000))
