"""Coverage-guided fuzzing of every parser, one after another, with bounded time and memory.

    python tests/fuzz/run.py --seconds 60 [--parser NAME]… [--list] [--totals] [--corpus DIRECTORY] [--no-record]

Starts from samples that the project makes and, where they are at hand, from the real samples. What libFuzzer
finds worth keeping stays in the corpus directory (default ``.cache/fuzz``, not in git) for the next run. What was
run is added to the table of docs/spec/fuzzing.md, parser by parser, so that short runs add up; the parser with the
least time so far goes first.
A finding is any error that the parser does not document, a failed property, more than 10 seconds for one
input, or more memory than the limit. Exit code 1 if there is one. Needs ``atheris``.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

if TYPE_CHECKING:
    from tests.fuzz import record
    from tests.fuzz.fuzz_targets import TARGETS, Target, seeds
else:
    import record
    from fuzz_targets import TARGETS, Target, seeds

INPUT_SECONDS = 10
MEMORY_MB = 2048
_START_SECONDS = 60
"""How long importing and making samples may take on a busy machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one target did."""

    name: str
    executions: int
    taken: int
    seconds: float
    cpu: float
    """Seconds of the processor that its processes took."""
    slowest_ms: float
    corpus: int
    findings: tuple[str, ...]


def vectors_folder() -> Path | None:
    """The folder of real samples: `COCOON_TEST_VECTORS`, or ``shared/vectors`` beside the checkout."""
    named = os.environ.get("COCOON_TEST_VECTORS")
    folder = Path(named) if named else HERE.parents[2] / "shared" / "vectors"
    return folder if (folder / "INDEX.json").is_file() else None


def fuzz(one: Target, seconds: int, root: Path) -> Result:
    """Fuzz `one` for `seconds`; a process that died is started again until the time is over."""
    base = root / one.name
    corpus, seed_folder, findings = base / "corpus", base / "seeds", base / "findings"
    shutil.rmtree(findings, ignore_errors=True)
    for folder in (corpus, seed_folder, findings):
        folder.mkdir(parents=True, exist_ok=True)
    for data in seeds(one, vectors_folder()):
        (seed_folder / hashlib.sha256(data).hexdigest()[:20]).write_bytes(data)
    words = base / "words"
    words.write_text("".join(f'"{escaped(word)}"\n' for word in one.words), "ascii")
    executions = taken = 0
    slowest = 0.0
    started, spent = time.monotonic(), cpu_of_children()
    while (left := seconds - (time.monotonic() - started)) >= 1:
        state = base / "state.json"
        state.unlink(missing_ok=True)
        code = _process(one, int(left), base)
        counted = json.loads(state.read_text("ascii")) if state.is_file() else {"executions": 0}
        executions += counted["executions"]
        taken += counted.get("taken", 0)
        slowest = max(slowest, counted.get("slowest_ms", 0.0))
        if code == 0 or not counted["executions"]:
            break
    kinds = [path.read_text("utf-8").partition("\n")[0] for path in sorted(findings.glob("*.txt"))]
    kinds += [f"{path.name.split('-')[0]}: {path}" for path in sorted(findings.glob("*-*"))]
    if not executions:
        kinds.append(f"did not run: see {base / 'log'}")
    return Result(
        name=one.name,
        executions=executions,
        taken=taken,
        seconds=time.monotonic() - started,
        cpu=cpu_of_children() - spent,
        slowest_ms=slowest,
        corpus=sum(1 for _ in corpus.iterdir()),
        findings=tuple(kinds),
    )


def cpu_of_children() -> float:
    """Seconds of the processor that all processes took that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _process(one: Target, seconds: int, base: Path) -> int:
    findings = base / "findings"
    command = [
        sys.executable,
        str(HERE / "fuzz_harness.py"),
        one.name,
        str(base / "state.json"),
        str(findings),
        f"-max_total_time={max(1, seconds)}",
        f"-max_len={one.max_length}",
        f"-timeout={INPUT_SECONDS}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-artifact_prefix={findings}/",
        *([f"-dict={base / 'words'}"] if one.words else []),
        str(base / "corpus"),
        str(base / "seeds"),
    ]
    with (base / "log").open("wb") as log:
        limit = seconds + _START_SECONDS + INPUT_SECONDS
        try:
            return subprocess.run(command, stdout=log, stderr=log, timeout=limit, check=False).returncode
        except subprocess.TimeoutExpired:
            return 1


