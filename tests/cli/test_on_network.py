"""Commands on a running network: the shape of their JSON, what people see, and their exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.network.netkit import MODEL, Exchanged, InProcess, Running, ledger_rows
else:
    from netkit import MODEL, ledger_rows

pytestmark = [pytest.mark.network, pytest.mark.model]


# ---- app: models, chat, receipts, wallet


def test_models(at_home: InProcess, net: Running) -> None:
    (model,) = at_home("models", "--json").json["models"]
    assert model.keys() == {"name", "digest", "context_length", "nodes"}
    assert model["name"] == MODEL
    assert model["nodes"] == [net.node_id]
    assert model["context_length"] >= 2048
    people = at_home("models")
    assert people.code == 0
    assert MODEL in people.out


def test_chat_as_json(at_home: InProcess) -> None:
    found = at_home("chat", "Say hello.", "--max-tokens", "4", "--temperature", "0", "--json")
    assert found.code == 0, found.out
    assert found.err == ""
    assert found.json.keys() == {"ok", "answer", "receipt"}
    assert found.json["ok"] is True
    assert found.json["answer"]["choices"][0]["message"]["content"]
    assert found.json["answer"]["usage"]["completion_tokens"] <= 4
    assert at_home("receipts", "show", found.json["receipt"], "--json").code == 0


def test_chat_for_people(at_home: InProcess) -> None:
    found = at_home("chat", "Say hello.", "--max-tokens", "4", "--temperature", "0")
    assert found.code == 0, found.err
    assert found.out.strip()
    assert "SIMULATED" in found.err  # talk goes to stderr, the answer alone to stdout
    assert "verified" in found.err
    assert "SIMULATED" not in found.out


def test_talk_until_the_end_of_input(net: Running) -> None:
    found = subprocess.run(
        [
            sys.executable,
            "-m",
            "cocoon_cli",
            "chat",
            "--max-tokens",
            "3",
            "--network",
            str(net.network_file),
        ],
        input=b"Hello\nAnd again\n",
        env={**_environment(), "COCOON_HOME": str(net.home)},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert found.returncode == 0, found.stderr.decode()
    assert len(found.stdout.decode().strip("\n").split("\n")) >= 2
    assert found.stderr.count(b"receipt") >= 2


@pytest.mark.parametrize("flags", [(), ("--json",)], ids=["people", "json"])
def test_chat_with_an_unknown_model(at_home: InProcess, flags: tuple[str, ...]) -> None:
    found = at_home("chat", "Hello", "--model", "gpt-5", *flags)
    assert found.code == 2
    assert "gpt-5" in found.out + found.err
    if flags:
        assert found.json["error"]["code"] == "model_not_found"


@pytest.mark.parametrize("flags", [(), ("--json",)], ids=["people", "json"])
def test_chat_that_the_enclave_refuses(at_home: InProcess, flags: tuple[str, ...]) -> None:
    found = at_home("chat", "Hello", "--max-tokens", "100000", *flags)
    assert found.code == 1
    assert "max_tokens" in found.out + found.err
    if flags:
        assert found.json["ok"] is False
        assert found.json["answer"]["error"]["code"] == "context_length_exceeded"
        assert found.json["receipt"]  # over nothing, but signed


def test_a_spend_limit_is_50(at_home: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COCOON_PAYMENT_REQUEST_CAP", "0.000001")
    found = at_home("chat", "Hello", "--max-tokens", "50", "--json")
    assert found.code == 50
    assert found.json["error"]["code"] == "spend_limit"
    assert found.json["error"]["details"]["cap"] == 1000


def test_a_policy_that_refuses_simulations(at_home: InProcess, tmp_path: Path) -> None:
    config = tmp_path / "client.toml"
    config.write_text("[policy]\nrefuse_simulated = true\n")
    found = at_home("chat", "Hello", "--config", config, "--json")
    assert found.code == 2
    assert "simulated" in found.json["error"]["message"]


def test_receipts(at_home: InProcess, answers: list[Exchanged]) -> None:
    found = at_home("receipts", "list", "--json").json["receipts"]
    ids = [row["id"] for row in found]
    assert {answer.receipt for answer in answers} <= set(ids)
    row = next(row for row in found if row["id"] == answers[0].receipt)
    assert row.keys() == {
        "id", "request", "node", "binding_hash", "log_index", "issued_at", "anchor_by", "amount", "status",
        "simulated", "model", "endpoint",
    }  # fmt: skip
    assert row["simulated"] is True
    assert row["status"] == 200
    assert row["model"] == MODEL
    assert [r["issued_at"] for r in found] == sorted((r["issued_at"] for r in found), reverse=True)
    assert len(at_home("receipts", "list", "--limit", "1", "--json").json["receipts"]) == 1
    assert at_home("receipts", "show", answers[0].receipt[:20], "--json").json == row
    people = at_home("receipts", "list")
    assert answers[0].receipt[:16] in people.out
    assert "SIMULATED" in people.out
    assert at_home("receipts", "show", answers[0].receipt).out.count("\n") == len(row)
    ambiguous = at_home("receipts", "show", "", "--json")
    assert ambiguous.code == 2


def test_export_and_verify(
    at_home: InProcess,
    net: Running,
    answers: list[Exchanged],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "bundle.json"
    net.export(answers[0], file)
    whole = at_home("verify", "bundle", file, "--offline", "--json")
    assert whole.code == 0, whole.out
    assert whole.json["claims"]["receipt"] == answers[0].receipt
    explained = at_home("verify", "bundle", file, "--offline", "--json", "--explain").json
    assert all("inputs" in check and check["spec"] for check in explained["checks"])
    proved = at_home("verify", "receipt", answers[0].receipt, "--json")
    assert proved.code == 0, proved.out
    assert "bundle.response_commitment" not in {check["id"] for check in proved.json["checks"]}
    # Without a name the file gets one, here.
    monkeypatch.chdir(tmp_path)
    written = at_home("receipts", "export", answers[0].receipt[:24], "--json")
    assert written.code == 0, written.out
    assert written.json.keys() == {"ok", "bundle", "receipt"}
    assert Path(written.json["bundle"]).name == f"{answers[0].receipt[:16]}.cocoon.json"
    assert at_home("verify", "bundle", written.json["bundle"]).code == 10  # no content: not a proof of it
    assert at_home("verify", "bundle", written.json["bundle"], "--no-content").code == 0
    nowhere = at_home("receipts", "export", answers[0].receipt, "-o", tmp_path / "no" / "file", "--json")
    assert nowhere.code == 2
    wrong = tmp_path / "wrong"
    wrong.write_bytes(b"another answer")
    refused = at_home(
        "receipts", "export", answers[0].receipt, "--response", wrong, "-o", tmp_path / "x", "--json"
    )
    assert refused.code == 10
    assert not (tmp_path / "x").exists()


def test_wallet(at_home: InProcess, net: Running, answers: list[Exchanged]) -> None:
    found = at_home("wallet", "show", "--json").json
    assert found.keys() == {"address", "explorer", "balance_nanoton", "channels", "ways_out"}
    assert found["explorer"] == ""  # nobody explores a development network
    ways = {way["what"]: way for way in found["ways_out"]}
    assert ways.keys() == {"wallet", "channel", "node"}
    assert ways["wallet"]["command"] == "cocoon wallet send ADDRESS --all"
    assert ways["wallet"]["amount_nanoton"] == found["balance_nanoton"] - 20_000_000
    assert ways["channel"]["command"] == f"cocoon wallet close {found['channels'][0]['id']}"
    assert ways["channel"]["available_at"] > time.time()
    assert 0 < ways["channel"]["amount_nanoton"] < found["channels"][0]["deposit_nanoton"] + 60_000_000
    assert ways["node"]["command"].startswith("cocoon host unbond --config ")
    assert ways["node"]["amount_nanoton"] > 20 * 10**9
    assert found["balance_nanoton"] > 10**9
    (channel,) = found["channels"]
    assert channel.keys() == {"id", "node", "state", "deposit_nanoton", "used_nanoton"}
    assert channel["node"] == net.node_id
    assert channel["state"] == "open"
    assert 0 < channel["used_nanoton"] < channel["deposit_nanoton"]
    people = at_home("wallet", "show")
    assert found["address"] in people.out
    assert found["address"].startswith("0Q")  # a test network, and not bounceable
    for way in found["ways_out"]:
        assert way["command"] in people.out
    topped = at_home("wallet", "top-up", channel["id"][:12], "0.25", "--yes", "--json")
    assert topped.code == 0, topped.out
    assert topped.json.keys() == {"ok", "channel", "deposit_nanoton"}
    assert topped.json["channel"] == channel["id"]
    # As the chain shows it: a few nanoton went to storage.
    gained = topped.json["deposit_nanoton"] - channel["deposit_nanoton"]
    assert 250_000_000 - 10_000 <= gained <= 250_000_000
    assert at_home("wallet", "top-up", channel["id"], "9000", "--yes", "--json").code in (0, 50)


def test_a_new_wallet_and_the_end_of_a_channel(cocoon: InProcess, net: Running) -> None:
    """In a home of its own: make a wallet, use it once, start to close, and be told when to come back."""
    flags = ("--network", str(net.network_file), "--json")
    made = cocoon("wallet", "new", "--plain", *flags)
    assert made.code == 0, made.out
    assert made.json.keys() == {"ok", "address", "file", "mnemonic"}
    assert len(made.json["mnemonic"].split()) == 24
    assert Path(made.json["file"]).stat().st_mode & 0o777 == 0o600
    again = cocoon("wallet", "new", "--plain", *flags)
    assert again.code == 2  # never overwritten
    empty = cocoon("wallet", "show", *flags).json
    assert (empty["address"], empty["balance_nanoton"]) == (made.json["address"], 0)
    assert empty["channels"] == empty["ways_out"] == []
    assert cocoon("chat", "Hello", "--max-tokens", "2", *flags).code == 0
    shown = cocoon("wallet", "show", *flags).json
    assert shown["address"] == made.json["address"]
    (channel,) = shown["channels"]
    closing = cocoon("wallet", "close", channel["id"], *flags)
    assert closing.code == 0, closing.out
    assert closing.json["state"] == "closing"
    assert closing.json["close_at"] > time.time()
    early = cocoon("wallet", "close", channel["id"], *flags)
    assert early.json == closing.json  # nothing to do yet
    shown = cocoon("wallet", "show", *flags).json
    assert shown["channels"][0]["state"] == "closing"
    (way,) = (way for way in shown["ways_out"] if way["what"] == "channel")
    assert way["available_at"] == closing.json["close_at"]
    refused = cocoon("wallet", "top-up", channel["id"], "0.1", *flags)
    assert refused.code == 50
    assert "closing" in refused.json["error"]["message"]


def test_sending_from_the_wallet(cocoon: InProcess, net: Running, tmp_path: Path) -> None:
    """To a second wallet, with a comment; then all of it; and what is refused before anything is sent."""
    flags = ("--network", str(net.network_file), "--json")
    assert cocoon("wallet", "new", "--plain", *flags).code == 0
    assert cocoon("chat", "Hello", "--max-tokens", "2", *flags).code == 0  # has the faucet fund the wallet
    before = cocoon("wallet", "show", *flags).json
    mine, theirs = cocoon.home, tmp_path / "theirs"
    cocoon.home = theirs
    to = cocoon("wallet", "new", "--plain", *flags).json["address"]
    cocoon.home = mine
    poor = cocoon("wallet", "send", to, "9000", "--yes", *flags)
    assert poor.code == 50
    assert poor.json["error"]["code"] == "insufficient_funds"
    assert poor.json["error"]["details"]["needed"] == 9000 * 10**9 + 20_000_000
    assert before["address"] in poor.json["error"]["hint"]
    sent = cocoon("wallet", "send", to, "1.5", "--comment", "thanks", *flags)
    assert sent.code == 0, sent.out
    assert sent.json["amount_nanoton"] == 1_500_000_000
    after = cocoon("wallet", "show", *flags).json
    gone = before["balance_nanoton"] - after["balance_nanoton"] - 1_500_000_000
    assert 0 < gone <= sent.json["fee_nanoton_estimate"] < 10_000_000
    cocoon.home = theirs
    assert cocoon("wallet", "show", *flags).json["balance_nanoton"] == 1_500_000_000
    assert cocoon("wallet", "send", before["address"], "--all", *flags).code == 0
    assert cocoon("wallet", "show", *flags).json["balance_nanoton"] < 20_000_000


def test_a_wallet_with_a_passphrase(
    cocoon: InProcess, net: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--network", str(net.network_file), "--json")
    refused = cocoon("wallet", "new", *flags)
    assert refused.code == 2
    assert "COCOON_WALLET_PASSPHRASE" in refused.json["error"]["hint"]
    monkeypatch.setenv("COCOON_WALLET_PASSPHRASE", "correct horse")
    made = cocoon("wallet", "new", *flags)
    assert made.code == 0
    assert made.json["mnemonic"].split()[0] not in Path(made.json["file"]).read_text()
    assert cocoon("wallet", "show", *flags).code == 0
    monkeypatch.setenv("COCOON_WALLET_PASSPHRASE", "wrong")
    assert cocoon("wallet", "show", *flags).code == 2
    monkeypatch.delenv("COCOON_WALLET_PASSPHRASE")
    assert cocoon("wallet", "show", *flags).code == 2


# ---- host


def test_host_status(at_home: InProcess, net: Running, answers: list[Exchanged]) -> None:
    found = at_home("host", "status", "--config", net.dev.root / "host.toml", "--json")
    assert found.code == 0, found.out
    document = found.json
    assert document.keys() >= {
        "node", "bond", "stake_nanoton", "working_balance_nanoton", "wallet", "wallet_balance_nanoton",
        "binding", "attested_until", "anchored_receipts", "anchored_at", "endpoint", "simulated", "block",
        "enclave", "receipts", "active_requests", "claimed_nanoton", "channels",
    }  # fmt: skip
    assert document["bond"] == "active"
    assert document["stake_nanoton"] == 20 * 10**9
    assert document["enclave"] == "ready"
    assert document["receipts"] >= len(answers)
    assert document["simulated"] is True
    people = at_home("host", "status")  # the default is the development network of the home
    assert people.code == 0, people.err
    assert "SIMULATED" in people.out
    assert "20 TON" in people.out


# ---- auditor: log, verify node, verify evidence


def test_log_checkpoint(at_home: InProcess, net: Running, answers: list[Exchanged]) -> None:
    (row,) = at_home("log", "checkpoint", "--json").json["checkpoints"]
    assert row.keys() == {"node", "tree_size", "root", "anchored_at", "block"}
    assert row["node"] == net.node_id
    assert row["tree_size"] >= 1
    assert len(row["root"]) == 64
    assert row["anchored_at"] <= time.time() + 5
    (same,) = at_home("log", "checkpoint", net.node_id[:8], "--json").json["checkpoints"]
    assert same["node"] == net.node_id
    assert at_home("log", "checkpoint", "ffff", "--json").code == 2
    assert net.node_id[:16] in at_home("log", "checkpoint").out


def test_log_registry(at_home: InProcess, net: Running) -> None:
    found = at_home("log", "registry", "--json").json
    assert found.keys() == {"registry", "version", "block", "events"}
    assert [event["event"] for event in found["events"]] == ["deployed"]
    assert found["version"] == 0
    events = at_home("log", "registry", "--nodes", "--json").json["events"]
    assert {event["event"] for event in events} == {"deployed", "node_listed"}
    listed = events[-1]
    assert listed.keys() == {"event", "change", "version", "time", "lt", "transaction", "details"}
    assert listed["details"]["node"] == net.node_id
    assert [event["lt"] for event in events] == sorted(event["lt"] for event in events)
    assert "deployed" in at_home("log", "registry").out


def test_receipts_dispute(at_home: InProcess, answers: list[Exchanged]) -> None:
    """An honest node: nothing to challenge, and nothing is sent even where that was asked for."""
    for flags in ((), ("--send",)):
        found = at_home("receipts", "dispute", answers[0].receipt, *flags, "--json").json
        assert found.keys() == {
            "ok", "receipt", "finding", "action", "sent", "log_index", "anchored_in_time", "anchor_by",
            "challenge_until", "answer_until",
        }  # fmt: skip
        assert found["finding"] in ("anchored", "not_due")
        assert (found["action"], found["sent"], found["answer_until"]) == (None, False, None)
        assert found["challenge_until"] > found["anchor_by"] > time.time()
    people = at_home("receipts", "dispute", answers[0].receipt[:16])
    assert people.code == 0
    assert people.out.startswith(found["finding"])


def test_verify_node(at_home: InProcess, net: Running) -> None:
    found = at_home("verify", "node", "--json")
    assert found.code == 0, found.out
    assert found.json["verdict"] == "accepted"
    assert found.json["simulated"] is True
    assert found.json["claims"]["nodes"] == [net.node_id]
    assert {"tls.spki", "tdx.tcb", "binding.report_data"} <= {check["id"] for check in found.json["checks"]}
    assert at_home("verify", "node", net.node_id, "--json").code == 0
    assert at_home("verify", "node", "11" * 32, "--json").code == 40
    people = at_home("verify", "node")
    assert "accepted" in people.out
    assert "SIMULATED" in people.out


def test_the_ledger_holds_no_words(net: Running, answers: list[Exchanged]) -> None:
    rows = ledger_rows(net.home, "requests", ["endpoint", "model", "state", "error"])
    assert rows
    assert all(json.dumps(row).count("hello") == 0 for row in rows)


def _environment() -> dict[str, str]:
    import os

    return {name: value for name, value in os.environ.items() if name != "COCOON_NETWORK"}
