"""Settings of the client and the gateway (``client.toml``).

Precedence: flag (`overrides`) > environment ``COCOON_<SECTION>_<KEY>`` > file > default. Unknown keys
are errors. Amounts are written in TON as strings (``"0.25"``) and held as integers in nanoton.
This module reads the environment only through the mapping it is given.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from cocoon_attestation.errors import ConfigError, MalformedError
from cocoon_attestation.policy_language import ClientRules
from cocoon_attestation.policy_language_toml import rules_from_value
from cocoon_attestation.types import NANOTON_PER_TON as NANO
from cocoon_attestation.types import parse_ton

MODES: Final = ("fetch", "offline", "stapled")
"""Values of `EndorsementConfig.mode`."""


def parse_amount(value: object) -> int:
    """Nanoton from a decimal number of TON; raises `ConfigError` if it is not exact or negative."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ConfigError(f'write an amount of TON as a string such as "0.25", not {value!r}')
    try:
        return parse_ton(str(value).strip())
    except MalformedError as error:
        raise ConfigError(f"{value!r}: {error}") from error


def _parse_int(value: object) -> int:
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigError(f"not a non-negative whole number: {value!r}")
    return value


def _parse_text(value: object) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"not a string: {value!r}")
    return value


def _parse_bool(value: object) -> bool:
    if isinstance(value, bool):
        return value
    match value:
        case "true" | "1":
            return True
        case "false" | "0":
            return False
    raise ConfigError(f"write true or false, not {value!r}")


def _parse_list(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(value, (list, tuple)) and all(isinstance(part, str) for part in value):
        return tuple(value)
    raise ConfigError(f"not a list of strings: {value!r}")


def _parse_mode(value: object) -> str:
    if value not in MODES:
        raise ConfigError(f"one of {', '.join(MODES)} expected, not {value!r}")
    return str(value)


def _parse_some(value: object) -> tuple[str, ...]:
    """A list of what is allowed: an empty one allows nothing, so it is refused and never read as "all"."""
    chosen = _parse_list(value)
    if not chosen:
        raise ConfigError("an empty list allows nothing", hint="leave the key out to allow everything")
    return chosen


def _parse_rules(value: object) -> ClientRules:
    """Client rules: a TOML array, or its text from the environment or a flag."""
    if isinstance(value, ClientRules):
        return value
    if isinstance(value, str):
        try:
            document = tomllib.loads(f"rules = {value}")
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"not a TOML array of rules: {error}") from error
        if document.keys() != {"rules"}:
            raise ConfigError("not one TOML array of rules")
        value = document["rules"]
    return rules_from_value(value)


