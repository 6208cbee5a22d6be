"""The TOML form of a policy: ``policy.toml``. Unknown keys are errors. See docs/spec/policy.md."""

from __future__ import annotations

import base64
import binascii
import tomllib
from collections.abc import Mapping
from typing import Final, TypeVar

from cocoon_attestation.errors import ConfigError, MalformedError
from cocoon_attestation.policy import Policy
from cocoon_attestation.reference import Release, TeeKind
from cocoon_attestation.types import parse_hex

_REQUIRED: Final = frozenset({"global_id", "releases", "models", "min_tcb_evaluation"})
_NUMBERS: Final = frozenset(
    {
        "clock_skew_s",
        "global_id",
        "max_collateral_age_s",
        "min_tcb_evaluation",
        "not_after",
        "session_limit_s",
    }
)
_NAMES: Final = frozenset({"statuses", "allowed_advisories", "denied_advisories"})
_BYTES: Final = {"models": 32, "allowed_modules": 48, "allowed_platforms": 32, "denied_platforms": 32}
_OTHER: Final = frozenset({"releases", "tee_kinds", "dev_root", "node"})
_RELEASE: Final = {"mrtd": 48, "rtmr0": 48, "rtmr1": 48, "rtmr2": 48, "td_attributes": 8, "xfam": 8}

_T = TypeVar("_T")


def policy_from_toml(text: str) -> Policy:
    """Read a policy from TOML.

    Raises:
        ConfigError: not TOML, an unknown or missing key, a value of the wrong form, or a policy that
            allows nothing.
    """
    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"policy: not TOML: {error}") from error
    known = _NUMBERS | _NAMES | _OTHER | _BYTES.keys()
    _require_keys("policy", document, known=known, required=_REQUIRED)
    values: dict[str, object] = {}
    try:
        for key, value in document.items():
            values[key] = _value(key, value)
    except MalformedError as error:
        raise ConfigError(f"policy: {error}") from error
    return Policy(**values)  # type: ignore[arg-type]  # every value was checked by _value


def _value(key: str, value: object) -> object:
    if key in _NUMBERS:
        return _typed(key, value, int)
    if key in _NAMES:
        return frozenset(_strings(key, value))
    if key in _BYTES:
        return frozenset(parse_hex(item, _BYTES[key], key) for item in _strings(key, value))
    if key == "tee_kinds":
        return frozenset(TeeKind.from_label(item) for item in _strings(key, value))
    if key == "node":
        return parse_hex(value, 32, "node")
    if key == "dev_root":
        return _base64(_typed(key, value, str))
    return tuple(_release(item) for item in _typed(key, value, list))


def _release(value: object) -> Release:
    table: Mapping[str, object] = _typed("releases", value, dict)
    known = frozenset(_RELEASE) | {"name", "tee"}
    _require_keys("release", table, known=known, required=known)
    measured = {key: parse_hex(table[key], length, key) for key, length in _RELEASE.items()}
    return Release(
        name=_typed("name", table["name"], str),
        tee=TeeKind.from_label(_typed("tee", table["tee"], str)),
        **measured,
    )


def _require_keys(
    what: str, table: Mapping[str, object], *, known: frozenset[str], required: frozenset[str]
) -> None:
    if unknown := sorted(table.keys() - known):
        raise ConfigError(f"{what}: unknown key {unknown[0]!r}", hint="known: " + ", ".join(sorted(known)))
    if missing := sorted(required - table.keys()):
        raise ConfigError(f"{what}: key {missing[0]!r} is missing")


def _typed(key: str, value: object, kind: type[_T]) -> _T:
    if type(value) is not kind:  # exact: a TOML boolean is no number
        raise ConfigError(f"policy: {key} has the wrong type")
    return value


def _strings(key: str, value: object) -> list[str]:
    items: list[object] = _typed(key, value, list)
    texts = [_typed(key, item, str) for item in items]
    if len(set(texts)) != len(texts):
        raise ConfigError(f"policy: {key} lists a value twice")
    return texts


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ConfigError("policy: dev_root is not base64") from error
