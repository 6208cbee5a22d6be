"""A council governs the registry of a running chain: TON's multisig contracts, wallets, timelock, commands."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pytoniq_core import Cell

from cocoon_attestation.errors import UnsupportedError
from cocoon_cli import devchain
from cocoon_cli.governing import describe_action
from cocoon_cli.processes import ManagedProcess, ProcessGroup
from cocoon_enclave.attestation.simulated import EVALUATION_NUMBER, DevPlatform
from cocoon_ton.chain import LiteChain
from cocoon_ton.emulator.multisig import multisig_code
from cocoon_ton.multisig import MULTISIG_CODE_HASH, Action
from cocoon_ton.network import NetworkConfig
from cocoon_ton.registry import RegistryPolicy, RegistryState, parse_registry
from cocoon_ton.registry_messages import RegistryGenesis, Removal, cancel_body, remove_body, top_up_body
from cocoon_ton.treasury import WalletTreasury
from cocoon_ton.wallet import faucet_wallet

if TYPE_CHECKING:
    from tests.network.netkit import InProcess, Outcome

MODEL, NEW = b"\xaa" * 32, b"\xbb" * 32
TON = 10**9


@pytest.fixture
def network(tmp_path: Path) -> Iterator[NetworkConfig]:
    """A chain as a process, with a registry that its faucet's wallet governs; no enclave."""
    try:
        multisig_code()
    except UnsupportedError as error:
        pytest.skip(str(error))
    argv = [
        sys.executable,
        "-m",
        "cocoon_ton.devnet",
        "--dir",
        str(tmp_path / "chain"),
        "--block-ms",
        "100",
    ]
    with ProcessGroup() as group:
        group.add(ManagedProcess("devnet", argv, tmp_path / "devnet.log"), timeout=60)
        yield asyncio.run(_deploy(tmp_path))


async def _deploy(folder: Path) -> NetworkConfig:
    numbers = itertools.count()
    platform = DevPlatform.create(
        int(time.time()), lambda n: hashlib.shake_256(b"governance %d" % next(numbers)).digest(n)
    )
    faucet = json.loads((folder / "chain" / "faucet.json").read_text())
    base: dict[str, Any] = {
        "name": "council",
        "global_id": -217,
        "global_config": json.loads((folder / "chain" / "global.config.json").read_text()),
        "dev_root": platform.root_der,
        "simulated": True,
        "faucet": {"seed": faucet["seed"]},
    }
    wallet = faucet_wallet(NetworkConfig(registry="", **base))
    genesis = RegistryGenesis(
        global_id=-217,
        governance=wallet.address,
        parameters=devchain.parameters(wallet.address, close_delay=60),
        policy=RegistryPolicy(
            tee_kinds=frozenset({platform.release().tee}),
            min_tcb_evaluation=EVALUATION_NUMBER,
            dev_root_hash=hashlib.sha256(platform.root_der).digest(),
        ),
        releases=(platform.release(),),
        models={MODEL: "tiny@test"},
        since=int(time.time()),
    )
    network = NetworkConfig(registry=f"0:{genesis.address.hash_part.hex()}", **base)
    async with LiteChain(network) as chain:
        treasury = WalletTreasury(wallet, outbox=folder / "outbox", chain=chain)
        init = genesis.state_init
        await treasury.pay(
            key="registry", to=genesis.address, value=TON, body=top_up_body(), state_init=init
        )
    network.save(folder / "network.json")
    return network


def _registry(network: NetworkConfig) -> RegistryState:
    async def read() -> RegistryState:
        async with LiteChain(network) as chain:
            data = (await chain.account(network.registry_address)).data
            assert data is not None
            return parse_registry(data)

    return asyncio.run(read())


def test_two_of_three_change_the_registry(
    network: NetworkConfig, cocoon: InProcess, tmp_path: Path
) -> None:
    file = tmp_path / "network.json"

    def run(*arguments: str | Path) -> Outcome:
        return cocoon(*arguments, "--network", file, "--json")

    def done(*arguments: str | Path) -> dict[str, Any]:
        outcome = run(*arguments)
        assert outcome.code == 0, outcome.out + outcome.err
        return outcome.json

    before = done("governance", "show")
    assert before["kind"] == "wallet or other contract"
    made = done("dev", "council")
    assert done("dev", "council")["governance"] == made["governance"], "a second time changes nothing"
    first, second, third = made["keys"]
    shown = done("governance", "show")
    assert (shown["kind"], shown["threshold"], len(shown["signers"])) == ("multisig-contract-v2", 2, 3)
    assert shown["orders"][0]["executed"], "the council accepted by its first order"

    # two of three announce a model; it counts after the timelock, and anybody carries it out
    put_up = done("governance", "propose", "model", NEW.hex(), "new@test", "--key", first)
    number, change = put_up["order"], put_up["change_hash"]
    assert _registry(network).pending == {}
    assert run("governance", "approve", str(number), "--key", first).json["approvals"] == [0]
    approved = done("governance", "approve", str(number), "--key", third)
    assert (approved["executed"], approved["approvals"]) == (True, [0, 2])
    assert approved["actions"][0]["change"] == "set_model"
    early = run("governance", "execute", change, "--key", second)
    assert early.code != 0
    assert "206" in early.out, "too early"
    assert NEW not in _registry(network).models
    _until(lambda: time.time() > _registry(network).pending[bytes.fromhex(change)].ready_at + 1)
    done("governance", "execute", change, "--key", second)
    assert _registry(network).models[NEW].name == "new@test"

    # a removal needs no timelock, and the faucet's wallet governs no more
    removal = done("governance", "propose", "remove", "model", MODEL.hex(), "--key", second)
    done("governance", "approve", str(removal["order"]), "--key", first)
    assert _registry(network).models[MODEL].state.name == "REVOKED"
    outside = run("governance", "propose", "cancel", "00" * 32, "--key", tmp_path / "nobody.json")
    assert outside.code != 0
    events = done("log", "registry")["events"]
    assert [e["event"] for e in events if e["event"] != "deployed"][-1] == "removed"


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.3)


def test_what_an_order_does_is_shown_or_warned_about() -> None:
    from pytoniq_core import Address

    registry, other = Address((0, b"\x01" * 32)), Address((0, b"\x02" * 32))

    def shown(to: Address | None, body: Cell) -> dict[str, object]:
        return describe_action(Action(to=to, value=5, body=body), registry)

    assert shown(registry, cancel_body(NEW))["kind"] == "cancel"
    removed = shown(registry, remove_body(Removal.MODEL, NEW))
    assert (removed["what"], removed["id"]) == ("model", NEW.hex())
    assert "warning" not in removed
    for strange in (
        shown(None, Cell.empty()),
        shown(other, cancel_body(NEW)),
        shown(registry, top_up_body()),
    ):
        assert "warning" in strange
    assert multisig_code().hash == MULTISIG_CODE_HASH
