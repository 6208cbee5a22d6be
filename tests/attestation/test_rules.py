"""Every check that appraisal makes has a rule and a place in the specification, and no others do."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

import cocoon_attestation
from cocoon_attestation.rules import RULES

PACKAGE = Path(cocoon_attestation.__file__).parent
ROOT = PACKAGE.parents[1]
PAGE = ROOT / "docs" / "spec" / "appraisal.md"
TESTS = ROOT / "tests"
FOLDERS = ("appraisers", "tdx", "sgx", "snp", "gpu", "eventlog", "vendor")
SOURCES = [
    PACKAGE / "appraisal.py",
    PACKAGE / "rtmr3.py",
    *(path for folder in FOLDERS for path in sorted((PACKAGE / folder).glob("*.py"))),
]
ID = re.compile(r"(?:policy|binding|release|tee|tdx|sgx|rtmr3|snp|gpu|eventlog)\.[a-z0-9_]+|challenge")
ROW = re.compile(r'^\| <a id="([^"]+)"></a>`([^`]+)` \|(.+)\|$', re.MULTILINE)
VENDOR_ROW = re.compile(r'^\| <a id="([^"]+)"></a>`[^`]+` \| (.+?) \| (?:.+?) \| (?:.+?) \|$', re.MULTILINE)
SHARED_WITH_TDX = {f"sgx.{id.partition('.')[2]}" for id in RULES if id.startswith("tdx.")}


def ids_in_code() -> set[str]:
    found = set()
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and ID.fullmatch(node.value):
                found.add(node.value)
    # The four register checks are written as one pattern.
    return found - {"eventlog.rtmr"} | {f"eventlog.rtmr{i}" for i in range(4)}


def rows() -> dict[str, str]:
    """Check id -> the rest of its row on the page."""
    found = ROW.findall(PAGE.read_text("utf-8"))
    assert all(anchor == name for anchor, name, _ in found)
    assert len({name for _, name, _ in found}) == len(found)
    return {name: rest for _, name, rest in found}


def test_code_rules_and_page_name_the_same_checks() -> None:
    assert set(rows()) == set(RULES)
    assert ids_in_code() <= set(RULES)
    # Checks on SGX quotes that are those of TDX are renamed at run time, so they are not in the code.
    assert set(RULES) - ids_in_code() <= SHARED_WITH_TDX


@pytest.mark.parametrize("page", ["snp", "gpu", "eventlog"])
def test_rules_of_vendors_are_those_of_their_pages(page: str) -> None:
    text = (ROOT / "docs" / "spec" / f"{page}.md").read_text("utf-8")
    stated = {id: rule.replace("**", "") for id, rule in VENDOR_ROW.findall(text)}
    assert stated == {
        id: rule.rule for id, rule in RULES.items() if id.partition(".")[0] == page and id in stated
    }
    assert {id for id in RULES if id.startswith(f"{page}.")} - set(stated) <= {"gpu.allowed"}
    assert all(RULES[id].spec == f"docs/spec/{page}.md#{id}" for id in stated)


def test_every_check_names_a_source_and_a_test_that_exists() -> None:
    everything = "".join(
        path.read_text("utf-8")
        for folder in ("attestation", "attacks")
        for path in (TESTS / folder).glob("test_*.py")
    )
    vendor = {id for id, rule in RULES.items() if not rule.spec.startswith("docs/spec/appraisal.md")}
    for id, rest in rows().items():
        named = re.findall(r"`(test_\w+)`", rest)
        assert named, id
        assert id in vendor or re.search(r"\| (Cocoon|TDX|DCAP|SGX) \|", rest), id
        for name in named:
            assert f"def {name}(" in everything, f"{id} names {name}"


@pytest.mark.parametrize("page", ["snp", "gpu", "eventlog"])
def test_page_repeats_the_rows_of_the_vendor_pages(page: str) -> None:
    text = (ROOT / "docs" / "spec" / f"{page}.md").read_text("utf-8")
    theirs = {id: rest for id, _, rest in ROW.findall(text)}
    assert theirs
    assert {id: rest for id, rest in rows().items() if id in theirs} == theirs


def test_checks_of_an_appraisal_lead_to_the_page(lab: Any) -> None:
    page = PAGE.read_text("utf-8")
    for check in lab.appraise().checks:
        assert check.spec == RULES[check.id].spec
        assert f'<a id="{check.id}"></a>' in page
        assert check.detail


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_rules_are_sentences(rule: Any) -> None:
    assert rule.rule.endswith((".", ".)"))
    assert rule.source
    assert RULES[rule.id] is rule
