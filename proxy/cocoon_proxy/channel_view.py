"""Channels as proved chain state has them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from pytoniq_core import Address

from cocoon_attestation.errors import MalformedError, PaymentError, UnavailableError
from cocoon_ton.chain import ChainReader
from cocoon_ton.channel import ChannelState, ChannelStatus, parse_channel

_POLL_FIRST_S: Final = 0.2
_POLL_LAST_S: Final = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OnChain:
    """A deployed channel."""

    state: ChannelState
    balance: int
    """Of the account, nanoton."""
    now: int
    """Time of the block that shows it, Unix seconds."""

    @property
    def status(self) -> ChannelStatus:
        """Open, closing or closed."""
        return self.state.status


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelViewer:
    """Reads channels. `timeout_s` bounds `wait`."""

    chain: ChainReader
    clock: Callable[[], float]
    timeout_s: float

    async def look(self, id: bytes) -> OnChain | None:
        """The channel of an account id; None if it is not deployed.

        Raises:
            PaymentError: the account is something else.
            UnavailableError, RejectedError: the chain could not be read.
        """
        account = await self.chain.account(channel_address(id))
        if not account.active or account.data is None:
            return None
        try:
            return OnChain(
                state=parse_channel(account.data), balance=account.balance, now=account.shard_utime
            )
        except MalformedError as error:
            raise PaymentError(f"the account {id.hex()} is not a channel") from error

    async def wait(self, id: bytes, done: Callable[[OnChain], bool]) -> OnChain:
        """Poll until `done`. Raises `UnavailableError` after `timeout_s`."""
        delay = _POLL_FIRST_S
        end = self.clock() + self.timeout_s
        while True:
            found = await self.look(id)
            if found is not None and done(found):
                return found
            if self.clock() >= end:
                raise UnavailableError(
                    "the chain did not show the channel in time",
                    hint="try again: nothing is paid twice",
                    details={"channel": id.hex()},
                )
            await asyncio.sleep(delay)
            delay = min(_POLL_LAST_S, delay * 1.5)


def channel_address(id: bytes) -> Address:
    """The address of an account id in the basechain, 32 bytes."""
    return Address((0, id))
