"""The Channel contract: identity, address, state and messages. Pure; no chain access.

Layouts: ``ton_contracts/cocoon.tlb``. Rules: ``docs/spec/contracts.md``.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from pytoniq_core import Address, Builder, Cell, StateInit

from cocoon.v1 import payment_pb2
from cocoon_attestation.cell import parse_boc
from cocoon_attestation.errors import MalformedError
from cocoon_attestation.types import digest32, exact_bytes, nanoton, sint, uint
from cocoon_ton import opcodes
from cocoon_ton.cells import Reader, finish, record_to_ton, ton_to_record
from cocoon_ton.code import channel_code, contract_address

CHANNEL_DATA_TAG: Final = 0xC0C00007
CLOSED: Final = 0xFFFFFFFF
"""`close_at` of a channel that is closed for good."""
MIN_MESSAGE_VALUE: Final = 50_000_000
"""Value that pays for any message to a channel at the prices of the reference configuration, in
nanoton; what is not used comes back."""


class ChannelStatus(enum.Enum):
    """Where a channel is in its life."""

    OPEN = "open"
    CLOSING = "closing"
    """The client started to close; the node may still settle."""
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelIdentity:
    """What a channel's address is made of. Raises `MalformedError` for a value out of range."""

    global_id: int
    """TON network."""
    client: Address
    """Gets what is left when the channel closes; may start to close."""
    client_key: bytes
    """Ed25519 public key that signs authorizations, 32 bytes."""
    node: Address
    """The node contract: the only sender of settlements."""
    salt: int
    """Unsigned 64-bit; fresh for every channel."""
    close_delay: int
    """Seconds between the start of a close by the client and its end."""

    def __post_init__(self) -> None:
        """Check lengths and ranges."""
        sint(self.global_id, 32, "channel global_id")
        digest32(self.client_key, "channel client_key")
        uint(self.salt, 64, "channel salt")
        uint(self.close_delay, 32, "channel close_delay")
        for name in ("client", "node"):
            if getattr(self, name).wc != 0:
                raise MalformedError(f"channel {name}: an address in the basechain is expected")

    @staticmethod
    def from_proto(message: payment_pb2.ChannelIdentity) -> ChannelIdentity:
        """Read the wire form: the initial data cell.

        Raises:
            MalformedError: not the initial data of a channel in canonical form.
        """
        state = parse_channel(record_to_ton(parse_boc(message.initial_data)))
        if state.paid or state.close_at:
            raise MalformedError("channel identity: not initial data")
        return state.identity

    def to_proto(self) -> payment_pb2.ChannelIdentity:
        """The wire form."""
        return payment_pb2.ChannelIdentity(initial_data=ton_to_record(self.initial_data).to_boc())

    @property
    def initial_data(self) -> Cell:
        """Data cell of the StateInit."""
        return _data_cell(self, paid=0, close_at=0)

    @property
    def address(self) -> Address:
        """Address of the channel, computed with the channel code of this package."""
        return contract_address(channel_code().cell, self.initial_data)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelState:
    """Data of a channel contract."""

    identity: ChannelIdentity
    paid: int
    """Paid to the node's owner so far, cumulative, in nanoton."""
    close_at: int
    """0: open; `CLOSED`; else Unix time from which the rest may go to the client."""

    @property
    def status(self) -> ChannelStatus:
        """Open, closing or closed."""
        if self.close_at == 0:
            return ChannelStatus.OPEN
        return ChannelStatus.CLOSED if self.close_at == CLOSED else ChannelStatus.CLOSING


def channel_initial_data(identity: ChannelIdentity) -> Cell:
    """Data cell of the StateInit of a channel."""
    return identity.initial_data


def channel_address(identity: ChannelIdentity, code: Cell | None = None) -> Address:
    """Address of a channel; `code` defaults to the channel code of this package."""
    return contract_address(code or channel_code().cell, identity.initial_data)


def channel_state_init(identity: ChannelIdentity) -> StateInit:
    """StateInit that deploys a channel, for a wallet message with `top_up_body`."""
    return StateInit(code=channel_code().cell, data=identity.initial_data)


def _data_cell(identity: ChannelIdentity, *, paid: int, close_at: int) -> Cell:
    constants = Builder().store_uint(identity.salt, 64).store_uint(identity.close_delay, 32).end_cell()
    return finish(
        Builder()
        .store_uint(CHANNEL_DATA_TAG, 32)
        .store_coins(paid)
        .store_uint(close_at, 32)
        .store_int(identity.global_id, 32)
        .store_address(identity.node)
        .store_bytes(identity.client_key)
        .store_address(identity.client)
        .store_ref(constants)
    )


def parse_channel(data: Cell) -> ChannelState:
    """Read a channel's data cell.

    Raises:
        MalformedError: not the data of a channel.
    """
    root = Reader(data)
    root.tag(CHANNEL_DATA_TAG)
    paid, close_at, global_id = root.coins(), root.uint(32), root.sint(32)
    node, client_key, client = root.address(), root.raw(32), root.address()
    constants = root.sub()
    root.end()
    salt, close_delay = constants.uint(64), constants.uint(32)
    constants.end()
    identity = ChannelIdentity(
        global_id=global_id,
        client=client,
        client_key=client_key,
        node=node,
        salt=salt,
        close_delay=close_delay,
    )
    return ChannelState(identity=identity, paid=paid, close_at=close_at)


def top_up_body(query_id: int = 0) -> Cell:
    """Body: add the message's value to the deposit. Deploys when sent with the StateInit."""
    return _simple(opcodes.CHANNEL_TOP_UP, query_id)


def start_close_body(query_id: int = 0) -> Cell:
    """Body, from the client: start to close."""
    return _simple(opcodes.CHANNEL_START_CLOSE, query_id)


def finish_close_body(query_id: int = 0) -> Cell:
    """Body, from anybody after the delay: give everything to the client."""
    return _simple(opcodes.CHANNEL_FINISH_CLOSE, query_id)


def settle_body(*, used: int, final: bool, payout: Address, authorization: Cell, query_id: int = 0) -> Cell:
    """Body that the node contract sends; `authorization` is `signed_authorization_cell`."""
    return finish(
        Builder()
        .store_uint(opcodes.CHANNEL_SETTLE, 32)
        .store_uint(uint(query_id, 64, "query id"), 64)
        .store_coins(nanoton(used, "used"))
        .store_bool(final)
        .store_address(payout)
        .store_ref(authorization)
    )


def signed_authorization_cell(signed: payment_pb2.SignedAuthorization) -> Cell:
    """An authorization with its signature as contracts take it.

    Raises:
        MalformedError: the authorization does not parse or the signature is not 64 bytes.
    """
    authorization = record_to_ton(parse_boc(signed.authorization))
    signature = exact_bytes(signed.signature, 64, "signature")
    return finish(Builder().store_bytes(signature).store_ref(authorization))


def _simple(opcode: int, query_id: int) -> Cell:
    return finish(Builder().store_uint(opcode, 32).store_uint(uint(query_id, 64, "query id"), 64))
