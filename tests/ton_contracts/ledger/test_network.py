"""Network files."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoon_attestation.errors import ConfigError
from cocoon_ton.network import NetworkConfig, load_network, network_path, parse_network
from cocoon_ton.values import FULL_SHARD

KEY = base64.b64encode(b"\x01" * 32).decode()
REGISTRY = "0:" + "ab" * 32


def global_config(**init: Any) -> dict[str, Any]:
    block = {"workchain": -1, "shard": FULL_SHARD, "seqno": 7, "root_hash": KEY, "file_hash": KEY}
    return {
        "liteservers": [{"ip": 0x7F000001, "port": 4000, "id": {"key": KEY}}],
        "validator": {"init_block": block | init},
    }


def network(**changes: Any) -> NetworkConfig:
    values: dict[str, Any] = {
        "name": "dev",
        "global_id": -217,
        "registry": REGISTRY,
        "global_config": global_config(),
    }
    return NetworkConfig(**(values | changes))


def test_parts() -> None:
    config = network()
    assert config.init_block.seqno == 7
    assert config.init_block.root_hash == b"\x01" * 32
    (server,) = config.liteservers
    assert (server.host, server.port, server.public_key) == ("127.0.0.1", 4000, b"\x01" * 32)
    assert config.registry_address.hash_part == b"\xab" * 32
    assert config.test_only


def test_the_zerostate_is_pinned_where_it_is_named() -> None:
    config = global_config()
    with pytest.raises(ConfigError, match="zero_state"):
        _ = network(global_config=config).zero_state
    config["validator"]["zero_state"] = config["validator"]["init_block"] | {"seqno": 0}
    assert network(global_config=config).zero_state.seqno == 0


def test_addresses_above_half_are_negative_numbers() -> None:
    config = global_config()
    config["liteservers"][0]["ip"] = -1062731519
    assert network(global_config=config).liteservers[0].host == "192.168.1.1"


def test_without_a_registry() -> None:
    config = network(registry="")
    with pytest.raises(ConfigError, match="no registry"):
        _ = config.registry_address


def test_faucet_is_not_printed() -> None:
    assert "secret words" not in repr(network(faucet={"mnemonic": "secret words"}))


def test_file_round_trip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COCOON_HOME", str(tmp_path))
    config = network(dev_root=b"\x30\x01", simulated=True, faucet={"seed": "00"})
    path = config.save()
    assert path == tmp_path / "networks" / "dev.json" == network_path("dev")
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_network("dev") == load_network(path) == load_network(str(path)) == config
    network(global_id=-3).save()
    assert load_network("dev").global_id == -3
    assert [file.name for file in path.parent.iterdir()] == ["dev.json"]


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"name": "../dev"},
        {"name": ".hidden"},
        {"global_id": 1 << 31},
        {"registry": "0:ab"},
        {"registry": "somewhere"},
        {"global_config": {}},
        {"global_config": global_config(workchain=0)},
        {"global_config": global_config(shard=1)},
        {"global_config": global_config(seqno=0)},
        {"global_config": global_config(seqno=True)},
        {"global_config": global_config(seqno="7")},
        {"global_config": global_config(root_hash="AAAA")},
        {"global_config": global_config(file_hash="not base64!")},
        {"global_config": global_config(root_hash=7)},
        {"global_config": global_config() | {"liteservers": []}},
        {"global_config": global_config() | {"liteservers": None}},
        {"global_config": global_config() | {"liteservers": [{"ip": 1, "port": 0, "id": {"key": KEY}}]}},
        {"global_config": global_config() | {"liteservers": [{"ip": "x", "port": 1, "id": {"key": KEY}}]}},
        {"global_config": global_config() | {"liteservers": [{"ip": 1, "port": 1, "id": {"key": "AA=="}}]}},
        {"global_config": global_config() | {"liteservers": [{"ip": 1, "port": 1}]}},
    ],
    ids=str,
)
def test_contradictions(change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        network(**change)


@pytest.mark.parametrize("change", [{"simulated": True}, {"dev_root": b"\x30"}, {"faucet": {"seed": "00"}}])
def test_nothing_simulated_on_mainnet(change: dict[str, Any]) -> None:
    network(global_id=-239)
    with pytest.raises(ConfigError, match="mainnet"):
        network(global_id=-239, **change)


class TestParse:
    def document(self, **changes: Any) -> str:
        return json.dumps(json.loads(network().to_json()) | changes)

    def test_as_written(self) -> None:
        assert parse_network(self.document()) == network()

    def test_optional_fields(self) -> None:
        document = json.loads(self.document())
        for field in ("dev_root", "simulated", "faucet"):
            del document[field]
        assert parse_network(json.dumps(document)) == network()

    @pytest.mark.parametrize(
        "change",
        [
            {"unknown": 1},
            {"name": 5},
            {"global_id": "x"},
            {"global_id": True},
            {"registry": None},
            {"global_config": []},
            {"simulated": "yes"},
            {"dev_root": "?"},
            {"dev_root": 5},
            {"faucet": "words"},
        ],
    )
    def test_wrong_types(self, change: dict[str, Any]) -> None:
        with pytest.raises(ConfigError):
            parse_network(self.document(**change))

    @pytest.mark.parametrize("field", ["name", "global_id", "registry", "global_config"])
    def test_missing(self, field: str) -> None:
        document = json.loads(self.document())
        del document[field]
        with pytest.raises(ConfigError):
            parse_network(json.dumps(document))

    @given(st.binary(max_size=200) | st.text(max_size=100))
    def test_any_text(self, text: bytes | str) -> None:
        with pytest.raises(ConfigError):
            parse_network(text)

    def test_deep_and_large(self) -> None:
        for text in ("[" * 100_000, " " * (5 << 20)):
            with pytest.raises(ConfigError):
                parse_network(text)


@pytest.mark.parametrize("name", ["nowhere", "nowhere.json", "no/where"])
def test_missing_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COCOON_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="cannot read"):
        load_network(name)
