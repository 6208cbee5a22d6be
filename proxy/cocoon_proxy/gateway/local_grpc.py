"""The gRPC side of the gateway: `LocalInferenceService`, on loopback only."""

from __future__ import annotations

import hmac
from collections.abc import AsyncIterator
from typing import NoReturn, TypeVar

import grpc
import grpc.aio

from cocoon.v1 import attestation_service_pb2, local_service_pb2, local_service_pb2_grpc, sealed_pb2
from cocoon_attestation.errors import CocoonError
from cocoon_proxy.config import GatewayConfig
from cocoon_proxy.events import Completed, Data, Head, StreamEvent
from cocoon_proxy.gateway.backend import Backend
from cocoon_proxy.gateway.peer import is_other_user

_Q = TypeVar("_Q")
_R = TypeVar("_R")


class LocalInference(local_service_pb2_grpc.LocalInferenceServiceServicer):
    """Passes requests to the client, and its events back."""

    def __init__(self, backend: Backend, config: GatewayConfig) -> None:
        self._backend = backend
        self._token = config.token.encode("utf-8")
        self.port = 0
        """Port of the server, once it is bound: names the connections whose owner is looked up."""

    async def Complete(  # noqa: N802  # the name is the protocol's
        self,
        request: local_service_pb2.CompleteRequest,
        context: grpc.aio.ServicerContext[
            local_service_pb2.CompleteRequest, local_service_pb2.CompleteResponse
        ],
    ) -> AsyncIterator[local_service_pb2.CompleteResponse]:
        """One request; ends with the verified receipt or an error status."""
        await self._authorize(context)
        events = self._backend.stream(request.endpoint, request.body)
        try:
            async for event in events:
                yield _response(event)
        except CocoonError as error:
            await _abort(context, error)
        finally:
            await events.aclose()

    async def ListModels(  # noqa: N802  # the name is the protocol's
        self,
        request: local_service_pb2.ListModelsRequest,
        context: grpc.aio.ServicerContext[
            local_service_pb2.ListModelsRequest, local_service_pb2.ListModelsResponse
        ],
    ) -> local_service_pb2.ListModelsResponse:
        """Models that verified nodes serve."""
        await self._authorize(context)
        try:
            models = await self._backend.models()
        except CocoonError as error:
            await _abort(context, error)
        served = [
            attestation_service_pb2.ServedModel(
                name=model.name, digest=model.digest, context_length=min(model.context_length, 2**32 - 1)
            )
            for model in models
        ]
        return local_service_pb2.ListModelsResponse(models=served)

    async def _authorize(self, context: grpc.aio.ServicerContext[_Q, _R]) -> None:
        if not self._token:
            if _other_user(context.peer(), self.port):
                await context.abort(
                    grpc.StatusCode.PERMISSION_DENIED, "the gateway serves the user who started it"
                )
            return
        for key, value in context.invocation_metadata() or ():
            text = value.encode("utf-8") if isinstance(value, str) else value
            if key == "authorization" and hmac.compare_digest(text, b"Bearer " + self._token):
                return
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "wrong or missing token")


def _other_user(peer: str, port: int) -> bool:
    """`peer` is gRPC's name of the client: ``ipv4:127.0.0.1:50000``."""
    kind, _, rest = peer.partition(":")
    host, _, client_port = rest.rpartition(":")
    return kind == "ipv4" and client_port.isdecimal() and is_other_user((host, int(client_port)), port)


def _response(event: StreamEvent) -> local_service_pb2.CompleteResponse:
    match event:
        case Head():
            head = sealed_pb2.ResponseHead(status=event.status, content_type=event.content_type)
            return local_service_pb2.CompleteResponse(head=head)
        case Data():
            return local_service_pb2.CompleteResponse(data=event.data)
        case Completed():
            usage = sealed_pb2.Usage(
                prompt_tokens=event.usage.prompt,
                cached_tokens=event.usage.cached,
                completion_tokens=event.usage.completion,
            )
            completed = local_service_pb2.Completed(
                receipt_id=event.receipt_id, usage=usage, amount_nanoton=event.amount, node=event.node
            )
            return local_service_pb2.CompleteResponse(completed=completed)


async def _abort(context: grpc.aio.ServicerContext[_Q, _R], error: CocoonError) -> NoReturn:
    """End a call with the status and stable code of an error."""
    status = getattr(grpc.StatusCode, error.grpc_status, grpc.StatusCode.INTERNAL)
    await context.abort(status, str(error), (("cocoon-code", error.code),))
