"""Addresses: strict parsing and the forms that people see.

pytoniq-core accepts text of any length; this module does not.
"""

from __future__ import annotations

import base64
import binascii
import re

from pytoniq_core import Address
from pytoniq_core.crypto.crc import crc16

from cocoon_attestation.errors import MalformedError

_RAW = re.compile(r"(0|-1):([0-9a-fA-F]{64})")
_TAGS = {0x11: (True, False), 0x51: (False, False), 0x91: (True, True), 0xD1: (False, True)}


def parse_address(text: str) -> Address:
    """An address in raw (``0:`` and 64 hex digits) or user-friendly form (48 characters).

    Raises `MalformedError` on any other text.
    """
    match = _RAW.fullmatch(text)
    if match:
        return Address((int(match[1]), bytes.fromhex(match[2])))
    try:
        raw = base64.b64decode(text.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedError("not a TON address") from error
    if len(text) != 48 or len(raw) != 36 or raw[0] not in _TAGS or raw[1] not in (0x00, 0xFF):
        raise MalformedError("not a TON address")
    if crc16(raw[:34]) != raw[34:]:
        raise MalformedError("TON address has a wrong checksum")
    address = Address((int.from_bytes(raw[1:2], "big", signed=True), raw[2:34]))
    address.is_bounceable, address.is_test_only = _TAGS[raw[0]]
    return address


def raw_address(address: Address) -> str:
    """Raw form, the one that the project stores and signs: ``0:`` and 64 lower-case hex digits."""
    return f"{address.wc}:{address.hash_part.hex()}"


def friendly_address(address: Address, *, bounceable: bool, test_only: bool) -> str:
    """User-friendly form: ``EQ…`` bounceable, ``UQ…`` not; ``kQ…``/``0Q…`` on test networks."""
    return str(address.to_str(is_bounceable=bounceable, is_test_only=test_only))
