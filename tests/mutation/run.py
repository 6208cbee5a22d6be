"""Mutation tests of the code that decides: does a test fail when a check is changed?

    python tests/mutation/run.py [--seconds 480] [--module NAME]… [--json FILE]

Every mutant runs in a forked child with one function changed in place; the tests of that module run until
one fails. A mutant that no test notices is a survivor. If the time does not suffice for all mutants, an even
sample of them runs. Survivors that change nothing that matters are explained in
docs/spec/appraisal-mutants.md; a survivor that is not listed there makes the exit code 1.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import os
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(HERE))

if TYPE_CHECKING:
    from tests.mutation.mutants import Mutant, install, mutants
else:
    from mutants import Mutant, install, mutants

PACKAGE: Final = "cocoon_attestation"
TESTS: Final[dict[str, tuple[str, ...]]] = {
    "checks": ("test_checks", "test_appraisal"),
    "rtmr3": ("test_rtmr3", "test_appraisal"),
    "tdx.validate": ("test_tdx_validate", "test_appraisal", "test_vendor_quote"),
    "policy": ("test_policy", "test_policy_vendor"),
    "appraisal": ("test_appraisal", "test_appraisal_vendors"),
    "appraisers.result": ("test_appraisal", "test_appraisal_vendors"),
    "appraisers.tdx": ("test_appraisal",),
    "tdx.platform": ("test_appraisal", "test_vendor_quote"),
    "tdx.verify": ("test_appraisal", "test_vendor_quote"),
    "verified": ("test_appraisal", "test_sealing_request"),
}
"""Modules, and the test files in tests/attestation that must notice a change, quickest first."""
EXPLAINED: Final = ROOT / "docs" / "spec" / "appraisal-mutants.md"
_MUTANT_SECONDS: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One mutant and what became of it."""

    module: str
    mutant: Mutant
    survived: bool

    @property
    def key(self) -> str:
        """How the list of explained survivors names it; line numbers would go stale."""
        return f"{self.module}:{self.mutant.function}: {self.mutant.change}"


def run_tests(module: str) -> int:
    """Run the tests of `module` in this process, silently; pytest's exit code."""
    folder = ROOT / "tests" / "attestation"
    files = [str(folder / f"{name}.py") for name in TESTS[module] if (folder / f"{name}.py").is_file()]
    quiet = io.StringIO()
    with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", f"--rootdir={ROOT}", *files]))


def survives(module: str, mutant: Mutant) -> bool:
    """Run the tests in a child with the mutant; False if a test failed, or it took too long."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(_MUTANT_SECONDS)
            install(importlib.import_module(f"{PACKAGE}.{module}"), mutant)
            code = run_tests(module)
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 0


def sampled(found: list[tuple[str, Mutant]], share: float) -> list[tuple[str, Mutant]]:
    """An even sample of a share of the mutants."""
    if share >= 1:
        return found
    count = max(1, int(len(found) * share))
    return [found[number * len(found) // count] for number in range(count)]


def collect(modules: list[str]) -> list[tuple[str, Mutant]]:
    """All mutants of the modules."""
    found: list[tuple[str, Mutant]] = []
    for name in modules:
        source = (ROOT / "attestation" / PACKAGE / f"{name.replace('.', '/')}.py").read_text("utf-8")
        found += [(name, mutant) for mutant in mutants(source)]
    return found


def run(modules: list[str], seconds: float) -> tuple[list[Outcome], int]:
    """Judge as many mutants as fit in the time; outcomes, and how many mutants there are.

    Raises:
        RuntimeError: the tests fail without a mutant.
    """
    for name in modules:  # also loads every module and test once, so that children start at once
        if run_tests(name) != 0:
            raise RuntimeError(f"the tests of {name} fail without any mutant")
    found = collect(modules)
    started, outcomes = time.monotonic(), []
    trial = sampled(found, 12 / len(found))
    outcomes += [_judge(*one) for one in trial]
    pace = (time.monotonic() - started) / len(trial)
    rest = [one for one in found if one not in trial]
    left = seconds - (time.monotonic() - started)
    for one in sampled(rest, left / (pace * max(1, len(rest)))):
        if time.monotonic() - started > seconds:
            break
        outcomes.append(_judge(*one))
    return outcomes, len(found)


def _judge(module: str, mutant: Mutant) -> Outcome:
    outcome = Outcome(module=module, mutant=mutant, survived=survives(module, mutant))
    if outcome.survived:
        sys.stdout.write(f"survived  {outcome.key}  (line {mutant.line})\n")
        sys.stdout.flush()
    return outcome


def main() -> int:
    """Run, print the survivors and a summary; 1 if one is not explained."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=480, help="time for all (default 480)")
    parser.add_argument("--module", action="append", choices=list(TESTS), help="only this one")
    parser.add_argument("--json", type=Path, help="write the outcomes to this file")
    arguments = parser.parse_args()
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = tempfile.mkdtemp(prefix="cocoon-mutation-")
    outcomes, total = run(arguments.module or list(TESTS), arguments.seconds)
    explained = EXPLAINED.read_text("utf-8") if EXPLAINED.is_file() else ""
    survivors = [one for one in outcomes if one.survived]
    new = [one for one in survivors if f"`{one.key}`" not in explained]
    sys.stdout.write(
        f"{len(outcomes)} of {total} mutants judged, {len(outcomes) - len(survivors)} killed, "
        f"{len(survivors)} survived, {len(new)} of them not explained in docs/spec/appraisal-mutants.md\n"
    )
    for one in new:
        sys.stdout.write(f"not explained  {one.key}  (line {one.mutant.line})\n")
    if arguments.json is not None:
        document: list[dict[str, Any]] = [
            {"key": one.key, "line": one.mutant.line, "survived": one.survived} for one in outcomes
        ]
        arguments.json.write_text(json.dumps(document, indent=1), "utf-8")
    return 1 if new else 0


if __name__ == "__main__":
    sys.exit(main())
