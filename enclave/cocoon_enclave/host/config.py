"""Settings of the host agent (``host.toml``). Unknown keys are errors; amounts in TON, held as nanoton."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from cocoon_attestation.errors import ConfigError, MalformedError
from cocoon_attestation.payment import PriceList
from cocoon_enclave.host.plan import HostTerms
from cocoon_ton.amounts import parse_ton


@dataclass(frozen=True, slots=True, kw_only=True)
class HostConfig:
    """Everything the agent is told."""

    network: str
    """Name or path of the network."""
    host_service: str
    """``host:port`` of the enclave's HostService: loopback or vsock."""
    state: Path
    """Directory of the wallet and the outbox."""
    terms: HostTerms
    models: tuple[bytes, ...]
    """Digests of the models that the enclave serves, 32 bytes each."""
    simulated: bool
    salt: int = 0
    """Which of the owner's nodes this is."""
    poll_s: float = 5.0
    """Pause between two looks at enclave and chain."""


def load_host_config(path: Path) -> HostConfig:
    """Read ``host.toml``; relative paths are relative to it. Raises `ConfigError` naming the bad key."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    return parse_host_config(document, base=path.parent)


def parse_host_config(document: Mapping[str, object], *, base: Path) -> HostConfig:
    """Build the settings from a parsed document. Raises `ConfigError`."""
    known = {
        "network", "host_service", "state", "endpoint", "models", "simulated", "salt", "stake",
        "working_balance", "prices", "poll_s", "anchor_every_s", "anchor_margin_s", "settle_above",
        "settle_minimum", "renew_before_s", "settle_before_s",
    }  # fmt: skip
    unknown = set(document) - known
    if unknown:
        raise ConfigError(f"unknown setting {sorted(unknown)[0]!r} in host.toml")
    defaults = {f.name: f.default for f in fields(HostTerms)}
    seconds = {
        name: _integer(document, name, defaults[name])
        for name in ("anchor_every_s", "anchor_margin_s", "renew_before_s", "settle_before_s")
    }
    terms = HostTerms(
        endpoint=_text(document, "endpoint"),
        prices=_prices(document.get("prices", {})),
        stake=_amount(document, "stake"),
        settle_above=_amount(document, "settle_above", "0.2"),
        settle_minimum=_amount(document, "settle_minimum", "0.005"),
        working_balance=_amount(document, "working_balance", "0.5"),
        **seconds,
    )
    return HostConfig(
        network=_text(document, "network"),
        host_service=_text(document, "host_service"),
        state=base / _text(document, "state"),
        terms=terms,
        models=_digests(document.get("models")),
        simulated=document.get("simulated") is True,
        salt=_integer(document, "salt", 0),
        poll_s=_seconds(document.get("poll_s", 5.0)),
    )


def _text(document: Mapping[str, object], key: str) -> str:
    value = document.get(key)
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{key}: a string is needed")
    return value


def _integer(document: Mapping[str, object], key: str, default: object) -> int:
    value = document.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigError(f"{key}: a non-negative whole number is needed")
    return value


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0.05 <= value <= 3600:
        raise ConfigError("poll_s: seconds from 0.05 to 3600 are needed")
    return float(value)


def _amount(document: Mapping[str, object], key: str, default: str | None = None) -> int:
    value = document.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ConfigError(f'{key}: write an amount of TON as a string such as "10.5"')
    try:
        return parse_ton(str(value))
    except MalformedError as error:
        raise ConfigError(f"{key}: {error}") from error


def _prices(value: object) -> PriceList:
    if not isinstance(value, Mapping) or set(value) != {"prompt", "cached", "completion"}:
        raise ConfigError("prices: prompt, cached and completion are needed, nanoton per million tokens")
    return PriceList(**{name: _price(value[name], name) for name in ("prompt", "cached", "completion")})


def _price(value: object, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 64:
        raise ConfigError(f"prices.{name}: a non-negative whole number of nanoton is needed")
    return value


def _digests(value: object) -> tuple[bytes, ...]:
    if not isinstance(value, list) or not value:
        raise ConfigError("models: a list of model digests in hex is needed")
    try:
        digests = tuple(bytes.fromhex(str(item)) for item in value)
    except ValueError as error:
        raise ConfigError("models: digests are 64 hex digits") from error
    if any(len(digest) != 32 for digest in digests):
        raise ConfigError("models: digests are 64 hex digits")
    return digests
