"""The development multisignature contract: address, state and messages. Pure.

It shows and tests a registry that is governed by several people; it is not audited. On a public network the
governance is an audited multisignature contract: the registry takes any address. Layouts:
``ton_contracts/cocoon.tlb``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pytoniq_core import Address, Builder, Cell, HashMap, StateInit

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.types import digest32, nanoton, sint, uint
from cocoon_ton import opcodes
from cocoon_ton.cells import Reader, begin, finish, read_dict
from cocoon_ton.code import contract_address, multisig_code

MAX_SIGNERS: Final = 32
MULTISIG_MESSAGE_VALUE: Final = 50_000_000
"""Value that pays for any message of a signer at the prices of the reference configuration, in nanoton; the
value of an order comes out of the contract's balance."""
_ADDRESS_BITS: Final = 267


@dataclass(frozen=True, slots=True, kw_only=True)
class MultisigIdentity:
    """What the address is made of. Raises `MalformedError` for a value out of range."""

    global_id: int
    signers: tuple[Address, ...]
    """1 to 32 different accounts in the basechain."""
    threshold: int
    """Approvals that an order needs."""
    salt: int = 0

    def __post_init__(self) -> None:
        """Check ranges."""
        sint(self.global_id, 32, "multisig global_id")
        uint(self.salt, 64, "multisig salt")
        if not 1 <= len(self.signers) <= MAX_SIGNERS or len(set(self.signers)) != len(self.signers):
            raise MalformedError("multisig: 1 to 32 different signers expected")
        if any(signer.wc != 0 for signer in self.signers):
            raise MalformedError("multisig: signers in the basechain expected")
        if not 1 <= self.threshold <= len(self.signers):
            raise MalformedError("multisig: a threshold between 1 and the number of signers expected")

    @property
    def initial_data(self) -> Cell:
        """Data cell of the StateInit."""
        table = HashMap(_ADDRESS_BITS, value_serializer=lambda number, to: to.store_uint(number, 8))
        for number, signer in enumerate(self.signers):
            bits = finish(Builder().store_address(signer)).bits
            table.set_int_key(int(bits.to01(), 2), number)
        return finish(
            begin(opcodes.MULTISIG_STORAGE)
            .store_int(self.global_id, 32)
            .store_uint(self.salt, 64)
            .store_uint(self.threshold, 8)
            .store_uint(0, 8)  # open orders
            .store_dict(table.serialize())
            .store_bits("0")  # orders
        )

    @property
    def address(self) -> Address:
        """Address with the code of this package."""
        return contract_address(multisig_code().cell, self.initial_data)

    @property
    def state_init(self) -> StateInit:
        """StateInit for the message that deploys and funds the contract; its body is empty."""
        return StateInit(code=multisig_code().cell, data=self.initial_data)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A message that the signers send together."""

    to: Address
    value: int
    """Nanoton, out of the contract's balance."""
    body: Cell
    valid_until: int
    """Unix time; approvals count until then."""
    salt: int = 0
    """Tells two orders to the same effect apart."""

    @property
    def cell(self) -> Cell:
        """The order as a cell; its hash is what signers approve."""
        return finish(
            begin(opcodes.MULTISIG_ORDER)
            .store_uint(uint(self.salt, 64, "order salt"), 64)
            .store_uint(uint(self.valid_until, 32, "order valid_until"), 32)
            .store_address(self.to)
            .store_coins(nanoton(self.value, "order value"))
            .store_ref(self.body)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenOrder:
    """An order that awaits approvals."""

    order: Order
    approvals: frozenset[int]
    """Numbers of the signers that approved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MultisigState:
    """Data of the contract."""

    identity: MultisigIdentity
    orders: dict[bytes, OpenOrder]
    """By hash of the order cell."""


def parse_multisig(data: Cell) -> MultisigState:
    """Read the contract's data cell.

    Raises:
        MalformedError: not the data of such a contract.
    """
    reader = Reader(data)
    reader.tag(opcodes.MULTISIG_STORAGE)
    global_id, salt, threshold, count = reader.sint(32), reader.uint(64), reader.uint(8), reader.uint(8)
    signers = read_dict(reader.maybe_ref(), _ADDRESS_BITS, lambda r: r.uint(8))
    orders = read_dict(reader.maybe_ref(), 256, _read_order)
    reader.end()
    if len(orders) != count or sorted(signers.values()) != list(range(len(signers))):
        raise MalformedError("multisig: counts that do not match the entries")
    by_number = {number: _address(bits) for bits, number in signers.items()}
    identity = MultisigIdentity(
        global_id=global_id,
        signers=tuple(by_number[number] for number in range(len(by_number))),
        threshold=threshold,
        salt=salt,
    )
    return MultisigState(
        identity=identity, orders={hash.to_bytes(32): order for hash, order in orders.items()}
    )


def parse_order(cell: Cell) -> Order:
    """Read an order cell.

    Raises:
        MalformedError: not an order.
    """
    reader = Reader(cell)
    reader.tag(opcodes.MULTISIG_ORDER)
    salt, valid_until = reader.uint(64), reader.uint(32)
    order = Order(
        to=reader.address(), value=reader.coins(), body=reader.ref(), valid_until=valid_until, salt=salt
    )
    reader.end()
    return order


def propose_body(order: Order, query_id: int = 0) -> Cell:
    """Body, from a signer: put up an order and approve it."""
    return finish(_body(opcodes.MULTISIG_PROPOSE, query_id).store_ref(order.cell))


def approve_body(order_hash: bytes, query_id: int = 0) -> Cell:
    """Body, from a signer: approve; the approval that reaches the threshold sends the order."""
    body = _body(opcodes.MULTISIG_APPROVE, query_id)
    return finish(body.store_bytes(digest32(order_hash, "order hash")))


def drop_body(order_hash: bytes, query_id: int = 0) -> Cell:
    """Body, from a signer: forget an order that expired."""
    return finish(_body(opcodes.MULTISIG_DROP, query_id).store_bytes(digest32(order_hash, "order hash")))


def _read_order(reader: Reader) -> OpenOrder:
    mask, count = reader.uint(32), reader.uint(8)
    approvals = frozenset(number for number in range(MAX_SIGNERS) if mask >> number & 1)
    if len(approvals) != count:
        raise MalformedError("multisig: an order with a wrong count of approvals")
    return OpenOrder(order=parse_order(reader.ref()), approvals=approvals)


def _address(bits: int) -> Address:
    reader = Reader(finish(Builder().store_uint(bits, _ADDRESS_BITS)))
    return reader.address()


def _body(opcode: int, query_id: int) -> Builder:
    builder: Builder = begin(opcode).store_uint(uint(query_id, 64, "query id"), 64)
    return builder
