"""Genuine evidence cut and changed: refused, never misread, never a crash.

Every sample is changed at some bytes, other ones each day; `make flips` changes every byte of every sample. Some
bytes are signed by nobody: line ends of PEM text, padding, event data. Where such a byte changes, acceptance is
right, and then what was read must be the same as before.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.gpu.report import parse_gpu_report
from cocoon_attestation.sgx.quote import parse_sgx_quote
from cocoon_attestation.snp.report import parse_snp_report
from cocoon_attestation.tdx.quote import parse_quote
from cocoon_attestation.vendor.eventlog import verify_raw_eventlog
from cocoon_attestation.vendor.gpu import GpuOptions, read_devices, verify_raw_gpu
from cocoon_attestation.vendor.outcome import Outcome, OutcomeVerdict
from cocoon_attestation.vendor.quote import QuoteOptions, verify_raw_quote
from cocoon_attestation.vendor.snp import SnpOptions, verify_raw_snp

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from tests.conformance.conf_kit import Kit, samples_folder
    from tests.conformance.flip_samples import Sample, samples
    from tests.conformance.flips import (
        ChangeAcceptedError,
        Progress,
        change,
        cut,
        flipped,
        load,
        save,
        show,
        table,
        work,
    )  # fmt: skip
else:
    from conf_kit import Kit, samples_folder
    from flip_samples import Sample, samples
    from flips import ChangeAcceptedError, Progress, change, cut, flipped, load, save, show, table, work

FOLDER = samples_folder()
HERE = (FOLDER / "INDEX.json").is_file()
needs_samples = pytest.mark.skipif(not HERE, reason=f"the samples are not on this machine ({FOLDER})")
ACCEPTED = OutcomeVerdict.ACCEPTED
Judge = Callable[[bytes], Outcome]
DAY = os.environ.get("COCOON_FLIP_DAY") or str(int(time.time()) // 86_400)
"""Chooses the bytes; a failure names the byte, so it can be repeated on any day."""
PLACES = 48
EVERY = list(samples(Kit(FOLDER))) if HERE else []


def places(sample: Sample) -> list[int]:
    """Offsets spread over the sample, others each day."""
    stride = max(1, len(sample.data) // PLACES)
    first = int.from_bytes(hashlib.sha256(f"{DAY}{sample.kind}{sample.name}".encode()).digest()[:4])
    return list(range(first % stride, len(sample.data), stride))


@needs_samples
@pytest.mark.parametrize("sample", EVERY, ids=[f"{one.kind} {one.name}" for one in EVERY])
def test_changed_or_cut_sample_is_refused_or_says_the_same(sample: Sample) -> None:
    before = sample.judge(sample.data)
    for offset in places(sample):
        change(sample, before, offset)
        cut(sample, before, offset)


@needs_samples
def test_most_samples_are_accepted_as_they_are() -> None:
    """Else nothing would be shown by refusing changed ones."""
    kinds = {sample.kind for sample in EVERY}
    good = [sample for sample in EVERY if sample.judge(sample.data) is not None]
    assert {sample.kind for sample in good} == kinds
    assert len(good) > len(EVERY) // 2


PARSERS: dict[str, Callable[[bytes], object]] = {
    "snp report": parse_snp_report,
    "GPU report": parse_gpu_report,
    "tdx quote": parse_quote,
    "tdx synthetic quote": parse_quote,
    "sgx quote": parse_sgx_quote,
}
SIGNED = [one for one in EVERY if one.kind in PARSERS]


@needs_samples
@pytest.mark.parametrize("sample", SIGNED, ids=[f"{one.kind} {one.name}" for one in SIGNED])
def test_cut_at_any_length_is_malformed(sample: Sample) -> None:
    parse = PARSERS[sample.kind]
    parse(sample.data)
    for length in range(sample.signed):
        with pytest.raises(MalformedError):
            parse(sample.data[:length])


# --- the runner of `make flips` ---------------------------------------------------------------------------------


def made_up(answers: dict[bytes, Any], *, signed: int = 0) -> Sample:
    """A sample of two bytes whose judge knows these answers, and refuses everything else."""
    return Sample(
        kind="made up", name="one", data=b"ab", judge=lambda data: answers.get(data), signed=signed
    )


def test_runner_notices_a_change_that_was_accepted() -> None:
    good = {b"ab": ("claims",)}
    progress = Progress(sha256="")
    assert work(made_up(good), progress, time.monotonic() + 60) == []
    assert (progress.done, progress.rejected, progress.same) == (2, 4, 0)
    other = made_up({**good, flipped(b"ab", 1): ("other claims",)})
    [fault] = work(other, Progress(sha256=""), time.monotonic() + 60)
    assert "byte 1 changed was accepted" in fault
    harmless = {**good, flipped(b"ab", 1): ("claims",), b"a": ("claims",)}
    progress = Progress(sha256="")
    assert work(made_up(harmless), progress, time.monotonic() + 60) == []
    assert progress.same == 2
    for counts in (change, cut):
        with pytest.raises(ChangeAcceptedError):
            counts(made_up(harmless, signed=2), ("claims",), 1)


def test_runner_notices_any_other_error() -> None:
    def broken(data: bytes) -> None:
        if data == b"a":
            raise IndexError("out of range")

    sample = Sample(kind="made up", name="one", data=b"ab", judge=broken)
    [fault] = work(sample, Progress(sha256=""), time.monotonic() + 60)
    assert "IndexError" in fault


def test_runner_keeps_its_progress_and_shows_it(tmp_path: Path) -> None:
    state = {"made up/one": Progress(sha256="00", done=1, malformed=1, rejected=1)}
    save(state, tmp_path / "deep" / "flips.json")
    assert load(tmp_path / "deep" / "flips.json") == state
    assert load(tmp_path / "nothing") == {}
    text = table([made_up({})], state)
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n{table([], {})}\nThe end.\n", "utf-8")
    for _ in range(2):
        show(text, page)
        assert page.read_text("utf-8") == f"# Title\n\n{text}\nThe end.\n"
    assert "| made up | 1 | 2 | 1 | 1 | 1 | 0 |" in text
    with pytest.raises(ValueError, match="no table"):
        show(text, Path(__file__))


# --- anything ---------------------------------------------------------------------------------------------------


def verdict(judge: Judge, data: bytes) -> Outcome | None:
    """The outcome, or None for input that does not parse. Any other exception is a failure."""
    try:
        return judge(data)
    except MalformedError:
        return None


PREFIXES = (
    b"",
    b"\x03\x00\x02\x00",
    b"\x04\x00\x02\x00\x81\x00",
    b"[{",
    b'{"arch":',
    b"\x11\xe0\x01\xff",
    bytes(4),
)
JUDGES: tuple[Judge, ...] = (
    lambda data: verify_raw_quote(data, data, QuoteOptions(), 0),
    lambda data: verify_raw_snp(data, data, data, data, SnpOptions(), 0),
    lambda data: verify_raw_gpu(read_devices(data, data), [data], [data], GpuOptions(nonce=bytes(32)), 0),
    lambda data: verify_raw_eventlog(data, None),
    lambda data: verify_raw_eventlog(data, data),
)


@settings(max_examples=150, deadline=None)
@given(prefix=st.sampled_from(PREFIXES), data=st.binary(max_size=2048), judge=st.sampled_from(JUDGES))
def test_any_bytes_are_refused_with_one_kind_of_error(prefix: bytes, data: bytes, judge: Judge) -> None:
    outcome = verdict(judge, prefix + data)
    assert outcome is None or outcome.verdict is not ACCEPTED
