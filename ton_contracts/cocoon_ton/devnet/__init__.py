"""A development chain: a one-validator TON network in this process, with a liteserver.

Real blocks, Merkle proofs, validator signatures and TVM; any client that speaks ADNL over TCP can use
it. It is for development and tests only, and nothing in production imports it.
"""

from cocoon_ton.devnet.control import send_command
from cocoon_ton.devnet.faults import Faults
from cocoon_ton.devnet.genesis import GenesisAccount
from cocoon_ton.devnet.network import Devnet

__all__ = ["Devnet", "Faults", "GenesisAccount", "send_command"]
