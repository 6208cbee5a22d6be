"""Commands on the wallet that need no chain: words, files, and what people mistype."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cocoon_cli.wallet_send import comment_body, parse_receiver, parse_ton_amount
from cocoon_ton.address import friendly_address, parse_address
from cocoon_ton.errors import AddressError, AmountError
from cocoon_ton.network import NetworkConfig, load_network

if TYPE_CHECKING:
    from tests.network.netkit import InProcess

TO = "0:" + "5a" * 32


def network(network_file: Path, global_id: int = -239, explorer: str | None = None) -> NetworkConfig:
    found = load_network(network_file)
    return NetworkConfig(
        name="n", global_id=global_id, registry="", global_config=found.global_config, explorer=explorer
    )


def test_words_are_shown_once_backed_up_and_restored(
    cocoon: InProcess, network_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ("--network", network_file, "--json")
    made = cocoon("wallet", "new", "--plain", *flags).json
    file = Path(made["file"])
    assert file.stat().st_mode & 0o777 == 0o600
    again = cocoon("wallet", "backup", "--yes", *flags).json
    assert again["mnemonic"] == made["mnemonic"]
    people = cocoon("wallet", "backup", "--yes", "--network", network_file)
    assert [word for word in people.out.split() if not word.isdigit()] == made["mnemonic"].split()
    monkeypatch.setattr(sys, "stdin", io.StringIO(made["mnemonic"].upper() + "\n"))
    taken = cocoon("wallet", "restore", "--plain", *flags)
    assert taken.code == 2
    assert "move" in taken.json["error"]["hint"]  # keys are never replaced
    file.rename(file.with_suffix(".old"))
    restored = cocoon("wallet", "restore", "--plain", *flags)
    assert restored.json["address"] == made["address"]
    assert "mnemonic" not in restored.json
    file.unlink()
    monkeypatch.setattr(sys, "stdin", io.StringIO(made["mnemonic"]))
    old = cocoon("wallet", "restore", "--plain", "--version", "v4r2", *flags)
    assert old.json["address"] != made["address"]


@pytest.mark.parametrize("text", ["", "abandon " * 24, "one two", "zzzz " * 24, "a" * 5000])
def test_wrong_words_are_refused_without_being_repeated(
    cocoon: InProcess, network_file: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    found = cocoon("wallet", "restore", "--plain", "--network", network_file, "--json")
    assert found.code == 2
    assert found.json["error"]["hint"]
    for word in ("abandon", "zzzz", "aaaa"):
        assert word not in found.out + found.err
    assert not list(cocoon.home.rglob("wallet.json"))


def test_a_key_file_that_others_may_read_is_refused(cocoon: InProcess, network_file: Path) -> None:
    flags = ("--network", network_file, "--json")
    file = Path(cocoon("wallet", "new", "--plain", *flags).json["file"])
    file.chmod(0o644)
    for command in (("backup", "--yes"), ("show",), ("send", TO, "1")):
        found = cocoon("wallet", *command, *flags)
        assert found.code == 2
        assert found.json["error"]["hint"] == f"chmod 600 {file}"


def test_without_a_wallet_the_hint_says_how_to_make_one(cocoon: InProcess, network_file: Path) -> None:
    found = cocoon("wallet", "show", "--network", network_file, "--json")
    assert found.code == 2
    assert "cocoon wallet new" in found.json["error"]["hint"]


def test_no_passphrase_is_no_wallet(cocoon: InProcess, network_file: Path) -> None:
    assert os.environ.get("COCOON_WALLET_PASSPHRASE") is None
    found = cocoon("wallet", "new", "--network", network_file, "--json")
    assert found.code == 2
    assert not list(cocoon.home.rglob("wallet.json"))


# ---- what people mistype


def test_a_changed_letter_of_an_address_is_noticed(cocoon: InProcess, network_file: Path) -> None:
    good = friendly_address(parse_address(TO), bounceable=False, test_only=False)
    wrong = good[:20] + ("A" if good[20] != "A" else "B") + good[21:]
    found = cocoon("wallet", "send", wrong, "1", "--network", network_file, "--json")
    assert found.code == 2
    assert found.json["error"]["code"] == "address"
    assert "checksum" in found.json["error"]["message"]


@pytest.mark.parametrize("text", ["", "EQ", "0:12", "x" * 48, "https://tonviewer.com/EQ"])
def test_what_is_no_address(network_file: Path, text: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_receiver(text, network(network_file))
    assert caught.value.hint


def test_a_test_address_is_refused_on_mainnet_only(network_file: Path) -> None:
    for bounceable in (True, False):
        test = friendly_address(parse_address(TO), bounceable=bounceable, test_only=True)
        with pytest.raises(AddressError, match="test network"):
            parse_receiver(test, network(network_file))
        assert parse_receiver(test, network(network_file, -3)) == parse_address(TO)
        real = friendly_address(parse_address(TO), bounceable=bounceable, test_only=False)
        assert parse_receiver(real, network(network_file)) == parse_address(TO)
    assert parse_receiver(TO, network(network_file)) == parse_address(TO)


@pytest.mark.parametrize("text", ["0", "0.0000000001", "-1", "1e3", "1,5", "one", "", " 1", "1" * 40])
def test_what_is_no_amount(text: str) -> None:
    with pytest.raises(AmountError) as caught:
        parse_ton_amount(text)
    assert caught.value.code == "amount"
    assert caught.value.hint


def test_amounts_are_exact() -> None:
    assert parse_ton_amount("0.000000001") == 1
    assert parse_ton_amount("1.5") == 1_500_000_000


@pytest.mark.parametrize("arguments", [(), ("1", "--all")])
def test_an_amount_or_all(cocoon: InProcess, network_file: Path, arguments: tuple[str, ...]) -> None:
    found = cocoon("wallet", "send", TO, *arguments, "--network", network_file, "--json")
    assert found.code == 2
    assert found.json["error"]["code"] == "usage"


def test_a_comment_is_text_in_the_body() -> None:
    cell = comment_body("für dich")
    assert cell.begin_parse().load_uint(32) == 0
    assert cell.bits[32:].tobytes() == "für dich".encode()
    assert len(comment_body("").bits) == 0
    import click

    with pytest.raises(click.UsageError):
        comment_body("x" * 121)


# ---- explorers


def test_links_to_an_explorer(network_file: Path) -> None:
    address = parse_address(TO)
    real = friendly_address(address, bounceable=True, test_only=False)
    test = friendly_address(address, bounceable=True, test_only=True)
    assert network(network_file).explorer_link(address) == f"https://tonviewer.com/{real}"
    assert network(network_file, -3).explorer_link(address) == f"https://testnet.tonviewer.com/{test}"
    assert network(network_file, -217).explorer_link(address) == ""
    own = network(network_file, -217, "https://explorer.example/a/{address}?net=dev")
    assert own.explorer_link(address) == f"https://explorer.example/a/{test}?net=dev"
    own.save(network_file.with_name("own.json"))
    assert load_network(network_file.with_name("own.json")).explorer == own.explorer


@pytest.mark.parametrize(
    "pattern",
    [
        "http://x.example/{address}",
        "https://x.example/",
        "javascript:{address}",
        "https://x.example/{address}\n",
        "{address}",
    ],
)
def test_patterns_that_are_no_explorer(network_file: Path, pattern: str) -> None:
    from cocoon_attestation.errors import ConfigError

    with pytest.raises(ConfigError, match="explorer"):
        network(network_file, -217, pattern)
