"""Sealed requests: round trip, structure, tampering, recipients."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cocoon.v1 import sealed_pb2
from cocoon_attestation.errors import EvidenceRejectedError, MalformedError, SealingError
from cocoon_attestation.sealing import (
    MAX_REQUEST,
    MAX_SEALED_REQUEST,
    SealKeyPair,
    open_request,
    recipient_key_ids,
    seal_request,
)
from cocoon_attestation.sealing.keys import wrap
from cocoon_attestation.verified import VerifiedEnclave

NOW = 1_800_000_000
KEYS = [SealKeyPair(bytes([number]) * 32) for number in range(1, 5)]
IssueEnclave = Callable[..., VerifiedEnclave]
Enclaves = Callable[[int], list[VerifiedEnclave]]


@pytest.fixture(scope="module")
def enclaves(issue_enclave: IssueEnclave) -> Enclaves:
    made = [issue_enclave(key, now=NOW) for key in KEYS]
    return lambda count: made[:count]


@settings(max_examples=40)
@given(plain=st.binary(max_size=5000), count=st.integers(1, 3), opener=st.integers(0, 2))
def test_round_trip(enclaves: Enclaves, plain: bytes, count: int, opener: int) -> None:
    sealed, _ = seal_request(enclaves(count), plain, now=NOW)
    opened = open_request([KEYS[opener % count]], sealed)
    assert opened.plain == plain
    assert opened.key_id == KEYS[opener % count].key_id
    assert recipient_key_ids(sealed) == tuple(key.key_id for key in KEYS[:count])


def test_current_and_previous_key(enclaves: Enclaves) -> None:
    sealed, _ = seal_request(enclaves(1), b"x", now=NOW)
    assert open_request([KEYS[3], KEYS[0]], sealed).key_id == KEYS[0].key_id


def test_nobody_else_can_open(enclaves: Enclaves) -> None:
    sealed, _ = seal_request(enclaves(2), b"x", now=NOW)
    with pytest.raises(SealingError):
        open_request([KEYS[2], KEYS[3]], sealed)
    with pytest.raises(SealingError):
        open_request([], sealed)


def test_length_shows_only_the_size_class(enclaves: Enclaves) -> None:
    lengths = {len(seal_request(enclaves(1), b"x" * n, now=NOW)[0]) for n in range(0, 1021, 60)}
    assert len(lengths) == 1


def test_every_request_has_its_own_key(enclaves: Enclaves) -> None:
    first, second = (
        sealed_pb2.SealedRequest.FromString(seal_request(enclaves(1), b"x", now=NOW)[0]) for _ in range(2)
    )
    assert first.ciphertext != second.ciphertext


@settings(max_examples=80)
@given(data=st.data())
def test_a_changed_byte_never_opens_to_something_else(enclaves: Enclaves, data: st.DataObject) -> None:
    sealed = bytearray(seal_request(enclaves(2), b"plain", now=NOW)[0])
    position = data.draw(st.integers(0, len(sealed) - 1) | st.integers(0, 40))
    sealed[position] ^= data.draw(st.integers(1, 255))
    try:
        opened = open_request([KEYS[0]], bytes(sealed))
    except (MalformedError, SealingError):
        return
    assert opened.plain == b"plain"  # the change hit the other recipient's part


@settings(max_examples=60)
@given(data=st.binary(max_size=400))
def test_arbitrary_bytes_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        open_request(KEYS, data)
    with pytest.raises(MalformedError):
        recipient_key_ids(data)


def message(enclaves: Enclaves, count: int = 1) -> sealed_pb2.SealedRequest:
    return sealed_pb2.SealedRequest.FromString(seal_request(enclaves(count), b"plain", now=NOW)[0])


def test_wrapped_key_does_not_fit_another_ciphertext(enclaves: Enclaves) -> None:
    first, second = message(enclaves), message(enclaves)
    first.ciphertext = second.ciphertext
    with pytest.raises(SealingError):
        open_request(KEYS, first.SerializeToString())


def test_wrapped_key_does_not_fit_another_key_id(enclaves: Enclaves) -> None:
    changed = message(enclaves)
    changed.recipients[0].key_id = KEYS[1].key_id
    with pytest.raises(SealingError):
        open_request(KEYS, changed.SerializeToString())


@pytest.mark.parametrize(
    "fault", ["none", "four", "twice", "short id", "short key", "long key", "short text"]
)
def test_structural_faults_are_malformed(enclaves: Enclaves, fault: str) -> None:
    changed = message(enclaves)
    recipient = changed.recipients[0]
    match fault:
        case "none":
            del changed.recipients[:]
        case "four":
            for number in range(3):
                changed.recipients.add(key_id=bytes([number]) * 32, wrapped_key=recipient.wrapped_key)
        case "twice":
            changed.recipients.add(key_id=recipient.key_id, wrapped_key=recipient.wrapped_key)
        case "short id":
            recipient.key_id = recipient.key_id[:-1]
        case "short key":
            recipient.wrapped_key = recipient.wrapped_key[:-1]
        case "long key":
            recipient.wrapped_key += b"\x00"
        case "short text":
            changed.ciphertext = changed.ciphertext[:1039]
    with pytest.raises(MalformedError):
        open_request(KEYS, changed.SerializeToString())


def test_limits(enclaves: Enclaves) -> None:
    sealed, _ = seal_request(enclaves(3), bytes(MAX_REQUEST), now=NOW)
    assert len(sealed) <= MAX_SEALED_REQUEST
    assert len(open_request(KEYS, sealed).plain) == MAX_REQUEST
    with pytest.raises(MalformedError):
        seal_request(enclaves(1), bytes(MAX_REQUEST + 1), now=NOW)
    with pytest.raises(MalformedError):
        open_request(KEYS, bytes(MAX_SEALED_REQUEST + 1))


def test_number_of_recipients(enclaves: Enclaves) -> None:
    with pytest.raises(MalformedError):
        seal_request([], b"x", now=NOW)
    with pytest.raises(MalformedError):
        seal_request(enclaves(4), b"x", now=NOW)
    with pytest.raises(MalformedError):
        seal_request(enclaves(1) * 2, b"x", now=NOW)


@pytest.mark.parametrize("now", [NOW - 1, NOW + 600, NOW + 100_000, 0])
def test_an_appraisal_outside_its_time_is_refused(enclaves: Enclaves, now: int) -> None:
    with pytest.raises(EvidenceRejectedError):
        seal_request(enclaves(1), b"x", now=now)
    seal_request(enclaves(1), b"x", now=NOW + 599)


def test_one_expired_recipient_spoils_the_request(issue_enclave: IssueEnclave, enclaves: Enclaves) -> None:
    expired = issue_enclave(KEYS[1], now=NOW - 1000, expires_at=NOW)
    with pytest.raises(EvidenceRejectedError):
        seal_request([*enclaves(1), expired], b"x", now=NOW)


def test_plaintext_has_no_repr(enclaves: Enclaves) -> None:
    sealed, opener = seal_request(enclaves(1), b"canary-text", now=NOW, random=lambda n: b"\xab" * n)
    opened = open_request(KEYS, sealed)
    for value in (opened, opener, opened.response_sealer):
        assert "canary" not in repr(value)
        assert "ab" * 8 not in repr(value)
        assert "\\xab" not in repr(value)


@pytest.mark.parametrize("dek", [b"", b"d" * 31, b"d" * 33, b"d" * 32])
def test_a_client_that_wraps_another_key_gets_the_same_error(dek: bytes) -> None:
    """Wrapped for this very ciphertext, but not the key that made it, or no key at all."""
    ciphertext = bytes(1024 + 16)
    info = b"cocoon/v1/request" + KEYS[0].key_id + hashlib.sha256(ciphertext).digest()
    forged = sealed_pb2.SealedRequest(ciphertext=ciphertext)
    forged.recipients.add(key_id=KEYS[0].key_id, wrapped_key=wrap(KEYS[0].public_key, dek, info))
    with pytest.raises((SealingError, MalformedError)) as caught:
        open_request(KEYS, forged.SerializeToString())
    assert isinstance(caught.value, SealingError) == (len(dek) == 32)


def test_opener_knows_its_request(enclaves: Enclaves) -> None:
    sealed, opener = seal_request(enclaves(1), b"x", now=NOW)
    assert opener.sealed_hash == hashlib.sha256(sealed).digest()
