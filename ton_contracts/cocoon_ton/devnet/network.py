"""`Devnet`: chain, liteserver, ticker, faucet and files put together."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from pytoniq_core import Address, Cell

from cocoon_attestation.errors import ConfigError
from cocoon_ton.devnet.blocks import Identity
from cocoon_ton.devnet.chain import Chain
from cocoon_ton.devnet.commands import commands
from cocoon_ton.devnet.control import CONTROL_FILE, ControlServer
from cocoon_ton.devnet.endpoint import Endpoint, liteserver_key
from cocoon_ton.devnet.faucet import Faucet
from cocoon_ton.devnet.faults import Faults
from cocoon_ton.devnet.genesis import (
    DEFAULT_GLOBAL_ID,
    ConfigDict,
    GenesisAccount,
    make_config,
    public_key,
    public_libraries,
    read_config,
)
from cocoon_ton.devnet.keys import KEYS_FILE, ChainKeys, load_keys, write_private
from cocoon_ton.devnet.signatures import SignatureMode
from cocoon_ton.devnet.snapshots import Snapshots
from cocoon_ton.devnet.store import Store
from cocoon_ton.devnet.system import system_accounts
from cocoon_ton.devnet.values import Block, BlockId, name_of
from cocoon_ton.emulator.boc import read_boc
from cocoon_ton.emulator.sandbox import ConfigName
from cocoon_ton.proof.boc import write_boc

BLOCK_SECONDS: Final = 0.5
IDLE_SECONDS: Final = 3.0
"""An empty block follows at the latest this long after the last one (clients give up after 10)."""
MIN_BLOCKS: Final = 3
"""Blocks that exist before the first client comes: the key block must not be the newest."""
MAX_LITESERVERS: Final = 16
CHAIN_FILE: Final = "chain.sqlite"
CONFIG_FILE: Final = "global.config.json"
FAUCET_FILE: Final = "faucet.json"


class Devnet:
    """A running development chain. Make one with `Devnet.start`.

    * `config`: global configuration for any TON client; `init_block`: its trusted key block;
    * `chain`, `global_id`, `directory`;
    * `liteservers`: one or more over the one chain, each with `port` and `faults`; `faults` and `port` are
      those of the first;
    * `faucet_address`, `faucet_seed` and `fund`;
    * `save`, `restore` and `snapshots`.
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
        liteservers: int,
    ) -> None:
        self.directory = directory
        self.chain = chain
        self.faucet = faucet
        self.config: dict[str, Any] = {}
        self.ticker: asyncio.Task[None] | None = None
        self.liteservers = tuple(
            Endpoint(chain, liteserver_key(keys.liteserver, n), keys.validator, mode=signature_mode)
            for n in range(liteservers)
        )
        self.snapshots = Snapshots(store, directory)
        self._keys = keys
        self._store = store
        self._interval = block_interval
        self._control = ControlServer(keys.control, commands(self))
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
        liteservers: int = 1,
        block_interval: float | None = BLOCK_SECONDS,
        signature_mode: SignatureMode = "ordinary",
        global_id: int = DEFAULT_GLOBAL_ID,
        accounts: Mapping[Address, int | GenesisAccount] | None = None,
        config: ConfigName = "slim",
        clock: Callable[[], float] = time.time,
    ) -> AsyncIterator[Devnet]:
        """Run a chain until the block ends.

        `dir` None: in memory, else the chain there is continued, or begun. `liteservers` (1 to 16) listen on
        `port` and the ports after it, or on any ports (0). `block_interval` None: blocks come only from
        `tick`. `accounts` (a balance in nanoton, or a contract) exist from the zerostate of a new chain on;
        10 000 take about 2 s.
        Raises ConfigError if another process runs the chain or its files do not belong together.
        """
        if not 1 <= liteservers <= MAX_LITESERVERS:
            raise ConfigError(f"from 1 to {MAX_LITESERVERS} liteservers")
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
                liteservers=liteservers,
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
    def faults(self) -> Faults:
        """The fault switches of the first liteserver."""
        return self.liteservers[0].faults

    @property
    def port(self) -> int:
        """The port of the first liteserver."""
        return self.liteservers[0].port

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
            for chain in self._chains():
                chain.tick()
        self._last = time.monotonic()
        for server in self.liteservers:
            server.new_block()
        return self.chain.master

    def warp(self, seconds: int) -> Block:
        """Move virtual time forward and make a block that shows it."""
        for chain in self._chains():
            chain.warp(seconds)
        return self.tick()

    def fund(self, address: Address, amount: int, *, body: Cell | None = None) -> Block:
        """Send nanoton from the faucet (not bounceable), in a block of its own."""
        self.chain.send(self.faucet.transfer(self.chain, address, amount, body=body))
        return self.tick()

    def send(self, message: Cell) -> None:
        """Take an external message as the liteserver does."""
        self.chain.send(message)

    def fork(self, number: int) -> Chain:
        """Let a liteserver show a fork: the past of this chain, and from now on other blocks of its own.

        The one validator signs both. Messages that are sent to this liteserver go to the fork alone. A second
        call begins a new fork; `join` ends it.
        """
        fork = self.chain.fork(Store(None))
        self.liteservers[number].show(fork)
        return fork

    def join(self, number: int) -> None:
        """Let a liteserver show the true chain again."""
        self.liteservers[number].show(self.chain)

    def save(self, name: str) -> None:
        """Keep the chain as it is now under a name. See `Snapshots`."""
        self.snapshots.save(name)

    def restore(self, name: str) -> Block:
        """Put the chain back to a snapshot, end all forks, and make a block.

        To clients that saw what came after, this is a fork: they have to be started anew. Virtual time stays
        at least where the snapshot had it. Raises ConfigError for a name or file that does not fit.
        """
        self.snapshots.restore(name)
        self.chain.reload()
        for number in range(len(self.liteservers)):
            self.join(number)
        return self.tick()

    def copy_to(self, directory: Path) -> None:
        """Copy chain and keys, to start a second chain from: same history, same validator."""
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
        for number, server in enumerate(self.liteservers):
            await server.start(port + number if port else 0)
        self.config = self._global_config()
        if self.directory is not None:
            (self.directory / CONFIG_FILE).write_text(json.dumps(self.config, indent=1), "utf-8")
            write_private(self.directory / FAUCET_FILE, json.dumps(self.faucet.document()))
            control = {"port": await self._control.start(), "token": self._keys.control}
            write_private(self.directory / CONTROL_FILE, json.dumps(control))
        if self._interval is not None:
            self.ticker = asyncio.create_task(self._tick_forever(self._interval))

    async def _end(self) -> None:
        for server in self.liteservers:
            await server.stop()
        await self._control.stop()
        self.snapshots.close()
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

    def _chains(self) -> list[Chain]:
        """The true chain and the forks."""
        return list(dict.fromkeys([self.chain, *(server.chain for server in self.liteservers)]))

    def _due(self, seconds: float) -> float:
        return asyncio.get_running_loop().time() + self._last + seconds - time.monotonic()

    def _global_config(self) -> dict[str, Any]:
        return {
            "@type": "config.global",
            "liteservers": [server.document() for server in self.liteservers],
            "validator": {
                "@type": "validator.config.global",
                "zero_state": self.chain.zero.id.to_config(),
                "init_block": self.init_block.to_config(),
            },
        }


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
        libraries = public_libraries()
        genesis = system_accounts(config) | dict(genesis)
        store.set_meta("validator", validator)
        store.set_meta("global_id", str(global_id).encode())
        store.set_meta("config", write_boc([config.root]))
        if libraries is not None:
            store.set_meta("libraries", write_boc([libraries]))
    else:
        config = read_config(known)
        boc = store.get_meta("libraries")
        libraries = None if boc is None else read_boc(boc)
        global_id = int(store.get_meta("global_id") or b"0")
        if store.get_meta("validator") != validator:
            raise ConfigError("the keys in this directory do not belong to its chain")
    identity = Identity(validator=validator, global_id=global_id)
    return Chain(store, identity=identity, config=config, genesis=genesis, libraries=libraries, clock=clock)
