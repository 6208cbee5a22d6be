"""The record of all fuzzing so far: the table of docs/spec/fuzzing.md, read and written.

The table is the only place where the sums are kept. A run adds to it; nobody edits it by hand.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "spec" / "fuzzing.md"
HEAD = (
    "| parser | seconds | CPU seconds | executions | taken | findings | last commit |\n"
    "|---|---|---|---|---|---|---|\n"
)
_ROW = re.compile(
    r"^\| `([a-z-]+)` \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| ([0-9a-f]+|-) \|$", re.MULTILINE
)
_TABLE = re.compile(re.escape(HEAD) + r"(?:\|.*\n)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """All runs of one parser together."""

    name: str
    seconds: int = 0
    """On the clock, start of the process included."""
    cpu: int = 0
    """Of the processor: on a machine that is shared, what was really spent."""
    executions: int = 0
    taken: int = 0
    """Inputs that the parser took as good."""
    findings: int = 0
    """Kinds of error found, those of every run added up, mended ones included."""
    commit: str = "-"
    """Short id of the commit that ran last."""

    def add(
        self, *, seconds: float, cpu: float, executions: int, taken: int, findings: int, commit: str
    ) -> Total:
        """This total and one more run."""
        return Total(
            name=self.name,
            seconds=self.seconds + int(seconds),
            cpu=self.cpu + int(cpu),
            executions=self.executions + executions,
            taken=self.taken + taken,
            findings=self.findings + findings,
            commit=commit,
        )


def read(page: Path = PAGE) -> dict[str, Total]:
    """Parser -> its total, in the order of the page; empty where the page has no table."""
    table = _TABLE.search(page.read_text("utf-8")) if page.is_file() else None
    if table is None:
        return {}
    return {
        name: Total(
            name=name,
            seconds=int(seconds),
            cpu=int(cpu),
            executions=int(executions),
            taken=int(taken),
            findings=int(findings),
            commit=commit,
        )
        for name, seconds, cpu, executions, taken, findings, commit in _ROW.findall(table[0])
    }


def write(totals: dict[str, Total], page: Path = PAGE) -> None:
    """Replace the table of the page.

    Raises:
        ValueError: the page has no table to replace.
    """
    text = page.read_text("utf-8")
    rows = "".join(
        f"| `{one.name}` | {one.seconds} | {one.cpu} | {one.executions} | {one.taken} | {one.findings} | "
        f"{one.commit} |\n"
        for one in totals.values()
    )
    changed, count = _TABLE.subn(lambda _: HEAD + rows, text)
    if count != 1:
        raise ValueError(f"{page.name}: {count} tables of totals, must be 1")
    page.write_text(changed, "utf-8")


def commit() -> str:
    """Short id of the commit that this checkout is at; ``-`` where git cannot tell."""
    command = ["git", "rev-parse", "--short=9", "HEAD"]
    told = subprocess.run(command, cwd=PAGE.parent, capture_output=True, text=True, check=False)
    return told.stdout.strip() if told.returncode == 0 else "-"
