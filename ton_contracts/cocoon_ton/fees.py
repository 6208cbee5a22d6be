"""What sending costs, before it is sent: TON's fee formulas with the prices of the reference configuration.

An estimate, not a promise: prices are those of mainnet's configuration parameters 21 and 25 as
``docs/spec/contracts.md`` section 5 names them; a network with other prices costs other fees. Formulas: TON
documentation, "Transaction fees". Tests compare the result with what the real wallet contracts pay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pytoniq_core import Cell

from cocoon_ton.messages import Transfer, internal_message
from cocoon_ton.wallet import Wallet, WalletVersion

GAS_PRICE: Final = 400
"""Nanoton per unit of gas (parameter 21: 26 214 400 / 2^16)."""
FORWARD_LUMP: Final = 400_000
"""Nanoton per message (parameter 25)."""
_BIT_PRICE: Final = 26_214_400
_CELL_PRICE: Final = 2_621_440_000
"""Parameter 25, in units of 2^-16 nanoton."""
_WALLET_GAS: Final = {WalletVersion.V5R1: (4000, 1000), WalletVersion.V4R2: (2700, 800)}
"""Gas of a wallet's message: basis, and for each transfer. Not below what the contracts use."""
CHANNEL_GAS: Final = {"top_up": 1600, "start_close": 4000, "finish_close": 4200}
"""Gas of a channel for one message (``ton_contracts/gas.json``, rounded up)."""


def forward_fee(*cells: Cell | None) -> int:
    """Nanoton for a message whose body and state init are `cells`, in cells of their own."""
    seen: set[bytes] = set()
    bits = 0
    waiting = [cell for cell in cells if cell is not None]
    while waiting:
        cell = waiting.pop()
        if cell.hash in seen:
            continue
        seen.add(cell.hash)
        bits += len(cell.bits)
        waiting.extend(cell.refs)
    return FORWARD_LUMP - (-(bits * _BIT_PRICE + len(seen) * _CELL_PRICE) >> 16)


def transfer_fee(wallet: Wallet, transfers: Sequence[Transfer], *, deploy: bool) -> int:
    """Nanoton that one message of `wallet` with these transfers costs beside their amounts.

    deploy: it is the wallet's first message, which brings its contract along.
    """
    basis, each = _WALLET_GAS[wallet.version]
    gas = basis + each * len(transfers)
    message = wallet.sign(transfers, seqno=0, valid_until=1, deploy=deploy)
    body = Cell.one_from_boc(message.boc).refs[-1]
    received = forward_fee(body, wallet.state_init if deploy else None)
    sent = sum(forward_fee(*internal_message(transfer).refs) for transfer in transfers)
    return gas * GAS_PRICE + received + sent


def channel_fee(operation: str) -> int:
    """Nanoton that a channel itself pays for one message, and for the answer that it sends."""
    answer = 0 if operation == "top_up" else forward_fee(Cell.empty())
    return CHANNEL_GAS[operation] * GAS_PRICE + answer
