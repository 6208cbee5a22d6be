"""host.toml: strict, with amounts in TON."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoon_attestation.errors import ConfigError
from cocoon_attestation.payment import PriceList
from cocoon_enclave.host.config import load_host_config, parse_host_config

GOOD: dict[str, object] = {
    "network": "dev",
    "host_service": "127.0.0.1:1",
    "state": "host",
    "endpoint": "203.0.113.7:443",
    "models": ["ab" * 32],
    "simulated": True,
    "stake": "20.5",
    "prices": {"prompt": 1, "cached": 2, "completion": 3},
}
BASE = Path("/base")


def test_defaults_and_units() -> None:
    config = parse_host_config(GOOD, base=BASE)
    assert config.terms.stake == 20_500_000_000
    assert config.terms.prices == PriceList(prompt=1, cached=2, completion=3)
    assert config.state == BASE / "host"
    assert config.models == (bytes.fromhex("ab" * 32),)
    assert config.simulated
    assert config.terms.settle_above == 200_000_000


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("network", ""),
        ("network", 1),
        ("models", []),
        ("models", ["ab"]),
        ("models", ["zz" * 32]),
        ("stake", "-1"),
        ("stake", "1e400"),
        ("stake", "0.0000000001"),
        ("stake", "NaN"),
        ("stake", 1.5),
        ("prices", {"prompt": 1}),
        ("prices", {"prompt": -1, "cached": 2, "completion": 3}),
        ("salt", True),
        ("poll_s", 0),
        ("poll_s", "1"),
        ("anchor_every_s", -1),
        ("unknown", 1),
    ],
)
def test_bad_values_are_named(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=key):
        parse_host_config({**GOOD, key: value}, base=BASE)


@pytest.mark.parametrize(
    "key", ["network", "host_service", "state", "endpoint", "models", "stake", "prices"]
)
def test_missing_values_are_named(key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        parse_host_config({k: v for k, v in GOOD.items() if k != key}, base=BASE)


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


@given(key=st.sampled_from(sorted(GOOD)), value=json_like)
def test_nothing_but_config_errors(key: str, value: object) -> None:
    try:
        parse_host_config({**GOOD, key: value}, base=BASE)
    except ConfigError:
        return


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        load_host_config(tmp_path / "none.toml")
    bad = tmp_path / "bad.toml"
    bad.write_text("= 1")
    with pytest.raises(ConfigError):
        load_host_config(bad)
