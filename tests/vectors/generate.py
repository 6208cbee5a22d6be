"""Writes the byte-exact test vectors of docs/spec: ``python tests/vectors/generate.py``.

Every byte is fixed but one thing: HPKE draws its own randomness, so a recorded sealed request is kept as
long as it still opens. ``test_vectors.py`` proves that the files are what this code makes; other
implementations read the files only. Byte strings are lower-case hex, amounts and prices decimal text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cocoon.v1 import sealed_pb2
from cocoon_attestation.binding import KeyBinding, beacon_challenge, gpu_digest, gpu_nonce, report_data
from cocoon_attestation.checkpoint import Checkpoint, sign_checkpoint
from cocoon_attestation.errors import CocoonError
from cocoon_attestation.merkle import MerkleTree, leaf_hash
from cocoon_attestation.payment import (
    Authorization,
    Claim,
    PriceList,
    TokenUsage,
    amount,
    sign_authorization,
    sign_claim,
)
from cocoon_attestation.receipt import Receipt, commit_request, commit_response, sign_receipt
from cocoon_attestation.sealing import SealKeyPair, open_request
from cocoon_attestation.sealing.keys import wrap
from cocoon_attestation.sealing.padding import (
    MAX_REQUEST,
    data_class,
    final_class,
    head_class,
    pad,
    request_class,
)
from cocoon_attestation.sealing.response import derive_key_and_nonce

FOLDER: Final = Path(__file__).parent
Document = dict[str, object]

RECEIPT_SEED: Final = b"\x11" * 32
CLIENT_SEED: Final = b"\x12" * 32
SEAL_SEED: Final = b"\x13" * 32
RECEIPT_KEY: Final = Ed25519PrivateKey.from_private_bytes(RECEIPT_SEED)
CLIENT_KEY: Final = Ed25519PrivateKey.from_private_bytes(CLIENT_SEED)
SALT: Final = bytes(range(32))
NODE: Final = b"\xa1" * 32
CHANNEL: Final = b"\xa2" * 32
MODEL: Final = b"\xa3" * 32
REQUEST_BODY: Final = b'{"model":"m","messages":[{"role":"user","content":"hello"}]}'
RESPONSE_BODY: Final = b'{"choices":[{"message":{"content":"hi"}}]}'


def h(text: str) -> bytes:
    """A recognisable 32-byte value."""
    return hashlib.sha256(text.encode()).digest()


def sample_binding() -> KeyBinding:
    """The binding that the other vectors refer to."""
    return KeyBinding(
        node=NODE,
        seal_key_hash=SealKeyPair(SEAL_SEED).key_id,
        receipt_key=RECEIPT_KEY.public_key().public_bytes_raw(),
        tls_spki_hash=h("tls"),
        config_hash=h("config"),
        release_id=h("release"),
        not_before=1_800_000_000,
        not_after=1_800_086_400,
        global_id=-239,
    )


def fields(value: KeyBinding | Receipt | Checkpoint | Authorization | Claim) -> Document:
    """The fields of a record as JSON values."""
    amounts = ("amount", "cumulative", "cap", "used", "index", "tree_size")
    result: Document = {}
    for name in type(value).__dataclass_fields__:
        item = getattr(value, name)
        result[name] = item.hex() if isinstance(item, bytes) else str(item) if name in amounts else item
    return result


def record(
    value: KeyBinding | Receipt | Checkpoint | Authorization | Claim,
    signature: bytes | None = None,
    seed: bytes | None = None,
) -> Document:
    """A record with its encodings."""
    vector: Document = {"fields": fields(value), "boc": value.to_boc().hex(), "hash": value.hash.hex()}
    if signature is not None and seed is not None:
        public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
        vector |= {"key_seed": seed.hex(), "public_key": public.hex(), "signature": signature.hex()}
    return vector


def binding() -> Document:
    """Key binding, report data, challenges."""
    value = sample_binding()
    private = KeyBinding(
        **{name: getattr(value, name) for name in KeyBinding.__dataclass_fields__} | {"global_id": 1234567}
    )
    challenge = beacon_challenge(7_654_321, h("block"))
    devices = [b"", b"first device", b"second device"]
    digest = gpu_digest(devices)
    return {
        "key_binding": [record(value), record(private)],
        "beacon_challenge": {
            "seqno": 7_654_321,
            "root_hash": h("block").hex(),
            "challenge": challenge.hex(),
        },
        "gpu_digest": [
            {"evidence": [], "digest": gpu_digest([]).hex()},
            {"evidence": [item.hex() for item in devices], "digest": digest.hex()},
        ],
        "gpu_nonce": {
            "binding_hash": value.hash.hex(),
            "challenge": challenge.hex(),
            "nonce": gpu_nonce(value.hash, challenge).hex(),
        },
        "report_data": [
            {
                "binding_hash": value.hash.hex(),
                "gpu_digest": item.hex(),
                "challenge": challenge.hex(),
                "report_data": report_data(value.hash, item, challenge).hex(),
            }
            for item in (bytes(32), digest)
        ],
    }


def sample_receipt() -> Receipt:
    """A receipt for the request and response bodies above."""
    return Receipt(
        node=NODE,
        binding_hash=sample_binding().hash,
        request_commitment=commit_request(SALT, REQUEST_BODY),
        response_commitment=commit_response(SALT, RESPONSE_BODY),
        model=MODEL,
        prompt_tokens=21,
        cached_tokens=16,
        completion_tokens=2,
        status=200,
        channel=CHANNEL,
        amount=731,
        cumulative=1_000_000_731,
        index=41,
        issued_at=1_800_000_100,
        anchor_by=1_800_003_700,
    )


def receipt() -> Document:
    """Commitments and receipts: an answer, a refusal, and the largest values."""
    answer = sample_receipt()
    empty = commit_response(SALT, b"")
    changes: list[Document] = [
        {},
        {"model": bytes(32), "status": 503, "amount": 0, "response_commitment": empty},
        {"amount": 2**120 - 1, "cumulative": 2**120 - 1, "index": 2**64 - 1, "prompt_tokens": 2**32 - 1},
    ]
    base = {name: getattr(answer, name) for name in Receipt.__dataclass_fields__}
    receipts = [Receipt(**base | change) for change in changes]
    return {
        "commitments": [
            {
                "salt": SALT.hex(),
                "body": body.hex(),
                "request_commitment": commit_request(SALT, body).hex(),
                "response_commitment": commit_response(SALT, body).hex(),
            }
            for body in (b"", REQUEST_BODY, RESPONSE_BODY)
        ],
        "receipt": [record(r, sign_receipt(r, RECEIPT_KEY).signature, RECEIPT_SEED) for r in receipts],
    }


def payment() -> Document:
    """Authorizations, claims and the rounding of prices."""
    permissions = [
        Authorization(global_id=-239, channel=CHANNEL, cap=cap, valid_until=1_800_003_600)
        for cap in (0, 255, 5_000_000_000, 2**120 - 1)
    ]
    claims = [Claim(global_id=-3, channel=CHANNEL, used=used, index=41) for used in (0, 256, 1_000_000_731)]
    prices = [(0, 0, 0), (1, 1, 1), (25_000_000, 2_500_000, 100_000_000), (2**64 - 1,) * 3]
    counts = [(0, 0, 0), (1, 0, 0), (1, 1, 1), (21, 16, 2), (1_000_000, 0, 0), (2**32 - 1, 0, 2**32 - 1)]
    return {
        "authorization": [
            record(p, sign_authorization(p, CLIENT_KEY).signature, CLIENT_SEED) for p in permissions
        ],
        "claim": [record(c, sign_claim(c, RECEIPT_KEY).signature, RECEIPT_SEED) for c in claims],
        "amount": [price_vector(price, count) for price in prices for count in counts],
    }


def price_vector(price: tuple[int, ...], count: tuple[int, int, int]) -> Document:
    """Price of one answer."""
    price_list = PriceList(prompt=price[0], cached=price[1], completion=price[2])
    usage = TokenUsage(prompt_tokens=count[0], cached_tokens=count[1], completion_tokens=count[2])
    return {
        "prices": {name: str(getattr(price_list, name)) for name in ("prompt", "cached", "completion")},
        "prompt_tokens": count[0],
        "cached_tokens": count[1],
        "completion_tokens": count[2],
        "amount": str(amount(price_list, usage)),
    }


def log() -> Document:
    """Trees of 0 to 9 leaves with all their proofs, and a checkpoint."""
    leaves = [h(f"leaf {number}") for number in range(9)]
    tree = MerkleTree(leaves)
    checkpoint = Checkpoint(
        global_id=-239, node=NODE, tree_size=9, root=tree.root(), issued_at=1_800_000_200
    )
    return {
        "leaves": [leaf.hex() for leaf in leaves],
        "leaf_hashes": [leaf_hash(leaf).hex() for leaf in leaves],
        "roots": [tree.root(size).hex() for size in range(10)],
        "inclusion": [
            {"index": index, "size": size, "proof": [p.hex() for p in tree.inclusion_proof(index, size)]}
            for size in range(1, 10)
            for index in range(size)
        ],
        "consistency": [
            {
                "first": first,
                "second": second,
                "proof": [p.hex() for p in tree.consistency_proof(first, second)],
            }
            for second in range(1, 10)
            for first in range(second + 1)
        ],
        "checkpoint": [
            record(checkpoint, sign_checkpoint(checkpoint, RECEIPT_KEY).signature, RECEIPT_SEED)
        ],
    }


def plain_request() -> bytes:
    """A PlainRequest without payment."""
    return sealed_pb2.PlainRequest(
        request_id=bytes(range(16)),
        endpoint="/v1/chat/completions",
        body=REQUEST_BODY,
        receipt_salt=SALT,
        deadline_ms=1_800_000_160_000,
    ).SerializeToString()


def sealed_request(dek: bytes, ciphertext: bytes) -> bytes:
    """The recorded sealed request while it fits, else a new one."""
    key = SealKeyPair(SEAL_SEED)
    info = b"cocoon/v1/request" + key.key_id + hashlib.sha256(ciphertext).digest()
    try:
        recorded = bytes.fromhex(json.loads((FOLDER / "sealing.json").read_text())["sealed_request"])
        message = sealed_pb2.SealedRequest.FromString(recorded)
        if message.ciphertext == ciphertext and key.unwrap(message.recipients[0].wrapped_key, info) == dek:
            return recorded
    except (OSError, ValueError, KeyError, CocoonError):
        pass
    message = sealed_pb2.SealedRequest(ciphertext=ciphertext)
    message.recipients.add(key_id=key.key_id, wrapped_key=wrap(key.public_key, dek, info))
    return message.SerializeToString()


def sealing() -> Document:
    """A sealed request and its response, with every derived key, and size classes."""
    key, dek, salt = SealKeyPair(SEAL_SEED), b"\x21" * 32, b"\x22" * 32
    body_key, body_nonce = derive_key_and_nonce(dek, salt=None, info=b"cocoon/v1/request-body")
    padded = pad(plain_request(), request_class, MAX_REQUEST)
    ciphertext = AESGCM(body_key).encrypt(body_nonce, padded, None)
    sealed = sealed_request(dek, ciphertext)
    info = b"cocoon/v1/response" + key.key_id + hashlib.sha256(sealed).digest()
    response_key, base_nonce = derive_key_and_nonce(dek, salt=salt, info=info)
    sealer = open_request([key], sealed, random=lambda length: salt[:length]).response_sealer
    head = sealed_pb2.ResponseHead(status=200, content_type="application/json").SerializeToString()
    pieces = [b"", RESPONSE_BODY[:20], RESPONSE_BODY[20:]]
    final = sealed_pb2.ResponseFinal(
        usage=sealed_pb2.Usage(prompt_tokens=21, cached_tokens=16, completion_tokens=2),
        receipt=sign_receipt(sample_receipt(), RECEIPT_KEY),
    ).SerializeToString()
    frames: list[Document] = [{"type": "head", "plain": head.hex(), "frame": sealer.head(head).hex()}]
    frames += [{"type": "data", "plain": p.hex(), "frame": sealer.data(p).hex()} for p in pieces]
    frames.append({"type": "final", "plain": final.hex(), "frame": sealer.final(final).hex()})
    return {
        "seal_key_seed": SEAL_SEED.hex(),
        "seal_public_key": key.public_key.hex(),
        "key_id": key.key_id.hex(),
        "dek": dek.hex(),
        "body_key": body_key.hex(),
        "body_nonce": body_nonce.hex(),
        "plain_request": plain_request().hex(),
        "padded_request": padded.hex(),
        "ciphertext": ciphertext.hex(),
        "sealed_request": sealed.hex(),
        "sealed_request_hash": hashlib.sha256(sealed).hexdigest(),
        "response_salt": salt.hex(),
        "response_key": response_key.hex(),
        "response_base_nonce": base_nonce.hex(),
        "frames": frames,
        "size_classes": [
            {
                "length": length,
                "request": request_class(length),
                "head": head_class(length),
                "data": data_class(length),
                "final": final_class(length),
            }
            for length in (4, 64, 65, 1024, 1025, 4096, 4097, 5000, 9999, 65_537, 1_000_000)
        ],
    }


FILES: Final[dict[str, Callable[[], Document]]] = {
    "binding.json": binding,
    "receipt.json": receipt,
    "payment.json": payment,
    "log.json": log,
    "sealing.json": sealing,
}


def render(name: str) -> str:
    """The text of one file."""
    return json.dumps(FILES[name](), indent=1) + "\n"


if __name__ == "__main__":
    for name in FILES:
        (FOLDER / name).write_text(render(name))
