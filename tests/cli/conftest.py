"""Fixtures of the command line's tests; those with a running network come from ``tests/network/netkit.py``."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "network"))

if TYPE_CHECKING:
    from tests.network.netkit import Exchanged, InProcess, Running, Served, shared
else:
    from netkit import Exchanged, InProcess, Running, Served, shared


@pytest.fixture(scope="session")
def net(request: pytest.FixtureRequest) -> Running:
    """The shared network."""
    return shared(request.config)


@pytest.fixture(scope="session")
def served(net: Running) -> Iterator[Served]:
    """A gateway on the shared network, in the network's own home."""
    with net.gateway() as served:
        yield served


@pytest.fixture(scope="session")
def answers(served: Served) -> list[Exchanged]:
    """Two finished answers of the client in the network's home."""
    return [served.ask("Say hello.", max_tokens=4), served.ask("Say goodbye.", max_tokens=4)]


@pytest.fixture
def cocoon(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> InProcess:
    """Runs `cocoon` in this process, in an empty home."""
    monkeypatch.delenv("COCOON_NETWORK", raising=False)
    return InProcess(capsys, tmp_path / "home")


@pytest.fixture
def at_home(cocoon: InProcess, net: Running) -> InProcess:
    """Runs `cocoon` in this process, in the home of the shared network."""
    cocoon.home = net.home
    return cocoon


@pytest.fixture
def network_file(tmp_path: Path) -> Path:
    """A well-formed network whose one liteserver does not answer."""
    noise = base64.b64encode(b"\x07" * 32).decode()
    block = {"workchain": -1, "shard": -(1 << 63), "seqno": 5, "root_hash": noise, "file_hash": noise}
    server = {"ip": 2130706433, "port": 1, "id": {"@type": "pub.ed25519", "key": noise}}
    document = {
        "name": "far",
        "global_id": -217,
        "registry": "0:" + "11" * 32,
        "global_config": {"liteservers": [server], "validator": {"init_block": block}},
    }
    path = tmp_path / "far.json"
    path.write_text(json.dumps(document))
    return path
