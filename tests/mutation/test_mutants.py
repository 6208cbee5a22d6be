"""The mutation runner itself: which changes are made, and that one reaches code that was imported before."""

from __future__ import annotations

import importlib.util
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from tests.mutation.mutants import Mutant, install, mutants
else:
    from mutants import Mutant, install, mutants

SOURCE = textwrap.dedent(
    '''
    """Doc."""

    LIMIT = 3


    def small(value: int) -> bool:
        """Doc 1 == 2."""
        if value < 0 or not value:
            raise ValueError(f"{value == 1}")
        detail = "yes" if value == LIMIT else "no"
        print(detail)
        return value <= LIMIT


    class Box:
        size = 5

        def __init__(self, value: int) -> None:
            self.value = value + 1

        @property
        def double(self) -> int:
            return self.value * 2
    '''
)
CHANGES = [
    ("small", "if value < 0 or not value: negated"),
    ("small", "value < 0 or not value: and <-> or"),
    ("small", "not value: not dropped"),
    ("small", "value < 0: Lt -> LtE"),
    ("small", "0 -> 1"),
    ("small", "raise ValueError(f'{value == 1}'): deleted"),
    ("small", "print(detail): deleted"),
    ("small", "return value <= LIMIT: None returned"),
    ("small", "value <= LIMIT: LtE -> Lt"),
    ("Box.__init__", "value + 1: Add -> Sub"),
    ("Box.__init__", "1 -> 2"),
    ("Box.double", "return self.value * 2: None returned"),
    ("Box.double", "self.value * 2: Mult -> FloorDiv"),
    ("Box.double", "2 -> 3"),
]


def load(tmp_path: Path) -> Any:
    path = tmp_path / "sample_for_mutants.py"
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("sample_for_mutants", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def find(change: str) -> Mutant:
    return next(mutant for mutant in mutants(SOURCE) if mutant.change == change)


def test_every_kind_of_change_is_made_and_no_text_is_changed() -> None:
    found = [(mutant.function, mutant.change) for mutant in mutants(SOURCE)]
    assert sorted(found) == sorted(CHANGES)


def test_mutant_changes_functions_that_were_imported_before(tmp_path: Path) -> None:
    module = load(tmp_path)
    kept = module.small
    assert kept(3) is True
    install(module, find("value <= LIMIT: LtE -> Lt"))
    assert kept(3) is False


def test_mutant_changes_methods_and_properties(tmp_path: Path) -> None:
    module = load(tmp_path)
    install(module, find("value + 1: Add -> Sub"))
    assert module.Box(4).value == 3
    install(module, find("self.value * 2: Mult -> FloorDiv"))
    assert module.Box(5).double == 2


def test_what_is_no_function_is_refused(tmp_path: Path) -> None:
    module = load(tmp_path)
    with pytest.raises(LookupError):
        install(module, Mutant(line=1, column=0, function="LIMIT", change="", tree=find("0 -> 1").tree))


def test_equal_changes_of_one_function_are_told_apart() -> None:
    source = "def f(value):\n    return value[:32] + value[32:]\n"
    changes = [mutant.change for mutant in mutants(source) if mutant.change.startswith("32")]
    assert changes == ["32 -> 33", "32 -> 33 (2)"]
