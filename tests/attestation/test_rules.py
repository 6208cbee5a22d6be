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
PAGE = PACKAGE.parents[1] / "docs" / "spec" / "appraisal.md"
SOURCES = [PACKAGE / "appraisal.py", PACKAGE / "rtmr3.py", *sorted((PACKAGE / "tdx").glob("*.py"))]
ID = re.compile(r"(?:policy|binding|tee|tdx|rtmr3|snp|gpu)\.[a-z0-9_]+|challenge")


def ids_in_code() -> set[str]:
    found = set()
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and ID.fullmatch(node.value):
                found.add(node.value)
    return found


def test_code_rules_and_page_name_the_same_checks() -> None:
    anchors = set(re.findall(r'<a id="([^"]+)"></a>`([^`]+)`', PAGE.read_text("utf-8")))
    assert all(anchor == name for anchor, name in anchors)
    documented = {name for _, name in anchors}
    assert ids_in_code() <= documented
    assert ids_in_code() <= RULES.keys()


def test_checks_of_an_appraisal_lead_to_the_page(lab: Any) -> None:
    page = PAGE.read_text("utf-8")
    for check in lab.appraise().checks:
        assert check.spec == RULES[check.id].spec
        assert f'<a id="{check.id}"></a>' in page
        assert check.detail


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
def test_rules_are_sentences(rule: Any) -> None:
    assert rule.rule.endswith(".")
    assert rule.source
    assert RULES[rule.id] is rule
