"""The verified links of a client: dial once, share, renew before they expire, remember failures."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Final

from cocoon_attestation.checks import CheckList
from cocoon_attestation.errors import CocoonError, EvidenceRejectedError, MalformedError, RejectedError
from cocoon_attestation.policy import Policy
from cocoon_attestation.policy_language import ClientRules
from cocoon_proxy.appraiser import SessionAppraiser
from cocoon_proxy.config import SessionConfig
from cocoon_proxy.errors import NodeUnavailableError
from cocoon_proxy.events import ClientEvent, EvidenceChecked, SessionEnded
from cocoon_proxy.exchange import durable
from cocoon_proxy.ledger import EvidenceRow, Ledger
from cocoon_proxy.link import DialResult, NodeLink, dial
from cocoon_proxy.selection import Candidate, NodeHealth
from cocoon_proxy.tasks import TaskScope

REJECTED_WAIT_S: Final = 300.0
"""A node whose evidence or receipt was refused is left alone for this long."""


class NodePool:
    """One link per node, made on demand."""

    def __init__(
        self,
        *,
        config: SessionConfig,
        ledger: Ledger,
        appraiser: SessionAppraiser,
        scope: TaskScope,
        clock: Callable[[], float],
        emit: Callable[[ClientEvent], None],
        random: Callable[[int], bytes] = secrets.token_bytes,
        rules: ClientRules | None = None,
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._appraiser = appraiser
        self._scope = scope
        self._clock = clock
        self._emit = emit
        self._random = random
        self._rules = rules
        self._links: dict[bytes, NodeLink] = {}
        self._locks: dict[bytes, asyncio.Lock] = {}
        self.health: dict[bytes, NodeHealth] = {}

    @property
    def links(self) -> tuple[NodeLink, ...]:
        """Links that may take requests now."""
        now = self._clock()
        return tuple(link for link in self._links.values() if link.usable(now))

    @property
    def connected(self) -> dict[bytes, int]:
        """Nodes with a usable link and their requests in flight."""
        return {link.candidate.node: link.machine.in_flight for link in self.links}

    async def link(self, candidate: Candidate, policy: Policy) -> NodeLink:
        """A usable link to a node: the one there is, or a new one after a new appraisal.

        Raises:
            CocoonError: the node cannot be reached, or was refused.
        """
        async with self._locks.setdefault(candidate.node, asyncio.Lock()):
            link = self._links.get(candidate.node)
            if link is not None:
                if (
                    link.usable(self._clock())
                    and link.policy_digest == policy.digest
                    and link.candidate.endpoint == candidate.endpoint
                ):
                    return link
                self._retire(link, "a new appraisal is due")
            dialled = await self._dial(candidate, policy)
            return await self._establish(candidate, policy, dialled)

    def failed(self, node: bytes, error: CocoonError) -> None:
        """Remember that a node failed."""
        wait = REJECTED_WAIT_S if isinstance(error, RejectedError) else 0.0
        before = self.health.get(node, NodeHealth())
        self.health[node] = before.failed(self._clock(), error.code, wait=wait)

    def retry_at(self, node: bytes) -> float:
        """Time before which a node that failed should be left alone."""
        return self.health.get(node, NodeHealth()).retry_at

    def worked(self, node: bytes) -> None:
        """Remember that a node answered."""
        self.health.pop(node, None)

    def renew(self, node: bytes, reason: str) -> None:
        """Appraise a node again before its next request; those in flight may finish."""
        link = self._links.get(node)
        if link is not None:
            self._retire(link, reason)

    def drop(self, node: bytes, reason: str) -> None:
        """End the link to a node now."""
        link = self._links.pop(node, None)
        if link is not None:
            link.end(reason)

    def close(self) -> None:
        """End all links."""
        for node in tuple(self._links):
            self.drop(node, "the client closed")

    async def _dial(self, candidate: Candidate, policy: Policy) -> DialResult:
        try:
            return await dial(
                candidate,
                policy=policy,
                challenge=self._random(32),
                appraiser=self._appraiser,
                clock=self._clock,
                connect_s=self._config.connect_seconds,
                rules=self._rules,
            )
        except (EvidenceRejectedError, MalformedError) as error:
            checks = getattr(error, "checks", None) or CheckList()
            self._emit(
                EvidenceChecked(
                    node=candidate.node.hex(),
                    accepted=False,
                    checks=tuple(checks),
                    simulated=policy.simulated,
                    expires_at=0,
                )
            )
            if isinstance(error, EvidenceRejectedError):
                raise
            raise NodeUnavailableError(
                f"the node sent something malformed: {error}", details={"node": candidate.node.hex()}
            ) from error

    async def _establish(self, candidate: Candidate, policy: Policy, dialled: DialResult) -> NodeLink:
        verified = dialled.verified
        expires_at = min(verified.expires_at, verified.appraised_at + self._config.limit_seconds)
        link = NodeLink(candidate, dialled, expires_at=expires_at, policy_digest=policy.digest)
        if not link.usable(self._clock()):
            # Dialling again would give the same, again and again.
            await dialled.channel.close(None)
            raise NodeUnavailableError(
                "the node's keys or its evidence end within seconds",
                details={"node": candidate.node.hex(), "expires_at": int(expires_at)},
            )
        row = EvidenceRow(
            binding_hash=verified.binding_hash,
            kind="session",
            node=candidate.node,
            evidence=dialled.evidence,
            challenge=dialled.challenge,
            policy_digest=verified.policy_digest,
            seen_at=verified.appraised_at,
        )
        try:
            await durable(lambda: self._ledger.put_evidence(row))
        except BaseException:
            await dialled.channel.close(None)
            raise
        self._emit(
            EvidenceChecked(
                node=candidate.node.hex(),
                accepted=True,
                checks=tuple(dialled.checks),
                simulated=verified.simulated,
                expires_at=int(expires_at),
            )
        )
        self._links[candidate.node] = link
        link.start(self._scope, self._ended)
        self._scope.spawn(self._expire(link, expires_at), "session expiry")
        return link

    async def _expire(self, link: NodeLink, expires_at: float) -> None:
        """Close an idle link when its appraisal ends, so that nothing lingers."""
        await asyncio.sleep(max(0.0, expires_at - self._clock()))
        self._retire(link, "the appraisal expired")

    def _retire(self, link: NodeLink, reason: str) -> None:
        """Take no new requests; end the link when those in flight are done."""
        if self._links.get(link.candidate.node) is link:
            del self._links[link.candidate.node]
        link.retire(reason)

    def _ended(self, link: NodeLink, reason: str) -> None:
        if self._links.get(link.candidate.node) is link:
            del self._links[link.candidate.node]
        self._emit(SessionEnded(node=link.candidate.node.hex(), reason=reason))
