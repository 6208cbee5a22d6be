"""Every fuzz target over its good samples and some damage to them, without atheris, for a moment each."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cocoon_attestation.errors import ConfigError, MalformedError
from cocoon_attestation.eventlog.dstack import parse_dstack
from cocoon_attestation.policy_language_toml import rules_from_toml
from cocoon_attestation.policy_toml import policy_from_toml

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from tests.fuzz import fuzz_targets, record
    from tests.fuzz.fuzz_targets import TARGETS, Target
else:
    import fuzz_targets
    import record
    from fuzz_targets import TARGETS, Target

SECONDS = 0.7
JUNK = (b"", b"\x00", b"\xff" * 40, b"{", b"[" * 3000, b"\x80" * 7, bytes(2048))


@pytest.mark.parametrize("one", TARGETS, ids=[one.name for one in TARGETS])
def test_target_takes_its_samples_and_survives_damage(one: Target) -> None:
    samples = list(one.seeds())
    assert samples
    assert all(len(data) <= one.max_length for data in samples)
    assert all(one.step(data) for data in samples)
    for data in JUNK:
        one.step(data)
    rng = random.Random(one.name)  # repeatable on purpose
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        one.step(damaged(rng, rng.choice(samples)))


def damaged(rng: random.Random, data: bytes) -> bytes:
    """`data` cut, with changed bytes, or with a piece that stands twice."""
    kind, at = rng.randrange(3), rng.randrange(len(data))
    if kind == 0:
        return data[:at]
    if kind == 1:
        changed = bytearray(data)
        for _ in range(rng.randrange(1, 4)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        return bytes(changed)
    end = at + rng.randrange(64)
    return data[:end] + data[at:]


def test_names_are_unique() -> None:
    assert len({one.name for one in TARGETS}) == len(TARGETS)
    assert fuzz_targets.target(TARGETS[0].name) is TARGETS[0]


def test_undocumented_error_comes_through() -> None:
    def run(data: bytes) -> None:
        raise IndexError(len(data))

    with pytest.raises(IndexError):
        Target(name="broken", run=run, seeds=list).step(b"x")


def test_driver_lists_its_parsers() -> None:
    listed = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("run.py")), "--list"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert listed.stdout.split() == [one.name for one in TARGETS]


def test_record_adds_up_and_survives_writing(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n{record.HEAD}\nThe end.\n", "utf-8")
    assert record.read(page) == {}
    once = record.Total(name="cell").add(
        seconds=61.9, cpu=30.5, executions=10, taken=4, findings=1, commit="ab12"
    )
    twice = once.add(seconds=9, cpu=8, executions=5, taken=1, findings=0, commit="cd34")
    assert twice == record.Total(
        name="cell", seconds=70, cpu=38, executions=15, taken=5, findings=1, commit="cd34"
    )
    other = record.Total(name="gpu-rim", seconds=3600)
    record.write({"cell": twice, "gpu-rim": other}, page)
    assert record.read(page) == {"cell": twice, "gpu-rim": other}
    assert page.read_text("utf-8").endswith("\n\nThe end.\n")
    with pytest.raises(ValueError, match="0 tables"):
        record.write({}, Path(__file__))


def test_page_has_only_parsers_that_exist() -> None:
    assert record.read().keys() <= {one.name for one in TARGETS}


# --- found by reading and by fuzzing ----------------------------------------------------------------------


def test_nested_event_log_with_half_a_character_is_malformed() -> None:
    with pytest.raises(MalformedError):
        parse_dstack(b'{"event_log": "\\ud800"}')


@pytest.mark.parametrize("read", [policy_from_toml, rules_from_toml])
def test_number_of_thousands_of_digits_is_a_configuration_error(read: object) -> None:
    assert callable(read)
    with pytest.raises(ConfigError):
        read(f"version = {'9' * 5000}")
