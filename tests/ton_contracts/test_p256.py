"""The x-only P-256 check: prover, Python model and TVM agree on the vectors, and only valid signatures pass."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from dataclasses import fields, replace
from pathlib import Path
from types import ModuleType

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    Prehashed,
    decode_dss_signature,
    encode_dss_signature,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from pytoniq_core import Address

from cocoon_attestation.errors import MalformedError
from cocoon_ton.code import pck_code
from cocoon_ton.emulator import Emulator, TestChain
from cocoon_ton.errors import UnprovableError
from cocoon_ton.p256 import (
    FIELD,
    FIRST_DIGEST,
    ORDER,
    SECOND_DIGEST,
    SignatureHint,
    accepts,
    add,
    decompress,
    is_signed,
    make_hint,
    multiply,
)
from cocoon_ton.pck import PckIdentity

FOLDER = Path(__file__).parents[1] / "vectors"
VECTORS = json.loads((FOLDER / "p256.json").read_text(encoding="utf-8"))
PRIVATE = ec.derive_private_key(0x1234567, ec.SECP256R1())
NUMBERS = PRIVATE.public_key().public_numbers()
PUBLIC = NUMBERS.x.to_bytes(32) + NUMBERS.y.to_bytes(32)


def hint_of(vector: dict[str, object]) -> SignatureHint:
    given_hint = vector["hint"]
    assert isinstance(given_hint, dict)
    values = {name: int(text, 16) for name, text in given_hint.items() if name != "point"}
    return SignatureHint(**values, point=bytes.fromhex(given_hint["point"]))


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_p256", FOLDER / "generate_p256.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def signed(message: bytes) -> tuple[bytes, bytes]:
    """Digest and raw signature by `PRIVATE`."""
    digest = hashlib.sha256(message).digest()
    der = PRIVATE.sign(digest, ec.ECDSA(Prehashed(hashes.SHA256())))
    r, s = decode_dss_signature(der)
    return digest, r.to_bytes(32) + s.to_bytes(32)


@pytest.fixture(scope="module")
def contract(emulator: Emulator) -> tuple[TestChain, Address]:
    """A contract that answers `checkedSignature`; nothing else about it matters."""
    chain = TestChain(emulator=emulator)
    identity = PckIdentity(anchor=bytes(32), leaf_hash=bytes(32))
    chain.add_account(identity.address, 10**9, code=pck_code().cell, data=identity.initial_data)
    return chain, identity.address


def on_tvm(contract: tuple[TestChain, Address], digest: bytes, key_x: int, hint: SignatureHint) -> int:
    """Exit code of the contract's check; 0 if it accepts."""
    chain, address = contract
    arguments = (int.from_bytes(digest), key_x, hint.cell)
    return chain.run_getter(address, "checkedSignature", arguments).exit_code


def test_the_file_is_what_the_generator_makes() -> None:
    assert generator().render() == (FOLDER / "p256.json").read_text(encoding="utf-8")


def test_the_constants_are_the_digests_of_one_byte() -> None:
    assert hashlib.sha256(b"\x00").digest() == FIRST_DIGEST.to_bytes(32)
    assert hashlib.sha256(b"\x01").digest() == SECOND_DIGEST.to_bytes(32)
    text = (Path(__file__).parents[2] / "ton_contracts/contracts/lib/ecdsa.tolk").read_text("utf-8")
    for value in (FIRST_DIGEST, SECOND_DIGEST, ORDER):
        assert f'"{value} PUSHINT"' in text


@pytest.mark.parametrize("vector", VECTORS, ids=[str(vector["name"]) for vector in VECTORS])
def test_python_and_tvm_say_what_the_vector_says(
    contract: tuple[TestChain, Address], vector: dict[str, object]
) -> None:
    digest, key_x = bytes.fromhex(str(vector["digest"])), int(str(vector["key_x"]), 16)
    hint = hint_of(vector)
    assert accepts(digest, key_x, hint) == (vector["exit_code"] == 0)
    assert on_tvm(contract, digest, key_x, hint) == vector["exit_code"]


def test_there_are_vectors_of_every_kind() -> None:
    assert {vector["exit_code"] for vector in VECTORS} == {0, 500, 501, 502}


def test_what_is_accepted_is_valid_for_another_library() -> None:
    """The vectors that are accepted are signatures by the key with that x, or by its negative."""
    checked = 0
    for vector in VECTORS:
        if vector["exit_code"]:
            continue
        hint, digest = hint_of(vector), bytes.fromhex(vector["digest"])
        point = decompress(b"\x02" + hint.key_x.to_bytes(32))
        assert point is not None
        verdicts = []
        for y in (point[1], FIELD - point[1]):
            key = ec.EllipticCurvePublicNumbers(point[0], y, ec.SECP256R1()).public_key()
            der = encode_dss_signature(hint.r, hint.s)
            try:
                key.verify(der, digest, ec.ECDSA(Prehashed(hashes.SHA256())))
                verdicts.append(True)
            except Exception:  # InvalidSignature
                verdicts.append(False)
        assert sorted(verdicts) == [False, True]
        checked += 1
    assert checked >= 9


