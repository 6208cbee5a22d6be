"""The control port: a few commands for tests and the command line, from this machine and user only.

TCP on 127.0.0.1. One JSON object per line in, one out. Every request carries the token that stands,
with the port, in ``control.json`` (mode 0600) in the chain's directory.

The commands are in ``commands.py``; ``docs/spec/devnet.md`` lists them.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cocoon_attestation.errors import CocoonError, ConfigError, MalformedError, UnavailableError
from cocoon_ton.devnet.commands import Command

CONTROL_FILE: Final = "control.json"
MAX_LINE: Final = 65536


class ControlServer:
    """Serves `commands` (name to function) to holders of `token`."""

    def __init__(self, token: str, commands: Mapping[str, Command]) -> None:
        self._token = token
        self._commands = commands
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """Begin to listen; returns the port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=MAX_LINE)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(30):
                answer = await self._answer(await reader.readline())
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (OSError, ValueError, TimeoutError):
            pass  # the client left, or sent too much
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> dict[str, object]:
        try:
            request = json.loads(line)
            token, name = str(request["token"]), str(request["command"])
        except (ValueError, KeyError, TypeError):
            return MalformedError("not a control request").to_dict()
        if not hmac.compare_digest(token.encode(), self._token.encode()) or name not in self._commands:
            return MalformedError("wrong token or unknown command").to_dict()
        try:
            return {"ok": True, **await self._commands[name](request)}
        except CocoonError as error:
            return error.to_dict()
        except (ValueError, KeyError, TypeError):
            return MalformedError(f"wrong arguments for {name}").to_dict()


async def send_command(directory: Path, command: str, **arguments: object) -> dict[str, Any]:
    """Send a command to the chain that runs in `directory`.

    Raises UnavailableError if none runs there, ConfigError or MalformedError if it refuses the command.
    """
    try:
        where = json.loads((directory / CONTROL_FILE).read_text("utf-8"))
        reader, writer = await asyncio.open_connection("127.0.0.1", int(where["port"]))
    except (OSError, ValueError, KeyError) as error:
        raise UnavailableError(f"no development chain runs in {directory}") from error
    try:
        request = {"token": where["token"], "command": command, **arguments}
        writer.write(json.dumps(request).encode() + b"\n")
        await writer.drain()
        answer: dict[str, Any] = json.loads(await reader.readline() or b"{}")
    except (OSError, ValueError) as error:
        raise UnavailableError("the development chain did not answer") from error
    finally:
        writer.close()
    if not answer.pop("ok", False):
        kind = ConfigError if answer.get("code") == ConfigError.code else MalformedError
        message = str(answer.get("message", "the command was refused"))
        raise kind(message, hint=str(answer.get("hint") or ""))
    return answer
