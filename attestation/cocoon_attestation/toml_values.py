"""Typed readers of TOML values for policy files: another type or form is a `ConfigError`."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import TypeVar

from cocoon_attestation.errors import ConfigError

_T = TypeVar("_T")


def require_keys(
    what: str, table: Mapping[str, object], *, known: frozenset[str], required: frozenset[str]
) -> None:
    """Demand that `table` has all `required` keys and no key that is not `known`.

    Raises:
        ConfigError: it does not.
    """
    if unknown := sorted(table.keys() - known):
        raise ConfigError(f"{what}: unknown key {unknown[0]!r}", hint="known: " + ", ".join(sorted(known)))
    if missing := sorted(required - table.keys()):
        raise ConfigError(f"{what}: key {missing[0]!r} is missing")


def typed(key: str, value: object, kind: type[_T]) -> _T:
    """Return `value` if it is exactly of `kind`: a TOML boolean is no number.

    Raises:
        ConfigError: it is not.
    """
    if type(value) is not kind:
        raise ConfigError(f"policy: {key} has the wrong type")
    return value


def integer(key: str, value: object, limit: int) -> int:
    """An integer from 0 to `limit`.

    Raises:
        ConfigError: anything else.
    """
    number = typed(key, value, int)
    if not 0 <= number <= limit:
        raise ConfigError(f"policy: {key} must be 0 to {limit}")
    return number


def strings(key: str, value: object) -> list[str]:
    """A list of texts without repetition.

    Raises:
        ConfigError: anything else.
    """
    items: list[object] = typed(key, value, list)
    texts = [typed(key, item, str) for item in items]
    if len(set(texts)) != len(texts):
        raise ConfigError(f"policy: {key} lists a value twice")
    return texts


def base64_bytes(key: str, text: str) -> bytes:
    """Bytes from base64.

    Raises:
        ConfigError: not base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ConfigError(f"policy: {key} is not base64") from error
