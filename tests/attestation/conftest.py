"""Fixtures for vendor evidence: the shared samples, and simulated vendors."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cocoon_enclave.attestation.simulated_gpu import SimulatedNvidia
from cocoon_enclave.attestation.simulated_gpu_pki import seeded_random
from cocoon_enclave.attestation.simulated_snp import SimulatedAmd

VENDOR_NOW = 1_800_000_000


def _samples_directory() -> Path:
    """The folder of real samples: `COCOON_TEST_VECTORS`, or ``shared/vectors`` beside the checkout."""
    named = os.environ.get("COCOON_TEST_VECTORS")
    return Path(named) if named else Path(__file__).resolve().parents[3] / "shared" / "vectors"


class Samples:
    """Real evidence published by others; it is read in place and never copied here."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.index: dict[str, list[dict[str, Any]]] = json.loads(self.read("INDEX.json"))

    def read(self, name: str) -> bytes:
        """The bytes of one file."""
        return (self.directory / name).read_bytes()

    def entry(self, category: str, name: str) -> dict[str, Any]:
        """The entry of a sample in the index."""
        return next(entry for entry in self.index[category] if entry["id"] == name)


@pytest.fixture(scope="session")
def samples() -> Samples:
    """The real samples, or a skip where they are not at hand."""
    directory = _samples_directory()
    if not (directory / "INDEX.json").is_file():
        pytest.skip("the real samples are not on this machine (set COCOON_TEST_VECTORS)")
    return Samples(directory)


@pytest.fixture(scope="session")
def amd() -> SimulatedAmd:
    """A simulated AMD for Genoa."""
    return SimulatedAmd(now=VENDOR_NOW, rng=seeded_random(b"test amd"))


@pytest.fixture(scope="session")
def nvidia() -> SimulatedNvidia:
    """A simulated NVIDIA for Hopper."""
    return SimulatedNvidia(now=VENDOR_NOW, rng=seeded_random(b"test nvidia"))


@pytest.fixture(scope="session")
def flips() -> Callable[[bytes, int], list[tuple[int, bytes]]]:
    """Copies of some bytes with one bit changed, at every `stride`-th offset."""

    def make(data: bytes, stride: int) -> list[tuple[int, bytes]]:
        changed = []
        for offset in range(0, len(data), stride):
            bit = 1 << hashlib.sha256(offset.to_bytes(4, "big")).digest()[0] % 8
            copy = bytearray(data)
            copy[offset] ^= bit
            changed.append((offset, bytes(copy)))
        return changed

    return make
