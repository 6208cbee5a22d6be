"""What `cocoon governance` does on the chain: read who governs, send what they decide. Every fact read is proved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pytoniq_core import Address, Cell

from cocoon_attestation.errors import ConfigError, MalformedError, UnavailableError
from cocoon_ton import multisig, opcodes
from cocoon_ton.cells import Reader
from cocoon_ton.chain import LiteChain
from cocoon_ton.messages import Transfer
from cocoon_ton.multisig import Action, MultisigState, OrderState
from cocoon_ton.network import NetworkConfig
from cocoon_ton.registry import RegistryState, parse_registry
from cocoon_ton.registry_history import describe_change
from cocoon_ton.registry_messages import REGISTRY_MESSAGE_VALUE, Removal
from cocoon_ton.treasury import WalletTreasury
from cocoon_ton.wallet import Wallet

_SHOWN_ORDERS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Governance:
    """Who governs a registry, at one block."""

    registry: RegistryState
    now: int
    """Unix time of the block."""
    multisig: MultisigState | None
    """None: the governance is a wallet or another contract."""
    orders: Mapping[int, OrderState] = field(default_factory=dict)
    """The newest orders by number."""


async def read_governance(chain: LiteChain, network: NetworkConfig) -> Governance:
    """Read the registry and its governance.

    Raises:
        ConfigError: there is no registry.
    """
    head = await chain.head()
    account = await chain.account(network.registry_address, head)
    if account.data is None:
        raise ConfigError("the network's registry is not deployed")
    registry = parse_registry(account.data)
    governor = await chain.account(registry.governance, head)
    if governor.data is None or governor.code_hash != multisig.MULTISIG_CODE_HASH:
        return Governance(registry=registry, now=head.utime, multisig=None)
    state = multisig.parse_multisig(governor.data)
    orders: dict[int, OrderState] = {}
    following = state.next_order or 0
    for number in range(max(0, following - _SHOWN_ORDERS), following):
        order = await chain.account(multisig.order_address(registry.governance, number), head)
        if order.data is not None:
            orders[number] = multisig.parse_order(order.data)
    return Governance(registry=registry, now=head.utime, multisig=state, orders=orders)


@dataclass(frozen=True, slots=True)
class Governor:
    """One of those who govern, with a wallet."""

    network: NetworkConfig
    chain: LiteChain
    wallet: Wallet
    outbox: Path
    """Remembers what was sent: nothing is sent twice, whatever crashes."""

    async def _pay(self, what: str, to: Address, value: int, body: Cell) -> None:
        treasury = WalletTreasury(self.wallet, outbox=self.outbox, chain=self.chain)
        await treasury.pay(key=f"{what}:{body.hash.hex()}", to=to, value=value, body=body)

    def index(self, state: MultisigState) -> int:
        """Which signer this is. Raises `ConfigError` if none."""
        if self.wallet.address not in state.config.signers:
            raise ConfigError("this wallet is none of the signers", hint="see `cocoon governance show`")
        return state.config.signers.index(self.wallet.address)

    async def tell_registry(self, body: Cell, *, expires_in: int) -> int | None:
        """Send a message to the registry, or put it up as an order; the order's number.

        Raises:
            ConfigError: this wallet neither governs nor is a signer.
            PaymentError: a contract refused the message.
            UnavailableError: the order is not there, although it was sent.
        """
        found = await read_governance(self.chain, self.network)
        registry, state = self.network.registry_address, found.multisig
        if state is None:
            if self.wallet.address != found.registry.governance:
                raise ConfigError("this wallet does not govern the registry")
            await self._pay("registry", registry, REGISTRY_MESSAGE_VALUE, body)
            return None
        return await self.propose(found.registry.governance, state, body, found.now + expires_in)

    async def propose(self, address: Address, state: MultisigState, body: Cell, expires_at: int) -> int:
        """Put up an order with a message to the registry, and approve it; its number. Raises as `tell_registry`."""
        registry = self.network.registry_address
        message = Transfer(destination=registry, amount=REGISTRY_MESSAGE_VALUE, body=body)
        order = multisig.new_order_body([message], signer=self.index(state), expires_at=expires_at)
        await self._pay("propose", address, multisig.NEW_ORDER_VALUE, order)
        for number in range((state.next_order or 0), (state.next_order or 0) + _SHOWN_ORDERS):
            there = await self.chain.account(multisig.order_address(address, number))
            if there.data is None:
                break
            actions = multisig.parse_order(there.data).actions
            if any(action.to == registry and action.body.hash == body.hash for action in actions):
                return number
        raise UnavailableError("the order is not there yet", hint="see `cocoon governance show`")

    async def order(self, address: Address, number: int) -> OrderState:
        """Read an order. Raises `ConfigError` if there is none."""
        account = await self.chain.account(multisig.order_address(address, number))
        if account.data is None:
            raise ConfigError(f"there is no order {number}", hint="see `cocoon governance show`")
        return multisig.parse_order(account.data)

    async def approve(self, address: Address, number: int) -> OrderState:
        """Approve an order; what it is afterwards.

        Raises:
            ConfigError: no such order, or this wallet is none of its signers.
            PaymentError: the order refused the message, or did not count the approval.
        """
        before = await self.order(address, number)
        if self.wallet.address not in before.signers:
            raise ConfigError("this wallet is none of the order's signers")
        index = before.signers.index(self.wallet.address)
        to = multisig.order_address(address, number)
        if index not in before.approvals:
            await self._pay(f"approve {number}", to, multisig.APPROVE_VALUE, multisig.approve_body(index))
        after = await self.order(address, number)
        if index not in after.approvals:
            raise ConfigError(
                f"order {number} did not count the approval", hint="it may have expired or been carried out"
            )
        return after

    async def send(self, what: str, body: Cell) -> None:
        """A message to the registry that anybody may send. Raises `PaymentError` if it is refused."""
        await self._pay(what, self.network.registry_address, REGISTRY_MESSAGE_VALUE, body)


def describe_action(action: Action, registry: Address) -> dict[str, object]:
    """What an action of an order does, for people to read before they approve it."""
    if action.to is None:
        return {"kind": "not a message", "warning": "changes the signers, or is unknown"}
    shown: dict[str, object] = {"to": action.to.to_str(), "value_nanoton": action.value}
    if action.to != registry:
        return shown | {"kind": "message", "warning": "not for the registry"}
    try:
        return shown | describe_body(action.body)
    except MalformedError:
        return shown | {"kind": "unknown message", "warning": "cannot be read: do not approve it"}


def describe_body(body: Cell) -> dict[str, object]:
    """What a message to the registry does. Raises `MalformedError` for one that governance does not send."""
    reader = Reader(body)
    opcode = reader.uint(32)
    reader.uint(64)
    if opcode == opcodes.REGISTRY_ANNOUNCE:
        change = reader.ref()
        name, details = describe_change(change)
        return {
            "kind": "announce",
            "change": name,
            "details": dict(details),
            "change_hash": change.hash.hex(),
        }
    if opcode == opcodes.REGISTRY_REMOVE:
        kind = Removal(reader.uint(8)) if reader.bits_left >= 264 else None
        return {
            "kind": "remove",
            "what": "" if kind is None else kind.name.lower(),
            "id": reader.raw(32).hex(),
        }
    if opcode == opcodes.REGISTRY_CANCEL:
        return {"kind": "cancel", "change_hash": reader.raw(32).hex()}
    if opcode == opcodes.REGISTRY_ACCEPT_GOVERNANCE:
        return {"kind": "accept governance"}
    raise MalformedError("governance: unknown message")
