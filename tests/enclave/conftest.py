"""Fixtures of the enclave's tests; they live in `enclave_testkit`, which other directories use as well."""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Before anything imports torch: threads that spin while they wait starve everything else here.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

sys.path.insert(0, str(Path(__file__).parent))  # also for processes that tests spawn

from enclave_testkit import (  # type: ignore[import-not-found]
    config,
    platform_dir,
    start_node,
    tiny_model,
)

__all__ = ["config", "platform_dir", "start_node", "tiny_model"]
