"""Code of TON's multisignature contracts, for development chains and tests.

It comes from the npm package ``@oraichain/ton-multiowner``, which holds the compiled contracts of
``multisig-contract-v2``; nothing of it but data is read, and nothing is redistributed here. What counts is the code
hash, not who packed it: the hashes are those of the contracts on mainnet.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Final

from pytoniq_core import Builder, Cell

from cocoon_attestation.errors import CocoonError, UnsupportedError
from cocoon_ton.cells import finish, write_dict
from cocoon_ton.emulator.boc import read_boc
from cocoon_ton.emulator.sandbox import HINT
from cocoon_ton.multisig import MULTISIG_CODE_HASH, ORDER_CODE_HASH

PACKAGE: Final = "@oraichain/ton-multiowner"


@cache
def multisig_code() -> Cell:
    """Code of the multisig. Raises `UnsupportedError` where the package is absent or holds other code."""
    return _code("Multisig", MULTISIG_CODE_HASH)


@cache
def order_code() -> Cell:
    """Code of an order, as the public library that the multisig refers to. Raises `UnsupportedError`."""
    return _code("Order", ORDER_CODE_HASH)


@cache
def order_library() -> Cell:
    """Dictionary of public libraries (hash to cell) with the order's code in it. Raises `UnsupportedError`."""
    entry = finish(Builder().store_ref(order_code()))
    root = write_dict({int.from_bytes(ORDER_CODE_HASH): entry}, 256, lambda cell: cell)
    if root is None:
        raise UnsupportedError("no library")
    return root


def _code(name: str, code_hash: bytes) -> Cell:
    modules = Path(__file__).resolve().parents[2] / "node_modules"
    file = modules / PACKAGE / "dist" / "build" / f"{name}.compiled.json"
    try:
        code = read_boc(bytes.fromhex(json.loads(file.read_text("utf-8"))["hex"]))
    except (OSError, ValueError, KeyError, TypeError, CocoonError) as error:
        raise UnsupportedError(f"no multisig contract: {PACKAGE} cannot be read", hint=HINT) from error
    if code.hash != code_hash:
        raise UnsupportedError(f"{PACKAGE} holds another {name} contract", hint=HINT)
    return code
