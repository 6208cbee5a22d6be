"""Answers about transactions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pytoniq_core import Cell, Transaction

from cocoon_ton.devnet import proofs, tl
from cocoon_ton.devnet.answers import Answer, Answers, Handler, LiteServerError
from cocoon_ton.devnet.cells import read_boc, write_boc
from cocoon_ton.devnet.values import Block, TransactionRecord, workchain_of

MAX_LISTED = 256
MAX_HISTORY = 16
_REVERSE = 1 << 6
_AFTER = 1 << 7
_PROOF = 1 << 5


class TransactionAnswers:
    """Handlers like those of `Answers`."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._chain = answers.chain
        self.methods: Mapping[str, Handler] = {
            "getTransactions": self._history,
            "getOneTransaction": self._one,
            "listBlockTransactions": self._list,
            "listBlockTransactionsExt": self._list_whole,
        }

    def _history(self, query: tl.Fields) -> Answer:
        """Transactions of an account, newest first, from the one that is named."""
        account, lt, hash = self._answers.account(query), query["lt"], query["hash"]
        cells: list[Cell] = []
        ids: list[dict[str, object]] = []
        while lt and len(cells) < min(query["count"], MAX_HISTORY):
            record = self._chain.store.transaction(account, lt)
            if record is None or record.hash.hex() != hash:
                break
            cell = read_boc(record.boc)
            cells.append(cell)
            ids.append(self._block_of(record).id.to_tl())
            parsed = Transaction.deserialize(cell.begin_parse())
            lt, hash = parsed.prev_trans_lt, parsed.prev_trans_hash.hex()
        if not cells and query["lt"]:
            raise LiteServerError(0, "cannot find the transaction: lt or hash is wrong")
        fields = {"ids": ids, "transactions": write_boc(cells) if cells else b""}
        return "liteServer.transactionList", fields

    def _block_of(self, record: TransactionRecord) -> Block:
        return self._answers.known(self._chain.block(workchain_of(record.account), record.seqno))

    def _one(self, query: tl.Fields) -> Answer:
        block = self._answers.block(query["id"])
        account = self._answers.account(query)
        record = self._chain.store.transaction(account, query["lt"])
        here = workchain_of(account) == block.id.workchain
        found = record is not None and here and record.seqno == block.seqno
        fields = {
            "id": block.id.to_tl(),
            "proof": self._proof(block, self._records(block)),
            "transaction": record.boc if found and record is not None else b"",
        }
        return "liteServer.transactionInfo", fields

    def _list(self, query: tl.Fields) -> Answer:
        block, part, incomplete = self._page(query)
        ids = [
            {"mode": 7, "account": r.account[-32:].hex(), "lt": r.lt, "hash": r.hash.hex()} for r in part
        ]
        fields = self._listed(query, block, incomplete)
        return "liteServer.blockTransactions", fields | {"ids": ids}

    def _list_whole(self, query: tl.Fields) -> Answer:
        block, part, incomplete = self._page(query)
        cells = [read_boc(record.boc) for record in part]
        fields = self._listed(query, block, incomplete)
        transactions = write_boc(cells) if cells else b""
        return "liteServer.blockTransactionsExt", fields | {"transactions": transactions}

    def _listed(self, query: tl.Fields, block: Block, incomplete: bool) -> tl.Fields:
        proof = self._proof(block, self._records(block)) if query["mode"] & _PROOF else b""
        id, count = block.id.to_tl(), query["count"]
        return {"id": id, "req_count": count, "incomplete": incomplete, "proof": proof}

    def _page(self, query: tl.Fields) -> tuple[Block, Sequence[TransactionRecord], bool]:
        """The asked part of a block's transactions, ordered by account and logical time."""
        block, mode = self._answers.block(query["id"]), query["mode"]
        records = self._records(block)
        if mode & _REVERSE:
            records.reverse()
        if mode & _AFTER:
            after = (bytes.fromhex(query["after"]["account"]), query["after"]["lt"])
            keys = [(record.account[-32:], record.lt) for record in records]
            start = keys.index(after) + 1 if after in keys else len(keys)
            records = records[start:]
        count = min(max(query["count"], 0), MAX_LISTED)
        return block, records[:count], len(records) > count

    def _records(self, block: Block) -> list[TransactionRecord]:
        return self._chain.store.transactions_in(block.id.workchain, block.seqno)

    @staticmethod
    def _proof(block: Block, records: Sequence[TransactionRecord]) -> bytes:
        if block.seqno == 0:
            raise LiteServerError(651, "the zerostate has no transactions")
        extra = proofs.open_transactions({record.hash for record in records})
        return write_boc([proofs.header_proof(block, extra)])
