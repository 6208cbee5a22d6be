"""Message cells that Cocoon sends: internal messages of a wallet and external messages to a contract.

Scheme ``Message`` in ``crypto/block/block.tlb`` of the TON node. State init and body always go into a
reference: one layout, whatever their size.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pytoniq_core import Address, Builder, Cell, StateInit, begin_cell

from cocoon_ton.proof.boc import write_boc


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """Money and a message from a wallet to an account."""

    destination: Address
    amount: int
    """Nanoton; forward fees come on top."""
    body: Cell = field(default_factory=Cell.empty)
    state_init: Cell | None = None
    """``StateInit`` cell to deploy the destination with."""
    bounce: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalMessage:
    """A finished external message."""

    boc: bytes
    hash: bytes
    """Representation hash of the message cell."""
    body_hash: bytes
    """Representation hash of the body cell; a transaction is recognised by it."""


def internal_message(transfer: Transfer) -> Cell:
    """The internal message of `transfer` as a wallet puts it into its action list."""
    builder = begin_cell().store_bits("01").store_bit(int(transfer.bounce)).store_bit(0)
    builder.store_address(None).store_address(transfer.destination)
    builder.store_coins(transfer.amount).store_bit(0)
    builder.store_coins(0).store_coins(0).store_uint(0, 64).store_uint(0, 32)
    return _finish(builder, transfer.state_init, transfer.body)


def external_message(destination: Address, body: Cell, state_init: Cell | None = None) -> ExternalMessage:
    """An inbound external message."""
    builder = begin_cell().store_bits("10").store_address(None).store_address(destination).store_coins(0)
    cell = _finish(builder, state_init, body)
    return ExternalMessage(boc=write_boc([cell]), hash=bytes(cell.hash), body_hash=bytes(body.hash))


def state_init_cell(state_init: StateInit) -> Cell:
    """The cell whose hash is the account id."""
    cell: Cell = state_init.serialize()
    return cell


def _finish(builder: Builder, state_init: Cell | None, body: Cell) -> Cell:
    if state_init is None:
        builder.store_bit(0)
    else:
        builder.store_bits("11").store_ref(state_init)
    cell: Cell = builder.store_bit(1).store_ref(body).end_cell()
    return cell
