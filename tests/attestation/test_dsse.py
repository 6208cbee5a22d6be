"""DSSE envelopes: the published encoding, several signers, and nothing that is not signed decides."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from cocoon_attestation import dsse
from cocoon_attestation.errors import ConfigError, MalformedError

TYPE = "http://example.com/HelloWorld"
BODY = b"hello world"
KEYS = [Ed25519PrivateKey.from_private_bytes(bytes((number,)) * 32) for number in (1, 2, 3)]
PUBLIC = [key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw) for key in KEYS]

SIGNATURE = (
    "36b93c69ff970e9a48974789f3eabffa267306b7dc9cee0948e1e3ece522bfa3"
    "dc86a16a673d9066c1d8ca63ca546241e61979d97feace878e49c3c90617550e"
)


def document() -> dict[str, Any]:
    parsed = json.loads(dsse.sign_envelope(TYPE, BODY, KEYS[:2]))
    assert isinstance(parsed, dict)
    return parsed


def encoded(value: object) -> bytes:
    return json.dumps(value).encode()


def test_pre_authentication_encoding_is_the_published_one() -> None:
    # The example of the DSSE protocol description.
    assert dsse.pae(TYPE, BODY) == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    assert dsse.pae("", b"") == b"DSSEv1 0  0 "
    assert dsse.pae("é", b"\x00") == b"DSSEv1 2 \xc3\xa9 1 \x00"


def test_known_signature() -> None:
    # Ed25519 is deterministic: seed 01…01, message as above. Any other implementation must agree.
    envelope = dsse.parse_envelope(dsse.sign_envelope(TYPE, BODY, KEYS[:1]))
    assert envelope.payload == BODY
    assert envelope.signatures[0].key_id == (
        "34750f98bd59fcfc946da45aaabe933be154a4b5094e1c4abf42866505f3c97e"
    )
    KEYS[0].public_key().verify(
        envelope.signatures[0].signature, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert envelope.signatures[0].signature.hex() == SIGNATURE


def test_signers_are_those_who_signed() -> None:
    envelope = dsse.parse_envelope(dsse.sign_envelope(TYPE, BODY, KEYS[:2]))
    assert dsse.signers(envelope, PUBLIC) == {PUBLIC[0], PUBLIC[1]}
    assert dsse.signers(envelope, PUBLIC[2:]) == frozenset()
    assert dsse.signers(envelope, []) == frozenset()


def test_key_id_is_only_a_hint() -> None:
    changed = document()
    for one in changed["signatures"]:
        one["keyid"] = dsse.key_id(PUBLIC[2])
    envelope = dsse.parse_envelope(encoded(changed))
    assert dsse.signers(envelope, PUBLIC) == {PUBLIC[0], PUBLIC[1]}
    del changed["signatures"][0]["keyid"]
    assert dsse.parse_envelope(encoded(changed)).signatures[0].key_id == ""


def test_one_key_that_signs_twice_counts_once() -> None:
    changed = document()
    changed["signatures"] = [changed["signatures"][0]] * 2
    assert dsse.signers(dsse.parse_envelope(encoded(changed)), PUBLIC) == {PUBLIC[0]}


@pytest.mark.parametrize("member", ["payload", "payloadType"])
def test_signature_covers_payload_and_type(member: str) -> None:
    changed = document()
    changed[member] = {"payload": base64.b64encode(b"hello worle").decode(), "payloadType": TYPE + "d"}[
        member
    ]
    assert dsse.signers(dsse.parse_envelope(encoded(changed)), PUBLIC) == frozenset()


def test_url_safe_base64_is_read_too() -> None:
    key, body = KEYS[0], bytes(range(200, 256))
    changed = json.loads(dsse.sign_envelope(TYPE, body, [key]))
    changed["payload"] = base64.urlsafe_b64encode(body).decode()
    changed["signatures"][0]["sig"] = base64.urlsafe_b64encode(
        base64.b64decode(changed["signatures"][0]["sig"])
    ).decode()
    assert dsse.signers(dsse.parse_envelope(encoded(changed)), PUBLIC) == {PUBLIC[0]}


def test_signatures_made_apart_can_be_joined() -> None:
    first, second = (dsse.parse_envelope(dsse.sign_envelope(TYPE, BODY, [key])) for key in KEYS[:2])
    joined = dsse.join_signatures([first, second, first])
    assert len(joined.signatures) == 2
    assert dsse.signers(dsse.parse_envelope(dsse.encode_envelope(joined)), PUBLIC) == set(PUBLIC[:2])


def test_only_signatures_of_the_same_bytes_can_be_joined() -> None:
    first = dsse.parse_envelope(dsse.sign_envelope(TYPE, BODY, KEYS[:1]))
    for kind, body in ((TYPE, b"other"), ("other", BODY)):
        second = dsse.parse_envelope(dsse.sign_envelope(kind, body, KEYS[1:2]))
        with pytest.raises(MalformedError):
            dsse.join_signatures([first, second])
    with pytest.raises(MalformedError):
        dsse.join_signatures([])


def test_too_many_signatures_are_not_joined() -> None:
    keys = [Ed25519PrivateKey.from_private_bytes(bytes((number,)) * 32) for number in range(1, 18)]
    parts = [dsse.parse_envelope(dsse.sign_envelope(TYPE, BODY, [key])) for key in keys]
    with pytest.raises(MalformedError, match="at most 16"):
        dsse.join_signatures(parts)


@pytest.mark.parametrize("keys", [[], [KEYS[0], KEYS[0]], KEYS * 6])
def test_signing_needs_different_keys(keys: list[Ed25519PrivateKey]) -> None:
    with pytest.raises(ConfigError):
        dsse.sign_envelope(TYPE, BODY, keys)


def test_key_that_is_no_point_signs_nothing() -> None:
    envelope = dsse.parse_envelope(dsse.sign_envelope(TYPE, BODY, KEYS[:1]))
    assert dsse.signers(envelope, [b"\xff" * 32, b"short"]) == frozenset()
    with pytest.raises(MalformedError):
        dsse.key_id(b"short")


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1},
        {"payload": 1},
        {"payload": "*"},
        {"payload": "QQ"},
        {"payload": "QQ==\n"},
        {"payloadType": ""},
        {"payloadType": "é"},
        {"payloadType": "x" * 129},
        {"payloadType": 7},
        {"signatures": {}},
        {"signatures": []},
        {"signatures": ["x"]},
        {"signatures": [{"keyid": "x"}]},
        {"signatures": [{"sig": "QQ==", "keyid": "x"}]},
        {"signatures": [{"sig": 5}]},
    ],
)
def test_envelope_of_another_form_is_malformed(change: dict[str, object]) -> None:
    with pytest.raises(MalformedError):
        dsse.parse_envelope(encoded({**document(), **change}))


@pytest.mark.parametrize("change", [{"keyid": "é"}, {"keyid": "x" * 129}, {"keyid": 1}, {"cert": "x"}])
def test_signature_of_another_form_is_malformed(change: dict[str, object]) -> None:
    changed = document()
    changed["signatures"][0] |= change
    with pytest.raises(MalformedError):
        dsse.parse_envelope(encoded(changed))


@pytest.mark.parametrize("member", ["payload", "payloadType", "signatures"])
def test_every_member_is_needed(member: str) -> None:
    changed = document()
    del changed[member]
    with pytest.raises(MalformedError):
        dsse.parse_envelope(encoded(changed))


def test_seventeen_signatures_and_long_envelopes_are_malformed() -> None:
    changed = document()
    changed["signatures"] = [changed["signatures"][0]] * 17
    with pytest.raises(MalformedError):
        dsse.parse_envelope(encoded(changed))
    with pytest.raises(MalformedError, match="at most"):
        dsse.parse_envelope(b" " * (dsse.MAX_ENVELOPE + 1))


@pytest.mark.parametrize(
    "text",
    [
        '{"payload":"QQ==","payload":"QQ=="}',
        '{"payload":NaN}',
        "[]",
        "7",
        "",
        "{",
        "[" * 100_000,
        '{"a":' + "9" * 5000 + "}",
    ],
)
def test_bad_json_is_malformed(text: str) -> None:
    with pytest.raises(MalformedError):
        dsse.parse_envelope(text.encode())


@given(st.binary(max_size=300))
def test_any_bytes_are_malformed_or_parse(data: bytes) -> None:
    with pytest.raises(MalformedError):
        dsse.parse_envelope(data)


@given(st.integers(min_value=0), st.integers(min_value=0, max_value=7))
def test_a_flipped_bit_never_adds_a_signer(position: int, bit: int) -> None:
    data = bytearray(dsse.sign_envelope(TYPE, BODY, KEYS[:2]))
    data[position % len(data)] ^= 1 << bit
    try:
        envelope = dsse.parse_envelope(bytes(data))
    except MalformedError:
        return
    found = dsse.signers(envelope, PUBLIC)
    assert found <= set(PUBLIC[:2])
    if (envelope.payload, envelope.payload_type) != (BODY, TYPE):
        assert not found


@given(st.text(max_size=40), st.binary(max_size=60), st.text(max_size=40), st.binary(max_size=60))
def test_encoding_keeps_type_and_payload_apart(
    kind: str, body: bytes, other_kind: str, other_body: bytes
) -> None:
    same = (kind, body) == (other_kind, other_body)
    assert (dsse.pae(kind, body) == dsse.pae(other_kind, other_body)) is same
