"""What does the ledger cost? Gas and TON of every operation, measured on the real contracts and TVM.

Gas is that of the contract which the operation is about; `gas_by_contract` has all that a message reaches: a
settlement, for example, runs the node (is the claim signed by a key that it knows?) and then the channel.
TON is everything that leaves the participants for it: gas, storage, forwarding of every message on the way and
the import of an external one, in the prices of a blockchain configuration (parameters 21 and 25): the one that
the emulator brings, or a file. What a wallet's own contract charges for sending is not in it.

    python benchmarks/ledger.py [--config CONFIG.boc] [--json]
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ledger_world import GLOBAL_ID, TON, LedgerWorld, Sent  # type: ignore[import-not-found]
from pytoniq_core import Builder, Cell

from cocoon_ton import channel
from cocoon_ton.cells import Reader, finish, read_dict, write_dict
from cocoon_ton.emulator import Emulator, load_sandbox
from cocoon_ton.proof.boc import parse_boc

QUESTION: Final = "what does the ledger cost?"
BATCHES: Final = (1, 100, 10_000, 1_000_000)
ANCHORED_BEFORE: Final = 1_000
LEVELS: Final = 20
"""Of the tree in which a challenged receipt is shown: 1 048 576 receipts."""
CONTRACTS: Final = {
    "attest_full": "Pck",
    "attest_new_key": "Pck",
    "attest_cached": "Pck",
    "open": "Channel",
    "top_up": "Channel",
    "settle": "Channel",
    "close": "Channel",
    "close_by_client": "Channel",
}
"""The contract that an operation is about; the rest are about the node."""
GOALS: Final = {"attest_full": 110_000, "attest_cached": 25_000, "respond_20": 20_000, "settle": 6_000}
"""Most gas that the contract in the row may spend."""
_GAS_PREFIX, _GAS_FLAT, _FORWARD = 0xDE, 0xD1, 0xEA


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What a configuration says about the basechain."""

    gas: int
    """Nanoton per 65 536 gas."""
    lump: int
    """Nanoton per message."""
    bit: int
    """Nanoton per 65 536 bits."""
    cell: int
    """Nanoton per 65 536 cells."""

    def forward(self, body: Cell) -> int:
        """Nanoton to forward a message whose body stands in a reference."""
        seen: dict[bytes, int] = {}
        stack = [body]
        while stack:
            cell = stack.pop()
            if cell.hash not in seen:
                seen[cell.hash] = len(cell.bits)
                stack.extend(cell.refs)
        variable = self.bit * sum(seen.values()) + self.cell * len(seen)
        return self.lump + -(-variable // 65_536)


def read_prices(config: Cell) -> Prices:
    """Read parameters 21 and 25.

    Raises:
        MalformedError: not a configuration.
    """
    parameters = read_dict(config, 32, lambda reader: reader.ref())
    gas = Reader(parameters[21])
    if gas.uint(8) == _GAS_FLAT:
        gas.uint(64), gas.uint(64), gas.uint(8)
    price = gas.uint(64)
    forward = Reader(parameters[25])
    forward.uint(8)
    return Prices(
        gas=price,
        lump=forward.uint(64),
        bit=forward.uint(64),
        cell=forward.uint(64),
    )


def elsewhere(config: Cell) -> Cell:
    """The same configuration for a network of its own: mainnet takes no rules for simulated platforms."""
    parameters = read_dict(config, 32, lambda reader: reader.ref())
    parameters[19] = finish(Builder().store_int(GLOBAL_ID, 32))
    made = write_dict(parameters, 32, lambda cell: finish(Builder().store_ref(cell)))
    if made is None:
        raise ValueError("an empty configuration")
    return made


def row(operation: str, prices: Prices, *steps: Sent) -> dict[str, object]:
    """One line of the result; an operation may have several messages.

    `gas` is what the contract spends that the operation is about: the one in `CONTRACTS`. `gas_by_contract` has every
    contract that the messages reach, and `ton` pays for all of them.
    """
    fees = sum(step.result.fees + (0 if step.external else prices.forward(step.body)) for step in steps)
    spent: dict[str, int] = {}
    for step in steps:
        for name, gas in step.gas.items():
            spent[name] = spent.get(name, 0) + gas
    contract = CONTRACTS.get(operation, "Node")
    line: dict[str, object] = {
        "operation": operation,
        "gas": spent[contract],
        "ton": f"{fees / TON:.9f}",
        "contract": contract,
        "gas_by_contract": spent,
    }
    if operation in GOALS:
        line["goal"] = GOALS[operation]
    hashes = [step.proof_hashes for step in steps if step.proof_hashes is not None]
    return line | ({"proof_hashes": sum(hashes)} if hashes else {})


def measure(emulator: Emulator, prices: Prices) -> list[dict[str, object]]:
    """Every operation once."""
    world = LedgerWorld(emulator)
    rows = [
        row("attest_full", prices, world.first_attest),
        row("attest_new_key", prices, world.attest(certify=True)),
        row("attest_cached", prices, world.attest()),
    ]
    for batch in BATCHES:
        log = LedgerWorld(emulator)
        log.anchor(ANCHORED_BEFORE)
        rows.append(row(f"anchor_{batch}", prices, log.anchor(batch)))
    honest = LedgerWorld(emulator)
    for name, sent in zip(("challenge", f"respond_{LEVELS}", "slash"), honest.dispute(LEVELS), strict=True):
        rows.append(row(name, prices, sent))
    rows += [
        row("open", prices, world.open()),
        row("top_up", prices, world.to_channel(channel.top_up_body())),
        row("settle", prices, world.settle(TON)),
        row("close", prices, world.settle(2 * TON, final=True)),
    ]
    alone = LedgerWorld(emulator)
    alone.open()
    start = alone.to_channel(channel.start_close_body())
    alone.chain.warp(alone.channel.close_delay)
    rows.append(row("close_by_client", prices, start, alone.to_channel(channel.finish_close_body())))
    return rows


def document(config: Cell) -> dict[str, object]:
    """The whole result, JSON-ready."""
    prices = read_prices(config)
    rows = measure(Emulator(elsewhere(config)), prices)
    anchors = {batch: next(r for r in rows if r["operation"] == f"anchor_{batch}") for batch in BATCHES}
    return {
        "question": QUESTION,
        "config_hash": config.hash.hex(),
        "prices": {
            "gas_nanoton": prices.gas / 65_536,
            "message_nanoton": prices.lump,
            "bit_nanoton": prices.bit / 65_536,
            "cell_nanoton": prices.cell / 65_536,
        },
        "rows": rows,
        "anchored_before": ANCHORED_BEFORE,
        "anchor_ton_per_answer": {
            str(batch): f"{float(str(found['ton'])) / batch:.12f}" for batch, found in anchors.items()
        },
    }


def show(result: dict[str, object]) -> None:
    """Print the result as a table."""
    rows, prices, each = result["rows"], result["prices"], result["anchor_ton_per_answer"]
    if not (isinstance(rows, list) and isinstance(prices, dict) and isinstance(each, dict)):
        raise TypeError("not a result of this benchmark")
    print(f"{QUESTION}\n\nprices of configuration {str(result['config_hash'])[:16]}…, nanoton:")
    print(f"  {prices['gas_nanoton']:g} per gas, {prices['message_nanoton']} per message, ", end="")
    print(f"{prices['bit_nanoton']:g} per bit, {prices['cell_nanoton']:g} per cell\n")
    print(f"{'operation':<18}{'gas':>8}  {'goal':>8}{'TON':>14}  contracts")
    for line in rows:
        parts = " + ".join(f"{name} {gas}" for name, gas in line["gas_by_contract"].items())
        hashes = f" ({line['proof_hashes']} hashes)" if "proof_hashes" in line else ""
        goal = line.get("goal", "")
        print(f"{line['operation']:<18}{line['gas']:>8}  {goal:>8}{line['ton']:>14}  {parts}{hashes}")
    print(
        "\ngas is that of the contract that the operation is about; TON pays for all contracts and messages"
    )
    print(
        f"\nan anchor costs the same for any batch, but for its proof; {ANCHORED_BEFORE} receipts are anchored before"
    )
    print("an anchor every ten minutes costs")
    for batch, ton in each.items():
        print(f"  {ton} TON per answer at {batch} answers in ten minutes")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=QUESTION)
    parser.add_argument("--config", type=Path, help="blockchain configuration, a bag of cells")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    data = load_sandbox().config("slim") if arguments.config is None else arguments.config.read_bytes()
    (config,) = parse_boc(data)
    result = document(config)
    if arguments.json:
        sys.stdout.write(json.dumps(result, indent=2) + "\n")
    else:
        show(result)


if __name__ == "__main__":
    main()
