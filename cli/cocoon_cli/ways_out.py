"""Where a user's money is, and the exact command that gets each part of it out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from pytoniq_core import Address

from cocoon_proxy.channel_view import ChannelViewer, OnChain
from cocoon_proxy.ledger import ChannelRow
from cocoon_ton.chain import ChainReader
from cocoon_ton.channel import ChannelStatus
from cocoon_ton.network import NetworkConfig
from cocoon_ton.node import BondState, NodeState, parse_node
from cocoon_ton.outbox.sender import FEE_RESERVE
from cocoon_ton.wallet import Wallet


@dataclass(frozen=True, slots=True, kw_only=True)
class WayOut:
    """One balance and how to get it."""

    what: str
    """``wallet``, ``channel`` or ``node``."""
    id: str
    """Account id in hex; the address for the wallet."""
    amount_nanoton: int
    """What comes out, less fees."""
    available_at: int
    """Unix time; 0 for now."""
    command: str
    """What to type."""
    note: str
    """What happens then."""

    def to_dict(self) -> dict[str, object]:
        """JSON-ready."""
        return asdict(self)


def wallet_way(wallet: Wallet, balance: int) -> list[WayOut]:
    """The wallet's own balance."""
    if balance <= FEE_RESERVE:
        return []
    return [
        WayOut(
            what="wallet",
            id=wallet.friendly,
            amount_nanoton=balance - FEE_RESERVE,
            available_at=0,
            command="cocoon wallet send ADDRESS --all",
            note="sends everything but a small reserve for fees; the 24 words work in any TON wallet too",
        )
    ]


async def channel_ways(viewer: ChannelViewer, rows: Sequence[ChannelRow], now: int) -> list[WayOut]:
    """What is in channels, by proved chain state. Times from `now`, Unix seconds."""
    found = []
    for row in rows:
        if row.state == "closed":
            continue
        seen = await viewer.look(row.id)
        if seen is not None and seen.status is not ChannelStatus.CLOSED:
            found.append(_channel_way(row, seen, now))
    return found


def _channel_way(row: ChannelRow, seen: OnChain, now: int) -> WayOut:
    command = f"cocoon wallet close {row.id.hex()}"
    owed = max(0, row.account.exposure - seen.state.paid)
    if seen.status is ChannelStatus.OPEN:
        when = now + seen.state.identity.close_delay
        note = "asks for the rest; the same command, after that time, pays it out"
    elif seen.now < seen.state.close_at:
        when, note = (
            seen.state.close_at,
            "is closing; the same command pays out then, a running client by itself",
        )
    else:
        when, note = 0, "the wait is over: pays out now"
    return WayOut(
        what="channel",
        id=row.id.hex(),
        amount_nanoton=max(0, seen.balance - owed),
        available_at=when,
        command=command,
        note=note,
    )


async def node_ways(chain: ChainReader, network: NetworkConfig, config: Path) -> list[WayOut]:
    """The stake and the working balance of the node of a ``host.toml``, if it is on this network."""
    from cocoon_cli.host import own_node

    found = own_node(config)
    if found.network.global_id != network.global_id or found.network.registry != network.registry:
        return []
    account = await chain.account(found.identity.address)
    if not account.active or account.data is None:
        return []
    return [_node_way(found.identity.address, parse_node(account.data), account.balance, config)]


def _node_way(address: Address, state: NodeState, balance: int, config: Path) -> WayOut:
    option = f"--config {config}"
    if state.bond is BondState.ACTIVE:
        command, when = f"cocoon host unbond {option}", 0
        note = (
            "leaves the registry and starts the wait; `cocoon host run --drain` first collects what is owed"
        )
    else:
        command, when = f"cocoon host withdraw {option}", state.unlock_at
        note = "returns stake and working balance to the host's wallet"
    return WayOut(
        what="node",
        id=address.hash_part.hex(),
        amount_nanoton=balance,
        available_at=when,
        command=command,
        note=note,
    )
