"""A connection to one node with an appraised enclave at its end, and the session on it.

`dial` makes a link: certificate, pinned channel, fresh evidence for our own nonce, appraisal, comparison
of the TLS key, node info. Only then is a session stream opened, and only sealed requests go into it. A
link is never repaired: when its stream ends, a new one is dialled and appraised.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Final

import grpc.aio
from cryptography.hazmat.primitives import constant_time

from cocoon.v1 import attestation_service_pb2 as attestation_wire
from cocoon.v1 import attestation_service_pb2_grpc as attestation_rpc
from cocoon.v1 import inference_service_pb2 as wire
from cocoon.v1 import inference_service_pb2_grpc as inference_rpc
from cocoon_attestation.checks import CheckList
from cocoon_attestation.errors import EvidenceRejectedError, MalformedError
from cocoon_attestation.policy import Policy
from cocoon_attestation.policy_language import ClientRules
from cocoon_attestation.verified import VerifiedEnclave
from cocoon_proxy.appraiser import Appraised, SessionAppraiser
from cocoon_proxy.errors import NodeUnavailableError
from cocoon_proxy.selection import Candidate
from cocoon_proxy.session import Frame, FrameKind, SessionMachine, batch, frames_of
from cocoon_proxy.stream import RequestStream
from cocoon_proxy.tasks import TaskScope
from cocoon_proxy.transport import (
    PinnedCertificate,
    check_pin,
    fetch_certificate,
    parse_endpoint,
    pinned_channel,
    rpc_failure,
)

MAX_CONTEXT: Final = 16 * 1024 * 1024
"""Largest context length that is believed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkedModel:
    """A measured model of a node, with what the node says about it."""

    name: str
    digest: bytes
    context_length: int
    """Advisory: it bounds what is authorized, and the spend caps bound that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DialResult:
    """An appraised connection before its session starts."""

    channel: grpc.aio.Channel
    verified: VerifiedEnclave
    evidence: bytes
    challenge: bytes
    checks: CheckList
    """The checks of the appraisal and of the connection."""
    models: Mapping[bytes, LinkedModel]
    """By digest; only models that were measured."""


async def dial(
    candidate: Candidate,
    *,
    policy: Policy,
    challenge: bytes,
    appraiser: SessionAppraiser,
    clock: Callable[[], float],
    connect_s: float,
    rules: ClientRules | None = None,
) -> DialResult:
    """Connect to a node and appraise it.

    `challenge` is 32 fresh random bytes; `policy` is narrowed to the candidate's node here; `rules` are the
    user's own.

    Raises:
        NodeUnavailableError: not reachable within `connect_s` seconds per step.
        MalformedError: it sent something that does not parse.
        EvidenceRejectedError: its evidence, or the key of the connection, was refused, or a rule fails.
        EndorsementUnavailableError: endorsements that it did not send are needed and cannot be had.
    """
    endpoint = parse_endpoint(candidate.endpoint)
    pin = await fetch_certificate(endpoint, timeout_s=connect_s)
    channel = pinned_channel(endpoint, pin)
    try:
        stub = attestation_rpc.AttestationServiceStub(channel)
        try:
            answer = await stub.GetEvidence(
                attestation_wire.GetEvidenceRequest(challenge=challenge), timeout=connect_s
            )
        except grpc.aio.AioRpcError as error:
            raise rpc_failure(error, "no evidence") from error
        appraised = await appraiser.appraise(
            answer.evidence,
            policy=policy.tightened(node=candidate.node),
            challenge=challenge,
            now=int(clock()),
        )
        _check_peer(appraised, pin, candidate.node, rules)
        try:
            info = await stub.GetNodeInfo(attestation_wire.GetNodeInfoRequest(), timeout=connect_s)
        except grpc.aio.AioRpcError as error:
            raise rpc_failure(error, "no node info") from error
        return DialResult(
            channel=channel,
            verified=appraised.verified,
            evidence=answer.evidence,
            challenge=challenge,
            checks=appraised.checks,
            models=_models(appraised.verified, info),
        )
    except BaseException:
        await channel.close(None)
        raise


def _check_peer(
    appraised: Appraised, pin: PinnedCertificate, node: bytes, rules: ClientRules | None
) -> None:
    """Require that the evidence is for this node and this connection, then apply the user's rules."""
    binding, checks = appraised.verified.binding, appraised.checks
    if not constant_time.bytes_eq(binding.node, node):
        raise EvidenceRejectedError("the key binding names another node", checks=checks)
    check_pin(pin, binding, checks)
    if rules is not None:
        checks.extend(rules.require(appraised.verified))


