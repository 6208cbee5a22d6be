"""Taking over the state of the enclave that ran here before: the host's word, until it is proved.

1. The log: every checkpoint must be signed by a keyset whose evidence appraises, and have the root that the
   receipts lead to; every receipt above the newest one must be signed itself. Else nothing is served.
2. The claims: each must be signed by its keyset and agree with the receipts. Use of a channel is continued
   only if that keyset's evidence appraises for *this* release, node and network; else the channel is
   frozen: its claim can still be settled, but nothing new is charged on it.

What no single machine can see, a tail of the log cut off together with its claims, shows on chain (an
anchored size that the log does not reach, `ReceiptLog.checkpoint`) or in the hands of clients (a receipt
past its `anchor_by` that no checkpoint covers), and costs the host what it cut off.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cocoon.v1 import payment_pb2, record_pb2
from cocoon_attestation.appraisal import appraise
from cocoon_attestation.binding import KeyBinding, parse_key_binding
from cocoon_attestation.checkpoint import verify_checkpoint
from cocoon_attestation.dev_roots import DevRoots, read_dev_roots
from cocoon_attestation.errors import CocoonError, ConfigError, MalformedError, RejectedError
from cocoon_attestation.evidence import Evidence, TdxEvidence, parse_evidence
from cocoon_attestation.gpu.policy import GpuPolicy
from cocoon_attestation.merkle import MerkleTree
from cocoon_attestation.payment import verify_claim
from cocoon_attestation.policy import Policy
from cocoon_attestation.receipt import Receipt, parse_receipt, verify_receipt
from cocoon_attestation.reference import SnpRelease
from cocoon_attestation.rtmr3 import MODEL_EVENT
from cocoon_attestation.types import Digest32
from cocoon_enclave.config import EnclaveConfig
from cocoon_enclave.errors import StateRejectedError
from cocoon_enclave.metering import StoredChannel
from cocoon_enclave.store import Store, StoredKeyset

_COLLATERAL_AGE_S = 400 * 86_400
"""Old evidence is judged as of the time it was made; its collateral may have been old then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """State that was checked."""

    tree: MerkleTree
    anchored: int
    deadlines: tuple[int, ...]
    """`anchor_by` of every receipt from index `anchored` on."""
    channels: tuple[StoredChannel, ...]
    verified: frozenset[bytes]
    """Binding hashes of keysets whose evidence appraises."""
    frozen: int
    """Channels that cannot be continued."""


def take_over(store: Store, config: EnclaveConfig, dev_root: bytes | None) -> Handover:
    """Check the whole store.

    dev_root: DER of the simulated platform's root, None on hardware (then only Intel's root counts).

    Raises:
        StateRejectedError: something in it was changed or is missing.
    """
    try:
        return _take_over(store, config, dev_root)
    except (sqlite3.Error, TypeError, ValueError, OverflowError, MalformedError) as error:
        # Columns of the wrong type, tables of the wrong form: the host's doing as well.
        raise StateRejectedError("the state cannot be read") from error


def _take_over(store: Store, config: EnclaveConfig, dev_root: bytes | None) -> Handover:
    keysets = store.keysets()
    bindings = {keyset.binding_hash: _binding(keyset, config) for keyset in keysets}
    verified = frozenset(k.binding_hash for k in keysets if _appraises(k, config, dev_root))
    tree = MerkleTree()
    for index, stored in enumerate(store.receipts()):
        if stored.index != index:
            raise StateRejectedError("a receipt is missing from the log", details={"index": index})
        tree.append(stored.hash)
    anchored = store.anchored()
    if anchored > tree.size:
        raise StateRejectedError(
            "the log is shorter than what was anchored", details={"size": tree.size, "anchored": anchored}
        )
    covered = _check_checkpoints(store, tree, bindings, verified)
    recent = _check_receipts(store, bindings, config, start=min(covered, anchored))
    channels = store.channels()
    for channel in channels:
        _check_claim(channel, bindings, tree.size)
    _check_totals(channels, recent)
    return Handover(
        tree=tree,
        anchored=anchored,
        deadlines=tuple(receipt.anchor_by for receipt in recent if receipt.index >= anchored),
        channels=channels,
        verified=verified,
        frozen=sum(channel.binding_hash not in verified for channel in channels),
    )


def _binding(keyset: StoredKeyset, config: EnclaveConfig) -> KeyBinding:
    try:
        binding = parse_key_binding(keyset.binding)
    except MalformedError as error:
        raise StateRejectedError("a stored key binding does not parse") from error
    if binding.hash != keyset.binding_hash:
        raise StateRejectedError("a stored key binding was changed")
    if binding.node != config.node or binding.global_id != config.global_id:
        raise StateRejectedError("a stored key binding is of another node or network")
    return binding


