"""A20: what costs a client nothing must not stay in the enclave's memory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "enclave"))

from enclave_testkit import (  # type: ignore[import-not-found]
    GLOBAL_ID,
    NODE,
    Wallet,
    config,
    platform_dir,
    start_node,
    tiny_model,
)

from cocoon_attestation.payment import PriceList
from cocoon_enclave.errors import ChannelUnknownError
from cocoon_enclave.metering import Facts, Meter

__all__ = ["config", "platform_dir", "start_node", "tiny_model"]


async def test_a_deadline_in_the_far_future_is_refused_and_forgotten(start_node: Any) -> None:
    async with start_node() as (node, _), node.client() as client:
        guard = node.enclave.service.guard
        known = len(guard)
        for _ in range(3):
            assert (await client.ask("x", deadline_s=10**9)).status == 400
        assert len(guard) == known
        assert (await client.ask("x")).status == 200
        assert len(guard) == known + 1


def test_channels_that_do_not_exist_leave_nothing_behind() -> None:
    """Anybody can invent channels; the host looks each up and finds nothing."""
    meter = Meter(node=NODE, global_id=GLOBAL_ID, prices=PriceList(prompt=1, cached=1, completion=1))
    for salt in range(50):
        wallet = Wallet(salt=salt)
        for _ in range(2):
            try:
                meter.authorize(wallet.payment(), now=0)
            except ChannelUnknownError:
                pass
            else:
                raise AssertionError("admitted on a channel that does not exist")
            meter.set_facts(wallet.channel, Facts(balance=0, paid=0, close_at=0))
    assert not meter.wanted
    assert not meter._channels
