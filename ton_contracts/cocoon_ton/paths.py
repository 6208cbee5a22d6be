"""Where Cocoon keeps its files. The only module that reads ``COCOON_HOME`` and ``COCOON_CACHE``.

========================  =====================================================================
``COCOON_HOME``           default ``~/.local/share/cocoon``: networks, development chain, wallets
``COCOON_CACHE``          default ``~/.cache/cocoon``: models, compiled wasm; safe to delete
========================  =====================================================================
"""

from __future__ import annotations

import os
from pathlib import Path


def home_dir() -> Path:
    """The directory of lasting data. Not created here."""
    return _directory("COCOON_HOME", Path(".local") / "share" / "cocoon")


def cache_dir() -> Path:
    """The directory of data that can be made again. Not created here."""
    return _directory("COCOON_CACHE", Path(".cache") / "cocoon")


def _directory(variable: str, below_home: Path) -> Path:
    value = os.environ.get(variable, "")
    return Path(value).expanduser().absolute() if value else Path.home() / below_home
