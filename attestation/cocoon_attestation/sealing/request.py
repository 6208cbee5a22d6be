"""Sealed requests: `seal_request` on the client's side, `open_request` in the enclave.

A random data encryption key (dek) encrypts the padded request once and is wrapped for up to three
verified enclaves. There is no way to seal to a bare key: recipients are `VerifiedEnclave` values.
See docs/spec/sealing.md, sections 2 and 3.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.message import DecodeError

from cocoon.v1 import sealed_pb2
from cocoon_attestation.errors import EvidenceRejectedError, MalformedError, SealingError
from cocoon_attestation.sealing.keys import WRAPPED_KEY_SIZE, RandomBytes, SealKeyPair, wrap
from cocoon_attestation.sealing.padding import MAX_REQUEST, pad, request_class, unpad
from cocoon_attestation.sealing.response import ResponseOpener, ResponseSealer, derive_key_and_nonce
from cocoon_attestation.types import Digest32, exact_bytes
from cocoon_attestation.verified import VerifiedEnclave

MAX_RECIPIENTS: Final = 3
DEK_SIZE: Final = 32
TAG_SIZE: Final = 16
MAX_SEALED_REQUEST: Final = request_class(MAX_REQUEST + 4) + TAG_SIZE + 4096
"""Longest serialized SealedRequest, in bytes."""

_REQUEST_INFO: Final = b"cocoon/v1/request"
_BODY_INFO: Final = b"cocoon/v1/request-body"


def seal_request(
    recipients: Sequence[VerifiedEnclave],
    plain: bytes,
    *,
    now: int,
    random: RandomBytes = secrets.token_bytes,
) -> tuple[bytes, ResponseOpener]:
    """Seal a serialized PlainRequest so that exactly these enclaves can read it.

    Args:
        recipients: one to three verified enclaves with different seal keys.
        plain: serialized PlainRequest, at most 8 MiB.
        now: Unix time in seconds; every recipient must be current at that time.
        random: source of the dek. (HPKE draws its own randomness.)

    Returns:
        The serialized SealedRequest, to be carried byte for byte, and the opener of its response.

    Raises:
        EvidenceRejectedError: a recipient is not the result of an appraisal, or that has expired.
        MalformedError: wrong number of recipients, one key twice, or `plain` is too long.
    """
    _check_recipients(recipients, now)
    dek = exact_bytes(random(DEK_SIZE), DEK_SIZE, "data encryption key")
    key, nonce = derive_key_and_nonce(dek, salt=None, info=_BODY_INFO)
    ciphertext = AESGCM(key).encrypt(nonce, pad(plain, request_class, MAX_REQUEST), None)
    message = sealed_pb2.SealedRequest(ciphertext=ciphertext)
    for recipient in recipients:
        key_id = recipient.binding.seal_key_hash
        wrapped = wrap(recipient.seal_public_key, dek, _wrap_info(key_id, ciphertext))
        message.recipients.add(key_id=key_id, wrapped_key=wrapped)
    sealed = message.SerializeToString()
    return sealed, ResponseOpener(dek=dek, recipients=tuple(recipients), sealed_hash=_hash(sealed))


def _check_recipients(recipients: Sequence[VerifiedEnclave], now: int) -> None:
    if not 1 <= len(recipients) <= MAX_RECIPIENTS:
        raise MalformedError(f"sealed request: 1 to {MAX_RECIPIENTS} recipients expected")
    for recipient in recipients:
        if type(recipient) is not VerifiedEnclave:
            raise EvidenceRejectedError("requests are sealed to verified enclaves only")
        if not recipient.is_current(now) or now > recipient.binding.not_after:
            raise EvidenceRejectedError(
                "the enclave's appraisal is not valid at this time", hint="appraise fresh evidence"
            )
        key_hash = hashlib.sha256(recipient.seal_public_key).digest()
        if not hmac.compare_digest(key_hash, recipient.binding.seal_key_hash):
            raise EvidenceRejectedError("the seal key is not the one in the key binding")
    if len({recipient.binding.seal_key_hash for recipient in recipients}) != len(recipients):
        raise MalformedError("sealed request: one recipient twice")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedRequest:
    """A request that was opened in the enclave. Shows no content in its repr."""

    plain: bytes = field(repr=False)
    """Serialized PlainRequest."""
    key_id: Digest32
    """Seal key that opened it."""
    response_sealer: ResponseSealer
    """Seals the answer to this request, once."""


def open_request(
    keys: Sequence[SealKeyPair], sealed: bytes, *, random: RandomBytes = secrets.token_bytes
) -> OpenedRequest:
    """Open a serialized SealedRequest with the first of `keys` that it names.

    Args:
        keys: current and previous seal keys of this enclave.
        sealed: the exact bytes from the wire.
        random: source of the response salt.

    Raises:
        MalformedError: not a SealedRequest (public structure, says nothing about content).
        SealingError: sealed to other keys, or changed on the way.
    """
    message = _parse_sealed(sealed)
    wrapped_keys = {recipient.key_id: recipient.wrapped_key for recipient in message.recipients}
    key = next((key for key in keys if key.key_id in wrapped_keys), None)
    if key is None:
        raise SealingError
    info = _wrap_info(key.key_id, message.ciphertext)
    dek = key.unwrap(wrapped_keys[key.key_id], info)
    if len(dek) != DEK_SIZE:
        raise SealingError
    body_key, nonce = derive_key_and_nonce(dek, salt=None, info=_BODY_INFO)
    try:
        padded = AESGCM(body_key).decrypt(nonce, message.ciphertext, None)
    except InvalidTag:
        raise SealingError from None
    return OpenedRequest(
        plain=unpad(padded, request_class, MAX_REQUEST),
        key_id=key.key_id,
        response_sealer=ResponseSealer(
            dek=dek, key_id=key.key_id, sealed_hash=_hash(sealed), random=random
        ),
    )


def recipient_key_ids(sealed: bytes) -> tuple[Digest32, ...]:
    """Key ids that a serialized SealedRequest names, for routers and for "unknown key" answers.

    Raises:
        MalformedError: not a SealedRequest.
    """
    return tuple(Digest32(recipient.key_id) for recipient in _parse_sealed(sealed).recipients)


def _parse_sealed(sealed: bytes) -> sealed_pb2.SealedRequest:
    if len(sealed) > MAX_SEALED_REQUEST:
        raise MalformedError("sealed request: too long")
    try:
        message = sealed_pb2.SealedRequest.FromString(sealed)
    except DecodeError as error:
        raise MalformedError("sealed request: not a protobuf message") from error
    if not 1 <= len(message.recipients) <= MAX_RECIPIENTS:
        raise MalformedError(f"sealed request: 1 to {MAX_RECIPIENTS} recipients expected")
    for recipient in message.recipients:
        exact_bytes(recipient.key_id, 32, "sealed request key_id")
        exact_bytes(recipient.wrapped_key, WRAPPED_KEY_SIZE, "sealed request wrapped_key")
    if len({recipient.key_id for recipient in message.recipients}) != len(message.recipients):
        raise MalformedError("sealed request: one recipient twice")
    if len(message.ciphertext) < request_class(0) + TAG_SIZE:
        raise MalformedError("sealed request: ciphertext too short")
    return message


def _wrap_info(key_id: bytes, ciphertext: bytes) -> bytes:
    return _REQUEST_INFO + key_id + _hash(ciphertext)


def _hash(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
