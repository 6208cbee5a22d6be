"""The user's own rules in ``client.toml``: read strictly, applied to every node, loud where unsafe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cocoon_attestation.errors import ConfigError, EvidenceRejectedError
from cocoon_attestation.policy_language import AllOf, ClientRules, UnsafePolicyWarning
from cocoon_attestation.policy_leaves import SimulatedIs, TeeIs
from cocoon_attestation.reference import TeeKind
from cocoon_cli.events import describe
from cocoon_proxy import events as e
from cocoon_proxy.config import PolicyOverrides, load_config

if TYPE_CHECKING:
    from tests.proxy.harness import FakeEnclave, Network

CHAT = "/v1/chat/completions"
FILE = """
[policy]
rules = [
  { tee_is = ["tdx"] },
  { simulated_is = true },
]
"""
RULES = ClientRules(rules=AllOf(TeeIs(frozenset({TeeKind.TDX})), SimulatedIs(True)))


def test_rules_come_from_file_environment_and_flag(tmp_path: Path) -> None:
    path = tmp_path / "client.toml"
    path.write_text(FILE)
    assert load_config(path).policy.rules == RULES
    text = '[{ tee_is = ["sev-snp"] }]'
    other = ClientRules(rules=AllOf(TeeIs(frozenset({TeeKind.SEV_SNP}))))
    assert load_config(path, env={"COCOON_POLICY_RULES": text}).policy.rules == other
    assert load_config(path, overrides={"policy.rules": text}).policy.rules == other
    assert load_config(overrides={"policy.rules": RULES}).policy.rules == RULES
    assert load_config().policy.rules is None


@pytest.mark.parametrize(
    "value",
    [
        "[]",
        "5",
        '"text"',
        "[{}]",
        "[{ surprise = true }]",
        "[{ tee_is = [] }]",
        '[{ tee_is = ["tdx"], simulated_is = true }]',
        "[{ any_of = [] }]",
        '[{ platform_in = ["00"] }]',
    ],
)
def test_wrong_rules_are_errors_in_file_and_environment(tmp_path: Path, value: str) -> None:
    path = tmp_path / "client.toml"
    path.write_text(f"[policy]\nrules = {value}\n")
    with pytest.raises(ConfigError, match=r"policy\.rules"):
        load_config(path)
    with pytest.raises(ConfigError, match=r"policy\.rules"):
        load_config(env={"COCOON_POLICY_RULES": value})


@pytest.mark.parametrize("value", ["", "not toml", "[]\nmore = 1", "[\n"])
def test_text_that_is_no_array_is_an_error(value: str) -> None:
    with pytest.raises(ConfigError, match=r"policy\.rules"):
        load_config(env={"COCOON_POLICY_RULES": value})


@pytest.mark.parametrize("key", ["models", "releases", "nodes"])
def test_empty_list_of_what_is_allowed_refuses_to_start(tmp_path: Path, key: str) -> None:
    path = tmp_path / "client.toml"
    path.write_text(f"[policy]\n{key} = []\n")
    with pytest.raises(ConfigError, match="allows nothing"):
        load_config(path)
    with pytest.raises(ConfigError, match="allows nothing"):
        load_config(env={f"COCOON_POLICY_{key.upper()}": " , "})


async def test_every_node_is_held_to_the_rules(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    overrides = PolicyOverrides(rules=RULES)
    async with network.client(policy_overrides=overrides) as client:
        await client.complete(CHAT, harness.body())
    (checked,) = network.of(e.EvidenceChecked)
    assert checked.accepted
    assert {"client.tee_is", "client.simulated_is", "tls.spki"} <= {check.id for check in checked.checks}


async def test_nothing_is_sealed_to_a_node_that_fails_a_rule(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    rules = ClientRules(rules=AllOf(SimulatedIs(False)))
    async with network.client(policy_overrides=PolicyOverrides(rules=rules)) as client:
        with pytest.raises(EvidenceRejectedError, match=r"client\.simulated_is") as caught:
            await client.complete(CHAT, harness.body())
    assert caught.value.checks is not None
    assert [check.id for check in caught.value.checks.failed] == ["client.simulated_is"]
    assert "binding.report_data" in {check.id for check in caught.value.checks}
    (checked,) = network.of(e.EvidenceChecked)
    assert not checked.accepted
    assert not enclave.requests
    assert not network.of(e.RequestSealed)


async def test_rule_that_checks_nothing_is_loud(
    network: Network, enclave: FakeEnclave, harness: Any
) -> None:
    with pytest.warns(UnsafePolicyWarning, match="trying it out"):
        config = load_config(env={"COCOON_POLICY_RULES": '[{ unsafe_no_op = "trying it out" }]'})
    async with network.client(policy_overrides=config.policy) as client:
        await client.complete(CHAT, harness.body())
    (unsafe,) = network.of(e.UnsafeRules)
    assert unsafe.reasons == ("trying it out",)
    assert "UNSAFE" in describe(unsafe)
    (checked,) = network.of(e.EvidenceChecked)
    (check,) = (check for check in checked.checks if check.id == "client.unsafe_no_op")
    assert check.detail.startswith("UNSAFE")
