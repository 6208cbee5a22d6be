"""What the network offers, from the registry's proved state: policy, models, candidates.

The registry is read at a proved head and kept for a short time. If the chain cannot be reached, the last
view serves on for a limited time, so that a revocation takes effect within minutes at the latest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from cocoon_attestation.errors import ConfigError, MalformedError, RejectedError, UnavailableError
from cocoon_attestation.policy import Policy
from cocoon_attestation.types import parse_hex
from cocoon_proxy.config import PolicyOverrides, SessionConfig
from cocoon_proxy.errors import ModelNotFoundError
from cocoon_proxy.events import ClientEvent, RegistryRead
from cocoon_proxy.selection import Candidate, Wanted
from cocoon_ton.chain import ChainReader
from cocoon_ton.code import channel_code
from cocoon_ton.network import NetworkConfig
from cocoon_ton.registry import NodeEntry, RegistryState, parse_registry, policy_from_registry

__all__ = ["Directory", "NetworkView", "make_view"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkView:
    """The network at one block, as this client may use it."""

    policy: Policy
    """The registry's policy, tightened by the user's settings."""
    models: Mapping[bytes, str]
    """Allowed models: digest → name."""
    candidates: tuple[Candidate, ...]
    """Nodes that may be tried."""
    skipped: Mapping[str, str]
    """Listed nodes that may not: id in hex → why."""
    close_delay: int
    """Seconds: what nodes require of a channel."""
    block_seqno: int
    read_at: float
    """When it was read, by this client's clock."""

    def models_named(self, text: str) -> frozenset[bytes]:
        """Digests of the allowed models that a request's ``model`` means.

        `text` is a name or ``name@digest``. Raises `ModelNotFoundError`.
        """
        name, at, digest = text.rpartition("@")
        if not at:
            found = frozenset(d for d, known in self.models.items() if known == text)
        else:
            found = frozenset(d for d, known in self.models.items() if known == name and d.hex() == digest)
        if not found:
            raise ModelNotFoundError(
                f"The model '{text[:200]}' does not exist on this network", details={"param": "model"}
            )
        return found

    def wanted(self, model: str, overrides: PolicyOverrides) -> Wanted:
        """What a request for `model` needs of a node. Raises `ModelNotFoundError`."""
        return Wanted(
            models=self.models_named(model),
            max_prompt_price=overrides.max_prompt_price,
            max_completion_price=overrides.max_completion_price,
        )


class Directory:
    """Reads the registry when needed and hands out views of it."""

    def __init__(
        self,
        *,
        network: NetworkConfig,
        chain: ChainReader,
        config: SessionConfig,
        overrides: PolicyOverrides,
        clock: Callable[[], float],
        emit: Callable[[ClientEvent], None],
    ) -> None:
        self._network = network
        self._chain = chain
        self._config = config
        self._overrides = overrides
        self._clock = clock
        self._emit = emit
        self._view: NetworkView | None = None
        self._lock = asyncio.Lock()

    @property
    def last(self) -> NetworkView | None:
        """The last view, however old."""
        return self._view

    def invalidate(self) -> None:
        """Read the registry again at the next use."""
        if self._view is not None:
            self._view = None

    async def view(self) -> NetworkView:
        """A view that is at most ``session.registry_seconds`` old, or a little more if the chain is gone.

        Raises:
            UnavailableError: the chain cannot be reached and there is no recent view.
            RejectedError: what the liteservers say is not proved.
            ConfigError: the registry's policy accepts nothing, or the user's settings leave nothing of it.
        """
        async with self._lock:
            view, now = self._view, self._clock()
            if view is not None and now - view.read_at < self._config.registry_seconds:
                return view
            try:
                self._view = await self._read()
            except (UnavailableError, RejectedError):
                if view is None or now - view.read_at >= self._config.limit_seconds:
                    raise
                return view
            return self._view

    async def _read(self) -> NetworkView:
        now = self._clock()
        head = await self._chain.head()
        account = await self._chain.account(self._network.registry_address, head)
        if not account.active or account.data is None:
            raise ConfigError("the network's registry does not exist on this chain")
        try:
            state = parse_registry(account.data)
        except MalformedError as error:
            raise ConfigError("the network's registry address is not a registry") from error
        view = make_view(
            state,
            network=self._network,
            overrides=self._overrides,
            session_limit_s=self._config.limit_seconds,
            block_seqno=head.seqno,
            now=now,
        )
        self._emit(
            RegistryRead(
                registry=self._network.registry,
                block_seqno=head.seqno,
                block_age_s=max(0, int(now) - head.utime),
                nodes=len(state.nodes),
                policy_digest=view.policy.digest,
                simulated=view.policy.simulated,
            )
        )
        return view


