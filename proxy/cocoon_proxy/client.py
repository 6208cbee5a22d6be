"""The client library: prompts that only a verified enclave can read, and a proof for every answer.

See docs/spec/client.md for what is checked and in which order.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from cocoon_attestation.errors import CocoonError
from cocoon_proxy.appraiser import SessionAppraiser
from cocoon_proxy.audit import export_bundle
from cocoon_proxy.channel_view import ChannelViewer
from cocoon_proxy.closing import Closing, Closure
from cocoon_proxy.config import ClientConfig, PolicyOverrides
from cocoon_proxy.discovery import Directory, NetworkView
from cocoon_proxy.dispute import Assessment, dispute
from cocoon_proxy.endorsements.desk import EndorsementDesk
from cocoon_proxy.errors import NoEligibleNodeError, OutcomeUnknownError
from cocoon_proxy.events import (
    ClientEvent,
    Completed,
    Data,
    EventHandler,
    Head,
    StreamEvent,
    UnsafeRules,
)
from cocoon_proxy.exchange import durable
from cocoon_proxy.keys import load_channel_keys
from cocoon_proxy.ledger import DAY_S, ChannelRow, Ledger
from cocoon_proxy.link import NodeLink
from cocoon_proxy.memory import SeenStatements
from cocoon_proxy.payments import Payments
from cocoon_proxy.pool import NodePool
from cocoon_proxy.requests import CHAT_COMPLETIONS
from cocoon_proxy.runner import Runner
from cocoon_proxy.tasks import TaskScope
from cocoon_proxy.treasury import open_treasury
from cocoon_proxy.values import Answer, ModelInfo
from cocoon_ton.chain import AnchorStore, LiteChain
from cocoon_ton.network import NetworkConfig
from cocoon_ton.paths import cache_dir, home_dir
from cocoon_ton.treasury import Chain, Treasury

_MAX_MODEL_NODES = 16
"""Nodes that are dialled at most to list models."""


class AsyncClient:
    """A client of one Cocoon network. Use it as an async context manager.

    Args:
        network: which network; see `cocoon_ton.network.load_network`.
        home: where wallets and ledgers live; default `cocoon_ton.paths.home_dir`.
        config: settings; default those of `ClientConfig`.
        policy_overrides: replaces ``config.policy``; can only tighten the network's policy.
        on_event: called with a `ClientEvent` for every step; must return quickly.
        wallet: replaces the wallet of `home`, for applications that hold their keys themselves.
        passphrase: of the wallet's key file, if it is encrypted.
        chain: replaces the chain client, for tests.
        clock: Unix time in seconds, for tests.
    """

    def __init__(
        self,
        network: NetworkConfig,
        home: Path | None = None,
        *,
        config: ClientConfig | None = None,
        policy_overrides: PolicyOverrides | None = None,
        on_event: EventHandler | None = None,
        wallet: Treasury | None = None,
        passphrase: str | None = None,
        chain: Chain | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.network = network
        self.config = config or ClientConfig()
        if policy_overrides is not None:
            self.config = dataclasses.replace(self.config, policy=policy_overrides)
        self.on_event = on_event
        self._home = home
        self._wallet = wallet
        self._passphrase = passphrase
        self._chain = chain
        self._clock = clock
        self._exit = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        """Open ledger, keys and chain; nothing is dialled yet."""
        async with contextlib.AsyncExitStack() as stack:
            directory = (self._home or home_dir()) / "client" / self.network.name
            self.ledger = await durable(lambda: Ledger(directory))
            stack.callback(self.ledger.close)
            await durable(self.ledger.recover)
            if self._chain is None:
                self._chain = await stack.enter_async_context(
                    LiteChain(self.network, anchors=AnchorStore((self._home or home_dir()) / "anchors"))
                )
            if self._wallet is None:
                self._wallet = await stack.enter_async_context(
                    open_treasury(
                        self.network, directory, self._chain, self._emit, passphrase=self._passphrase
                    )
                )
            seen = await durable(lambda: SeenStatements(directory))
            stack.callback(seen.close)
            desk = EndorsementDesk(
                self.config.endorsements, directory=cache_dir() / "endorsements", clock=self._clock
            )
            stack.push_async_callback(desk.close)
            self._build(directory, SessionAppraiser(desk, seen), stack)
            self._exit = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all sessions and close everything."""
        await self._exit.aclose()

    def _build(
        self, directory: Path, appraiser: SessionAppraiser, stack: contextlib.AsyncExitStack
    ) -> None:
        chain, wallet = self._chain, self._wallet
        if chain is None or wallet is None:
            raise RuntimeError("the client is not entered")
        self._scope = TaskScope()
        self._directory = Directory(
            network=self.network,
            chain=chain,
            config=self.config.session,
            overrides=self.config.policy,
            clock=self._clock,
            emit=self._emit,
        )
        rules = self.config.policy.rules
        self._pool = NodePool(
            config=self.config.session,
            ledger=self.ledger,
            appraiser=appraiser,
            scope=self._scope,
            clock=self._clock,
            emit=self._emit,
            rules=rules,
        )
        if rules is not None and rules.unsafe:
            self._emit(UnsafeRules(reasons=rules.unsafe))
        viewer = ChannelViewer(
            chain=chain, clock=self._clock, timeout_s=self.config.payment.open_timeout_seconds
        )
        self._closing = Closing(viewer=viewer, treasury=wallet, ledger=self.ledger, emit=self._emit)
        self._payments = Payments(
            global_id=self.network.global_id,
            viewer=viewer,
            treasury=wallet,
            ledger=self.ledger,
            keys=load_channel_keys(directory / "channel.key"),
            config=self.config.payment,
            clock=self._clock,
            emit=self._emit,
        )
        self._runner = Runner(
            config=self.config,
            directory=self._directory,
            pool=self._pool,
            payments=self._payments,
            ledger=self.ledger,
            scope=self._scope,
            clock=self._clock,
            emit=self._emit,
        )
        self._scope.spawn(self._closing.run(), "channels")
        stack.push_async_callback(self._scope.close)
        stack.callback(self._pool.close)

    def stream(self, endpoint: str, body: bytes) -> AsyncGenerator[StreamEvent, None]:
        """Send one OpenAI-shaped request; yields Head, Data…, Completed.

        `body` is sent byte for byte. The last `Data` and `Completed` come only after the receipt was
        verified and is durable. Close the generator to cancel the work.

        Raises:
            InvalidRequestError, ModelNotFoundError: the request cannot be sent.
            NoEligibleNodeError, NodeUnavailableError, NodeBusyError: no node took it; nothing was paid.
            EvidenceRejectedError: the only node left failed appraisal; nothing was sent.
            PaymentError: it cannot be paid as it stands; nothing was sent.
            OutcomeUnknownError: the answer stopped on the way; it may have been charged for.
            ReceiptRejectedError: the answer's receipt is wrong; it is kept as proof.
        """
        return self._runner.run(endpoint, body)

    async def complete(self, endpoint: str, body: bytes) -> Answer:
        """Send one request and collect the whole answer; errors as for `stream`."""
        head: Head | None = None
        pieces: list[bytes] = []
        async with contextlib.aclosing(self.stream(endpoint, body)) as events:
            async for event in events:
                match event:
                    case Head():
                        head = event
                    case Data(data=data):
                        pieces.append(data)
                    case Completed() if head is not None:
                        return Answer(
                            status=max(head.status, event.status),
                            content_type=head.content_type,
                            body=b"".join(pieces),
                            completed=event,
                        )
        raise OutcomeUnknownError("the answer ended early")

    async def chat(
        self, messages: Sequence[Mapping[str, object]], *, model: str, **options: object
    ) -> Answer:
        """Chat completion in one piece; `options` are members of the OpenAI body."""
        body = {**options, "model": model, "messages": list(messages), "stream": False}
        return await self.complete(CHAT_COMPLETIONS, json.dumps(body, ensure_ascii=False).encode("utf-8"))

    async def models(self) -> tuple[ModelInfo, ...]:
        """Models that verified nodes serve. Dials and appraises nodes that are not connected.

        Raises:
            CocoonError: no node could be verified; the error is that of the first one.
        """
        view = await self._directory.view()
        now = self._clock()
        ready = [c for c in view.candidates if self._pool.retry_at(c.node) <= now]
        chosen = (ready or view.candidates)[:_MAX_MODEL_NODES]
        results = await asyncio.gather(
            *(self._pool.link(candidate, view.policy) for candidate in chosen), return_exceptions=True
        )
        links: list[NodeLink] = []
        failures: list[CocoonError] = []
        for candidate, result in zip(chosen, results, strict=True):
            if isinstance(result, NodeLink):
                links.append(result)
            elif isinstance(result, CocoonError):
                self._pool.failed(candidate.node, result)
                failures.append(result)
            else:
                raise result
        if not links:
            raise (
                failures[0]
                if failures
                else NoEligibleNodeError(
                    "the network lists no usable node", details={"reasons": dict(view.skipped)}
                )
            )
        return _models(view, links)

    async def status(self) -> dict[str, object]:
        """Network, policy, sessions and spending, JSON-ready."""
        view = self._directory.last or await self._directory.view()
        now = int(self._clock())
        spent = await durable(lambda: self.ledger.spent_since(now - now % DAY_S))
        return {
            "network": self.network.name,
            "registry": self.network.registry,
            "block": view.block_seqno,
            "policy_digest": view.policy.digest.hex(),
            "simulated": view.policy.simulated,
            "sessions": [_session(link) for link in self._pool.links],
            "candidates": [candidate.node.hex() for candidate in view.candidates],
            "skipped": dict(view.skipped),
            "spent_today_nanoton": spent,
            "daily_cap_nanoton": self.config.payment.daily_cap,
        }

    async def receipt(self, id: str) -> dict[str, object]:
        """A receipt of the ledger, JSON-ready; raises `UnknownReceiptError`."""
        return (await durable(lambda: self.ledger.receipt(id))).to_dict()

    async def export_bundle(
        self, receipt_id: str, *, request: bytes | None = None, response: bytes | None = None
    ) -> bytes:
        """The offline proof of one receipt as a JSON document (docs/spec/bundle.md).

        `request` and `response` are the exact bodies; without them the proof shows that an answer was
        given and paid, not which. The ledger does not keep them.

        Raises:
            UnknownReceiptError: not in the ledger.
            UnavailableError: the receipt is not anchored yet, or node or chain cannot be reached.
            RejectedError: what the node or the chain says does not prove the receipt.
        """
        if self._chain is None:
            raise RuntimeError("the client is not entered")
        row = await durable(lambda: self.ledger.receipt(receipt_id))
        return await export_bundle(
            row,
            network=self.network,
            chain=self._chain,
            ledger=self.ledger,
            connect_s=self.config.session.connect_seconds,
            now=int(self._clock()),
            request=request,
            response=response,
        )

    async def dispute(self, receipt_id: str, *, send: bool = False) -> tuple[Assessment, str]:
        """Whether the node kept a receipt from the log; with `send`, do what is to be done about it.

        Returns the assessment and what was sent, or what `send` would send: ``challenge``, ``slash`` or "".

        Raises:
            UnknownReceiptError: not in the ledger.
            UnavailableError: the chain cannot be reached.
            RejectedError: the receipt is not what its node's contract knows.
            PaymentError: the wallet cannot pay for the message.
        """
        if self._chain is None or self._wallet is None:
            raise RuntimeError("the client is not entered")
        row = await durable(lambda: self.ledger.receipt(receipt_id))
        assessment, message = await dispute(
            row,
            network=self.network,
            chain=self._chain,
            connect_s=self.config.session.connect_seconds,
        )
        if message is not None and send:
            before = (await self._chain.account(message.to)).last_tx_lt
            await self._wallet.pay(
                key=f"{message.kind}:{row.id.hex()}:{before}",
                to=message.to,
                value=message.value,
                body=message.body,
            )
        return assessment, message.kind if message is not None else ""

    async def channels(self) -> tuple[ChannelRow, ...]:
        """All payment channels of this client, newest first."""
        return await durable(self.ledger.channels)

    async def top_up(self, channel: bytes, amount: int) -> ChannelRow:
        """Add nanoton to a channel."""
        return await self._payments.top_up(channel, amount)

    async def close_channel(self, channel: bytes) -> Closure:
        """Do the next step of taking a channel's rest back; call it again when `close_at` is over.

        A running client finishes by itself what was begun.
        """
        return await self._closing.advance(channel)

    def _emit(self, event: ClientEvent) -> None:
        if self.on_event is not None:
            self.on_event(event)


def _models(view: NetworkView, links: Sequence[NodeLink]) -> tuple[ModelInfo, ...]:
    found: dict[bytes, ModelInfo] = {}
    for link in links:
        for digest, model in link.models.items():
            if digest not in view.models:
                continue
            before = found.get(digest)
            found[digest] = ModelInfo(
                name=view.models[digest],
                digest=digest,
                context_length=max(model.context_length, before.context_length if before else 0),
                nodes=(*(before.nodes if before else ()), link.candidate.node.hex()),
            )
    return tuple(sorted(found.values(), key=lambda model: (model.name, model.digest)))


def _session(link: NodeLink) -> dict[str, object]:
    return {
        "node": link.candidate.node.hex(),
        "endpoint": link.candidate.endpoint,
        "binding_hash": link.verified.binding_hash.hex(),
        "release": link.verified.release.name,
        "simulated": link.verified.simulated,
        "expires_at": int(link.machine.expires_at),
        "in_flight": link.machine.in_flight,
        "models": [view.name for view in link.models.values()],
    }
