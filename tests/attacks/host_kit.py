"""A host agent on the emulated chain, for attacks: proved accounts, and a wallet whose messages run at once."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pytoniq_core import Address, Cell, StateInit

from cocoon.v1 import attestation_service_pb2_grpc
from cocoon_attestation.errors import PaymentError
from cocoon_enclave.host.agent import HostAgent
from cocoon_enclave.host.config import parse_host_config
from cocoon_ton.emulator import SendResult, TestChain
from cocoon_ton.errors import MessageFailedError
from cocoon_ton.proof.boc import write_boc
from cocoon_ton.proof.transactions import verify_transactions
from cocoon_ton.treasury import Payment
from cocoon_ton.values import FULL_SHARD, MASTERCHAIN, AccountState, BlockId, BlockRef, TransactionInfo

from ..ton_contracts.conftest import GLOBAL_ID, World


class RecordingChain(TestChain):
    """A `TestChain` that remembers its transactions."""

    __test__ = False

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.history: dict[Address, list[TransactionInfo]] = {}

    def send_message(self, message: Cell) -> SendResult:
        """Like `TestChain.send_message`."""
        result = super().send_message(message)
        for done in result:
            (info,) = verify_transactions(write_boc([done.cell]), done.address, done.lt, done.hash)
            self.history.setdefault(done.address, []).insert(0, info)
        return result


class Reader:
    """Proved accounts of the emulated chain."""

    def __init__(self, chain: TestChain) -> None:
        self.chain = chain

    async def head(self) -> BlockRef:
        last = self.chain.mc_blocks[-1]
        return BlockRef(
            seqno=last.seqno, root_hash=last.root_hash, file_hash=last.file_hash, utime=self.chain.now
        )

    async def masterchain_block(self, seqno: int) -> BlockId:
        found = self.chain.mc_blocks[seqno - 1]
        return BlockId(
            workchain=MASTERCHAIN,
            shard=FULL_SHARD,
            seqno=found.seqno,
            root_hash=found.root_hash,
            file_hash=found.file_hash,
        )

    async def transactions(self, addr: Address, *, after_lt: int = 0) -> list[TransactionInfo]:
        assert isinstance(self.chain, RecordingChain)
        return [t for t in self.chain.history.get(addr, []) if t.lt > after_lt]

    async def account(self, addr: Address, at: BlockRef | None = None) -> AccountState:
        view = self.chain.account(addr)
        status: Any = view.status
        return AccountState(
            address=addr,
            status=status,
            balance=view.balance,
            code=view.code,
            data=view.data,
            last_tx_lt=self.chain.lt,
            last_tx_hash=bytes(32),
            block=await self.head(),
            shard_utime=self.chain.now,
        )


class Treasury:
    """The owner's wallet: messages run at once."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.address = world.owner
        self.sent: list[str] = []

    async def resume(self) -> None:
        pass

    async def pay_all(self, payments: Sequence[Payment]) -> list[PaymentError | None]:
        results: list[PaymentError | None] = []
        for payment in payments:
            try:
                await self.pay(key=payment.key, to=payment.to, value=payment.value, body=payment.body)
                results.append(None)
            except PaymentError as error:
                results.append(error)
        return results

    async def pay(
        self, *, key: str, to: Address, value: int, body: Cell, state_init: StateInit | None = None
    ) -> None:
        init = None if state_init is None else state_init.serialize()
        self._done(key, self.world.chain.send_from(self.address, to, value, body, init=init))

    async def send_external(self, *, key: str, to: Address, body: Cell) -> None:
        self._done(key, self.world.chain.send_external(to, body))

    def _done(self, key: str, result: SendResult) -> None:
        self.sent.append(key.partition(":")[0])
        if not result.first.success:
            raise MessageFailedError(f"{key}: exit code {result.first.exit_code}")


def make_agent(world: World, treasury: Treasury, node: Any, *, dev_root: bytes | None = None) -> HostAgent:
    """An agent for the world's node that pays with `treasury`."""
    settings = parse_host_config(
        {
            "network": "n",
            "host_service": "h:1",
            "state": "s",
            "endpoint": "host:1",
            "prices": {"prompt": 100, "cached": 10, "completion": 400},
            "models": ["aa" * 32],
            "stake": "10",
            "renew_before_s": 0,
        },
        base=Path(),
    )
    network: Any = types.SimpleNamespace(
        global_id=GLOBAL_ID, registry_address=world.registry, dev_root=dev_root
    )
    agent = HostAgent(
        settings,
        network,
        chain=Reader(world.chain),  # type: ignore[arg-type]
        treasury=treasury,  # type: ignore[arg-type]
        enclave=node.host,
        records=attestation_service_pb2_grpc.AttestationServiceStub(node.private),
        clock=lambda: world.chain.now,
    )
    agent.identity = dataclasses.replace(agent.identity, salt=world.node_identity.salt)
    assert agent.node_address == world.node
    return agent