def make_view(
    state: RegistryState,
    *,
    network: NetworkConfig,
    overrides: PolicyOverrides,
    session_limit_s: int,
    block_seqno: int,
    now: float,
) -> NetworkView:
    """What this client may use of a registry state. Pure.

    Raises:
        ConfigError: another network's registry, or nothing acceptable is left.
    """
    if state.global_id != network.global_id:
        raise ConfigError("the registry belongs to another TON network")
    policy = policy_from_registry(state, network.dev_root)
    if overrides.refuse_simulated and policy.simulated:
        raise ConfigError("this network accepts simulated TEEs, and policy.refuse_simulated is set")
    names = {digest: entry.name for digest, entry in state.models.items() if digest in policy.models}
    kept = _kept_models(names, overrides.models)
    policy = policy.tightened(
        releases=_ids(overrides.releases, "policy.releases") or None,
        models=kept,
        min_tcb_evaluation=overrides.min_tcb_evaluation,
        session_limit_s=session_limit_s,
    )
    candidates, skipped = _candidates(state, overrides, int(now))
    return NetworkView(
        policy=policy,
        models={digest: name for digest, name in names.items() if digest in kept},
        candidates=candidates,
        skipped=skipped,
        close_delay=state.parameters.close_delay,
        block_seqno=block_seqno,
        read_at=now,
    )


def _candidates(
    state: RegistryState, overrides: PolicyOverrides, now: int
) -> tuple[tuple[Candidate, ...], dict[str, str]]:
    """The listed nodes that may be tried, and why the others may not."""
    only, denied = (
        _ids(overrides.nodes, "policy.nodes"),
        _ids(overrides.denied_nodes, "policy.denied_nodes"),
    )
    candidates: list[Candidate] = []
    skipped: dict[str, str] = {}
    for node, entry in state.nodes.items():
        reason = _node_refusal(state, node, entry, only, denied, now)
        if reason:
            skipped[node.hex()] = reason
            continue
        candidates.append(
            Candidate(
                node=node,
                endpoint=entry.terms.endpoint,
                prices=entry.terms.prices_at(now),
                models=frozenset(entry.terms.models),
            )
        )
    return tuple(candidates), skipped


def _node_refusal(
    state: RegistryState,
    node: bytes,
    entry: NodeEntry,
    only: frozenset[bytes],
    denied: frozenset[bytes],
    now: int,
) -> str:
    if node in state.denied_nodes or node in denied:
        return "denied"
    if only and node not in only:
        return "not in policy.nodes"
    if not entry.is_attested(now):
        return "no current key binding on chain"
    if entry.claim is None or not state.accepts(entry.claim, entry.stake):
        return "attested under what the registry does not accept any more"
    codes = state.codes.get(entry.identity.code_version)
    if codes is None or bytes(codes.channel.hash) != channel_code().code_hash:
        return "uses contracts that this version of Cocoon does not know"
    return ""


def _kept_models(names: Mapping[bytes, str], wanted: tuple[str, ...]) -> frozenset[bytes]:
    """Digests of the models that the user's list names; all without a list."""
    if not wanted:
        return frozenset(names)
    return frozenset(
        digest for digest, name in names.items() if name in wanted or f"{name}@{digest.hex()}" in wanted
    )


def _ids(values: tuple[str, ...], setting: str) -> frozenset[bytes]:
    try:
        return frozenset(parse_hex(value.removeprefix("0:"), 32, setting) for value in values)
    except MalformedError as error:
        raise ConfigError(str(error)) from error
