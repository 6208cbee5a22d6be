"""Getters that nobody has to be believed: run here, on proved code, data and configuration.

A liteserver's answer to ``runSmcMethod`` proves nothing. `LocalGetters` reads the account and the
configuration with a `ChainReader`, both proved under one block, and runs the getter in the TVM on this machine.
For tools and checks; where money depends on a value, it is parsed from the proved data cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from pytoniq_core import Address

from cocoon_ton.emulator.emulator import Emulator, GetMethodResult
from cocoon_ton.emulator.errors import EmulatorError
from cocoon_ton.emulator.stack import StackInput

if TYPE_CHECKING:
    from cocoon_ton.chain import ChainReader
    from cocoon_ton.values import BlockRef

CONFIG_ACCOUNT: Final = Address((-1, b"\x55" * 32))
"""The configuration contract: the first reference of its data is the configuration."""


class LocalGetters:
    """Runs getters over `chain`."""

    def __init__(self, chain: ChainReader) -> None:
        self._chain = chain
        self._emulators: dict[bytes, Emulator] = {}

    async def run(
        self,
        address: Address,
        method: str | int,
        stack: Sequence[StackInput] = (),
        *,
        at: BlockRef | None = None,
    ) -> GetMethodResult:
        """The answer of a getter after block `at` (default: the head), in the time of the account's shard.

        Contracts that ask for masterchain blocks (``PREVMCBLOCKS``) or libraries find none. Raises the errors
        of `ChainReader`, and EmulatorError for an account that has no code.
        """
        state = await self._chain.account(address, at)
        if state.code is None or state.data is None:
            raise EmulatorError("the account has no code", details={"status": state.status})
        emulator = await self._emulator(state.block)
        return emulator.get_method(
            state.code,
            state.data,
            method,
            stack,
            address=address,
            now=state.shard_utime,
            balance=state.balance,
        )

    async def _emulator(self, block: BlockRef) -> Emulator:
        """A TVM under the configuration of the block."""
        holder = await self._chain.account(CONFIG_ACCOUNT, block)
        if holder.data is None or not holder.data.refs:
            raise EmulatorError("the chain has no configuration account")
        config = holder.data.refs[0]
        key = bytes(config.hash)
        if key not in self._emulators:
            self._emulators = {key: Emulator(config)}
        return self._emulators[key]
