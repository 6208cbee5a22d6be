"""Padding to size classes, so that lengths on the wire say little about lengths of text.

Padded form: u32 length ‖ data ‖ zero bytes up to the size class of (4 + length). Requests use classes of
Padmé (Nikitin et al., PURBs, 2019) from 1 KiB on; response chunks use powers of two up to 4 KiB, Padmé
above. Padmé adds at most 12 %, here (from 1 KiB on) at most 6.25 %.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cocoon_attestation.errors import MalformedError, SealingError

MAX_REQUEST: Final = 8 << 20
"""Longest plaintext of a request, in bytes."""
MAX_CHUNK: Final = 1 << 20
"""Longest plaintext of one response chunk, in bytes; longer bodies take several chunks."""

_LENGTH_SIZE: Final = 4
_REQUEST_MIN: Final = 1024
_HEAD_MIN: Final = 256
_DATA_MIN: Final = 64
_FINAL_MIN: Final = 1024
_DOUBLING_MAX: Final = 4096

SizeClass = Callable[[int], int]
"""From a length (the 4-byte prefix included) to the padded length."""


def _padme(length: int) -> int:
    exponent = length.bit_length() - 1
    mask = (1 << exponent - exponent.bit_length()) - 1
    return (length + mask) & ~mask


def _power_of_two(length: int) -> int:
    return 1 << (length - 1).bit_length()


def request_class(length: int) -> int:
    """Size class of a request: at least 1 KiB, then Padmé."""
    return _padme(max(_REQUEST_MIN, length))


def _chunk_class(length: int, smallest: int) -> int:
    return max(smallest, _power_of_two(length) if length <= _DOUBLING_MAX else _padme(length))


def head_class(length: int) -> int:
    """Size class of a response head: 256, 512, … 4096, then Padmé."""
    return _chunk_class(length, _HEAD_MIN)


def data_class(length: int) -> int:
    """Size class of a data chunk: 64, 128, 256, … 4096, then Padmé."""
    return _chunk_class(length, _DATA_MIN)


def final_class(length: int) -> int:
    """Size class of a final chunk: 1024, 2048, 4096, then Padmé."""
    return _chunk_class(length, _FINAL_MIN)


def pad(data: bytes, size_class: SizeClass, limit: int) -> bytes:
    """Pad `data` to its size class.

    Raises:
        MalformedError: `data` is longer than `limit`.
    """
    if len(data) > limit:
        raise MalformedError(f"message too long to seal: at most {limit} bytes")
    size = size_class(_LENGTH_SIZE + len(data))
    return (len(data).to_bytes(_LENGTH_SIZE) + data).ljust(size, b"\x00")


def unpad(padded: bytes, size_class: SizeClass, limit: int) -> bytes:
    """Undo `pad`; only its exact output is accepted.

    Raises:
        SealingError: anything else. Call it on authenticated bytes only.
    """
    length = int.from_bytes(padded[:_LENGTH_SIZE])
    end = _LENGTH_SIZE + length
    if len(padded) < _LENGTH_SIZE or length > limit or len(padded) != size_class(end):
        raise SealingError
    if padded[end:].strip(b"\x00"):
        raise SealingError
    return padded[_LENGTH_SIZE:end]
