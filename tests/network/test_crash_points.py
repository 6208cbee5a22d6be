"""A22: kill -9 at every step of join, attest, anchor, settle and close. `make crash` does all of them.

Here: one life in which deaths are spread over all processes, and the proof that every named point is
really passed in that life. What is added up afterwards: docs/spec/wallet.md, section 7.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.network.crash_points import PROCESSES, Crasher, points
    from tests.network.crash_world import Life, check
    from tests.network.netkit import processes_of, until, why_not
else:
    from crash_points import PROCESSES, Crasher, points
    from crash_world import Life, check
    from netkit import processes_of, until, why_not

ARMED = {
    "chain/settle/commit:after",
    "enclave/serve/receipt:after",
    "host/join/done:after",
    "host/attest/outbox.start:after",
    "host/anchor/outbox.sent:after",
    "host/settle/done:after",
    "client/open/ledger.open:before",
    "client/topup/outbox.finish:before",
    "client/finish/chain.send:after",
}
"""One death for each step and process; ``receipt:after`` is between the receipt's commit and the final chunk.
Chosen so that what the death cuts off is passed later in the same life."""


@pytest.mark.network
@pytest.mark.timeout(900)  # a slow machine is no failure
def test_a_life_with_a_death_in_every_step(tmp_path: Path) -> None:
    if reason := why_not():
        pytest.skip(reason)
    life = Life(tmp_path / "home", ARMED)
    try:
        life.live(rounds=2)
    finally:
        life.stop()
    until(lambda: not processes_of(life.home), within=10, what="no process left")
    assert set(life.deaths) == ARMED
    assert len(life.deaths) == len(ARMED)
    check(life)
    assert set(points()) - life.reached == set(), "a named point is never passed"


def test_points_are_in_no_product_code() -> None:
    """Nothing outside tests can kill a process: the launcher is the only way, and it is not installed."""
    root = Path(__file__).parents[2]
    for package in ("attestation", "cli", "enclave", "proxy", "ton_contracts/cocoon_ton"):
        for path in (root / package).rglob("*.py"):
            text = path.read_text()
            assert "crash_" not in text.replace("engine_crashed", ""), path
            assert "SIGKILL)" not in text or path.name == "processes.py", path


def test_a_function_that_was_renamed_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    chain = PROCESSES["chain"]
    gone = replace(chain, targets=(replace(chain.targets[0], where="cocoon_ton.devnet.store:Store.gone"),))
    monkeypatch.setitem(PROCESSES, "chain", gone)
    with pytest.raises(AttributeError, match="gone"):
        Crasher("chain", frozenset(), tmp_path / "log").install()


def test_a_point_kills_once_and_for_real(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, {here!r})\n"
        "from pathlib import Path\n"
        "from crash_points import Crasher\n"
        "crasher = Crasher('enclave', frozenset(['enclave/serve/receipt:after']), Path({log!r}))\n"
        "crasher.reach('enclave/serve/receipt:before')\n"
        "crasher.reach('enclave/serve/receipt:after')\n"
        "print('alive')\n"
    ).format(here=str(Path(__file__).parent), log=str(tmp_path / "log"))
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=False) for _ in range(2)
    ]
    assert [(run.returncode, run.stdout) for run in runs] == [(-9, b""), (0, b"alive\n")]
    lines = [line.split()[:2] for line in (tmp_path / "log").read_text().splitlines()]
    assert lines == [
        ["reached", "enclave/serve/receipt:before"],
        ["reached", "enclave/serve/receipt:after"],
        ["died", "enclave/serve/receipt:after"],
    ]
