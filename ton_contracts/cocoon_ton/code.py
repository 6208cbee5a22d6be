"""Compiled contracts: code cells from ``build/*.json``, their hashes, and addresses from StateInit.

The files are written by ``ton_contracts/compile.mjs`` and reproduced in CI. Code is checked against its
recorded hash when it is loaded.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from pytoniq_core import Address, Builder, Cell

from cocoon_attestation.errors import MalformedError, UnsupportedError

REGISTRY = "Registry"
NODE = "Node"
CHANNEL = "Channel"
PCK = "Pck"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractCode:
    """One compiled contract."""

    name: str
    """``Registry``, ``Node``, ``Channel`` or ``Pck``."""
    boc: bytes
    """Bag of cells with the code."""
    code_hash: bytes
    """Representation hash of the code cell, 32 bytes."""
    compiler: str
    """Compiler and version, for example ``tolk 1.3.0``."""

    @property
    def cell(self) -> Cell:
        """The code cell."""
        return _cell(self.boc)

    @property
    def depth(self) -> int:
        """Depth of the code cell: with the hash, enough to compute addresses."""
        return int(self.cell.get_depth(0))


@cache
def _cell(boc: bytes) -> Cell:
    cell: Cell = Cell.one_from_boc(boc)
    return cell


@cache
def load_code(name: str) -> ContractCode:
    """Load a contract that ships with this package.

    Raises:
        UnsupportedError: no compiled contract of that name is installed.
        MalformedError: the file does not hold the code that it names.
    """
    text = _build_file(f"{name}.json")
    if text is None:
        raise UnsupportedError(
            f"compiled contract {name} is not installed", hint="run `node ton_contracts/compile.mjs`"
        )
    return parse_code(text)


def parse_code(text: str) -> ContractCode:
    """Read one ``build/*.json`` file.

    Raises:
        MalformedError: not such a file, or its code has another hash than it says.
    """
    try:
        document = json.loads(text)
        boc = base64.b64decode(document["code"], validate=True)
        code = ContractCode(
            name=str(document["name"]),
            boc=boc,
            code_hash=bytes.fromhex(document["code_hash"]),
            compiler=str(document["compiler"]),
        )
        actual: bytes = code.cell.hash
    except Exception as error:  # json, base64, pytoniq-core: all of it means a broken file
        raise MalformedError("compiled contract: not a build file") from error
    if actual != code.code_hash:
        raise MalformedError(f"compiled contract {code.name}: the code has another hash")
    return code


def _build_file(name: str) -> str | None:
    installed = resources.files("cocoon_ton") / "build" / name
    checkout = Path(__file__).resolve().parent.parent / "build" / name
    for place in (installed, checkout):
        if place.is_file():
            return place.read_text(encoding="utf-8")
    return None


def registry_code() -> ContractCode:
    """The registry contract."""
    return load_code(REGISTRY)


def node_code() -> ContractCode:
    """The node contract."""
    return load_code(NODE)


def channel_code() -> ContractCode:
    """The channel contract."""
    return load_code(CHANNEL)


def pck_code() -> ContractCode:
    """The contract that checks quotes of one Intel platform."""
    return load_code(PCK)


def state_init(code: Cell, data: Cell) -> Cell:
    """``StateInit`` with code and data and nothing else."""
    cell: Cell = Builder().store_bits("00110").store_ref(code).store_ref(data).end_cell()
    return cell


def contract_address(code: Cell, data: Cell) -> Address:
    """Address in the basechain of the contract with this initial code and data."""
    return Address((0, state_init(code, data).hash))
