"""Amounts: whole nanoton inside, TON with nine decimals for people."""

from __future__ import annotations

import re

from cocoon_attestation.errors import MalformedError

TON = 1_000_000_000
"""Nanoton in one TON."""
MAX_COINS = (1 << 120) - 1
"""Largest amount of a ``Coins`` field."""
_AMOUNT = re.compile(r"([0-9]{1,30})(?:\.([0-9]{1,9}))?")


def format_ton(nanoton: int) -> str:
    """An amount for people: no sign of a float, no trailing zeros (``1.5``, ``0.000000001``, ``-2``)."""
    whole, part = divmod(abs(nanoton), TON)
    text = f"{whole}.{part:09d}".rstrip("0").rstrip(".")
    return f"-{text}" if nanoton < 0 else text


def parse_ton(text: str) -> int:
    """Nanoton from text such as ``1.5``. Raises `MalformedError` on signs, exponents or too many digits."""
    match = _AMOUNT.fullmatch(text)
    if not match:
        raise MalformedError("not an amount of TON: digits, and at most nine behind the point")
    nanoton = int(match[1]) * TON + int((match[2] or "").ljust(9, "0"))
    if nanoton > MAX_COINS:
        raise MalformedError("amount is larger than TON can express")
    return nanoton
