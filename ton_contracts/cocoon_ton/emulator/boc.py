"""Bags of cells in the forms that the emulator takes and gives; the codec itself is `cocoon_ton.proof.boc`."""

from __future__ import annotations

import base64
from weakref import WeakValueDictionary

from pytoniq_core import Cell

from cocoon_ton.proof.boc import parse_boc, write_boc

_KNOWN: WeakValueDictionary[bytes, Cell] = WeakValueDictionary()


def to_base64(cell: Cell) -> str:
    """One cell as base64 BoC, the form that the emulator takes."""
    return base64.b64encode(write_boc([cell])).decode()


def from_base64(text: str) -> Cell:
    """The single root of a base64 BoC written by the emulator."""
    return read_boc(base64.b64decode(text))


def read_boc(data: bytes) -> Cell:
    """The single root of a BoC, in linear time; cells that are alive already are used again.

    A large account changes in a few cells from one transaction to the next, so its versions share the others.

    Raises:
        ChainProofError: not a well-formed bag of cells with one root of level 0.
    """
    (cell,) = parse_boc(data, known=_KNOWN)
    return cell
