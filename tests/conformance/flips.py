"""Changes one bit of every byte of every genuine sample, and cuts it at every length: is it refused?

    python tests/conformance/flips.py [--seconds N] [--kind KIND]… [--again] [--totals]

The test suite takes some bytes of every sample (`test_changed_samples.py`); this takes them all, in pieces: it goes
on where it stopped (``.cache/flips.json``, not in git) and adds to the table of docs/spec/fuzzing.md. Exit code 1
if a changed sample was accepted with another answer, or anything but the documented error came out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cocoon_attestation.errors import MalformedError

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

if TYPE_CHECKING:
    from tests.conformance.conf_kit import Kit, samples_folder
    from tests.conformance.flip_samples import Answer, Sample, samples
else:
    from conf_kit import Kit, samples_folder
    from flip_samples import Answer, Sample, samples

ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "spec" / "fuzzing.md"
STATE = ROOT / ".cache" / "flips.json"
HEAD = (
    "| what | samples | bytes | bytes and lengths tried | malformed | rejected | same answer |\n"
    "|---|---|---|---|---|---|---|\n"
)
_SAVE_EVERY_S = 20.0


class ChangeAcceptedError(AssertionError):
    """A changed sample was accepted although something that counts is different."""


@dataclass(slots=True)
class Progress:
    """How far one sample is."""

    sha256: str
    done: int = 0
    """Every byte before this offset was changed, and every length below it tried."""
    malformed: int = 0
    rejected: int = 0
    same: int = 0
    """Accepted, with the answer of the genuine sample: the byte is signed by nobody."""


def flipped(data: bytes, offset: int) -> bytes:
    """`data` with one bit changed at `offset`; which bit depends on the offset, and is always the same."""
    bit = hashlib.sha256(offset.to_bytes(4, "big")).digest()[0] % 8
    return data[:offset] + bytes((data[offset] ^ 1 << bit,)) + data[offset + 1 :]


def outcome(sample: Sample, before: Answer | None, data: bytes, what: str) -> str:
    """``malformed``, ``rejected`` or ``same``.

    Raises:
        ChangeAcceptedError: neither of these.
    """
    try:
        found = sample.judge(data)
    except MalformedError:
        return "malformed"
    if found is None:
        return "rejected"
    if before is None or found != before:
        raise ChangeAcceptedError(f"{sample.kind} {sample.name}: {what} was accepted with another answer")
    return "same"


def change(sample: Sample, before: Answer | None, offset: int) -> str:
    """Judge the sample with one bit changed at `offset`.

    Raises:
        ChangeAcceptedError: it was accepted, and the answer differs or the byte counts.
    """
    found = outcome(sample, before, flipped(sample.data, offset), f"byte {offset} changed")
    if found == "same" and offset < sample.signed:
        raise ChangeAcceptedError(
            f"{sample.kind} {sample.name}: byte {offset} is signed, its change accepted"
        )
    return found


def cut(sample: Sample, before: Answer | None, length: int) -> str:
    """Judge the first `length` bytes of the sample.

    Raises:
        ChangeAcceptedError: they were accepted, and the answer differs or signed bytes are missing.
    """
    found = outcome(sample, before, sample.data[:length], f"cut at {length}")
    if found == "same" and length < sample.signed:
        raise ChangeAcceptedError(f"{sample.kind} {sample.name}: accepted when cut at {length}")
    return found


def work(sample: Sample, progress: Progress, until: float) -> list[str]:
    """Go on with a sample until it is done or the time is over; what went wrong."""
    before = sample.judge(sample.data) if progress.done < len(sample.data) else None
    faults: list[str] = []
    while time.monotonic() < until and progress.done < len(sample.data):
        try:
            for found in (
                change(sample, before, progress.done),
                cut(sample, before, progress.done),
            ):
                setattr(progress, found, getattr(progress, found) + 1)
        except Exception as error:  # whatever it is, it is a finding; go on with the next byte
            faults.append(f"{sample.kind} {sample.name} at {progress.done}: {error!r}")
        progress.done += 1
    return faults


def load(path: Path = STATE) -> dict[str, Progress]:
    """Progress by ``kind/name``; empty at the start."""
    if not path.is_file():
        return {}
    return {name: Progress(**values) for name, values in json.loads(path.read_text("utf-8")).items()}


def save(state: dict[str, Progress], path: Path = STATE) -> None:
    """Keep the progress."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({name: asdict(one) for name, one in state.items()}, indent=1), "utf-8")


def table(found: Iterable[Sample], state: dict[str, Progress]) -> str:
    """The sums by kind, as in the page."""
    rows: dict[str, list[int]] = {}
    for sample in found:
        row = rows.setdefault(sample.kind, [0] * 6)
        one = state.get(f"{sample.kind}/{sample.name}", Progress(sha256=""))
        numbers = (1, len(sample.data), one.done, one.malformed, one.rejected, one.same)
        for place, number in enumerate(numbers):
            row[place] += number
    return HEAD + "".join(
        f"| {kind} | {' | '.join(str(number) for number in row)} |\n" for kind, row in rows.items()
    )


def show(text: str, page: Path = PAGE) -> None:
    """Put the table into the page.

    Raises:
        ValueError: the page has no place for it.
    """
    before, head, rest = page.read_text("utf-8").partition(HEAD)
    if not head:
        raise ValueError(f"{page.name} has no table of changed samples")
    lines = rest.splitlines(keepends=True)
    while lines and lines[0].startswith("|"):
        lines.pop(0)
    page.write_text(before + text + "".join(lines), "utf-8")


def main() -> int:
    """Go on for the given time; 1 if something was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=3600, help="stop after this time (default 3600)")
    parser.add_argument("--kind", action="append", help="only this kind, for example 'tdx quote'")
    parser.add_argument("--again", action="store_true", help="forget what was done before")
    parser.add_argument("--totals", action="store_true", help="print the table and stop")
    asked = parser.parse_args()
    folder = samples_folder()
    if not (folder / "INDEX.json").is_file():
        sys.stderr.write(f"no samples in {folder}; set COCOON_TEST_VECTORS\n")
        return 2
    warnings.simplefilter("ignore")  # on damaged certificates the library warns before it refuses
    everything = list(samples(Kit(folder)))
    state = {} if asked.again else load()
    faults: list[str] = []
    until = time.monotonic() + (0 if asked.totals else asked.seconds)
    for sample in everything:
        if asked.kind and sample.kind not in asked.kind:
            continue
        name, digest = f"{sample.kind}/{sample.name}", hashlib.sha256(sample.data).hexdigest()
        progress = state.get(name)
        if progress is None or progress.sha256 != digest:
            progress = state[name] = Progress(sha256=digest)
        while progress.done < len(sample.data) and time.monotonic() < until:
            faults += work(sample, progress, min(until, time.monotonic() + _SAVE_EVERY_S))
            save(state)
    text = table(everything, state)
    if not asked.totals:
        show(text)
    sys.stdout.write(text + "".join(f"{fault[:300]}\n" for fault in faults[:50]))
    sys.stdout.write(f"{len(faults)} faults\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
