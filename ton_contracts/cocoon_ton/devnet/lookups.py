"""Answers that find blocks, those about public libraries, and those about message queues, which are empty here."""

from __future__ import annotations

from collections.abc import Mapping

from cocoon_ton.devnet import proofs, tl
from cocoon_ton.devnet.answers import NOT_READY, Answer, Answers, Handler, LiteServerError
from cocoon_ton.devnet.cells import read_boc, write_boc
from cocoon_ton.devnet.values import BASECHAIN, FULL_SHARD_SIGNED, MASTERCHAIN, Block

_BY_LT = 2
_BY_TIME = 4
_WANT_PROOF = 1
_EXTERNAL_LIMIT = 8000
"""``ext_msg_queue_size_limit``: what nodes answer."""


class LookupAnswers:
    """Handlers like those of `Answers`."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._chain = answers.chain
        self.methods: Mapping[str, Handler] = {
            "lookupBlock": self._lookup,
            "lookupBlockWithProof": self._lookup_proved,
            "getAccountStatePrunned": self._account_pruned,
            "getOutMsgQueueSizes": self._queue_sizes,
            "getBlockOutMsgQueueSize": self._queue_size,
            "getDispatchQueueInfo": self._dispatch_queue,
            "getDispatchQueueMessages": self._dispatch_messages,
            "getLibraries": self._libraries,
            "getLibrariesWithProof": self._libraries_proved,
            "getValidatorStats": self._validator_stats,
        }

    # ---- finding blocks

    def _lookup(self, query: tl.Fields) -> Answer:
        return self._answers.header(self._find(query), query["mode"])

    def _find(self, query: tl.Fields) -> Block:
        id, mode = query["id"], query["mode"]
        workchain = id["workchain"]
        if workchain not in (BASECHAIN, MASTERCHAIN) or id["shard"] != FULL_SHARD_SIGNED:
            raise LiteServerError(NOT_READY, "no such shard")
        if mode & 7 not in (1, _BY_LT, _BY_TIME):
            raise LiteServerError(-400, "exactly one of mode.0, mode.1 and mode.2 bits must be set")
        if mode & _BY_LT:
            block = self._chain.store.block_at_lt(workchain, query["lt"])
        elif mode & _BY_TIME:
            block = self._chain.store.block_at_time(workchain, query["utime"] & 0xFFFFFFFF)
        else:
            block = self._chain.block(workchain, id["seqno"])
        return self._answers.existing(self._answers.known(block))

    def _lookup_proved(self, query: tl.Fields) -> Answer:
        """The block with a proof that it is on the chain of the client's masterchain block."""
        client = self._master(query["mc_block_id"])
        found = self._find(query)
        master = self._answers.known(self._chain.block(MASTERCHAIN, found.seqno))
        if master.seqno > client.seqno:
            raise LiteServerError(NOT_READY, "the block is newer than the client's masterchain block")
        state_proof, old_blocks, links = b"", b"", []
        if master.id != client.id:
            state_proof = write_boc([proofs.header_proof(client)])
            old_blocks = write_boc([proofs.old_blocks_proof(self._chain, client, [master.seqno])])
        if found.id.workchain == BASECHAIN:
            shards = write_boc([proofs.header_proof(master, proofs.open_shards)])
            links.append({"id": found.id.to_tl(), "proof": shards})
        before = self._chain.block(found.id.workchain, found.seqno - 1) if found.seqno > 1 else None
        wanted = before is not None and query["mode"] & (_BY_LT | _BY_TIME)
        return "liteServer.lookupBlockResult", {
            "id": found.id.to_tl(),
            "mode": query["mode"],
            "mc_block_id": master.id.to_tl(),
            "client_mc_state_proof": state_proof,
            "mc_block_proof": old_blocks,
            "shard_links": links,
            "header": write_boc([proofs.header_proof(found)]),
            "prev_header": write_boc([proofs.header_proof(before)]) if wanted and before else b"",
        }

    def _master(self, id: tl.Fields) -> Block:
        if id["workchain"] != MASTERCHAIN:
            raise LiteServerError(-400, "not a masterchain block")
        return self._answers.existing(self._answers.block(id))

    # ---- accounts

    def _account_pruned(self, query: tl.Fields) -> Answer:
        """As ``getAccountState``; the state is a Merkle proof without code and data."""
        name, fields = self._answers.account_state(query)
        if fields["state"]:
            account = read_boc(fields["state"])
            fields["state"] = write_boc([proofs.root_proof(account)])
        return name, fields

    # ---- what is empty here

    def _queue_sizes(self, query: tl.Fields) -> Answer:
        heads = (self._answers.head(), self._answers.shard_of(self._answers.head()))
        wanted = [head for head in heads if not query["mode"] & 1 or head.id.workchain == query["wc"]]
        sizes = [{"id": head.id.to_tl(), "size": 0} for head in wanted]
        return "liteServer.outMsgQueueSizes", {"shards": sizes, "ext_msg_queue_size_limit": _EXTERNAL_LIMIT}

    def _queue_size(self, query: tl.Fields) -> Answer:
        return "liteServer.blockOutMsgQueueSize", self._about_queue(query) | {"size": 0}

    def _dispatch_queue(self, query: tl.Fields) -> Answer:
        fields = {"account_dispatch_queues": [], "complete": True}
        return "liteServer.dispatchQueueInfo", self._about_queue(query) | fields

    def _dispatch_messages(self, query: tl.Fields) -> Answer:
        fields = {"messages": [], "complete": True, "messages_boc": b"" if query["mode"] & 4 else None}
        return "liteServer.dispatchQueueMessages", self._about_queue(query) | fields

    def _about_queue(self, query: tl.Fields) -> tl.Fields:
        block = self._answers.existing(self._answers.block(query["id"]))
        mode = query["mode"]
        proof = proofs.queue_proof(self._chain, block) if mode & _WANT_PROOF else None
        return {"mode": mode, "id": block.id.to_tl(), "proof": proof}

    def _libraries(self, query: tl.Fields) -> Answer:
        return "liteServer.libraryResult", {"result": self._found(query)}

    def _found(self, query: tl.Fields) -> list[tl.Fields]:
        """The public libraries that a query names; the others are left out, as nodes do."""
        wanted = (self._chain.library(bytes.fromhex(hash)) for hash in query["library_list"])
        return [{"hash": cell.hash.hex(), "data": write_boc([cell])} for cell in wanted if cell is not None]

    def _libraries_proved(self, query: tl.Fields) -> Answer:
        block = self._master(query["id"])
        return "liteServer.libraryResultWithProof", {
            "id": block.id.to_tl(),
            "mode": query["mode"],
            "result": self._found(query),
            "state_proof": write_boc([proofs.header_proof(block)]),
            "data_proof": write_boc([proofs.master_state_proof(self._chain.state(block), libraries=True)]),
        }

    def _validator_stats(self, query: tl.Fields) -> Answer:
        self._master(query["id"])
        raise LiteServerError(0, "no statistics of validators are kept here")
