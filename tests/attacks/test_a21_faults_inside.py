"""A16, A21: faults inside, and strangers who cost nothing: others are served, no hang, no prompt logged."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "enclave"))

from enclave_testkit import (  # type: ignore[import-not-found]
    Wallet,
    config,
    platform_dir,
    start_node,
    tiny_model,
)

from cocoon_enclave.errors import NodeBusyError
from cocoon_enclave.public_service import MAX_WAITING

__all__ = ["config", "platform_dir", "start_node", "tiny_model"]


class _Faulty:
    """A decoder that fails as a library does, with the text in its message."""

    def push(self, token: int) -> str:
        raise RuntimeError("cannot decode CANARY-PROMPT")


async def test_a_fault_of_a_library_ends_the_request_at_once(
    start_node: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loop_errors: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: loop_errors.append(context))
    async with start_node() as (node, _), node.client() as client:
        service = node.enclave.service
        with monkeypatch.context() as patch, caplog.at_level(logging.DEBUG):
            patch.setattr(type(service.models["tiny"].text), "decoder", lambda _: _Faulty())
            reply = await client.ask("CANARY-PROMPT", max_tokens=100)
        assert reply.error == "engine"
        assert (service.active, service.meter.reserved) == (0, 0)
        assert (await client.ask("next")).status == 200
    assert not loop_errors
    assert "RuntimeError" in caplog.text
    assert "CANARY" not in caplog.text


async def test_requests_without_a_channel_do_not_take_all_places(start_node: Any) -> None:
    """They wait for the host to look their channel up; anybody can send them for nothing."""
    async with start_node() as (node, _), node.client() as client:
        limits = node.enclave.service.config.limits
        invented = [
            client.plain("free", payment=Wallet(salt=1000 + at).payment())
            for at in range(limits.requests_per_session - 2)
        ]
        for plain in invented:
            await client.send(plain)
        await asyncio.sleep(0.3)
        assert node.enclave.service._waiting <= limits.requests // 4
        assert (await client.ask("paid")).status == 200


async def test_a_crowd_that_asks_for_evidence_does_not_stop_key_rotation(start_node: Any) -> None:
    async with start_node() as (node, _):
        maker = node.enclave._evidence
        maker._waiting = MAX_WAITING
        with pytest.raises(NodeBusyError):
            await maker.make(challenge=b"c" * 32)
        assert await maker.make(challenge=b"c" * 32, keyset=node.enclave.service.keyring.current)
