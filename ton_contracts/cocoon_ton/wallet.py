"""Wallets: 24 words to a key, an address and signed transfers. Pure; sending is the outbox's work.

Version 5 (``v5r1``) is the default, because its wallet id contains the network's global id: a transfer
signed for a test network is worthless on mainnet. Version 4 (``v4r2``) is there for wallets that exist.
Byte layouts: ``docs/spec/wallet.md``.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pytoniq_core import Address, Builder, Cell, StateInit, begin_cell
from pytoniq_core.crypto.keys import mnemonic_is_valid, mnemonic_new, mnemonic_to_private_key, words
from pytoniq_core.tlb.custom.wallet import WalletV4Data, WalletV5R1Data

from cocoon_attestation.errors import ConfigError, MalformedError, UnsupportedError
from cocoon_ton.address import friendly_address, raw_address
from cocoon_ton.errors import ChainProofError
from cocoon_ton.messages import ExternalMessage, Transfer, external_message, internal_message
from cocoon_ton.network import MAINNET_GLOBAL_ID, NetworkConfig
from cocoon_ton.proof.seam import proof_seam
from cocoon_ton.values import AccountState

MAX_TRANSFERS = 4
"""Transfers in one wallet message."""
SEND_MODE = 3
"""Pay forward fees on top (+1) and skip a message that cannot be sent (+2).

