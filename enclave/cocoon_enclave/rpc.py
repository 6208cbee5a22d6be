"""Errors of the tree as gRPC statuses."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, TypeVar

import grpc

from cocoon_attestation.errors import CocoonError

T = TypeVar("T")
Context = grpc.aio.ServicerContext[Any, Any]


async def answer(context: Context, work: Awaitable[T]) -> T:
    """Await `work`; an error of the tree ends the call with its status, and its code as metadata."""
    try:
        return await work
    except CocoonError as error:
        status = getattr(grpc.StatusCode, error.grpc_status)
        await context.abort(status, str(error), (("cocoon-code", error.code),))
        raise
