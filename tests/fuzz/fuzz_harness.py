"""Fuzzes one target with atheris (libFuzzer) in this process. Started by ``run.py``.

    python fuzz_harness.py TARGET STATE_FILE FINDINGS_DIRECTORY [libFuzzer arguments]

A finding does not stop the run: it is kept once for each kind of error and place, with its input. Only what
the interpreter cannot survive (too slow, too much memory, a crash of native code) ends the process.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import sys
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.fuzz.fuzz_targets import Target

INSTRUMENTED = ["cocoon_attestation", "cocoon_ton.proof"]
"""Packages whose branches guide the fuzzer."""
_SAVE_EVERY_S = 1.0


@dataclass(slots=True)
class Recorder:
    """Runs the target, counts, and keeps one input for every kind of finding."""

    target: Target
    state: Path
    findings: Path
    executions: int = 0
    taken: int = 0
    slowest_ms: float = 0.0
    seen: dict[str, str] = field(default_factory=dict)
    saved_at: float = 0.0

    def __call__(self, data: bytes) -> None:
        started = time.perf_counter()
        try:
            self.taken += self.target.step(data)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a panic of native code is no Exception
            self._keep(error, data)
        now = time.perf_counter()
        self.executions += 1
        self.slowest_ms = max(self.slowest_ms, (now - started) * 1000)
        if now - self.saved_at > _SAVE_EVERY_S:
            self.save()
            self.saved_at = now

    def save(self) -> None:
        """Write the counters, for the driver."""
        document = {
            "executions": self.executions,
            "taken": self.taken,
            "slowest_ms": round(self.slowest_ms, 1),
        }
        self.state.write_text(json.dumps(document), "ascii")

    def _keep(self, error: BaseException, data: bytes) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if "cocoon" in frame.filename or "fuzz_targets" in frame.filename]
        place = ours[-1] if ours else frames[-1]
        kind = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
        if kind in self.seen:
            return
        name = hashlib.sha256(kind.encode()).hexdigest()[:16]
        self.seen[kind] = name
        self.findings.mkdir(parents=True, exist_ok=True)
        (self.findings / f"{name}.bin").write_bytes(data)
        (self.findings / f"{name}.txt").write_text(
            f"{kind}\n{''.join(traceback.format_exception(error))}", "utf-8", errors="replace"
        )


def main(arguments: list[str]) -> None:
    """Fuzz until libFuzzer's limits end the process."""
    program, name, state, findings, *options = arguments
    atheris: Any = importlib.import_module("atheris")
    sys.path.insert(0, str(Path(__file__).parent))
    with atheris.instrument_imports(include=INSTRUMENTED):
        targets: Any = importlib.import_module("fuzz_targets")
    one = targets.target(name)
    list(one.seeds())  # what targets compare with is made before the clock of the first input starts
    recorder = Recorder(target=one, state=Path(state), findings=Path(findings))
    atheris.Setup([program, *options], recorder)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
