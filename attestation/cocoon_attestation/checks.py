"""Named checks and their verdicts: how every decision in this package is recorded.

A check has a stable id (``tdx.sig``), a section of the specification, inputs and a verdict. A skipped
check never counts as a pass: `CheckList.accepted` is true only if at least one check was made and none
failed or was skipped without being marked optional by the policy.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field


class Verdict(enum.StrEnum):
    """Outcome of one check."""

    PASS = "pass"  # noqa: S105  # a verdict, not a password
    FAIL = "fail"
    SKIP = "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check that was made, or visibly not made."""

    id: str
    """Stable id, for example ``binding.report_data``."""
    verdict: Verdict
    detail: str
    """What was compared, for a person; never secret."""
    spec: str = ""
    """Section of the rule, for example ``docs/spec/appraisal.md#tdx.sig``."""
    inputs: tuple[tuple[str, str], ...] = ()
    """Exact inputs as (name, hex or text), shown by ``--explain``."""

    def to_dict(self) -> dict[str, object]:
        """The check as a JSON-ready object."""
        return {"id": self.id, "verdict": self.verdict.value, "detail": self.detail}


@dataclass(slots=True)
class CheckList:
    """Collects checks in the order they are made."""

    checks: list[Check] = field(default_factory=list)

    def record(
        self,
        id: str,
        ok: bool,
        detail: str,
        *,
        spec: str = "",
        inputs: tuple[tuple[str, str], ...] = (),
    ) -> bool:
        """Append a passed or failed check and return `ok`."""
        verdict = Verdict.PASS if ok else Verdict.FAIL
        self.checks.append(
            Check(id=id, verdict=verdict, detail=detail, spec=spec or _spec(id), inputs=inputs)
        )
        return ok

    def skip(self, id: str, detail: str, *, spec: str = "") -> None:
        """Append a check that was not made, and why."""
        self.checks.append(Check(id=id, verdict=Verdict.SKIP, detail=detail, spec=spec or _spec(id)))

    def extend(self, other: CheckList) -> None:
        """Append all checks of `other`."""
        self.checks.extend(other.checks)

    @property
    def failed(self) -> tuple[Check, ...]:
        """The failed checks."""
        return tuple(c for c in self.checks if c.verdict is Verdict.FAIL)

    @property
    def skipped(self) -> tuple[Check, ...]:
        """The skipped checks."""
        return tuple(c for c in self.checks if c.verdict is Verdict.SKIP)

    @property
    def accepted(self) -> bool:
        """True if checks were made and every one of them passed."""
        return bool(self.checks) and all(c.verdict is Verdict.PASS for c in self.checks)

    def __iter__(self) -> Iterator[Check]:
        return iter(self.checks)

    def __len__(self) -> int:
        return len(self.checks)


def _spec(check_id: str) -> str:
    return f"docs/spec/appraisal.md#{check_id}"
