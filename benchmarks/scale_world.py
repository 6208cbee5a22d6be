"""A development chain with many nodes and channels, for `scale.py`.

Nothing is seeded: every wallet, node and channel got where it is by signed messages and transactions in blocks of
one chain. Keys, release and evidence digests are made up (SIMULATED): no enclave runs behind these nodes.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pytoniq_core import Address, Cell

from cocoon_attestation.binding import KeyBinding
from cocoon_attestation.payment import Authorization, Claim, PriceList, sign_authorization, sign_claim
from cocoon_enclave.attestation.simulated import EVALUATION_NUMBER, DevPlatform
from cocoon_ton import node_messages, registry_messages
from cocoon_ton.channel import ChannelIdentity, channel_state_init, top_up_body
from cocoon_ton.devnet import Devnet
from cocoon_ton.emulator import view_account
from cocoon_ton.emulator.boc import read_boc
from cocoon_ton.messages import Transfer
from cocoon_ton.network import NetworkConfig
from cocoon_ton.node import NodeIdentity, RegistryParameters, node_state_init
from cocoon_ton.registry import RegistryPolicy, RegistryState, parse_registry
from cocoon_ton.registry_messages import RegistryGenesis
from cocoon_ton.wallet import MAX_TRANSFERS, Wallet, WalletVersion

T = TypeVar("T")
TON: Final = 10**9
MODEL: Final = b"\xaa" * 32
MODEL_NAME: Final = "tiny@benchmark"
PRICES: Final = PriceList(prompt=100, cached=10, completion=400)
STAKE: Final = 10 * TON
DEPOSIT: Final = TON // 2
CLOSE_DELAY: Final = 3600
NODES_PER_OWNER: Final = 20
CHANNELS_PER_CLIENT: Final = 50
_JOIN_VALUE: Final = STAKE + node_messages.NODE_MESSAGE_VALUE
_AHEAD: Final = 10
"""Messages of different wallets that wait for one block."""


def seed(name: str, number: int = 0) -> bytes:
    """32 bytes, the same in every run."""
    return hashlib.sha256(f"scale {name} {number}".encode()).digest()


def signer(name: str, number: int) -> Ed25519PrivateKey:
    """An Ed25519 key, the same in every run."""
    return Ed25519PrivateKey.from_private_bytes(seed(name, number))


def parts_of(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """`items` in parts of at most `size`."""
    return [items[at : at + size] for at in range(0, len(items), size)]


@dataclass(slots=True)
class Sender:
    """A wallet that sends into the chain, in order."""

    net: Devnet
    wallet: Wallet
    seqno: int = 0

    def send(self, transfers: Sequence[Transfer]) -> None:
        """Put one message with these transfers into the next block."""
        message = self.wallet.sign(
            transfers,
            seqno=self.seqno,
            valid_until=self.net.chain.now() + 3600,
            deploy=self.seqno == 0 and self.wallet.version is WalletVersion.V5R1,
        )
        self.seqno += 1
        self.net.send(read_boc(message.boc))


@dataclass(slots=True)
class ScaleWorld:
    """A running chain with its registry, and who has what on it."""

    net: Devnet
    genesis: RegistryGenesis
    dev_root: bytes
    faucet: Sender
    owners: list[Sender] = field(default_factory=list)
    clients: list[Sender] = field(default_factory=list)
    nodes: list[NodeIdentity] = field(default_factory=list)
    channels: list[ChannelIdentity] = field(default_factory=list)

    # ---- what a client needs

    @property
    def registry(self) -> Address:
        """Address of the registry."""
        return self.genesis.address

    def network(self, port: int | None = None) -> NetworkConfig:
        """The network file; `port` replaces the liteserver's (a relay in between)."""
        config = dict(self.net.config)
        if port is not None:
            config["liteservers"] = [server | {"port": port} for server in config["liteservers"]]
        return NetworkConfig(
            name="scale",
            global_id=self.net.global_id,
            registry=f"0:{self.registry.hash_part.hex()}",
            global_config=config,
            dev_root=self.dev_root,
            simulated=True,
        )

    def data(self, address: Address) -> Cell:
        """Data of a contract, straight from the chain (for the set-up, not for the client)."""
        data = view_account(self.net.chain.shard_account(address.hash_part)).data
        if data is None:
            raise RuntimeError(f"there is no contract at {address}")
        return data

    def registry_state(self) -> RegistryState:
        """The registry as it is now."""
        return parse_registry(self.data(self.registry))

    @property
    def accounts(self) -> int:
        """Accounts on the chain."""
        return sum(1 for _ in self.net.chain.store.accounts_at(self.net.chain.master.seqno))

    # ---- building

    def settle_blocks(self) -> None:
        """Make blocks until nothing waits."""
        while self.net.chain.has_work:
            self.net.tick()

    def _fund(self, wallets: Sequence[Wallet], amount: int) -> None:
        for part in parts_of(wallets, MAX_TRANSFERS):
            transfers = [Transfer(destination=w.address, amount=amount, bounce=False) for w in part]
            self.faucet.send(transfers)
            self.settle_blocks()  # the next sequence number counts only after a block

    def _each(self, senders: Sequence[Sender], transfers: Callable[[Sender], list[Transfer]]) -> None:
        """Every wallet sends its transfers; messages of several wallets share a block."""
        plans = [(sender, parts_of(transfers(sender), MAX_TRANSFERS)) for sender in senders]
        for turn in range(max((len(parts) for _, parts in plans), default=0)):
            for group in parts_of(plans, _AHEAD):
                for sender, parts in group:
                    if turn < len(parts):
                        sender.send(parts[turn])
                self.settle_blocks()

    def _wallets(self, name: str, count: int, funds: int) -> list[Sender]:
        wallets = [Wallet(seed(name, n), global_id=self.net.global_id) for n in range(count)]
        self._fund(wallets, funds)
        return [Sender(self.net, wallet) for wallet in wallets]

    def add_nodes(self, count: int, *, owners: str = "owner") -> None:
        """Let `count` more nodes join and record a key binding, 20 for each of these (new) owners' wallets."""
        per_owner, first = min(NODES_PER_OWNER, count), len(self.nodes)
        funds = per_owner * (_JOIN_VALUE + node_messages.NODE_MESSAGE_VALUE) + 2 * TON
        fresh = self._wallets(owners, -(-count // per_owner), funds)
        self.owners += fresh
        numbers: dict[Address, list[int]] = {owner.wallet.address: [] for owner in fresh}
        for number in range(first, first + count):
            owner = fresh[(number - first) // per_owner].wallet.address
            numbers[owner].append(number)
            self.nodes.append(
                NodeIdentity(global_id=self.net.global_id, registry=self.registry, owner=owner, salt=number)
            )
        self._each(fresh, lambda o: [self._join(n) for n in numbers[o.wallet.address]])
        self._each(fresh, lambda o: [self._attest(n) for n in numbers[o.wallet.address]])

    def _join(self, number: int) -> Transfer:
        body = node_messages.join_body(
            stake=STAKE,
            endpoint=f"node-{number:04}.example.org:8443",
            models=[MODEL],
            prices=PRICES,
            simulated=True,
        )
        identity = self.nodes[number]
        init = node_state_init(identity).serialize()
        return Transfer(destination=identity.address, amount=_JOIN_VALUE, body=body, state_init=init)

    def _attest(self, number: int) -> Transfer:
        now = self.net.chain.now()
        binding = KeyBinding(
            node=self.nodes[number].account_id,
            seal_key_hash=seed("seal", number),
            receipt_key=signer("receipt", number).public_key().public_bytes_raw(),
            tls_spki_hash=seed("tls", number),
            config_hash=seed("config", number),
            release_id=self.genesis.releases[0].release_id,
            not_before=now,
            not_after=now + 86_400,
            global_id=self.net.global_id,
        )
        body = node_messages.attest_body(
            key_binding=binding.cell.to_boc(),
            evidence_digest=seed("evidence", number),
            attested_until=binding.not_after,
        )
        return Transfer(
            destination=self.nodes[number].address, amount=node_messages.NODE_MESSAGE_VALUE, body=body
        )

    def add_channels(self, count: int) -> None:
        """Open `count` channels with deposits, 50 for each client's wallet, spread over the nodes."""
        per_client = min(CHANNELS_PER_CLIENT, count)
        funds = per_client * (DEPOSIT + TON // 20) + 2 * TON
        self.clients = self._wallets("client", -(-count // per_client), funds)
        by_client: dict[Address, list[ChannelIdentity]] = {c.wallet.address: [] for c in self.clients}
        for number in range(count):
            client = number // per_client
            address = self.clients[client].wallet.address
            identity = ChannelIdentity(
                global_id=self.net.global_id,
                client=address,
                client_key=signer("client key", client).public_key().public_bytes_raw(),
                node=self.nodes[number % len(self.nodes)].address,
                salt=number,
                close_delay=CLOSE_DELAY,
            )
            self.channels.append(identity)
            by_client[address].append(identity)

        def opened(sender: Sender) -> list[Transfer]:
            return [
                Transfer(
                    destination=identity.address,
                    amount=DEPOSIT,
                    body=top_up_body(),
                    state_init=channel_state_init(identity).serialize(),
                )
                for identity in by_client[sender.wallet.address]
            ]

        self._each(self.clients, opened)

    # ---- using

    def settle(self, number: int, used: int) -> None:
        """The owner of the channel's node collects `used` nanoton from it."""
        identity = self.channels[number]
        client = number // min(CHANNELS_PER_CLIENT, len(self.channels))
        node = next(n for n, known in enumerate(self.nodes) if known.address == identity.node)
        account = bytes(identity.address.hash_part)
        claim = Claim(global_id=self.net.global_id, channel=account, used=used, index=0)
        authorization = Authorization(
            global_id=self.net.global_id,
            channel=account,
            cap=used,
            valid_until=self.net.chain.now() + 3600,
        )
        body = node_messages.settle_body(
            claim=sign_claim(claim, signer("receipt", node)),
            authorization=sign_authorization(authorization, signer("client key", client)),
        )
        owner = next(o for o in self.owners if o.wallet.address == self.nodes[node].owner)
        transfer = Transfer(
            destination=self.nodes[node].address, amount=node_messages.NODE_MESSAGE_VALUE, body=body
        )
        owner.send([transfer])
        self.settle_blocks()


@asynccontextmanager
async def empty_world(
    *, max_nodes: int, directory: Path | None = None, bystanders: int = 0
) -> AsyncIterator[ScaleWorld]:
    """A chain with a registry and `bystanders` other accounts; blocks come only when asked for."""
    accounts = {Address((0, seed("bystander", n))): TON for n in range(bystanders)}
    async with Devnet.start(directory, block_interval=None, accounts=accounts) as net:
        faucet = Wallet(net.faucet_seed, global_id=net.global_id, version=WalletVersion.V4R2)
        numbers = itertools.count()
        platform = DevPlatform.create(
            net.chain.now(), lambda n: hashlib.shake_256(seed("platform", next(numbers))).digest(n)
        )
        release = platform.release()
        genesis = RegistryGenesis(
            global_id=net.global_id,
            governance=faucet.address,
            parameters=RegistryParameters(
                min_stake=STAKE,
                anchor_within=3600,
                challenge_window=86_400,
                response_window=3600,
                close_delay=CLOSE_DELAY,
                price_delay=3600,
                max_nodes=max_nodes,
                timelock=60,
                penalty=2 * TON,
                bounty_permille=500,
                treasury=faucet.address,
            ),
            policy=RegistryPolicy(
                tee_kinds=frozenset({release.tee}),
                min_tcb_evaluation=EVALUATION_NUMBER,
                dev_root_hash=hashlib.sha256(platform.root_der).digest(),
                recorded={release.tee: STAKE},
            ),
            releases=(release,),
            models={MODEL: MODEL_NAME},
            since=net.chain.now(),
        )
        world = ScaleWorld(net, genesis, platform.root_der, Sender(net, faucet))
        init = genesis.state_init.serialize()
        body = registry_messages.top_up_body()
        world.faucet.send(
            [Transfer(destination=genesis.address, amount=20 * TON, body=body, state_init=init)]
        )
        world.settle_blocks()
        yield world
