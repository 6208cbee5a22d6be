"""JSON for documents that are signed: bounded, and with one meaning only.

Repeated keys, NaN, infinities and text that is not UTF-8 are refused. The readers take values apart and
demand exact types: a JSON boolean is no number.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NoReturn

from cocoon_attestation.errors import MalformedError


def parse_object(data: bytes, *, limit: int, what: str) -> dict[str, object]:
    """Read one JSON object of at most `limit` bytes; `what` names it in messages.

    Raises:
        MalformedError: too long, not UTF-8, not JSON, not an object, or with a repeated key.
    """
    raw = bytes(data)
    if len(raw) > limit:
        raise MalformedError(f"{what}: at most {limit} bytes expected")

    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        table = dict(items)
        if len(table) != len(items):
            raise MalformedError(f"{what}: a key is repeated")
        return table

    def constant(name: str) -> NoReturn:
        raise MalformedError(f"{what}: {name} is not JSON")

    try:
        document = json.loads(raw.decode("utf-8"), object_pairs_hook=pairs, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"{what}: not JSON") from error
    if not isinstance(document, dict):
        raise MalformedError(f"{what}: an object expected")
    return document


def members(
    value: object, *, required: frozenset[str], optional: frozenset[str] = frozenset(), what: str
) -> Mapping[str, object]:
    """Return `value` if it is an object with all `required` members and none beside the `optional` ones.

    Raises:
        MalformedError: it is not.
    """
    if not isinstance(value, dict):
        raise MalformedError(f"{what}: an object expected")
    if missing := sorted(required - value.keys()):
        raise MalformedError(f"{what}: {missing[0]} is missing")
    if unknown := sorted(value.keys() - required - optional):
        raise MalformedError(f"{what}: unknown member {unknown[0][:40]!r}")
    return value


def text(value: object, what: str, *, limit: int = 256) -> str:
    """A text of 1 to `limit` printable ASCII characters.

    Raises:
        MalformedError: anything else.
    """
    if not isinstance(value, str) or not 1 <= len(value) <= limit:
        raise MalformedError(f"{what}: text of 1 to {limit} characters expected")
    if not value.isascii() or not value.isprintable():
        raise MalformedError(f"{what}: printable ASCII expected")
    return value


def number(value: object, what: str, *, limit: int = 2**53 - 1) -> int:
    """An integer from 0 to `limit`.

    Raises:
        MalformedError: anything else, booleans and fractions included.
    """
    if type(value) is not int or not 0 <= value <= limit:
        raise MalformedError(f"{what}: integer from 0 to {limit} expected")
    return value


def items(value: object, what: str, *, limit: int) -> list[object]:
    """A list of at most `limit` values.

    Raises:
        MalformedError: anything else.
    """
    if not isinstance(value, list) or len(value) > limit:
        raise MalformedError(f"{what}: list of at most {limit} expected")
    return value
