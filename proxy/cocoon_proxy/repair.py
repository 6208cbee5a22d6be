"""What the client does about a refusal that cost nothing: wait, pay, renew, or pass it on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cocoon_proxy.discovery import Directory
from cocoon_proxy.errors import NodeBusyError, PaymentRefusedError, RequestRefusedError
from cocoon_proxy.exchange import NodeRefusal, durable
from cocoon_proxy.ledger import ChannelRow
from cocoon_proxy.payments import Payments
from cocoon_proxy.pool import NodePool

_WAIT_FIRST_S: Final = 0.5
_WAIT_LAST_S: Final = 3.0
_BUSY: Final = frozenset({"node_busy", "node_draining", "engine_crashed", "store"})
_PAYMENT: Final = frozenset({"authorization_refused", "cap_too_low", "channel_unusable"})


@dataclass(slots=True, kw_only=True)
class Repair:
    """Removes the reason of a refusal without charge, or raises what the caller should do instead."""

    directory: Directory
    pool: NodePool
    payments: Payments
    clock: Callable[[], float]
    end: float
    """Time after which waiting stops."""
    wait_s: float = _WAIT_FIRST_S
    topped_up: bool = False
    replaced: bool = False
    relinked: bool = False

    async def __call__(self, refusal: NodeRefusal, channel: ChannelRow, worst: int) -> None:
        """Return when the same node may be asked again; `worst` is what the request may cost, in nanoton."""
        code, message = refusal.code, str(refusal) or refusal.code
        match code:
            case "channel_unknown":
                await self._wait(message)
            case "balance_too_low" if not self.topped_up:
                self.topped_up = await self.payments.more_funds(channel.id, worst)
                if not self.topped_up:
                    await self._wait(message)
            case "balance_too_low":
                await self._wait(message)
            case "channel_unusable" if not self.replaced:
                self.replaced = True
                await durable(lambda: self.payments.give_up(channel.id))
            case "sealing" if not self.relinked:
                # The node's keys changed since they were appraised: nothing was opened.
                self.relinked = True
                self.pool.renew(channel.node, "the node's keys changed")
            case "price_above_limit":
                self.directory.invalidate()
                raise PaymentRefusedError(message)
            case _ if code in _PAYMENT:
                raise PaymentRefusedError(message)
            case _ if code in _BUSY:
                raise NodeBusyError(message)
            case _:
                raise RequestRefusedError(
                    f"the node refused the request: {message}", details={"node_code": code}
                )

    async def _wait(self, message: str) -> None:
        if self.clock() + self.wait_s > self.end:
            raise PaymentRefusedError(message, details={"node": "has not seen the channel"})
        await asyncio.sleep(self.wait_s)
        self.wait_s = min(_WAIT_LAST_S, self.wait_s * 1.5)
