"""The seam between the agent and the host's money."""

from __future__ import annotations

from typing import Protocol

from pytoniq_core import Address, Cell, StateInit


class Treasury(Protocol):
    """Sends messages that cost the host money. Every call is idempotent by its key, across crashes too."""

    @property
    def address(self) -> Address:
        """The wallet: owner of the node, and where earnings go."""
        ...

    async def pay(
        self, *, key: str, to: Address, value: int, body: Cell, state_init: StateInit | None = None
    ) -> None:
        """Send an internal message from the wallet; returns once it is in a proved transaction.

        Raises:
            InsufficientFundsError: the wallet does not hold `value` nanoton and fees.
            ChainUnavailableError: the chain cannot be reached; call again with the same key.
        """
        ...

    async def send_external(self, *, key: str, to: Address, boc: bytes) -> None:
        """Offer an external message; returns once `to` has a proved transaction with it.

        Raises:
            MessageRefusedError: the contract does not accept it.
            ChainUnavailableError: the chain cannot be reached.
        """
        ...
