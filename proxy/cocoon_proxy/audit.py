"""Builds the offline proof of one receipt, and the chain facts that such proofs are verified against.

Nothing that the node says is believed: the inclusion proof must lead to the root that its contract has
anchored, the evidence must have the digest that the contract has recorded, and the finished document must
pass the same verification that an auditor runs.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Protocol

import grpc.aio
from pytoniq_core import Address

from cocoon.v1 import attestation_service_pb2 as wire
from cocoon.v1 import attestation_service_pb2_grpc as rpc
from cocoon_attestation.bundle import AttestedBinding, Bundle, ChainFacts, verify_bundle
from cocoon_attestation.errors import LogProofError, MalformedError, RejectedError, UnavailableError
from cocoon_attestation.merkle import verify_inclusion
from cocoon_proxy.exchange import durable
from cocoon_proxy.ledger import EvidenceRow, Ledger, ReceiptRow
from cocoon_proxy.transport import fetch_certificate, parse_endpoint, pinned_channel, rpc_failure
from cocoon_ton.address import raw_address
from cocoon_ton.chain import AccountState, BlockRef, ChainReader
from cocoon_ton.code import contract_address
from cocoon_ton.network import NetworkConfig
from cocoon_ton.node import KeyRecord, NodeState, parse_node
from cocoon_ton.registry import RegistryState, parse_registry, policy_from_registry


class PublicRecords(Protocol):
    """What a node publishes: evidence and proofs that anybody may check."""

    async def evidence(self, binding_hash: bytes) -> bytes:
        """The published evidence of a key binding."""
        ...

    async def inclusion(self, receipt_hash: bytes, tree_size: int) -> wire.GetInclusionProofResponse:
        """Proof that a receipt is in the tree of this size."""
        ...


async def export_bundle(
    receipt: ReceiptRow,
    *,
    network: NetworkConfig,
    chain: ChainReader,
    ledger: Ledger,
    connect_s: float,
    now: int,
    request: bytes | None = None,
    response: bytes | None = None,
) -> bytes:
    """The offline bundle of one receipt as JSON.

    Raises:
        UnavailableError: not anchored yet, or node or chain cannot be reached.
        RejectedError: the parts do not prove the receipt; carries the checks.
    """
    head = await chain.head()
    registry, node = await _states(network, chain, receipt.node, head)
    if node.log.tree_size <= receipt.log_index:
        raise UnavailableError(
            "the receipt is not anchored on chain yet",
            hint="try again later; it must be anchored by the time in `anchor_by`",
            details={"anchor_by": receipt.anchor_by, "tree_size": node.log.tree_size},
        )
    listed = registry.nodes.get(receipt.node)
    if listed is None:
        raise UnavailableError("the registry no longer lists the node, so its address is not known")
    evidence = await _published_evidence(receipt, node, ledger, listed.terms.endpoint, connect_s, now)
    async with NodeConnection(listed.terms.endpoint, connect_s) as records:
        proof = await records.inclusion(receipt.id, node.log.tree_size)
    _check_inclusion(receipt, node, proof)
    document = await chain.export_proof((network.registry_address, _address(receipt.node)), head)
    content = request is not None or response is not None
    bundle = Bundle(
        network=network.name,
        global_id=network.global_id,
        registry=raw_address(network.registry_address),
        receipt=receipt.boc,
        receipt_signature=receipt.signature,
        leaf_index=receipt.log_index,
        tree_size=node.log.tree_size,
        hashes=tuple(proof.proof.hashes),
        evidence=evidence,
        chain=document,
        salt=receipt.salt if content else None,
        request=request,
        response=response,
    )
    return _verified(bundle, make_facts(network, registry, node, receipt.node, head.utime))


def _verified(bundle: Bundle, facts: ChainFacts) -> bytes:
    """The bundle's document, if an auditor would accept it."""
    checks = verify_bundle(bundle, facts, content_required=False)
    if not checks.accepted:
        failed = ", ".join(check.id for check in (*checks.failed, *checks.skipped))
        raise RejectedError(f"the parts do not prove the receipt: {failed}", checks=checks)
    return bundle.to_json()


def chain_facts(
    accounts: Mapping[str, AccountState], *, network: NetworkConfig, node: bytes, block_time: int
) -> ChainFacts:
    """Facts for `verify_bundle` from proved accounts, by raw address.

    Raises:
        MalformedError: the registry or the node is missing, or is not such a contract.
        ConfigError: the registry's policy accepts nothing.
    """
    registry = accounts.get(raw_address(network.registry_address))
    contract = accounts.get(raw_address(_address(node)))
    if registry is None or registry.data is None or contract is None or contract.data is None:
        raise MalformedError("the proof does not show the registry and the node")
    return make_facts(network, parse_registry(registry.data), parse_node(contract.data), node, block_time)


