"""Fixtures for every package."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from cocoon.v1 import evidence_pb2
from cocoon_attestation.appraisal import appraise
from cocoon_attestation.binding import KeyBinding, report_data
from cocoon_attestation.checks import CheckList
from cocoon_attestation.errors import EvidenceRejectedError
from cocoon_attestation.policy import Policy
from cocoon_attestation.reference import Release, TeeKind
from cocoon_attestation.rtmr3 import RuntimeEvent, replay
from cocoon_attestation.sealing import SealKeyPair
from cocoon_attestation.verified import VerifiedEnclave, _issue
from cocoon_enclave.attestation.simulated import EVALUATION_NUMBER, DevPlatform


@pytest.fixture(scope="session")
def issue_enclave() -> Callable[..., VerifiedEnclave]:
    """Make a `VerifiedEnclave` without any evidence: for tests of what stands behind appraisal.

    Reaches for the issuer that only `cocoon_attestation.appraisal` may use; nothing outside tests does.
    """
    release = Release(
        name="test",
        mrtd=bytes(48),
        rtmr0=bytes(48),
        rtmr1=bytes(48),
        rtmr2=bytes(48),
        td_attributes=bytes(8),
        xfam=bytes(8),
    )

    def issue(
        seal_key: SealKeyPair,
        *,
        receipt_key: bytes = b"\x03" * 32,
        node: bytes = b"\x01" * 32,
        models: tuple[bytes, ...] = (b"\x07" * 32,),
        global_id: int = -3,
        now: int = 1_800_000_000,
        expires_at: int = 1_800_000_600,
        tls_spki_hash: bytes = b"\x04" * 32,
        seal_public_key: bytes | None = None,
    ) -> VerifiedEnclave:
        binding = KeyBinding(
            node=node,
            seal_key_hash=seal_key.key_id,
            receipt_key=receipt_key,
            tls_spki_hash=tls_spki_hash,
            config_hash=b"\x05" * 32,
            release_id=release.release_id,
            not_before=now - 3600,
            not_after=now + 3600,
            global_id=global_id,
        )
        checks = CheckList()
        checks.record("test.issued", True, "issued by a test fixture")
        return _issue(
            binding=binding,
            seal_public_key=seal_public_key or seal_key.public_key,
            models=models,
            release=release,
            tee=TeeKind.TDX,
            simulated=True,
            platform_id=b"\x08" * 32,
            checks=checks,
            policy_digest=b"\x09" * 32,
            evidence_digest=b"\x0a" * 32,
            appraised_at=now,
            expires_at=expires_at,
            claims={},
        )

    return issue


class Lab:
    """Makes simulated evidence, good or with one chosen fault, and appraises it.

    A fault is a keyword of `evidence`; everything else stays consistent, so a test can demand that one
    check fails and no other. Values are deterministic apart from ECDSA nonces.
    """

    now = 1_800_000_000
    global_id = -3

    def __init__(self) -> None:
        self._counter = 0
        self.platform = DevPlatform.create(self.now - 86_400, self.random)
        self.release = self.platform.release()
        self.model = self.random(32)
        self.config_hash = self.random(32)
        self.seal_public_key = self.random(1216)
        self.challenge = self.random(32)

    def random(self, length: int) -> bytes:
        """Deterministic bytes, different at every call."""
        self._counter += 1
        return hashlib.shake_256(b"lab" + self._counter.to_bytes(4)).digest(length)

    def binding(self, **changes: Any) -> KeyBinding:
        """A key binding that fits everything else."""
        binding = KeyBinding(
            node=b"\x01" * 32,
            seal_key_hash=hashlib.sha256(self.seal_public_key).digest(),
            receipt_key=b"\x02" * 32,
            tls_spki_hash=b"\x03" * 32,
            config_hash=self.config_hash,
            release_id=self.release.release_id,
            not_before=self.now - 3600,
            not_after=self.now + 3600,
            global_id=self.global_id,
        )
        return dataclasses.replace(binding, **changes)

    def policy(self, **changes: Any) -> Policy:
        """A policy that accepts good evidence."""
        policy = Policy(
            global_id=self.global_id,
            releases=(self.release,),
            models=frozenset({self.model}),
            min_tcb_evaluation=EVALUATION_NUMBER,
            dev_root=self.platform.root_der,
        )
        return dataclasses.replace(policy, **changes)

    def events(self, **payloads: bytes) -> list[RuntimeEvent]:
        """The runtime events of a good guest; `config`, `model` and `gpu` replace a payload."""
        return [
            RuntimeEvent(name="cocoon.config", payload=payloads.get("config", self.config_hash)),
            RuntimeEvent(name="cocoon.model", payload=payloads.get("model", self.model)),
            RuntimeEvent(name="cocoon.gpu", payload=payloads.get("gpu", b"none")),
            RuntimeEvent(name="cocoon.ready", payload=b""),
        ]

    def evidence(
        self,
        *,
        binding: KeyBinding | None = None,
        challenge: bytes | None = None,
        events: Sequence[RuntimeEvent] | None = None,
        report: dict[str, bytes] | None = None,
        quote: Callable[[bytes], bytes] = lambda quote: quote,
        collateral: evidence_pb2.TdxCollateral | None = None,
        platform: DevPlatform | None = None,
        gpu_digest: bytes = bytes(32),
        edit: Callable[[evidence_pb2.Evidence], object] = lambda message: None,
    ) -> bytes:
        """Serialized evidence.

        Args:
            binding: key binding to show and to sign.
            challenge: challenge to show and to sign.
            events: runtime events to show and to measure.
            report: fields of the TD report to replace before it is signed.
            quote: changes the signed quote.
            collateral: collateral to staple.
            platform: machine to sign on.
            gpu_digest: digest of device evidence to sign.
            edit: changes the message at the end.
        """
        machine = platform or self.platform
        shown_binding, shown_events = binding or self.binding(), events or self.events()
        shown_challenge = challenge or self.challenge
        data = report_data(shown_binding.hash, gpu_digest, shown_challenge)
        td_report = machine.td_report(data, replay(shown_events))
        td_report = dataclasses.replace(td_report, **(report or {}))
        message = evidence_pb2.Evidence(
            key_binding=shown_binding.to_boc(),
            seal_public_key=self.seal_public_key,
            challenge=shown_challenge,
            tdx=evidence_pb2.TdxEvidence(
                quote=quote(machine.quote(td_report)),
                runtime_events=[
                    evidence_pb2.RuntimeEvent(name=event.name, payload=event.payload)
                    for event in shown_events
                ],
                collateral=collateral or machine.collateral(self.now),
            ),
        )
        edit(message)
        return message.SerializeToString(deterministic=True)

    def appraise(
        self,
        evidence: bytes | None = None,
        *,
        policy: Policy | None = None,
        challenge: bytes | None = None,
        now: int | None = None,
    ) -> VerifiedEnclave:
        """Appraise; without arguments, good evidence under a fitting policy."""
        return appraise(
            self.evidence() if evidence is None else evidence,
            policy=policy or self.policy(),
            challenge=challenge or self.challenge,
            now=now or self.now,
        )

    def failures(self, evidence: bytes | None = None, **arguments: Any) -> tuple[str, ...]:
        """Appraise evidence that must be rejected, and return the ids of the failed checks."""
        with pytest.raises(EvidenceRejectedError) as caught:
            self.appraise(evidence, **arguments)
        assert caught.value.checks is not None
        assert not caught.value.checks.accepted
        return tuple(check.id for check in caught.value.checks.failed)


@pytest.fixture(scope="session")
def lab() -> Lab:
    """A laboratory for simulated evidence."""
    return Lab()
