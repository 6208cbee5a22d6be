"""The specification pages, the code and the tests name the same checks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTS = Path(__file__).resolve().parent
ROW = re.compile(r'^\| <a id="([^"]+)"></a>`([^`]+)` \|(.+)\|$', re.MULTILINE)
PAGES = {"snp": "snp", "gpu": "gpu", "eventlog": "eventlog"}


def rows(page: str) -> dict[str, str]:
    """Check id -> the rest of its row."""
    text = (ROOT / "docs" / "spec" / f"{page}.md").read_text("utf-8")
    found = {anchor: rest for anchor, name, rest in ROW.findall(text) if anchor == name}
    assert len(found) == len(ROW.findall(text))
    return found


def ids_in_code(package: str) -> set[str]:
    """Check ids written in the package."""
    folder = ROOT / "attestation" / "cocoon_attestation" / package
    text = "".join(path.read_text("utf-8") for path in sorted(folder.glob("*.py")))
    found = set(re.findall(rf'"({package}\.[a-z0-9_]+)"', text))
    if package == "eventlog":
        assert 'f"eventlog.rtmr{i}"' in text
        found |= {f"eventlog.rtmr{i}" for i in range(4)}
    return found


@pytest.mark.parametrize("page", sorted(PAGES))
def test_every_check_of_the_code_is_specified_and_no_other(page: str) -> None:
    assert set(rows(page)) == ids_in_code(PAGES[page])


@pytest.mark.parametrize("page", sorted(PAGES))
def test_every_named_test_exists(page: str) -> None:
    text = "".join(path.read_text("utf-8") for path in TESTS.glob(f"test_{page}_*.py"))
    for check, rest in rows(page).items():
        named = re.findall(r"`(test_\w+)`", rest)
        assert named, check
        for name in named:
            assert f"def {name}(" in text, f"{check} names {name}"


@pytest.mark.parametrize("page", sorted(PAGES))
def test_every_check_is_asserted_by_a_test(page: str) -> None:
    text = "".join(path.read_text("utf-8") for path in TESTS.glob(f"test_{page}_*.py"))
    passive = {"snp.length"} | {f"eventlog.rtmr{i}" for i in range(4)}
    for check in rows(page):
        assert check in passive or f'"{check}"' in text, check
