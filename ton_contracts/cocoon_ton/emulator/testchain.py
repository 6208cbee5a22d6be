"""A chain in memory for contract tests: accounts, messages, time. No blocks, no network."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, cast

from pytoniq_core import Address, Cell, MessageAny, begin_cell

from cocoon_ton.emulator.accounts import (
    EMPTY_ACCOUNT,
    NO_ACCOUNT,
    AccountView,
    contract_address,
    external_message,
    internal_message,
    make_account,
    state_init,
    view_account,
)
from cocoon_ton.emulator.emulator import Emulator, GetMethodResult, McBlockId, PrevBlocks
from cocoon_ton.emulator.errors import EmulatorError
from cocoon_ton.emulator.sandbox import ConfigName
from cocoon_ton.emulator.stack import StackInput, StackValue
from cocoon_ton.emulator.transaction import EmulatedTransaction

DEFAULT_NOW: Final = 1_790_000_000
DEFAULT_BALANCE: Final = 1_000_000 * 10**9
_LT_STEP: Final = 1_000_000
_MAX_TRANSACTIONS: Final = 1000
_EMPTY: Final = begin_cell().end_cell()


@dataclass(frozen=True, slots=True, kw_only=True)
class SendResult:
    """The transactions that one message caused, in order; the first is on its destination."""

    transactions: tuple[EmulatedTransaction, ...]

    def __iter__(self) -> Iterator[EmulatedTransaction]:
        return iter(self.transactions)

    def __len__(self) -> int:
        return len(self.transactions)

    def __getitem__(self, index: int) -> EmulatedTransaction:
        return self.transactions[index]

    @property
    def first(self) -> EmulatedTransaction:
        """The transaction on the destination of the message."""
        return self.transactions[0]

    @property
    def exit_codes(self) -> list[int | None]:
        """Exit code of each transaction."""
        return [t.exit_code for t in self.transactions]

    @property
    def success(self) -> bool:
        """Whether every transaction succeeded."""
        return all(t.success for t in self.transactions)

    @property
    def gas_used(self) -> int:
        """Gas of all transactions."""
        return sum(t.gas_used for t in self.transactions)

    @property
    def fees(self) -> int:
        """All that was burned or collected, in nanoton."""
        return sum(t.fees for t in self.transactions)

    @property
    def events(self) -> list[Cell]:
        """Bodies of all external out-messages, in order."""
        return [body for t in self.transactions for body in t.events]

    def on(self, address: Address, opcode: int | None = None) -> list[EmulatedTransaction]:
        """The transactions of one account, with one opcode if given."""
        return [t for t in self.transactions if t.address == address and opcode in (None, t.in_opcode)]


class TestChain:
    """Accounts and virtual time around one `Emulator`.

    A message runs at once, and so do the messages that it causes, in logical-time order. Time moves
    only by `warp`. The sum of all balances plus `collected_fees` always equals `minted`: values enter
    by `fund`, `treasury`, `add_account` and by the value of `send_internal` (the sender is not
    debited; use `send_from` for that).
    """

    __test__ = False  # not a class of tests

    def __init__(
        self,
        *,
        config: Cell | ConfigName = "slim",
        now: int = DEFAULT_NOW,
        emulator: Emulator | None = None,
    ) -> None:
        self.emulator = emulator or Emulator(config)
        self.now = now
        self.lt = _LT_STEP
        self.minted = 0
        self.collected_fees = 0
        self.libraries: Cell | None = None
        self._accounts: dict[Address, Cell] = {}
        self._last_block = 2000
        self._prev: PrevBlocks | None = None

    # ---- accounts

    def shard_account(self, address: Address) -> Cell:
        """The ``ShardAccount`` cell; an empty one if there is no account."""
        return cast(Cell, self._accounts.get(address, EMPTY_ACCOUNT))

    def account(self, address: Address) -> AccountView:
        """What the account holds."""
        return view_account(self.shard_account(address))

    def balance(self, address: Address) -> int:
        """Balance in nanoton, 0 for no account."""
        return self.account(address).balance

    def addresses(self) -> tuple[Address, ...]:
        """All accounts that exist."""
        return tuple(self._accounts)

    def total_balance(self) -> int:
        """Sum of all balances."""
        return sum(view_account(account).balance for account in self._accounts.values())

    def add_account(
        self, address: Address, balance: int, *, code: Cell | None = None, data: Cell | None = None
    ) -> None:
        """Put an account there, in place of the one that was."""
        self.minted += balance - self.balance(address)
        self._accounts[address] = make_account(address, balance, self.now, code=code, data=data)

    def treasury(self, name: str = "treasury", balance: int = DEFAULT_BALANCE) -> Address:
        """An account that accepts every internal message and does nothing; same name, same address."""
        data = begin_cell().store_bytes(hashlib.sha256(name.encode()).digest()).end_cell()
        address = contract_address(_EMPTY, data)
        if address not in self._accounts:
            self.add_account(address, balance, code=_EMPTY, data=data)
        return address

    # ---- messages

    def send_internal(
        self,
        destination: Address,
        value: int,
        body: Cell | None = None,
        *,
        sender: Address,
        init: Cell | None = None,
        bounce: bool = True,
    ) -> SendResult:
        """Deliver a message that comes from `sender`, with new money; run all that it causes."""
        self.minted += value
        message = internal_message(
            source=sender,
            destination=destination,
            value=value,
            body=body,
            init=init,
            bounce=bounce,
            created_lt=self.lt,
            created_at=self.now,
        )
        return self.send_message(message)

    def send_from(
        self,
        sender: Address,
        destination: Address,
        value: int,
        body: Cell | None = None,
        *,
        init: Cell | None = None,
        bounce: bool = True,
    ) -> SendResult:
        """Like `send_internal`, and take the value from the balance of the treasury `sender`."""
        view = self.account(sender)
        if view.balance < value:
            raise EmulatorError(f"{sender} holds {view.balance}, not {value}")
        self.add_account(sender, view.balance - value, code=view.code, data=view.data)
        return self.send_internal(destination, value, body, sender=sender, init=init, bounce=bounce)

    def send_external(
        self, destination: Address, body: Cell | None = None, *, init: Cell | None = None
    ) -> SendResult:
        """Deliver an external message. Raises MessageNotAcceptedError and changes nothing if refused."""
        return self.send_message(external_message(destination, body, init))

    def deploy(
        self, code: Cell, data: Cell, value: int, body: Cell | None = None, *, sender: Address
    ) -> tuple[Address, SendResult]:
        """Send the message that deploys a contract; returns its address too."""
        address = contract_address(code, data)
        return address, self.send_internal(address, value, body, sender=sender, init=state_init(code, data))

    def send_message(self, message: Cell) -> SendResult:
        """Deliver a message cell and run all that it causes."""
        queue = deque([message])
        done: list[EmulatedTransaction] = []
        while queue:
            if len(done) >= _MAX_TRANSACTIONS:
                raise EmulatorError("more than 1000 transactions from one message")
            result = self._apply(queue.popleft())
            done.append(result)
            queue.extend(
                cell
                for cell, parsed in zip(result.out_messages, result.outgoing, strict=True)
                if parsed.is_internal
            )
        self.lt += _LT_STEP
        return SendResult(transactions=tuple(done))

    def _apply(self, message: Cell) -> EmulatedTransaction:
        address = MessageAny.deserialize(message.begin_parse()).info.dest
        result = self.emulator.transaction(
            self.shard_account(address),
            message,
            self.now,
            self.lt,
            libraries=self.libraries,
            prev_blocks=self.prev_blocks,
        )
        self.lt = result.end_lt + 1
        self.collected_fees += result.fees
        if result.shard_account.refs[0].hash == NO_ACCOUNT.hash:
            self._accounts.pop(address, None)
        else:
            self._accounts[address] = result.shard_account
        return result

    # ---- getters

    def run_getter(
        self, address: Address, method: str | int, stack: Sequence[StackInput] = ()
    ) -> GetMethodResult:
        """Run a getter on the present state. EmulatorError if the account has no code."""
        view = self.account(address)
        if view.code is None or view.data is None:
            raise EmulatorError(f"{address} has no code")
        return self.emulator.get_method(
            view.code,
            view.data,
            method,
            stack,
            address=address,
            now=self.now,
            balance=view.balance,
            libraries=self.libraries,
            prev_blocks=self.prev_blocks,
        )

    def get(self, address: Address, method: str | int, *arguments: StackInput) -> list[StackValue]:
        """The stack that a getter leaves. Raises GetMethodError for an exit code but 0 and 1."""
        return self.run_getter(address, method, arguments).unwrap()

    # ---- time

    def warp(self, seconds: int) -> None:
        """Move time forward; a masterchain block passes for every second."""
        if seconds < 0:
            raise ValueError("time only moves forward")
        self.now += seconds
        self.add_blocks(seconds)

    @property
    def mc_blocks(self) -> Sequence[McBlockId]:
        """The masterchain blocks that contracts can know, oldest first. Their hashes are made up."""
        return [_fake_block(seqno) for seqno in range(1, self._last_block + 1)]

    def add_blocks(self, count: int) -> None:
        """Let masterchain blocks pass without time."""
        self._last_block += count
        self._prev = None

    @property
    def prev_blocks(self) -> PrevBlocks:
        """What a contract learns of the masterchain now."""
        if self._prev is None:
            last = self._last_block
            hundreds = range(last // 100 * 100, 0, -100)[:16]
            self._prev = PrevBlocks(
                last=tuple(_fake_block(seqno) for seqno in range(last, last - 16, -1)),
                key=_fake_block(1),
                last_100=tuple(_fake_block(seqno) for seqno in hundreds),
            )
        return self._prev


@lru_cache(maxsize=10_000)
def _fake_block(seqno: int) -> McBlockId:
    return McBlockId(
        seqno=seqno,
        root_hash=hashlib.sha256(b"root %d" % seqno).digest(),
        file_hash=hashlib.sha256(b"file %d" % seqno).digest(),
    )
