"""The channels that the host looks at: those of its claims, and those that clients ask the enclave to use.

Clients may name any channel, so what does not exist is looked up once and not kept, and what is closed is
not looked up again.
"""

from __future__ import annotations

from collections.abc import Iterable

from cocoon_enclave.host.views import ChannelView, channel_view
from cocoon_ton.chain import ChainReader
from cocoon_ton.channel import ChannelIdentity


class ChannelBook:
    """What proved chain state said about channels the last time."""

    def __init__(self, chain: ChainReader) -> None:
        self._chain = chain
        self._kept: dict[bytes, ChannelIdentity] = {}
        self._closed: dict[bytes, ChannelView] = {}

    async def look(self, asked: Iterable[ChannelIdentity]) -> dict[bytes, ChannelView]:
        """Views, by account id, of the channels in `asked` and of all open ones that were asked for before.

        Raises:
            UnavailableError, RejectedError: the chain could not be read.
            MalformedError: an account is something else than a channel.
        """
        wanted = self._kept | {bytes(identity.address.hash_part): identity for identity in asked}
        head = await self._chain.head()
        views: dict[bytes, ChannelView] = {}
        for id, identity in wanted.items():
            views[id] = self._closed.get(id) or channel_view(
                identity, await self._chain.account(identity.address, head)
            )
        self._closed = {id: view for id, view in views.items() if view.closed}
        self._kept = {
            id: view.identity for id, view in views.items() if view.state is not None and not view.closed
        }
        return views
