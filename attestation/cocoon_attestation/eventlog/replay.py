"""Replay of event logs into register values, and the rules on what a log may look like.

Only the sequence of digests is authenticated, and only if every replayed register equals the one in
the quote. Event types, event data and the grouping are words of the host, unless a digest is the hash
of the data. So these rules recognise events by their digests. Rules: docs/spec/eventlog.md.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from cocoon_attestation.checks import CheckList
from cocoon_attestation.errors import MalformedError
from cocoon_attestation.eventlog.ccel import EV_SEPARATOR, LogEvent, parse_ccel
from cocoon_attestation.eventlog.dstack import READY_EVENT, DstackLog, parse_dstack

REGISTERS: Final = 4
ZERO_REGISTER: Final = bytes(48)

EV_EFI_VARIABLE_DRIVER_CONFIG: Final = 0x8000_0001
EV_EFI_GPT_EVENT: Final = 0x8000_0006
EV_EFI_ACTION: Final = 0x8000_0007
EV_EFI_VARIABLE_AUTHORITY: Final = 0x8000_00E0

_SEPARATOR: Final = hashlib.sha384(bytes(4)).digest()
_EXIT_BOOT: Final = tuple(
    hashlib.sha384(text).digest()
    for text in (b"Exit Boot Services Invocation", b"Exit Boot Services Returned with Success")
)
_PREIMAGE_TYPES: Final = frozenset(
    {
        EV_SEPARATOR,
        EV_EFI_VARIABLE_DRIVER_CONFIG,
        EV_EFI_GPT_EVENT,
        EV_EFI_ACTION,
        EV_EFI_VARIABLE_AUTHORITY,
    }
)
"""Types whose digest is the hash of the event data."""
_KNOWN_TYPES: Final = frozenset(
    {*range(0x13), *range(0x8000_0001, 0x8000_0011), *range(0x8000_00E0, 0x8000_00E5)}
)
"""Types of the PC Client Platform Firmware Profile."""
_SPEC: Final = "docs/spec/eventlog.md#"


class SeparatorLayout(enum.Enum):
    """How many separators firmware extends into RTMR0 and RTMR1."""

    CURRENT = (1, 1)
    """After the secure boot variables into RTMR0, at "ready to boot" into RTMR1."""
    EARLY_OVMF = (2, 0)
    """Both into RTMR0, as OVMF builds before the UEFI 2.10 mapping did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventLogPolicy:
    """Which logs are acceptable beside equal registers."""

    registers: frozenset[int] = frozenset(range(REGISTERS))
    """Registers the log must explain. Leave out the ones another log explains."""
    layouts: frozenset[SeparatorLayout] = frozenset(SeparatorLayout)
    """Name the one layout of the firmware where the image is pinned."""


def replay(events: Iterable[LogEvent]) -> tuple[bytes, bytes, bytes, bytes]:
    """Return RTMR0 to RTMR3 after all `events`: register = SHA-384(register ‖ digest), from zero."""
    registers = [ZERO_REGISTER] * REGISTERS
    for event in events:
        registers[event.register] = hashlib.sha384(registers[event.register] + event.digest).digest()
    return registers[0], registers[1], registers[2], registers[3]


def parse_eventlog(data: bytes) -> tuple[tuple[LogEvent, ...], DstackLog | None]:
    """Parse a CCEL or a dstack JSON log; the second value is None for CCEL.

    Raises:
        MalformedError: neither form.
    """
    if data[:64].lstrip()[:1] in (b"{", b"["):
        log = parse_dstack(data)
        return log.events, log
    return parse_ccel(data), None


