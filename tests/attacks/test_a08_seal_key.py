"""A8 at the level of sealing: nothing but an appraised key can be sealed to.

The man in the middle offers his own seal key in every way this process could be made to take it: as a
bare key, in a look-alike object, in a changed or rebuilt `VerifiedEnclave`, and as a recipient smuggled
into a finished request.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest

from cocoon.v1 import sealed_pb2
from cocoon_attestation import sealing
from cocoon_attestation.errors import EvidenceRejectedError, SealingError
from cocoon_attestation.sealing import SealKeyPair, open_request, seal_request
from cocoon_attestation.verified import VerifiedEnclave

NOW = 1_800_000_000
HONEST = SealKeyPair(b"\x01" * 32)
ATTACKER = SealKeyPair(b"\x66" * 32)
IssueEnclave = Callable[..., VerifiedEnclave]


@pytest.fixture
def honest(issue_enclave: IssueEnclave) -> VerifiedEnclave:
    return issue_enclave(HONEST, now=NOW)


def look_alike(honest: VerifiedEnclave) -> object:
    fields = {field.name: getattr(honest, field.name) for field in dataclasses.fields(VerifiedEnclave)}
    fields["seal_public_key"] = ATTACKER.public_key
    fields["binding"] = dataclasses.replace(honest.binding, seal_key_hash=ATTACKER.key_id)
    return SimpleNamespace(**fields, is_current=lambda now: True)


def test_bare_keys_and_look_alikes_are_refused(honest: VerifiedEnclave) -> None:
    for recipient in (
        ATTACKER.public_key,
        ATTACKER,
        dataclasses.replace(honest.binding, seal_key_hash=ATTACKER.key_id),
        look_alike(honest),
        None,
    ):
        with pytest.raises(EvidenceRejectedError):
            seal_request([cast("VerifiedEnclave", recipient)], b"prompt", now=NOW)


def test_a_look_alike_beside_an_honest_enclave_spoils_the_request(honest: VerifiedEnclave) -> None:
    with pytest.raises(EvidenceRejectedError):
        seal_request([honest, cast("VerifiedEnclave", look_alike(honest))], b"prompt", now=NOW)


def test_a_verified_enclave_cannot_be_changed_rebuilt_or_copied(honest: VerifiedEnclave) -> None:
    with pytest.raises((TypeError, ValueError)):
        dataclasses.replace(honest, seal_public_key=ATTACKER.public_key)  # type: ignore[call-arg]
    with pytest.raises(dataclasses.FrozenInstanceError):
        honest.seal_public_key = ATTACKER.public_key  # type: ignore[misc]
    with pytest.raises(TypeError):
        copy.copy(honest)
    with pytest.raises(TypeError):
        pickle.dumps(honest)
    fields = {field.name: getattr(honest, field.name) for field in dataclasses.fields(honest)}
    for issuer in (None, object(), honest):
        with pytest.raises(TypeError):
            VerifiedEnclave(issuer=issuer, **{**fields, "seal_public_key": ATTACKER.public_key})
    with pytest.raises(TypeError):
        type("Derived", (VerifiedEnclave,), {})


def test_a_swapped_key_is_noticed_even_inside_a_verified_enclave(issue_enclave: IssueEnclave) -> None:
    """Second line of defence: the key must hash to the binding that the hardware signed."""
    swapped = issue_enclave(HONEST, now=NOW, seal_public_key=ATTACKER.public_key)
    with pytest.raises(EvidenceRejectedError):
        seal_request([swapped], b"prompt", now=NOW)


def test_keys_of_an_expired_appraisal_are_refused(honest: VerifiedEnclave) -> None:
    with pytest.raises(EvidenceRejectedError):
        seal_request([honest], b"prompt", now=honest.expires_at)


def test_the_attacker_cannot_open_what_he_relays(honest: VerifiedEnclave) -> None:
    sealed, _ = seal_request([honest], b"prompt", now=NOW)
    with pytest.raises(SealingError):
        open_request([ATTACKER], sealed)
    message = sealed_pb2.SealedRequest.FromString(sealed)
    renamed = sealed_pb2.SealedRequest()
    renamed.CopyFrom(message)
    renamed.recipients[0].key_id = ATTACKER.key_id
    with pytest.raises(SealingError):
        open_request([ATTACKER], renamed.SerializeToString())
    message.recipients.add(key_id=ATTACKER.key_id, wrapped_key=message.recipients[0].wrapped_key)
    with pytest.raises(SealingError):
        open_request([ATTACKER], message.SerializeToString())


def test_a_recipient_smuggled_into_a_request_breaks_the_answer(honest: VerifiedEnclave) -> None:
    """The response key covers every byte of the request as the client sent it."""
    sealed, opener = seal_request([honest], b"prompt", now=NOW)
    message = sealed_pb2.SealedRequest.FromString(sealed)
    message.recipients.add(key_id=ATTACKER.key_id, wrapped_key=bytes(1168))
    answer = open_request([HONEST], message.SerializeToString()).response_sealer
    with pytest.raises(SealingError):
        opener.head(answer.head(b"answer"))


def test_the_attacker_cannot_answer(honest: VerifiedEnclave, issue_enclave: IssueEnclave) -> None:
    """Only a holder of the dek can answer, and an answer fits one request only."""
    _, opener = seal_request([honest], b"prompt", now=NOW)
    foreign, _ = seal_request([issue_enclave(ATTACKER, now=NOW)], b"prompt", now=NOW)
    forged = open_request([ATTACKER], foreign).response_sealer
    with pytest.raises(SealingError):
        opener.head(forged.head(b"forged"))


def test_no_public_function_seals_to_bytes() -> None:
    """The package exports exactly one function that seals, and its recipients are verified enclaves."""
    sealers = [name for name in sealing.__all__ if name.startswith("seal_")]
    assert sealers == ["seal_request"]
    parameters = inspect.signature(seal_request).parameters
    assert parameters["recipients"].annotation == "Sequence[VerifiedEnclave]"
