"""Which network this is: TON's global configuration, the registry, and what a development network adds.

One JSON file per network, format in ``docs/spec/ledger-client.md#network-file``. The masterchain block
named by ``validator.init_block`` of the global configuration is the trust anchor: all proofs start there.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pytoniq_core import Address

from cocoon_attestation.errors import ConfigError, MalformedError
from cocoon_ton.address import friendly_address, parse_address
from cocoon_ton.paths import home_dir
from cocoon_ton.values import FULL_SHARD, MASTERCHAIN, BlockId

_T = TypeVar("_T")

MAINNET_GLOBAL_ID = -239
TESTNET_GLOBAL_ID = -3
_EXPLORERS = {
    MAINNET_GLOBAL_ID: "https://tonviewer.com/{address}",
    TESTNET_GLOBAL_ID: "https://testnet.tonviewer.com/{address}",
}
"""Where people look at accounts, if the network file names no other place."""
_MAX_FILE = 4 << 20
_EXPLORER = re.compile(r"https://[a-z0-9.-]+/[A-Za-z0-9/_.?=&%-]*\{address\}[A-Za-z0-9/_.?=&%-]*")
_FIELDS = frozenset(
    {"name", "global_id", "registry", "global_config", "dev_root", "simulated", "faucet", "explorer"}
)
_REQUIRED = frozenset({"name", "global_id", "registry", "global_config"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Liteserver:
    """Address of one liteserver."""

    host: str
    """IPv4 address in dotted form."""
    port: int
    public_key: bytes
    """Ed25519, 32 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """One network.

    Raises `ConfigError` at construction if the parts contradict each other; a simulated network and a
    development root are refused on mainnet.
    """

    name: str
    global_id: int
    """TON network id: -239 mainnet, -3 testnet."""
    registry: str
    """Address of the registry, raw or user-friendly; empty until it is deployed."""
    global_config: dict[str, Any]
    """TON's ``global.config.json``: liteservers and ``validator.init_block``."""
    dev_root: bytes | None = None
    """DER certificate of a development root for simulated TEEs."""
    simulated: bool = False
    faucet: dict[str, Any] | None = field(default=None, repr=False)
    """Development only: ``seed`` (hex) or ``mnemonic`` of a funded wallet and its ``wallet`` version."""
    explorer: str | None = None
    """Page of an account at a block explorer, with ``{address}`` in it; None: the known one of mainnet and
    testnet, none elsewhere. Shown to people only; nothing is read from there."""

    def __post_init__(self) -> None:
        if not self.name or not all(c.isalnum() or c in "-_." for c in self.name) or self.name[0] == ".":
            raise ConfigError(f"network name {self.name!r}: use letters, digits, '-', '_' and '.'")
        if not -(1 << 31) <= self.global_id < 1 << 31:
            raise ConfigError(f"global_id {self.global_id} is not a 32-bit number")
        if self.global_id == MAINNET_GLOBAL_ID and (self.simulated or self.dev_root or self.faucet):
            raise ConfigError("a development root, faucet or simulation is refused on mainnet")
        if self.explorer is not None and not _EXPLORER.fullmatch(self.explorer):
            raise ConfigError("explorer: an https address with {address} in it is needed")
        if self.registry:
            _registry(self.registry)
        _init_block(self.global_config)
        _liteservers(self.global_config)

    @property
    def test_only(self) -> bool:
        """Whether user-friendly addresses carry the test flag."""
        return self.global_id != MAINNET_GLOBAL_ID

    def explorer_link(self, address: Address) -> str:
        """The page of an account at a block explorer; empty if the network has none."""
        pattern = self.explorer or _EXPLORERS.get(self.global_id, "")
        shown = friendly_address(address, bounceable=True, test_only=self.test_only)
        return pattern.replace("{address}", shown)

    @property
    def registry_address(self) -> Address:
        """The registry. Raises `ConfigError` while the network has none."""
        if not self.registry:
            raise ConfigError(f"network {self.name!r} has no registry address yet")
        return _registry(self.registry)

    @property
    def init_block(self) -> BlockId:
        """The pinned masterchain block that every proof starts from."""
        return _init_block(self.global_config)

    @property
    def zero_state(self) -> BlockId:
        """The pinned zerostate of the masterchain. Raises `ConfigError` if the configuration names none."""
        return _block(self.global_config, "zero_state")

    @property
    def liteservers(self) -> tuple[Liteserver, ...]:
        """The liteservers, at least one."""
        return _liteservers(self.global_config)

    def to_json(self) -> str:
        """The network file's text."""
        document = {
            "name": self.name,
            "global_id": self.global_id,
            "registry": self.registry,
            "simulated": self.simulated,
            "dev_root": None if self.dev_root is None else base64.b64encode(self.dev_root).decode(),
            "faucet": self.faucet,
            "explorer": self.explorer,
            "global_config": self.global_config,
        }
        return json.dumps(document, indent=2) + "\n"

    def save(self, path: Path | None = None) -> Path:
        """Write the network file atomically (mode 0600) and return its path.

        Without `path` it goes to ``networks/NAME.json`` in `home_dir`, where `load_network` finds it.
        """
        target = path or network_path(self.name)
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(self.to_json())
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise
        return target