def make_facts(
    network: NetworkConfig, registry: RegistryState, node: NodeState, account: bytes, block_time: int
) -> ChainFacts:
    """Facts for `verify_bundle` from parsed contract states.

    Raises:
        MalformedError: the account is no Node contract of this registry. Any contract can hold data of that
            form; only the registry's own code keeps a log that nobody can rewrite.
    """
    codes = registry.codes.get(node.identity.code_version)
    address = None if codes is None else contract_address(codes.node, node.identity.initial_data)
    if node.identity.registry != network.registry_address or address != _address(account):
        raise MalformedError("the account that the receipt names is not a node contract of the registry")
    return ChainFacts(
        global_id=network.global_id,
        registry=raw_address(network.registry_address),
        node=account,
        policy=policy_from_registry(registry, network.dev_root),
        bindings=tuple(
            AttestedBinding(binding_hash=key.binding_hash, evidence_digest=key.evidence_digest)
            for key in _recorded(node)
        ),
        tree_size=node.log.tree_size,
        root=node.log.root,
        anchored_at=node.log.anchored_at,
        block_time=block_time,
    )


async def _states(
    network: NetworkConfig, chain: ChainReader, node: bytes, at: BlockRef
) -> tuple[RegistryState, NodeState]:
    registry = await chain.account(network.registry_address, at)
    contract = await chain.account(_address(node), at)
    if registry.data is None or contract.data is None:
        raise RejectedError("the registry or the node does not exist on this chain")
    return parse_registry(registry.data), parse_node(contract.data)


async def _published_evidence(
    receipt: ReceiptRow, node: NodeState, ledger: Ledger, endpoint: str, connect_s: float, now: int
) -> bytes:
    """Evidence with the digest that the node contract recorded for the receipt's key binding."""
    recorded = {key.binding_hash: key for key in _recorded(node)}.get(receipt.binding_hash)
    if recorded is None:
        raise UnavailableError(
            "the node contract no longer, or not yet, records the keys of this receipt",
            hint="export a bundle while the keys are the node's current or previous ones",
        )
    kept = await durable(lambda: ledger.evidence(receipt.binding_hash, "published"))
    if kept is not None and _matches(kept.evidence, recorded):
        return kept.evidence
    async with NodeConnection(endpoint, connect_s) as records:
        evidence = await records.evidence(receipt.binding_hash)
    if not _matches(evidence, recorded):
        raise RejectedError("the node's published evidence is not what its contract recorded")
    row = EvidenceRow(
        binding_hash=receipt.binding_hash,
        kind="published",
        node=receipt.node,
        evidence=evidence,
        challenge=b"",
        policy_digest=b"",
        seen_at=now,
    )
    await durable(lambda: ledger.put_evidence(row))
    return evidence


def _check_inclusion(receipt: ReceiptRow, node: NodeState, proof: wire.GetInclusionProofResponse) -> None:
    if proof.proof.leaf_index != receipt.log_index or proof.proof.tree_size != node.log.tree_size:
        raise LogProofError("the node's inclusion proof is for another place in the log")
    verify_inclusion(
        leaf=receipt.id,
        index=receipt.log_index,
        size=node.log.tree_size,
        proof=tuple(proof.proof.hashes),
        root=node.log.root,
    )


def _recorded(node: NodeState) -> tuple[KeyRecord, ...]:
    """Current key binding, then the previous one."""
    if node.key is None:
        return ()
    return (node.key,) if node.key.previous is None else (node.key, node.key.previous)


def _matches(evidence: bytes, recorded: KeyRecord) -> bool:
    return hmac.compare_digest(hashlib.sha256(evidence).digest(), recorded.evidence_digest)


def _address(id: bytes) -> Address:
    return Address((0, id))


class NodeConnection:
    """Public records of a node. The connection needs no appraisal: what comes over it proves itself."""

    def __init__(self, endpoint: str, connect_s: float) -> None:
        self._endpoint = parse_endpoint(endpoint)
        self._connect_s = connect_s

    async def __aenter__(self) -> PublicRecords:
        pin = await fetch_certificate(self._endpoint, timeout_s=self._connect_s)
        self._channel = pinned_channel(self._endpoint, pin)
        self._stub = rpc.AttestationServiceStub(self._channel)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._channel.close(None)

    async def evidence(self, binding_hash: bytes) -> bytes:
        """The published evidence of a key binding."""
        request = wire.GetPublishedEvidenceRequest(binding_hash=binding_hash)
        try:
            answer = await self._stub.GetPublishedEvidence(request, timeout=self._connect_s)
        except grpc.aio.AioRpcError as error:
            raise rpc_failure(error, "no published evidence") from error
        return answer.evidence

    async def inclusion(self, receipt_hash: bytes, tree_size: int) -> wire.GetInclusionProofResponse:
        """Proof that a receipt is in the tree of this size."""
        request = wire.GetInclusionProofRequest(receipt_hash=receipt_hash, tree_size=tree_size)
        try:
            return await self._stub.GetInclusionProof(request, timeout=self._connect_s)
        except grpc.aio.AioRpcError as error:
            raise rpc_failure(error, "no inclusion proof") from error
