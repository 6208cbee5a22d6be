"""Both sides leave alone: a client whose host is gone, a host whose client is gone, by the command line."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pytoniq_core import Address

from cocoon_cli.devnetwork import host_wallet, node_identity
from cocoon_ton.channel import ChannelStatus, parse_channel
from cocoon_ton.devnet.control import send_command
from cocoon_ton.node import BondState

if TYPE_CHECKING:
    from tests.network.crash_world import CLOSE_DELAY_S, Life
    from tests.network.netkit import cocoon_process, processes_of, until, why_not
else:
    from crash_world import CLOSE_DELAY_S, Life
    from netkit import cocoon_process, processes_of, until, why_not

pytestmark = [pytest.mark.network, pytest.mark.timeout(900)]  # a slow machine is no failure
TON = 10**9


@pytest.fixture
def life(tmp_path: Path) -> Iterator[Life]:
    """A network in which nobody dies."""
    if reason := why_not():
        pytest.skip(reason)
    found = Life(tmp_path / "home")
    try:
        yield found
    finally:
        found.stop()
    until(lambda: not processes_of(found.home), within=10, what="no process left")


def host(life: Life, *arguments: str) -> dict[str, Any]:
    """A command of the host."""
    config = life.root / "host.toml"
    found = cocoon_process("host", *arguments, "--config", config, "--json", home=life.home, timeout=180)
    assert found.code == 0, found.out + found.err
    return {} if arguments[0] == "run" else found.json


def channel(life: Life) -> bytes:
    (row,) = life.ledger("SELECT id FROM channels WHERE state = 'open'")
    return bytes(row["id"])


def warp(life: Life, seconds: int) -> None:
    asyncio.run(send_command(life.root / "chain", "warp", seconds=seconds))


def test_everybody_gets_out_alone(life: Life) -> None:
    network = life.begin()
    wallet = host_wallet(life.root / "host", network.global_id)
    node = node_identity(network, wallet).address
    life.until(lambda: life.node(node).key is not None, "attested")

    # The host dies and never comes back: the client takes its deposit home.
    life.ask()
    id = channel(life)
    life.end("host")
    before = life.cocoon("wallet", "show")["balance_nanoton"]
    closing = life.cocoon("wallet", "close", id.hex())
    assert closing["state"] == "closing"
    early = life.cocoon("wallet", "close", id.hex())
    assert early == closing
    warp(life, CLOSE_DELAY_S)
    assert life.cocoon("wallet", "close", id.hex())["state"] == "closed"
    shown = life.cocoon("wallet", "show")
    assert shown["balance_nanoton"] > before + TON
    assert [way["what"] for way in shown["ways_out"]] == ["wallet", "node"]  # the node of this home

    # The client goes away and never comes back: the host takes what is owed and sends the rest home.
    life.start_host()
    life.ask()
    id = channel(life)
    left = life.cocoon("wallet", "show")["balance_nanoton"]
    life.end("host")
    host(life, "run", "--drain", "--close-channels")
    state = parse_channel(life.account(Address((0, id))).data)
    assert state.status is ChannelStatus.CLOSED
    assert state.paid > 0
    address = Address(state.identity.client.to_str())
    assert life.account(address).balance > left + TON // 2  # without any command of the client
    told = life.cocoon("wallet", "close", id.hex())
    assert (told["state"], told["close_at"]) == ("closed", 0)

    # And the host leaves with its stake.
    unbonding = host(life, "unbond", "--yes")
    assert unbonding["bond"] == "unbonding"
    warp(life, unbonding["unlock_at"] - life.now() + 1)
    assert host(life, "withdraw")["stake_nanoton"] == 0
    assert life.node(node).bond is BondState.IDLE
    assert life.account(wallet.address).balance > 99 * TON
