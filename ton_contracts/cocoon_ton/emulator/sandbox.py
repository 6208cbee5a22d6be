"""The npm package ``@ton/sandbox``: where it lies, and what is read from it.

Only data is read: the emulator wasm (a base64 string in a JavaScript file), the names of its imports
and exports (minified differently in each release, so they are taken from the JavaScript glue beside
it), and two blockchain configurations. Node never runs. The wasm must have the pinned SHA-256.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from cocoon_attestation.errors import UnsupportedError
from cocoon_ton.paths import cache_dir

PINNED_VERSION: Final = "0.41.0"
PINNED_WASM_SHA256: Final = "0c17fcac030b6871e96cc34d002223e5fb839af00c5b96cc461fbf9e71b0e75a"

HINT: Final = "run `make setup` (npm ci in ton_contracts)"
_IMPORTS = re.compile(r"wasmImports=\{([^}]*)\}")
_EXPORTS = re.compile(r'([\w$]+)=(?:Module\["[\w$]+"\]=|wasmTable=|wasmMemory=)*wasmExports\["([\w$]+)"\]')
_INIT = re.compile(r'TTY\.init\(\);wasmExports\["([\w$]+)"\]\(\)')
_BASE64 = re.compile(r"'([A-Za-z0-9+/=]{100000,})'")
_CONFIG = re.compile(r"`([A-Za-z0-9+/=\s]{100,})`")

ConfigName = Literal["slim", "default"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """The parts of one installed ``@ton/sandbox``.

    `imports` maps the minified import name to the emscripten name, `exports` the emscripten name to
    the minified export name. `init` is the export that runs the C++ constructors.
    """

    version: str
    wasm: bytes
    wasm_sha256: str
    imports: Mapping[str, str]
    exports: Mapping[str, str]
    init: str
    configs: Mapping[str, bytes]

    def config(self, name: str) -> bytes:
        """BoC of a blockchain configuration dictionary: `slim` (1.5 kB) or `default` (115 kB)."""
        return self.configs[name]


def sandbox_locations() -> tuple[Path, ...]:
    """The directories that are searched, in order. None depends on the environment but the cache."""
    contracts = Path(__file__).resolve().parents[2]
    return (contracts / "node_modules" / "@ton" / "sandbox", cache_dir() / "sandbox")


def find_sandbox() -> Path:
    """Directory of the installed package. Raises UnsupportedError where there is none."""
    for directory in sandbox_locations():
        if (directory / "package.json").is_file():
            return directory
    raise UnsupportedError("the TON emulator (@ton/sandbox) is not installed", hint=HINT)


@lru_cache(maxsize=2)
def load_sandbox(directory: Path | None = None) -> Sandbox:
    """Read and check the package. Raises UnsupportedError where it is absent or another version."""
    root = directory or find_sandbox()
    try:
        version = str(json.loads((root / "package.json").read_text("utf-8"))["version"])
        glue = (root / "dist/executor/emulator-emscripten.js").read_text("utf-8")
        packed = (root / "dist/executor/emulator-emscripten.wasm.js").read_text("ascii")
        configs = {
            name: _config((root / f"dist/config/{name}Config.js").read_text("ascii"))
            for name in ("slim", "default")
        }
        wasm = base64.b64decode(_one(_BASE64, packed), validate=True)
        imports, exports = _names(glue)
        init = _one(_INIT, glue)
    except (OSError, ValueError, KeyError, binascii.Error) as error:
        raise UnsupportedError(f"unreadable @ton/sandbox in {root}: {error}", hint=HINT) from error
    digest = hashlib.sha256(wasm).hexdigest()
    if digest != PINNED_WASM_SHA256:
        raise UnsupportedError(
            f"@ton/sandbox {version} has an unknown emulator (sha256 {digest}), expected {PINNED_VERSION}",
            hint=HINT,
        )
    return Sandbox(
        version=version,
        wasm=wasm,
        wasm_sha256=digest,
        imports=MappingProxyType(imports),
        exports=MappingProxyType(exports),
        init=init,
        configs=MappingProxyType(configs),
    )


def _names(glue: str) -> tuple[dict[str, str], dict[str, str]]:
    imports = dict(pair.split(":", 1) for pair in _one(_IMPORTS, glue).split(","))
    exports: dict[str, str] = dict(_EXPORTS.findall(glue))
    return imports, exports


def _config(source: str) -> bytes:
    return base64.b64decode("".join(_one(_CONFIG, source).split()), validate=True)


def _one(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.findall(text)
    if len(found) != 1:
        raise ValueError(f"{len(found)} matches of {pattern.pattern}")
    return str(found[0])
