"""The end of a channel, from the client's side: ask for the rest, wait, take it; notice what others did.

`Closing.advance` looks at proved chain state and does the one next step, so it may be called again after a
crash at any point, and by as many processes as there are. `Closing.watch` does the same for every channel
that has begun to close, whoever began it: a close of another process of this wallet, or a node that settled
for the last time. Amounts are nanoton; times are those of the chain, Unix seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cocoon_attestation.errors import CocoonError, UnavailableError
from cocoon_proxy.channel_view import ChannelViewer, OnChain, channel_address
from cocoon_proxy.events import ChannelClosed, ChannelClosing, ClientEvent
from cocoon_proxy.exchange import durable
from cocoon_proxy.ledger import ChannelRow, Ledger
from cocoon_ton.channel import MIN_MESSAGE_VALUE, ChannelStatus, finish_close_body, start_close_body
from cocoon_ton.treasury import Treasury

WATCH_S: Final = 30.0
"""Pause between two looks at the channels."""
_LOG = logging.getLogger("cocoon_proxy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Closure:
    """How far a close is."""

    state: str
    """``closing`` or ``closed``."""
    close_at: int
    """From when the rest can be taken; 0 if it was."""


class Closing:
    """Closes channels of one client."""

    def __init__(
        self,
        *,
        viewer: ChannelViewer,
        treasury: Treasury,
        ledger: Ledger,
        emit: Callable[[ClientEvent], None],
    ) -> None:
        self._viewer = viewer
        self._treasury = treasury
        self._ledger = ledger
        self._emit = emit
        self._told: set[bytes] = set()
        self._resumed = False
        self._lock = asyncio.Lock()

    async def advance(self, id: bytes) -> Closure:
        """Do the next step: start to close, or take the rest if it is time. Safe to repeat.

        Raises:
            PaymentError: the channel is unknown, or the wallet cannot pay for the message.
            UnavailableError: the chain did not show the effect in time; call again.
        """
        async with self._lock:
            await self._resume()
            row = await durable(lambda: self._ledger.channel(id))
            found = await self._look(row)
            if found is None:
                return await self._closed(row)
            return await self._next(row, found)

    async def watch(self) -> None:
        """Look at all channels once: note a close that was begun, take what is free, say so.

        Raises:
            CocoonError: the first thing that failed, after all channels were looked at.
        """
        failure: CocoonError | None = None
        async with self._lock:
            await self._resume()
        for row in await durable(lambda: self._ledger.channels(states=("open", "refused", "closing"))):
            try:
                async with self._lock:
                    found = await self._viewer.look(row.id)
                    if found is not None and (
                        found.status is not ChannelStatus.OPEN or row.state == "closing"
                    ):
                        await self._next(row, found)
            except CocoonError as error:
                failure = failure or error
        if failure is not None:
            raise failure

    async def run(self) -> None:
        """Repeat `watch` until cancelled; failures are logged and tried again."""
        while True:
            try:
                await self.watch()
            except CocoonError as error:
                _LOG.warning("watching channels: %s (%s)", error, error.code)
            await asyncio.sleep(WATCH_S)

    async def _resume(self) -> None:
        """Once: let the wallet finish what an earlier life of this program began."""
        if not self._resumed:
            await self._treasury.resume()
            self._resumed = True

    async def _look(self, row: ChannelRow) -> OnChain | None:
        """The channel on chain; None if it never came to be, so that there is nothing to take."""
        found = await self._viewer.look(row.id)
        if found is not None:
            return found
        if row.state != "planned":
            # A channel that was seen open does not vanish: whoever answered lags behind.
            raise UnavailableError("the chain does not show an open channel", hint="try again in a minute")
        return None  # its deposit was never sent: what was begun has been resumed

    async def _next(self, row: ChannelRow, found: OnChain) -> Closure:
        """Do what is next, and say where the close stands."""
        if found.status is ChannelStatus.CLOSED:
            return await self._closed(row)
        # First the intention: after a crash `watch` goes on with it, and no request uses the channel.
        await durable(lambda: self._ledger.set_channel_state(row.id, "closing"))
        if found.status is ChannelStatus.OPEN:
            await self._send("channel-close", row.id)
            found = await self._viewer.wait(row.id, lambda seen: seen.status is not ChannelStatus.OPEN)
            if found.status is ChannelStatus.CLOSED:
                return await self._closed(row)
        close_at = found.state.close_at
        if found.now < close_at:
            if row.id not in self._told:
                self._told.add(row.id)
                self._emit(ChannelClosing(channel=row.id.hex(), node=row.node.hex(), close_at=close_at))
            return Closure(state="closing", close_at=close_at)
        return await self._take(row, found.balance)

    async def _take(self, row: ChannelRow, rest: int) -> Closure:
        """Have the channel send its balance to the wallet."""
        await self._send("channel-finish", row.id)
        await self._viewer.wait(row.id, lambda seen: seen.status is ChannelStatus.CLOSED)
        return await self._closed(row, rest)

    async def _closed(self, row: ChannelRow, rest: int = 0) -> Closure:
        await durable(lambda: self._ledger.set_channel_state(row.id, "closed"))
        if row.state != "closed":
            self._emit(ChannelClosed(channel=row.id.hex(), node=row.node.hex(), returned=rest))
        return Closure(state="closed", close_at=0)

    async def _send(self, what: str, id: bytes) -> None:
        body = start_close_body() if what == "channel-close" else finish_close_body()
        await self._treasury.pay(
            key=f"{what}/{id.hex()}", to=channel_address(id), value=MIN_MESSAGE_VALUE, body=body
        )
