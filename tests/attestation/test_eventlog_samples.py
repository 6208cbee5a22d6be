"""Real boot event logs, and what must happen to each."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from cocoon_attestation.checks import CheckList
from cocoon_attestation.errors import MalformedError
from cocoon_attestation.eventlog.ccel import parse_ccel, parse_ccel_table
from cocoon_attestation.eventlog.dstack import parse_dstack, runtime_digest
from cocoon_attestation.eventlog.replay import (
    EventLogPolicy,
    SeparatorLayout,
    parse_eventlog,
    replay,
    verify_eventlog,
)

CCEL = ("gcp_cos113", "ovmf_direct", "ovmf_grub", "gcp_short")
DSTACK = ("dstack_quote_report", "nearmpc_2026_tcb_info")


def quote_registers(quote: bytes) -> list[bytes]:
    """RTMR0 to RTMR3 of a version 4 quote."""
    return [quote[48 + 328 + 48 * i : 48 + 328 + 48 * (i + 1)] for i in range(4)]


def failed(checks: CheckList) -> list[str]:
    return [check.id for check in checks.failed]


def log(samples: Any, name: str) -> bytes:
    data: bytes = samples.read(samples.entry("eventlog", name)["file"])
    return data


@pytest.mark.parametrize("name", [*CCEL, *DSTACK, "neg_cos113_dupe_separator"])
def test_replay_gives_the_published_registers(samples: Any, name: str) -> None:
    entry = samples.entry("eventlog", name)
    events, _ = parse_eventlog(log(samples, name))
    assert [register.hex() for register in replay(events)] == entry["replayed_rtmr"]
    assert len(events) == entry["events"]


@pytest.mark.parametrize("name", [*CCEL, *DSTACK])
def test_genuine_log_is_accepted_with_its_registers(samples: Any, name: str) -> None:
    entry = samples.entry("eventlog", name)
    registers = [bytes.fromhex(text) for text in entry.get("quote_rtmr") or entry["replayed_rtmr"]]
    checks = verify_eventlog(log(samples, name), registers)
    assert checks.accepted
    assert {check.spec.split("#")[0] for check in checks} == {"docs/spec/eventlog.md"}


@pytest.mark.parametrize(
    ("name", "quote"),
    [
        ("gcp_cos113", "gcp_cos113"),
        ("dstack_quote_report", "dstack_90c06f"),
        ("nearmpc_2026_tcb_info", "nearmpc_2026"),
    ],
)
def test_log_belongs_to_its_quote_and_to_no_other(samples: Any, name: str, quote: str) -> None:
    own = quote_registers(samples.read(f"tdx/{quote}.quote.bin"))
    assert verify_eventlog(log(samples, name), own).accepted
    other = quote_registers(samples.read("tdx/cocoon_test.quote.bin"))
    assert "eventlog.rtmr0" in failed(verify_eventlog(log(samples, name), other))


def test_inputs_of_a_register_replay_to_it(samples: Any) -> None:
    registers = quote_registers(samples.read("tdx/gcp_cos113.quote.bin"))
    checks = verify_eventlog(log(samples, "gcp_cos113"), registers)
    for number, quoted in enumerate(registers):
        (check,) = (check for check in checks if check.id == f"eventlog.rtmr{number}")
        inputs = {name: bytes.fromhex(value) for name, value in check.inputs}
        register = bytes(48)
        for index in range(len(inputs) - 2):
            register = hashlib.sha384(register + inputs[f"digest {index}"]).digest()
        assert register == inputs["replayed"] == inputs["quoted"] == quoted


def test_duplicated_separator_does_not_replay(samples: Any) -> None:
    registers = quote_registers(samples.read("tdx/gcp_cos113.quote.bin"))
    checks = verify_eventlog(log(samples, "neg_cos113_dupe_separator"), registers)
    assert failed(checks) == ["eventlog.rtmr0", "eventlog.rtmr1"]


def test_duplicated_separator_is_no_layout_of_current_firmware(samples: Any) -> None:
    """Where the firmware is known, its one layout is named, and then the structure alone rejects it."""
    data = log(samples, "neg_cos113_dupe_separator")
    pinned = EventLogPolicy(layouts=frozenset({SeparatorLayout.CURRENT}))
    checks = verify_eventlog(data, replay(parse_ccel(data)), pinned)
    assert failed(checks) == ["eventlog.separators"]
    genuine = log(samples, "gcp_cos113")
    assert verify_eventlog(genuine, replay(parse_ccel(genuine)), pinned).accepted


def test_without_a_quote_nothing_is_accepted(samples: Any) -> None:
    checks = verify_eventlog(log(samples, "gcp_cos113"), None)
    assert checks.failed == ()
    assert [check.id for check in checks.skipped] == [f"eventlog.rtmr{i}" for i in range(4)]
    assert not checks.accepted


def test_provider_answers_with_empty_digests(samples: Any) -> None:
    """Newer dstack agents leave the RTMR3 digests out: they are recomputed anyway."""
    answer = json.loads(samples.read("bundles/nanogpt/attestation.json"))
    registers = quote_registers(bytes.fromhex(answer["intel_quote"]))
    for data in (answer["event_log"].encode(), json.dumps(answer["info"]["tcb_info"]).encode()):
        if b'"mrtd"' in data:
            data = json.dumps(json.loads(data)["event_log"]).encode()
        assert verify_eventlog(data, registers).accepted


def test_provider_answer_with_the_log_inside(samples: Any) -> None:
    answer = json.loads(samples.read("bundles/near_direct/attestation.json"))
    registers = quote_registers(bytes.fromhex(answer["intel_quote"]))
    assert verify_eventlog(json.dumps({"event_log": answer["event_log"]}).encode(), registers).accepted


def test_runtime_events_are_split_at_ready(samples: Any) -> None:
    parsed = parse_dstack(log(samples, "dstack_quote_report"))
    assert parsed.boot_events[-1].name == "system-ready"
    assert [event.name for event in parsed.app_events] == ["LIUM_MINER_HOTKEY"]


@pytest.mark.parametrize("name", DSTACK)
def test_published_runtime_digests_are_the_recomputed_ones(samples: Any, name: str) -> None:
    document = json.loads(log(samples, name))["event_log"]
    entries = json.loads(document) if isinstance(document, str) else document
    for entry in entries:
        if entry["imr"] == 3:
            payload = bytes.fromhex(entry["event_payload"])
            assert runtime_digest(entry["event"], payload).hex() == entry["digest"]


def test_acpi_table(samples: Any) -> None:
    data = samples.read("eventlog/gcp_cos113.ccel_table.bin")
    table = parse_ccel_table(data)
    assert (table.cc_type, table.cc_subtype, table.log_length) == (2, 0, 0x40000)
    for length in range(len(data)):
        with pytest.raises(MalformedError):
            parse_ccel_table(data[:length])
    for offset in range(len(data)):
        with pytest.raises(MalformedError):
            parse_ccel_table(data[:offset] + bytes([data[offset] ^ 0x10]) + data[offset + 1 :])


@pytest.mark.parametrize("name", ["ovmf_direct", "gcp_short"])
def test_no_truncation_is_accepted(samples: Any, name: str) -> None:
    """A log cut between two events still parses; then a register differs."""
    data = log(samples, name).rstrip(b"\xff")
    registers = replay(parse_ccel(data))
    step = 1 if len(data) < 4096 else 7
    for length in range(0, len(data), step):
        try:
            checks = verify_eventlog(data[:length], registers)
        except MalformedError:
            continue
        assert failed(checks), f"a log cut to {length} bytes was accepted"


@pytest.mark.parametrize("name", ["ovmf_direct", "gcp_short", "dstack_quote_report"])
def test_no_changed_digest_is_accepted(samples: Any, flips: Any, name: str) -> None:
    """Bytes that no digest covers may change; then the sequence of digests is still the same."""
    data = log(samples, name).rstrip(b"\xff")
    events, _ = parse_eventlog(data)
    registers = replay(events)
    for offset, changed in flips(data, 11):
        try:
            checks = verify_eventlog(changed, registers)
            same = [e.digest for e in parse_eventlog(changed)[0]] == [e.digest for e in events]
        except MalformedError:
            continue
        assert failed(checks) or same, f"a changed byte at {offset} was accepted"
