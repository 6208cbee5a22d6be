"""Fixtures of the enclave's tests; they live in `enclave_testkit`, which other directories use as well."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # also for processes that tests spawn

from enclave_testkit import (
    config,
    platform_dir,
    start_node,
    tiny_model,
)

__all__ = ["config", "platform_dir", "start_node", "tiny_model"]
