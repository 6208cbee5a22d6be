"""Which node is asked first, and which not at all."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cocoon_attestation.payment import PriceList
from cocoon_proxy.selection import BACKOFF_MAX_S, Candidate, NodeHealth, Ranking, Wanted, rank

MODEL, OTHER = b"\x01" * 32, b"\x02" * 32


def node(number: int, price: int = 100, models: frozenset[bytes] | None = frozenset({MODEL})) -> Candidate:
    prices = PriceList(prompt=price, cached=price // 10, completion=4 * price)
    return Candidate(node=bytes([number]) * 32, endpoint="h:1", prices=prices, models=models)


def ranked(*nodes: Candidate, wanted: Wanted | None = None, **options: object) -> Ranking:
    settings: dict[str, object] = {
        "health": {}, "connected": {}, "exclude": frozenset(), "now": 1000.0, "tie_break": lambda: 0.0,
    }  # fmt: skip
    return rank(nodes, wanted or Wanted(models=frozenset({MODEL})), **{**settings, **options})  # type: ignore[arg-type]


def test_the_cheapest_comes_first() -> None:
    assert ranked(node(1, 300), node(2, 100), node(3, 200)).order == (
        node(2, 100),
        node(3, 200),
        node(1, 300),
    )


def test_a_connected_node_is_kept_while_it_is_not_much_dearer() -> None:
    cheap, near, far = node(1, 100), node(2, 125), node(3, 130)
    assert ranked(cheap, near, connected={near.node: 0}).order[0] == near
    assert ranked(cheap, far, connected={far.node: 0}).order[0] == cheap


def test_among_equals_the_least_busy_and_then_chance() -> None:
    first, second = node(1), node(2)
    assert ranked(first, second, connected={first.node: 3, second.node: 1}).order[0] == second
    draws = iter((0.9, 0.1))
    assert ranked(first, second, tie_break=lambda: next(draws)).order[0] == second


def test_reasons_are_given_for_what_is_left_out() -> None:
    failing = NodeHealth().failed(1000.0, "node_busy")
    found = ranked(
        node(1), node(2, models=frozenset({OTHER})), node(3, 500), node(4), node(5, models=None),
        wanted=Wanted(models=frozenset({MODEL}), max_prompt_price=400, max_completion_price=1600),
        health={node(1).node: failing},
        exclude=frozenset({node(4).node}),
    )  # fmt: skip
    assert found.order == (node(5, models=None),)
    assert found.reasons == {
        "01" * 32: "failed recently (node_busy)",
        "02" * 32: "does not serve the model",
        "03" * 32: "prompt price above the limit",
        "04" * 32: "already tried",
    }
    dear = ranked(node(1, 100), wanted=Wanted(models=frozenset({MODEL}), max_completion_price=399))
    assert dear.reasons == {"01" * 32: "completion price above the limit"}


def test_back_off_doubles_and_ends() -> None:
    health, waits = NodeHealth(), []
    for _ in range(12):
        health = health.failed(0.0, "x")
        waits.append(health.retry_at)
    assert waits[:4] == [2, 4, 8, 16]
    assert max(waits) == BACKOFF_MAX_S
    assert NodeHealth().failed(0.0, "x", wait=300.0).retry_at == 300.0
    assert health.worked() == NodeHealth()


@given(st.lists(st.integers(1, 10**12), min_size=1, max_size=8), st.randoms())
def test_every_eligible_node_is_ranked_once(prices: list[int], random: object) -> None:
    nodes = [node(number, price) for number, price in enumerate(prices)]
    found = ranked(*nodes, tie_break=random.random)  # type: ignore[attr-defined]
    assert sorted(c.node for c in found.order) == sorted(c.node for c in nodes)
    assert found.order[0].prices.prompt == min(prices)
