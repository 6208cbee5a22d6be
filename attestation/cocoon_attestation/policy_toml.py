"""The TOML form of a policy: ``policy.toml``. Unknown keys are errors. See docs/spec/policy.md."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Final

from cocoon_attestation.errors import ConfigError, MalformedError
from cocoon_attestation.policy import Policy
from cocoon_attestation.policy_toml_vendor import gpu_from_table, snp_from_table
from cocoon_attestation.reference import AnyRelease, Release, SnpRelease, TeeKind
from cocoon_attestation.toml_values import base64_bytes, require_keys, strings, typed
from cocoon_attestation.types import parse_hex

POLICY_VERSION: Final = 1
"""Version of the file; a file without ``version`` is of this one."""
_REQUIRED: Final = frozenset({"global_id", "releases", "models", "min_tcb_evaluation"})
_NUMBERS: Final = frozenset(
    {
        "clock_skew_s",
        "global_id",
        "grace_s",
        "max_collateral_age_s",
        "min_tcb_evaluation",
        "not_after",
        "session_limit_s",
    }
)
_NAMES: Final = frozenset({"statuses", "allowed_advisories", "denied_advisories"})
_BYTES: Final = {"models": 32, "allowed_modules": 48, "allowed_platforms": 32, "denied_platforms": 32}
_ALLOWED: Final = frozenset({"allowed_modules", "allowed_platforms"})
"""Lists that allow everything if they are left out: an empty one must not mean the same."""
_OTHER: Final = frozenset({"releases", "tee_kinds", "dev_root", "node", "recovery_dates", "snp", "gpu"})
_RELEASE_KEYS: Final = frozenset({"name", "tee"})
_SNP_RELEASE_KEYS: Final = _RELEASE_KEYS | {"measurement", "models"}
_RELEASE: Final = {"mrtd": 48, "rtmr0": 48, "rtmr1": 48, "rtmr2": 48, "td_attributes": 8, "xfam": 8}


def policy_from_toml(text: str) -> Policy:
    """Read a policy from TOML.

    Raises:
        ConfigError: not TOML, an unknown or missing key, a value of the wrong form, or a policy that
            allows nothing.
    """
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError also for a number of thousands of digits
        raise ConfigError(f"policy: not TOML: {error}") from error
    if typed("version", document.pop("version", POLICY_VERSION), int) != POLICY_VERSION:
        raise ConfigError(f"policy: version {POLICY_VERSION} expected")
    known = _NUMBERS | _NAMES | _OTHER | _BYTES.keys()
    require_keys("policy", document, known=known, required=_REQUIRED)
    values: dict[str, object] = {}
    try:
        for key, value in document.items():
            values[key] = _value(key, value)
    except MalformedError as error:
        raise ConfigError(f"policy: {error}") from error
    return Policy(**values)  # type: ignore[arg-type]  # every value was checked by _value


def _value(key: str, value: object) -> object:
    if key in _NUMBERS:
        return typed(key, value, int)
    if key in _NAMES:
        return frozenset(strings(key, value))
    if key in _ALLOWED and value == []:
        raise ConfigError(
            f"policy: {key} is empty, so it allows nothing", hint="leave it out to allow everything"
        )
    if key in _BYTES:
        return frozenset(parse_hex(item, _BYTES[key], key) for item in strings(key, value))
    if key == "tee_kinds":
        return frozenset(TeeKind.from_label(item) for item in strings(key, value))
    if key == "node":
        return parse_hex(value, 32, "node")
    if key == "dev_root":
        return base64_bytes(key, typed(key, value, str))
    if key == "recovery_dates":
        dates: Mapping[str, object] = typed(key, value, dict)
        return {_evaluation(number): typed(key, date, int) for number, date in dates.items()}
    if key == "snp":
        return snp_from_table(typed(key, value, dict))
    if key == "gpu":
        return gpu_from_table(typed(key, value, dict))
    return tuple(_release(item) for item in typed(key, value, list))


def _evaluation(text: str) -> int:
    """A tcbEvaluationDataNumber as a key of TOML: decimal, without leading zeros."""
    if not text.isascii() or not text.isdecimal() or text.startswith("0") or len(text) > 9:
        raise ConfigError(f"policy: recovery_dates names {text!r}, not an evaluation number")
    return int(text)


def _release(value: object) -> AnyRelease:
    table: Mapping[str, object] = typed("releases", value, dict)
    tee = TeeKind.from_label(typed("release tee", table.get("tee"), str))
    if tee is TeeKind.SEV_SNP:
        return _snp_release(table)
    known = _RELEASE_KEYS | _RELEASE.keys()
    require_keys("release", table, known=known, required=known)
    measured = {key: parse_hex(table[key], length, key) for key, length in _RELEASE.items()}
    return Release(name=typed("name", table["name"], str), tee=tee, **measured)


def _snp_release(table: Mapping[str, object]) -> SnpRelease:
    known = _SNP_RELEASE_KEYS | {"gpus"}
    require_keys("release", table, known=known, required=_SNP_RELEASE_KEYS)
    return SnpRelease(
        name=typed("name", table["name"], str),
        measurement=parse_hex(table["measurement"], 48, "measurement"),
        models=tuple(parse_hex(model, 32, "models") for model in strings("models", table["models"])),
        gpus=typed("gpus", table.get("gpus", 0), int),
    )
