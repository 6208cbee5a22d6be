"""A2: the quote of another enclave, another key or another challenge; a server-chosen nonce; a replay.

The attacker has perfectly genuine evidence, made by honest enclaves on machines that the network
accepts. What is wrong is what it is shown *for*. Every attack names the check that stops it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import secrets
from collections.abc import Callable
from typing import Any

import pytest

from cocoon.v1 import evidence_pb2
from cocoon_attestation.appraisal import appraise
from cocoon_attestation.binding import KeyBinding, beacon_challenge
from cocoon_attestation.errors import EvidenceRejectedError
from cocoon_attestation.policy import Policy
from cocoon_enclave.attestation.attester import make_evidence, measure
from cocoon_enclave.attestation.simulated import (
    EVALUATION_NUMBER,
    DevPlatform,
    SimulatedAttester,
    simulated_release,
)

NOW = 1_800_000_000
CONFIG = hashlib.sha256(b"config").digest()
MODEL = hashlib.sha256(b"model").digest()


class Enclave:
    """An honest enclave with its own keys, as the network runs it."""

    def __init__(self, platform: DevPlatform, *, node: bytes, config: bytes = CONFIG) -> None:
        self.seal_public_key = secrets.token_bytes(1216)
        self.attester = SimulatedAttester(platform, clock=lambda: NOW)
        measure(self.attester, config_hash=config, models=[MODEL])
        self.binding = KeyBinding(
            node=node,
            seal_key_hash=hashlib.sha256(self.seal_public_key).digest(),
            receipt_key=secrets.token_bytes(32),
            tls_spki_hash=secrets.token_bytes(32),
            config_hash=config,
            release_id=simulated_release().release_id,
            not_before=NOW - 60,
            not_after=NOW + 3600,
            global_id=-3,
        )

    def answer(self, challenge: bytes) -> bytes:
        return make_evidence(
            self.attester,
            binding=self.binding,
            seal_public_key=self.seal_public_key,
            challenge=challenge,
        )


@pytest.fixture(scope="module")
def platform() -> DevPlatform:
    return DevPlatform.create(NOW - 86_400, secrets.token_bytes)


@pytest.fixture(scope="module")
def victim(platform: DevPlatform) -> Enclave:
    return Enclave(platform, node=b"\x01" * 32)


@pytest.fixture(scope="module")
def other(platform: DevPlatform) -> Enclave:
    return Enclave(platform.sibling(NOW - 3600, secrets.token_bytes), node=b"\x02" * 32)


@pytest.fixture(scope="module")
def policy(platform: DevPlatform) -> Policy:
    return Policy(
        global_id=-3,
        releases=(simulated_release(),),
        models=frozenset({MODEL}),
        min_tcb_evaluation=EVALUATION_NUMBER,
        dev_root=platform.root_der,
    )


def stopped_by(evidence: bytes, *, policy: Policy, challenge: bytes) -> tuple[str, ...]:
    with pytest.raises(EvidenceRejectedError) as caught:
        appraise(evidence, policy=policy, challenge=challenge, now=NOW)
    assert caught.value.checks is not None
    return tuple(check.id for check in caught.value.checks.failed)


def edited(evidence: bytes, change: Callable[[Any], object]) -> bytes:
    message = evidence_pb2.Evidence.FromString(evidence)
    change(message)
    return message.SerializeToString(deterministic=True)


def fresh() -> bytes:
    return secrets.token_bytes(32)


def test_the_honest_answer_is_accepted(victim: Enclave, policy: Policy) -> None:
    """Without this, the refusals below would prove nothing."""
    challenge = fresh()
    assert appraise(victim.answer(challenge), policy=policy, challenge=challenge, now=NOW).simulated


def test_quote_of_another_enclave(victim: Enclave, other: Enclave, policy: Policy) -> None:
    """The attacker shows its own keys with the quote of an honest enclave for the same challenge."""
    challenge = fresh()
    genuine = evidence_pb2.Evidence.FromString(other.answer(challenge))
    mixed = edited(victim.answer(challenge), lambda message: message.tdx.CopyFrom(genuine.tdx))
    assert stopped_by(mixed, policy=policy, challenge=challenge) == ("binding.report_data",)


def test_seal_key_swapped_in_the_evidence(victim: Enclave, policy: Policy) -> None:
    challenge = fresh()
    mine = secrets.token_bytes(1216)
    swapped = edited(victim.answer(challenge), lambda m: setattr(m, "seal_public_key", mine))
    assert stopped_by(swapped, policy=policy, challenge=challenge) == ("binding.seal_key",)


@pytest.mark.parametrize(
    "field", ["seal_key_hash", "receipt_key", "tls_spki_hash", "node", "not_after", "not_before"]
)
def test_binding_swapped_in_the_evidence(victim: Enclave, policy: Policy, field: str) -> None:
    """The attacker puts its own key, its own node, or a longer life into the binding."""
    challenge, mine = fresh(), secrets.token_bytes(1216)
    values: dict[str, Any] = {
        "seal_key_hash": hashlib.sha256(mine).digest(),
        "not_after": NOW + 80_000,
        "not_before": NOW - 30,
    }
    changed = dataclasses.replace(victim.binding, **{field: values.get(field, b"\x66" * 32)})

    def swap(message: Any) -> None:
        message.key_binding = changed.to_boc()
        if field == "seal_key_hash":
            message.seal_public_key = mine

    evidence = edited(victim.answer(challenge), swap)
    assert stopped_by(evidence, policy=policy, challenge=challenge) == ("binding.report_data",)


def test_enclave_of_another_node(other: Enclave, policy: Policy) -> None:
    """A genuine enclave, but not the one whose node the client wants to pay."""
    challenge = fresh()
    wanted = policy.tightened(node=b"\x01" * 32)
    assert stopped_by(other.answer(challenge), policy=wanted, challenge=challenge) == ("binding.node",)


def test_replay_of_an_old_answer(victim: Enclave, policy: Policy) -> None:
    old = victim.answer(fresh())
    assert stopped_by(old, policy=policy, challenge=fresh()) == ("challenge",)


def test_replay_with_the_new_challenge_written_over(victim: Enclave, policy: Policy) -> None:
    """The field says what the client asked; the hardware signed something older."""
    new = fresh()
    evidence = edited(victim.answer(fresh()), lambda message: setattr(message, "challenge", new))
    assert stopped_by(evidence, policy=policy, challenge=new) == ("binding.report_data",)


def test_server_chosen_nonce(victim: Enclave, policy: Policy) -> None:
    """A relay answers with evidence for a nonce of its own, and says so openly."""
    servers_own = fresh()
    evidence = victim.answer(servers_own)
    assert stopped_by(evidence, policy=policy, challenge=fresh()) == ("challenge",)


def test_published_evidence_shown_to_a_client(victim: Enclave, policy: Policy) -> None:
    """Evidence for the chain is public; it must not open a session."""
    block = (1234, secrets.token_bytes(32))
    published = make_evidence(
        victim.attester, binding=victim.binding, seal_public_key=victim.seal_public_key, beacon=block
    )
    assert stopped_by(published, policy=policy, challenge=fresh()) == ("challenge",)


def test_session_evidence_dressed_up_as_published(victim: Enclave, policy: Policy) -> None:
    """Evidence for a nonce gets a beacon written beside it, to look made after a block."""
    block = (1234, secrets.token_bytes(32))

    def dress(message: Any) -> None:
        message.beacon.seqno, message.beacon.root_hash = block
        message.challenge = beacon_challenge(*block)

    evidence = edited(victim.answer(fresh()), dress)
    challenge = beacon_challenge(*block)
    assert stopped_by(evidence, policy=policy, challenge=challenge) == ("binding.report_data",)


def test_beacon_of_another_block(victim: Enclave, policy: Policy) -> None:
    """The node names a newer block than the one it really used."""
    old, new = (1, secrets.token_bytes(32)), (2, secrets.token_bytes(32))
    evidence = make_evidence(
        victim.attester, binding=victim.binding, seal_public_key=victim.seal_public_key, beacon=old
    )

    def rename(message: Any) -> None:
        message.beacon.seqno, message.beacon.root_hash = new

    challenge = beacon_challenge(*new)
    renamed = edited(evidence, rename)
    assert stopped_by(renamed, policy=policy, challenge=challenge) == ("challenge",)
    assert stopped_by(evidence, policy=policy, challenge=challenge) == ("challenge",)


def test_enclave_with_another_configuration(platform: DevPlatform, policy: Policy) -> None:
    """Same release, same machine, but measured with a configuration that the binding hides."""
    rogue = Enclave(platform, node=b"\x01" * 32, config=hashlib.sha256(b"log prompts").digest())
    rogue.binding = dataclasses.replace(rogue.binding, config_hash=CONFIG)
    challenge = fresh()
    assert stopped_by(rogue.answer(challenge), policy=policy, challenge=challenge) == ("rtmr3.config",)


def test_evidence_of_another_network(platform: DevPlatform, policy: Policy) -> None:
    enclave = Enclave(platform, node=b"\x01" * 32)
    enclave.binding = dataclasses.replace(enclave.binding, global_id=-239)
    challenge = fresh()
    assert stopped_by(enclave.answer(challenge), policy=policy, challenge=challenge) == ("binding.network",)


def test_result_cannot_be_used_after_its_time(victim: Enclave, policy: Policy) -> None:
    challenge = fresh()
    enclave = appraise(victim.answer(challenge), policy=policy, challenge=challenge, now=NOW)
    assert enclave.expires_at - NOW <= 600
    assert not enclave.is_current(NOW + 601)
