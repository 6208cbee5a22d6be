"""The gRPC services on the public port: thin adapters."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from typing import Final

from cocoon.v1 import attestation_service_pb2 as messages
from cocoon.v1 import attestation_service_pb2_grpc, inference_service_pb2_grpc
from cocoon.v1 import inference_service_pb2 as wire
from cocoon_attestation.errors import UnavailableError
from cocoon_attestation.types import digest32
from cocoon_enclave.attestation.attester import make_evidence
from cocoon_enclave.attestation.machine import Machine
from cocoon_enclave.errors import NodeBusyError
from cocoon_enclave.keys import Keyset
from cocoon_enclave.rpc import Context, answer
from cocoon_enclave.service import Service
from cocoon_enclave.session import Session

MAX_WAITING: Final = 64
"""Callers that may wait for evidence at once."""


class EvidenceMaker:
    """Makes evidence for the current keyset, one at a time, as hardware does."""

    def __init__(self, service: Service, machine: Machine) -> None:
        self._service = service
        self._machine = machine
        self._turn = asyncio.Lock()
        self._waiting = 0

    @property
    def simulated(self) -> bool:
        """True if no hardware stands behind it."""
        return self._machine.simulated

    async def make(
        self,
        *,
        challenge: bytes = b"",
        beacon: tuple[int, bytes] | None = None,
        keyset: Keyset | None = None,
    ) -> bytes:
        """Serialized Evidence for a challenge or a beacon; see `make_evidence`.

        keyset: the one to speak for; None for the current one.

        Raises:
            NodeBusyError: too many callers wait, and `keyset` is None.
            UnavailableError: the platform did not answer.
        """
        # The enclave's own keys and its host must not lose to a crowd of strangers.
        if keyset is None and self._waiting >= MAX_WAITING:
            raise NodeBusyError("too many callers wait for evidence")
        self._waiting += 1
        try:
            return await self._make(challenge, beacon, keyset)
        finally:
            self._waiting -= 1

    async def _make(
        self, challenge: bytes, beacon: tuple[int, bytes] | None, wanted: Keyset | None
    ) -> bytes:
        # What is kept must verify by itself later; who asks for a session can get endorsements of its own.
        complete = wanted is not None or beacon is not None
        gpus = self._machine.gpus
        async with self._turn:
            keyset = wanted or self._service.keyring.current
            return await asyncio.to_thread(
                make_evidence,
                self._machine.attester,
                binding=keyset.binding,
                seal_public_key=keyset.seal.public_key,
                challenge=challenge,
                beacon=beacon,
                devices=None if gpus is None else functools.partial(gpus.evidence, complete=complete),
            )


class Attestation(attestation_service_pb2_grpc.AttestationServiceServicer):
    """`AttestationService`."""

    def __init__(self, service: Service, evidence: EvidenceMaker) -> None:
        self._service = service
        self._evidence = evidence

    async def GetEvidence(  # noqa: N802
        self, request: messages.GetEvidenceRequest, context: Context
    ) -> messages.GetEvidenceResponse:
        """Fresh evidence for the caller's challenge."""

        async def work() -> messages.GetEvidenceResponse:
            challenge = digest32(request.challenge, "challenge")
            return messages.GetEvidenceResponse(evidence=await self._evidence.make(challenge=challenge))

        return await answer(context, work())

    async def GetPublishedEvidence(  # noqa: N802
        self, request: messages.GetPublishedEvidenceRequest, context: Context
    ) -> messages.GetPublishedEvidenceResponse:
        """The evidence that the node recorded on chain."""

        async def work() -> messages.GetPublishedEvidenceResponse:
            wanted = request.binding_hash or self._service.keyring.current.binding_hash
            digest32(wanted, "binding hash")
            found = await self._service.log.published_evidence(wanted)
            if found is None:
                raise UnavailableError("no evidence was published for this key binding")
            return messages.GetPublishedEvidenceResponse(evidence=found)

        return await answer(context, work())

    async def GetNodeInfo(  # noqa: N802
        self, request: messages.GetNodeInfoRequest, context: Context
    ) -> messages.GetNodeInfoResponse:
        """Models, prices and limits."""
        service = self._service
        response = messages.GetNodeInfoResponse(
            node=service.config.node,
            prices=service.meter.prices.to_proto(),
            simulated=self._evidence.simulated,
            anchor_within_s=service.config.limits.anchor_within_s,
        )
        for model in service.models.values():
            response.models.add(name=model.name, digest=model.digest, context_length=model.context_length)
        return response

    async def GetInclusionProof(  # noqa: N802
        self, request: messages.GetInclusionProofRequest, context: Context
    ) -> messages.GetInclusionProofResponse:
        """Proof that a receipt is in the tree of a signed checkpoint."""

        async def work() -> messages.GetInclusionProofResponse:
            hash = digest32(request.receipt_hash, "receipt hash")
            proof, checkpoint = await self._service.log.inclusion(hash, request.tree_size)
            return messages.GetInclusionProofResponse(proof=proof, checkpoint=checkpoint)

        return await answer(context, work())


class Inference(inference_service_pb2_grpc.InferenceServiceServicer):
    """`InferenceService`."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def Session(  # type: ignore[override]  # noqa: N802 - writing through the context is the other form
        self, request_iterator: AsyncIterator[wire.SessionRequest], context: Context
    ) -> None:
        """Serve one session."""
        await Session(self._service).run(request_iterator, context.write)
