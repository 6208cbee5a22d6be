"""What a development network puts on its chain before anybody comes: registry, faucet gifts."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pytoniq_core import Address, Cell

from cocoon_attestation.errors import ConfigError, PaymentError, UnavailableError
from cocoon_ton.address import raw_address
from cocoon_ton.chain import LiteChain
from cocoon_ton.network import NetworkConfig
from cocoon_ton.node import RegistryParameters
from cocoon_ton.treasury import Payment, WalletTreasury
from cocoon_ton.wallet import faucet_wallet

if TYPE_CHECKING:
    from cocoon_attestation.reference import AnyRelease
    from cocoon_enclave.attestation.simulated import DevPlatform
    from cocoon_enclave.models.demo import FetchedModel

NANO = 10**9


def parameters(treasury: Address, *, close_delay: int) -> RegistryParameters:
    """Parameters of a development registry: a real network has days where this has seconds."""
    return RegistryParameters(
        min_stake=10 * NANO,
        anchor_within=3600,
        challenge_window=86_400,
        response_window=3600,
        close_delay=close_delay,
        price_delay=60,
        max_nodes=100,
        timelock=5,
        penalty=2 * NANO,
        bounty_permille=500,
        treasury=treasury,
    )


async def deploy_registry(
    network: NetworkConfig,
    outbox: Path,
    *,
    platform: DevPlatform,
    release: AnyRelease,
    model: FetchedModel,
    genesis_file: Path,
    close_delay: int = 60,
) -> str:
    """Deploy the registry with its first release and model; its raw address. Idempotent by `genesis_file`."""
    from cocoon_enclave.attestation.simulated import EVALUATION_NUMBER
    from cocoon_ton.registry import RegistryPolicy
    from cocoon_ton.registry_messages import RegistryGenesis, top_up_body

    faucet = faucet_wallet(network)
    stamp: dict[str, str] = {
        "release": release.release_id.hex(),
        "model": model.digest.hex(),
        "since": str(int(time.time())),
    }
    if genesis_file.exists():
        stamp = json.loads(genesis_file.read_text())
        if (stamp["release"], stamp["model"]) != (release.release_id.hex(), model.digest.hex()):
            raise ConfigError(
                "this development network was made for another kind of node, release or model",
                hint=f"remove {genesis_file.parent} to start afresh",
            )
    else:
        genesis_file.write_text(json.dumps(stamp))
    genesis = RegistryGenesis(
        global_id=network.global_id,
        governance=faucet.address,
        parameters=parameters(faucet.address, close_delay=close_delay),
        policy=RegistryPolicy(
            tee_kinds=frozenset({release.tee}),
            min_tcb_evaluation=EVALUATION_NUMBER,
            dev_root_hash=hashlib.sha256(platform.root_der).digest(),
        ),
        releases=(release,),
        models={model.digest: model.name},
        since=int(stamp["since"]),
    )
    address = genesis.address
    async with LiteChain(network) as chain:
        if not (await chain.account(address)).active:
            await WalletTreasury(faucet, outbox=outbox, chain=chain).pay(
                key=f"registry:{raw_address(address)}",
                to=address,
                value=5 * NANO,
                body=top_up_body(),
                state_init=genesis.state_init,
            )
    return raw_address(address)


async def fund(network: NetworkConfig, outbox: Path, to: Address, amount: int, *, key: str) -> None:
    """Send `amount` nanoton from the faucet, once per key."""
    async with LiteChain(network) as chain:
        treasury = WalletTreasury(faucet_wallet(network), outbox=outbox, chain=chain)
        # Not bounceable: the receiver's wallet does not exist before it is funded.
        gift = Payment(key=key, to=to, value=amount, body=Cell.empty(), bounce=False)
        (found,) = await treasury.pay_all([gift])
    if isinstance(found, PaymentError):
        raise found


async def wait_attested(network: NetworkConfig, *, within: float, alive: Callable[[], None]) -> str:
    """Wait until the registry lists a node with recorded evidence; its account id in hex.

    `alive` raises if a process that is needed for it has ended.
    """
    from cocoon_ton.registry import parse_registry

    deadline = time.monotonic() + within
    async with LiteChain(network) as chain:
        while time.monotonic() < deadline:
            alive()
            account = await chain.account(network.registry_address)
            if account.data is not None:
                nodes = parse_registry(account.data).nodes.values()
                for node in nodes:
                    if node.is_attested(int(time.time())):
                        return node.account_id.hex()
            await asyncio.sleep(0.2)
    raise UnavailableError(
        "the node did not join in time", hint="see host.log and enclave.log in the network's logs folder"
    )
