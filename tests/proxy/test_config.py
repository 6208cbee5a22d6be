"""Settings: precedence, exact amounts, and no unknown key goes unnoticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from cocoon_attestation.errors import ConfigError
from cocoon_proxy.config import ClientConfig, load_config, parse_amount


def test_defaults() -> None:
    assert load_config() == ClientConfig()
    assert ClientConfig().payment.deposit == 10**9


def test_flag_beats_environment_beats_file(tmp_path: Path) -> None:
    path = tmp_path / "client.toml"
    path.write_text(
        '[payment]\ndeposit = "2.5"\nrequest_cap = "0.1"\n[gateway]\nport = 1\nallowed_origins = ["a"]\n'
    )
    env = {"COCOON_PAYMENT_REQUEST_CAP": "0.2", "COCOON_GATEWAY_PORT": "2", "COCOON_HOME": "/elsewhere"}
    config = load_config(path, env=env, overrides={"gateway.port": 3})
    assert config.payment.deposit == 2_500_000_000
    assert config.payment.request_cap == 200_000_000
    assert config.gateway.port == 3
    assert config.gateway.allowed_origins == ("a",)


def test_lists_and_switches_from_the_environment() -> None:
    env = {"COCOON_POLICY_MODELS": "a, b@c,", "COCOON_POLICY_REFUSE_SIMULATED": "true"}
    policy = load_config(env=env).policy
    assert (policy.models, policy.refuse_simulated) == (("a", "b@c"), True)


@pytest.mark.parametrize(
    "text",
    [
        "[nothing]\n", "payment = 1\n", "[payment]\ndeposits = 1\n", "[payment]\ndeposit = 0.5\n",
        '[payment]\ndeposit = "-1"\n', '[payment]\ndeposit = "0.0000000001"\n', "[gateway]\nport = -1\n",
        '[endorsements]\nmode = "never"\n', "[endorsements]\nmode = 1\n", "[endorsements]\npccs = 1\n",
        "[gateway]\nport = true\n", "[gateway]\nhost = 1\n", "[policy]\nmodels = [1]\n",
        '[policy]\nrefuse_simulated = "maybe"\n', "not toml",
    ],
)  # fmt: skip
def test_mistakes_are_errors(tmp_path: Path, text: str) -> None:
    path = tmp_path / "client.toml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        load_config(path)


def test_missing_file_and_unknown_flag_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        load_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError):
        load_config(overrides={"gateway.prot": 1})


@pytest.mark.parametrize("value", [True, None, 0.1, "x", "1e400", "NaN", "Infinity", [], "0.1234567891"])
def test_amounts_are_exact_or_refused(value: object) -> None:
    with pytest.raises(ConfigError):
        parse_amount(value)


def test_the_token_is_not_shown() -> None:
    config = load_config(overrides={"gateway.token": "a-secret-token-value"})
    assert "a-secret" not in repr(config)
