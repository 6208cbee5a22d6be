"""Named copies of a chain, to return to. On disk beside the chain, or in memory with it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from cocoon_attestation.errors import ConfigError
from cocoon_ton.devnet.store import Store

FOLDER: Final = "snapshots"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_SUFFIX: Final = ".sqlite"


def check_name(name: str) -> str:
    """The name of a snapshot: letters, digits, ``_``, ``.`` and ``-``, at most 64. Raises ConfigError."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{name!r} is no name for a snapshot", hint="use letters, digits, _ . and -")
    return name


class Snapshots:
    """Snapshots of the chain in `store`. `directory` None: they live and die with this object."""

    def __init__(self, store: Store, directory: Path | None) -> None:
        self._store = store
        self._folder = None if directory is None else directory / FOLDER
        self._memory: dict[str, Store] = {}

    def names(self) -> list[str]:
        """All names, sorted."""
        if self._folder is None:
            return sorted(self._memory)
        return sorted(path.name.removesuffix(_SUFFIX) for path in self._folder.glob(f"[!.]*{_SUFFIX}"))

    def save(self, name: str) -> None:
        """Copy the chain as it is now; an earlier snapshot of that name is replaced."""
        check_name(name)
        if self._folder is None:
            copy = Store(None)
            self._store.copy_into(copy)
            self._memory[name] = copy
            return
        self._folder.mkdir(mode=0o700, exist_ok=True)
        part = self._folder / f".{name}.{os.getpid()}"
        part.unlink(missing_ok=True)  # of a save that was interrupted
        self._store.copy_to(part)
        part.chmod(0o600)
        part.replace(self._path(name))

    def restore(self, name: str) -> None:
        """Put the chain in `store` back to the snapshot; its owner has to read it anew.

        Raises ConfigError for an unknown name, ConfigError for a file that holds another chain.
        """
        if self._folder is None:
            copy = self._memory.get(check_name(name))
            if copy is None:
                raise self._unknown(name)
            copy.copy_into(self._store)
            return
        path = self._path(check_name(name))
        if not path.is_file():
            raise self._unknown(name)
        saved = Store(path)
        try:
            for key in ("validator", "global_id", "config"):
                if saved.get_meta(key) != self._store.get_meta(key):
                    raise ConfigError(f"snapshot {name!r} is of another chain")
            saved.copy_into(self._store)
        finally:
            saved.close()

    def remove(self, name: str) -> None:
        """Forget a snapshot. Raises ConfigError for an unknown name."""
        if check_name(name) not in self.names():
            raise self._unknown(name)
        if self._folder is None:
            self._memory.pop(name).close()
        else:
            self._path(name).unlink()

    def close(self) -> None:
        """Give up what is in memory."""
        for copy in self._memory.values():
            copy.close()
        self._memory.clear()

    def _path(self, name: str) -> Path:
        if self._folder is None:
            raise ConfigError("a chain in memory has no files")
        return self._folder / f"{name}{_SUFFIX}"

    def _unknown(self, name: str) -> ConfigError:
        known = ", ".join(self.names()) or "none"
        return ConfigError(f"there is no snapshot {name!r}", hint=f"known: {known}")
