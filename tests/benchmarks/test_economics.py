"""The economics benchmark in a short time: every cheat pays less than honesty, and who is attacked loses nothing."""

from __future__ import annotations

import dataclasses
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import pytest

from cocoon_ton.emulator import Emulator
from cocoon_ton.registry_messages import check_parameters

if TYPE_CHECKING:
    from benchmarks.economics_world import DEVELOPMENT, RECOMMENDED, TON, EconomyWorld

    from benchmarks import economics, economics_play, economics_plot
else:
    import economics
    import economics_play
    import economics_plot
    from economics_world import DEVELOPMENT, RECOMMENDED, TON, EconomyWorld

SHORT = dataclasses.replace(economics.QUICK, answers_per_day=300, clients=4, unused_cap=5_000_000)
"""So little is earned in two days that the caps of four clients must be small, too."""


@pytest.fixture(scope="module")
def emulator(sandbox: None) -> Emulator:
    """One for all plays."""
    return Emulator()


@pytest.fixture(scope="module")
def rows(emulator: Emulator) -> dict[str, dict[str, Any]]:
    """All lives under the recommended parameters."""
    return {row["play"]: row for row in economics.compare(emulator, RECOMMENDED, SHORT)}


def test_honesty_pays(rows: dict[str, dict[str, Any]]) -> None:
    assert rows["honest"]["gain_ton"] > 0
    assert rows["honest"]["gain_ton"] > rows["leave early"]["gain_ton"]
    assert rows["honest"]["penalties"] == 0


@pytest.mark.parametrize("line", economics.COMPARISONS, ids=lambda line: line.play + " " + line.who)
def test_cheats_lose_and_victims_do_not(
    line: economics.Comparison, rows: dict[str, dict[str, Any]]
) -> None:
    row = rows[line.name]
    assert row["holds"], row
    if line.victim:
        assert row["difference_ton"] > -0.05
        assert row["penalties"] == 0
    elif line.must_lose:
        assert row["difference_ton"] < 0


def test_what_parameters_cannot_prevent_is_bounded(rows: dict[str, dict[str, Any]]) -> None:
    overcharge = rows["overcharge when leaving anyway"]
    assert overcharge["difference_ton"] < SHORT.clients * SHORT.unused_cap / TON, "the caps of the clients"
    asleep = rows["capture governance: attacker, host asleep"]
    assert 0 < asleep["gain_ton"] < RECOMMENDED.min_stake / TON, "the stake of who does not answer"
    assert rows["grief: attacked host"]["challenges_answered"] > 0


def test_each_receipt_that_is_looked_for_costs_a_penalty_until_the_stake_is_gone(
    emulator: Emulator,
) -> None:
    short = dataclasses.replace(SHORT, days=1)
    lives = [
        economics_play.withhold(EconomyWorld(emulator, DEVELOPMENT, short), audited)
        for audited in (0, 1, 3, 8)
    ]
    assert [life.penalties for life in lives] == [0, 1, 3, 5], "five penalties of 2 eat a stake of 10"
    lost = [lives[0].gains["owner"] - life.gains["owner"] for life in lives]
    for found, wanted in zip(lost, (0, 2, 6, 10), strict=True):
        assert found == pytest.approx(wanted * TON, abs=TON // 10)
    for life, wanted in zip(lives, (0, 1, 3, 5), strict=True):
        assert life.gains["treasury"] == pytest.approx(wanted * TON, abs=TON // 100), "half of each"


def test_parameters_are_what_the_contract_takes() -> None:
    for parameters in (RECOMMENDED, DEVELOPMENT):
        check_parameters(parameters)
    from cocoon_cli.devchain import parameters as of_dev

    network = of_dev(DEVELOPMENT.treasury, close_delay=DEVELOPMENT.close_delay)
    same = dataclasses.replace(
        network, pck_code=DEVELOPMENT.pck_code, pck_code_depth=DEVELOPMENT.pck_code_depth
    )
    assert same == DEVELOPMENT


def test_the_plot_shows_every_line(rows: dict[str, dict[str, Any]]) -> None:
    point = {"audit_rate": 0.001, "loss_per_receipt_ton": 0.02}
    line = {"name": "recommended", "stake_ton": 200, "penalty_ton": 20, "points": [point]}
    result = {
        "assumptions": {"answer_price": 1_700_000},
        "results": {"recommended": list(rows.values())},
        "sweep": [line, line | {"name": "", "penalty_ton": 5}],
    }
    root = ET.fromstring(economics_plot.draw(result))  # our own text
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {line.name for line in economics.COMPARISONS} <= texts
    assert {"200 / 20", "200 / 5", "price of an answer"} <= texts
