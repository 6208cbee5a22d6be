"""What the host agent does next, as a pure function."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoon_attestation.payment import PriceList
from cocoon_enclave.host.plan import (
    Anchor,
    Attest,
    ChallengeView,
    ClaimView,
    EnclaveView,
    HostTerms,
    Join,
    NodeView,
    Respond,
    Settle,
    TopUp,
    UpdateTerms,
    decide,
)

NOW = 1_800_000_000
PRICES = PriceList(prompt=1, cached=1, completion=2)
CURRENT, PREVIOUS, NEXT = b"c" * 32, b"p" * 32, b"n" * 32
TERMS = HostTerms(endpoint="127.0.0.1:1", prices=PRICES, stake=10**9)
ENCLAVE = EnclaveView(
    binding_hash=CURRENT, binding_until=NOW + 80_000, tree_size=5, anchor_by=0, ready=True
)
NODE = NodeView(
    joined=True,
    working_balance=10**9,
    endpoint=TERMS.endpoint,
    prices=PRICES,
    current_binding=CURRENT,
    previous_binding=PREVIOUS,
    attested_until=NOW + 80_000,
    anchored_size=5,
    anchored_at=NOW - 10,
)
CLAIM = ClaimView(
    channel=b"1" * 32,
    used=300_000_000,
    cap=400_000_000,
    paid=0,
    balance=10**9,
    close_at=0,
    valid_until=NOW + 80_000,
    binding_hash=CURRENT,
)


def test_nothing_is_due() -> None:
    assert decide(TERMS, ENCLAVE, NODE, (), NOW) == ()


def test_join_comes_before_everything() -> None:
    assert decide(TERMS, ENCLAVE, replace(NODE, joined=False), (CLAIM,), NOW) == (Join(),)


def test_the_node_is_given_money_for_anchors_before_it_runs_out() -> None:
    poor = replace(NODE, working_balance=99_999_999)
    assert decide(TERMS, ENCLAVE, poor, (), NOW) == (TopUp(),)
    # what was earned may be what pays for it
    assert decide(TERMS, ENCLAVE, poor, (CLAIM,), NOW) == (Settle(CLAIM.channel), TopUp())
    assert TopUp() not in decide(TERMS, ENCLAVE, replace(NODE, working_balance=100_000_000), (CLAIM,), NOW)


def test_a_node_that_joins_or_leaves_is_left_alone() -> None:
    assert decide(TERMS, ENCLAVE, replace(NODE, joined=False, waiting=True), (), NOW) == ()


def test_dust_under_a_leaving_key_does_not_hold_the_new_binding_up() -> None:
    dust = replace(CLAIM, used=4_999_999, binding_hash=PREVIOUS)
    assert decide(TERMS, replace(ENCLAVE, binding_hash=NEXT), NODE, (dust,), NOW) == (Attest(),)


def test_an_enclave_that_is_not_ready_waits() -> None:
    assert decide(TERMS, replace(ENCLAVE, ready=False), NODE, (CLAIM,), NOW) == ()


def test_a_new_binding_is_recorded() -> None:
    assert decide(TERMS, replace(ENCLAVE, binding_hash=NEXT), NODE, (), NOW) == (Attest(),)


def test_claims_under_a_leaving_key_are_settled_before_it_leaves() -> None:
    claim = replace(CLAIM, binding_hash=PREVIOUS)
    fresh = replace(ENCLAVE, binding_hash=NEXT)
    assert decide(TERMS, fresh, NODE, (claim,), NOW) == (Settle(claim.channel),)
    # Once collected (or if the channel is empty) the rotation goes on.
    assert decide(TERMS, fresh, NODE, (replace(claim, paid=claim.used),), NOW) == (Attest(),)
    assert decide(TERMS, fresh, NODE, (replace(claim, balance=0),), NOW) == (Attest(),)


def test_claims_under_the_current_key_do_not_delay_a_rotation() -> None:
    assert decide(TERMS, replace(ENCLAVE, binding_hash=NEXT), NODE, (CLAIM,), NOW) == (Attest(),)


def test_evidence_is_renewed_before_it_expires() -> None:
    assert decide(TERMS, ENCLAVE, replace(NODE, attested_until=NOW + 60), (), NOW) == (Attest(),)


def test_evidence_that_cannot_be_renewed_is_left_alone() -> None:
    node, enclave = replace(NODE, attested_until=NOW + 60), replace(ENCLAVE, binding_until=NOW + 60)
    assert decide(TERMS, enclave, node, (), NOW) == ()


def test_changed_terms_are_published() -> None:
    assert decide(TERMS, ENCLAVE, replace(NODE, endpoint="other:1"), (), NOW) == (UpdateTerms(),)


@pytest.mark.parametrize(
    ("enclave", "node", "due"),
    [
        (replace(ENCLAVE, tree_size=6), NODE, False),
        (replace(ENCLAVE, tree_size=6), replace(NODE, anchored_at=NOW - 600), True),
        (replace(ENCLAVE, tree_size=6, anchor_by=NOW + 120), NODE, True),
        (replace(ENCLAVE, tree_size=6, anchor_by=NOW + 121), NODE, False),
        (ENCLAVE, replace(NODE, anchored_at=0), False),
    ],
)
def test_anchor_by_age_or_deadline(enclave: EnclaveView, node: NodeView, due: bool) -> None:
    assert (Anchor() in decide(TERMS, enclave, node, (), NOW)) is due


@pytest.mark.parametrize(
    ("claim", "due"),
    [
        (CLAIM, True),
        (replace(CLAIM, used=1), False),
        (replace(CLAIM, used=5_000_000, close_at=NOW + 5), True),
        (replace(CLAIM, used=4_999_999, close_at=NOW + 5), False),
        (replace(CLAIM, used=5_000_000, valid_until=NOW + 60), True),
        (replace(CLAIM, used=4_999_999, valid_until=NOW + 60), False),
        (replace(CLAIM, valid_until=NOW), False),
        (replace(CLAIM, used=5_000_000, binding_hash=PREVIOUS), True),
        (replace(CLAIM, used=4_999_999, binding_hash=PREVIOUS), False),
        (replace(CLAIM, binding_hash=NEXT), False),
        (replace(CLAIM, paid=300_000_000), False),
        (replace(CLAIM, balance=0), False),
    ],
)
def test_settle(claim: ClaimView, due: bool) -> None:
    assert (decide(TERMS, ENCLAVE, NODE, (claim,), NOW) == (Settle(claim.channel),)) is due


def test_draining_anchors_and_collects_everything() -> None:
    claim = replace(CLAIM, used=5_000_000)
    actions = decide(TERMS, replace(ENCLAVE, tree_size=6), NODE, (claim,), NOW, drain=True)
    assert actions == (Anchor(), Settle(claim.channel))


amounts = st.integers(min_value=0, max_value=2**60)


@given(used=amounts, cap=amounts, paid=amounts, balance=amounts)
def test_due_never_exceeds_what_was_signed_or_held(used: int, cap: int, paid: int, balance: int) -> None:
    claim = replace(CLAIM, used=used, cap=cap, paid=paid, balance=balance)
    assert 0 <= claim.due <= balance
    assert paid + claim.due <= max(paid, min(used, cap))


CHALLENGE = ChallengeView(receipt_hash=b"r" * 32, index=3, tree_size=5, root=b"t" * 32, deadline=NOW + 100)


def test_challenges_are_answered_before_everything() -> None:
    later = replace(CHALLENGE, deadline=NOW + 200)
    node = replace(NODE, challenges=(later, CHALLENGE), working_balance=0)
    assert decide(TERMS, ENCLAVE, node, (), NOW) == (Respond(CHALLENGE), Respond(later), TopUp())


@pytest.mark.parametrize(
    "node",
    [
        replace(NODE, joined=False, waiting=True),
        replace(NODE, joined=False, waiting=True, current_binding=b"", previous_binding=b""),
        replace(NODE, current_binding=NEXT),
    ],
)
def test_challenges_are_answered_in_every_state_of_the_bond(node: NodeView) -> None:
    actions = decide(TERMS, replace(ENCLAVE, ready=False), replace(node, challenges=(CHALLENGE,)), (), NOW)
    assert actions[0] == Respond(CHALLENGE)


def test_an_answer_that_comes_too_late_is_not_paid_for() -> None:
    node = replace(NODE, challenges=(CHALLENGE,))
    assert decide(TERMS, ENCLAVE, node, (), CHALLENGE.deadline) == (Respond(CHALLENGE),)
    assert decide(TERMS, ENCLAVE, node, (), CHALLENGE.deadline + 1) == ()


def test_a_node_that_left_still_anchors_and_collects() -> None:
    leaving = replace(NODE, joined=False, waiting=True)
    grown = replace(ENCLAVE, tree_size=6, anchor_by=NOW + 60)
    assert decide(TERMS, grown, leaving, (CLAIM,), NOW) == (Settle(CLAIM.channel), Anchor())
    poor = replace(leaving, working_balance=1)
    assert decide(TERMS, grown, poor, (), NOW) == (TopUp(),)
    assert decide(TERMS, ENCLAVE, poor, (), NOW) == ()
    assert decide(TERMS, replace(grown, ready=False), leaving, (), NOW) == ()


def test_a_node_that_waits_for_its_first_answer_does_nothing() -> None:
    joining = replace(NODE, joined=False, waiting=True, current_binding=b"", previous_binding=b"")
    assert decide(TERMS, replace(ENCLAVE, tree_size=6, anchor_by=NOW + 60), joining, (), NOW) == ()


def test_a_node_that_closes_its_channels_settles_them_for_good() -> None:
    found = decide(TERMS, ENCLAVE, NODE, (CLAIM,), NOW, drain=True, close=True)
    assert found == (Settle(CLAIM.channel, final=True),)
    assert decide(TERMS, ENCLAVE, NODE, (CLAIM,), NOW, drain=True) == (Settle(CLAIM.channel),)
    dust = replace(CLAIM, used=1)
    assert decide(TERMS, ENCLAVE, NODE, (dust,), NOW, drain=True, close=True) == ()
