"""kill -9 in the middle of an answer, then the same state again: nothing lost, nothing charged twice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from enclave_testkit import Node  # type: ignore[import-not-found]

from cocoon.v1 import host_service_pb2
from cocoon_attestation.payment import parse_claim
from cocoon_enclave.config import EnclaveConfig
from cocoon_enclave.runtime import Ready

KIT = Path(__file__).with_name("enclave_testkit.py")


@asynccontextmanager
async def _process(config: EnclaveConfig) -> AsyncIterator[tuple[Any, asyncio.subprocess.Process]]:
    """A whole enclave in a process of its own."""
    file = config.state.parent / "enclave.toml"
    file.write_text(config.to_toml())
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(KIT), str(file), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 60)
        node = await Node.connect(config, Ready(**json.loads(line)))
        try:
            yield node, process
        finally:
            await node.close()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_kill_in_the_middle_of_an_answer(config: EnclaveConfig) -> None:
    async with _process(config) as (node, process):
        async with node.client() as client:
            done = (await client.ask("finished", max_tokens=8)).receipt
            number = await client.send(client.plain("never finished ", stream=True, max_tokens=400))
            while len(client.replies[number].texts) < 5:
                await client.receive()
            os.kill(process.pid, signal.SIGKILL)
            await process.wait()
            before = client
        assert done.index == 1
    async with _process(config) as (node, _):
        status = await node.host.GetStatus(host_service_pb2.GetStatusRequest())
        assert status.tree_size == 2
        assert status.anchor_by > 0
        claims = (await node.host.ListClaims(host_service_pb2.ListClaimsRequest())).claims
        claim = parse_claim(claims[0].claim.claim)
        assert claim.used == done.cumulative
        # The new enclave has new keys, but goes on counting where the proved claim ends.
        async with node.client(before.wallet) as after:
            assert after.verified.binding.hash != before.verified.binding.hash
            receipt = (await after.ask("again", max_tokens=2)).receipt
            assert receipt.index == 3
            assert receipt.cumulative == done.cumulative + (1 + 2) + (5 + 4)
            # What was sealed to the dead keys is unreadable now: it cannot be replayed.
            old = before.pending[number]
            after.pending[77], after.replies[77] = old, type(after.replies[1])()
            await after.write(_open(77, old.sealed))
            assert (await after.wait(77)).error == "sealing"


async def test_terminate_ends_cleanly_and_the_ready_line_is_json(config: EnclaveConfig) -> None:
    async with _process(config) as (node, process):
        assert node.ready.models == {"tiny": config.models[0].digest.hex()}
        assert node.ready.simulated
        process.terminate()
        await asyncio.wait_for(process.wait(), 20)


def _open(number: int, sealed: bytes) -> Any:
    from cocoon.v1 import inference_service_pb2 as wire

    return wire.RequestFrame(request_number=number, open=sealed)
