"""What the conformance run is made of: samples, rows of the table, and the command line called in-process."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from cocoon_cli.__main__ import cli

EXIT_CODES = {"accepted": 0, "rejected": 10, "malformed": 30, "undecided": 40}


def samples_folder() -> Path:
    """The folder of samples: `COCOON_TEST_VECTORS`, or ``shared/vectors`` beside the checkout."""
    named = os.environ.get("COCOON_TEST_VECTORS")
    return Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "vectors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    category: str
    sample: str
    want: str
    got: str
    reason: str
    ok: bool
    skipped: bool = False


@dataclass(slots=True)
class Kit:
    """Samples, a scratch folder, and the rows so far."""

    folder: Path
    rows: list[Row] = field(default_factory=list)
    index: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    scratch: Path | None = None
    used: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.index = json.loads((self.folder / "INDEX.json").read_text("utf-8"))

    def path(self, name: str) -> str:
        """Absolute path of a sample; notes that it was used."""
        self.used.add(name)
        return str(self.folder / name)

    def read(self, name: str) -> bytes:
        """The bytes of a sample."""
        return Path(self.path(name)).read_bytes()

    def write(self, name: str, data: bytes) -> str:
        """A scratch file for something that was taken out of a sample."""
        if self.scratch is None:
            self.scratch = Path(tempfile.mkdtemp(prefix="cocoon-conformance-"))
        path = self.scratch / name
        path.write_bytes(data)
        return str(path)

    def close(self) -> None:
        """Remove the scratch files."""
        if self.scratch is not None:
            shutil.rmtree(self.scratch)
            self.scratch = None

    def entry(self, category: str, name: str) -> dict[str, Any]:
        """An entry of the index by its id."""
        return next(entry for entry in self.index[category] if entry["id"] == name)

    def run(self, *arguments: object) -> dict[str, Any]:
        """Call ``cocoon verify …  --json``; `exit` is the exit code.

        Anything but one JSON document with the right exit code is a failure of its own kind.
        """
        result = CliRunner().invoke(cli, ["verify", *map(str, arguments), "--json"])
        try:
            document: dict[str, Any] = json.loads(result.stdout)
        except ValueError:
            problem = repr(result.exception) if result.exception else result.output[-200:]
            return {"verdict": f"no answer: {problem}", "checks": [], "reason": problem, "claims": {}}
        if EXIT_CODES.get(document["verdict"]) != result.exit_code:
            document["verdict"] = f"{document['verdict']} with exit code {result.exit_code}"
        return document

    def expect(
        self,
        category: str,
        sample: str,
        want: str,
        *arguments: object,
        failing: Iterable[str] = (),
        says: Mapping[str, object] | None = None,
        claims: Mapping[str, object] | None = None,
    ) -> dict[str, Any]:
        """Run a command and add a row.

        Args:
            category: heading in the table.
            sample: name, with what was asked.
            want: verdict, or several separated by ``|``.
            arguments: of ``cocoon verify``.
            failing: if given, one of these checks must have failed.
            says: members that the document must have with these values.
            claims: claims that the document must have with these values.
        """
        document = self.run(*arguments)
        problems = [] if document["verdict"] in want.split("|") else ["verdict"]
        failed = {check["id"] for check in document["checks"] if check["verdict"] == "fail"}
        wanted = frozenset(failing)
        if wanted and not failed & wanted:
            problems.append(f"one of {sorted(wanted)} should fail, not {sorted(failed)}")
        for name, table, values in (("", document, says), ("claim ", document["claims"], claims)):
            for key, value in (values or {}).items():
                if table.get(key) != value:
                    problems.append(f"{name}{key} is {table.get(key)!r}, not {value!r}")
        self.add(category, sample, want, str(document["verdict"]), str(document["reason"]), problems)
        return document

    def add(
        self, category: str, sample: str, want: str, got: str, reason: str, problems: Iterable[str] = ()
    ) -> None:
        """Add a row for something that was judged without the command line."""
        found = list(problems)
        text = f"{'; '.join(found)} | {reason}" if found else reason
        self.rows.append(
            Row(category=category, sample=sample, want=want, got=got, reason=text, ok=not found)
        )

    def skip(self, category: str, sample: str, reason: str) -> None:
        """Add a row for something that this verifier does not judge, with the reason."""
        self.rows.append(
            Row(
                category=category,
                sample=sample,
                want="-",
                got="not judged",
                reason=reason,
                ok=True,
                skipped=True,
            )
        )


def middle(window: Iterable[str]) -> int:
    """Unix time in the middle of two ISO dates."""
    start, end = (datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() for text in window)
    return int((start + end) / 2)


def moment(text: str) -> int:
    """Unix time of an ISO date in UTC."""
    return middle((text, text))
