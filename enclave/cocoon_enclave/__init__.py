"""The enclave: runs models on sealed requests, meters, signs receipts, and proves what it is.

Start with `cocoon_enclave.runtime.Enclave`; one request's way is `session`, `exchange`, `engine`, `log`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cocoon_enclave.attestation.attester import Attester
    from cocoon_enclave.config import EnclaveConfig, load_config
    from cocoon_enclave.engine.protocol import Engine
    from cocoon_enclave.runtime import Enclave

_HOME = {
    "Attester": "cocoon_enclave.attestation.attester",
    "Enclave": "cocoon_enclave.runtime",
    "EnclaveConfig": "cocoon_enclave.config",
    "Engine": "cocoon_enclave.engine.protocol",
    "load_config": "cocoon_enclave.config",
}

__all__ = ["Attester", "Enclave", "EnclaveConfig", "Engine", "load_config"]


def __getattr__(name: str) -> object:
    """Import a public name from its module on first use, so that importing the package costs nothing."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
