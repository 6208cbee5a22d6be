"""What do honesty and cheating pay? Lives of a host, its clients and others, played on the real contracts.

Every line of the table is a whole life (see `economics_play.py`): from the first deposit to the last withdrawal, in
virtual time, in TON's TVM. A gain is a difference of balances, so all fees are in it. What happens off the chain is
assumed (`--json` lists it). The sweep withholds a day's receipts and varies how many of them are looked for.

    python benchmarks/economics.py [--quick] [--json] [--plot FILE.svg]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import economics_play as play  # type: ignore[import-not-found]
from economics_plot import draw  # type: ignore[import-not-found]
from economics_world import (  # type: ignore[import-not-found]
    DAY,
    DEVELOPMENT,
    RECOMMENDED,
    TON,
    Assumptions,
    EconomyWorld,
)

from cocoon_ton.emulator import Emulator
from cocoon_ton.node import RegistryParameters

QUESTION: Final = "what do honesty and cheating pay?"
AUDITED: Final = (1, 2, 4, 8, 16, 32)
PENALTIES: Final = (2, 5, 20, 50)
QUICK: Final = Assumptions(days=2, turn=1, answers_per_day=400)
"""For tests: the same plays in a shorter time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One line: whose gain in which play is compared with whose in which other."""

    name: str
    play: str
    who: str
    other: str | None
    """Play in which the same person does the honest thing; None: stays away, and gains nothing."""
    must_lose: bool = True
    """False: parameters alone cannot see to it, and `docs/economics.md` says what does."""
    victim: bool = False
    """True: this is who is attacked, and must not lose."""


COMPARISONS: Final = (
    Comparison(name="withhold receipts for a day", play="withhold", who="owner", other="honest"),
    Comparison(name="vanish with receipts not anchored", play="vanish", who="owner", other="leave_early"),
    Comparison(name="overcharge, then leave", play="overcharge", who="owner", other="honest"),
    Comparison(
        name="overcharge when leaving anyway",
        play="overcharge_at_the_end",
        who="owner",
        other="honest",
        must_lose=False,
    ),
    Comparison(name="run a node that can be looked into", play="debug_node", who="owner", other=None),
    Comparison(name="grief: attacker", play="grief", who="attacker", other=None),
    Comparison(name="grief: attacked host", play="grief", who="owner", other="honest", victim=True),
    Comparison(
        name="capture governance: attacker, host alert", play="capture_alert", who="attacker", other=None
    ),
    Comparison(
        name="capture governance: host that answers",
        play="capture_alert",
        who="owner",
        other="honest",
        victim=True,
    ),
    Comparison(
        name="capture governance: host that leaves",
        play="capture_left",
        who="owner",
        other="leave_early",
        victim=True,
    ),
    Comparison(
        name="capture governance: attacker, host asleep",
        play="capture_asleep",
        who="attacker",
        other=None,
        must_lose=False,
    ),
)
FEE_SLACK: Final = TON // 20
"""Two honest lives differ by this much in storage and anchoring fees."""


def ton(value: float) -> float:
    """Nanoton as TON for people."""
    return float(round(value / TON, 4))


def compare(
    emulator: Emulator, parameters: RegistryParameters, assumptions: Assumptions
) -> list[dict[str, Any]]:
    """All lines under one set of parameters."""
    names = {"honest", "leave_early"} | {c.play for c in COMPARISONS}
    lives: dict[str, play.Outcome] = {}
    for name in sorted(names):
        run: Callable[[EconomyWorld], play.Outcome] = getattr(play, name)
        lives[name] = run(EconomyWorld(emulator, parameters, assumptions))
    rows = [
        _row("honest", "owner", lives["honest"], 0),
        _row("leave early", "owner", lives["leave_early"], 0),
    ]
    for line in COMPARISONS:
        life = lives[line.play]
        honest = 0 if line.other is None else lives[line.other].gains[line.who]
        row = _row(line.name, line.who, life, honest)
        difference = life.gains[line.who] - honest
        holds = difference > -FEE_SLACK if line.victim else difference < 0 or not line.must_lose
        rows.append(
            row
            | {
                "compared_with": line.other or "staying away",
                "wanted": "does not lose" if line.victim else "loses" if line.must_lose else "bounded",
                "holds": holds,
            }
        )
    return rows


def _row(name: str, who: str, life: play.Outcome, honest: int) -> dict[str, Any]:
    return {
        "play": name,
        "who": who,
        "gain_ton": ton(life.gains[who]),
        "difference_ton": ton(life.gains[who] - honest),
        "clients_paid_ton": ton(-life.gains["clients"]),
        "treasury_ton": ton(life.gains["treasury"]),
        "penalties": life.penalties,
        "challenges_answered": life.answered,
        "days": life.days,
    }


def sweep(emulator: Emulator, assumptions: Assumptions) -> list[dict[str, Any]]:
    """Loss per withheld receipt against the part that is looked for, for several penalties and stakes."""
    short = dataclasses.replace(assumptions, days=1, turn=1)
    withheld = DAY // short.anchor_every * short.answers_per_round
    sets = [("development", DEVELOPMENT)]
    sets += [
        ("recommended" if penalty * TON == RECOMMENDED.penalty else "", _with(penalty))
        for penalty in PENALTIES
    ]
    found = []
    for name, parameters in sets:
        nobody = play.withhold(EconomyWorld(emulator, parameters, short), 0)
        points = []
        for audited in AUDITED:
            life = play.withhold(EconomyWorld(emulator, parameters, short), audited)
            loss = nobody.gains["owner"] - life.gains["owner"]
            points.append(
                {
                    "audited": audited,
                    "audit_rate": audited / withheld,
                    "penalties": life.penalties,
                    "loss_per_receipt_ton": loss / withheld / TON,
                }
            )
        per_hit = points[0]["loss_per_receipt_ton"] * withheld
        found.append(
            {
                "name": name,
                "stake_ton": parameters.min_stake // TON,
                "penalty_ton": parameters.penalty // TON,
                "withheld": withheld,
                "break_even_audit_rate": short.answer_price / TON / per_hit,
                "points": points,
            }
        )
    return found


def _with(penalty: int) -> RegistryParameters:
    changed: RegistryParameters = dataclasses.replace(RECOMMENDED, penalty=penalty * TON)
    return changed


def document(emulator: Emulator, assumptions: Assumptions) -> dict[str, Any]:
    """The whole result, JSON-ready."""

    def shown(parameters: RegistryParameters) -> dict[str, Any]:
        return {
            f.name: getattr(parameters, f.name)
            for f in dataclasses.fields(parameters)
            if isinstance(getattr(parameters, f.name), int)
        }

    sets = {"recommended": RECOMMENDED, "development": DEVELOPMENT}
    return {
        "question": QUESTION,
        "simulated": "people, answers and audits; contracts, fees and time are TON's",
        "assumptions": dataclasses.asdict(assumptions),
        "parameters": {name: shown(parameters) for name, parameters in sets.items()},
        "results": {name: compare(emulator, parameters, assumptions) for name, parameters in sets.items()},
        "sweep": sweep(emulator, assumptions),
    }


def show(result: dict[str, Any]) -> None:
    """Print the result as tables."""
    a = result["assumptions"]
    print(
        f"{QUESTION}\n\nassumed: {a['answers_per_day']} answers a day at {ton(a['answer_price'])} TON from ",
        end="",
    )
    print(f"{a['clients']} clients, {a['days']} days, cheats turn after {a['turn']}; ", end="")
    print(f"{100 * a['audit_rate']:g} % of receipts are looked for")
    for name, rows in result["results"].items():
        p = result["parameters"][name]
        print(
            f"\n{name} parameters: stake {p['min_stake'] // TON}, penalty {p['penalty'] // TON} TON, ",
            end="",
        )
        print(
            f"challenge window {p['challenge_window'] // 3600} h, answer within {p['response_window'] // 3600} h\n"
        )
        print(f"{'life':<44}{'gain':>10}{'to honesty':>12}  {'wanted':<14}{'holds':<6}{'penalties':>10}")
        for row in rows:
            holds = {True: "yes", False: "NO"}.get(row.get("holds"), "")
            print(
                f"{row['play']:<44}{row['gain_ton']:>10}{row['difference_ton']:>12}  "
                f"{row.get('wanted', ''):<14}{holds:<6}{row['penalties']:>10}"
            )
    print("\nwithholding a day of receipts: TON lost for each, by part of the receipts that is looked for")
    for line in result["sweep"]:
        points = "  ".join(
            f"{100 * p['audit_rate']:.2f}%:{p['loss_per_receipt_ton']:.4f}" for p in line["points"]
        )
        name = f"stake {line['stake_ton']}, penalty {line['penalty_ton']}"
        print(f"  {name:<22}{points}   pays its price from {100 * line['break_even_audit_rate']:.3f} %")


def main() -> None:
    """Play and print."""
    parser = argparse.ArgumentParser(description=QUESTION)
    parser.add_argument("--quick", action="store_true", help="two days instead of ten")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--plot", type=Path, help="write the plot to this SVG file")
    arguments = parser.parse_args()
    result = document(Emulator(), QUICK if arguments.quick else Assumptions())
    if arguments.plot is not None:
        arguments.plot.write_text(draw(result), "utf-8")
    if arguments.json:
        sys.stdout.write(json.dumps(result, indent=2) + "\n")
    else:
        show(result)


if __name__ == "__main__":
    main()
