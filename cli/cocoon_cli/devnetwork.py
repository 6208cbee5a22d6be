"""Brings a whole development network up on this machine: chain, registry, enclave, host agent.

Everything lives below one directory and survives a restart: the same chain, the same node, the same keys of
the simulated platform. Used by `cocoon dev up` and by `cocoon demo`.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cocoon_attestation.errors import ConfigError
from cocoon_cli.devfiles import enclave_toml, host_toml
from cocoon_cli.processes import ManagedProcess, ProcessGroup
from cocoon_ton.network import NetworkConfig
from cocoon_ton.paths import home_dir

if TYPE_CHECKING:
    from cocoon_attestation.reference import AnyRelease
    from cocoon_enclave.attestation.simulated import DevPlatform
    from cocoon_enclave.models.demo import FetchedModel
    from cocoon_ton.wallet import Wallet

NANO = 10**9
HOST_FUNDS = 100 * NANO
REGISTRY_FUNDS = 5 * NANO

Say = Callable[[str, str], None]
"""Progress: what was done, and a detail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DevSettings:
    """What distinguishes one development network from another."""

    name: str = "dev"
    root: Path
    """Directory of everything."""
    anchor_every_s: int = 10
    settle_above: int = 5_000_000
    """Nanoton; a real host would wait for about 50 times the fee."""
    poll_s: float = 0.5
    block_ms: int = 500
    liteservers: int = 1
    """How many liteservers the chain has, on ports one after the other."""
    tee: str = "tdx"
    """Simulated TEE of the node: ``tdx`` or ``snp``."""
    gpus: int = 0
    """Simulated GPUs of the node, 0 to 16."""
    gpu_mode: str = ""
    """How they are joined: ``single``, ``multi``, ``ppcie`` (8 GPUs, 4 switches); empty: usual for the number."""

    @property
    def words(self) -> str:
        """The simulated machine in words."""
        gpus = f" with {self.gpus} simulated GPU{'s' if self.gpus > 1 else ''}" if self.gpus else ""
        return f"simulated {'SEV-SNP' if self.tee == 'snp' else 'TDX'}{gpus}"


