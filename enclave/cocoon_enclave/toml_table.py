"""Reads TOML tables strictly: every key has a type and a range, and a key nobody asked for is an error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from cocoon_attestation.errors import ConfigError, MalformedError
from cocoon_attestation.types import Digest32, parse_hex


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


T = TypeVar("T", bound=_Dataclass)


class Table:
    """A TOML table that knows which of its keys were not asked for. Every method raises `ConfigError`."""

    def __init__(self, values: Mapping[str, object], name: str, base: Path) -> None:
        self._values = values
        self._left = set(values)
        self._name = name
        self._base = base

    def _full(self, key: str) -> str:
        return f"{self._name}.{key}" if self._name else key

    def has(self, key: str) -> bool:
        """True if the key is set."""
        return key in self._values

    def _take(self, key: str, default: object = None) -> object:
        self._left.discard(key)
        value = self._values.get(key, default)
        if value is None:
            raise ConfigError(f"{self._full(key)}: missing")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """Text that is not empty."""
        value = self._take(key, default)
        if not isinstance(value, str) or not value:
            raise ConfigError(f"{self._full(key)}: text expected")
        return value

    def choice(self, key: str, options: tuple[str, ...]) -> str:
        """One of `options`."""
        value = self.text(key)
        if value not in options:
            raise ConfigError(f"{self._full(key)}: one of {', '.join(options)} expected")
        return value

    def integer(self, key: str, default: int | None = None, *, low: int = 0, high: int = 2**63 - 1) -> int:
        """An integer in a range."""
        value = self._take(key, default)
        if type(value) is not int or not low <= value <= high:
            raise ConfigError(f"{self._full(key)}: integer from {low} to {high} expected")
        return value

    def digest(self, key: str) -> Digest32:
        """32 bytes as 64 lower-case hex digits."""
        return self._digest(self._take(key), key)

    def digests(self, key: str) -> tuple[Digest32, ...]:
        """A list of digests; empty if the key is not set."""
        value = self._take(key, [])
        if not isinstance(value, list):
            raise ConfigError(f"{self._full(key)}: list expected")
        return tuple(self._digest(item, key) for item in value)

    def _digest(self, value: object, key: str) -> Digest32:
        try:
            return Digest32(parse_hex(value, 32))
        except MalformedError as error:
            raise ConfigError(f"{self._full(key)}: {error}") from error

    def path(self, key: str) -> Path:
        """A path; relative ones start at the configuration file."""
        return self._base / Path(self.text(key)).expanduser()

    def path_or_none(self, key: str) -> Path | None:
        """A path, or None if the key is not set."""
        return self.path(key) if self.has(key) else None

    def table(self, key: str) -> Table:
        """A table; empty if the key is not set."""
        value = self._take(key, {})
        if not isinstance(value, dict):
            raise ConfigError(f"{self._full(key)}: table expected")
        return Table(value, self._full(key), self._base)

    def tables(self, key: str) -> list[Table]:
        """A list of tables; empty if the key is not set."""
        value = self._take(key, [])
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise ConfigError(f"{self._full(key)}: list of tables expected")
        return [Table(item, self._full(key), self._base) for item in value]

    def fill(self, defaults: T) -> T:
        """A flat dataclass of numbers and texts: `defaults` with the table's keys. Ends the table."""
        values: dict[str, object] = {}
        for spec in fields(defaults):
            default = getattr(defaults, spec.name)
            if isinstance(default, str):
                values[spec.name] = self.text(spec.name, default)
            elif isinstance(default, float):
                values[spec.name] = self.number(spec.name, default)
            else:
                values[spec.name] = self.integer(spec.name, default)
        self.end()
        return type(defaults)(**values)

    def number(self, key: str, default: float) -> float:
        """A number from 0."""
        value = self._take(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e9:
            raise ConfigError(f"{self._full(key)}: number from 0 expected")
        return float(value)

    def end(self) -> None:
        """Raise `ConfigError` if a key was not used."""
        if self._left:
            raise ConfigError(f"unknown key: {', '.join(self._full(key) for key in sorted(self._left))}")