def _appraises(keyset: StoredKeyset, config: EnclaveConfig, dev_root: bytes | None) -> bool:
    """True if the evidence shows that an enclave of this release held the keyset, when it was made."""
    try:
        evidence = parse_evidence(keyset.evidence)
        vendors = None if dev_root is None else read_dev_roots(dev_root)
        policy = Policy(
            global_id=config.global_id,
            releases=(config.release,),
            models=_models(evidence, config),
            min_tcb_evaluation=1,
            tee_kinds=frozenset({config.release.tee}),
            dev_root=dev_root,
            node=config.node,
            max_collateral_age_s=_COLLATERAL_AGE_S,
            snp=None if vendors is None else vendors.snp,
            gpu=_gpu_rules(config, vendors),
        )
        verified = appraise(
            keyset.evidence, policy=policy, challenge=evidence.challenge, now=keyset.made_at
        )
    except (MalformedError, RejectedError, ConfigError):
        return False
    return verified.binding_hash == keyset.binding_hash


def _gpu_rules(config: EnclaveConfig, vendors: DevRoots | None) -> GpuPolicy | None:
    """The rules by which this node checks GPUs itself, for as many as the evidence measured."""
    if config.gpu is not None:
        rules = config.gpu.rules if vendors is None else config.gpu.simulated_rules(vendors)
        return replace(rules, gpu_count=None)
    return GpuPolicy(gpu_count=None) if vendors is None else vendors.gpu


def _models(evidence: Evidence, config: EnclaveConfig) -> frozenset[bytes]:
    """Which models it ran has no say in how it metered: those that it measured."""
    if isinstance(config.release, SnpRelease):
        return frozenset(config.release.models)
    events = evidence.cpu.runtime_events if isinstance(evidence.cpu, TdxEvidence) else ()
    return frozenset(event.payload for event in events if event.name == MODEL_EVENT)


def _check_checkpoints(
    store: Store, tree: MerkleTree, bindings: dict[Digest32, KeyBinding], verified: frozenset[bytes]
) -> int:
    """Size of the largest checkpoint by a verified keyset; all must fit the tree."""
    covered = 0
    for stored in store.checkpoints():
        binding = bindings.get(Digest32(stored.binding_hash))
        if binding is None:
            raise StateRejectedError("a checkpoint is signed by a keyset that is not stored")
        signed = record_pb2.SignedCheckpoint(checkpoint=stored.checkpoint, signature=stored.signature)
        try:
            checkpoint = verify_checkpoint(signed, binding.receipt_key)
        except CocoonError as error:
            raise StateRejectedError("a checkpoint was changed") from error
        size = checkpoint.tree_size
        if size != stored.tree_size or size > tree.size or tree.root(size) != checkpoint.root:
            raise StateRejectedError(
                "the receipts do not lead to a checkpoint that was signed over them", details={"size": size}
            )
        if stored.binding_hash in verified:
            covered = max(covered, size)
    return covered


def _check_receipts(
    store: Store, bindings: dict[Digest32, KeyBinding], config: EnclaveConfig, *, start: int
) -> list[Receipt]:
    """Receipts from `start` on, each with a good signature."""
    receipts = []
    for stored in store.receipts(start):
        signed = record_pb2.SignedReceipt(receipt=stored.receipt, signature=stored.signature)
        receipt = _verified_receipt(signed, bindings, stored.index)
        if receipt.hash != stored.hash or receipt.index != stored.index or receipt.node != config.node:
            raise StateRejectedError("a receipt was changed", details={"index": stored.index})
        receipts.append(receipt)
    return receipts


def _verified_receipt(
    signed: record_pb2.SignedReceipt, bindings: dict[Digest32, KeyBinding], index: int
) -> Receipt:
    try:
        binding = bindings.get(Digest32(parse_receipt(signed.receipt).binding_hash))
        if binding is None:
            raise StateRejectedError("a receipt is signed by a keyset that is not stored")
        return verify_receipt(signed, binding.receipt_key)
    except StateRejectedError:
        raise
    except CocoonError as error:
        raise StateRejectedError("a receipt was changed", details={"index": index}) from error


def _check_claim(channel: StoredChannel, bindings: dict[Digest32, KeyBinding], size: int) -> None:
    binding = bindings.get(Digest32(channel.binding_hash))
    if binding is None:
        raise StateRejectedError("a claim is signed by a keyset that is not stored")
    signed = payment_pb2.SignedClaim(claim=channel.claim, signature=channel.claim_signature)
    try:
        claim = verify_claim(signed, binding.receipt_key)
    except CocoonError as error:
        raise StateRejectedError("a claim was changed") from error
    if claim.channel != channel.channel or claim.used != channel.used or claim.index >= size:
        raise StateRejectedError("a claim does not agree with its channel or with the log")


def _check_totals(channels: Sequence[StoredChannel], receipts: Sequence[Receipt]) -> None:
    """No receipt may say more than its channel's claim: the claim would have been rolled back."""
    used = {channel.channel: channel.used for channel in channels}
    for receipt in receipts:
        if receipt.amount and receipt.cumulative > used.get(Digest32(receipt.channel), -1):
            raise StateRejectedError(
                "a channel's claim is older than its receipts", details={"index": receipt.index}
            )
