"""`make conformance`: every sample of the shared vectors through ``cocoon verify``, as a table.

Expectations follow from the fields of INDEX.json alone, so further samples of the same kinds need no
change here. Leaves with 1 if anything is not as expected, with 2 if there are no samples.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from tests.conformance.conf_bundles import run_bundles
    from tests.conformance.conf_cpu import run_eventlogs, run_quotes, run_snp, run_synthetic
    from tests.conformance.conf_gpu import run_gpu
    from tests.conformance.conf_kit import Kit, Row, samples_folder
else:
    from conf_bundles import run_bundles
    from conf_cpu import run_eventlogs, run_quotes, run_snp, run_synthetic
    from conf_gpu import run_gpu
    from conf_kit import Kit, Row, samples_folder

RUNS = (run_quotes, run_synthetic, run_snp, run_gpu, run_eventlogs, run_bundles)
CATEGORIES = frozenset({"tdx", "sgx", "snp", "nvidia", "eventlog", "bundles", "tdx_synthetic"})


def run(folder: Path) -> list[Row]:
    """Judge every sample in `folder` and return the rows; a file of no kind that is known is a row too."""
    kit = Kit(folder)
    try:
        for part in RUNS:
            part(kit)
        for category in sorted(kit.index.keys() - CATEGORIES):
            kit.add(
                category, "(all)", "judged", "unknown category", "nobody wrote a run for it", ["category"]
            )
        for category, entries in kit.index.items():
            for entry in entries:
                if not any(file in kit.used for file in _files(entry)):
                    kit.add(
                        category, entry["id"], "judged", "never opened", "no run used this file", ["file"]
                    )
    finally:
        kit.close()
    return kit.rows


def _files(entry: dict[str, object]) -> list[str]:
    if "dir" in entry and isinstance(entry.get("files"), list):
        return [f"{entry['dir']}/{name}" for name in entry["files"]]  # type: ignore[attr-defined]
    return [str(entry["file"])]


def _print(rows: list[Row]) -> None:
    width = max(len(row.sample) for row in rows)
    for category in dict.fromkeys(row.category for row in rows):
        print(f"\n{category}")  # noqa: T201
        for row in (row for row in rows if row.category == category):
            mark = "–" if row.skipped else "✓" if row.ok else "✗"
            print(f"  {mark} {row.sample:<{width}}  {row.want:<20} {row.got:<12} {row.reason[:150]}")  # noqa: T201
    count = Counter("skipped" if row.skipped else "as expected" if row.ok else "WRONG" for row in rows)
    summary = ", ".join(f"{number} {name}" for name, number in sorted(count.items()))
    print(f"\n{len(rows)} cases: {summary}")  # noqa: T201


def main() -> int:
    """Run, print, and say whether all is well."""
    folder = samples_folder()
    if not (folder / "INDEX.json").is_file():
        print(f"no samples in {folder}: set COCOON_TEST_VECTORS", file=sys.stderr)  # noqa: T201
        return 2
    rows = run(folder)
    _print(rows)
    return 0 if all(row.ok for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
