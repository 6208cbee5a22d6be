"""Hints that let TVM check an ECDSA P-256 signature on a digest.

TVM has no such operation, but two of its checks on whole messages together imply one. The algebra is in
``docs/spec/onchain-attestation.md``, section 2; the checking half is ``contracts/lib/ecdsa.tolk``. Only
public values are handled here, so nothing needs to run in constant time.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from pytoniq_core import Builder, Cell

from cocoon_attestation.types import digest32, exact_bytes
from cocoon_ton.cells import finish
from cocoon_ton.errors import UnprovableError

FIELD: Final = 2**256 - 2**224 + 2**192 + 2**96 - 1
ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
FIRST_DIGEST: Final = int.from_bytes(hashlib.sha256(b"\x00").digest())
"""What the first native check signs: SHA-256 of one zero byte."""
SECOND_DIGEST: Final = int.from_bytes(hashlib.sha256(b"\x01").digest())
"""What the second native check signs: SHA-256 of one byte with value 1."""

_B: Final = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
_Point = tuple[int, int] | None
_G: Final[_Point] = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignatureHint:
    """A signature with what the contract needs beside it. All numbers below 2^256."""

    key_x: int
    """x coordinate of the signer's key."""
    r: int
    s: int
    sigma: int
    """(E2·x − E1·r)/e mod n."""
    v: int
    """sigma·s/x mod n."""
    point: bytes
    """(sigma·Q − E1·G)/x, compressed, 33 bytes."""

    @property
    def cell(self) -> Cell:
        """``P256Signature`` with its ``P256Hint``."""
        hint = Builder().store_uint(self.r, 256).store_uint(self.v, 256).store_bytes(self.point)
        outer = Builder().store_uint(self.key_x, 256).store_uint(self.sigma, 256).store_uint(self.s, 256)
        return finish(outer.store_ref(finish(hint)))


def make_hint(digest: bytes, signature: bytes, public_key: bytes) -> SignatureHint:
    """The hint for a valid signature.

    Args:
        digest: SHA-256 of what was signed, 32 bytes.
        signature: r ‖ s, 64 bytes.
        public_key: x ‖ y, 64 bytes.

    Raises:
        MalformedError: a wrong length.
        UnprovableError: not a valid signature by this key, or one of the values without a hint, which
            nobody can find (docs/spec/onchain-attestation.md, section 2.4).
    """
    e = int.from_bytes(digest32(digest, "digest"))
    raw, key = exact_bytes(signature, 64, "signature"), exact_bytes(public_key, 64, "public key")
    r, s = int.from_bytes(raw[:32]), int.from_bytes(raw[32:])
    q = (int.from_bytes(key[:32]), int.from_bytes(key[32:]))
    if not is_signed(e, r, s, q):
        raise UnprovableError("not a valid P-256 signature on this digest")
    sigma = (SECOND_DIGEST * q[0] - FIRST_DIGEST * r) * pow(e, -1, ORDER) % ORDER if e % ORDER else 0
    if sigma == 0 or q[0] >= ORDER:
        raise UnprovableError("this P-256 signature has no hint")
    inverse_x = pow(q[0], -1, ORDER)
    point = add(multiply(sigma * inverse_x, q), multiply(-FIRST_DIGEST * inverse_x, _G))
    if point is None:
        raise UnprovableError("this P-256 signature has no hint")
    return SignatureHint(
        key_x=q[0],
        r=r,
        s=s,
        sigma=sigma,
        v=sigma * s * inverse_x % ORDER,
        point=bytes([2 + point[1] % 2]) + point[0].to_bytes(32),
    )


def accepts(digest: bytes, key_x: int, hint: SignatureHint) -> bool:
    """What ``checkP256`` of the contract decides, in Python: the model that tests compare it with."""
    e = int.from_bytes(digest32(digest, "digest"))
    point = decompress(hint.point)
    if hint.key_x != key_x or point is None:
        return False
    if (hint.sigma * e + FIRST_DIGEST * hint.r - SECOND_DIGEST * key_x) % ORDER:
        return False
    if (key_x * hint.v - hint.sigma * hint.s) % ORDER:
        return False
    first = is_signed(FIRST_DIGEST, key_x, hint.sigma, point)
    return first and is_signed(SECOND_DIGEST, hint.r, hint.v, point)


def is_signed(e: int, r: int, s: int, key: tuple[int, int]) -> bool:
    """Whether (r, s) is an ECDSA signature on the digest `e` by `key` (FIPS 186-5, section 6.4.2)."""
    if not (0 < r < ORDER and 0 < s < ORDER) or not _on_curve(key):
        return False
    inverse = pow(s, -1, ORDER)
    point = add(multiply(e * inverse, _G), multiply(r * inverse, key))
    return point is not None and point[0] % ORDER == r


def decompress(encoded: bytes) -> tuple[int, int] | None:
    """The point of a compressed encoding (SEC 1, section 2.3.4), or None if there is none."""
    if len(encoded) != 33 or encoded[0] not in (2, 3):
        return None
    x = int.from_bytes(encoded[1:])
    square = (x**3 - 3 * x + _B) % FIELD
    y = pow(square, (FIELD + 1) // 4, FIELD)
    if x >= FIELD or y * y % FIELD != square:
        return None
    return x, (y if y % 2 == encoded[0] - 2 else FIELD - y)


def add(p: _Point, q: _Point) -> _Point:
    """Sum of two points; None is the point at infinity."""
    if p is None or q is None:
        return q if p is None else p
    if p[0] == q[0]:
        if (p[1] + q[1]) % FIELD == 0:
            return None
        slope = 3 * (p[0] * p[0] - 1) * pow(2 * p[1], -1, FIELD) % FIELD
    else:
        slope = (q[1] - p[1]) * pow(q[0] - p[0], -1, FIELD) % FIELD
    x = (slope * slope - p[0] - q[0]) % FIELD
    return x, (slope * (p[0] - x) - p[1]) % FIELD


def multiply(scalar: int, point: _Point) -> _Point:
    """`scalar` times `point`."""
    scalar %= ORDER
    result: _Point = None
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point = add(point, point)
        scalar >>= 1
    return result


def _on_curve(point: tuple[int, int]) -> bool:
    x, y = point
    return 0 <= x < FIELD and 0 <= y < FIELD and (y * y - x**3 + 3 * x - _B) % FIELD == 0
