"""TL messages of the liteserver protocol, by the schemas that pytoniq-core ships."""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any, Final, TypeAlias

from pytoniq_core.tl.generator import TlGenerator, TlSchemas

from cocoon_attestation.errors import MalformedError

Fields: TypeAlias = dict[str, Any]
MAX_ERROR_BYTES: Final = 250
_LISTS: Final = {"liteServer.getLibraries": 4, "liteServer.getLibrariesWithProof": 4 + 80 + 4}
"""Queries with a list of hashes, which pytoniq-core does not read, and where it begins."""


@lru_cache(maxsize=1)
def schemas() -> TlSchemas:
    """All schemas. Byte fields stay bytes: guessing what is in them makes messages ambiguous."""
    return TlSchemas(TlGenerator.with_default_schemas().generate().list, auto_deserialize=False)


def tag(name: str) -> bytes:
    """The 4 bytes in front of a boxed value."""
    schema = schemas().get_by_name(name)
    if schema is None:
        raise MalformedError(f"TL: unknown constructor {name}")
    return bytes(schema.little_id())


def write(name: str, fields: Fields, *, boxed: bool = True) -> bytes:
    """Serialize a value."""
    return bytes(schemas().serialize(name, fields, boxed))


def read(data: bytes) -> Fields:
    """Parse a boxed value; its name is under ``@type``. Raises MalformedError."""
    try:
        fields, used = schemas().deserialize(data)
    except Exception as error:  # pytoniq-core raises whatever it meets
        raise MalformedError(f"TL: {error}") from error
    if used > len(data):  # it reads zeros behind the end
        raise MalformedError("TL: the value is cut off")
    if not isinstance(fields, dict) or "@type" not in fields:
        raise MalformedError("TL: unknown constructor")
    if fields["@type"] in _LISTS:
        fields["library_list"] = _hashes(data[_LISTS[fields["@type"]] :])
    return fields


def _hashes(data: bytes) -> list[str]:
    """``vector int256`` as hex."""
    count = int.from_bytes(data[:4], "little")
    if len(data) < 4 + 32 * count:
        raise MalformedError("TL: the list is cut off")
    return [data[at : at + 32].hex() for at in range(4, 4 + 32 * count, 32)]


def write_error(code: int, message: str) -> bytes:
    """``liteServer.error``; pytoniq-core does not write strings."""
    text = message.encode()[:MAX_ERROR_BYTES].decode(errors="ignore").encode()
    packed = bytes([len(text)]) + text
    return tag("liteServer.error") + struct.pack("<i", code) + packed + bytes(-len(packed) % 4)


def signed32(value: int) -> int:
    """An unsigned 32-bit number as the signed one that TL code of pytoniq-core takes."""
    return value - (1 << 32) if value >> 31 else value
