"""How a request finds a node, pays, and gets its answer; and what happens when a step fails.

Moving to another node is safe as long as nothing was sent, or the enclave said that it charged nothing.
After a request was sent and its outcome is unknown, the client reports that and never repeats it.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from random import SystemRandom
from typing import Final

from cocoon.v1 import payment_pb2, sealed_pb2
from cocoon_attestation.errors import (
    CocoonError,
    EvidenceRejectedError,
    ReceiptRejectedError,
)
from cocoon_attestation.receipt import commit_request
from cocoon_attestation.sealing import MAX_REQUEST, seal_request
from cocoon_proxy.answer import AnswerReader, Expected
from cocoon_proxy.config import ClientConfig
from cocoon_proxy.discovery import Directory, NetworkView
from cocoon_proxy.errors import (
    EndorsementUnavailableError,
    InvalidRequestError,
    NodeBusyError,
    NodeUnavailableError,
    NoEligibleNodeError,
    OutcomeUnknownError,
    PaymentRefusedError,
)
from cocoon_proxy.events import ClientEvent, FailedOver, NodeSelected, RequestSealed, StreamEvent
from cocoon_proxy.exchange import Exchange, Limits, NodeRefusal, Sent, durable
from cocoon_proxy.ledger import ChannelRow, Ledger, RequestRow
from cocoon_proxy.link import NodeLink
from cocoon_proxy.payments import ChannelTerms, Payments
from cocoon_proxy.pool import NodePool
from cocoon_proxy.repair import Repair
from cocoon_proxy.requests import RequestInfo, parse_request, worst_cost
from cocoon_proxy.selection import Candidate, rank
from cocoon_proxy.tasks import TaskScope

SUITE: Final = "HPKE MLKEM768-X25519, HKDF-SHA256, AES-256-GCM"
_TIE: Final = SystemRandom()


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request of the app."""

    endpoint: str
    body: bytes
    info: RequestInfo


