"""Probes and metrics over HTTP, and that nothing anywhere shows what was asked."""

from __future__ import annotations

import asyncio
import logging
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from cocoon.v1 import host_service_pb2

CANARY = "canary-7f3a-prompt"


async def _get(port: int, path: str) -> tuple[int, str]:
    def fetch() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    return await asyncio.to_thread(fetch)


async def test_probes(start_node: Any) -> None:
    async with start_node() as (node, engine):
        port = node.ready.health_port
        assert await _get(port, "/livez") == (200, "ok\n")
        assert await _get(port, "/readyz") == (200, "ok\n")
        assert (await _get(port, "/other"))[0] == 404
        engine.ready = False
        assert (await _get(port, "/readyz"))[0] == 503
        engine.ready = True
        await node.host.SetTerms(host_service_pb2.SetTermsRequest(drain=True))
        assert (await _get(port, "/readyz"))[0] == 503
        assert (await _get(port, "/livez"))[0] == 200


async def test_metrics_count_and_name_nobody(start_node: Any) -> None:
    async with start_node() as (node, _), node.client() as client:
        await client.ask("hello", stream=True)
        await client.ask(model="other")
        status, text = await _get(node.ready.health_port, "/metrics")
        assert status == 200
        assert 'cocoon_requests_total{status="2xx"} 2.0' in text
        assert 'cocoon_requests_total{status="4xx"} 1.0' in text
        assert 'cocoon_tokens_total{kind="completion"} 6.0' in text
        assert "cocoon_log_receipts 3.0" in text
        assert client.wallet.channel.hex() not in text
        labels = {line.split("{")[1].split("=")[0] for line in text.splitlines() if "{" in line}
        assert labels <= {"status", "kind", "le"}


async def test_no_log_file_metric_or_message_shows_content(
    start_node: Any, config: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    async with start_node() as (node, engine), node.client() as client:
        assert CANARY in "".join((await client.ask(CANARY, stream=True)).texts)
        await client.ask(model=CANARY)
        await client.ask(body=f'{{"{CANARY}": '.encode())
        await client.ask(body=f'{{"model": "tiny", "messages": [{{"role": "{CANARY}"}}]}}'.encode())
        engine.crash_after = 4
        await client.ask(CANARY, stream=True)
        engine.crash_after, engine.repeat, engine.step_s = None, 50, 0.01
        number = await client.send(client.plain(CANARY, stream=True, max_tokens=200))
        while len(client.replies[number].texts) < 3:
            await client.receive()
        await client.cancel(number)
        await client.wait(number)
        status = await node.host.GetStatus(host_service_pb2.GetStatusRequest())
        shown = [str(status), (await _get(node.ready.health_port, "/metrics"))[1]]
    shown += [caplog.text, *capfd.readouterr()]
    needles = (CANARY.encode(), CANARY.encode().hex().encode())
    for path, data in _files(config.state):
        assert not any(needle in data for needle in needles), path
    assert not any(CANARY in text for text in shown)


def _files(directory: Path) -> list[tuple[Path, bytes]]:
    return [(path, path.read_bytes()) for path in directory.rglob("*") if path.is_file()]