def verify_eventlog(
    data: bytes, registers: Sequence[bytes] | None, policy: EventLogPolicy | None = None
) -> CheckList:
    """Replay a log, compare it with the `registers` of a verified quote, and check its structure.

    `registers` are RTMR0 to RTMR3, 48 bytes each. None means that there is no quote: those checks are
    skipped, so the result is never `accepted`.

    Raises:
        MalformedError: the log does not parse, or `registers` are not four times 48 bytes.
    """
    policy = policy or EventLogPolicy()
    if registers is not None and [len(r) for r in registers] != [48] * REGISTERS:
        raise MalformedError("four registers of 48 bytes are expected")
    events, log = parse_eventlog(data)
    checks = CheckList()
    replayed = replay(events)
    for i in range(REGISTERS):
        check = f"eventlog.rtmr{i}"
        if registers is None:
            checks.skip(check, f"no quote to compare with {replayed[i].hex()}", spec=_SPEC + check)
        elif i in policy.registers:
            same = hmac.compare_digest(replayed[i], bytes(registers[i]))
            extended = [event for event in events if event.register == i]
            inputs = (
                *((f"digest {number}", event.digest.hex()) for number, event in enumerate(extended)),
                ("replayed", replayed[i].hex()),
                ("quoted", registers[i].hex()),
            )
            detail = f"replayed {replayed[i].hex()}, quote {registers[i].hex()}"
            _record(checks, check, same, detail, inputs=inputs)
    _check_structure(checks, events, policy)
    if log is not None:
        _check_runtime(checks, log)
    return checks


def _check_structure(checks: CheckList, events: tuple[LogEvent, ...], policy: EventLogPolicy) -> None:
    boot = [event for event in events if event.register < 3]
    unknown = sorted({event.type for event in boot} - _KNOWN_TYPES)
    _record(
        checks,
        "eventlog.types",
        not unknown,
        "unknown event types: " + (", ".join(f"0x{kind:x}" for kind in unknown) or "none"),
    )
    wrong = [
        event for event in boot if event.type in _PREIMAGE_TYPES and event.data and not event.data_verified
    ]
    data = [event for event in boot if event.type in _PREIMAGE_TYPES and event.data]
    _record(
        checks,
        "eventlog.preimage",
        not wrong,
        f"events whose data was changed: {len(wrong)}",
        inputs=tuple((f"preimage {number}", event.data.hex()) for number, event in enumerate(data)),
    )
    _check_separators(checks, boot, policy)
    if 1 in policy.registers:
        _check_exit_boot(checks, boot)


def _check_separators(checks: CheckList, boot: list[LogEvent], policy: EventLogPolicy) -> None:
    counts = [0, 0, 0]
    late = 0
    mislabelled = 0
    for event in boot:
        if event.digest == _SEPARATOR:
            counts[event.register] += 1
        elif event.type == EV_SEPARATOR:
            mislabelled += 1
        elif event.register == 0 and counts[0] and event.type == EV_EFI_VARIABLE_DRIVER_CONFIG:
            late += 1
    fits = counts[2] == 0 and any((counts[0], counts[1]) == layout.value for layout in policy.layouts)
    _record(
        checks,
        "eventlog.separators",
        fits and not mislabelled,
        f"separators in RTMR0, 1, 2: {counts}; error separators: {mislabelled}",
    )
    _record(checks, "eventlog.preboot", late == 0, f"secure boot variables after the separator: {late}")


def _check_exit_boot(checks: CheckList, boot: list[LogEvent]) -> None:
    """RTMR1 must end with the two events that mark the hand-over to the kernel, each there once."""
    digests = [event.digest for event in boot if event.register == 1]
    once = all(digests.count(digest) == 1 for digest in _EXIT_BOOT)
    _record(
        checks,
        "eventlog.exit_boot",
        once and tuple(digests[-2:]) == _EXIT_BOOT,
        "RTMR1 ends with the two ExitBootServices events",
    )


def _check_runtime(checks: CheckList, log: DstackLog) -> None:
    names = [event.name for event in log.boot_events]
    _record(
        checks,
        "eventlog.ready",
        names[-1:] == [READY_EVENT] and READY_EVENT not in (e.name for e in log.app_events),
        f"{READY_EVENT} is present once",
    )
    repeated = sorted({name for name in names if names.count(name) > 1})
    _record(
        checks, "eventlog.unique", not repeated, "repeated boot events: " + (", ".join(repeated) or "none")
    )


def _record(
    checks: CheckList, check: str, ok: bool, detail: str, inputs: tuple[tuple[str, str], ...] = ()
) -> None:
    checks.record(check, ok, detail, spec=_SPEC + check, inputs=inputs)
