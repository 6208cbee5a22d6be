"""The registry's parameters: numbers that nodes and clients go by. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pytoniq_core import Address, Builder, Cell

from cocoon_attestation.types import digest32, nanoton, uint
from cocoon_ton.cells import Reader, finish

NO_CODE: Final = bytes(32)


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryParameters:
    """Numbers of the registry that nodes and clients go by. Times are seconds."""

    min_stake: int
    """Nanoton."""
    anchor_within: int
    """From a receipt to the latest anchor of it."""
    challenge_window: int
    response_window: int
    close_delay: int
    """Shortest close delay of a channel that nodes should accept."""
    price_delay: int
    """Until a change of prices counts."""
    max_nodes: int
    timelock: int
    """Between announcement and execution of a change; never 0."""
    penalty: int
    """What a withheld receipt costs the stake, nanoton."""
    bounty_permille: int
    """Part of a penalty that goes to whoever proved the fault."""
    treasury: Address
    """Gets the rest of a penalty."""
    pck_code: bytes = NO_CODE
    """Hash of the code of the Pck contracts that count, 32 bytes; zeros: no quote that Pck verified counts."""
    pck_code_depth: int = 0
    """Depth of that code cell."""

    @property
    def cell(self) -> Cell:
        """The parameters as a cell."""
        return finish(
            Builder()
            .store_coins(nanoton(self.min_stake, "min_stake"))
            .store_uint(uint(self.anchor_within, 32, "anchor_within"), 32)
            .store_uint(uint(self.challenge_window, 32, "challenge_window"), 32)
            .store_uint(uint(self.response_window, 32, "response_window"), 32)
            .store_uint(uint(self.close_delay, 32, "close_delay"), 32)
            .store_uint(uint(self.price_delay, 32, "price_delay"), 32)
            .store_uint(uint(self.max_nodes, 16, "max_nodes"), 16)
            .store_uint(uint(self.timelock, 32, "timelock"), 32)
            .store_coins(nanoton(self.penalty, "penalty"))
            .store_uint(uint(self.bounty_permille, 16, "bounty_permille"), 16)
            .store_address(self.treasury)
            .store_bytes(digest32(self.pck_code, "pck_code"))
            .store_uint(uint(self.pck_code_depth, 16, "pck_code_depth"), 16)
        )


def parse_parameters(cell: Cell) -> RegistryParameters:
    """Read a parameters cell.

    Raises:
        MalformedError: not parameters.
    """
    reader = Reader(cell)
    parameters = RegistryParameters(
        min_stake=reader.coins(),
        anchor_within=reader.uint(32),
        challenge_window=reader.uint(32),
        response_window=reader.uint(32),
        close_delay=reader.uint(32),
        price_delay=reader.uint(32),
        max_nodes=reader.uint(16),
        timelock=reader.uint(32),
        penalty=reader.coins(),
        bounty_permille=reader.uint(16),
        treasury=reader.address(),
        pck_code=reader.raw(32),
        pck_code_depth=reader.uint(16),
    )
    reader.end()
    return parameters