Without +2 a failing send would roll back the wallet's sequence number too, and anybody could replay the
message until the fees have eaten the balance. A skipped message is found by its absence from the
transaction.
"""
_V4_WALLET_ID = 698983191
_V5_CONTEXT = 1 << 31  # client wallet, workchain 0, version 0, subwallet 0
_V5_SIGNED_EXTERNAL = 0x7369676E
_ACTION_SEND = 0x0EC3C86D


class WalletVersion(enum.StrEnum):
    """Wallet contracts that can be used."""

    V4R2 = "v4r2"
    V5R1 = "v5r1"


CODE_HASHES = {
    WalletVersion.V4R2: bytes.fromhex("feb5ff6820e2ff0d9483e7e0d62c817d846789fb4ae580c878866d959dabd5c0"),
    WalletVersion.V5R1: bytes.fromhex("20834b7b72b112147e1b2fb457b84e74d1a30f04f737d4f62a668e9552d2b72f"),
}


@functools.cache
def wallet_code(version: WalletVersion) -> Cell:
    """The code cell of a wallet contract, its hash checked against `CODE_HASHES`."""
    # Imported here: pytoniq is slow to import, and offline commands need no wallet code.
    from pytoniq.contract.wallets.wallet import WALLET_V4_R2_CODE
    from pytoniq.contract.wallets.wallet_v5 import WALLET_V5_R1_CODE

    code: Cell = WALLET_V4_R2_CODE if version is WalletVersion.V4R2 else WALLET_V5_R1_CODE
    if code.hash != CODE_HASHES[version]:
        raise UnsupportedError(f"the installed pytoniq has another {version} wallet code")
    return code


def new_mnemonic() -> tuple[str, ...]:
    """24 new random words that form a valid TON mnemonic without a password."""
    return tuple(mnemonic_new(24))


def parse_mnemonic(text: str) -> tuple[str, ...]:
    """24 words from text. Raises `MalformedError`; the message never contains the words."""
    found = tuple(text.lower().split())
    if len(found) != 24:
        raise MalformedError(f"a mnemonic has 24 words, this text has {len(found)}")
    known = set(words)
    unknown = [index + 1 for index, word in enumerate(found) if word not in known]
    if unknown:
        raise MalformedError(f"words number {unknown} are not in the word list")
    if not mnemonic_is_valid(list(found)):
        raise MalformedError("the words do not form a mnemonic: their check value is wrong")
    return found


class Wallet:
    """One key with its wallet contract on one network."""

    __slots__ = ("_key", "_state_init", "address", "global_id", "public_key", "version", "wallet_id")

    def __init__(self, seed: bytes, *, global_id: int, version: WalletVersion = WalletVersion.V5R1) -> None:
        """`seed` is the 32-byte Ed25519 seed; `global_id` the network. Raises `ConfigError`."""
        if len(seed) != 32:
            raise ConfigError("a wallet seed has 32 bytes")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.version = version
        self.global_id = global_id
        self.wallet_id = _wallet_id(version, global_id)
        state_init = StateInit(code=wallet_code(version), data=self._initial_data())
        self._state_init: Cell = state_init.serialize()
        self.address = Address((0, self._state_init.hash))

    @classmethod
    def from_mnemonic(
        cls, mnemonic: Sequence[str], *, global_id: int, version: WalletVersion = WalletVersion.V5R1
    ) -> Wallet:
        """The wallet of 24 words (`parse_mnemonic` checks them)."""
        _, secret = mnemonic_to_private_key(list(mnemonic))
        return cls(secret[:32], global_id=global_id, version=version)

    def __repr__(self) -> str:
        return f"<Wallet {self.version} {raw_address(self.address)}>"

    @property
    def friendly(self) -> str:
        """The address to give to people: not bounceable, so that it can be funded before it exists."""
        return friendly_address(
            self.address, bounceable=False, test_only=self.global_id != MAINNET_GLOBAL_ID
        )

    @property
    def state_init(self) -> Cell:
        """``StateInit`` cell; its hash is the account id."""
        return self._state_init

    def seqno(self, state: AccountState) -> int:
        """The sequence number that the next message must carry.

        Raises `ChainProofError` if the account has other code or another key than this wallet.
        """
        if not state.active or state.data is None:
            return 0
        if state.code_hash != CODE_HASHES[self.version]:
            raise ChainProofError("the wallet's account has other code")
        scheme = WalletV4Data if self.version is WalletVersion.V4R2 else WalletV5R1Data
        with proof_seam("wallet data"):
            data = scheme.deserialize(state.data.begin_parse())
            if data.public_key != self.public_key or data.wallet_id != self.wallet_id:
                raise ChainProofError("the wallet's account has another key")
            return int(data.seqno)

    def sign(
        self, transfers: Sequence[Transfer], *, seqno: int, valid_until: int, deploy: bool
    ) -> ExternalMessage:
        """A signed external message with 1 to `MAX_TRANSFERS` transfers.

        The wallet executes it at most once: only at sequence number `seqno` and only in a block whose
        time is below `valid_until` (Unix seconds). `deploy` adds the state init, for the first message.
        """
        if not 1 <= len(transfers) <= MAX_TRANSFERS:
            raise ConfigError(f"a wallet message holds 1 to {MAX_TRANSFERS} transfers")
        if not 0 <= valid_until < (1 << 32) - 1 or not 0 <= seqno < 1 << 32:
            raise ConfigError("seqno and valid_until are 32-bit numbers")
        messages = [internal_message(transfer) for transfer in transfers]
        build = self._body_v4 if self.version is WalletVersion.V4R2 else self._body_v5
        body = build(messages, seqno, valid_until)
        return external_message(self.address, body, self._state_init if deploy else None)

    def _body_v4(self, messages: list[Cell], seqno: int, valid_until: int) -> Cell:
        order = begin_cell().store_uint(self.wallet_id, 32).store_uint(valid_until, 32)
        order.store_uint(seqno, 32).store_uint(0, 8)
        for message in messages:
            order.store_uint(SEND_MODE, 8).store_ref(message)
        payload = order.end_cell()
        body: Cell = begin_cell().store_bytes(self._sign(payload)).store_cell(payload).end_cell()
        return body

    def _body_v5(self, messages: list[Cell], seqno: int, valid_until: int) -> Cell:
        actions = Cell.empty()
        for message in messages:
            action = begin_cell().store_ref(actions).store_uint(_ACTION_SEND, 32)
            actions = action.store_uint(SEND_MODE, 8).store_ref(message).end_cell()
        order: Builder = begin_cell().store_uint(_V5_SIGNED_EXTERNAL, 32).store_uint(self.wallet_id, 32)
        order.store_uint(valid_until, 32).store_uint(seqno, 32)
        payload = order.store_bit(1).store_ref(actions).store_bit(0).end_cell()
        body: Cell = begin_cell().store_cell(payload).store_bytes(self._sign(payload)).end_cell()
        return body

    def _sign(self, payload: Cell) -> bytes:
        return self._key.sign(payload.hash)

    def _initial_data(self) -> Cell:
        if self.version is WalletVersion.V4R2:
            v4 = WalletV4Data(seqno=0, wallet_id=self.wallet_id, public_key=self.public_key)
            return v4.serialize()
        v5 = WalletV5R1Data(seqno=0, wallet_id=self.wallet_id, public_key=self.public_key)
        return v5.serialize()


def faucet_wallet(network: NetworkConfig) -> Wallet:
    """The funded wallet of a development network. Raises `ConfigError` if the network has none."""
    faucet = network.faucet or {}
    version = WalletVersion(faucet.get("wallet", WalletVersion.V4R2))
    if "seed" in faucet:
        return Wallet(bytes.fromhex(faucet["seed"]), global_id=network.global_id, version=version)
    if "mnemonic" in faucet:
        mnemonic = parse_mnemonic(faucet["mnemonic"])
        return Wallet.from_mnemonic(mnemonic, global_id=network.global_id, version=version)
    raise ConfigError(f"network {network.name!r} has no faucet")


def _wallet_id(version: WalletVersion, global_id: int) -> int:
    if version is WalletVersion.V4R2:
        return _V4_WALLET_ID
    return (_V5_CONTEXT ^ global_id) & 0xFFFFFFFF
