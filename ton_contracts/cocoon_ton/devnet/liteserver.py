"""The liteserver: one TL query in, one TL answer out. Knows nothing of connections."""

from __future__ import annotations

import asyncio
import logging
import struct
from typing import Final

from nacl.signing import SigningKey

from cocoon_attestation.errors import CocoonError, MalformedError
from cocoon_ton.devnet import tl
from cocoon_ton.devnet.answers import Answers, LiteServerError
from cocoon_ton.devnet.chain import Chain
from cocoon_ton.devnet.faults import Faults
from cocoon_ton.devnet.lookups import LookupAnswers
from cocoon_ton.devnet.signatures import SignatureMode
from cocoon_ton.devnet.transactions import TransactionAnswers

logger = logging.getLogger(__name__)

ERROR: Final = -400
TIMEOUT: Final = 652
MAX_WAIT: Final = 60.0
"""Seconds that ``waitMasterchainSeqno`` waits at most."""


class LiteServer:
    """Answers queries about a chain. `new_block` must be called after every block."""

    def __init__(self, chain: Chain, key: SigningKey, *, mode: SignatureMode, faults: Faults) -> None:
        self.faults = faults
        self._chain = chain
        self._answers = Answers(chain, key, mode, self.faults)
        parts = (self._answers, TransactionAnswers(self._answers), LookupAnswers(self._answers))
        self._methods = {name: handler for part in parts for name, handler in part.methods.items()}
        self._new_block = asyncio.Event()

    @property
    def methods(self) -> frozenset[str]:
        """The methods that are served, without the prefix ``liteServer.``."""
        return frozenset(self._methods)

    def new_block(self) -> None:
        """Wake everybody who waits for a block."""
        self._new_block.set()
        self._new_block = asyncio.Event()

    async def query(self, data: bytes) -> bytes:
        """Answer the bytes of a ``liteServer.query``. Never raises for anything a client sends."""
        try:
            if data[:4] == tl.tag("liteServer.waitMasterchainSeqno"):
                seqno, timeout_ms = struct.unpack_from("<ii", data.ljust(12, b"\0"), 4)
                await self._wait(seqno, timeout_ms / 1000)
                data = data[12:]
            return await self._answer(tl.read(data))
        except LiteServerError as error:
            return tl.write_error(error.code, str(error))
        except MalformedError as error:
            return tl.write_error(ERROR, str(error))
        except CocoonError as error:
            return tl.write_error(0, str(error))
        except (KeyError, ValueError, TypeError, IndexError):
            logger.exception("a liteserver query failed")
            return tl.write_error(ERROR, "the query cannot be answered")

    async def _answer(self, query: tl.Fields) -> bytes:
        method = str(query["@type"]).removeprefix("liteServer.")
        handler = self._methods.get(method)
        if handler is None or method in self.faults.refuse:
            raise LiteServerError(ERROR, f"{method} is not supported")
        await self.faults.before(method)
        name, fields = handler(query)
        return tl.write(name, self.faults.after(method, query, fields))

    async def _wait(self, seqno: int, seconds: float) -> None:
        """Return when the head has reached `seqno`; error 652 after the timeout, as real servers do."""
        try:
            async with asyncio.timeout(min(max(seconds, 0.0), MAX_WAIT)):
                while self._answers.head().seqno < seqno:
                    await self._new_block.wait()
        except TimeoutError:
            raise LiteServerError(TIMEOUT, "timeout") from None
