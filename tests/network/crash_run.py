"""`make crash`: kill -9 at every crash point of every process, and the books after each life.

One life for each function and edge: its process dies there in every step in which it is reached. A point that was
not reached that way, because an earlier death in the same life led around it, gets a life of its own. Ends with
status 1 if a life does not converge, its books do not add up, or a point never killed anybody.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.network.crash_points import points
    from tests.network.crash_world import Life, check
    from tests.network.netkit_tools import why_not
else:
    from crash_points import points
    from crash_world import Life, check
    from netkit_tools import why_not


def groups(wanted: Iterable[str]) -> list[tuple[str, ...]]:
    """Points of one process, function and edge together."""
    found: dict[tuple[str, str], list[str]] = {}
    for point in wanted:
        process, _, function = point.split("/")
        found.setdefault((process, function), []).append(point)
    return [tuple(group) for group in found.values()]


def one_life(armed: tuple[str, ...]) -> tuple[set[str], str]:
    """Where processes died, and what went wrong (empty: nothing)."""
    with tempfile.TemporaryDirectory(prefix="cocoon-crash-") as directory:
        life = Life(Path(directory) / "home", armed)
        try:
            try:
                life.live()
            finally:
                life.stop()
            check(life)
        except Exception:
            return set(life.deaths), traceback.format_exc()
        if len(life.deaths) != len(set(life.deaths)):
            return set(life.deaths), "a point killed twice"
        return set(life.deaths), ""


def say(line: str) -> None:
    """One line, at once: lives are long."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> int:
    """Run all lives; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="points whose name contains this")
    options = parser.parse_args()
    if reason := why_not():
        sys.stderr.write(f"not possible here: {reason}\n")
        return 2
    wanted = [point for point in points() if options.only in point]
    left, failed, lives, started = set(wanted), 0, 0, time.monotonic()
    waiting = groups(wanted)
    alone = False
    while waiting:
        armed = waiting.pop(0)
        begun = time.monotonic()
        died, trouble = one_life(armed)
        lives += 1
        left -= died
        failed += bool(trouble)
        verdict = "FAILED" if trouble else "ok"
        say(
            f"{verdict:>6} {time.monotonic() - begun:6.1f} s  {len(died):2}/{len(armed):<2} deaths  {armed[0]}"
        )
        if trouble:
            say(trouble)
        if not waiting and not alone:
            alone = True
            waiting = [(point,) for point in sorted(left)]
    say(f"{len(wanted) - len(left)} of {len(wanted)} points killed a process, in {lives} lives;")
    say(f"{failed} lives failed; {time.monotonic() - started:.0f} s")
    for point in sorted(left):
        say(f"never reached: {point}")
    return 1 if failed or left else 0


if __name__ == "__main__":
    sys.exit(main())