@settings(max_examples=10, deadline=None)
@given(st.binary(max_size=100))
def test_every_signature_has_a_hint(message: bytes) -> None:
    digest, signature = signed(message)
    hint = make_hint(digest, signature, PUBLIC)
    assert accepts(digest, NUMBERS.x, hint)


def test_every_signature_passes_on_tvm(contract: tuple[TestChain, Address]) -> None:
    for index in range(4):
        digest, signature = signed(b"%d" % index)
        assert on_tvm(contract, digest, NUMBERS.x, make_hint(digest, signature, PUBLIC)) == 0


def test_every_flipped_bit_is_refused(contract: tuple[TestChain, Address]) -> None:
    """Densely sampled; TVM and the Python model agree on each."""
    digest, signature = signed(b"flip")
    hint = make_hint(digest, signature, PUBLIC)
    for bit in range(0, 256, 13):
        mask = 1 << bit
        mutants = [
            (digest, replace(hint, **{field.name: getattr(hint, field.name) ^ mask}))
            for field in fields(hint)
            if field.name != "point"
        ]
        point = (int.from_bytes(hint.point) ^ 1 << (bit * 264 // 256)).to_bytes(33)
        mutants.append((digest, replace(hint, point=point)))
        mutants.append(((int.from_bytes(digest) ^ mask).to_bytes(32), hint))
        for changed_digest, changed in mutants:
            assert not accepts(changed_digest, NUMBERS.x, changed)
            assert on_tvm(contract, changed_digest, NUMBERS.x, changed) not in (0, 1)
    assert on_tvm(contract, digest, NUMBERS.x, hint) == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(1, ORDER - 1), st.integers(1, ORDER - 1))
def test_sigma_and_v_are_determined_by_the_relations(sigma: int, v: int) -> None:
    digest, signature = signed(b"one")
    hint = make_hint(digest, signature, PUBLIC)
    assert accepts(digest, NUMBERS.x, replace(hint, sigma=sigma, v=v)) == (
        (sigma, v) == (hint.sigma, hint.v)
    )


def test_a_signature_on_another_digest_has_no_hint() -> None:
    digest, signature = signed(b"one")
    with pytest.raises(UnprovableError):
        make_hint(hashlib.sha256(b"two").digest(), signature, PUBLIC)
    with pytest.raises(UnprovableError):
        make_hint(digest, signature, PUBLIC[:32] + (FIELD - NUMBERS.y).to_bytes(32))
    with pytest.raises(UnprovableError):
        make_hint(digest, signature, PUBLIC[:63] + b"\x00")
    with pytest.raises(UnprovableError):
        make_hint(digest, bytes(64), PUBLIC)
    with pytest.raises(MalformedError):
        make_hint(digest, signature[:63], PUBLIC)


def test_a_digest_of_zero_has_no_hint() -> None:
    """e = 0 is a valid digest for ECDSA; its sigma does not exist. Nobody finds a message with it."""
    r = multiply(7, (NUMBERS.x, NUMBERS.y))
    assert r is not None
    s = r[0] * pow(7, -1, ORDER) % ORDER
    assert is_signed(0, r[0] % ORDER, s, (NUMBERS.x, NUMBERS.y))
    with pytest.raises(UnprovableError):
        make_hint(bytes(32), (r[0] % ORDER).to_bytes(32) + s.to_bytes(32), PUBLIC)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, ORDER + 5), st.integers(0, ORDER + 5))
def test_the_group_law_is_that_of_the_library(a: int, b: int) -> None:
    generator_point = multiply(1, (NUMBERS.x, NUMBERS.y))
    left = add(multiply(a, generator_point), multiply(b, generator_point))
    assert left == multiply(a + b, generator_point)
    secret = a % ORDER or 1
    numbers = ec.derive_private_key(secret, ec.SECP256R1()).public_key().public_numbers()
    base = ec.derive_private_key(1, ec.SECP256R1()).public_key().public_numbers()
    assert multiply(secret, (base.x, base.y)) == (numbers.x, numbers.y)


def test_points_that_are_none() -> None:
    assert decompress(b"\x02" + bytes(32)) is not None  # x = 0 is on the curve
    assert decompress(b"\x04" + bytes(32)) is None
    assert decompress(b"\x02" + bytes(31)) is None
    assert decompress(b"\x02" + FIELD.to_bytes(32)) is None
    assert decompress(b"\x03" + (1).to_bytes(32)) is None  # not on the curve
    assert add((NUMBERS.x, NUMBERS.y), (NUMBERS.x, FIELD - NUMBERS.y)) is None
    assert multiply(ORDER, (NUMBERS.x, NUMBERS.y)) is None
