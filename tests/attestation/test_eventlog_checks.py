"""Each event log check fails alone on a log that was built with exactly that fault."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import struct
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoon_attestation.checks import CheckList
from cocoon_attestation.errors import MalformedError
from cocoon_attestation.eventlog import ccel
from cocoon_attestation.eventlog.ccel import LogEvent, parse_ccel
from cocoon_attestation.eventlog.dstack import (
    MAX_NAME,
    parse_dstack,
)
from cocoon_attestation.eventlog.replay import EventLogPolicy, replay, verify_eventlog

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from tests.attestation.kit_eventlog import (
        BOOT,
        HEADER,
        RUNTIME,
        SEPARATOR,
        boot_entries,
        document,
        encode,
        entry,
        event,
        inserted,
        record,
        without,
    )
else:
    from kit_eventlog import (
        BOOT,
        HEADER,
        RUNTIME,
        SEPARATOR,
        boot_entries,
        document,
        encode,
        entry,
        event,
        inserted,
        record,
        without,
    )


def check(events: Iterable[LogEvent], **policy: Any) -> CheckList:
    listed = list(events)
    return verify_eventlog(encode(listed), replay(listed), EventLogPolicy(**policy))


def failed(events: Iterable[LogEvent], **policy: Any) -> list[str]:
    return [one.id for one in check(events, **policy).failed]


def test_healthy_log_is_accepted() -> None:
    assert check(BOOT).accepted
    assert parse_ccel(encode(BOOT)) == BOOT


@pytest.mark.parametrize("register", [0, 1, 2, 3])
def test_each_register_must_be_equal(register: int) -> None:
    registers = [bytes(r) for r in replay(BOOT)]
    registers[register] = b"\x07" * 48
    checks = verify_eventlog(encode(BOOT), registers)
    assert [one.id for one in checks.failed] == [f"eventlog.rtmr{register}"]
    others = frozenset(range(4)) - {register, 1}
    assert verify_eventlog(encode(BOOT), registers, EventLogPolicy(registers=others)).accepted


def test_missing_and_reordered_events_do_not_replay() -> None:
    for events in (without(3), [*BOOT[:6], BOOT[8], BOOT[6], BOOT[7], BOOT[9]], [*BOOT, BOOT[7]]):
        checks = verify_eventlog(encode(events), replay(BOOT))
        assert any(one.id.startswith("eventlog.rtmr") for one in checks.failed)


@pytest.mark.parametrize(
    "events",
    [
        without(2),
        without(5),
        inserted(3, event(0, 4, SEPARATOR)),
        inserted(6, event(1, 4, SEPARATOR)),
        inserted(8, event(2, 4, SEPARATOR)),
        inserted(3, event(0, 9, b"no separator", hashlib.sha384(SEPARATOR).digest())),
        [*BOOT[:2], event(0, 4, b"\x01\x00\x00\x00"), *BOOT[3:]],
    ],
)
def test_separators_follow_a_known_layout(events: list[LogEvent]) -> None:
    """A separator is known by its digest, whatever the log calls it."""
    assert failed(events) == ["eventlog.separators"]


def test_early_firmware_has_both_separators_in_rtmr0() -> None:
    events = [*BOOT[:5], event(0, 4, SEPARATOR), *BOOT[6:]]
    assert check(events).accepted


def test_secure_boot_variable_after_the_separator() -> None:
    assert failed(inserted(4, event(0, 0x8000_0001, b"late variable"))) == ["eventlog.preboot"]


@pytest.mark.parametrize("kind", [0x04, 0x8000_0001, 0x8000_0006, 0x8000_0007, 0x8000_00E0])
def test_changed_data_of_an_event_that_is_its_own_preimage(kind: int) -> None:
    changed = event(2, kind, b"what the host says", b"\x05" * 48)
    assert "eventlog.preimage" in failed(inserted(7, changed))


def test_data_may_be_left_out() -> None:
    """Some agents strip the data; then nothing can be read from it and nothing is claimed."""
    bare = [dataclasses.replace(one, data=b"") for one in BOOT]
    assert check(bare).accepted
    assert not bare[1].data_verified


@pytest.mark.parametrize("kind", [0x13, 0x8000_0000, 0x8000_0011, 0x0800_0001, 0xFFFF_FFFE])
def test_unknown_event_type(kind: int) -> None:
    assert failed(inserted(7, event(2, kind, b"?"))) == ["eventlog.types"]


@pytest.mark.parametrize(
    "events",
    [
        without(8),
        without(9),
        without(8, 9),
        [*BOOT[:8], BOOT[9], BOOT[8]],
        [*BOOT, event(1, 0x8000_0003, b"late", b"\x06" * 48)],
        inserted(8, BOOT[8]),
    ],
)
def test_hand_over_to_the_kernel_ends_rtmr1(events: list[LogEvent]) -> None:
    assert failed(events) == ["eventlog.exit_boot"]
    assert check(events, registers=frozenset({0, 2, 3})).accepted


def test_informative_records_extend_nothing() -> None:
    note = struct.pack("<IIIH", 1, 3, 1, 0x0C) + bytes(48) + struct.pack("<I", 4) + b"note"
    data = HEADER + note + encode(BOOT)[len(HEADER) :]
    assert parse_ccel(data) == BOOT


@pytest.mark.parametrize("tail", [b"\xff" * 64, bytes(64), b"\xff" * 3, bytes(1)])
def test_padding_is_ignored(tail: bytes) -> None:
    assert parse_ccel(encode(BOOT, tail)) == BOOT


@pytest.mark.parametrize(
    "data",
    [
        b"",
        HEADER[:-1],
        b"\x01" * 64,
        HEADER.replace(b"Event03", b"Event02"),
        HEADER[:8] + b"\x01" + HEADER[9:],
        HEADER[:28] + struct.pack("<I", 34) + HEADER[32:],
        HEADER[:56] + struct.pack("<I", 9) + HEADER[60:],
        HEADER.replace(b"\x0c\x00\x30\x00", b"\x0c\x00\x20\x00"),
        HEADER.replace(b"\x0c\x00\x30\x00", b"\x0b\x00\x20\x00"),
        HEADER.replace(b"\x0c\x00\x30\x00", b"\x99\x00\x30\x00"),
        encode(BOOT, b"\xff" * 16 + b"x"),
        encode(BOOT, bytes(16) + b"x"),
        encode(BOOT)[:-1],
        encode([dataclasses.replace(BOOT[0], register=-1)]),
        encode([dataclasses.replace(BOOT[0], register=4)]),
        HEADER + struct.pack("<III", 1, 4, 2) + record(BOOT[0])[12:],
        HEADER + struct.pack("<IIIH", 1, 4, 1, 0x0B) + bytes(60),
        HEADER + struct.pack("<IIIH", 1, 4, 1, 0x0C) + bytes(48) + struct.pack("<I", 1 << 31),
        bytes(ccel.MAX_LOG + 1),
    ],
)
def test_deviations_from_the_layout_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_ccel(data)


def test_number_of_events_is_limited() -> None:
    small = event(2, 0x0D, b"")
    assert len(parse_ccel(encode([small] * ccel.MAX_EVENTS))) == ccel.MAX_EVENTS
    with pytest.raises(MalformedError, match="too many"):
        parse_ccel(encode([small] * (ccel.MAX_EVENTS + 1)))


@given(st.binary(max_size=400))
def test_any_bytes_are_a_log_or_malformed(data: bytes) -> None:
    try:
        verify_eventlog(data, None)
    except MalformedError:
        return


@given(st.binary(max_size=200))
def test_any_events_are_a_log_or_malformed(data: bytes) -> None:
    try:
        events = parse_ccel(HEADER + data)
    except MalformedError:
        return
    assert encode(events)[: len(HEADER)] == HEADER


@given(st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=20)), max_size=20))
def test_round_trip(pairs: list[tuple[int, bytes]]) -> None:
    events = tuple(event(register, 0x0D, data) for register, data in pairs)
    assert parse_ccel(encode(events)) == events
    expected = [bytes(48)] * 4
    for register, data in pairs:
        digest = hashlib.sha384(data).digest()
        expected[register] = hashlib.sha384(expected[register] + digest).digest()
    assert list(replay(events)) == expected


def test_registers_have_their_size() -> None:
    with pytest.raises(MalformedError):
        verify_eventlog(encode(BOOT), [bytes(48)] * 3)
    with pytest.raises(MalformedError):
        verify_eventlog(encode(BOOT), [bytes(47)] * 4)


# --- dstack --------------------------------------------------------------------------------------


def runtime_failed(*runtime: dict[str, Any]) -> list[str]:
    data = document(*runtime)
    return [one.id for one in verify_eventlog(data, replay(parse_dstack(data).events)).failed]


def test_healthy_dstack_log_is_accepted() -> None:
    assert runtime_failed(*RUNTIME, entry("anything", b"of the app")) == []


def test_supplied_runtime_digests_do_not_matter() -> None:
    for digest in ("", "00" * 48):
        odd = [{**one, "digest": digest} for one in RUNTIME]
        assert parse_dstack(document(*odd)) == parse_dstack(document(*RUNTIME))


def test_changed_payload_does_not_replay() -> None:
    registers = replay(parse_dstack(document(*RUNTIME)).events)
    changed = document(RUNTIME[0], entry("compose-hash", b"\x03"), RUNTIME[2])
    assert [one.id for one in verify_eventlog(changed, registers).failed] == ["eventlog.rtmr3"]


def test_application_cannot_append_a_second_compose_hash_to_the_boot_events() -> None:
    log = parse_dstack(document(*RUNTIME, entry("compose-hash", b"\xee")))
    assert [one.name for one in log.boot_events].count("compose-hash") == 1
    assert [one.payload for one in log.app_events] == [b"\xee"]
    assert runtime_failed(RUNTIME[0], RUNTIME[1], entry("compose-hash", b"\xee"), RUNTIME[2]) == [
        "eventlog.unique"
    ]


@pytest.mark.parametrize("runtime", [RUNTIME[:2], (*RUNTIME, RUNTIME[2]), ()])
def test_ready_is_there_once(runtime: tuple[dict[str, Any], ...]) -> None:
    assert runtime_failed(*runtime) == ["eventlog.ready"]


@pytest.mark.parametrize(
    "changes",
    [
        {"imr": 4},
        {"imr": -1},
        {"imr": True},
        {"imr": "3"},
        {"event_type": 1},
        {"event_type": 1 << 32},
        {"event_type": None},
        {"event": ""},
        {"event": "a:b"},
        {"event": "a\nb"},
        {"event": "x" * (MAX_NAME + 1)},
        {"event": 3},
        {"event_payload": "0"},
        {"event_payload": "zz"},
        {"event_payload": "00 11"},
        {"event_payload": None},
        {"digest": "00" * 49},
        {"digest": 5},
        {"extra": 1},
    ],
)
def test_malformed_entries(changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        parse_dstack(document(entry("name", **changes)))


@pytest.mark.parametrize("digest", ["", "00" * 47, "00" * 20])
def test_boot_events_need_their_digest(digest: str) -> None:
    entries = boot_entries()
    entries[0]["digest"] = digest
    with pytest.raises(MalformedError):
        parse_dstack(json.dumps(entries).encode())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b"[1]",
        b"null",
        b"[NaN]",
        b'{"event_log": 5}',
        b'{"event_log": "["}',
        b'{"event_log": [], "event_log": []}',
        b"[" * 50_000,
        b"\xff\xfe",
        b" " * (ccel.MAX_LOG + 1),
    ],
)
def test_other_documents_are_malformed(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_dstack(data)


def test_missing_key_is_malformed() -> None:
    for key in RUNTIME[0]:
        broken = dict(RUNTIME[0])
        del broken[key]
        with pytest.raises(MalformedError):
            parse_dstack(document(broken))


def test_log_as_text_inside_an_object() -> None:
    inner = document(*RUNTIME)
    outer = json.dumps({"event_log": inner.decode(), "quote": "00"}).encode()
    assert parse_dstack(outer) == parse_dstack(inner)
