"""The host agent: looks at enclave and chain, decides, acts, looks again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from pytoniq_core import Address

from cocoon.v1 import (
    attestation_service_pb2_grpc,
    host_service_pb2,
    host_service_pb2_grpc,
    payment_pb2,
)
from cocoon_attestation.binding import parse_key_binding
from cocoon_attestation.errors import CocoonError, ConfigError, PaymentError
from cocoon_attestation.payment import PriceList
from cocoon_enclave.host.answers import answer_body
from cocoon_enclave.host.attest import Attestor, Chain
from cocoon_enclave.host.backoff import Backoff
from cocoon_enclave.host.channels import ChannelBook
from cocoon_enclave.host.config import HostConfig
from cocoon_enclave.host.plan import (
    Action,
    Anchor,
    Attest,
    ChallengeView,
    Join,
    Respond,
    Settle,
    TopUp,
    UpdateTerms,
    decide,
)
from cocoon_enclave.host.rpc import call
from cocoon_enclave.host.views import (
    ChannelView,
    Claimed,
    claimed,
    enclave_view,
    is_accepted,
    node_state,
    node_view,
    own_channels,
)
from cocoon_ton.network import NetworkConfig
from cocoon_ton.node import BondState, NodeIdentity, NodeState, node_state_init
from cocoon_ton.node_messages import (
    NODE_MESSAGE_VALUE,
    anchor_external_body,
    join_body,
    settle_body,
    top_up_body,
    update_terms_body,
)
from cocoon_ton.treasury import Payment, Treasury

log = logging.getLogger(__name__)

_RPC_TIMEOUT_S = 30.0
_FACTS_PER_CALL = 1000
_REGISTRY_EVERY_S = 60


@dataclass(slots=True)
class Snapshot:
    """What the agent saw last; what `cocoon host status` shows."""

    node: NodeState | None = None
    actions: tuple[Action, ...] = ()
    claims: tuple[Claimed, ...] = ()
    channels: dict[bytes, ChannelView] = field(default_factory=dict)
    idle: bool = False
    """No request is in flight."""
    error: str = ""


class HostAgent:
    """Serves one node. `step` is one look and its actions; `run` repeats it until `stop`."""

    def __init__(
        self,
        config: HostConfig,
        network: NetworkConfig,
        *,
        chain: Chain,
        treasury: Treasury,
        enclave: host_service_pb2_grpc.HostServiceAsyncStub,
        records: attestation_service_pb2_grpc.AttestationServiceAsyncStub,
        clock: Callable[[], float],
    ) -> None:
        """`enclave` and `records` are the services on the enclave's host port."""
        self._config = config
        self._network = network
        self._chain = chain
        self._treasury = treasury
        self._enclave = enclave
        self._records = records
        self._clock = clock
        self._book = ChannelBook(chain)
        self._backoff = Backoff()
        self._stop = asyncio.Event()
        self._looked_at, self._listed = 0, True
        self._told: tuple[bytes, PriceList | None, bool] | None = None
        self._unfinished = True
        self.drain = False
        """Finish: take no requests, anchor and collect everything; `run` returns when that is done."""
        self.close = False
        """With `drain`: settlements close their channels too."""
        self.snapshot = Snapshot()
        self.identity = NodeIdentity(
            global_id=network.global_id,
            registry=network.registry_address,
            owner=treasury.address,
            salt=config.salt,
        )

    @property
    def node_address(self) -> Address:
        """Address of the node contract."""
        return self.identity.address

    def stop(self) -> None:
        """Make `run` return after the current step."""
        self._stop.set()

    async def run(self) -> None:
        """Repeat `step`. Errors are logged and retried: the next look starts from what is true then."""
        while not self._stop.is_set():
            try:
                actions = await self.step()
                self.snapshot.error = ""
                if self.drain and not actions and self.snapshot.idle:
                    return
            except CocoonError as error:
                self.snapshot.error = error.code
                log.warning("%s: %s %s", error.code, error, error.hint)
            try:
                await asyncio.wait_for(self._stop.wait(), self._config.poll_s)
            except TimeoutError:
                continue

    async def step(self) -> tuple[Action, ...]:
        """Look once, do what is due, and return it."""
        if self._unfinished:
            # What an earlier life began is finished first, so that the look below shows it.
            await self._treasury.resume()
            self._unfinished = False
        status = await call(
            self._enclave.GetStatus(host_service_pb2.GetStatusRequest(), timeout=_RPC_TIMEOUT_S)
        )
        enclave, binding = enclave_view(status)
        if binding.node != self.identity.account_id:
            raise ConfigError(
                "the enclave serves another node",
                hint="owner, salt and registry of host.toml must give the node id in the enclave's config",
            )
        head = await self._chain.head()
        account = await self._chain.account(self.node_address, head)
        state = node_state(account)
        listed = await call(
            self._enclave.ListClaims(host_service_pb2.ListClaimsRequest(), timeout=_RPC_TIMEOUT_S)
        )
        parameters = state.parameters if state is not None else None
        claims = await self._update_channels(
            list(status.unknown_channels),
            list(listed.claims),
            close_delay=parameters.close_delay if parameters is not None else 0,
        )
        now = max(int(self._clock()), account.shard_utime)  # contracts judge by the chain's time
        await self._tell_terms(enclave.binding_hash, state, now)
        actions = decide(
            self._config.terms,
            enclave,
            node_view(state, account.balance, now=now, accepted=await self._is_listed(state, now)),
            tuple(c.view for c in claims if not self._backoff.waits(Settle(c.view.channel), now)),
            now,
            drain=self.drain,
            close=self.drain and self.close and status.active_requests == 0,
        )
        actions = tuple(action for action in actions if not self._backoff.waits(action, now))
        self.snapshot = Snapshot(
            node=state,
            actions=actions,
            claims=claims,
            channels=self.snapshot.channels,
            idle=status.active_requests == 0,
            error="",
        )
        await self._perform_all(actions, state, status)
        return actions

    async def _tell_terms(self, binding_hash: bytes, state: NodeState | None, now: int) -> None:
        """Have the enclave charge the prices that count on chain now: clients refuse to pay more."""
        prices = state.terms.prices_at(now) if state is not None and state.terms is not None else None
        wanted = (binding_hash, prices, self.drain)
        if wanted == self._told:
            return
        request = host_service_pb2.SetTermsRequest(drain=self.drain)
        if prices is not None:
            request.prices.CopyFrom(prices.to_proto())
        await call(self._enclave.SetTerms(request, timeout=_RPC_TIMEOUT_S))
        self._told = wanted

    async def _update_channels(
        self,
        unknown: list[payment_pb2.ChannelIdentity],
        messages: list[host_service_pb2.ChannelClaim],
        *,
        close_delay: int,
    ) -> tuple[Claimed, ...]:
        claims = tuple(claimed(message) for message in messages)
        asked = own_channels(unknown, self.node_address)
        views = await self._book.look((*asked, *(c.identity for c in claims)))
        changed = {id: view for id, view in views.items() if view != self.snapshot.channels.get(id)}
        changed |= {id: views[id] for id in (bytes(identity.address.hash_part) for identity in asked)}
        facts = [view.facts(close_delay) for view in changed.values()]
        for at in range(0, len(facts), _FACTS_PER_CALL):
            request = host_service_pb2.SetChannelsRequest(channels=facts[at : at + _FACTS_PER_CALL])
            await call(self._enclave.SetChannels(request, timeout=_RPC_TIMEOUT_S))
        self.snapshot.channels = views
        return tuple(c.with_channel(views[bytes(c.identity.address.hash_part)]) for c in claims)

    async def _perform_all(
        self,
        actions: tuple[Action, ...],
        state: NodeState | None,
        status: host_service_pb2.GetStatusResponse,
    ) -> None:
        """Do what is due. What a contract refuses, or the wallet cannot pay, does not stop the rest."""
        failure: PaymentError | None = None
        self._unfinished = True
        settles = [action for action in actions if isinstance(action, Settle)]
        for action in actions:
            if isinstance(action, Settle):
                if action is settles[0]:
                    failure = await self._settle_all(settles) or failure
                continue
            try:
                await self._perform(action, state, status)
            except PaymentError as error:
                self._backoff.failed(action, self._clock())
                failure = failure or error
            else:
                self._backoff.worked(action)
                if isinstance(action, Join):
                    # The registry may still refuse, and the stake then comes back: not again at once.
                    self._backoff.failed(action, self._clock())
        self._unfinished = False
        if failure is not None:
            raise failure

    async def _perform(
        self, action: Action, state: NodeState | None, status: host_service_pb2.GetStatusResponse
    ) -> None:
        log.info("%s", type(action).__name__.lower())
        match action:
            case Settle():
                return  # in one message with the others, by `_settle_all`
            case Join():
                await self._join()
            case TopUp():
                await self._top_up()
            case UpdateTerms():
                await self._update_terms()
            case Attest():
                await self._attest(state, status)
            case Anchor():
                await self._anchor(state)
            case Respond(challenge=challenge):
                await self._respond(challenge)

    async def _respond(self, challenge: ChallengeView) -> None:
        body = await answer_body(self._records, challenge, timeout_s=_RPC_TIMEOUT_S)
        await self._treasury.pay(
            key=f"respond:{bytes(body.hash).hex()}:{challenge.deadline}",
            to=self.node_address,
            value=NODE_MESSAGE_VALUE,
            body=body,
        )

    async def _join(self) -> None:
        terms = self._config.terms
        body = join_body(
            stake=terms.stake,
            endpoint=terms.endpoint,
            models=self._config.models,
            prices=terms.prices,
            simulated=self._config.simulated,
        )
        # A node that left, or that the registry refused, may join again: its history is longer then.
        account = await self._chain.account(self.node_address)
        await self._treasury.pay(
            key=f"join:{self.identity.account_id.hex()}:{account.last_tx_lt}",
            to=self.node_address,
            value=terms.stake + NODE_MESSAGE_VALUE,
            body=body,
            state_init=node_state_init(self.identity),
        )

    async def _top_up(self) -> None:
        amount = self._config.terms.working_balance
        account = await self._chain.account(self.node_address)
        await self._treasury.pay(
            key=f"top-up:{self.identity.account_id.hex()}:{account.last_tx_lt}",
            to=self.node_address,
            value=amount,
            body=top_up_body(),
        )

    async def _update_terms(self) -> None:
        terms = self._config.terms
        body = update_terms_body(
            endpoint=terms.endpoint,
            models=self._config.models,
            prices=terms.prices,
            simulated=self._config.simulated,
        )
        account = await self._chain.account(self.node_address)
        await self._treasury.pay(
            key=f"terms:{bytes(body.hash).hex()}:{account.last_tx_lt}",
            to=self.node_address,
            value=NODE_MESSAGE_VALUE,
            body=body,
        )

    async def _attest(self, state: NodeState | None, status: host_service_pb2.GetStatusResponse) -> None:
        """Have the binding attested; a node that knows other Pck code than the registry asks first."""
        if state is None:
            return
        registry = await self._attestor().registry()
        if state.parameters is None or state.parameters.pck_code != registry.parameters.pck_code:
            await self._update_terms()  # the answer brings the registry's parameters
            return
        await self._attestor().attest(parse_key_binding(status.key_binding), state)
        self._listed = True

    def _attestor(self) -> Attestor:
        return Attestor(
            self._network,
            chain=self._chain,
            treasury=self._treasury,
            enclave=self._enclave,
            node=self.node_address,
            clock=self._clock,
        )

    async def _is_listed(self, state: NodeState | None, now: int) -> bool:
        """Whether the registry still accepts what the node holds; looked up once a minute."""
        if state is None or state.bond is not BondState.ACTIVE or state.key is None:
            return True
        if now >= self._looked_at + _REGISTRY_EVERY_S:
            self._looked_at = now
            self._listed = is_accepted(state, await self._attestor().registry())
        return self._listed

    async def _anchor(self, state: NodeState | None) -> None:
        if state is None:
            return
        request = host_service_pb2.GetCheckpointRequest(
            anchored_size=state.log.tree_size,
            anchored_root=state.log.root if state.log.tree_size else b"",
        )
        response = await call(self._enclave.GetCheckpoint(request, timeout=_RPC_TIMEOUT_S))
        body = anchor_external_body(anchor=response.anchor, signature=response.anchor_signature)
        await self._treasury.send_external(
            key=f"anchor:{bytes(body.hash).hex()}",
            to=self.node_address,
            body=body,
        )

    async def _settle_all(self, settles: list[Settle]) -> PaymentError | None:
        """Collect from channels, several in one message of the wallet; returns the first failure."""
        log.info("settle %d", len(settles))
        claims = {claim.view.channel: claim for claim in self.snapshot.claims}
        wanted = [settle for settle in settles if settle.channel in claims]
        try:
            results = await self._treasury.pay_all(
                [self._settlement(claims[s.channel], final=s.final) for s in wanted]
            )
        except PaymentError as error:
            results = [error] * len(wanted)
        failure: PaymentError | None = None
        for settle, result in zip(wanted, results, strict=True):
            if isinstance(result, PaymentError):
                self._backoff.failed(settle, self._clock())
                failure = failure or result
            else:
                self._backoff.worked(settle)
        return failure

    def _settlement(self, claim: Claimed, *, final: bool) -> Payment:
        body = settle_body(
            claim=claim.message.claim, authorization=claim.message.authorization, final=final
        )
        return Payment(
            key=f"settle:{bytes(body.hash).hex()}:{claim.view.paid}:{claim.view.balance}",
            to=self.node_address,
            value=NODE_MESSAGE_VALUE,
            body=body,
        )
