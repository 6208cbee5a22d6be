"""Getters on proved state: the answers are right whatever the liteserver says, and nothing is asked of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from pytoniq_core import Cell, begin_cell

from cocoon_ton.chain import LiteChain
from cocoon_ton.devnet import Devnet, GenesisAccount
from cocoon_ton.emulator import Emulator, EmulatorError, LocalGetters, contract_address
from cocoon_ton.emulator.getters import CONFIG_ACCOUNT
from cocoon_ton.errors import ChainProofError

from .conftest import ALICE, NOBODY, network_of

# the getter leaves configuration parameter 19 (global id): s0 <- 19; CONFIGPARAM; drop the flag; load 32 bits
READS_CONFIG = begin_cell().store_bytes(bytes.fromhex("308013F83230D0D21F30")).end_cell()
EMPTY = Cell.empty()
CONTRACT = contract_address(READS_CONFIG, EMPTY)


@pytest.fixture
async def net(sandbox: None) -> AsyncIterator[Devnet]:
    accounts: dict[object, object] = {
        ALICE: 5,
        CONTRACT: GenesisAccount(balance=10**9, code=READS_CONFIG, data=EMPTY),
    }
    async with Devnet.start(block_interval=None, accounts=accounts) as net:  # type: ignore[arg-type]
        yield net


@pytest.fixture
async def chain(net: Devnet) -> AsyncIterator[LiteChain]:
    async with LiteChain(network_of(net), head_ttl=0) as chain:
        yield chain


async def test_wallet_counts_its_messages(net: Devnet, chain: LiteChain) -> None:
    getters = LocalGetters(chain)
    before = await chain.head()
    assert (await getters.run(net.faucet_address, "seqno")).unwrap() == [0]
    net.fund(ALICE, 5)
    assert (await getters.run(net.faucet_address, "seqno")).unwrap() == [1]
    assert (await getters.run(net.faucet_address, "seqno", at=before)).unwrap() == [0]


async def test_a_lying_liteserver_is_not_even_asked(net: Devnet, chain: LiteChain) -> None:
    net.faults.lying_getter = 999
    net.faults.refuse.add("runSmcMethod")
    assert (await LocalGetters(chain).run(net.faucet_address, "seqno")).unwrap() == [0]


async def test_a_forged_account_has_no_getter(net: Devnet, chain: LiteChain) -> None:
    net.faults.hidden_accounts.add(net.faucet_address.hash_part)
    with pytest.raises(ChainProofError):
        await LocalGetters(chain).run(net.faucet_address, "seqno")


async def test_the_configuration_is_the_chains_own(net: Devnet, chain: LiteChain) -> None:
    """Not the one that the emulator ships with: parameter 19 is this chain's global id."""
    result = await LocalGetters(chain).run(CONTRACT, "any")
    assert result.unwrap() == [net.global_id]
    state = await chain.account(CONFIG_ACCOUNT)
    assert state.data is not None
    assert state.data.refs[0].hash == net.chain.config.root.hash
    shipped = Emulator("slim").get_method(READS_CONFIG, EMPTY, "any", address=CONTRACT, now=0)
    assert shipped.unwrap() != [net.global_id]


@pytest.mark.parametrize("address", [ALICE, NOBODY])
async def test_accounts_without_code(chain: LiteChain, address: object) -> None:
    with pytest.raises(EmulatorError, match="no code"):
        await LocalGetters(chain).run(address, "seqno")  # type: ignore[arg-type]


async def test_exit_codes_come_through(net: Devnet, chain: LiteChain) -> None:
    result = await LocalGetters(chain).run(net.faucet_address, "no_such_getter")
    assert result.exit_code == 11
