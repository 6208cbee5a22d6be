"""Sealed requests and responses: end-to-end encryption between a client and attested enclaves.

The sealing side and the opening side of one message stand in one file: `request` and `response`. Both
are sans-I/O: bytes in, bytes out, no clock. See docs/spec/sealing.md.
"""

from cocoon_attestation.sealing.keys import (
    SEAL_PUBLIC_KEY_SIZE,
    SealKeyPair,
    check_seal_public_key,
    generate_seal_keypair,
)
from cocoon_attestation.sealing.padding import MAX_CHUNK, MAX_REQUEST
from cocoon_attestation.sealing.request import (
    MAX_RECIPIENTS,
    MAX_SEALED_REQUEST,
    OpenedRequest,
    open_request,
    recipient_key_ids,
    seal_request,
)
from cocoon_attestation.sealing.response import ResponseOpener, ResponseSealer

__all__ = [
    "MAX_CHUNK",
    "MAX_RECIPIENTS",
    "MAX_REQUEST",
    "MAX_SEALED_REQUEST",
    "SEAL_PUBLIC_KEY_SIZE",
    "OpenedRequest",
    "ResponseOpener",
    "ResponseSealer",
    "SealKeyPair",
    "check_seal_public_key",
    "generate_seal_keypair",
    "open_request",
    "recipient_key_ids",
    "seal_request",
]
