"""The wallet behind the payments: once per name, whatever fails, and one sender at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pytoniq_core import Address, Cell

from cocoon_attestation.errors import ConfigError, PaymentError, UnavailableError
from cocoon_proxy import treasury
from cocoon_proxy.treasury import WalletTreasury
from cocoon_ton.errors import ChainUnavailableError, InsufficientFundsError
from cocoon_ton.outbox import OperationState, OperationStatus
from cocoon_ton.wallet import Wallet

TON = 10**9
TO = Address((0, b"\x05" * 32))


@dataclass
class Book:
    """What the fake outbox remembers, and what happens to its operations."""

    states: dict[str, OperationState]
    step: Callable[[Book], None] = lambda book: book.finish(OperationState.SEEN)
    held: int = 0

    def finish(self, state: OperationState) -> None:
        for name, known in self.states.items():
            if not known.final:
                self.states[name] = state


class FakeOutbox:
    """Stands for `cocoon_ton.outbox.Outbox`, whose own tests cover crashes."""

    book = Book({})

    def __init__(self, path: Path, wallet: Wallet, chain: Any) -> None:
        pass

    async def __aenter__(self) -> FakeOutbox:
        if self.book.held:
            self.book.held -= 1
            raise ConfigError("another process uses this wallet's outbox")
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def enqueue(self, name: str, operation: object) -> None:
        self.book.states.setdefault(name, OperationState.QUEUED)

    def status(self, name: str) -> OperationStatus:
        if name not in self.book.states:
            raise ConfigError("unknown")
        return OperationStatus(
            key=name, state=self.book.states[name], tx_lt=None, tx_hash=None, message_hash=None, error="why"
        )

    async def step(self) -> None:
        self.book.step(self.book)


class Chain:
    """Only a balance."""

    def __init__(self, balance: int) -> None:
        self.value = balance

    async def account(self, addr: Address, at: object = None) -> Any:
        return type("State", (), {"balance": self.value})()


@pytest.fixture
def book(monkeypatch: pytest.MonkeyPatch) -> Book:
    monkeypatch.setattr(FakeOutbox, "book", Book({}))
    monkeypatch.setattr(treasury, "Outbox", FakeOutbox)
    monkeypatch.setattr(treasury, "_STEP_S", 0.01)
    return FakeOutbox.book


def make(balance: int = 10 * TON, fund: Callable[[int], Awaitable[int]] | None = None) -> WalletTreasury:
    wallet = Wallet(bytes(32), global_id=-3)
    chain: Any = Chain(balance)
    return WalletTreasury(wallet, outbox=Path("unused"), chain=chain, fund=fund, timeout_s=0.2)  # type: ignore[arg-type]


async def pay(found: WalletTreasury, amount: int = TON) -> None:
    await found.transfer("k", to=TO, amount=amount, body=Cell.empty())


async def test_a_name_is_carried_out_once(book: Book) -> None:
    found = make()
    await pay(found)
    await pay(found)
    assert book.states == {"k": OperationState.SEEN}
    assert await found.balance() == 10 * TON


async def test_a_poor_wallet_stores_nothing_and_names_its_address(book: Book) -> None:
    found = make(balance=TON)
    with pytest.raises(InsufficientFundsError) as caught:
        await pay(found)
    assert str(caught.value.details["address"]) in caught.value.hint
    assert book.states == {}


async def test_the_faucet_is_asked_when_there_is_one(book: Book) -> None:
    asked: list[int] = []

    async def fund(amount: int) -> int:
        asked.append(amount)
        return 100 * TON

    await pay(make(balance=0, fund=fund))
    assert asked == [treasury.FAUCET_AMOUNT]
    assert book.states == {"k": OperationState.SEEN}


async def test_a_failed_transfer_gets_a_new_name_next_time(book: Book) -> None:
    book.step = lambda b: b.finish(OperationState.FAILED)
    found = make()
    with pytest.raises(PaymentError, match="why"):
        await pay(found)
    book.step = lambda b: b.finish(OperationState.SEEN)
    await pay(found)
    assert book.states == {"k": OperationState.FAILED, "k#1": OperationState.SEEN}
    book.states = dict.fromkeys(("k", "k#1", "k#2", "k#3", "k#4"), OperationState.FAILED)
    with pytest.raises(PaymentError, match="repeatedly"):
        await pay(found)


async def test_a_transfer_that_is_not_seen_can_be_waited_for_again(book: Book) -> None:
    def away(_: Book) -> None:
        raise ChainUnavailableError("gone")

    book.step = away
    found = make()
    with pytest.raises(UnavailableError):
        await pay(found)
    assert book.states == {"k": OperationState.QUEUED}
    book.step = lambda b: b.finish(OperationState.SEEN)
    await pay(found)
    assert book.states == {"k": OperationState.SEEN}


async def test_it_waits_while_another_process_sends(book: Book) -> None:
    book.held = 3
    await asyncio.gather(pay(make()), pay(make()))
    assert book.states == {"k": OperationState.SEEN}
