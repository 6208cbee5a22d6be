"""Which masterchain block is the head, in each trust mode.

The tracker polls when asked and starts no task of its own, so nothing can die unnoticed. It never goes
back behind a block that it has proved, and never hands out a head older than the bound.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Callable

from cocoon_attestation.errors import ConfigError
from cocoon_ton.errors import ChainProofError, ChainUnavailableError, StaleHeadError
from cocoon_ton.lite.anchors import AnchorStore
from cocoon_ton.lite.pool import ServerPool
from cocoon_ton.lite.server import LiteserverRefusalError, Server
from cocoon_ton.lite.trust import TrustMode
from cocoon_ton.network import NetworkConfig
from cocoon_ton.proof.answers import block_id, block_id_query, parse_header_answer, parse_walk
from cocoon_ton.proof.blocks import BackLink, ChainWalker, ForwardLink, Link, ProvedBlock, verify_walk
from cocoon_ton.values import FULL_SHARD, MASTERCHAIN, BlockId

_log = logging.getLogger(__name__)
_REMEMBERED_BLOCKS = 256
_PROVE_MINIMUM = 3


class HeadTracker:
    """Finds and proves masterchain blocks."""

    def __init__(
        self,
        network: NetworkConfig,
        pool: ServerPool,
        *,
        trust: TrustMode,
        max_age: float,
        ttl: float,
        clock: Callable[[], float],
        anchors: AnchorStore | None = None,
    ) -> None:
        if trust is TrustMode.PROVE and len(pool.servers) < _PROVE_MINIMUM:
            raise ConfigError(f"trust mode 'prove' needs {_PROVE_MINIMUM} liteservers; use 'verify'")
        self._network, self._pool, self._trust = network, pool, trust
        self._max_age, self._ttl, self._clock = max_age, ttl, clock
        self._walker = ChainWalker(network.global_id)
        self._anchor = network.init_block
        self._anchors = anchors
        self._recorded = anchors.load(network) if anchors is not None else None
        """A key block that an earlier run proved; None once it was confirmed or dropped."""
        self._best: ProvedBlock | None = None
        self._polled_at = float("-inf")
        self._known: OrderedDict[bytes, ProvedBlock] = OrderedDict()
        self._lock = asyncio.Lock()

    async def head(self) -> ProvedBlock:
        """The newest proved block. Raises `StaleHeadError` if it is older than the bound."""
        async with self._lock:
            if self._best is None or time.monotonic() - self._polled_at >= self._ttl:
                await self._poll_or_keep()
            if self._best is None:
                raise ChainUnavailableError("no liteserver shows a masterchain block")
            age = self._clock() - self._best.ref.utime
            if age > self._max_age:
                self._polled_at = float("-inf")
                raise StaleHeadError(
                    f"newest masterchain block is {age:.0f} s old; the limit is {self._max_age:.0f} s"
                )
            return self._best

    async def block(self, wanted: BlockId) -> ProvedBlock:
        """An older block, proved from the head. Raises `ChainProofError` if it is not on the chain."""
        head = await self.head()
        async with self._lock:
            if wanted.root_hash in self._known:
                found = self._known[wanted.root_hash]
            elif wanted.seqno >= head.ref.seqno:
                raise ChainUnavailableError("the block is not known on the chain yet")
            else:
                found = await self._pool.first(
                    lambda server: self.walk(server, self._walker, head.ref.id, wanted)
                )
                found = self._remember(found)
        if found.ref.id != wanted:
            raise ChainProofError("the block is not the one on the chain")
        return found

    async def _poll_or_keep(self) -> None:
        """Poll; while no liteserver answers, the head that was proved before serves until it is too old."""
        try:
            await self._poll()
            self._polled_at = time.monotonic()
        except ChainUnavailableError:
            if self._best is None:
                raise

    async def _poll(self) -> None:
        shown = await self._pool.all(self._shown)
        if self._trust is TrustMode.PROVE:
            shown = await self._agreed(shown)
        lie: ChainProofError | None = None
        for server, block in sorted(shown, key=lambda pair: pair[1].seqno, reverse=True):
            best = self._best
            if best is not None and block.seqno < best.ref.seqno:
                break
            if best is not None and block == best.ref.id:
                continue
            try:
                proved = await self._prove(server, block)
            except ChainProofError as error:
                server.distrust(str(error))
                lie = lie or error
                continue
            except ChainUnavailableError:
                continue
            if best is not None and block.seqno == best.ref.seqno:
                self._best = None
                raise ChainProofError("two proved blocks have the same number: the chain has forked")
            self._best = self._remember(proved)
        if self._best is None and lie is not None:
            raise lie

    async def _prove(self, server: Server, block: BlockId) -> ProvedBlock:
        if self._trust is not TrustMode.VERIFY:
            return await self.walk(server, self._walker, block, block)
        proved = await self._walk_from_anchor(server, block)
        starts = [self._anchor, *(link.to for link in proved.links)]
        pairs = zip(starts, proved.links, strict=False)
        signers = [start for start, link in pairs if isinstance(link, ForwardLink)]
        if signers and signers[-1].seqno > self._anchor.seqno:
            self._anchor = signers[-1]  # a key block, proved by being read as one
            await self._record(self._anchor)
        return proved

    async def _record(self, block: BlockId) -> None:
        """Keep a proved key block for the next start. That it cannot be written harms nobody now."""
        if self._anchors is None:
            return
        try:
            await asyncio.to_thread(self._anchors.save, self._network, block)
        except (OSError, ConfigError, ChainProofError) as error:
            _log.warning("the newest key block could not be stored: %s", error)

    async def _walk_from_anchor(self, server: Server, block: BlockId) -> ProvedBlock:
        """Prove `block` from the newest proved key block, or from the recorded one of an earlier run.

        A recorded block is used if the walk from it holds and leads to a chain that has the init block in its
        past. If it does not, and the walk from the init block holds, then the record was wrong and is dropped.
        """
        init, recorded = self._network.init_block, self._recorded
        if recorded is None:
            return await self.walk(server, self._walker, self._anchor, block)
        try:
            proved = await self.walk(server, self._walker, recorded, block)
            await self.walk(server, self._walker, block, init)
        except (ChainProofError, LiteserverRefusalError) as error:
            proved = await self.walk(server, self._walker, init, block)  # raises if the server is at fault
            _log.warning("stored key block is not on the chain (%s); it is dropped", error)
            if self._anchors is not None:
                self._anchors.forget(self._network)
            self._recorded = None
            return proved
        self._anchor, self._recorded = recorded, None
        return proved

    def _remember(self, block: ProvedBlock) -> ProvedBlock:
        """Keep what is needed to answer about `block`; its links hold whole configurations."""
        kept = dataclasses.replace(block, links=())
        self._known[block.ref.root_hash] = kept
        while len(self._known) > _REMEMBERED_BLOCKS:
            self._known.popitem(last=False)
        return kept

    async def _agreed(self, shown: list[tuple[Server, BlockId]]) -> list[tuple[Server, BlockId]]:
        """The newest block that more than two thirds of all servers have, if they name it alike."""
        enough = len(self._pool.servers) * 2 // 3 + 1
        if len(shown) >= enough:
            seqno = sorted((block.seqno for _, block in shown), reverse=True)[enough - 1]
            named = await self._pool.all(functools.partial(named_block, seqno))
            block, count = Counter(block for _, block in named).most_common(1)[0]
            if count >= enough:
                return [(server, candidate) for server, candidate in named if candidate == block]
        raise ChainUnavailableError("liteservers do not agree on a masterchain block; try again")

    @staticmethod
    async def _shown(server: Server) -> BlockId:
        answer = await server.query("getMasterchainInfo", {})
        block = block_id(answer.get("last", {}))
        if block.workchain != MASTERCHAIN:
            raise ChainProofError("liteserver's head is not a masterchain block")
        return block

    @staticmethod
    async def walk(server: Server, walker: ChainWalker, start: BlockId, target: BlockId) -> ProvedBlock:
        """Prove `target` from the trusted block `start` with the answers of one server."""
        current, header = start, None
        links: list[Link] = []
        while current != target:
            query = {
                "mode": 1,
                "known_block": block_id_query(current),
                "target_block": block_id_query(target),
            }
            partial = parse_walk(await server.query("getBlockProof", query), current)
            if not partial.links:
                raise ChainProofError("block proof is empty")
            for link in partial.links:
                if links and isinstance(link, BackLink) and isinstance(links[-1], ForwardLink):
                    raise ChainProofError("block proof goes to and fro")
                links.append(walker.follow(current, link))
                current = link.to
            header = partial.header
        if header is None:
            answer = await server.query("getBlockHeader", {"id": block_id_query(target), "mode": 0})
            header = parse_header_answer(answer, target)
        return verify_walk(walker, start, links, target, header)


async def named_block(seqno: int, server: Server) -> BlockId:
    """What one server calls the masterchain block `seqno`."""
    wanted = {"workchain": MASTERCHAIN, "shard": FULL_SHARD, "seqno": seqno}
    answer = await server.query("lookupBlock", {"mode": 1, "id": wanted, "lt": None, "utime": None})
    block = block_id(answer.get("id", {}))
    if (block.workchain, block.shard, block.seqno) != (MASTERCHAIN, FULL_SHARD, seqno):
        raise ChainProofError("liteserver answered about another block")
    return block
