"""Value helpers shared by every record: digests, integers of fixed width, hex and amounts of TON.

Lengths are checked once, where a value is made; behind that point they are facts. All helpers raise
`MalformedError` and nothing else.
"""

from __future__ import annotations

from typing import Final, NewType

from cocoon_attestation.errors import MalformedError

Digest32 = NewType("Digest32", bytes)
"""32 bytes: a SHA-256 digest, a cell hash, an account id or an Ed25519 public key."""

NanoTon = NewType("NanoTon", int)
"""An amount in nanoton, 0 to 2^120 - 1 (TL-B ``Coins``)."""

ZERO_DIGEST: Final = Digest32(bytes(32))
"""32 zero bytes: "none"."""

NANOTON_PER_TON: Final = 10**9
MAX_NANOTON: Final = 2**120 - 1


def exact_bytes(value: object, length: int, what: str) -> bytes:
    """Return `value` as immutable bytes of exactly `length`.

    Raises:
        MalformedError: not bytes, or another length. `what` names the value in the message.
    """
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise MalformedError(f"{what}: bytes expected")
    data = bytes(value)
    if len(data) != length:
        raise MalformedError(f"{what}: {length} bytes expected, {len(data)} found")
    return data


def digest32(value: object, what: str = "digest") -> Digest32:
    """Return `value` as a `Digest32`.

    Raises:
        MalformedError: not 32 bytes.
    """
    return Digest32(exact_bytes(value, 32, what))


def uint(value: object, bits: int, what: str) -> int:
    """Return `value` if it is an integer that fits `bits` unsigned bits.

    Raises:
        MalformedError: no integer, or out of range.
    """
    if type(value) is not int or not 0 <= value < 1 << bits:
        raise MalformedError(f"{what}: unsigned {bits}-bit integer expected")
    return value


def sint(value: object, bits: int, what: str) -> int:
    """Return `value` if it is an integer that fits `bits` bits in two's complement.

    Raises:
        MalformedError: no integer, or out of range.
    """
    if type(value) is not int or not -(1 << (bits - 1)) <= value < 1 << (bits - 1):
        raise MalformedError(f"{what}: signed {bits}-bit integer expected")
    return value


def nanoton(value: object, what: str = "amount") -> NanoTon:
    """Return `value` as an amount in nanoton.

    Raises:
        MalformedError: no integer, negative, or above 2^120 - 1.
    """
    return NanoTon(uint(value, 120, what))


def parse_hex(text: object, length: int, what: str = "hex") -> bytes:
    """Decode exactly `length` bytes from lower-case hex without prefix or spaces.

    Raises:
        MalformedError: anything else, upper case included: one value has one spelling.
    """
    if not isinstance(text, str) or len(text) != 2 * length or text.strip("0123456789abcdef"):
        raise MalformedError(f"{what}: {2 * length} lower-case hex digits expected")
    return bytes.fromhex(text)


def parse_ton(text: str) -> NanoTon:
    """Read a decimal amount of TON such as ``"1.25"`` exactly, as nanoton.

    Raises:
        MalformedError: not a plain decimal number, finer than a nanoton, or too large.
    """
    whole, dot, fraction = text.partition(".")
    digits = whole + fraction
    if (
        not digits.isascii()
        or not digits.isdigit()
        or not whole
        or (dot and not fraction)
        or len(fraction) > 9
        or len(whole) > 30
    ):
        raise MalformedError("amount of TON: decimal number with at most 9 decimals expected")
    return nanoton(int(whole) * NANOTON_PER_TON + int(fraction.ljust(9, "0")), "amount of TON")


def format_ton(amount: int) -> str:
    """Write nanoton as an exact decimal number of TON without trailing zeros: ``"1.25"``."""
    sign = "-" if amount < 0 else ""
    whole, fraction = divmod(abs(amount), NANOTON_PER_TON)
    decimals = f"{fraction:09d}".rstrip("0")
    return f"{sign}{whole}.{decimals}" if decimals else f"{sign}{whole}"
