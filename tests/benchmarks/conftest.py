"""The benchmarks are scripts beside each other; tests import them as they import each other."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cocoon_attestation.errors import UnsupportedError
from cocoon_ton.emulator import find_sandbox

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))


@pytest.fixture(scope="session")
def sandbox() -> None:
    """Skip where the npm packages of the emulator are not installed."""
    try:
        find_sandbox()
    except UnsupportedError as error:
        pytest.skip(str(error))
