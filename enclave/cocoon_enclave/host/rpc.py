"""Calls to the enclave's HostService, with gRPC's errors turned into the project's."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

import grpc

from cocoon_attestation.errors import UnavailableError

T = TypeVar("T")


class EnclaveUnavailableError(UnavailableError):
    """The enclave does not answer its host."""

    code = "enclave_unavailable"
    default_hint = "is the enclave running, and is host_service its host port?"


async def call(response: Awaitable[T]) -> T:
    """Await one call. Raises `EnclaveUnavailableError` with the status name, never gRPC's own error."""
    try:
        return await response
    except grpc.aio.AioRpcError as error:
        raise EnclaveUnavailableError(f"the enclave did not answer: {error.code().name.lower()}") from error
