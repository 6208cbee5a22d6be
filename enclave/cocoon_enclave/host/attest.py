"""Has the enclave's key binding attested on chain, and waits for what comes of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

from pytoniq_core import Address

from cocoon.v1 import evidence_pb2, host_service_pb2, host_service_pb2_grpc
from cocoon_attestation.appraisal import appraise
from cocoon_attestation.binding import KeyBinding, beacon_challenge
from cocoon_attestation.errors import ConfigError
from cocoon_attestation.evidence import Evidence, parse_evidence
from cocoon_attestation.verified import VerifiedEnclave
from cocoon_enclave.host.routes import ByQuote, Route, choose_route, quote_message
from cocoon_enclave.host.rpc import call
from cocoon_ton.chain import BlockId, ChainReader, TransactionInfo
from cocoon_ton.errors import MessageFailedError
from cocoon_ton.network import NetworkConfig
from cocoon_ton.node import NodeState, parse_node
from cocoon_ton.node_messages import NODE_MESSAGE_VALUE, attest_body
from cocoon_ton.opcodes import EXIT_CODES
from cocoon_ton.pck import newest_beacon, parse_pck
from cocoon_ton.registry import RegistryState, parse_registry, policy_from_registry
from cocoon_ton.treasury import Treasury

RESULT_S: Final = 60.0
"""Longest wait for the registry's answer after the first message was executed, seconds."""
_POLL_S: Final = 0.5
_RPC_TIMEOUT_S: Final = 30.0

log = logging.getLogger(__name__)


class AttestRefusedError(MessageFailedError):
    """Node or registry did not take the key binding; the value came back less the fees."""

    code = "attest_refused"
    default_hint = "docs/runbooks/node-does-not-join.md"


