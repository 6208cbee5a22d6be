"""The masterchain accounts that tools look for: configuration and elector.

Their data has mainnet's layouts (``config-code.fc``, ``elector-code.fc``); their code (``System.tolk``)
answers getters and changes nothing, for there are no elections and no proposals here.
"""

from __future__ import annotations

from typing import Final

from pytoniq_core import Address, Cell, begin_cell

from cocoon_ton.code import load_code
from cocoon_ton.devnet.genesis import ConfigDict, GenesisAccount
from cocoon_ton.devnet.values import CONFIG_ADDRESS, ELECTOR_ADDRESS, MASTERCHAIN, name_of

SYSTEM: Final = "System"
_BALANCE: Final = 1000 * 10**9


def system_accounts(config: ConfigDict) -> dict[bytes, Cell]:
    """``ShardAccount`` of both accounts by account name, for a zerostate."""
    code = load_code(SYSTEM).cell
    holder = begin_cell().store_ref(config.root).store_uint(0, 32).store_bytes(bytes(32)).store_bit(0)
    # no election, no credits, no past elections, no money held, no active set
    elector = begin_cell().store_uint(0, 3).store_coins(0).store_uint(0, 32).store_bytes(bytes(32))
    data = {CONFIG_ADDRESS: holder.end_cell(), ELECTOR_ADDRESS: elector.end_cell()}
    made: dict[bytes, Cell] = {}
    for id, cell in data.items():
        address = Address((MASTERCHAIN, id))
        made[name_of(address)] = GenesisAccount(balance=_BALANCE, code=code, data=cell).shard_account(
            address
        )
    return made
