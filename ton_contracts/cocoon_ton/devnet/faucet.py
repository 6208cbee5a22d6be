"""The faucet: a standard v4r2 wallet with a very large balance, there from the zerostate on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from nacl.signing import SigningKey
from pytoniq.contract.wallets.wallet import WALLET_V4_R2_CODE
from pytoniq_core import Address, Cell, begin_cell

from cocoon_ton.devnet.genesis import public_key
from cocoon_ton.devnet.values import name_of
from cocoon_ton.emulator import (
    contract_address,
    external_message,
    internal_message,
    make_account,
    view_account,
)

if TYPE_CHECKING:
    from cocoon_ton.devnet.chain import Chain

FAUCET_BALANCE: Final = 1_000_000_000 * 10**9
"""Nanoton that the faucet starts with."""
WALLET_ID: Final = 698983191
_VALID_SECONDS: Final = 60
_PAY_FEES_SEPARATELY: Final = 3


class Faucet:
    """Signs transfers of the faucet wallet."""

    def __init__(self, key: SigningKey) -> None:
        self._key = key
        self._data = wallet_data(public_key(key))
        self.address: Address = contract_address(WALLET_V4_R2_CODE, self._data)

    def genesis_account(self) -> Cell:
        """The wallet's ``ShardAccount`` in the zerostate."""
        return make_account(self.address, FAUCET_BALANCE, 0, code=WALLET_V4_R2_CODE, data=self._data)

    def document(self) -> dict[str, object]:
        """What ``faucet.json`` holds. `seed` is the secret: 32 bytes of an Ed25519 key."""
        return {
            "wallet": "v4r2",
            "wallet_id": WALLET_ID,
            "address": self.address.to_str(is_user_friendly=False),
            "public_key": public_key(self._key).hex(),
            "seed": bytes(self._key).hex(),
        }

    def transfer(
        self,
        chain: Chain,
        destination: Address,
        amount: int,
        *,
        body: Cell | None = None,
        init: Cell | None = None,
        bounce: bool = False,
    ) -> Cell:
        """A signed external message that sends `amount` nanoton, valid for the wallet's present seqno."""
        message = internal_message(
            source=self.address, destination=destination, value=amount, body=body, init=init, bounce=bounce
        )
        order = begin_cell().store_uint(WALLET_ID, 32).store_uint(chain.now() + _VALID_SECONDS, 32)
        order.store_uint(self._seqno(chain), 32).store_uint(0, 8)
        payload = order.store_uint(_PAY_FEES_SEPARATELY, 8).store_ref(message).end_cell()
        signature = bytes(self._key.sign(bytes(payload.hash)).signature)
        return external_message(
            self.address, begin_cell().store_bytes(signature).store_cell(payload).end_cell()
        )

    def _seqno(self, chain: Chain) -> int:
        account = chain.shard_account(name_of(self.address))
        data = view_account(account).data
        return int(data.begin_parse().load_uint(32)) if data is not None else 0


def wallet_data(owner: bytes) -> Cell:
    """Initial data of a v4r2 wallet: seqno, wallet id, public key, no plugins."""
    builder = begin_cell().store_uint(0, 32).store_uint(WALLET_ID, 32)
    return cast(Cell, builder.store_bytes(owner).store_bit(0).end_cell())
