"""Collects the demo's steps for the JSON document and shows them to a person as they happen."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.markup import escape

from cocoon_attestation.checks import Check
from cocoon_attestation.errors import CocoonError
from cocoon_cli.output import check_line


@dataclass(slots=True)
class Step:
    """One step, filled in while it runs."""

    id: str
    ok: bool = False
    ms: int = 0
    detail: str = ""

    def to_dict(self) -> dict[str, object]:
        """JSON-ready form."""
        return {"id": self.id, "ok": self.ok, "ms": self.ms, "detail": self.detail}


@dataclass(slots=True)
class Recorder:
    """The growing result. `document` has the members that the JSON document has."""

    console: Console
    quiet: bool
    steps: list[Step] = field(default_factory=list)
    document: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def step(self, id: str, title: str) -> Iterator[Step]:
        """Time one step; an error marks it failed and goes on up."""
        step = Step(id)
        self.steps.append(step)
        started = time.monotonic()
        try:
            yield step
            step.ok = True
        except CocoonError as error:
            step.detail = f"{error.code}: {error}"
            raise
        finally:
            step.ms = step.ms or round((time.monotonic() - started) * 1000)
            self._show(step, title)

    def done(self, id: str, title: str, *, ms: int, detail: str, ok: bool = True) -> None:
        """Record a step that was timed elsewhere."""
        step = Step(id, ok=ok, ms=ms, detail=detail)
        self.steps.append(step)
        self._show(step, title)

    def checks(self, checks: Iterable[Check]) -> None:
        """Show checks, one line each."""
        if not self.quiet:
            for check in checks:
                self.console.print("    " + check_line(check).lstrip())

    def say(self, text: str) -> None:
        """Show a line of rich markup."""
        if not self.quiet:
            self.console.print(text)

    def write(self, text: str) -> None:
        """Show a piece of the streamed answer at once."""
        if not self.quiet:
            self.console.print(text, end="", markup=False, highlight=False, soft_wrap=True)

    def _show(self, step: Step, title: str) -> None:
        mark = "[green]✓[/]" if step.ok else "[bold red]✗[/]"
        self.say(f"{mark} [bold]{title:<22}[/] [cyan]{step.ms:>6} ms[/]  {escape(step.detail)}")
