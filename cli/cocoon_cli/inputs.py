"""Reads what people give on the command line: files of bounded size, hex, times."""

from __future__ import annotations

import re
import time
from datetime import datetime
from pathlib import Path
from typing import Final

import click

from cocoon_attestation.errors import ConfigError, MalformedError

_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}")


def parse_time(text: str | None) -> int:
    """Unix seconds from ISO 8601 (with zone; a date alone is its start in UTC) or a number; None is now.

    Raises:
        click.UsageError: not a time, or one without a zone.
    """
    if text is None:
        return int(time.time())
    if text.isdecimal() and len(text) <= 11:
        return int(text)
    try:
        moment = datetime.fromisoformat(f"{text}T00:00:00Z" if _DATE.fullmatch(text) else text)
    except ValueError as error:
        raise click.UsageError(f"not a time: {text!r}") from error
    if moment.tzinfo is None:
        raise click.UsageError("give the time zone, for example 2026-11-22T12:00:00Z")
    return int(moment.timestamp())


def read_file(path: Path, limit: int) -> bytes:
    """The bytes of a file; ``-`` is standard input.

    Raises:
        click.UsageError: it cannot be read.
        MalformedError: it is larger than `limit` bytes.
    """
    try:
        with click.open_file(str(path), "rb") as file:
            data: bytes = file.read(limit + 1)
    except OSError as error:
        raise click.UsageError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > limit:
        raise MalformedError(f"{path} is larger than {limit} bytes")
    return data


def read_text(path: Path, limit: int = 1 << 20) -> str:
    """The text of a UTF-8 file.

    Raises:
        click.UsageError: it cannot be read.
        ConfigError: it is larger than `limit` bytes, or no text.
    """
    try:
        return read_file(path, limit).decode("utf-8")
    except (MalformedError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a text file of at most {limit} bytes") from error


def read_hex(text: str, size: int, what: str) -> bytes:
    """Exactly `size` bytes from hex, with or without ``0x``.

    Raises:
        click.UsageError: anything else.
    """
    try:
        value = bytes.fromhex(text.removeprefix("0x"))
    except ValueError as error:
        raise click.UsageError(f"{what}: hex digits are needed") from error
    if len(value) != size:
        raise click.UsageError(f"{what}: {2 * size} hex digits are needed")
    return value
