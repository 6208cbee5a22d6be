"""Writes ``p256.json``, the vectors of docs/spec/onchain-attestation.md: ``python tests/vectors/generate_p256.py``.

Each vector is a digest, an x coordinate and a signature with its hint, and what the check of the Pck contract
says: the exit code, 0 for accepted. Numbers and byte strings are lower-case hex of full length.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from cocoon_ton.p256 import (
    FIELD,
    FIRST_DIGEST,
    ORDER,
    SECOND_DIGEST,
    SignatureHint,
    add,
    make_hint,
    multiply,
)

FILE: Final = Path(__file__).parent / "p256.json"
G: Final = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
ACCEPTED: Final = 0
BAD_RELATION: Final = 500
BAD_SIGNATURE: Final = 501
WRONG_KEY: Final = 502
Point = tuple[int, int]
Vector = dict[str, object]


def number(label: str) -> int:
    """A number below the order that depends on the label only."""
    return int.from_bytes(hashlib.sha512(label.encode()).digest()) % (ORDER - 1) + 1


def point(scalar: int) -> Point:
    """`scalar` times the generator."""
    found = multiply(scalar, G)
    if found is None:
        raise ValueError("the point at infinity")
    return found


def sign(digest: bytes, secret: int, nonce: int) -> bytes:
    """ECDSA with a nonce of our choice: for vectors only."""
    r = point(nonce)[0] % ORDER
    s = pow(nonce, -1, ORDER) * (int.from_bytes(digest) + r * secret) % ORDER
    return r.to_bytes(32) + s.to_bytes(32)


def encoded(of: Point) -> bytes:
    """64 bytes x ‖ y."""
    return of[0].to_bytes(32) + of[1].to_bytes(32)


def compressed(of: Point) -> bytes:
    """33 bytes."""
    return bytes([2 + of[1] % 2]) + of[0].to_bytes(32)


def vector(name: str, digest: bytes, key_x: int, hint: SignatureHint, exit_code: int) -> Vector:
    """One entry of the file."""
    return {
        "name": name,
        "digest": digest.hex(),
        "key_x": key_x.to_bytes(32).hex(),
        "hint": {
            "key_x": hint.key_x.to_bytes(32).hex(),
            "sigma": hint.sigma.to_bytes(32).hex(),
            "s": hint.s.to_bytes(32).hex(),
            "r": hint.r.to_bytes(32).hex(),
            "v": hint.v.to_bytes(32).hex(),
            "point": hint.point.hex(),
        },
        "exit_code": exit_code,
    }


def relations(hint: SignatureHint, digest: bytes, **chosen: int) -> SignatureHint:
    """A hint whose sigma and v satisfy both relations for this digest, whatever the rest is."""
    r, s, x = chosen.get("r", hint.r), chosen.get("s", hint.s), hint.key_x
    e = int.from_bytes(digest)
    sigma = (SECOND_DIGEST * x - FIRST_DIGEST * r) * pow(e, -1, ORDER) % ORDER
    return replace(hint, r=r, s=s, sigma=sigma, v=sigma * s * pow(x, -1, ORDER) % ORDER)


def hint_point(hint: SignatureHint, of: Point) -> bytes:
    """(sigma·of − E1·G)/x: makes the first native check hold."""
    inverse = pow(hint.key_x, -1, ORDER)
    found = add(multiply(hint.sigma * inverse, of), multiply(-FIRST_DIGEST * inverse, G))
    if found is None:
        raise ValueError("the point at infinity")
    return compressed(found)


def second_point(hint: SignatureHint, nonce: Point) -> bytes:
    """(v·R − E2·G)/r: makes the second native check hold."""
    inverse = pow(hint.r, -1, ORDER)
    found = add(multiply(hint.v * inverse, nonce), multiply(-SECOND_DIGEST * inverse, G))
    if found is None:
        raise ValueError("the point at infinity")
    return compressed(found)


def valid(count: int) -> Iterator[Vector]:
    """Valid signatures, also with the larger of the two values of s, and by the negated key."""
    for index in range(count):
        secret, nonce = number(f"key {index}"), number(f"nonce {index}")
        digest, key = hashlib.sha256(f"message {index}".encode()).digest(), point(secret)
        signature = sign(digest, secret, nonce)
        hint = make_hint(digest, signature, encoded(key))
        yield vector(f"valid {index}", digest, key[0], hint, ACCEPTED)
        other = signature[:32] + (ORDER - hint.s).to_bytes(32)
        mirrored = make_hint(digest, other, encoded(key))
        yield vector(f"valid {index}, other s", digest, key[0], mirrored, ACCEPTED)
        negated = sign(digest, ORDER - secret, nonce)
        opposite = make_hint(digest, negated, encoded((key[0], FIELD - key[1])))
        yield vector(f"valid {index}, by the negated key", digest, key[0], opposite, ACCEPTED)


def damaged() -> Iterator[Vector]:
    """One value of a valid vector changed."""
    secret, digest = number("key 0"), hashlib.sha256(b"message 0").digest()
    key = point(secret)
    hint = make_hint(digest, sign(digest, secret, number("nonce 0")), encoded(key))
    flipped = bytes([digest[0] ^ 1]) + digest[1:]
    yield vector("another digest", flipped, key[0], hint, BAD_RELATION)
    yield vector("another key", digest, point(number("key 1"))[0], hint, WRONG_KEY)
    for name in ("sigma", "s", "r", "v"):
        changed = replace(hint, **{name: getattr(hint, name) ^ 1})
        yield vector(f"another {name}", digest, key[0], changed, BAD_RELATION)
    sign_changed = bytes([hint.point[0] ^ 1]) + hint.point[1:]
    yield vector("negated hint point", digest, key[0], replace(hint, point=sign_changed), BAD_SIGNATURE)
    for name in ("r", "sigma", "v"):
        value = getattr(hint, name) + ORDER
        if value < 2**256:
            yield vector(f"{name} + n", digest, key[0], replace(hint, **{name: value}), BAD_SIGNATURE)


def forged() -> Iterator[Vector]:
    """Forgeries without the secret key: whatever satisfies the relations fails a native check."""
    key = point(number("victim"))
    digest = hashlib.sha256(b"forged message").digest()
    a, b = number("a"), number("b")
    nonce = add(multiply(a, G), multiply(b, key))
    if nonce is None:
        raise ValueError("the point at infinity")
    r = nonce[0] % ORDER
    s = r * pow(b, -1, ORDER) % ORDER  # right for the digest a·s, not for this one
    blank = SignatureHint(key_x=key[0], r=r, s=s, sigma=1, v=1, point=compressed(key))
    hint = relations(blank, digest)
    first = replace(hint, point=hint_point(hint, key))
    yield vector("forged: first native check holds", digest, key[0], first, BAD_SIGNATURE)
    second = replace(hint, point=second_point(hint, nonce))
    yield vector("forged: second native check holds", digest, key[0], second, BAD_SIGNATURE)
    suits = (a * s % ORDER).to_bytes(32)
    free = replace(relations(blank, suits), point=hint_point(relations(blank, suits), key))
    yield vector("a digest that nobody chose", suits, key[0], free, ACCEPTED)
    yield vector("the same hint, our digest", digest, key[0], free, BAD_RELATION)
    unrelated = replace(first, s=number("s"))
    yield vector("forged: any s", digest, key[0], unrelated, BAD_RELATION)
    repaired = relations(first, digest, s=number("s"))
    yield vector("forged: any s, relations hold", digest, key[0], repaired, BAD_SIGNATURE)
    zero = replace(first, sigma=0, v=0)
    yield vector("sigma = v = 0", digest, key[0], zero, BAD_RELATION)
    # E2·x = E1·r makes sigma zero: then v is zero too, whatever s is
    trick = SECOND_DIGEST * key[0] * pow(FIRST_DIGEST, -1, ORDER) % ORDER
    nothing = replace(first, r=trick, sigma=0, v=0)
    yield vector("relations hold with zeros", digest, key[0], nothing, BAD_SIGNATURE)
    no_s = replace(first, s=0, v=0)
    yield vector("s = v = 0", digest, key[0], no_s, BAD_SIGNATURE)
    attacker = point(number("attacker"))
    own = make_hint(digest, sign(digest, number("attacker"), number("nonce")), encoded(attacker))
    renamed = replace(own, key_x=key[0])
    yield vector("own signature, the victim's name", digest, key[0], renamed, BAD_RELATION)


def document() -> list[Vector]:
    """All vectors."""
    return [*valid(3), *damaged(), *forged()]


def render() -> str:
    """The text of the file."""
    return json.dumps(document(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(render(), encoding="utf-8")
