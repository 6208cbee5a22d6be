"""The channel account: what a node can never get past it, whatever order receipts come in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cocoon_attestation.checks import CheckList
from cocoon_proxy.accounts import ChannelAccount


def failed(account: ChannelAccount, *, worst: int, amount: int, cumulative: int) -> set[str]:
    checks = CheckList()
    account.check_receipt(checks, worst=worst, amount=amount, cumulative=cumulative)
    return {check.id for check in checks.failed}


def test_alone_cumulative_is_exactly_previous_plus_amount() -> None:
    account = ChannelAccount(cap=100, cumulative=30, verified=30).reserve(50, 80)
    assert failed(account, worst=50, amount=7, cumulative=37) == set()
    assert failed(account, worst=50, amount=7, cumulative=38) == {"receipt.cumulative"}
    assert failed(account, worst=50, amount=7, cumulative=36) == {"receipt.cumulative"}
    assert failed(account, worst=50, amount=51, cumulative=81) == {"receipt.amount"}
    assert failed(account, worst=50, amount=0, cumulative=30) == set()


def test_a_lost_request_explains_a_gap_up_to_its_worst_case() -> None:
    account = ChannelAccount(cap=0).reserve(20, 20).lose(20).reserve(10, 30)
    assert failed(account, worst=10, amount=5, cumulative=25) == set()
    assert failed(account, worst=10, amount=5, cumulative=26) == {"receipt.cumulative"}
    settled = account.settle(10, 5, 25)
    assert settled.exposure == 25
    assert failed(settled.reserve(10, 40), worst=10, amount=5, cumulative=31) == {"receipt.cumulative"}


def test_receipts_may_come_in_another_order() -> None:
    account = ChannelAccount().reserve(10, 10).reserve(10, 20)
    assert failed(account, worst=10, amount=4, cumulative=9) == set()  # second in the enclave, first here
    account = account.settle(10, 4, 9)
    assert failed(account, worst=10, amount=5, cumulative=5) == set()
    assert failed(account, worst=10, amount=4, cumulative=4) == {"receipt.cumulative"}


@given(st.integers(0, 10**18), st.integers(0, 10**18), st.integers(0, 10**18), st.integers(0, 10**18))
def test_caps_never_go_down_and_cover_the_worst_case(
    cap: int, verified: int, lost: int, worst: int
) -> None:
    account = ChannelAccount(cap=cap, verified=verified, lost=lost)
    signed = account.cap_for(worst)
    assert signed >= cap
    assert signed >= verified + lost + worst


class Node(RuleBasedStateMachine):
    """An honest enclave and a client that loses some answers: no honest receipt is ever refused."""

    def __init__(self) -> None:
        super().__init__()
        self.account = ChannelAccount()
        self.used = 0
        self.open: list[int] = []
        self.done: list[tuple[int, int, int]] = []

    @rule(worst=st.integers(0, 1000))
    def ask(self, worst: int) -> None:
        self.account = self.account.reserve(worst, self.account.cap_for(worst))
        self.open.append(worst)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def serve(self, data: st.DataObject) -> None:
        worst = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        amount = data.draw(st.integers(0, worst))
        self.used += amount
        self.done.append((worst, amount, self.used))

    @precondition(lambda self: self.done)
    @rule(data=st.data(), lost=st.booleans())
    def receive(self, data: st.DataObject, lost: bool) -> None:
        worst, amount, cumulative = self.done.pop(data.draw(st.integers(0, len(self.done) - 1)))
        if lost:
            self.account = self.account.lose(worst)
            return
        assert failed(self.account, worst=worst, amount=amount, cumulative=cumulative) == set()
        self.account = self.account.settle(worst, amount, cumulative)

    @precondition(lambda self: self.open)
    @rule()
    def refuse(self) -> None:
        self.account = self.account.release(self.open.pop())

    @invariant()
    def the_cap_covers_what_was_used(self) -> None:
        assert self.used <= self.account.cap
        assert self.account.exposure <= self.account.cap


TestNode = Node.TestCase