def network_path(name: str) -> Path:
    """Where the network called `name` is stored."""
    return home_dir() / "networks" / f"{name}.json"


def load_network(name_or_path: str | Path) -> NetworkConfig:
    """The network called NAME (``networks/NAME.json`` in `home_dir`), or the one in a file.

    A value with a path separator or the ending ``.json`` is a file. Raises `ConfigError`.
    """
    text = str(name_or_path)
    is_path = isinstance(name_or_path, Path) or os.sep in text or text.endswith(".json")
    path = Path(text) if is_path else network_path(text)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot read network {text!r}: {error.strerror}",
            hint="known networks are in the networks folder",
        ) from error
    return parse_network(raw)


def parse_network(raw: bytes | str) -> NetworkConfig:
    """Parse the text of a network file. Raises `ConfigError`."""
    if len(raw) > _MAX_FILE:
        raise ConfigError("network file is too large")
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ConfigError("network file is not JSON") from error
    if not isinstance(document, dict) or not _REQUIRED <= document.keys() <= _FIELDS:
        raise ConfigError(f"network file needs {sorted(_REQUIRED)} and knows only {sorted(_FIELDS)}")
    return NetworkConfig(
        name=_typed(document, "name", str),
        global_id=_typed(document, "global_id", int),
        registry=_typed(document, "registry", str),
        global_config=_typed(document, "global_config", dict),
        dev_root=_base64(document["dev_root"], "dev_root") if document.get("dev_root") else None,
        simulated=_typed(document, "simulated", bool) if "simulated" in document else False,
        faucet=_typed(document, "faucet", dict) if document.get("faucet") else None,
        explorer=_typed(document, "explorer", str) if document.get("explorer") is not None else None,
    )


def _typed(document: dict[str, Any], key: str, kind: type[_T]) -> _T:
    value = document[key]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f"network file: {key!r} must be {kind.__name__}")
    return value


def _registry(text: str) -> Address:
    try:
        return parse_address(text)
    except MalformedError as error:
        raise ConfigError("the registry address of the network is not a TON address") from error


def _base64(value: object, name: str) -> bytes:
    if not isinstance(value, str):
        raise ConfigError(f"network file: {name!r} must be base64 text")
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ConfigError(f"network file: {name!r} is not base64") from error


def _init_block(config: dict[str, Any]) -> BlockId:
    found = _block(config, "init_block")
    if type(found.seqno) is not int or not 0 < found.seqno < 1 << 31:
        raise ConfigError("init_block must be a block, not the zero state")
    return found


def _block(config: dict[str, Any], name: str) -> BlockId:
    try:
        block = config["validator"][name]
        found = BlockId(
            workchain=block["workchain"],
            shard=block["shard"],
            seqno=block["seqno"],
            root_hash=_base64(block["root_hash"], f"{name}.root_hash"),
            file_hash=_base64(block["file_hash"], f"{name}.file_hash"),
        )
    except (KeyError, TypeError) as error:
        raise ConfigError(f"global_config has no validator.{name} to pin") from error
    if found.workchain != MASTERCHAIN or found.shard != FULL_SHARD:
        raise ConfigError(f"{name} must be a masterchain block")
    if len(found.root_hash) != 32 or len(found.file_hash) != 32:
        raise ConfigError(f"{name} hashes must have 32 bytes")
    return found


def _liteservers(config: dict[str, Any]) -> tuple[Liteserver, ...]:
    servers = []
    try:
        for entry in config["liteservers"]:
            address, port = entry["ip"], entry["port"]
            if type(address) is not int or type(port) is not int or not 0 < port < 1 << 16:
                raise ConfigError("a liteserver's ip and port must be numbers")
            host = ".".join(str(byte) for byte in (address & 0xFFFFFFFF).to_bytes(4, "big"))
            key = _base64(entry["id"]["key"], "liteserver key")
            if len(key) != 32:
                raise ConfigError("a liteserver key must have 32 bytes")
            servers.append(Liteserver(host=host, port=port, public_key=key))
    except (KeyError, TypeError) as error:
        raise ConfigError("global_config has malformed liteservers") from error
    if not servers:
        raise ConfigError("global_config has no liteservers")
    return tuple(servers)
