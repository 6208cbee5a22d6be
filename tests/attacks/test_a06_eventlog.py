"""A6: the log of measured events is told by the host; only the registers are the hardware's word.

The first part is our own runtime log in RTMR3, the second the boot logs of CCEL and dstack guests.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import Any

import pytest

from cocoon.v1 import evidence_pb2
from cocoon_attestation.rtmr3 import RuntimeEvent
from cocoon_attestation.vendor.eventlog import verify_raw_eventlog
from cocoon_attestation.vendor.outcome import Outcome, OutcomeVerdict

FOREIGN = b"\x66" * 32


def told(lab: Any, change: Any, **arguments: Any) -> tuple[str, ...]:
    """The guest measured the honest events; the host tells `change` of them."""

    def edit(message: evidence_pb2.Evidence) -> None:
        events = list(message.tdx.runtime_events)
        del message.tdx.runtime_events[:]
        message.tdx.runtime_events.extend(change(events))

    found: tuple[str, ...] = lab.failures(lab.evidence(edit=edit), **arguments)
    return found


def event(name: str, payload: bytes = b"") -> evidence_pb2.RuntimeEvent:
    return evidence_pb2.RuntimeEvent(name=name, payload=payload)


# --- the host lies about what was measured ------------------------------------------------------------------


def test_extra_event(lab: Any) -> None:
    policy = lab.policy(models=frozenset({lab.model, FOREIGN}))
    extra = told(lab, lambda e: [*e[:2], event("cocoon.model", FOREIGN), *e[2:]], policy=policy)
    assert extra == ("rtmr3.replay",)
    assert told(lab, lambda e: [*e, event("cocoon.later")]) == ("rtmr3.replay", "rtmr3.grammar")


@pytest.mark.parametrize("missing", range(4))
def test_missing_event(lab: Any, missing: int) -> None:
    found = told(lab, lambda e: e[:missing] + e[missing + 1 :])
    assert found == ("rtmr3.replay", "rtmr3.grammar")


def test_no_event_at_all(lab: Any) -> None:
    assert told(lab, lambda e: []) == ("rtmr3.replay", "rtmr3.grammar")


def test_reordered_events(lab: Any) -> None:
    assert told(lab, lambda e: [e[1], e[0], e[2], e[3]]) == ("rtmr3.replay", "rtmr3.grammar")


@pytest.mark.parametrize("twice", range(4))
def test_duplicated_event(lab: Any, twice: int) -> None:
    found = told(lab, lambda e: [*e[: twice + 1], *e[twice:]])
    assert found == ("rtmr3.replay", "rtmr3.grammar")


def test_model_shown_is_not_the_one_that_was_loaded(lab: Any) -> None:
    policy = lab.policy(models=frozenset({lab.model, FOREIGN}))
    found = told(lab, lambda e: [e[0], event("cocoon.model", FOREIGN), *e[2:]], policy=policy)
    assert found == ("rtmr3.replay",)


def test_bytes_moved_between_name_and_payload(lab: Any) -> None:
    """Digest input is name ‖ 0 ‖ payload: a name cannot hold the zero, so nothing can be moved."""
    found = told(lab, lambda e: [event("cocoon.confi", b"g\0" + e[0].payload), *e[1:]])
    assert found == ("rtmr3.replay", "rtmr3.grammar")


# --- the guest itself measured something else ---------------------------------------------------------------


def measured(lab: Any, events: list[RuntimeEvent], **arguments: Any) -> tuple[str, ...]:
    found: tuple[str, ...] = lab.failures(lab.evidence(events=events), **arguments)
    return found


def test_second_configuration_measured_after_the_first(lab: Any) -> None:
    events = lab.events()
    events.insert(1, RuntimeEvent(name="cocoon.config", payload=FOREIGN))
    assert measured(lab, events) == ("rtmr3.grammar",)


def test_model_measured_twice(lab: Any) -> None:
    events = lab.events()
    events.insert(2, events[1])
    assert measured(lab, events) == ("rtmr3.grammar",)


def test_model_loaded_after_ready(lab: Any) -> None:
    """A guest that loads something after it said that it is ready."""
    events = [*lab.events(), RuntimeEvent(name="cocoon.model", payload=FOREIGN)]
    assert measured(lab, events) == ("rtmr3.grammar",)


def test_foreign_model_and_foreign_configuration(lab: Any) -> None:
    assert measured(lab, lab.events(model=FOREIGN)) == ("rtmr3.models",)
    assert measured(lab, lab.events(config=FOREIGN)) == ("rtmr3.config",)


# --- boot logs ------------------------------------------------------------------------------------------------


def extend(register: bytes, digest: bytes) -> bytes:
    return hashlib.sha384(register + digest).digest()


class Boot:
    """A guest that measured a small dstack log, and its quote."""

    def __init__(self, lab: Any) -> None:
        separator = (0x00000004, bytes(4))
        actions = (b"Exit Boot Services Invocation", b"Exit Boot Services Returned with Success")
        self.entries = [
            self.boot(0, *separator),
            self.boot(1, *separator),
            *(self.boot(1, 0x80000007, action) for action in actions),
            self.boot(2, 0x0000000D, b"console=ttyS0"),
            self.agent("compose-hash", b"\x01" * 32),
            self.agent("system-ready", b""),
            self.agent("from-the-app", b"anything"),
        ]
        registers = [bytes(48)] * 4
        for entry in self.entries:
            registers[entry["imr"]] = extend(registers[entry["imr"]], bytes.fromhex(entry["digest"]))
        report = lab.platform.td_report(bytes(64), registers[3])
        changes = {f"rtmr{i}": registers[i] for i in range(3)}
        self.quote = lab.platform.quote(dataclasses.replace(report, **changes))

    @staticmethod
    def boot(register: int, kind: int, data: bytes) -> dict[str, Any]:
        digest = hashlib.sha384(data).hexdigest()
        return {
            "imr": register,
            "event_type": kind,
            "digest": digest,
            "event": "",
            "event_payload": data.hex(),
        }

    @staticmethod
    def agent(name: str, payload: bytes) -> dict[str, Any]:
        kind = 0x08000001
        raw = kind.to_bytes(4, "little") + b":" + name.encode() + b":" + payload
        digest = hashlib.sha384(raw).hexdigest()
        return {
            "imr": 3,
            "event_type": kind,
            "digest": digest,
            "event": name,
            "event_payload": payload.hex(),
        }

    def judge(self, entries: list[dict[str, Any]]) -> Outcome:
        return verify_raw_eventlog(json.dumps(entries).encode(), self.quote)

    def failed(self, entries: list[dict[str, Any]]) -> set[str]:
        outcome = self.judge(entries)
        assert outcome.verdict is OutcomeVerdict.REJECTED
        return {check.id for check in outcome.checks.failed}


@pytest.fixture(scope="module")
def boot(lab: Any) -> Boot:
    return Boot(lab)


def test_the_honest_log_is_accepted(boot: Boot) -> None:
    assert boot.judge(boot.entries).verdict is OutcomeVerdict.ACCEPTED


@pytest.mark.parametrize("index", range(8))
def test_boot_event_left_out(boot: Boot, index: int) -> None:
    register = boot.entries[index]["imr"]
    found = boot.failed(boot.entries[:index] + boot.entries[index + 1 :])
    assert f"eventlog.rtmr{register}" in found


@pytest.mark.parametrize("index", range(8))
def test_boot_event_told_twice(boot: Boot, index: int) -> None:
    register = boot.entries[index]["imr"]
    assert f"eventlog.rtmr{register}" in boot.failed(boot.entries[: index + 1] + boot.entries[index:])


def test_boot_events_reordered(boot: Boot) -> None:
    swapped = [*boot.entries[:5], boot.entries[6], boot.entries[5], boot.entries[7]]
    assert "eventlog.rtmr3" in boot.failed(swapped)


def test_command_line_that_its_digest_does_not_cover(boot: Boot) -> None:
    """The digest of an EV_IPL event is not the hash of its data: the text is free for the host to choose.

    It is accepted, because nothing reads it: no claim carries a command line.
    """
    entries = [dict(entry) for entry in boot.entries]
    entries[4]["event_payload"] = b"console=ttyS0 init=/bin/evil".hex()
    outcome = boot.judge(entries)
    assert outcome.verdict is OutcomeVerdict.ACCEPTED
    assert b"evil".hex() not in json.dumps(outcome.to_dict())
    assert "evil" not in json.dumps(outcome.to_dict())


def test_data_of_an_event_that_should_be_its_own_preimage(boot: Boot) -> None:
    entries = [dict(entry) for entry in boot.entries]
    entries[2]["event_payload"] = b"Something else".hex()
    assert boot.failed(entries) == {"eventlog.preimage"}


def test_payload_with_the_old_digest_beside_it(boot: Boot) -> None:
    """For the agent's events the digest in the file is ignored and computed again."""
    entries = [dict(entry) for entry in boot.entries]
    entries[5]["event_payload"] = "02" * 32
    assert boot.failed(entries) == {"eventlog.rtmr3"}


def test_application_cannot_pose_as_the_agent(boot: Boot, lab: Any) -> None:
    """An event after system-ready with the agent's name is the application's, whatever it is called."""
    forged = Boot(lab)
    forged.entries.append(forged.agent("compose-hash", b"\x02" * 32))
    outcome = verify_raw_eventlog(json.dumps(forged.entries).encode(), boot.quote)
    claims: Any = outcome.claims
    assert [e["payload"] for e in claims["boot_events"] if e["name"] == "compose-hash"] == ["01" * 32]
    assert outcome.verdict is OutcomeVerdict.REJECTED


def test_log_of_another_boot(boot: Boot, lab: Any) -> None:
    other = lab.platform.quote(lab.platform.td_report(bytes(64), bytes(48)))
    outcome = verify_raw_eventlog(json.dumps(boot.entries).encode(), other)
    assert {check.id for check in outcome.checks.failed} == {f"eventlog.rtmr{i}" for i in range(4)}
