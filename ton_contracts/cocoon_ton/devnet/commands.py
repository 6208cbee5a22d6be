"""What the commands of the control port do. Each takes a request (JSON object) and returns an answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from pytoniq_core import Address

if TYPE_CHECKING:
    from cocoon_ton.devnet.endpoint import Endpoint
    from cocoon_ton.devnet.network import Devnet

Command = Callable[[dict[str, Any]], Awaitable[dict[str, object]]]
MAX_TICKS: Final = 1000


def commands(net: Devnet) -> Mapping[str, Command]:
    """The commands by name. They raise ValueError, KeyError or TypeError for arguments that do not fit."""

    async def status(_request: dict[str, Any]) -> dict[str, object]:
        return {
            "seqno": net.chain.master.seqno,
            "now": net.chain.now(),
            "has_work": net.chain.has_work,
            "port": net.port,
            "global_id": net.global_id,
            "liteservers": [_state(net, server) for server in net.liteservers],
            "snapshots": net.snapshots.names(),
        }

    async def tick(request: dict[str, Any]) -> dict[str, object]:
        return {"seqno": net.tick(min(int(request.get("count", 1)), MAX_TICKS)).seqno}

    async def warp(request: dict[str, Any]) -> dict[str, object]:
        return {"seqno": net.warp(int(request["seconds"])).seqno, "now": net.chain.now()}

    async def fund(request: dict[str, Any]) -> dict[str, object]:
        return {"seqno": net.fund(_address(str(request["address"])), int(request["amount"])).seqno}

    async def faults(request: dict[str, Any]) -> dict[str, object]:
        number = _number(net, request)
        server, switches = net.liteservers[number], request.get("set", {})
        if not isinstance(switches, dict):
            raise TypeError("the switches are an object")
        wanted = dict(switches)
        fork = wanted.pop("fork", None)
        if fork not in (None, True, False):
            raise ValueError("fork is true or false")
        if request.get("clear", False):
            server.faults.clear()
            net.join(number)
        server.faults.apply(wanted)
        if fork is not None:
            (net.fork if fork else net.join)(number)
        return _state(net, server)

    async def save(request: dict[str, Any]) -> dict[str, object]:
        net.save(str(request["name"]))
        return {"seqno": net.chain.master.seqno, "snapshots": net.snapshots.names()}

    async def restore(request: dict[str, Any]) -> dict[str, object]:
        return {"seqno": net.restore(str(request["name"])).seqno, "now": net.chain.now()}

    async def forget(request: dict[str, Any]) -> dict[str, object]:
        net.snapshots.remove(str(request["name"]))
        return {"snapshots": net.snapshots.names()}

    made = (status, tick, warp, fund, faults, save, restore, forget)
    return {command.__name__: command for command in made}


def _state(net: Devnet, server: Endpoint) -> dict[str, object]:
    """A liteserver: its port, and the switches that are on."""
    forked = ["fork"] if server.chain is not net.chain else []
    return {"port": server.port, "faults": server.faults.active() + forked}


def _number(net: Devnet, request: dict[str, Any]) -> int:
    number = int(request.get("server", 0))
    if not 0 <= number < len(net.liteservers):
        raise ValueError("no such liteserver")
    return number


def _address(text: str) -> Address:
    try:
        return Address(text)
    except Exception as error:  # pytoniq-core raises whatever it meets
        raise ValueError("not an address") from error
