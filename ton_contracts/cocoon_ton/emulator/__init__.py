"""TON's transaction executor and TVM in this process, for tests and the development chain.

The code is the emulator of the npm package ``@ton/sandbox``, run by wasmtime; see ``sandbox.py``.
Nothing that handles production money imports this package.
"""

from cocoon_ton.emulator.accounts import (
    EMPTY_ACCOUNT,
    AccountView,
    contract_address,
    external_message,
    internal_message,
    make_account,
    state_init,
    view_account,
)
from cocoon_ton.emulator.emulator import Emulator, GetMethodResult, McBlockId, PrevBlocks, method_id
from cocoon_ton.emulator.errors import EmulatorError, GetMethodError, MessageNotAcceptedError
from cocoon_ton.emulator.getters import LocalGetters
from cocoon_ton.emulator.sandbox import find_sandbox, load_sandbox
from cocoon_ton.emulator.testchain import SendResult, TestChain
from cocoon_ton.emulator.transaction import EmulatedTransaction, opcode

__all__ = [
    "EMPTY_ACCOUNT",
    "AccountView",
    "EmulatedTransaction",
    "Emulator",
    "EmulatorError",
    "GetMethodError",
    "GetMethodResult",
    "LocalGetters",
    "McBlockId",
    "MessageNotAcceptedError",
    "PrevBlocks",
    "SendResult",
    "TestChain",
    "contract_address",
    "external_message",
    "find_sandbox",
    "internal_message",
    "load_sandbox",
    "make_account",
    "method_id",
    "opcode",
    "state_init",
    "view_account",
]
