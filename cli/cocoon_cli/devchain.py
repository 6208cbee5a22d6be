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
from cocoon_attestation.reference import TeeKind
from cocoon_ton.address import raw_address
from cocoon_ton.chain import LiteChain
from cocoon_ton.code import pck_code
from cocoon_ton.network import NetworkConfig
from cocoon_ton.node import RegistryParameters
from cocoon_ton.treasury import Payment, WalletTreasury
from cocoon_ton.wallet import faucet_wallet

if TYPE_CHECKING:
    from cocoon_attestation.reference import AnyRelease
    from cocoon_enclave.attestation.simulated import DevPlatform
    from cocoon_enclave.models.demo import FetchedModel
    from cocoon_ton.attestation_rules import AttestationRule
    from cocoon_ton.registry import NodeEntry

NANO = 10**9
RULE_DAYS = 3650
"""Life of a development network's rule; a real one ends with Intel's next statement."""


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
        pck_code=pck_code().code_hash,
        pck_code_depth=pck_code().depth,
    )


def dev_rule(platform: DevPlatform, since: int) -> AttestationRule:
    """What the development registry asks of quotes: what the platform has, for as long as its certificates last."""
    from cocoon_attestation.evidence import TdxCollateralBytes
    from cocoon_attestation.tdx.collateral import parse_collateral
    from cocoon_ton.attestation_rules import rule_from_collateral
    from cocoon_ton.quote_hints import anchor_of

    message = platform.collateral(since, days=RULE_DAYS)
    names = [field.name for field in message.DESCRIPTOR.fields]
    collateral = parse_collateral(TdxCollateralBytes(**{name: getattr(message, name) for name in names}))
    return rule_from_collateral(
        collateral, anchor=anchor_of(platform.root_der), module_major=platform.tcb.tee_tcb_svn[1]
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
    kinds = frozenset({release.tee})
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
            tee_kinds=kinds,
            min_tcb_evaluation=EVALUATION_NUMBER,
            dev_root_hash=hashlib.sha256(platform.root_der).digest(),
            # TVM checks quotes of TDX only; the others join with the digest of their evidence
            recorded=dict.fromkeys(kinds - {TeeKind.TDX}, 10 * NANO),
        ),
        releases=(release,),
        models={model.digest: model.name},
        rules=(dev_rule(platform, int(stamp["since"])),),
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


async def wait_attested(network: NetworkConfig, *, within: float, alive: Callable[[], None]) -> NodeEntry:
    """Wait until the registry lists a node whose keys count.

    `alive` raises if a process that is needed for it has ended.
    """
    from cocoon_ton.registry import parse_registry

    deadline = time.monotonic() + within
    async with LiteChain(network) as chain:
        while time.monotonic() < deadline:
            alive()
            account = await chain.account(network.registry_address)
            if account.data is not None:
                for node in parse_registry(account.data).usable_nodes(int(time.time())):
                    return node
            await asyncio.sleep(0.2)
    raise UnavailableError(
        "the node did not join in time", hint="see host.log and enclave.log in the network's logs folder"
    )
