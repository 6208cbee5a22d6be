"""`HostService`: what the enclave tells its host, and what it lets itself be told. Loopback only.

Nothing here is secret. What the host says is trusted with the host's own money only: a wrong balance or
price costs the host, a wrong anchor stops its enclave.
"""

from __future__ import annotations

from cocoon.v1 import host_service_pb2 as messages
from cocoon.v1 import host_service_pb2_grpc
from cocoon_attestation.anchor import Anchor
from cocoon_attestation.checkpoint import parse_checkpoint
from cocoon_attestation.errors import MalformedError
from cocoon_attestation.payment import PriceList
from cocoon_attestation.types import ZERO_DIGEST, digest32
from cocoon_enclave.metering import Facts
from cocoon_enclave.public_service import EvidenceMaker
from cocoon_enclave.rpc import Context, answer
from cocoon_enclave.service import Service
from cocoon_enclave.store import StoredKeyset

MAX_CHANNELS = 10_000
"""Channels in one SetChannels call."""


class Host(host_service_pb2_grpc.HostServiceServicer):
    """`HostService`."""

    def __init__(self, service: Service, evidence: EvidenceMaker) -> None:
        self._service = service
        self._evidence = evidence

    async def GetStatus(  # noqa: N802
        self, request: messages.GetStatusRequest, context: Context
    ) -> messages.GetStatusResponse:
        """State of the enclave."""
        service = self._service
        return messages.GetStatusResponse(
            key_binding=service.keyring.current.binding_boc,
            tree_size=service.log.size,
            unanchored=service.log.unanchored,
            anchor_by=service.log.anchor_by,
            unknown_channels=service.meter.wanted,
            active_requests=service.active,
            ready=service.ready,
            simulated=self._evidence.simulated,
        )

    async def PublishEvidence(  # noqa: N802
        self, request: messages.PublishEvidenceRequest, context: Context
    ) -> messages.PublishEvidenceResponse:
        """Evidence for the chain, bound to a recent block; kept for everybody who asks for it."""

        async def work() -> messages.PublishEvidenceResponse:
            service = self._service
            beacon = (request.beacon.seqno, digest32(request.beacon.root_hash, "beacon root hash"))
            keyset = service.keyring.current
            evidence = await self._evidence.make(beacon=beacon, keyset=keyset)
            row = StoredKeyset(
                binding_hash=keyset.binding_hash,
                binding=keyset.binding_boc,
                evidence=evidence,
                published=True,
                made_at=int(service.clock.now()),
            )
            await service.log.put_keyset(row)
            return messages.PublishEvidenceResponse(evidence=evidence)

        return await answer(context, work())

    async def GetCheckpoint(  # noqa: N802
        self, request: messages.GetCheckpointRequest, context: Context
    ) -> messages.GetCheckpointResponse:
        """A signed checkpoint of the log as it is."""

        async def work() -> messages.GetCheckpointResponse:
            root = request.anchored_root
            if request.anchored_size:
                digest32(root, "anchored root")
            keyset = self._service.keyring.current
            checkpoint, proof = await self._service.log.checkpoint(
                keyset, anchored_size=request.anchored_size, anchored_root=root
            )
            order = Anchor(
                first_size=request.anchored_size,
                first_root=root or ZERO_DIGEST,
                checkpoint=parse_checkpoint(checkpoint.checkpoint),
                proof=tuple(proof.hashes),
            )
            return messages.GetCheckpointResponse(
                checkpoint=checkpoint,
                consistency=proof,
                anchor=order.cell.to_boc(),
                anchor_signature=order.sign(keyset.receipt),
            )

        return await answer(context, work())

    async def ListClaims(  # noqa: N802
        self, request: messages.ListClaimsRequest, context: Context
    ) -> messages.ListClaimsResponse:
        """What the host needs to settle."""
        return messages.ListClaimsResponse(claims=await self._service.log.claims())

    async def SetChannels(  # noqa: N802
        self, request: messages.SetChannelsRequest, context: Context
    ) -> messages.SetChannelsResponse:
        """Facts about channels."""

        async def work() -> messages.SetChannelsResponse:
            if len(request.channels) > MAX_CHANNELS:
                raise MalformedError(f"at most {MAX_CHANNELS} channels in one call")
            for entry in request.channels:
                facts = Facts(balance=entry.balance, paid=entry.paid, close_at=entry.close_at)
                self._service.meter.set_facts(digest32(entry.channel, "channel"), facts)
            self._service.facts_changed()
            return messages.SetChannelsResponse()

        return await answer(context, work())

    async def SetTerms(  # noqa: N802
        self, request: messages.SetTermsRequest, context: Context
    ) -> messages.SetTermsResponse:
        """Prices for requests admitted from now on, and drain; what is not said stays as it is."""
        if request.HasField("prices"):
            self._service.meter.prices = PriceList.from_proto(request.prices)
        if request.HasField("drain"):
            self._service.draining = request.drain
        return messages.SetTermsResponse()
