"""Payment channels of the client: open, top up, authorize. Safe to interrupt at any point.

A channel is in the ledger before money is sent to it, with everything its address is computed from; a
transfer has a name that the outbox executes once. After a crash the same steps run again and find what
was done. Amounts are nanoton.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cocoon.v1 import payment_pb2
from cocoon_attestation.errors import PaymentError, UnavailableError
from cocoon_attestation.payment import Authorization, PriceList, sign_authorization
from cocoon_proxy.channel_view import ChannelViewer, channel_address
from cocoon_proxy.config import PaymentConfig
from cocoon_proxy.errors import PaymentRefusedError, SpendLimitError
from cocoon_proxy.events import ChannelOpened, ChannelToppedUp, ClientEvent
from cocoon_proxy.exchange import durable
from cocoon_proxy.keys import ChannelKeys
from cocoon_proxy.ledger import DAY_S, ChannelRow, Ledger
from cocoon_ton.channel import (
    MIN_MESSAGE_VALUE,
    ChannelIdentity,
    ChannelStatus,
    channel_state_init,
    top_up_body,
)
from cocoon_ton.errors import MessageFailedError
from cocoon_ton.treasury import Treasury

CHANNEL_RESERVE: Final = MIN_MESSAGE_VALUE
"""Part of a channel's balance that is not counted on: it pays for the channel's storage."""
MAX_REFUSED: Final = 3
"""Channels with one node that are given up in a day before it gets no new one: each holds a deposit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelTerms:
    """What a new channel with a node needs."""

    node: bytes
    """Account id, 32 bytes."""
    close_delay: int
    """Seconds, at least what the registry asks for."""


