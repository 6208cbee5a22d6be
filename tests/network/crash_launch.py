"""Runs a program of Cocoon with crash points: ``crash_launch.py PLAN PROCESS MODULE-OR-FILE ARGUMENTS…``.

PLAN is a JSON file: ``armed`` (names of points) and ``log`` (path). Started by tests only; see crash_points.py.
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path


def main() -> None:
    """Install the points and become the program."""
    from crash_points import Crasher  # type: ignore[import-not-found]

    plan, process, program, *arguments = sys.argv[1:]
    document = json.loads(Path(plan).read_text())
    Crasher(process, frozenset(document["armed"]), Path(document["log"])).install()
    _see_blocks_sooner()
    sys.argv = [program, *arguments]
    if program.endswith(".py"):
        sys.path.insert(0, str(Path(program).parent))
        runpy.run_path(program, run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)


def _see_blocks_sooner() -> None:
    """A head of this chain is a tenth of a second old, not seconds as on mainnet."""
    from cocoon_ton.chain import LiteChain

    defaults = LiteChain.__init__.__kwdefaults__ or {}
    assert "head_ttl" in defaults
    defaults["head_ttl"] = 0.05


if __name__ == "__main__":
    main()
