"""Answers about blocks, proofs, accounts, configuration and getters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from nacl.signing import SigningKey
from pytoniq_core import Address, Cell, begin_cell

from cocoon_attestation.errors import MalformedError
from cocoon_ton.devnet import proofs, tl
from cocoon_ton.devnet.cells import read_boc, write_boc
from cocoon_ton.devnet.chain import Chain
from cocoon_ton.devnet.faults import Faults
from cocoon_ton.devnet.signatures import SignatureMode, signature_set
from cocoon_ton.devnet.values import (
    BASECHAIN,
    MASTERCHAIN,
    Block,
    BlockId,
    account_name,
    workchain_of,
)
from cocoon_ton.emulator import view_account

Answer: TypeAlias = tuple[str, tl.Fields]
Handler: TypeAlias = Callable[[tl.Fields], Answer]

VERSION = 0x101
CAPABILITIES = 7
NOT_READY = 651
_NO_CODE = -256
_NEED_PREV_BLOCKS = 0x80
"""``ConfigInfo::needPrevBlocks``: a client that runs a getter itself wants what contracts see."""
_EMPTY_STACK = begin_cell().store_uint(0, 24).end_cell()


class LiteServerError(Exception):
    """An answer of type ``liteServer.error``."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Answers:
    """Handlers by method name: parsed query in, name and fields of the answer out."""

    def __init__(self, chain: Chain, key: SigningKey, mode: SignatureMode, faults: Faults) -> None:
        self.chain = chain
        self._key = key
        self._mode = mode
        self._faults = faults
        self.methods: Mapping[str, Handler] = {
            "getMasterchainInfo": self._masterchain_info,
            "getMasterchainInfoExt": self._masterchain_info_ext,
            "getTime": lambda _: ("liteServer.currentTime", {"now": self.chain.now()}),
            "getVersion": self._version,
            "getBlock": self._block_data,
            "getBlockHeader": self._block_header,
            "getState": self._state_data,
            "getAccountState": self.account_state,
            "getAllShardsInfo": self._all_shards_info,
            "getShardInfo": self._shard_info,
            "getShardBlockProof": self._shard_block_proof,
            "getBlockProof": self._block_proof,
            "getConfigAll": self._config,
            "getConfigParams": self._config,
            "runSmcMethod": self._run_method,
            "sendMessage": self._send_message,
        }

    # ---- blocks

    def head(self) -> Block:
        """The newest masterchain block that is shown."""
        stale = self._faults.stale_head
        if stale is None or stale >= self.chain.master.seqno:
            return self.chain.master
        return self.known(self.chain.block(MASTERCHAIN, stale))

    def block(self, id: tl.Fields) -> Block:
        """The block with this full name. LiteServerError if there is none."""
        block = self.known(self.chain.block(id["workchain"], id["seqno"]))
        if block.id.to_tl() != {key: id[key] for key in block.id.to_tl()}:
            raise LiteServerError(NOT_READY, "block not found")
        return block

    def known(self, block: Block | None) -> Block:
        """The block itself. LiteServerError for None."""
        if block is None:
            raise LiteServerError(NOT_READY, "block not found")
        return block

    def shard_of(self, block: Block) -> Block:
        """The basechain block that a block of either chain shows."""
        if block.id.workchain == BASECHAIN:
            return block
        return self.known(self.chain.block(BASECHAIN, block.seqno))

    def _home_of(self, account: bytes, block: Block) -> Block:
        """The block of an account's own workchain that the block of a query shows."""
        if workchain_of(account) == BASECHAIN:
            return self.shard_of(block)
        if block.id.workchain == BASECHAIN:
            raise LiteServerError(NOT_READY, "a block of the basechain shows no masterchain account")
        return block

    def _zero_state(self) -> tl.Fields:
        zero = self.chain.zero.id
        return {
            "workchain": MASTERCHAIN,
            "root_hash": zero.root_hash.hex(),
            "file_hash": zero.file_hash.hex(),
        }

    def _masterchain_info(self, _query: tl.Fields) -> Answer:
        head = self.head()
        fields = {"last": head.id.to_tl(), "state_root_hash": head.state.hash.hex()}
        return "liteServer.masterchainInfo", fields | {"init": self._zero_state()}

    def _masterchain_info_ext(self, query: tl.Fields) -> Answer:
        if query["mode"] != 0:
            raise LiteServerError(-400, "unsupported mode")
        _, fields = self._masterchain_info(query)
        times = {"last_utime": self.head().utime, "now": self.chain.now()}
        about = {"mode": 0, "version": VERSION, "capabilities": CAPABILITIES}
        return "liteServer.masterchainInfoExt", fields | times | about

    def _version(self, _query: tl.Fields) -> Answer:
        fields = {"mode": 0, "version": VERSION, "capabilities": CAPABILITIES, "now": self.chain.now()}
        return "liteServer.version", fields

    def _block_data(self, query: tl.Fields) -> Answer:
        block = self.block(query["id"])
        if block.seqno == 0:
            raise LiteServerError(NOT_READY, "block not found")
        return "liteServer.blockData", {"id": block.id.to_tl(), "data": block.boc}

    def _state_data(self, query: tl.Fields) -> Answer:
        block = self.block(query["id"])
        if block.seqno != 0:
            raise LiteServerError(-400, "only the zerostate is served whole")
        id = block.id.to_tl()
        fields = {"root_hash": id["root_hash"], "file_hash": id["file_hash"], "data": block.boc}
        return "liteServer.blockState", {"id": id} | fields

    def header(self, block: Block, mode: int) -> Answer:
        """The block's name and the proof of its header."""
        proof = write_boc([proofs.header_proof(block)])
        fields = {"id": block.id.to_tl(), "mode": mode, "header_proof": proof}
        return "liteServer.blockHeader", fields

    def _block_header(self, query: tl.Fields) -> Answer:
        return self.header(self.existing(self.block(query["id"])), query["mode"])

    def existing(self, block: Block) -> Block:
        """The block itself. LiteServerError for a zerostate, which only looks like one."""
        if block.seqno == 0:
            raise LiteServerError(NOT_READY, "the zerostate has no header")
        return block

    # ---- shards and block proofs

    def _all_shards_info(self, query: tl.Fields) -> Answer:
        block = self.existing(self.block(query["id"]))
        hashes = self.chain.state(block).refs[3].refs[0]
        fields = {
            "id": block.id.to_tl(),
            "proof": write_boc([proofs.header_proof(block, proofs.open_shards)]),
            "data": write_boc([begin_cell().store_bit(1).store_ref(hashes).end_cell()]),
        }
        return "liteServer.allShardsInfo", fields

    def _shard_info(self, query: tl.Fields) -> Answer:
        block = self.existing(self.block(query["id"]))
        if query["workchain"] != BASECHAIN:
            raise LiteServerError(NOT_READY, "no such shard")
        descriptor = self.chain.state(block).refs[3].refs[0].refs[0]
        fields = {
            "id": block.id.to_tl(),
            "shardblk": self.shard_of(block).id.to_tl(),
            "shard_proof": proofs.shard_proof(self.chain, block),
            "shard_descr": write_boc([descriptor]),
        }
        return "liteServer.shardInfo", fields

    def _shard_block_proof(self, query: tl.Fields) -> Answer:
        shard = self.existing(self.block(query["id"]))
        if shard.id.workchain != BASECHAIN:
            raise LiteServerError(-400, "not a shard block")
        master = self.known(self.chain.block(MASTERCHAIN, shard.seqno))
        proof = write_boc([proofs.header_proof(master, proofs.open_shards)])
        links = [{"id": shard.id.to_tl(), "proof": proof}]
        return "liteServer.shardBlockProof", {"masterchain_id": master.id.to_tl(), "links": links}

    def _block_proof(self, query: tl.Fields) -> Answer:
        """From a known block back to the key block (unless it is that), then forward to the target."""
        key = self.known(self.chain.key_block())
        claimed = self._faults.claimed_key_block
        target = self.block(query["target_block"]) if query["mode"] & 1 else self.head()
        known = claimed if claimed is not None else self.block(query["known_block"]).id
        steps, at = [], known
        if claimed is None and known not in (target.id, key.id):
            steps.append(self._back_link(self.block(query["known_block"]), key))
            at = key.id
        if at != target.id and target.id != key.id:
            steps.append(self._forward_link(at, key, target))
        fields = {"complete": True, "from": known.to_tl(), "to": target.id.to_tl(), "steps": steps}
        return "liteServer.partialBlockProof", fields

    def _back_link(self, block: Block, key: Block) -> tl.Fields:
        return {
            "@type": "liteServer.blockLinkBack",
            "to_key_block": True,
            "from": block.id.to_tl(),
            "to": key.id.to_tl(),
            "dest_proof": write_boc([proofs.header_proof(key)]),
            "proof": write_boc([proofs.header_proof(block)]),
            "state_proof": write_boc([proofs.old_blocks_proof(self.chain, block, [key.seqno])]),
        }

    def _forward_link(self, source: BlockId, key: Block, target: Block) -> tl.Fields:
        signatures = signature_set(self._key, target.id, self._mode)
        signatures["signatures"] = signatures["signatures"] * self._faults.duplicate_signatures
        return {
            "@type": "liteServer.blockLinkForward",
            "to_key_block": False,
            "from": source.to_tl(),
            "to": target.id.to_tl(),
            "dest_proof": write_boc([proofs.header_proof(target)]),
            "config_proof": write_boc([proofs.header_proof(key, proofs.open_config)]),
            "signatures": signatures,
        }

    def _config(self, query: tl.Fields) -> Answer:
        block = self.existing(self.block(query["id"]))
        if block.id.workchain != MASTERCHAIN:
            raise LiteServerError(-400, "not a masterchain block")
        if query["mode"] & _NEED_PREV_BLOCKS:
            old = self.chain.seen_blocks(block.seqno)
            proof = proofs.old_blocks_proof(self.chain, block, old, config=True)
        else:
            proof = proofs.master_state_proof(self.chain.state(block), config=True)
        fields = {
            "mode": query["mode"],
            "id": block.id.to_tl(),
            "state_proof": write_boc([proofs.header_proof(block)]),
            "config_proof": write_boc([proof]),
        }
        return "liteServer.configInfo", fields

    # ---- accounts

    def account_state(self, query: tl.Fields) -> Answer:
        """An account with the proofs that lead to it."""
        block = self.existing(self.block(query["id"]))
        account = self.account(query)
        shard = self._home_of(account, block)
        entry = self.chain.account(account, shard.seqno)
        return "liteServer.accountState", {
            "id": block.id.to_tl(),
            "shardblk": shard.id.to_tl(),
            "shard_proof": proofs.shard_proof(self.chain, block) if block is not shard else b"",
            "proof": proofs.account_proof(self.chain, shard, account),
            "state": b"" if entry is None else self.chain.store.account_boc(bytes(entry.account.hash)),
        }

    def account(self, query: tl.Fields) -> bytes:
        """The name of the account that a query is about. LiteServerError if its workchain is none."""
        workchain = query["account"]["workchain"]
        if workchain not in (BASECHAIN, MASTERCHAIN):
            raise LiteServerError(NOT_READY, f"workchain {workchain} does not exist")
        return account_name(workchain, bytes.fromhex(query["account"]["id"]))

    def _run_method(self, query: tl.Fields) -> Answer:
        block = self.existing(self.block(query["id"]))
        account, mode = self.account(query), query["mode"]
        shard = self._home_of(account, block)
        view = view_account(self.chain.shard_account(account, shard.seqno))
        fields = {
            "mode": mode & 7,
            "id": block.id.to_tl(),
            "shardblk": shard.id.to_tl(),
            "exit_code": _NO_CODE,
            "result": b"" if mode & 4 else None,
            "state_proof": b"" if mode & 2 else None,
        }
        if view.code is not None and view.data is not None:
            result = self.chain.emulator.get_method(
                view.code,
                view.data,
                query["method_id"],
                address=Address((workchain_of(account), account[-32:])),
                now=shard.utime,
                balance=view.balance,
                prev_blocks=self.chain.prev_blocks(shard.seqno),
                stack_boc=_cell(query["params"]) if query["params"] else _EMPTY_STACK,
            )
            fields["exit_code"] = result.exit_code
            fields["result"] = result.stack_boc if mode & 4 else None
        if mode & 1:
            fields["shard_proof"] = proofs.shard_proof(self.chain, block) if block is not shard else b""
            fields["proof"] = proofs.account_proof(self.chain, shard, account)
        return "liteServer.runMethodResult", fields

    def _send_message(self, query: tl.Fields) -> Answer:
        self.chain.send(_cell(query["body"]))
        return "liteServer.sendMsgStatus", {"status": 1}


def _cell(boc: bytes) -> Cell:
    try:
        return read_boc(boc)
    except Exception as error:  # pytoniq-core raises whatever it meets
        raise MalformedError("not a bag of cells with one root") from error
