"""TON's multisignature contracts (``multisig-contract-v2``): addresses, state and messages. Pure.

A registry's governance may be any address; several people share it through these contracts. They were written by TON
Core, are reviewed (Trail of Bits and Zellic, 2024) and not part of this project: only their layouts and the hashes of
their code are here. A *multisig* deploys one *order* for each proposal; signers send their approvals to the order,
which the multisig carries out when enough have come. Layouts: ``docs/spec/multisig.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pytoniq_core import Address, Builder, Cell, HashMap

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.types import uint
from cocoon_ton.cells import Reader, begin, finish, read_dict
from cocoon_ton.code import contract_address
from cocoon_ton.messages import Transfer, internal_message

MULTISIG_CODE_HASH: Final = bytes.fromhex(
    "d3d14da9a627f0ec3533341829762af92b9540b21bf03665fac09c2b46eabbac"
)
ORDER_CODE_HASH: Final = bytes.fromhex("6305a8061c856c2ccf05dcb0df5815c71475870567cab5f049e340bcf59251f3")
"""Code of an order. On chain it stands as a reference to a public library with this hash."""
MAX_SIGNERS: Final = 255
NEW_ORDER_VALUE: Final = 300_000_000
"""Value that pays for an order's life of a month with a change of a registry in it, at the prices of the reference
configuration, in nanoton; the rest comes back into the multisig when the order is carried out."""
APPROVE_VALUE: Final = 100_000_000
"""Value that pays for an approval, in nanoton; what is not used comes back."""

_NEW_ORDER, _APPROVE = 0xF718510F, 0xA762230F
_SEND, _UPDATE = 0xF1381E5B, 0x1D0CFBD3
_SEND_MODE: Final = 1  # fees come out of the multisig's balance; a failing message stops the order
_SEQNO_BITS, _INDEX_BITS, _TIME_BITS, _MASK_BITS = 256, 8, 48, 256
_NEXT: Final = (1 << _SEQNO_BITS) - 1  # "the next free number"


@dataclass(frozen=True, slots=True, kw_only=True)
class MultisigConfig:
    """Who decides. Raises `MalformedError` for a value out of range."""

    signers: tuple[Address, ...]
    """1 to 255 different accounts; a signer's place is its index."""
    threshold: int
    """Approvals that an order needs."""

    def __post_init__(self) -> None:
        """Check ranges."""
        if not 1 <= len(self.signers) <= MAX_SIGNERS or len(set(self.signers)) != len(self.signers):
            raise MalformedError("multisig: 1 to 255 different signers expected")
        if not 1 <= self.threshold <= len(self.signers):
            raise MalformedError("multisig: a threshold between 1 and the number of signers expected")

    @property
    def initial_data(self) -> Cell:
        """Data cell of the StateInit: no proposers but the signers, orders numbered in sequence."""
        return finish(
            Builder()
            .store_uint(0, _SEQNO_BITS)
            .store_uint(self.threshold, _INDEX_BITS)
            .store_ref(_address_table(self.signers))
            .store_uint(len(self.signers), _INDEX_BITS)
            .store_bits("00")  # no proposers, no arbitrary numbers
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MultisigState:
    """Data of a multisig."""

    config: MultisigConfig
    proposers: tuple[Address, ...]
    """May propose, not approve."""
    next_order: int | None
    """Number of the next order; None if orders have arbitrary numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderState:
    """Data of an order that a multisig has put up."""

    multisig: Address
    number: int
    signers: tuple[Address, ...]
    threshold: int
    approvals: frozenset[int]
    """Indexes of the signers that approved."""
    executed: bool
    expires_at: int
    """Unix time until which approvals count."""
    actions: tuple[Action, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One thing that an order does."""

    to: Address | None
    """Receiver of a message; None: the order does something else (changes the signers, or unknown)."""
    value: int
    """Nanoton."""
    body: Cell


def parse_multisig(data: Cell) -> MultisigState:
    """Read a multisig's data cell.

    Raises:
        MalformedError: not the data of such a contract.
    """
    reader = Reader(data)
    number, threshold, signers = reader.uint(_SEQNO_BITS), reader.uint(_INDEX_BITS), reader.ref()
    count, proposers, arbitrary = reader.uint(_INDEX_BITS), reader.maybe_ref(), reader.flag()
    reader.end()
    found = _addresses(signers)
    if len(found) != count:
        raise MalformedError("multisig: a count of signers that does not match")
    return MultisigState(
        config=MultisigConfig(signers=found, threshold=threshold),
        proposers=_addresses(proposers),
        next_order=None if arbitrary else number,
    )


def parse_order(data: Cell) -> OrderState:
    """Read an order's data cell.

    Raises:
        MalformedError: not the data of an order that is up.
    """
    reader = Reader(data)
    multisig, number, threshold = reader.address(), reader.uint(_SEQNO_BITS), reader.uint(_INDEX_BITS)
    executed, signers, mask = reader.flag(), _addresses(reader.ref()), reader.uint(_MASK_BITS)
    count, expires_at, order = reader.uint(_INDEX_BITS), reader.uint(_TIME_BITS), reader.ref()
    reader.end()
    approvals = frozenset(index for index in range(len(signers)) if mask >> index & 1)
    if mask.bit_count() != count or len(approvals) != count:
        raise MalformedError("order: a count of approvals that does not match")
    return OrderState(
        multisig=multisig,
        number=number,
        signers=signers,
        threshold=threshold,
        approvals=approvals,
        executed=executed,
        expires_at=expires_at,
        actions=tuple(read_dict(order, _INDEX_BITS, _action).values()),
    )


def order_address(multisig: Address, number: int) -> Address:
    """Address of order `number` of a multisig; it needs the hash of the order's code only."""
    data = finish(Builder().store_address(multisig).store_uint(number, _SEQNO_BITS))
    return contract_address(library_cell(ORDER_CODE_HASH), data)


def library_cell(code_hash: bytes) -> Cell:
    """The exotic cell that stands for a public library."""
    return finish(Builder(type_=2).store_uint(2, 8).store_bytes(code_hash))


def new_order_body(
    messages: Sequence[Transfer], *, signer: int, expires_at: int, query_id: int = 0
) -> Cell:
    """Body, from signer number `signer`: put up an order that sends these messages, and approve it.

    The messages' amounts and fees come out of the multisig's balance.

    Raises:
        MalformedError: not 1 to 255 messages, or a value out of range.
    """
    if not 1 <= len(messages) <= MAX_SIGNERS:
        raise MalformedError("order: 1 to 255 messages expected")
    table = HashMap(_INDEX_BITS, value_serializer=lambda action, to: to.store_ref(action))
    for index, transfer in enumerate(messages):
        action = begin(_SEND).store_uint(_SEND_MODE, 8).store_ref(internal_message(transfer))
        table.set_int_key(index, finish(action))
    return finish(
        begin(_NEW_ORDER)
        .store_uint(uint(query_id, 64, "query id"), 64)
        .store_uint(_NEXT, _SEQNO_BITS)
        .store_bit(1)  # a signer proposes
        .store_uint(uint(signer, _INDEX_BITS, "signer"), _INDEX_BITS)
        .store_uint(uint(expires_at, _TIME_BITS, "expires_at"), _TIME_BITS)
        .store_ref(table.serialize())
    )


def approve_body(signer: int, query_id: int = 0) -> Cell:
    """Body, to the order, from signer number `signer`; the last approval needed carries the order out."""
    return finish(
        begin(_APPROVE)
        .store_uint(uint(query_id, 64, "query id"), 64)
        .store_uint(uint(signer, _INDEX_BITS, "signer"), _INDEX_BITS)
    )


def _action(reader: Reader) -> Action:
    action = reader.sub()
    if action.uint(32) != _SEND:
        return Action(to=None, value=0, body=Cell.empty())
    action.uint(8)
    message = action.sub()
    action.end()
    if message.flag():  # int_msg_info$0
        raise MalformedError("order: an internal message expected")
    message.uint(3)  # ihr_disabled, bounce, bounced
    message.maybe_address()
    to, value = message.address(), message.coins()
    message.maybe_ref()  # other currencies
    message.coins(), message.coins()
    message.uint(64 + 32)
    if message.flag():  # a state init: in a reference, or here
        if not message.flag():
            raise MalformedError("order: a state init in a cell of its own expected")
        message.ref()
    body = message.ref() if message.flag() else _rest(message)
    return Action(to=to, value=value, body=body)


def _rest(message: Reader) -> Cell:
    builder = Builder().store_uint(message.uint(bits), bits) if (bits := message.bits_left) else Builder()
    while message.refs_left:
        builder.store_ref(message.ref())
    return finish(builder)


def _address_table(addresses: Sequence[Address]) -> Cell:
    table = HashMap(_INDEX_BITS, value_serializer=lambda address, to: to.store_address(address))
    for index, address in enumerate(addresses):
        table.set_int_key(index, address)
    root: Cell | None = table.serialize()
    if root is None:
        raise MalformedError("multisig: no addresses")
    return root


def _addresses(root: Cell | None) -> tuple[Address, ...]:
    found = read_dict(root, _INDEX_BITS, lambda reader: reader.address())
    if list(found) != list(range(len(found))):
        raise MalformedError("multisig: indexes with gaps")
    return tuple(found.values())
