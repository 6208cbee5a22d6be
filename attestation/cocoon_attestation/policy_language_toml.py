"""The TOML form of client rules. Unknown keys are errors. See docs/spec/policy-language.md.

::

    version = 1
    rules = [
      { tee_is = ["tdx"] },
      { any_of = [ { platform_in = ["<64 hex>"] }, { gpu_serial_in = ["<hex>"] } ] },
    ]
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from typing import Final

from cocoon_attestation import policy_leaves as leaves
from cocoon_attestation import policy_leaves_hardware as hardware
from cocoon_attestation.errors import ConfigError, MalformedError
from cocoon_attestation.policy_language import (
    LANGUAGE_VERSION,
    MAX_DEPTH,
    AllOf,
    AnyOf,
    ClientRules,
    Rule,
    UnsafeNoOp,
)
from cocoon_attestation.reference import TeeKind
from cocoon_attestation.toml_values import require_keys, strings, typed
from cocoon_attestation.types import parse_hex

_KEYS: Final = frozenset({"version", "rules"})


def rules_from_toml(text: str) -> ClientRules:
    """Read client rules from TOML.

    Raises:
        ConfigError: not TOML, another version, an unknown rule, an empty list or combinator, or a value
            of the wrong form.
    """
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError also for a number of thousands of digits
        raise ConfigError(f"client rules: not TOML: {error}") from error
    require_keys("client rules", document, known=_KEYS, required=_KEYS)
    if typed("version", document["version"], int) != LANGUAGE_VERSION:
        raise ConfigError(f"client rules: version {LANGUAGE_VERSION} expected")
    return rules_from_value(document["rules"])


def rules_from_value(value: object) -> ClientRules:
    """Read client rules from the value of ``rules``, which may stand in another TOML file.

    Raises:
        ConfigError: an unknown rule, an empty list or combinator, or a value of the wrong form.
    """
    try:
        return ClientRules(rules=AllOf(*_rules(value, "rules", 1)))
    except MalformedError as error:
        raise ConfigError(f"client rules: {error}") from error


def _rules(value: object, where: str, depth: int) -> list[Rule]:
    entries: list[object] = typed(where, value, list)
    return [_rule(entry, f"{where}[{index}]", depth) for index, entry in enumerate(entries)]


def _rule(entry: object, where: str, depth: int) -> Rule:
    table: Mapping[str, object] = typed(where, entry, dict)
    if len(table) != 1:
        raise ConfigError(f"client rules: {where} must name exactly one rule")
    ((name, value),) = table.items()
    if name in _COMBINATORS:
        if depth >= MAX_DEPTH:
            raise ConfigError(f"client rules: nested deeper than {MAX_DEPTH}")
        return _COMBINATORS[name](*_rules(value, f"{where}.{name}", depth + 1))
    if name not in _LEAVES:
        known = ", ".join(sorted(_LEAVES.keys() | _COMBINATORS.keys()))
        raise ConfigError(f"client rules: unknown rule {name!r}", hint=f"known: {known}")
    return _LEAVES[name](f"{where}.{name}", value)


def _digests(kind: Callable[[frozenset[bytes]], Rule]) -> Callable[[str, object], Rule]:
    def read(where: str, value: object) -> Rule:
        return kind(frozenset(parse_hex(item, 32, where) for item in strings(where, value)))

    return read


def _texts(kind: Callable[[frozenset[str]], Rule]) -> Callable[[str, object], Rule]:
    return lambda where, value: kind(frozenset(strings(where, value)))


def _number(kind: Callable[[int], Rule]) -> Callable[[str, object], Rule]:
    return lambda where, value: kind(typed(where, value, int))


def _tee_is(where: str, value: object) -> Rule:
    return leaves.TeeIs(frozenset(TeeKind.from_label(item) for item in strings(where, value)))


def _simulated_is(where: str, value: object) -> Rule:
    return leaves.SimulatedIs(typed(where, value, bool))


def _only_true(kind: Callable[[], Rule]) -> Callable[[str, object], Rule]:
    def read(where: str, value: object) -> Rule:
        if typed(where, value, bool) is not True:
            raise ConfigError(f"client rules: {where} can only be true")
        return kind()

    return read


def _unsafe_no_op(where: str, value: object) -> Rule:
    return UnsafeNoOp(typed(where, value, str))


_COMBINATORS: Final[Mapping[str, Callable[..., Rule]]] = {"all_of": AllOf, "any_of": AnyOf}
_LEAVES: Final[Mapping[str, Callable[[str, object], Rule]]] = {
    "advisory_not_in": _texts(hardware.AdvisoryNotIn),
    "config_in": _digests(leaves.ConfigIn),
    "gpu_count_at_least": _number(hardware.GpuCountAtLeast),
    "gpu_serial_in": _texts(hardware.GpuSerialIn),
    "gpu_serial_not_in": _texts(hardware.GpuSerialNotIn),
    "model_in": _digests(leaves.ModelIn),
    "node_in": _digests(leaves.NodeIn),
    "nvlink_encrypted": _only_true(hardware.NvlinkEncrypted),
    "platform_in": _digests(leaves.PlatformIn),
    "platform_not_in": _digests(leaves.PlatformNotIn),
    "release_in": _digests(leaves.ReleaseIn),
    "simulated_is": _simulated_is,
    "tcb_evaluation_at_least": _number(hardware.TcbEvaluationAtLeast),
    "tcb_not_tolerated": _only_true(hardware.TcbNotTolerated),
    "tcb_status_in": _texts(hardware.TcbStatusIn),
    "tee_is": _tee_is,
    "unsafe_no_op": _unsafe_no_op,
}