def _setting(default: Any, parse: Callable[[object], object], *, secret: bool = False) -> Any:
    return field(default=default, metadata={"parse": parse}, repr=not secret)


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentConfig:
    """Money. Amounts in nanoton (TON strings in the file)."""

    deposit: int = _setting(NANO, parse_amount)
    """Put into a new channel."""
    request_cap: int = _setting(NANO // 4, parse_amount)
    """Most that one request may cost in the worst case."""
    daily_cap: int = _setting(5 * NANO, parse_amount)
    """Most that all requests of a UTC day may cost."""
    authorization_seconds: int = _setting(86_400, _parse_int)
    """Validity of an authorization."""
    open_timeout_seconds: int = _setting(120, _parse_int)
    """Longest wait for a channel to appear in proved chain state and for the node to know it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionConfig:
    """Verified connections to nodes."""

    limit_seconds: int = _setting(600, _parse_int)
    """A session is appraised again after this time at the latest."""
    registry_seconds: int = _setting(60, _parse_int)
    """The registry is read again after this time."""
    connect_seconds: int = _setting(10, _parse_int)
    """Limit for dialling and for fetching evidence."""
    first_byte_seconds: int = _setting(300, _parse_int)
    """Limit from sending a request to its head."""
    stall_seconds: int = _setting(120, _parse_int)
    """Limit between two pieces of an answer."""
    deadline_seconds: int = _setting(1800, _parse_int)
    """How long an answer is of use; the enclave stops work after it."""
    attempts: int = _setting(3, _parse_int)
    """Nodes tried for one request, while that is safe."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyOverrides:
    """What the user demands beyond the registry's policy. It can only tighten it."""

    models: tuple[str, ...] = _setting((), _parse_some)
    """If not empty: the only models to use, as ``name`` or ``name@digest``."""
    releases: tuple[str, ...] = _setting((), _parse_some)
    """If not empty: the only release ids to accept, hex."""
    nodes: tuple[str, ...] = _setting((), _parse_some)
    """If not empty: the only nodes to use, account id in hex."""
    denied_nodes: tuple[str, ...] = _setting((), _parse_list)
    """Nodes never to use, account id in hex."""
    min_tcb_evaluation: int = _setting(0, _parse_int)
    """Smallest TCB evaluation data number, if above the registry's."""
    rules: ClientRules | None = field(default=None, metadata={"parse": _parse_rules})
    """Rules that every appraised enclave must pass as well; see docs/spec/policy-language.md."""
    refuse_simulated: bool = _setting(False, _parse_bool)
    """Refuse simulated TEEs even where the network's registry names a development root."""
    max_prompt_price: int = _setting(0, _parse_int)
    """Highest price of a million prompt tokens, nanoton; 0 for no limit."""
    max_completion_price: int = _setting(0, _parse_int)
    """Highest price of a million generated tokens, nanoton; 0 for no limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayConfig:
    """The local HTTP and gRPC servers."""

    host: str = _setting("127.0.0.1", _parse_text)
    """Address to bind; anything but loopback needs `token`."""
    port: int = _setting(8480, _parse_int)
    """HTTP port; 0 picks a free one."""
    grpc_port: int = _setting(8481, _parse_int)
    """gRPC port, always on loopback; 0 picks a free one."""
    token: str = _setting("", _parse_text, secret=True)
    """Bearer token that every caller must show; empty for none."""
    allowed_origins: tuple[str, ...] = _setting((), _parse_list)
    """Web origins that may call, for example ``http://localhost:3000``. None by default."""
    allowed_hosts: tuple[str, ...] = _setting((), _parse_list)
    """Further values of the Host header that are accepted, without port."""
    max_body_bytes: int = _setting(8 * 1024 * 1024, _parse_int)
    """Longest request body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndorsementConfig:
    """Where this client gets vendors' statements that a node did not send, or not fresh enough."""

    mode: str = _setting("fetch", _parse_mode)
    """``fetch``, ``offline`` (only what was fetched before) or ``stapled`` (only what nodes send)."""
    pccs: str = _setting("", _parse_text)
    """Intel's statements come from this PCCS; empty: from Intel."""
    amd_kds: str = _setting("", _parse_text)
    """AMD's statements come from here; empty: from AMD."""
    nvidia_rim: str = _setting("", _parse_text)
    """Manifests come from here; empty: from NVIDIA."""
    nvidia_ocsp: str = _setting("", _parse_text)
    """Revocation answers come from here; empty: from NVIDIA."""
    nvidia_token: str = _setting("", _parse_text, secret=True)
    """Bearer token for the manifest service; empty for none."""
    ca_file: str = _setting("", _parse_text)
    """Further certificate authority for these services (PEM file)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """All settings of the client side."""

    payment: PaymentConfig = PaymentConfig()
    session: SessionConfig = SessionConfig()
    policy: PolicyOverrides = PolicyOverrides()
    gateway: GatewayConfig = GatewayConfig()
    endorsements: EndorsementConfig = EndorsementConfig()


_SECTIONS: Mapping[str, type[Any]] = {
    "payment": PaymentConfig,
    "session": SessionConfig,
    "policy": PolicyOverrides,
    "gateway": GatewayConfig,
    "endorsements": EndorsementConfig,
}


def load_config(
    path: Path | None = None,
    *,
    env: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> ClientConfig:
    """Settings from file, environment and flags; raises `ConfigError` naming the bad key.

    `overrides` maps dotted keys (``gateway.port``) to values. A `path` that does not exist is an error;
    None means defaults.
    """
    document = _read(path) if path is not None else {}
    unknown = set(document) - set(_SECTIONS)
    if unknown:
        raise ConfigError(f"unknown section {sorted(unknown)[0]!r} in {path}")
    flags = dict(overrides or {})
    sections = {
        name: _section(name, kind, document.get(name, {}), env or {}, flags)
        for name, kind in _SECTIONS.items()
    }
    if flags:
        raise ConfigError(f"unknown setting {sorted(flags)[0]!r}")
    return ClientConfig(**sections)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error


def _section(
    name: str,
    kind: type[Any],
    values: object,
    env: Mapping[str, str],
    flags: dict[str, object],
) -> Any:
    if not isinstance(values, Mapping):
        raise ConfigError(f"{name!r} must be a section")
    known = {item.name: item for item in fields(kind)}
    unknown = set(values) - set(known)
    if unknown:
        raise ConfigError(f"unknown setting {name}.{sorted(unknown)[0]}")
    chosen: dict[str, object] = {}
    for key, item in known.items():
        raw: object = MISSING
        for source, index in (
            (flags, f"{name}.{key}"),
            (env, f"COCOON_{name}_{key}".upper()),
            (values, key),
        ):
            if index in source:
                raw = source[index]
                break
        flags.pop(f"{name}.{key}", None)
        if raw is not MISSING:
            chosen[key] = _parsed(f"{name}.{key}", item.metadata["parse"], raw)
    return kind(**chosen)


def _parsed(key: str, parse: Callable[[object], object], raw: object) -> object:
    try:
        return parse(raw)
    except ConfigError as error:
        raise ConfigError(f"{key}: {error}") from error
