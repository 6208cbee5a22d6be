"""The opened request: a client's bytes, still untrusted."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from cocoon.v1 import sealed_pb2
from cocoon_attestation.errors import MalformedError
from cocoon_attestation.types import exact_bytes


def parse_plain(data: bytes) -> sealed_pb2.PlainRequest:
    """Read the opened request.

    Raises:
        MalformedError: not a PlainRequest, or a field of the wrong length.
    """
    try:
        plain = sealed_pb2.PlainRequest.FromString(data)
    except DecodeError as error:
        raise MalformedError("the opened request does not parse") from error
    exact_bytes(plain.request_id, 16, "request id")
    exact_bytes(plain.receipt_salt, 32, "receipt salt")
    return plain