class DevNetwork:
    """The processes of a development network. `start` is idempotent over the files it finds."""

    def __init__(self, settings: DevSettings, say: Say) -> None:
        self.settings = settings
        self.group = ProcessGroup()
        self._say = say
        self.network: NetworkConfig | None = None
        self.model: FetchedModel | None = None
        """The model to serve; None before the start: the demo model."""
        self.platform: DevPlatform | None = None
        self.devnet: ManagedProcess | None = None
        self.enclave: ManagedProcess | None = None
        self.host: ManagedProcess | None = None

    @property
    def root(self) -> Path:
        """Directory of everything."""
        return self.settings.root

    def start(self) -> NetworkConfig:
        """Bring everything up and wait until clients can use the node."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.model = self.model or _demo_model()
        self._start_devnet()
        self.platform = self._load_platform()
        network = asyncio.run(self._deploy())
        self.network = network
        network.save()
        network.save(self.root / "network.json")
        self._start_enclave(network)
        self._start_host()
        asyncio.run(self._wait_attested(network))
        return network

    def stop(self) -> None:
        """Stop all processes."""
        self.group.stop()

    # -- chain ------------------------------------------------------------------------------------

    def _start_devnet(self) -> None:
        argv = [
            sys.executable, "-m", "cocoon_ton.devnet",
            "--dir", str(chain_directory(self.root)), "--port", str(self._port("liteserver")),
            "--block-ms", str(self.settings.block_ms), "--liteservers", str(self.settings.liteservers),
        ]  # fmt: skip
        self.devnet = ManagedProcess("devnet", argv, self.root / "logs" / "devnet.log")
        started = time.monotonic()
        self.group.add(self.devnet, timeout=60)
        self._say("chain", f"one-validator TON chain with liteserver, {time.monotonic() - started:.1f} s")

    def _base_network(self, registry: str = "") -> NetworkConfig:
        config = json.loads((self.root / "chain" / "global.config.json").read_text())
        faucet = json.loads((self.root / "chain" / "faucet.json").read_text())
        if self.platform is None:
            raise ConfigError("the simulated platform is not loaded")
        return NetworkConfig(
            name=self.settings.name,
            global_id=self._global_id(),
            registry=registry,
            global_config=config,
            dev_root=self.platform.root_der,
            simulated=True,
            faucet={"seed": str(faucet["seed"])},
        )

    def _global_id(self) -> int:
        from cocoon_ton.devnet.genesis import DEFAULT_GLOBAL_ID

        return DEFAULT_GLOBAL_ID

    def _load_platform(self) -> DevPlatform:
        from cocoon_enclave.attestation.simulated import DevPlatform
        from cocoon_enclave.attestation.simulated_vendors import DevVendors

        directory = self.root / "platform"
        if (directory / "platform.json").exists():
            return DevPlatform.load(directory)
        now = int(time.time())
        vendors = DevVendors.create(now, secrets.token_bytes)
        platform = DevPlatform.create(now, secrets.token_bytes, vendors)
        platform.save(directory)
        return platform

    def _release(self) -> AnyRelease:
        """The release that the simulated guest measures as."""
        from cocoon_enclave.attestation.simulated_node import simulated_snp_release

        if self.platform is None or self.model is None:
            raise ConfigError("platform and model come first")
        if self.settings.tee == "snp":
            return simulated_snp_release([self.model.digest], gpus=self.settings.gpus)
        return self.platform.release()

    async def _deploy(self) -> NetworkConfig:
        """Deploy the registry and fund the host, both only if that was not done before."""
        from cocoon_cli.devchain import deploy_registry, fund

        faucet_path = self.root / "faucet"
        base = self._base_network()
        if self.platform is None or self.model is None:
            raise ConfigError("platform and model come first")
        registry = await deploy_registry(
            base,
            faucet_path,
            platform=self.platform,
            release=self._release(),
            model=self.model,
            genesis_file=self.root / "genesis.json",
        )
        network = self._base_network(registry)
        self._say("registry", registry)
        host = host_wallet(self.root / "host", network.global_id)
        await fund(network, faucet_path, host.address, HOST_FUNDS, key="fund-host")
        return network

    # -- enclave and host -------------------------------------------------------------------------

    def _start_enclave(self, network: NetworkConfig) -> None:
        if self.model is None or self.platform is None:
            raise ConfigError("platform and model come first")
        config = self.root / "enclave.toml"
        config.write_text(
            enclave_toml(
                network,
                self.settings,
                node=node_identity(network, host_wallet(self.root / "host", network.global_id)).account_id,
                release=self._release(),
                model=self.model,
                ports={name: self._port(name) for name in ("public", "host", "health")},
            )
        )
        argv = [sys.executable, "-m", "cocoon_enclave", "--config", str(config)]
        self.enclave = ManagedProcess("enclave", argv, self.root / "logs" / "enclave.log")
        started = time.monotonic()
        ready = self.group.add(self.enclave, timeout=180)
        self._say(
            "enclave",
            f"{self.model.name} loaded and measured on {self.settings.words}, {time.monotonic() - started:.1f} s, "
            f"port {ready.get('public_port')}",
        )

    def _start_host(self) -> None:
        if self.model is None:
            raise ConfigError("the model comes first")
        config = self.root / "host.toml"
        config.write_text(
            host_toml(
                self.settings,
                endpoint=f"127.0.0.1:{self._port('public')}",
                host_service=f"127.0.0.1:{self._port('host')}",
                model=self.model.digest,
            )
        )
        argv = [sys.executable, "-m", "cocoon_cli", "host", "run", "--config", str(config), "--json"]
        self.host = ManagedProcess("host agent", argv, self.root / "logs" / "host.log")
        self.group.add(self.host, timeout=60)

    async def _wait_attested(self, network: NetworkConfig) -> None:
        from cocoon_cli.devchain import wait_attested

        started = time.monotonic()
        node = await wait_attested(network, within=60.0, alive=self.check_alive)
        verified = node.claim is not None and node.claim.verified
        how = "its quote was verified on chain" if verified else "the digest of its evidence was recorded"
        self._say(
            "node",
            f"{node.account_id.hex()[:16]}… joined with stake, {how}, {time.monotonic() - started:.1f} s",
        )

    def check_alive(self) -> None:
        """Raise `UnavailableError` if one of the processes has ended by itself."""
        dead = self.group.first_dead()
        if dead is not None:
            raise dead.failure(f"{dead.name} stopped")

    def restart(self, process: ManagedProcess, *, timeout: float) -> dict[str, Any]:
        """Start a process again that was killed or stopped; its files decide where it goes on."""
        process.stop()
        process.start()
        return process.wait_ready(timeout)

    def _port(self, name: str) -> int:
        """A port of this network: picked once, then kept, so that what stands on chain stays true."""
        path = self.root / "ports.json"
        ports = json.loads(path.read_text()) if path.exists() else {}
        if name not in ports:
            ports[name] = free_port()
            path.write_text(json.dumps(ports, indent=2))
        return int(ports[name])


def default_root() -> Path:
    """Where `cocoon dev up` keeps its network."""
    return home_dir() / "dev"


def chain_directory(root: Path) -> Path:
    """Where the chain of the network in `root` is."""
    return root / "chain"


def host_wallet(directory: Path, global_id: int) -> Wallet:
    """The host's wallet in `directory`, made on first use (development networks only)."""
    from cocoon_ton.keystore import KeyFile, create_keystore, load_keystore
    from cocoon_ton.wallet import WalletVersion, new_mnemonic

    path = directory / "wallet.json"
    if not path.exists():
        create_keystore(path, KeyFile(mnemonic=new_mnemonic(), version=WalletVersion.V5R1))
    return load_keystore(path).wallet(global_id)


def node_identity(network: NetworkConfig, owner: Wallet, salt: int = 0) -> Any:
    """Identity of the owner's node."""
    from cocoon_ton.node import NodeIdentity

    return NodeIdentity(
        global_id=network.global_id, registry=network.registry_address, owner=owner.address, salt=salt
    )


def free_port() -> int:
    """A TCP port that is free on loopback now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _demo_model() -> FetchedModel:
    from cocoon_enclave.models.demo import demo_model

    model = demo_model()
    if model is None:
        raise ConfigError(
            "the demo model is not there yet",
            hint="run `make model` or `python -m cocoon_enclave.models fetch-demo`",
        )
    return model
