"""Compiled emulator modules, kept in ``cache_dir()/wasm``.

A compiled module is machine code, so a cached file is used only if it belongs to this user and nobody
else may write it. Files are named by the SHA-256 of their source, the wasmtime version and the
platform, and appear atomically.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import stat
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import wasmtime

from cocoon_attestation.errors import UnsupportedError
from cocoon_ton.emulator import shim
from cocoon_ton.emulator.sandbox import Sandbox
from cocoon_ton.paths import cache_dir


@dataclass(frozen=True, slots=True, kw_only=True)
class Modules:
    """The emulator and its two glue modules, compiled for one engine."""

    engine: wasmtime.Engine
    main: wasmtime.Module
    invoke: wasmtime.Module
    table: wasmtime.Module


@lru_cache(maxsize=1)
def _engine() -> wasmtime.Engine:
    config = wasmtime.Config()
    config.wasm_exceptions = True
    config.max_wasm_stack = 1_900_000  # the engine refuses 2 MB and more
    return wasmtime.Engine(config)


def compile_modules(sandbox: Sandbox, directory: Path | None = None) -> Modules:
    """Compile, or load from the cache (3 s against 1 ms)."""
    engine = _engine()
    cache = directory or cache_dir() / "wasm"
    main = _cached(engine, cache, sandbox.wasm)
    invoke = _cached(engine, cache, shim.invoke_wat(_invoke_signatures(main, sandbox)).encode())
    table = _cached(engine, cache, shim.table_wat().encode())
    return Modules(engine=engine, main=main, invoke=invoke, table=table)


def _invoke_signatures(main: wasmtime.Module, sandbox: Sandbox) -> dict[str, tuple[list[str], list[str]]]:
    signatures = {}
    for item in main.imports:
        name, kind = item.name, item.type
        if name is None or not isinstance(kind, wasmtime.FuncType) or name not in sandbox.imports:
            raise UnsupportedError(f"the emulator imports {name}, which its glue does not name")
        if sandbox.imports[name].startswith("invoke_"):
            signatures[name] = ([str(t) for t in kind.params], [str(t) for t in kind.results])
    return signatures


def _cached(engine: wasmtime.Engine, directory: Path, source: bytes) -> wasmtime.Module:
    digest = hashlib.sha256(source).hexdigest()
    path = directory / f"{digest}-{version('wasmtime')}-{platform.system()}-{platform.machine()}.cwasm"
    if _is_private(path):
        with contextlib.suppress(wasmtime.WasmtimeError):  # another CPU or engine: compile again
            return wasmtime.Module.deserialize_file(engine, str(path))
    module = wasmtime.Module(engine, source if source.startswith(b"\0asm") else source.decode())
    with contextlib.suppress(OSError):  # a read-only cache costs time, not function
        _write_private(path, bytes(module.serialize()))
    return module


def _is_private(path: Path) -> bool:
    try:
        for checked in (path, path.parent):
            status = checked.stat()
            if hasattr(os, "getuid") and status.st_uid != os.getuid():
                return False
            if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                return False
    except OSError:
        return False
    return True


def _write_private(path: Path, content: bytes) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
