"""Fixtures of the tests on a whole network; they live in `netkit`, which other directories use as well."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from tests.network.netkit import DemoRun, InProcess, Outcome, Running, Served, demo_run, shared
else:
    from netkit import DemoRun, InProcess, Outcome, Running, Served, demo_run, shared


@pytest.fixture(scope="session")
def net(request: pytest.FixtureRequest) -> Running:
    """The shared network."""
    return shared(request.config)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoRun:
    """One run of `cocoon demo --json`, as a process."""
    return demo_run(tmp_path_factory.mktemp("demo"))


@pytest.fixture(scope="session")
def served(net: Running) -> Iterator[Served]:
    """A gateway on the shared network, in the network's own home."""
    with net.gateway() as served:
        yield served


@pytest.fixture
def cocoon(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> InProcess:
    """Runs `cocoon` in this process, in an empty home."""
    monkeypatch.delenv("COCOON_NETWORK", raising=False)
    return InProcess(capsys, tmp_path / "home")


@pytest.fixture(scope="session")
def original(demo: DemoRun) -> bytes:
    """The demo's bundle."""
    assert demo.outcome.code == 0, demo.outcome.out + demo.outcome.err
    return Path(demo.outcome.json["bundle"]).read_bytes()


@pytest.fixture
def verify(demo: DemoRun, cocoon: InProcess, tmp_path: Path) -> Callable[[bytes], Outcome]:
    """Verify a document in this process, in the demo's home."""
    cocoon.home = demo.home
    file = tmp_path / "bundle.json"

    def run(data: bytes) -> Outcome:
        file.write_bytes(data)
        return cocoon("verify", "bundle", file, "--offline", "--json")

    return run