class Payments:
    """Channels with all nodes. One instance per client."""

    def __init__(
        self,
        *,
        global_id: int,
        viewer: ChannelViewer,
        treasury: Treasury,
        ledger: Ledger,
        keys: ChannelKeys,
        config: PaymentConfig,
        clock: Callable[[], float],
        emit: Callable[[ClientEvent], None],
    ) -> None:
        self._global_id = global_id
        self._viewer = viewer
        self._treasury = treasury
        self._ledger = ledger
        self._keys = keys
        self._config = config
        self._clock = clock
        self._emit = emit
        self._locks: dict[bytes, asyncio.Lock] = {}
        self._confirmed: set[bytes] = set()

    async def channel(self, terms: ChannelTerms, worst: int) -> ChannelRow:
        """A funded channel with a node, with room for one more request of at most `worst` nanoton.

        Raises:
            SpendLimitError: `worst` is above the user's cap for one request.
            PaymentRefusedError: the node has refused enough channels; it gets no more deposits for now.
            PaymentError: the wallet cannot pay the deposit.
            UnavailableError: the chain did not show the channel in time; call again.
        """
        if worst > self._config.request_cap:
            raise SpendLimitError(
                "this request could cost more than payment.request_cap",
                details={"worst_case": worst, "cap": self._config.request_cap},
            )
        async with self._locks.setdefault(terms.node, asyncio.Lock()):
            row = await self._usable(terms.node)
            if row is None:
                row = await self._open(await durable(lambda: self._plan(terms, worst)))
            if row.pending_top_up:
                row = await self._top_up(row, row.pending_top_up)
            while (missing := _missing(row, worst)) > 0:
                row = await self._top_up(row, max(missing, self._config.deposit))
            return row

    def payment(self, row: ChannelRow, *, cap: int, price_limit: PriceList) -> payment_pb2.Payment:
        """The payment part of a request: identity, signed authorization up to `cap`, price limit."""
        authorization = Authorization(
            global_id=self._global_id,
            channel=row.id,
            cap=cap,
            valid_until=int(self._clock()) + self._config.authorization_seconds,
        )
        return payment_pb2.Payment(
            channel=payment_pb2.ChannelIdentity(initial_data=row.initial_data),
            authorization=sign_authorization(authorization, self._keys.key(row.node, row.salt)),
            price_limit=price_limit.to_proto(),
        )

    async def more_funds(self, id: bytes, worst: int) -> bool:
        """Top a channel up if the chain agrees with its node that a request of `worst` is not covered.

        False if it is covered: the node, which may say anything, has not seen the money yet.
        """
        row = await durable(lambda: self._ledger.channel(id))
        async with self._locks.setdefault(row.node, asyncio.Lock()):
            row = await self._refresh(await durable(lambda: self._ledger.channel(id)))
            if row.state != "open":
                self._confirmed.discard(id)
                return True  # the next try finds another channel, or opens one
            missing = _missing(row, worst)
            if missing <= 0 and not row.pending_top_up:
                return False
            await self._top_up(row, max(missing, self._config.deposit))
            return True

    async def top_up(self, id: bytes, amount: int) -> ChannelRow:
        """Add `amount` to an open channel. One of this amount that a crash left unfinished is this one."""
        row = await durable(lambda: self._ledger.channel(id))
        async with self._locks.setdefault(row.node, asyncio.Lock()):
            row = await self._refresh(row)
            if row.state != "open":
                raise PaymentError(
                    f"the channel is {row.state}", hint="a new one opens with the next request"
                )
            pending = row.pending_top_up
            if pending:
                row = await self._top_up(row, pending)
            return row if pending == amount else await self._top_up(row, amount)

    def give_up(self, id: bytes) -> None:
        """Stop using a channel that its node refuses; its money comes back by `Closing.advance`."""
        self._confirmed.discard(id)
        self._ledger.set_channel_state(id, "refused")

    async def _usable(self, node: bytes) -> ChannelRow | None:
        """The newest channel with a node that is open, or planned and then finished now."""
        for row in await durable(lambda: self._ledger.channels(node=node, states=("open", "planned"))):
            if row.state == "planned":
                return await self._open(row)
            if row.id in self._confirmed:
                return row
            refreshed = await self._refresh(row)
            if refreshed.state == "open":
                return refreshed
        return None

    def _plan(self, terms: ChannelTerms, worst: int) -> ChannelRow:
        """Record a new channel with a fresh salt."""
        since = int(self._clock()) - DAY_S
        refused = self._ledger.channels(node=terms.node, states=("refused",))
        if sum(row.created_at > since for row in refused) >= MAX_REFUSED:
            raise PaymentRefusedError(
                "the node refuses every channel that is opened with it",
                hint="close them with `cocoon wallet close`; their deposits come back",
            )
        salt = secrets.randbits(63)
        identity = ChannelIdentity(
            global_id=self._global_id,
            client=self._treasury.address,
            client_key=self._keys.public_key(terms.node, salt),
            node=channel_address(terms.node),
            salt=salt,
            close_delay=terms.close_delay,
        )
        id = bytes(identity.address.hash_part)
        self._ledger.plan_channel(
            id=id,
            node=terms.node,
            salt=salt,
            initial_data=identity.to_proto().initial_data,
            deposit=max(self._config.deposit, worst),
            now=int(self._clock()),
        )
        return self._ledger.channel(id)

    async def _open(self, row: ChannelRow) -> ChannelRow:
        """Deploy and fund a planned channel; may be called again after a crash."""
        identity = ChannelIdentity.from_proto(payment_pb2.ChannelIdentity(initial_data=row.initial_data))
        await self._treasury.pay(
            key=f"channel-open/{row.id.hex()}",
            to=channel_address(row.id),
            value=row.deposit + CHANNEL_RESERVE + MIN_MESSAGE_VALUE,
            body=top_up_body(),
            state_init=channel_state_init(identity),
        )
        await self._viewer.wait(row.id, lambda _: True)
        opened = await self._refresh(row)
        self._emit(ChannelOpened(channel=row.id.hex(), node=row.node.hex(), deposit=row.deposit))
        return opened

    async def _top_up(self, row: ChannelRow, amount: int) -> ChannelRow:
        """Add money. The ledger knows of it first, so a repeat after a crash is the same transfer."""
        if not row.pending_top_up:
            row = await durable(lambda: self._ledger.begin_top_up(row.id, amount))
        added = row.pending_top_up
        try:
            await self._treasury.pay(
                key=f"channel-top-up/{row.id.hex()}/{row.top_ups}",
                to=channel_address(row.id),
                value=added + MIN_MESSAGE_VALUE,
                body=top_up_body(),
            )
        except MessageFailedError:  # it is closing or closed; the money came back
            await durable(lambda: self._ledger.drop_top_up(row.id))
            raise
        row = await durable(lambda: self._ledger.finish_top_up(row.id))
        self._emit(ChannelToppedUp(channel=row.id.hex(), amount=added))
        return row

    async def _refresh(self, row: ChannelRow) -> ChannelRow:
        """Bring the ledger's row up to what the chain proves."""
        found = await self._viewer.look(row.id)
        if found is None and row.state == "open":
            # A channel that was seen open does not vanish: whoever answered lags behind.
            raise UnavailableError("the chain does not show an open channel", hint="try again in a minute")
        if found is None or found.status is ChannelStatus.CLOSED:
            self._confirmed.discard(row.id)
            await durable(lambda: self._ledger.set_channel_state(row.id, "closed"))
        elif found.status is ChannelStatus.CLOSING:
            self._confirmed.discard(row.id)
            await durable(lambda: self._ledger.set_channel_state(row.id, "closing"))
        else:
            deposit = max(0, found.balance + found.state.paid - CHANNEL_RESERVE)
            await durable(lambda: self._ledger.set_open(row.id, deposit))
            self._confirmed.add(row.id)
        return await durable(lambda: self._ledger.channel(row.id))


def _missing(row: ChannelRow, worst: int) -> int:
    """Nanoton to add before one more request of at most `worst` is covered."""
    return row.account.exposure + worst - row.deposit