def _models(
    verified: VerifiedEnclave, info: attestation_wire.GetNodeInfoResponse
) -> dict[bytes, LinkedModel]:
    """What the node says about the models that were measured; anything else it says is dropped."""
    measured = frozenset(verified.models)
    return {
        model.digest: LinkedModel(
            name=model.name[:200],
            digest=model.digest,
            context_length=min(model.context_length, MAX_CONTEXT),
        )
        for model in info.models
        if model.digest in measured and model.context_length > 0
    }


class NodeLink:
    """A session with an appraised enclave."""

    def __init__(
        self, candidate: Candidate, dialled: DialResult, *, expires_at: float, policy_digest: bytes
    ) -> None:
        self.candidate = candidate
        self.verified = dialled.verified
        self.models = dialled.models
        self.policy_digest = policy_digest
        """Digest of the network policy that the appraisal applied, before narrowing to the node."""
        self.machine = SessionMachine(binding_hash=dialled.verified.binding_hash, expires_at=expires_at)
        self._channel = dialled.channel
        self._outgoing: deque[wire.RequestFrame] = deque()
        self._wake = asyncio.Event()
        self._streams: dict[int, RequestStream] = {}
        self._retired = ""

    def usable(self, now: float) -> bool:
        """True if a new request may be sent on it."""
        return not self._retired and self.machine.usable(now)

    def retire(self, reason: str) -> None:
        """Take no new requests, and end when those in flight are done."""
        self._retired = self._retired or reason
        self._end_if_done()

    def start(self, scope: TaskScope, on_end: Callable[[NodeLink, str], None]) -> None:
        """Open the session stream; `on_end` is called once with the reason when it ends."""
        scope.spawn(self._run(on_end), f"session {self.candidate.node.hex()[:8]}")

    def send(self, sealed: bytes) -> RequestStream:
        """Queue a sealed request. Raises `NodeUnavailableError` if the session has ended."""
        if self.machine.closed_reason:
            raise NodeUnavailableError(f"the session ended: {self.machine.closed_reason}")
        number, frame = self.machine.open(sealed)
        stream = self._streams[number] = RequestStream(self, number)
        self._send(frame)
        return stream

    def consumed(self, number: int, size: int) -> None:
        """A reader took `size` bytes of its request."""
        self.machine.consumed(number, size)

    def cancel(self, number: int) -> None:
        """Send a cancel frame for a request in flight."""
        frame = self.machine.cancel(number)
        if frame is not None:
            self._send(frame)

    def forget(self, number: int) -> None:
        """Drop a request; late frames are ignored."""
        self.machine.forget(number)
        self._streams.pop(number, None)
        self._end_if_done()

    def end(self, reason: str) -> None:
        """Stop the session; requests in flight get a LOST frame."""
        for delivery in self.machine.close(reason):
            self._deliver(delivery.number, delivery.frame)
        self._wake.set()

    def _send(self, frame: wire.RequestFrame) -> None:
        self._outgoing.append(frame)
        self._wake.set()

    async def _run(self, on_end: Callable[[NodeLink, str], None]) -> None:
        reason = "the node ended the session"
        call = inference_rpc.InferenceServiceStub(self._channel).Session(self._requests())
        try:
            async for message in call:
                # Frame by frame: what came before a bad one in the same message still counts.
                for frame in frames_of(message):
                    for delivery in self.machine.receive(frame):
                        self._deliver(delivery.number, delivery.frame)
        except MalformedError as error:
            reason = f"the node broke the protocol: {error}"
        except grpc.aio.AioRpcError as error:
            reason = f"connection lost ({error.code().name.lower()})"
        finally:
            call.cancel()
            self.end(reason)
            on_end(self, self.machine.closed_reason)
            with contextlib.suppress(asyncio.CancelledError):
                await self._channel.close(None)

    async def _requests(self) -> AsyncIterator[wire.SessionRequest]:
        """What waits, a message at a time; ends with the session, after what was queued before."""
        while True:
            while self._outgoing:
                yield batch(self._outgoing)
            if self.machine.closed_reason:
                return
            await self._wake.wait()
            self._wake.clear()

    def _deliver(self, number: int, frame: Frame) -> None:
        last = frame.kind not in (FrameKind.HEAD, FrameKind.DATA)
        stream = self._streams.pop(number, None) if last else self._streams.get(number)
        if stream is not None:
            stream.deliver(frame)
        self._end_if_done()

    def _end_if_done(self) -> None:
        if self._retired and not self.machine.in_flight and not self.machine.closed_reason:
            self.end(self._retired)
