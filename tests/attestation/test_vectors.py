"""The published vectors are what the code makes, and what other code reads from them.

The first test compares every byte. The others take the files as a second implementation would: with
hashlib, `cryptography` and pytoniq_core only, or through the parsers.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pytoniq_core.boc.cell import Cell as OracleCell

from cocoon.v1 import sealed_pb2
from cocoon_attestation.binding import parse_key_binding
from cocoon_attestation.checkpoint import parse_checkpoint
from cocoon_attestation.merkle import verify_consistency, verify_inclusion
from cocoon_attestation.payment import parse_authorization, parse_claim
from cocoon_attestation.receipt import parse_receipt
from cocoon_attestation.sealing import ResponseOpener, SealKeyPair, open_request
from cocoon_attestation.verified import VerifiedEnclave

FOLDER = Path(__file__).parents[1] / "vectors"
FILES = ["binding.json", "log.json", "payment.json", "receipt.json", "sealing.json"]


def load(name: str) -> Any:  # JSON of many shapes
    return json.loads((FOLDER / name).read_text())


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("vector_generator", FOLDER / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_list_of_files(generator: ModuleType) -> None:
    assert sorted(generator.FILES) == FILES


@pytest.mark.parametrize("name", FILES)
def test_code_reproduces_the_vectors(generator: ModuleType, name: str) -> None:
    assert generator.render(name) == (FOLDER / name).read_text()


RECORDS: list[tuple[str, str, Callable[[bytes], Any]]] = [
    ("binding.json", "key_binding", parse_key_binding),
    ("receipt.json", "receipt", parse_receipt),
    ("payment.json", "authorization", parse_authorization),
    ("payment.json", "claim", parse_claim),
    ("log.json", "checkpoint", parse_checkpoint),
]


@pytest.mark.parametrize(("file", "kind", "parse"), RECORDS)
def test_records(file: str, kind: str, parse: Callable[[bytes], Any]) -> None:
    vectors = load(file)[kind]
    assert vectors
    for vector in vectors:
        boc = bytes.fromhex(vector["boc"])
        record_hash = OracleCell.one_from_boc(boc).hash
        assert record_hash.hex() == vector["hash"]
        record = parse(boc)
        for name, value in vector["fields"].items():
            found = getattr(record, name)
            assert str(found.hex() if isinstance(found, bytes) else found) == str(value)
        if "signature" in vector:
            key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(vector["public_key"]))
            key.verify(bytes.fromhex(vector["signature"]), record_hash)


def test_commitments() -> None:
    for vector in load("receipt.json")["commitments"]:
        message = bytes.fromhex(vector["salt"]) + bytes.fromhex(vector["body"])
        for side in ("request", "response"):
            tag = f"cocoon/v1/commit-{side}".encode()
            assert hashlib.sha256(tag + message).hexdigest() == vector[f"{side}_commitment"]


def test_report_data() -> None:
    document = load("binding.json")
    beacon = document["beacon_challenge"]
    message = b"cocoon/v1/beacon" + beacon["seqno"].to_bytes(4, "big") + bytes.fromhex(beacon["root_hash"])
    assert hashlib.sha256(message).hexdigest() == beacon["challenge"]
    for vector in document["gpu_digest"]:
        message = b"cocoon/v1/gpu"
        for item in map(bytes.fromhex, vector["evidence"]):
            message += len(item).to_bytes(4, "big") + item
        expected = hashlib.sha256(message).hexdigest() if vector["evidence"] else "00" * 32
        assert vector["digest"] == expected
    for vector in document["report_data"]:
        message = bytes.fromhex(vector["binding_hash"] + vector["gpu_digest"])
        head = hashlib.sha256(b"cocoon/v1/report-data" + message).hexdigest()
        assert vector["report_data"] == head + vector["challenge"]


def test_amounts() -> None:
    for vector in load("payment.json")["amount"]:
        price = {name: int(value) for name, value in vector["prices"].items()}
        computed = vector["prompt_tokens"] - vector["cached_tokens"]
        total = computed * price["prompt"] + vector["cached_tokens"] * price["cached"]
        total += vector["completion_tokens"] * price["completion"]
        assert int(vector["amount"]) == (total + 999_999) // 1_000_000


def test_log() -> None:
    document = load("log.json")
    leaves, roots = (list(map(bytes.fromhex, document[name])) for name in ("leaves", "roots"))
    for vector in document["inclusion"]:
        verify_inclusion(
            leaf=leaves[vector["index"]],
            index=vector["index"],
            size=vector["size"],
            proof=[bytes.fromhex(item) for item in vector["proof"]],
            root=roots[vector["size"]],
        )
    for vector in document["consistency"]:
        verify_consistency(
            first_size=vector["first"],
            first_root=roots[vector["first"]],
            second_size=vector["second"],
            second_root=roots[vector["second"]],
            proof=[bytes.fromhex(item) for item in vector["proof"]],
        )


def hkdf(dek: bytes, salt: bytes | None, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=44, salt=salt, info=info).derive(dek)


def test_sealed_request_by_hand() -> None:
    vector = {
        name: bytes.fromhex(text) for name, text in load("sealing.json").items() if isinstance(text, str)
    }
    assert hkdf(vector["dek"], None, b"cocoon/v1/request-body") == vector["body_key"] + vector["body_nonce"]
    padded = AESGCM(vector["body_key"]).decrypt(vector["body_nonce"], vector["ciphertext"], None)
    assert padded == vector["padded_request"]
    assert len(padded) == 1024
    length = int.from_bytes(padded[:4], "big")
    assert padded[4 : 4 + length] == vector["plain_request"]
    assert not any(padded[4 + length :])
    message = sealed_pb2.SealedRequest.FromString(vector["sealed_request"])
    assert message.ciphertext == vector["ciphertext"]
    assert message.recipients[0].key_id == vector["key_id"]
    opened = open_request([SealKeyPair(vector["seal_key_seed"])], vector["sealed_request"])
    assert opened.plain == vector["plain_request"]


def test_sealed_response_by_hand(issue_enclave: Callable[..., VerifiedEnclave]) -> None:
    document = load("sealing.json")
    vector = {name: bytes.fromhex(text) for name, text in document.items() if isinstance(text, str)}
    sealed_hash = hashlib.sha256(vector["sealed_request"]).digest()
    info = b"cocoon/v1/response" + vector["key_id"] + sealed_hash
    keys = vector["response_key"] + vector["response_base_nonce"]
    assert hkdf(vector["dek"], vector["response_salt"], info) == keys
    recipient = issue_enclave(SealKeyPair(vector["seal_key_seed"]))
    opener = ResponseOpener(dek=vector["dek"], recipients=[recipient], sealed_hash=sealed_hash)
    for position, frame in enumerate(document["frames"]):
        data, plain = bytes.fromhex(frame["frame"]), bytes.fromhex(frame["plain"])
        assert getattr(opener, frame["type"])(data) == plain
        if position == 0:
            assert data[:32] == vector["response_salt"]
            data = data[32:]
        nonce = (int.from_bytes(keys[32:], "big") ^ position).to_bytes(12, "big")
        kind = {"head": 1, "data": 2, "final": 3}[frame["type"]]
        padded = AESGCM(keys[:32]).decrypt(nonce, data, bytes([kind]) + position.to_bytes(8, "big"))
        assert padded == (len(plain).to_bytes(4, "big") + plain).ljust(len(padded), b"\x00")
    assert opener.finished
