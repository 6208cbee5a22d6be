"""Order of driver, VBIOS and switch BIOS versions."""

from __future__ import annotations

import functools
import re
from typing import Final

_DRIVER: Final = re.compile(r"\d{1,4}(\.\d{1,4}){1,3}", re.ASCII)
_VBIOS: Final = re.compile(r"[0-9A-Fa-f]{2}(\.[0-9A-Fa-f]{2}){4}")


def driver_at_least(version: str | None, minimum: str) -> bool:
    """True if `version` (decimal parts, ``570.172.08``) is not older than `minimum`."""
    return _at_least(version, minimum, _DRIVER, 10)


def vbios_at_least(version: str | None, minimum: str) -> bool:
    """True if `version` (five hex bytes, ``96.00.A5.00.01``) is not older than `minimum`."""
    return _at_least(version, minimum, _VBIOS, 16)


@functools.lru_cache(maxsize=128)
def _at_least(version: str | None, minimum: str, form: re.Pattern[str], base: int) -> bool:
    if version is None or form.fullmatch(version) is None or form.fullmatch(minimum) is None:
        return False
    return [int(part, base) for part in version.split(".")] >= [
        int(part, base) for part in minimum.split(".")
    ]
