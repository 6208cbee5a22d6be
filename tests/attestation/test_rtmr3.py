"""The runtime log: digests, replay and grammar."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoon_attestation.checks import CheckList
from cocoon_attestation.errors import MalformedError
from cocoon_attestation.rtmr3 import (
    RuntimeEvent,
    RuntimeLog,
    check_runtime_log,
    extend,
    parse_runtime_log,
    replay,
)

CONFIG = RuntimeEvent(name="cocoon.config", payload=b"\x01" * 32)
MODEL = RuntimeEvent(name="cocoon.model", payload=b"\x02" * 32)
OTHER_MODEL = RuntimeEvent(name="cocoon.model", payload=b"\x03" * 32)
GPU = RuntimeEvent(name="cocoon.gpu", payload=b"none")
READY = RuntimeEvent(name="cocoon.ready", payload=b"")
GOOD = [CONFIG, MODEL, GPU, READY]


def test_digest_and_replay_are_as_specified() -> None:
    assert CONFIG.digest == hashlib.sha384(b"cocoon.config\0" + b"\x01" * 32).digest()
    register = bytes(48)
    for event in GOOD:
        register = hashlib.sha384(register + event.digest).digest()
    assert replay(GOOD) == register
    assert replay([]) == bytes(48)
    assert extend(bytes(48), bytes(48)) == hashlib.sha384(bytes(96)).digest()


def test_replay_against_a_fixed_value() -> None:
    assert replay(GOOD).hex() == (
        "19cb717ad4ac3c13ab7b30e151e1dc0b6317cd5512951aecb77f78fefa4c5a9c2717100b7ea5d06355e99d0fbee63284"
    )


def test_good_logs() -> None:
    assert parse_runtime_log(GOOD) == RuntimeLog(
        config_hash=b"\x01" * 32, models=(b"\x02" * 32,), gpu=b"none"
    )
    two = parse_runtime_log([CONFIG, MODEL, OTHER_MODEL, GPU, READY])
    assert two.models == (b"\x02" * 32, b"\x03" * 32)


def _named(event: RuntimeEvent, payload: bytes) -> RuntimeEvent:
    return RuntimeEvent(name=event.name, payload=payload)


BAD_LOGS: dict[str, Sequence[RuntimeEvent]] = {
    "empty": [],
    "no-config": [MODEL, GPU, READY],
    "no-model": [CONFIG, GPU, READY],
    "no-gpu": [CONFIG, MODEL, READY],
    "no-ready": [CONFIG, MODEL, GPU],
    "two-configs": [CONFIG, CONFIG, MODEL, GPU, READY],
    "second-config-later": [*GOOD, CONFIG],
    "two-gpus": [CONFIG, MODEL, GPU, GPU, READY],
    "two-readies": [*GOOD, READY],
    "model-after-gpu": [CONFIG, MODEL, GPU, OTHER_MODEL, READY],
    "model-after-ready": [*GOOD, OTHER_MODEL],
    "same-model-twice": [CONFIG, MODEL, MODEL, GPU, READY],
    "unknown-event": [CONFIG, MODEL, RuntimeEvent(name="app.event", payload=b""), GPU, READY],
    "unknown-event-first": [RuntimeEvent(name="app.event", payload=b""), *GOOD],
    "unknown-event-last": [*GOOD, RuntimeEvent(name="app.event", payload=b"")],
    "other-case": [_named(RuntimeEvent(name="Cocoon.config", payload=b""), bytes(32)), MODEL, GPU, READY],
    "short-config": [_named(CONFIG, bytes(31)), MODEL, GPU, READY],
    "long-config": [_named(CONFIG, bytes(33)), MODEL, GPU, READY],
    "short-model": [CONFIG, _named(MODEL, b""), GPU, READY],
    "empty-gpu": [CONFIG, MODEL, _named(GPU, b""), READY],
    "payload-in-ready": [CONFIG, MODEL, GPU, _named(READY, b"x")],
}


@pytest.mark.parametrize("events", BAD_LOGS.values(), ids=BAD_LOGS.keys())
def test_bad_logs(events: Sequence[RuntimeEvent]) -> None:
    with pytest.raises(MalformedError):
        parse_runtime_log(events)


def test_only_one_order_is_right() -> None:
    accepted = 0
    for order in itertools.permutations(GOOD):
        try:
            parse_runtime_log(order)
        except MalformedError:
            continue
        accepted += 1
    assert accepted == 1


def verdicts(
    events: Sequence[RuntimeEvent],
    *,
    register: bytes | None = None,
    config_hash: bytes = b"\x01" * 32,
    models: frozenset[bytes] = frozenset({b"\x02" * 32}),
) -> tuple[dict[str, str], RuntimeLog | None]:
    checks = CheckList()
    log = check_runtime_log(
        events,
        register=replay(events) if register is None else register,
        config_hash=config_hash,
        allowed_models=models,
        checks=checks,
    )
    return {check.id: check.verdict.value for check in checks}, log


def test_checks_of_a_good_log() -> None:
    found, log = verdicts(GOOD)
    assert set(found) == {"rtmr3.replay", "rtmr3.grammar", "rtmr3.config", "rtmr3.models"}
    assert set(found.values()) == {"pass"}
    assert log is not None


def test_each_check_fails_alone() -> None:
    assert verdicts(GOOD, register=bytes(48))[0]["rtmr3.replay"] == "fail"
    assert verdicts(GOOD, config_hash=bytes(32))[0]["rtmr3.config"] == "fail"
    assert verdicts(GOOD, models=frozenset())[0]["rtmr3.models"] == "fail"
    found, log = verdicts(BAD_LOGS["no-gpu"])
    assert log is None
    assert found == {
        "rtmr3.replay": "pass",
        "rtmr3.grammar": "fail",
        "rtmr3.config": "skip",
        "rtmr3.models": "skip",
    }


names = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
events_strategy = st.lists(
    st.builds(lambda n, p: RuntimeEvent(name=n, payload=p), names, st.binary(max_size=40)), max_size=8
)


@given(events_strategy)
def test_arbitrary_logs_are_malformed(events: list[RuntimeEvent]) -> None:
    with pytest.raises(MalformedError):
        parse_runtime_log(events)


@given(events_strategy, events_strategy)
def test_different_logs_have_different_registers(
    first: list[RuntimeEvent], second: list[RuntimeEvent]
) -> None:
    assert (replay(first) == replay(second)) == (first == second)


@given(st.integers(0, 3), st.binary(max_size=33))
def test_changed_payload_never_replays(position: int, payload: bytes) -> None:
    changed = list(GOOD)
    changed[position] = _named(GOOD[position], payload)
    if changed != GOOD:
        assert verdicts(changed, register=replay(GOOD))[0]["rtmr3.replay"] == "fail"
