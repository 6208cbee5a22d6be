"""CPU time of processes, and the state of the machine. Linux."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

_PROCESS_CLOCK = 2
"""CPUCLOCK_SCHED, the kind of clock that clock_getcpuclockid(3) gives."""


def cpu_seconds(pid: int) -> float:
    """User and system time of a process with all its threads, in seconds: utime + stime, to the nanosecond."""
    # /proc/PID/stat has the same in steps of 10 ms, too coarse for one short round.
    return time.clock_gettime((~pid << 3) | _PROCESS_CLOCK)


def children(pid: int) -> list[int]:
    """Process ids of the direct children."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


def engine_of(pid: int) -> int:
    """The engine process of an enclave: the child that was spawned to run the model.

    Raises:
        RuntimeError: it has none, or more than one.
    """
    spawned = [
        child for child in children(pid) if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    if len(spawned) != 1:
        raise RuntimeError(f"process {pid} has {len(spawned)} engine processes")
    return spawned[0]


def machine(load_before: tuple[float, float, float]) -> dict[str, object]:
    """What the numbers were taken on. A load above the number of cores means that others ran too."""
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "arch": platform.machine(),
        "load_average_before": [round(x, 2) for x in load_before],
        "load_average_after": [round(x, 2) for x in os.getloadavg()],
    }
