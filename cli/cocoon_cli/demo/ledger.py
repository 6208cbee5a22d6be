"""What the demo reads back from the chain: the anchoring transaction and the settlement."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from pytoniq_core import Address

from cocoon_attestation.errors import ConfigError, UnavailableError
from cocoon_ton import opcodes
from cocoon_ton.cells import Reader
from cocoon_ton.chain import LiteChain, MessageInfo, TransactionInfo
from cocoon_ton.channel import parse_channel
from cocoon_ton.network import NetworkConfig
from cocoon_ton.node import NodeState, parse_node

_POLL_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchored:
    """A checkpoint on chain that covers a receipt."""

    tree_size: int
    tx_hash: str
    fee: int
    """Nanoton, paid by the node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A settlement on chain."""

    channel: str
    paid: int
    """Cumulative payments of the channel, nanoton."""
    received: int
    """The part of it that arrived at the host's wallet, nanoton (returned gas money not counted)."""


async def wait_anchored(network: NetworkConfig, node: str, index: int, *, within: float) -> Anchored:
    """Wait until the node's anchored log covers receipt number `index`."""
    address = Address((0, bytes.fromhex(node)))
    deadline = time.monotonic() + within
    async with LiteChain(network, head_ttl=0.1) as chain:
        while time.monotonic() < deadline:
            account = await chain.account(address)
            state = _node(account.data)
            if state.log.tree_size > index:
                transaction = _anchoring(await chain.transactions(address, limit=50), state)
                return Anchored(
                    tree_size=state.log.tree_size,
                    tx_hash=transaction.hash.hex(),
                    fee=transaction.total_fees,
                )
            await asyncio.sleep(_POLL_S)
    raise UnavailableError("the receipt was not anchored in time", hint="see host.log in the logs folder")


async def wait_settled(
    network: NetworkConfig, channel: str, owner: Address, amount: int, *, within: float
) -> Settled:
    """Wait until a channel has paid `amount` nanoton and the money arrived at `owner`."""
    address = Address((0, bytes.fromhex(channel)))
    deadline = time.monotonic() + within
    async with LiteChain(network, head_ttl=0.1) as chain:
        while time.monotonic() < deadline:
            account = await chain.account(address)
            paid = parse_channel(account.data).paid if account.data is not None else 0
            received = max(
                (
                    _paid(t.in_msg)
                    for t in await chain.transactions(owner, limit=100)
                    if t.in_msg is not None and t.in_msg.source == address
                ),
                default=0,
            )
            if paid >= amount and received >= amount:
                return Settled(channel=channel, paid=paid, received=received)
            await asyncio.sleep(_POLL_S)
    raise UnavailableError("the channel was not settled in time", hint="see host.log in the logs folder")


def _paid(message: MessageInfo) -> int:
    """Cumulative payment that a ``ChannelPaid`` message brought; its value also returns unused gas money."""
    if message.bounced or message.opcode != opcodes.CHANNEL_PAID:
        return 0
    reader = Reader(message.body)
    reader.tag(opcodes.CHANNEL_PAID)
    reader.uint(64)
    return reader.coins()


def _node(data: object) -> NodeState:
    from pytoniq_core import Cell

    if not isinstance(data, Cell):
        raise ConfigError("the node contract is not deployed")
    return parse_node(data)


def _anchoring(transactions: list[TransactionInfo], state: NodeState) -> TransactionInfo:
    """The newest successful external message to the node: only anchors come that way."""
    for transaction in transactions:
        message = transaction.in_msg
        if transaction.success and message is not None and message.kind == "external_in":
            return transaction
    raise UnavailableError(f"no anchoring transaction for size {state.log.tree_size} was found")
