"""Single faults in boot event logs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cocoon_attestation.checks import CheckList
from cocoon_attestation.eventlog.ccel import LogEvent
from cocoon_attestation.eventlog.dstack import parse_dstack
from cocoon_attestation.eventlog.replay import replay, verify_eventlog

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from tests.attestation.fault_case import Build, Case, World
    from tests.attestation.kit_eventlog import (
        BOOT,
        RUNTIME,
        SEPARATOR,
        document,
        encode,
        entry,
        event,
        inserted,
        without,
    )
else:
    from fault_case import Build, Case, World
    from kit_eventlog import (
        BOOT,
        RUNTIME,
        SEPARATOR,
        document,
        encode,
        entry,
        event,
        inserted,
        without,
    )


def replayed(events: Sequence[LogEvent]) -> Build:
    """A log that explains all registers."""
    return lambda world: verify_eventlog(encode(events), replay(events))


def structure(events: Sequence[LogEvent]) -> Case:
    """A case about which events there are."""
    return Case(good=replayed(BOOT), bad=replayed(events))


def other_register(number: int) -> Case:
    def bad(world: World) -> CheckList:
        registers = list(replay(BOOT))
        registers[number] = b"\x07" * 48
        return verify_eventlog(encode(BOOT), registers)

    return Case(good=replayed(BOOT), bad=bad)


def runtime(*entries: dict[str, Any]) -> Build:
    """A dstack log that explains all registers."""
    data = document(*entries)
    return lambda world: verify_eventlog(data, replay(parse_dstack(data).events))


CASES: dict[str, Case] = {
    **{f"eventlog.rtmr{number}": other_register(number) for number in range(4)},
    "eventlog.types": structure(inserted(7, event(2, 0x13, b"?"))),
    "eventlog.preimage": structure(inserted(7, event(2, 0x8000_0007, b"what the host says", b"\x05" * 48))),
    "eventlog.separators": structure(inserted(8, event(2, 4, SEPARATOR))),
    "eventlog.preboot": structure(inserted(4, event(0, 0x8000_0001, b"late variable"))),
    "eventlog.exit_boot": structure(without(9)),
    "eventlog.ready": Case(good=runtime(*RUNTIME), bad=runtime(*RUNTIME[:2])),
    "eventlog.unique": Case(
        good=runtime(*RUNTIME),
        bad=runtime(*RUNTIME[:2], entry("compose-hash", b"\xee"), RUNTIME[2]),
    ),
}
