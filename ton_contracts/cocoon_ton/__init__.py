"""The ledger side: contracts' codecs, proved reads, wallet, outbox, and the development network."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cocoon_ton.chain import (
        AccountState,
        BlockRef,
        ChainReader,
        ChainWriter,
        LiteChain,
        TransactionInfo,
        TrustMode,
    )
    from cocoon_ton.channel import (
        ChannelIdentity,
        ChannelState,
        parse_channel,
    )
    from cocoon_ton.keystore import create_keystore, load_keystore
    from cocoon_ton.network import NetworkConfig, load_network
    from cocoon_ton.node import NodeState, parse_node
    from cocoon_ton.outbox import Outbox
    from cocoon_ton.proof.facts import verify_chain_facts
    from cocoon_ton.registry import (
        RegistryState,
        parse_registry,
        policy_from_registry,
    )
    from cocoon_ton.wallet import Wallet

_HOME = {
    "AccountState": "cocoon_ton.chain",
    "BlockRef": "cocoon_ton.chain",
    "ChainReader": "cocoon_ton.chain",
    "ChainWriter": "cocoon_ton.chain",
    "ChannelIdentity": "cocoon_ton.channel",
    "ChannelState": "cocoon_ton.channel",
    "LiteChain": "cocoon_ton.chain",
    "NetworkConfig": "cocoon_ton.network",
    "NodeState": "cocoon_ton.node",
    "Outbox": "cocoon_ton.outbox",
    "RegistryState": "cocoon_ton.registry",
    "TransactionInfo": "cocoon_ton.chain",
    "TrustMode": "cocoon_ton.chain",
    "Wallet": "cocoon_ton.wallet",
    "create_keystore": "cocoon_ton.keystore",
    "load_keystore": "cocoon_ton.keystore",
    "load_network": "cocoon_ton.network",
    "parse_channel": "cocoon_ton.channel",
    "parse_node": "cocoon_ton.node",
    "parse_registry": "cocoon_ton.registry",
    "policy_from_registry": "cocoon_ton.registry",
    "verify_chain_facts": "cocoon_ton.proof.facts",
}

__all__ = [
    "AccountState",
    "BlockRef",
    "ChainReader",
    "ChainWriter",
    "ChannelIdentity",
    "ChannelState",
    "LiteChain",
    "NetworkConfig",
    "NodeState",
    "Outbox",
    "RegistryState",
    "TransactionInfo",
    "TrustMode",
    "Wallet",
    "create_keystore",
    "load_keystore",
    "load_network",
    "parse_channel",
    "parse_node",
    "parse_registry",
    "policy_from_registry",
    "verify_chain_facts",
]


def __getattr__(name: str) -> object:
    """Import a public name from its module on first use, so that importing the package costs nothing."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