class Chain(ChainReader, Protocol):
    """What attesting needs of the chain."""

    async def masterchain_block(self, seqno: int) -> BlockId:
        """The masterchain block with this number, proved."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """Evidence that the enclave made for a beacon, and that clients would accept."""

    evidence: Evidence
    verified: VerifiedEnclave


class Attestor:
    """Gets the keys of one enclave into one node contract."""

    def __init__(
        self,
        network: NetworkConfig,
        *,
        chain: Chain,
        treasury: Treasury,
        enclave: host_service_pb2_grpc.HostServiceAsyncStub,
        node: Address,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`node` is the node contract; `clock` gives Unix time in seconds."""
        self._network, self._chain, self._treasury, self._enclave = network, chain, treasury, enclave
        self._node, self._clock, self._sleep = node, clock, sleep

    async def registry(self) -> RegistryState:
        """The registry as it is now, proved."""
        account = await self._chain.account(self._network.registry_address)
        if account.data is None:
            raise ConfigError("the registry of this network is not deployed")
        return parse_registry(account.data)

    async def attest(self, binding: KeyBinding, state: NodeState) -> None:
        """Publish evidence over the newest beacon, send it the way that the registry accepts, await the answer.

        Does nothing if the enclave changed its keys meanwhile: the next look decides anew. Every call makes new
        evidence, so a message that a crash left behind is delivered by the outbox, and overtaken by the next.

        Raises:
            NoRouteError: the registry would not take it.
            MessageFailedError: Pck or the node refused.
            AttestRefusedError: the node or the registry refused what Pck had verified.
            EvidenceRejectedError: clients would refuse this evidence.
            ChainUnavailableError: the chain does not answer.
        """
        registry = await self.registry()
        published = await self._publish(registry)
        if published.verified.binding_hash != binding.hash:
            return
        route = choose_route(
            registry,
            published.evidence,
            release=published.verified.release,
            platform_id=published.verified.platform_id,
            stake=state.stake,
            now=int(self._clock()),
        )
        before = (await self._chain.account(self._node)).last_tx_lt
        sender = await self._send(route, published, binding)
        await self._await_answer(published, sender=sender, after_lt=before)

    async def _publish(self, registry: RegistryState) -> Published:
        """Evidence over the newest block that Pck takes as a beacon."""
        head = await self._chain.head()
        block = await self._chain.masterchain_block(newest_beacon(head.seqno))
        beacon = evidence_pb2.Beacon(seqno=block.seqno, root_hash=block.root_hash)
        response = await call(
            self._enclave.PublishEvidence(
                host_service_pb2.PublishEvidenceRequest(beacon=beacon), timeout=_RPC_TIMEOUT_S
            )
        )
        verified = await asyncio.to_thread(  # a board of GPUs takes a while
            appraise,
            response.evidence,
            policy=policy_from_registry(registry, self._network.dev_root),
            challenge=beacon_challenge(block.seqno, block.root_hash),
            now=int(self._clock()),
        )
        return Published(evidence=parse_evidence(response.evidence), verified=verified)

    async def _send(self, route: Route, published: Published, binding: KeyBinding) -> Address:
        """Send it; returns whose message the node gets."""
        if not isinstance(route, ByQuote):
            body = attest_body(
                key_binding=binding.to_boc(),
                evidence_digest=published.evidence.digest,
                attested_until=binding.not_after,
            )
            log.info("attesting by a recorded digest")
            await self._treasury.pay(
                key=f"attest:{bytes(body.hash).hex()}", to=self._node, value=NODE_MESSAGE_VALUE, body=body
            )
            return self._treasury.address
        account = await self._chain.account(route.identity.address)
        message = quote_message(
            route,
            published.evidence,
            release=published.verified.release,
            known=parse_pck(account.data) if account.active and account.data is not None else None,
            node=self._node,
        )
        log.info("attesting by a quote%s", " with its chain" if message.state_init is not None else "")
        await self._treasury.pay(
            key=f"attest:{bytes(message.body.hash).hex()}",
            to=message.to,
            value=message.value,
            body=message.body,
            state_init=message.state_init,
        )
        return message.to

    async def _await_answer(self, published: Published, *, sender: Address, after_lt: int) -> None:
        """Wait until the node holds the key with this evidence, or something was refused on the way."""
        waited = 0.0
        while True:
            account = await self._chain.account(self._node)
            state = parse_node(account.data) if account.data is not None else None
            if state is not None and _holds(state, published):
                return
            refused = await self._refusal(sender, after_lt)
            if refused is not None:
                raise refused
            if waited >= RESULT_S:
                raise AttestRefusedError("the registry did not answer in time")
            await self._sleep(_POLL_S)
            waited += _POLL_S

    async def _refusal(self, sender: Address, after_lt: int) -> AttestRefusedError | None:
        """What the node's transactions since then say about a refusal; anybody may send it nonsense."""
        for transaction in await self._chain.transactions(self._node, after_lt=after_lt):
            message = transaction.in_msg
            if message is None:
                continue
            if message.source == sender and not message.bounced and not transaction.success:
                return _refused("the node", transaction)
            if message.source == self._network.registry_address and message.bounced:
                return await self._registrys_reason(message.created_lt)
        return None

    async def _registrys_reason(self, bounced_lt: int) -> AttestRefusedError:
        """The exit code of the registry's transaction that sent the bounced message."""
        for transaction in await self._chain.transactions(
            self._network.registry_address, after_lt=max(0, bounced_lt - 1_000_000)
        ):
            if any(message.created_lt == bounced_lt for message in transaction.out_msgs):
                return _refused("the registry", transaction)
        return AttestRefusedError("the registry refused the key binding")


def _holds(state: NodeState, published: Published) -> bool:
    return (
        state.key is not None
        and state.key.binding_hash == published.verified.binding_hash
        and state.key.evidence_digest == published.evidence.digest
        and state.key.attested_until != 0
    )


def _refused(who: str, transaction: TransactionInfo) -> AttestRefusedError:
    code = transaction.exit_code
    meaning = EXIT_CODES.get(code or 0)
    return AttestRefusedError(
        f"{who} refused the key binding: exit code {code}" + (f", {meaning.meaning}" if meaning else ""),
        details={"exit_code": code, "transaction": transaction.hash.hex()},
    )
