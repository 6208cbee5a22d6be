"""`Devnet`: chain, liteserver, ticker, faucet and files put together."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from pytoniq_core import Address, Cell

from cocoon_attestation.errors import ConfigError
from cocoon_ton.devnet.adnl import AdnlServer
from cocoon_ton.devnet.blocks import Identity
from cocoon_ton.devnet.chain import Chain
from cocoon_ton.devnet.control import CONTROL_FILE, ControlServer
from cocoon_ton.devnet.faucet import Faucet
from cocoon_ton.devnet.faults import Faults
from cocoon_ton.devnet.genesis import (
    DEFAULT_GLOBAL_ID,
    ConfigDict,
    GenesisAccount,
    make_config,
    public_key,
    read_config,
)
from cocoon_ton.devnet.keys import KEYS_FILE, ChainKeys, load_keys, write_private
from cocoon_ton.devnet.liteserver import LiteServer
from cocoon_ton.devnet.signatures import SignatureMode
from cocoon_ton.devnet.store import Store
from cocoon_ton.devnet.system import system_accounts
from cocoon_ton.devnet.values import FULL_SHARD_SIGNED, MASTERCHAIN, Block, BlockId, name_of
from cocoon_ton.emulator.boc import write_boc
from cocoon_ton.emulator.sandbox import ConfigName

BLOCK_SECONDS: Final = 0.5
IDLE_SECONDS: Final = 3.0
"""An empty block follows at the latest this long after the last one (clients give up after 10)."""
MIN_BLOCKS: Final = 3
"""Blocks that exist before the first client comes: the key block must not be the newest."""
CHAIN_FILE: Final = "chain.sqlite"
CONFIG_FILE: Final = "global.config.json"
FAUCET_FILE: Final = "faucet.json"


class Devnet:
    """A running development chain. Make one with `Devnet.start`.

    * `config`: global configuration for any TON client; `init_block`: its trusted key block;
    * `chain`, `faults`, `port`, `global_id`, `directory`;
    * `faucet_address`, `faucet_seed` and `fund`.
    """

    def __init__(
        self,
        directory: Path | None,
        keys: ChainKeys,
        store: Store,
        chain: Chain,
        *,
        faucet: Faucet,
        signature_mode: SignatureMode,
        block_interval: float | None,
    ) -> None:
        self.directory = directory
        self.chain = chain
        self.faults = Faults()
        self.faucet = faucet
        self.port = 0
        self.config: dict[str, Any] = {}
        self.ticker: asyncio.Task[None] | None = None
        self._keys = keys
        self._store = store
        self._interval = block_interval
        self._liteserver = LiteServer(chain, keys.validator, mode=signature_mode, faults=self.faults)
        self._adnl = AdnlServer(keys.liteserver, self._liteserver.query)
        self._control = ControlServer(keys.control, self._commands())
        self._work = asyncio.Event()
        self._last = time.monotonic()
        chain.on_work = self._work.set

    @classmethod
    @asynccontextmanager
    async def start(
        cls,
        dir: Path | None = None,
        *,
        port: int = 0,
        block_interval: float | None = BLOCK_SECONDS,
        signature_mode: SignatureMode = "ordinary",
        global_id: int = DEFAULT_GLOBAL_ID,
        accounts: Mapping[Address, int | GenesisAccount] | None = None,
        config: ConfigName = "slim",
        clock: Callable[[], float] = time.time,
    ) -> AsyncIterator[Devnet]:
        """Run a chain until the block ends.

        `dir` None: in memory, else the chain there is continued, or begun. `block_interval` None:
        blocks come only from `tick`. `accounts` (a balance in nanoton, or a contract) exist from the
        zerostate of a new chain on; 10 000 take about 2 s.
        Raises ConfigError if another process runs the chain or its files do not belong together.
        """
        store = _open_store(dir)
        try:
            keys = ChainKeys.generate() if dir is None else load_keys(dir)
            faucet = Faucet(keys.faucet)
            genesis = {name_of(faucet.address): faucet.genesis_account()}
            for address, content in (accounts or {}).items():
                account = GenesisAccount(balance=content) if isinstance(content, int) else content
                genesis[name_of(address)] = account.shard_account(address)
            chain = _open_chain(store, keys, genesis, global_id, config, clock)
            net = cls(
                dir,
                keys,
                store,
                chain,
                faucet=faucet,
                signature_mode=signature_mode,
                block_interval=block_interval,
            )
            try:
                await net._begin(port)
                yield net
            finally:
                await net._end()
        finally:
            store.close()

    # ---- for tests

    @property
    def global_id(self) -> int:
        """The chain's global id."""
        return self.chain.identity.global_id

    @property
    def init_block(self) -> BlockId:
        """The key block that clients trust from the start."""
        key = self.chain.key_block()
        if key is None:
            raise RuntimeError("the chain has no key block yet")
        return key.id

    @property
    def faucet_address(self) -> Address:
        """Address of the faucet wallet (v4r2)."""
        return self.faucet.address

    @property
    def faucet_seed(self) -> bytes:
        """Ed25519 seed of the faucet wallet, 32 bytes."""
        return bytes(self._keys.faucet)

    def tick(self, count: int = 1) -> Block:
        """Make blocks now; returns the newest masterchain block."""
        for _ in range(count):
            self.chain.tick()
        self._last = time.monotonic()
        self._liteserver.new_block()
        return self.chain.master

    def warp(self, seconds: int) -> Block:
        """Move virtual time forward and make a block that shows it."""
        self.chain.warp(seconds)
        return self.tick()

    def fund(self, address: Address, amount: int, *, body: Cell | None = None) -> Block:
        """Send nanoton from the faucet (not bounceable), in a block of its own."""
        self.chain.send(self.faucet.transfer(self.chain, address, amount, body=body))
        return self.tick()

    def send(self, message: Cell) -> None:
        """Take an external message as the liteserver does."""
        self.chain.send(message)

    def copy_to(self, directory: Path) -> None:
        """Copy chain and keys, to start a fork from: same history, same validator."""
        if self.directory is None:
            raise ConfigError("a chain in memory has no keys to copy")
        directory.mkdir(mode=0o700, parents=True)
        self._store.copy_to(directory / CHAIN_FILE)
        write_private(directory / KEYS_FILE, (self.directory / KEYS_FILE).read_text("utf-8"))

    def config_claiming(self, victim: Devnet) -> dict[str, Any]:
        """A global configuration that leads a client of `victim` to this chain's liteserver."""
        return self.config | {"validator": victim.config["validator"]}

    # ---- running

    async def _begin(self, port: int) -> None:
        self.tick(max(1, MIN_BLOCKS - self.chain.master.seqno))
        try:
            self.port = await self._adnl.start(port)
        except OSError as error:
            raise ConfigError(f"cannot listen on port {port}: {error.strerror}") from error
        self.config = self._global_config()
        if self.directory is not None:
            (self.directory / CONFIG_FILE).write_text(json.dumps(self.config, indent=1), "utf-8")
            write_private(self.directory / FAUCET_FILE, json.dumps(self.faucet.document()))
            control = {"port": await self._control.start(), "token": self._keys.control}
            write_private(self.directory / CONTROL_FILE, json.dumps(control))
        if self._interval is not None:
            self.ticker = asyncio.create_task(self._tick_forever(self._interval))

    async def _end(self) -> None:
        await self._adnl.stop()
        await self._control.stop()
        if self.directory is not None:
            (self.directory / CONTROL_FILE).unlink(missing_ok=True)
        if self.ticker is not None:
            self.ticker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.ticker  # raises what ended it

    async def _tick_forever(self, interval: float) -> None:
        """A block soon after work comes in, but not closer than `interval`; an empty one when idle."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(self._due(IDLE_SECONDS)):
                    await self._work.wait()
            await asyncio.sleep(max(0.0, self._last + interval - time.monotonic()))
            self._work.clear()
            if self.chain.has_work or time.monotonic() - self._last >= IDLE_SECONDS:
                self.tick()
            if self.chain.has_work:
                self._work.set()

    def _due(self, seconds: float) -> float:
        return asyncio.get_running_loop().time() + self._last + seconds - time.monotonic()

    def _global_config(self) -> dict[str, Any]:
        zero, init = self.chain.zero.id, self.init_block
        key = base64.b64encode(public_key(self._keys.liteserver)).decode()
        server = {"ip": 0x7F000001, "port": self.port, "id": {"@type": "pub.ed25519", "key": key}}
        return {
            "@type": "config.global",
            "liteservers": [server],
            "validator": {
                "@type": "validator.config.global",
                "zero_state": _block_document(zero),
                "init_block": _block_document(init),
            },
        }

    def _commands(self) -> dict[str, Any]:
        async def status(_request: dict[str, Any]) -> dict[str, object]:
            return {
                "seqno": self.chain.master.seqno,
                "now": self.chain.now(),
                "has_work": self.chain.has_work,
                "port": self.port,
            }

        async def tick(request: dict[str, Any]) -> dict[str, object]:
            return {"seqno": self.tick(min(int(request.get("count", 1)), 1000)).seqno}

        async def warp(request: dict[str, Any]) -> dict[str, object]:
            return {"seqno": self.warp(int(request["seconds"])).seqno, "now": self.chain.now()}

        async def fund(request: dict[str, Any]) -> dict[str, object]:
            address = _address(str(request["address"]))
            return {"seqno": self.fund(address, int(request["amount"])).seqno}

        return {"status": status, "tick": tick, "warp": warp, "fund": fund}


def _open_store(directory: Path | None) -> Store:
    if directory is None:
        return Store(None)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Store(directory / CHAIN_FILE)


def _open_chain(
    store: Store,
    keys: ChainKeys,
    genesis: Mapping[bytes, Cell],
    global_id: int,
    base: ConfigName,
    clock: Callable[[], float],
) -> Chain:
    """The chain in `store`; identity and configuration are those it began with."""
    validator = public_key(keys.validator)
    config: ConfigDict
    known = store.get_meta("config")
    if known is None:
        config = make_config(validator, global_id, base)
        genesis = system_accounts(config) | dict(genesis)
        store.set_meta("validator", validator)
        store.set_meta("global_id", str(global_id).encode())
        store.set_meta("config", write_boc([config.root]))
    else:
        config = read_config(known)
        global_id = int(store.get_meta("global_id") or b"0")
        if store.get_meta("validator") != validator:
            raise ConfigError("the keys in this directory do not belong to its chain")
    identity = Identity(validator=validator, global_id=global_id)
    return Chain(store, identity=identity, config=config, genesis=genesis, clock=clock)


def _block_document(id: BlockId) -> dict[str, object]:
    return {
        "workchain": MASTERCHAIN,
        "shard": FULL_SHARD_SIGNED,
        "seqno": id.seqno,
        "root_hash": base64.b64encode(id.root_hash).decode(),
        "file_hash": base64.b64encode(id.file_hash).decode(),
    }


def _address(text: str) -> Address:
    try:
        return Address(text)
    except Exception as error:  # pytoniq-core raises whatever it meets
        raise ValueError("not an address") from error
