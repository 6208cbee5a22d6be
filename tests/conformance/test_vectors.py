"""The shared samples give their expected outcomes, and the run would notice if they did not."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from tests.conformance.conf_kit import Kit, Row, samples_folder
    from tests.conformance.run import CATEGORIES, run
else:
    from conf_kit import Kit, Row, samples_folder
    from run import CATEGORIES, run

FOLDER = samples_folder()
pytestmark = pytest.mark.skipif(
    not (FOLDER / "INDEX.json").is_file(), reason=f"the samples are not on this machine ({FOLDER})"
)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """One run over every sample."""
    return run(FOLDER)


@pytest.mark.parametrize("category", sorted(CATEGORIES))
def test_every_sample_gives_its_expected_outcome(rows: list[Row], category: str) -> None:
    mine = [row for row in rows if row.category == category]
    assert mine
    assert [row for row in mine if not row.ok] == []


def test_nothing_is_skipped_without_a_reason(rows: list[Row]) -> None:
    skipped = [row for row in rows if row.skipped]
    assert all(row.reason for row in skipped)
    assert {row.category for row in skipped} == {"bundles"}


def test_acceptance_and_rejection_both_occur(rows: list[Row]) -> None:
    assert {row.got for row in rows if not row.skipped} >= {
        "accepted",
        "rejected",
        "malformed",
        "undecided",
    }


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    """The samples with expectations turned around in one entry of each kind."""
    for part in FOLDER.iterdir():
        if part.name != "INDEX.json":
            (tmp_path / part.name).symlink_to(part)
    index: dict[str, list[dict[str, Any]]] = json.loads((FOLDER / "INDEX.json").read_text("utf-8"))
    quote = next(
        e
        for e in index["tdx"]
        if e["cases"] and e["cases"][0]["dcap_qvl_0_7_0"].get("status") == "UpToDate"
    )
    quote["cases"][0]["dcap_qvl_0_7_0"] = {"result": "ok", "status": "OutOfDate", "advisories": []}
    report = next(e for e in index["snp"] if e["checks"].get("signature"))
    report["checks"]["signature"] = False
    log = next(e for e in index["eventlog"] if e.get("match") == [True] * 4)
    log["match"][2] = False
    index["unheard_of"] = [{"id": "new", "file": "new.bin"}]
    changed = {
        "tdx": [quote],
        "sgx": [],
        "snp": [report],
        "eventlog": [log],
        "unheard_of": index["unheard_of"],
    }
    (tmp_path / "INDEX.json").write_text(json.dumps(changed))
    return tmp_path


def test_a_wrong_expectation_is_noticed(wrong: Path) -> None:
    bad = {row.category for row in run(wrong) if not row.ok}
    assert bad == {"tdx", "snp", "eventlog", "unheard_of"}


def test_command_that_answers_nothing_is_noticed() -> None:
    kit = Kit(FOLDER)
    assert str(kit.run("quote", "nowhere")["verdict"]).startswith("no answer")
    kit.expect("tdx", "unreadable", "rejected", "quote", "nowhere", "--collateral", "nowhere")
    assert not kit.rows[0].ok