def escaped(word: str) -> str:
    """A word in the form of libFuzzer's dictionaries."""
    return "".join(f"\\x{byte:02X}" for byte in word.encode())


def show(result: Result) -> None:
    """Print one line, and one for each finding."""
    sys.stdout.write(
        f"{result.name:<22}{result.executions:>10}{result.taken:>10}{result.seconds:>9.0f} s"
        f"{result.cpu:>8.0f} s{result.slowest_ms:>10.0f} ms{result.corpus:>8}{len(result.findings):>10}\n"
    )
    for finding in result.findings:
        sys.stdout.write(f"    {finding}\n")
    sys.stdout.flush()


def keep(result: Result) -> None:
    """Add one run to the record."""
    totals = record.read()
    before = totals.get(result.name, record.Total(name=result.name))
    totals[result.name] = before.add(
        seconds=result.seconds,
        cpu=result.cpu,
        executions=result.executions,
        taken=result.taken,
        findings=len(result.findings),
        commit=record.commit(),
    )
    record.write({one.name: totals[one.name] for one in TARGETS if one.name in totals})


def show_totals() -> None:
    """Print the record: for every parser the time and executions of all runs together."""
    totals = record.read()
    sys.stdout.write(
        f"{'parser':<22}{'hours':>8}{'CPU hours':>11}{'executions':>14}{'findings':>10}  last commit\n"
    )
    for one in TARGETS:
        total = totals.get(one.name, record.Total(name=one.name))
        sys.stdout.write(
            f"{total.name:<22}{total.seconds / 3600:>8.2f}{total.cpu / 3600:>11.2f}{total.executions:>14}"
            f"{total.findings:>10}  {total.commit}\n"
        )
    hours = sum(total.seconds for total in totals.values()) / 3600
    cpu = sum(total.cpu for total in totals.values()) / 3600
    sys.stdout.write(f"{hours:.2f} hours of fuzzing in all, {cpu:.2f} of them of the processor\n")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [one.name for one in TARGETS]
    parser.add_argument("--seconds", type=int, default=60, help="for each parser (default 60)")
    parser.add_argument("--parser", action="append", choices=names, help="only this one; may be repeated")
    parser.add_argument("--corpus", type=Path, default=HERE.parents[1] / ".cache" / "fuzz")
    parser.add_argument("--list", action="store_true", help="name the parsers and stop")
    parser.add_argument("--totals", action="store_true", help="print what all runs together did, and stop")
    parser.add_argument("--no-record", action="store_true", help="do not add this run to the record")
    return parser.parse_args()


def main() -> int:
    """Run the chosen targets and print a table; 1 if there is a finding."""
    asked = arguments()
    if asked.list:
        sys.stdout.write("\n".join(one.name for one in TARGETS) + "\n")
        return 0
    if asked.totals:
        show_totals()
        return 0
    if importlib.util.find_spec("atheris") is None:
        sys.stderr.write("fuzzing needs the package atheris: pip install atheris\n")
        return 2
    sys.stdout.write(
        f"{'parser':<22}{'executions':>10}{'taken':>10}{'time':>11}{'CPU':>10}{'slowest':>13}{'corpus':>8}{'findings':>10}\n"
    )
    found = 0
    totals = record.read()
    chosen = [one for one in TARGETS if not asked.parser or one.name in asked.parser]
    for one in sorted(chosen, key=lambda one: totals[one.name].seconds if one.name in totals else 0):
        result = fuzz(one, asked.seconds, asked.corpus)
        show(result)
        if not asked.no_record:
            keep(result)
        found += len(result.findings)
    sys.stdout.write(f"{found} findings; memory limit {MEMORY_MB} MB, {INPUT_SECONDS} s for one input\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
