"""Fixtures of the client and the gateway: a network in this process (see harness.py)."""

from __future__ import annotations

import importlib.util
import secrets
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cocoon_enclave.attestation.simulated import DevPlatform

if TYPE_CHECKING:
    from tests.proxy.harness import FakeEnclave, Network


def load_harness() -> Any:
    """The harness module; tests are no package, so it is loaded by its path."""
    name = "cocoon_proxy_harness"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name("harness.py"))
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


@pytest.fixture(scope="session")
def harness() -> Any:
    """The harness module."""
    return load_harness()


@pytest.fixture(scope="session")
def platform() -> DevPlatform:
    """One simulated machine and its root, for all tests."""
    return DevPlatform.create(int(time.time()) - 86_400, secrets.token_bytes)


@pytest.fixture
async def network(harness: Any, platform: DevPlatform, tmp_path: Path) -> AsyncIterator[Network]:
    """A network without enclaves."""
    found = harness.Network(platform, tmp_path)
    yield found
    await found.stop()


@pytest.fixture
async def enclave(network: Network) -> FakeEnclave:
    """One enclave on the network."""
    return await network.add_enclave()