class Runner:
    """Runs requests over the pool, the payments and the ledger of one client."""

    def __init__(
        self,
        *,
        config: ClientConfig,
        directory: Directory,
        pool: NodePool,
        payments: Payments,
        ledger: Ledger,
        scope: TaskScope,
        clock: Callable[[], float],
        emit: Callable[[ClientEvent], None],
    ) -> None:
        self._config = config
        self._directory = directory
        self._pool = pool
        self._payments = payments
        self._ledger = ledger
        self._scope = scope
        self._clock = clock
        self._emit = emit

    async def run(self, endpoint: str, body: bytes) -> AsyncGenerator[StreamEvent, None]:
        """Head, Data…, Completed; see `AsyncClient.stream` for the errors."""
        info = parse_request(endpoint, body, max_bytes=self._config.gateway.max_body_bytes)
        request = Request(endpoint=endpoint, body=body, info=info)
        tried: frozenset[bytes] = frozenset()
        failure: CocoonError | None = None
        for _ in range(max(1, self._config.session.attempts)):
            view = await self._directory.view()
            candidate = self._select(view, info, tried, failure)
            tried |= {candidate.node}
            answer = self._on_node(candidate, view, request)
            try:
                first = await anext(answer)
            except _MOVE_ON as error:
                failure = error
                self._pool.failed(candidate.node, error)
                self._emit(FailedOver(node=candidate.node.hex(), code=error.code, message=str(error)))
                continue
            async with contextlib.aclosing(answer):
                yield first
                async for event in answer:
                    yield event
            return
        raise failure or NoEligibleNodeError("no node could be tried")

    def _select(
        self,
        view: NetworkView,
        info: RequestInfo,
        tried: frozenset[bytes],
        failure: CocoonError | None,
    ) -> Candidate:
        """The best node that was not tried yet; else the last failure, or why there is none."""
        ranking = rank(
            view.candidates,
            view.wanted(info.model, self._config.policy),
            health=self._pool.health,
            connected=self._pool.connected,
            exclude=tried,
            now=self._clock(),
            tie_break=_TIE.random,
        )
        if ranking.order:
            chosen = ranking.order[0]
            self._emit(NodeSelected(node=chosen.node.hex(), endpoint=chosen.endpoint))
            return chosen
        if failure is not None:
            raise failure
        raise NoEligibleNodeError(
            "no node can take this request now", details={"reasons": {**view.skipped, **ranking.reasons}}
        )

    async def _on_node(
        self, candidate: Candidate, view: NetworkView, request: Request
    ) -> AsyncGenerator[StreamEvent, None]:
        """The answer of one node, after as many refusals without charge as can be put right."""
        repair = Repair(
            directory=self._directory,
            pool=self._pool,
            payments=self._payments,
            clock=self._clock,
            end=self._clock() + self._config.payment.open_timeout_seconds,
        )
        while True:
            link = await self._pool.link(candidate, view.policy)
            models = frozenset(link.models) & view.models_named(request.info.model)
            if not models:
                raise NodeUnavailableError("the node does not serve the model any more")
            context = max(link.models[digest].context_length for digest in models)
            worst = worst_cost(request.info, candidate.prices, context)
            terms = ChannelTerms(node=candidate.node, close_delay=view.close_delay)
            channel = await self._payments.channel(terms, worst)
            if not link.usable(self._clock()):
                continue  # opening the channel took longer than the session lives
            exchange = await self._send(link, channel, request, models, worst, context)
            try:
                async with contextlib.aclosing(exchange.events()) as events:
                    async for event in events:
                        yield event
            except NodeRefusal as refusal:
                await repair(refusal, channel, worst)
            except (OutcomeUnknownError, ReceiptRejectedError) as error:
                self._pool.failed(candidate.node, error)
                if isinstance(error, ReceiptRejectedError):
                    self._pool.drop(candidate.node, "a receipt was refused")
                raise
            else:
                self._pool.worked(candidate.node)
                return

    async def _send(
        self,
        link: NodeLink,
        channel: ChannelRow,
        request: Request,
        models: frozenset[bytes],
        worst: int,
        context: int,
    ) -> Exchange:
        """Record, authorize, seal and send one request."""
        row = RequestRow(
            id=secrets.token_bytes(16),
            created_at=int(self._clock()),
            node=channel.node,
            channel=channel.id,
            endpoint=request.endpoint,
            model=request.info.model[:200],
            worst=worst,
            salt=(salt := secrets.token_bytes(32)),
            commitment=commit_request(salt, request.body),
        )
        try:
            daily_cap = self._config.payment.daily_cap
            cap = await durable(lambda: self._ledger.reserve(row, daily_cap=daily_cap))
            payment = self._payments.payment(channel, cap=cap, price_limit=link.candidate.prices)
            plain = self._plain(row, request, payment)
            sealed, opener = seal_request([link.verified], plain, now=int(self._clock()))
            stream = link.send(sealed)
        except BaseException:
            await durable(lambda: self._ledger.refuse(row.id, "not_sent"))
            raise
        self._emit(RequestSealed(node=channel.node.hex(), size=len(sealed), recipients=1, suite=SUITE))
        sent = Sent(
            id=row.id,
            stream=stream,
            reader=AnswerReader(opener),
            expected=_expected(link, row, request.info, models, context),
            salt=row.salt,
            simulated=link.verified.simulated,
        )
        return self._exchange(sent)

    def _exchange(self, sent: Sent) -> Exchange:
        limits = Limits(
            first_frame_s=self._config.session.first_byte_seconds,
            stall_s=self._config.session.stall_seconds,
        )
        return Exchange(
            sent,
            ledger=self._ledger,
            scope=self._scope,
            limits=limits,
            clock=self._clock,
            emit=self._emit,
        )

    def _plain(self, row: RequestRow, request: Request, payment: payment_pb2.Payment) -> bytes:
        deadline = self._clock() + self._config.session.deadline_seconds
        plain = sealed_pb2.PlainRequest(
            request_id=row.id,
            endpoint=request.endpoint,
            body=request.body,
            payment=payment,
            receipt_salt=row.salt,
            deadline_ms=int(deadline * 1000),
        ).SerializeToString()
        if len(plain) > MAX_REQUEST:
            raise InvalidRequestError(f"the request is longer than {MAX_REQUEST} bytes when sealed")
        return plain


def _expected(
    link: NodeLink, row: RequestRow, info: RequestInfo, models: frozenset[bytes], context: int
) -> Expected:
    """What the receipt of a request must say."""
    tokens = context if info.max_tokens is None else min(context, info.max_tokens)
    return Expected(
        node=row.node,
        binding_hash=link.verified.binding_hash,
        receipt_key=link.verified.binding.receipt_key,
        channel=row.channel,
        request_commitment=row.commitment,
        models=models,
        price_limit=link.candidate.prices,
        worst=row.worst,
        token_limit=info.choices * tokens,
        sent_at=row.created_at,
    )


_MOVE_ON: Final = (
    NodeUnavailableError,
    NodeBusyError,
    EvidenceRejectedError,
    EndorsementUnavailableError,
    PaymentRefusedError,
)
"""Failures before anything was sent or charged: another node may be tried."""
