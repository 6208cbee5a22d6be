"""Committed build files, opcodes and TL-B are what the sources give."""

from __future__ import annotations

import base64
import importlib.util
import json
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
from pytoniq_core import Cell

from cocoon_attestation.errors import MalformedError, UnsupportedError
from cocoon_ton import code, opcodes

ROOT = Path(__file__).resolve().parents[2] / "ton_contracts"
NAMES = ("Registry", "Node", "Channel", "Pck")


def script(name: str) -> ModuleType:
    """A generator script as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_sources_compile_to_the_committed_code() -> None:
    node = shutil.which("node")
    if node is None or not (ROOT / "node_modules/@ton/tolk-js").is_dir():
        pytest.skip("needs Node.js and `npm ci` in ton_contracts")
    done = subprocess.run(
        [node, "compile.mjs", "--check"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", [*NAMES, "System"])
def test_build_files_hold_the_code_that_they_name(name: str) -> None:
    document = json.loads((ROOT / "build" / f"{name}.json").read_text(encoding="utf-8"))
    assert document.keys() == {"name", "compiler", "code_hash", "code"}
    cell = Cell.one_from_boc(base64.b64decode(document["code"]))
    assert cell.hash.hex() == document["code_hash"]
    pinned = json.loads((ROOT / "package.json").read_text(encoding="utf-8"))["devDependencies"][
        "@ton/tolk-js"
    ]
    assert document["compiler"] == f"tolk {pinned}"
    loaded = code.load_code(name)
    assert (loaded.name, loaded.code_hash, loaded.cell.hash) == (name, cell.hash, cell.hash)


def test_opcodes_are_in_sync() -> None:
    generator = script("generate_opcodes")
    assert generator.main(["--check"]) == 0, "run python ton_contracts/generate_opcodes.py"


def test_tlb_is_in_sync() -> None:
    assert script("generate_tlb").main(["--check"]) == 0, "run python ton_contracts/generate_tlb.py"


def test_exit_codes_have_their_own_ranges() -> None:
    ranges = {
        "Registry": range(200, 250),
        "Node": range(300, 350),
        "Channel": range(400, 450),
        "Pck": range(500, 550),
    }
    assert {entry.contract for entry in opcodes.EXIT_CODES.values()} == set(NAMES)
    for number, entry in opcodes.EXIT_CODES.items():
        assert number in ranges[entry.contract]
        assert entry.meaning


def test_every_error_is_thrown_somewhere() -> None:
    text = "\n".join(script("generate_opcodes").read_sources().values())
    for number, entry in opcodes.EXIT_CODES.items():
        used = f"throw {entry.contract}Error.{entry.name}" in text or f"Error.{entry.name}\n" in text
        assert used, f"{number} {entry.contract}.{entry.name} is never thrown"


def test_numbers_in_place_of_errors_are_the_right_ones() -> None:
    """`throwIfOpcodeDoesNotMatch` takes a number only: it must be the error that the comment names."""
    numbers = {(e.contract, e.name): n for n, e in opcodes.EXIT_CODES.items()}
    assert numbers["Registry", "BadChange"] == 202
    assert numbers["Node", "WrongNode"] == 303
    assert numbers["Node", "BadSignature"] == 310
    text = "\n".join(script("generate_opcodes").read_sources().values())
    known = ("202", "303", "310", "0xffff")  # the last: an unknown message
    assert text.count("throwIfOpcodeDoesNotMatch: ") == sum(
        text.count(f"throwIfOpcodeDoesNotMatch: {number}") for number in known
    )


@pytest.mark.parametrize(
    "source",
    [
        "struct (0xc0c00001) A {\n}\nstruct (0xc0c00001) B {\n}\n",
        "struct (0xc0c00001) A {\n}\nstruct (0xc0c00002) A {\n}\n",
    ],
)
def test_a_tag_or_name_used_twice_is_an_error(source: str) -> None:
    with pytest.raises(ValueError, match="used twice"):
        script("generate_opcodes").tags({"x": source})


def test_an_exit_code_used_twice_is_an_error() -> None:
    source = "enum AError {\n    One = 200   // one\n    Two = 200   // two\n}\n"
    with pytest.raises(ValueError, match="200"):
        script("generate_opcodes").exit_codes({"x": source})


def test_an_unknown_field_type_is_an_error() -> None:
    generator = script("generate_tlb")
    with pytest.raises(ValueError, match="no TL-B"):
        generator.tlb_type("varint16")
    with pytest.raises(ValueError, match="not understood"):
        generator.declarations("struct A {\n    x: (int8, int8) = 5 + 5\n}\n")


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update(code_hash="00" * 32),
        lambda d: d.update(code="AAAA"),
        lambda d: d.update(code="not base64"),
        lambda d: d.pop("code"),
        lambda d: d.update(code_hash=5),
    ],
)
def test_damaged_build_files_are_refused(change: object) -> None:
    document = json.loads((ROOT / "build" / "Channel.json").read_text(encoding="utf-8"))
    change(document)  # type: ignore[operator]
    with pytest.raises(MalformedError):
        code.parse_code(json.dumps(document))


def test_an_unknown_contract_is_not_installed() -> None:
    with pytest.raises(UnsupportedError):
        code.load_code("Elsewhere")
