"""Mutation tests of the code that decides: does a test fail when a check is changed?

    python tests/mutation/run.py [--seconds 480] [--module NAME]… [--json FILE]

Every mutant runs in a forked child with one function changed in place; the tests that enter this function
run until one fails. A mutant that no test notices is a survivor. If the time does not suffice for all mutants, an even
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
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
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
MODULES: Final = (
    "checks",
    "rtmr3",
    "policy",
    "tdx.validate",
    "tdx.verify",
    "tdx.platform",
    "tdx.grace",
    "appraisers.result",
    "appraisers.tdx",
    "appraisers.snp",
    "appraisers.gpu",
    "appraisal",
    "verified",
    "sgx.verify",
    "snp.policy",
    "snp.verify",
    "snp.validate",
    "snp.certificates",
    "gpu.policy",
    "gpu.verify",
    "gpu.manifests",
    "gpu.ocsp",
    "gpu.certificates",
    "gpu.topology",
    "gpu.versions",
    "gpu_summary",
    "eventlog.replay",
    "policy_vendor",
    "policy_language",
    "policy_leaves",
    "policy_leaves_hardware",
    "ear",
    "vendor.outcome",
    "vendor.quote",
    "vendor.snp",
    "vendor.gpu",
    "vendor.eventlog",
)
"""Modules whose code decides, in cocoon_attestation."""
TESTS: Final = (
    "attestation/test_checks.py",
    "attestation/test_rtmr3.py",
    "attestation/test_policy.py",
    "attestation/test_policy_vendor.py",
    "attestation/test_policy_digest.py",
    "attestation/test_policy_edges.py",
    "attestation/test_tdx_collateral.py",
    "attestation/test_tdx_validate.py",
    "attestation/test_tdx_platform.py",
    "attestation/test_tdx_grace.py",
    "attestation/test_tdx_verify.py",
    "attestation/test_vendor_quote.py",
    "attestation/test_appraisal.py",
    "attestation/test_appraisal_vendors.py",
    "attestation/test_single_fault.py",
    "attestation/test_snp_checks.py",
    "attestation/test_snp_chain.py",
    "attestation/test_gpu_checks.py",
    "attestation/test_gpu_chains.py",
    "attestation/test_gpu_ocsp.py",
    "attestation/test_gpu_topology.py",
    "attestation/test_gpu_summary.py",
    "attestation/test_caches.py",
    "attestation/test_eventlog_checks.py",
    "attestation/test_policy_language.py",
    "attestation/test_ear.py",
    "attestation/test_vendor_outcomes.py",
    "attestation/test_sealing_request.py",
    "attacks/test_a01_nothing_allowed.py",
    "attacks/test_a02_borrowed_quote.py",
    "attacks/test_a03_forged_roots.py",
    "attacks/test_a04_weak_guest.py",
    "attacks/test_a05_collateral.py",
    "attacks/test_a06_eventlog.py",
    "attacks/test_a07_gpu.py",
)
"""Test files that must notice a change. Of their tests those run that enter the changed function."""
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


class Recorder:
    """Plugin for pytest that notes which test enters which function of the modules, and how long it takes."""

    def __init__(self, modules: list[str]) -> None:
        self._files = {str(source_of(name)): name for name in modules}
        self._entered: set[tuple[str, str]] = set()
        self.tests: dict[tuple[str, str], set[str]] = {}
        self.seconds: dict[str, float] = {}

    def pytest_configure(self) -> None:
        """Make property tests short and repeatable; children inherit it."""
        hypothesis = importlib.import_module("hypothesis")  # after pytest, which prepares its plugin
        hypothesis.settings.register_profile(
            "mutation", deadline=None, max_examples=25, derandomize=True, database=None
        )
        hypothesis.settings.load_profile("mutation")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Watch one test with its fixtures."""
        self._entered = set()
        started = time.monotonic()
        sys.setprofile(self._enter)
        try:
            return (yield)
        finally:
            sys.setprofile(None)
            self.seconds[item.nodeid] = time.monotonic() - started
            for function in self._entered:
                self.tests.setdefault(function, set()).add(item.nodeid)

    def _enter(self, frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and (module := self._files.get(frame.f_code.co_filename)):
            self._entered.add((module, frame.f_code.co_qualname.partition(".<locals>")[0]))

    def select(self, module: str, mutant: Mutant) -> list[str]:
        """The tests that enter the mutated function, quickest first."""
        return sorted(self.tests.get((module, mutant.function), ()), key=lambda name: self.seconds[name])


class Forgetful:
    """Plugin for pytest that empties the package's caches before each test: a kept answer would hide a change."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        """Forget everything."""
        for name, module in list(sys.modules.items()):
            if name.startswith(PACKAGE):
                for value in list(vars(module).values()):
                    if callable(clear := getattr(value, "cache_clear", None)):
                        clear()


def source_of(module: str) -> Path:
    """The file of a module of the package."""
    return ROOT / "attestation" / PACKAGE / f"{module.replace('.', '/')}.py"


def run_tests(tests: Sequence[str], *plugins: object) -> int:
    """Run tests in this process, silently; pytest's exit code."""
    quiet = io.StringIO()
    arguments = ["-x", "-q", "-p", "no:cacheprovider", f"--rootdir={ROOT}", *tests]
    with contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        code = int(pytest.main(arguments, plugins=[*plugins, Forgetful()]))
    if code and plugins:
        sys.stderr.write(quiet.getvalue()[-4000:])
    return code


def survives(
    module: str, mutant: Mutant | None, tests: Sequence[str], *, seconds: int = _MUTANT_SECONDS
) -> bool:
    """Run the tests in a child with the mutant; False if one failed, or took too long (0: no limit)."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(seconds)
            if mutant is not None:
                install(importlib.import_module(f"{PACKAGE}.{module}"), mutant)
            code = run_tests(tests)
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
        found += [(name, mutant) for mutant in mutants(source_of(name).read_text("utf-8"))]
    return found


def run(modules: list[str], seconds: float) -> tuple[list[Outcome], int]:
    """Judge as many mutants as fit in the time; outcomes, and how many mutants there are.

    Raises:
        RuntimeError: a test fails without a mutant.
    """
    recorder = Recorder(modules)
    files = [str(path) for name in TESTS if (path := ROOT / "tests" / name).is_file()]
    if run_tests(files, recorder) != 0:  # also loads every module and test, so that children start at once
        raise RuntimeError("a test fails without any mutant")
    found = collect(modules)
    # A test that cannot run a second time would count every mutant that it meets as killed.
    if not survives(modules[0], None, sorted(recorder.seconds), seconds=0):
        raise RuntimeError("tests that passed fail in a child without any mutant")
    started = time.monotonic()
    trial = sampled(found, 20 / len(found))
    outcomes = [_judge(*one, recorder) for one in trial]
    pace = (time.monotonic() - started) / len(trial)
    rest = [one for one in found if one not in trial]
    left = seconds - (time.monotonic() - started)
    for one in sampled(rest, left / (pace * max(1, len(rest)))):
        if time.monotonic() - started > seconds:
            break
        outcomes.append(_judge(*one, recorder))
    return outcomes, len(found)


def _judge(module: str, mutant: Mutant, recorder: Recorder) -> Outcome:
    tests = recorder.select(module, mutant)
    survived = not tests or survives(module, mutant, tests)
    outcome = Outcome(module=module, mutant=mutant, survived=survived)
    if survived:
        reached = f"{len(tests)} tests" if tests else "no test"
        sys.stdout.write(f"survived {reached}  {outcome.key}  (line {mutant.line})\n")
        sys.stdout.flush()
    return outcome


def main() -> int:
    """Run, print the survivors and a summary; 1 if one is not explained."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=480, help="time for all (default 480)")
    parser.add_argument("--module", action="append", choices=MODULES, help="only this one")
    parser.add_argument("--json", type=Path, help="write the outcomes to this file")
    arguments = parser.parse_args()
    outcomes, total = run(arguments.module or list(MODULES), arguments.seconds)
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
