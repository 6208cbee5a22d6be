"""The one place where exceptions of pytoniq-core become `ChainProofError`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cocoon_ton.errors import ChainProofError


@contextmanager
def proof_seam(what: str) -> Iterator[None]:
    """Turn any exception of the cell library on hostile cells into `ChainProofError`.

    The library raises whatever its code runs into (`IndexError`, `ValueError`, `CellError`, bare
    `Exception`), so nothing narrower than `Exception` describes it. `MalformedError` of our own parsers
    becomes `ChainProofError` too: a proof that does not parse proves nothing.
    """
    try:
        yield
    except ChainProofError:
        raise
    except Exception as error:
        raise ChainProofError(f"{what} is malformed ({type(error).__name__})") from error
