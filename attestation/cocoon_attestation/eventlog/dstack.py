"""Parser of the JSON event log of dstack guests (RTMR3 events of the dstack agent included).

Form: a list of ``{imr, event_type, digest, event, event_payload}``; also accepted inside an object
under ``event_log``, as a list or as a string that holds one. For RTMR3 the digest in the file is
ignored and computed from name and payload:
SHA-384(event type, 4 bytes little-endian ‖ ":" ‖ name ‖ ":" ‖ payload).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Final, NoReturn

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.eventlog.ccel import MAX_EVENT_DATA, MAX_EVENTS, MAX_LOG, LogEvent

RUNTIME_EVENT_TYPE: Final = 0x0800_0001
RUNTIME_REGISTER: Final = 3
READY_EVENT: Final = "system-ready"
MAX_NAME: Final = 256
_KEYS: Final = frozenset({"imr", "event_type", "digest", "event", "event_payload"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeEvent:
    """An RTMR3 event of the agent, authentic after replay because its digest was recomputed."""

    name: str
    payload: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DstackLog:
    """All events in file order, and the runtime events split at ``system-ready``."""

    events: tuple[LogEvent, ...]
    boot_events: tuple[RuntimeEvent, ...]
    """Up to and including ``system-ready``: written by the measured agent."""
    app_events: tuple[RuntimeEvent, ...]
    """After it: the application chose name and payload. Never policy input."""


def parse_dstack(data: bytes) -> DstackLog:
    """Parse a JSON log of at most 1 MiB.

    Raises:
        MalformedError: not JSON, a repeated or unknown key, a value out of range, or a runtime event
            whose name contains a colon (its digest would not say where the name ends).
    """
    entries = _load(data)
    events: list[LogEvent] = []
    runtime: list[RuntimeEvent] = []
    for entry in entries:
        event, named = _parse_entry(entry)
        events.append(event)
        if named is not None:
            runtime.append(named)
    names = [event.name for event in runtime]
    split = names.index(READY_EVENT) + 1 if READY_EVENT in names else len(names)
    return DstackLog(
        events=tuple(events), boot_events=tuple(runtime[:split]), app_events=tuple(runtime[split:])
    )


def runtime_digest(name: str, payload: bytes) -> bytes:
    """The 48-byte digest of an RTMR3 event."""
    kind = RUNTIME_EVENT_TYPE.to_bytes(4, "little")
    return hashlib.sha384(b":".join((kind, name.encode(), payload))).digest()


def _load(data: bytes) -> list[object]:
    if len(data) > MAX_LOG:
        raise MalformedError("the event log is too long")
    document = _json(bytes(data))
    if isinstance(document, dict):
        document = document.get("event_log")
        if isinstance(document, str):
            document = _json(document)
    if not isinstance(document, list) or not 1 <= len(document) <= MAX_EVENTS:
        raise MalformedError("the event log is not a list of events")
    return document


def _json(data: bytes | str) -> object:
    try:
        return json.loads(data, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise MalformedError("the event log is not JSON") from error


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise MalformedError("a key is repeated in the event log")
    return result


def _no_constant(name: str) -> NoReturn:
    raise MalformedError(f"{name} is not a value of an event log")


def _parse_entry(entry: object) -> tuple[LogEvent, RuntimeEvent | None]:
    if not isinstance(entry, dict) or set(entry) != _KEYS:
        raise MalformedError("an event has missing or unknown keys")
    register, kind, name = entry["imr"], entry["event_type"], entry["event"]
    if type(register) is not int or not 0 <= register <= 3:
        raise MalformedError("imr is not 0 to 3")
    if type(kind) is not int or not 0 <= kind < 1 << 32:
        raise MalformedError("event_type is not a 32-bit number")
    if not isinstance(name, str) or len(name) > MAX_NAME or not name.isprintable():
        raise MalformedError("an event name is not a short printable text")
    payload = _hex(entry["event_payload"], "event_payload", MAX_EVENT_DATA)
    if register != RUNTIME_REGISTER:
        digest = _hex(entry["digest"], "digest", 48)
        if len(digest) != 48:
            raise MalformedError("the digest of a boot event has 48 bytes")
        return LogEvent(register=register, type=kind, digest=digest, data=payload), None
    if kind != RUNTIME_EVENT_TYPE or not name or ":" in name:
        raise MalformedError("a runtime event has another type, no name, or a colon in its name")
    _hex(entry["digest"], "digest", 48)
    event = LogEvent(register=register, type=kind, digest=runtime_digest(name, payload), data=payload)
    return event, RuntimeEvent(name=name, payload=payload)


def _hex(value: object, what: str, limit: int) -> bytes:
    if not isinstance(value, str) or len(value) > 2 * limit:
        raise MalformedError(f"{what} is not a short hex text")
    try:
        raw = bytes.fromhex(value)
    except ValueError as error:
        raise MalformedError(f"{what} is not hex") from error
    if 2 * len(raw) != len(value):
        raise MalformedError(f"{what} is not plain hex")
    return raw
