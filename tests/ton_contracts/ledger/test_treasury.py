"""The treasury on the real wallet contract: once per key, batches, refusals, and what a crash left."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pytoniq_core import Address, Cell

from cocoon_attestation.errors import ConfigError, PaymentError, UnavailableError
from cocoon_ton import treasury as module
from cocoon_ton.errors import InsufficientFundsError, MessageFailedError, OutboxBusyError
from cocoon_ton.outbox import OperationState, Outbox
from cocoon_ton.outbox.sender import FEE_RESERVE
from cocoon_ton.treasury import Payment, WalletTreasury

from .emulated import EmulatedChain
from .test_outbox import BOB, CAROL, CONTRACT, WALLET, chain, order, received

__all__ = ["chain"]
TON = 10**9


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_STEP_S", 0.005)


@pytest.fixture
async def ticking(chain: EmulatedChain) -> AsyncIterator[EmulatedChain]:
    """The chain makes blocks by itself."""

    async def tick() -> None:
        while True:
            chain.block()
            await asyncio.sleep(0.01)

    task = asyncio.create_task(tick())
    yield chain
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def treasury(chain: EmulatedChain, directory: Path, timeout_s: float = 5.0) -> WalletTreasury:
    return WalletTreasury(WALLET, outbox=directory / "outbox.sqlite", chain=chain, timeout_s=timeout_s)


def gift(amount: int, key: str = "", to: Address = BOB, *, bounce: bool = False) -> Payment:
    return Payment(key=key or f"gift:{amount}", to=to, value=amount, body=Cell.empty(), bounce=bounce)


async def test_a_key_is_paid_once_and_tells_the_receivers_transaction(
    ticking: EmulatedChain, tmp_path: Path
) -> None:
    found = treasury(ticking, tmp_path)
    before = await found.balance()
    (first,) = await found.pay_all([gift(5)])
    (again,) = await treasury(ticking, tmp_path).pay_all([gift(5)])
    assert first == again
    assert not isinstance(first, PaymentError)
    assert (first.address, first.in_msg and first.in_msg.value) == (BOB, 5)
    assert received(ticking) == [5]
    assert await found.balance() < before


async def test_four_payments_travel_in_one_message(ticking: EmulatedChain, tmp_path: Path) -> None:
    results = await treasury(ticking, tmp_path).pay_all([gift(n) for n in range(1, 7)])
    assert not any(isinstance(result, PaymentError) for result in results)
    assert sorted(received(ticking)) == [1, 2, 3, 4, 5, 6]
    sent = [len(t.out_msgs) for t in reversed(ticking.history[WALLET.address])]
    assert sent == [4, 2]


async def test_a_refusal_is_told_and_the_next_call_tries_again(
    ticking: EmulatedChain, tmp_path: Path
) -> None:
    """A bounceable message to an account that is not there comes back."""
    found = treasury(ticking, tmp_path)
    with pytest.raises(MessageFailedError, match="open: refused") as caught:
        await found.pay(key="open/1", to=BOB, value=TON, body=Cell.empty())
    assert caught.value.exit_code == 50
    with pytest.raises(MessageFailedError):
        await found.pay(key="open/1", to=BOB, value=TON, body=Cell.empty())
    async with Outbox(tmp_path / "outbox.sqlite", WALLET, ticking) as outbox:
        assert [outbox.find(name) is not None for name in ("open/1", "open/1#1", "open/1#2")] == [
            True, True, False,
        ]  # fmt: skip
    for _ in range(6):
        with pytest.raises(MessageFailedError):
            await found.pay(key="open/1", to=BOB, value=TON, body=Cell.empty())
    with pytest.raises(PaymentError, match="repeatedly"):
        await found.pay(key="open/1", to=BOB, value=TON, body=Cell.empty())
    await asyncio.sleep(0.05)
    # Every refusal came back: only fees are gone.
    assert await found.balance() > 1000 * TON - 8 * FEE_RESERVE


async def test_one_refusal_of_several_leaves_the_others_alone(
    ticking: EmulatedChain, tmp_path: Path
) -> None:
    good, bad, other = await treasury(ticking, tmp_path).pay_all(
        [gift(1), gift(TON, to=CAROL, bounce=True), gift(2)]
    )
    assert not isinstance(good, PaymentError)
    assert isinstance(bad, MessageFailedError)
    assert not isinstance(other, PaymentError)
    assert received(ticking) == [1, 2]


async def test_a_poor_wallet_stores_nothing_and_names_its_address(
    chain: EmulatedChain, tmp_path: Path
) -> None:
    found = treasury(chain, tmp_path)
    with pytest.raises(InsufficientFundsError) as caught:
        await found.pay_all([gift(600 * TON), gift(400 * TON)])
    assert WALLET.friendly in caught.value.hint
    assert caught.value.details["needed"] == 1000 * TON + 2 * FEE_RESERVE
    async with Outbox(tmp_path / "outbox.sqlite", WALLET, chain) as outbox:
        assert outbox.pending == 0


async def test_the_faucet_is_asked_for_what_is_missing(ticking: EmulatedChain, tmp_path: Path) -> None:
    asked: list[int] = []

    async def fund(need: int) -> int:
        asked.append(need)
        view = ticking.chain.account(WALLET.address)
        ticking.chain.add_account(WALLET.address, 5000 * TON, code=view.code, data=view.data)
        ticking.block()
        return 5000 * TON

    rich = WalletTreasury(WALLET, outbox=tmp_path / "outbox.sqlite", chain=ticking, fund=fund)
    await rich.pay_all([gift(1200 * TON)])
    assert asked == [1200 * TON + FEE_RESERVE]
    assert received(ticking) == [1200 * TON]


async def test_a_payment_that_is_not_seen_can_be_waited_for_again(
    chain: EmulatedChain, tmp_path: Path
) -> None:
    with pytest.raises(UnavailableError, match="not seen"):
        await treasury(chain, tmp_path, timeout_s=0.05).pay_all([gift(5)])
    chain.block()  # the wallet sends it now
    later = treasury(chain, tmp_path)
    await later.resume()
    assert received(chain) == [5]
    await later.pay_all([gift(5)])
    assert received(chain) == [5]


async def test_resume_finishes_what_was_begun_and_waits_for_its_arrival(
    ticking: EmulatedChain, tmp_path: Path
) -> None:
    untouched = treasury(ticking, tmp_path)
    await untouched.resume()
    assert not (tmp_path / "outbox.sqlite").exists()
    async with Outbox(tmp_path / "outbox.sqlite", WALLET, ticking) as outbox:
        for n in (1, 2):
            outbox.enqueue(f"gift:{n}", gift(n).operation)
    await untouched.resume()
    assert received(ticking) == [1, 2]
    async with Outbox(tmp_path / "outbox.sqlite", WALLET, ticking) as outbox:
        assert outbox.pending == 0
        assert [to for to, _ in outbox.last_emitted()] == [BOB, BOB]


async def test_an_external_message_is_executed_or_refused(ticking: EmulatedChain, tmp_path: Path) -> None:
    from cocoon_ton.messages import ExternalMessage

    found = treasury(ticking, tmp_path)
    asked = order(ticking, 7, valid_for=10_000)
    assert isinstance(asked.message, ExternalMessage)
    with pytest.raises(MessageFailedError, match="anchor: it was not executed in time"):
        # a body that the contract never accepts
        await found.send_external(key="anchor:1", to=CONTRACT.address, body=Cell.empty())
    async with Outbox(tmp_path / "outbox.sqlite", WALLET, ticking) as outbox:
        assert outbox.pending == 0


async def test_it_waits_while_another_process_sends(ticking: EmulatedChain, tmp_path: Path) -> None:
    async with Outbox(tmp_path / "outbox.sqlite", WALLET, ticking):
        with pytest.raises(OutboxBusyError):
            await treasury(ticking, tmp_path, timeout_s=0.03).pay_all([gift(1)])
        waiting = asyncio.create_task(treasury(ticking, tmp_path).pay_all([gift(1)]))
        await asyncio.sleep(0.05)
        assert received(ticking) == []
    await waiting
    await asyncio.gather(*(treasury(ticking, tmp_path).pay_all([gift(n)]) for n in (2, 3)))
    assert sorted(received(ticking)) == [1, 2, 3]


async def test_a_key_names_one_payment(ticking: EmulatedChain, tmp_path: Path) -> None:
    found = treasury(ticking, tmp_path)
    await found.pay_all([gift(1, "same")])
    with pytest.raises(Exception, match="in use"):
        await found.pay_all([gift(2, "same")])
    assert received(ticking) == [1]


async def test_an_outbox_without_the_message_is_damaged(ticking: EmulatedChain, tmp_path: Path) -> None:
    found = treasury(ticking, tmp_path)
    await found.pay_all([gift(1)])
    async with Outbox(tmp_path / "outbox.sqlite", WALLET, ticking) as outbox:
        assert outbox.status("gift:1").state is OperationState.SEEN
        assert outbox._store is not None
        outbox._store._db.execute("UPDATE operations SET message_hash = NULL")
    with pytest.raises(ConfigError, match="inconsistent"):
        await found.pay_all([gift(1)])
