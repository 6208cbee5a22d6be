"""The demo's gateway: `cocoon serve` as a process of its own, with its progress events read as they come."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from cocoon_attestation.errors import EngineError, UnavailableError
from cocoon_cli.processes import ManagedProcess


@dataclass(frozen=True, slots=True)
class Seen:
    """A progress event with the time it arrived."""

    at: float
    name: str
    body: dict[str, object]


@dataclass(slots=True)
class Answer:
    """One streamed answer. `raw` is exactly what the enclave sealed."""

    request: bytes
    raw: bytes = b""
    started: float = 0.0
    first: float = 0.0
    ended: float = 0.0
    pieces: list[str] = field(default_factory=list)


class DemoGateway:
    """Talks to a started `cocoon serve --events`."""

    def __init__(self, process: ManagedProcess, ready: dict[str, object]) -> None:
        self.base_url = str(ready["base_url"])
        self._seen: list[Seen] = []
        self._reader = threading.Thread(target=self._read, args=(process.stdout_fd(),), daemon=True)
        self._reader.start()

    def _read(self, descriptor: int) -> None:
        with os.fdopen(os.dup(descriptor), encoding="utf-8") as stream:
            for line in stream:
                try:
                    body = json.loads(line)
                except ValueError:
                    continue
                self._seen.append(Seen(time.monotonic(), str(body.pop("event", "")), body))

    def event(self, name: str, *, within: float = 30.0) -> Seen:
        """The first event of this name. Raises `UnavailableError` if it does not come."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            for seen in list(self._seen):
                if seen.name == name:
                    return seen
            time.sleep(0.01)
        raise UnavailableError(f"the gateway did not report {name}")

    def ask(self, request: bytes, answer: Answer) -> Iterator[str]:
        """Stream one chat completion; yields pieces of text and fills `answer`."""
        answer.started = time.monotonic()
        headers = {"content-type": "application/json", "x-cocoon-raw": "1"}
        url = f"{self.base_url}/chat/completions"
        with (
            httpx.Client(timeout=120, trust_env=False) as client,
            client.stream("POST", url, content=request, headers=headers) as response,
        ):
            if response.status_code != 200:
                response.read()
                raise EngineError(f"the gateway answered {response.status_code}: {response.text[:300]}")
            buffer = b""
            for chunk in response.iter_raw():
                answer.raw += chunk
                *blocks, buffer = (buffer + chunk).split(b"\n\n")
                for block in blocks:
                    if piece := _content(block):
                        answer.first = answer.first or time.monotonic()
                        answer.pieces.append(piece)
                        yield piece
        answer.ended = time.monotonic()


def _content(block: bytes) -> str:
    if not block.startswith(b"data: {"):
        return ""
    document = json.loads(block[6:])
    if "error" in document:
        raise EngineError(str(document["error"].get("message")))
    choices = document.get("choices") or [{}]
    return str(choices[0].get("delta", {}).get("content") or "")


def save_exchange(directory: Path, answer: Answer) -> tuple[Path, Path]:
    """Write the exact request and response bodies next to the bundle."""
    request, response = directory / "request.json", directory / "response.txt"
    request.write_bytes(answer.request)
    response.write_bytes(answer.raw)
    return request, response
