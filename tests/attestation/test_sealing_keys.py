"""Seal keys: derivation, HPKE, secrecy of the private half."""

from __future__ import annotations

import copy
import hashlib
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cocoon_attestation.errors import MalformedError, SealingError
from cocoon_attestation.sealing import (
    SEAL_PUBLIC_KEY_SIZE,
    SealKeyPair,
    check_seal_public_key,
    generate_seal_keypair,
)
from cocoon_attestation.sealing.keys import WRAPPED_KEY_SIZE, wrap

XWING_SEED = "7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26"


def test_seed_expansion_is_that_of_xwing() -> None:
    """First and last bytes of the public key in the first test vector of draft-connolly-cfrg-xwing-kem."""
    key = SealKeyPair(bytes.fromhex(XWING_SEED))
    assert key.public_key[:32].hex() == "e2236b35a8c24b39b10aa1323a96a919a2ced88400633a7b07131713fc14b2b5"
    assert key.public_key[-16:].hex() == "23593d4ba32d9abac8cd049040ef6534"
    assert len(key.public_key) == SEAL_PUBLIC_KEY_SIZE
    assert key.key_id == hashlib.sha256(key.public_key).digest()


def test_generation_uses_the_given_randomness() -> None:
    assert generate_seal_keypair(lambda n: b"\x01" * n).key_id == SealKeyPair(b"\x01" * 32).key_id
    assert generate_seal_keypair().key_id != generate_seal_keypair().key_id
    with pytest.raises(MalformedError):
        SealKeyPair(b"short")


def test_wrap_and_unwrap() -> None:
    key = SealKeyPair(b"\x01" * 32)
    wrapped = wrap(key.public_key, b"d" * 32, b"info")
    assert len(wrapped) == WRAPPED_KEY_SIZE
    assert key.unwrap(wrapped, b"info") == b"d" * 32
    assert wrap(key.public_key, b"d" * 32, b"info") != wrapped
    with pytest.raises(SealingError):
        key.unwrap(wrapped, b"other")
    with pytest.raises(SealingError):
        SealKeyPair(b"\x02" * 32).unwrap(wrapped, b"info")


@settings(max_examples=50)
@given(st.integers(0, WRAPPED_KEY_SIZE - 1), st.integers(1, 255))
def test_every_changed_byte_of_a_wrapped_key_is_refused(position: int, mask: int) -> None:
    key = SealKeyPair(b"\x01" * 32)
    wrapped = bytearray(wrap(key.public_key, b"d" * 32, b""))
    wrapped[position] ^= mask
    with pytest.raises(SealingError):
        key.unwrap(bytes(wrapped), b"")


@given(st.binary(max_size=64) | st.binary(min_size=WRAPPED_KEY_SIZE, max_size=WRAPPED_KEY_SIZE))
def test_arbitrary_wrapped_keys_are_refused(wrapped: bytes) -> None:
    with pytest.raises(SealingError):
        SealKeyPair(b"\x01" * 32).unwrap(wrapped, b"")


GOOD = SealKeyPair(b"\x01" * 32).public_key


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(b"", id="empty"),
        pytest.param(GOOD[:-1], id="short"),
        pytest.param(GOOD + b"\x00", id="long"),
        pytest.param(b"\xff" * 1184 + GOOD[1184:], id="ML-KEM coefficients out of range"),
        pytest.param(GOOD[:1184] + bytes(32), id="X25519 point of small order"),
        pytest.param(GOOD[:1184] + b"\x01" + bytes(31), id="X25519 point one"),
    ],
)
def test_bad_public_keys_are_malformed(key: bytes) -> None:
    with pytest.raises(MalformedError):
        check_seal_public_key(key)


def test_good_public_key() -> None:
    check_seal_public_key(GOOD)


def test_private_half_does_not_leak() -> None:
    key = SealKeyPair(b"\x01" * 32)
    assert repr(key) == f"SealKeyPair(key_id={key.key_id.hex()})"
    with pytest.raises(TypeError):
        pickle.dumps(key)
    with pytest.raises(TypeError):
        copy.copy(key)
    assert not hasattr(key, "__dict__")
