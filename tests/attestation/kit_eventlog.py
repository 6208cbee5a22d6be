"""Boot event logs for tests: a healthy one in both forms, and the parts to build others."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable
from typing import Any

from cocoon_attestation.eventlog.ccel import LogEvent
from cocoon_attestation.eventlog.dstack import READY_EVENT, RUNTIME_EVENT_TYPE, runtime_digest

SEPARATOR = bytes(4)
INVOCATION = b"Exit Boot Services Invocation"
RETURNED = b"Exit Boot Services Returned with Success"
HEADER = (
    struct.pack("<II20sI", 1, 3, bytes(20), 33)
    + b"Spec ID Event03\x00"
    + bytes(4)
    + bytes.fromhex("00020002010000000c00300000")
)


def event(register: int, kind: int, data: bytes, digest: bytes | None = None) -> LogEvent:
    """An event whose digest is the hash of its data, unless another is given."""
    return LogEvent(register=register, type=kind, digest=digest or hashlib.sha384(data).digest(), data=data)


BOOT = (
    event(0, 0x8000_000B, b"HOB", b"\x01" * 48),
    event(0, 0x8000_0001, b"SecureBoot variable"),
    event(0, 0x04, SEPARATOR),
    event(0, 0x0A, b"ACPI DATA", b"\x02" * 48),
    event(1, 0x8000_0007, b"Calling EFI Application from Boot Option"),
    event(1, 0x04, SEPARATOR),
    event(1, 0x8000_0003, b"path", b"\x03" * 48),
    event(2, 0x06, b"LoadOptions", b"\x04" * 48),
    event(1, 0x8000_0007, INVOCATION),
    event(1, 0x8000_0007, RETURNED),
)


def encode(events: Iterable[LogEvent], tail: bytes = b"") -> bytes:
    """The CCEL form of `events`."""
    return HEADER + b"".join(map(record, events)) + tail


def record(one: LogEvent) -> bytes:
    return (
        struct.pack("<IIIH", one.register + 1, one.type, 1, 0x0C)
        + one.digest
        + struct.pack("<I", len(one.data))
        + one.data
    )


def without(*positions: int) -> list[LogEvent]:
    return [one for i, one in enumerate(BOOT) if i not in positions]


def inserted(position: int, one: LogEvent) -> list[LogEvent]:
    return [*BOOT[:position], one, *BOOT[position:]]


def entry(name: str, payload: bytes = b"", **changes: Any) -> dict[str, Any]:
    one = {
        "imr": 3,
        "event_type": RUNTIME_EVENT_TYPE,
        "digest": runtime_digest(name, payload).hex(),
        "event": name,
        "event_payload": payload.hex(),
    }
    return {**one, **changes}


def boot_entries() -> list[dict[str, Any]]:
    return [
        {
            "imr": one.register,
            "event_type": one.type,
            "digest": one.digest.hex(),
            "event": "",
            "event_payload": one.data.hex(),
        }
        for one in BOOT
    ]


RUNTIME = (entry("app-id", b"\x01"), entry("compose-hash", b"\x02"), entry(READY_EVENT))


def document(*runtime: dict[str, Any]) -> bytes:
    return json.dumps([*boot_entries(), *runtime]).encode()
