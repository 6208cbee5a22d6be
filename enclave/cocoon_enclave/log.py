"""The receipt log of a node: an append-only Merkle tree over receipts, on disk before anybody sees them.

Answers that finish while a write is under way share the next one: one transaction, one flush to disk,
however many they are. Nothing in memory (tree, use of channels) changes before that write succeeded.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from cocoon.v1 import host_service_pb2, record_pb2
from cocoon_attestation.checkpoint import Checkpoint, sign_checkpoint
from cocoon_attestation.errors import LogProofError
from cocoon_attestation.merkle import MerkleTree
from cocoon_attestation.payment import Claim, TokenUsage, parse_claim, sign_claim
from cocoon_attestation.receipt import Receipt, sign_receipt
from cocoon_attestation.types import Digest32
from cocoon_enclave.clock import Clock
from cocoon_enclave.config import EnclaveConfig
from cocoon_enclave.errors import StateRejectedError, StoreError
from cocoon_enclave.keys import Keyset
from cocoon_enclave.metering import Meter, Reservation, StoredChannel
from cocoon_enclave.store import Entry, Store, StoredCheckpoint, StoredKeyset, StoredReceipt

MAX_BATCH: Final = 256
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A receipt before it has its place in the log."""

    keyset: Keyset
    """The keyset that opened the request."""
    request_commitment: bytes
    response_commitment: bytes
    model: bytes
    usage: TokenUsage
    status: int
    channel: Digest32
    """Zero if the request named none."""
    reservation: Reservation | None
    """None if nothing can be charged."""
    price: int
    """At most the reservation, in nanoton."""


class ReceiptLog:
    """Tree, store and meter of one node, kept in step. Lives on one event loop."""

    def __init__(
        self,
        *,
        config: EnclaveConfig,
        store: Store,
        meter: Meter,
        clock: Clock,
        tree: MerkleTree,
        anchored: int = 0,
        deadlines: Iterable[int] = (),
    ) -> None:
        """`deadlines`: `anchor_by` of every receipt from index `anchored` on."""
        self._config = config
        self._store = store
        self._meter = meter
        self._clock = clock
        self._tree = tree
        self._anchored = anchored
        self._deadlines = deque(deadlines)
        self._pending: list[tuple[Draft, asyncio.Future[record_pb2.SignedReceipt]]] = []
        self._writer: asyncio.Task[None] | None = None
        self._disk = ThreadPoolExecutor(max_workers=1, thread_name_prefix="store")
        self.rejected: StateRejectedError | None = None
        """Set once the chain turned out to be ahead of this log; nothing is served any more."""

    @property
    def size(self) -> int:
        """Receipts in the log."""
        return self._tree.size

    @property
    def unanchored(self) -> int:
        """Receipts that no anchored checkpoint covers."""
        return max(0, self.size - self._anchored)

    @property
    def anchor_by(self) -> int:
        """When the oldest unanchored receipt must be anchored, Unix seconds; 0 if none."""
        return self._deadlines[0] if self._deadlines else 0

    async def on_disk(self, work: Callable[[], T]) -> T:
        """Run `work` in the store's thread."""
        return await asyncio.get_running_loop().run_in_executor(self._disk, work)

    async def close(self) -> None:
        """Finish what is being written and close the store."""
        if self._writer is not None:
            await self._writer
        await self.on_disk(self._store.close)
        self._disk.shutdown()

    async def issue(self, draft: Draft) -> record_pb2.SignedReceipt:
        """Give the draft its place, sign it, and return it once it is on disk.

        The reservation ends here in every case. Cancelling the caller does not undo it.

        Raises:
            StoreError: it could not be written; nothing was charged.
        """
        future: asyncio.Future[record_pb2.SignedReceipt] = asyncio.get_running_loop().create_future()
        self._pending.append((draft, future))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        return await asyncio.shield(future)

    async def _write(self) -> None:
        while self._pending:
            batch, self._pending = self._pending[:MAX_BATCH], self._pending[MAX_BATCH:]
            receipts, entries = self._prepare([draft for draft, _ in batch])
            try:
                await self.on_disk(lambda rows=entries: self._store.append(rows))  # type: ignore[misc]
            except StoreError as error:
                for draft, future in batch:
                    if draft.reservation is not None:
                        self._meter.release(draft.reservation)
                    if not future.cancelled():
                        future.set_exception(error)
                        future.exception()  # the caller may be gone: then nobody else looks
                continue
            for (draft, future), entry, (receipt, signed) in zip(batch, entries, receipts, strict=True):
                self._tree.append(entry.receipt.hash)
                self._deadlines.append(receipt.anchor_by)
                if draft.reservation is not None:
                    self._meter.charge(draft.reservation, draft.price)
                if not future.cancelled():
                    future.set_result(signed)

    def _prepare(
        self, drafts: list[Draft]
    ) -> tuple[list[tuple[Receipt, record_pb2.SignedReceipt]], list[Entry]]:
        """Receipts and rows for a batch, on top of the state that is on disk."""
        used: dict[Digest32, int] = {}
        receipts, entries = [], []
        now = int(self._clock.now())
        for index, draft in enumerate(drafts, start=self._tree.size):
            cumulative = used.get(draft.channel, self._meter.used(draft.channel)) + draft.price
            used[draft.channel] = cumulative
            receipt = Receipt(
                node=self._config.node,
                binding_hash=draft.keyset.binding_hash,
                request_commitment=draft.request_commitment,
                response_commitment=draft.response_commitment,
                model=draft.model,
                prompt_tokens=draft.usage.prompt_tokens,
                cached_tokens=draft.usage.cached_tokens,
                completion_tokens=draft.usage.completion_tokens,
                status=draft.status,
                channel=draft.channel,
                amount=draft.price,
                cumulative=cumulative,
                index=index,
                issued_at=now,
                anchor_by=now + self._config.limits.anchor_within_s,
            )
            signed = sign_receipt(receipt, draft.keyset.receipt)
            stored = StoredReceipt(
                index=index, hash=receipt.hash, receipt=signed.receipt, signature=signed.signature
            )
            channel = self._claim(draft, cumulative, index) if draft.price else None
            cap = draft.reservation.cap if draft.reservation is not None else 0
            receipts.append((receipt, signed))
            entries.append(Entry(receipt=stored, channel=channel, cap=cap))
        return receipts, entries

    def _claim(self, draft: Draft, used: int, index: int) -> StoredChannel | None:
        reservation = draft.reservation
        if reservation is None:
            return None
        claim = Claim(global_id=self._config.global_id, channel=draft.channel, used=used, index=index)
        signed = sign_claim(claim, draft.keyset.receipt)
        return StoredChannel(
            channel=draft.channel,
            initial_data=reservation.initial_data,
            authorization=reservation.authorization.authorization,
            authorization_signature=reservation.authorization.signature,
            used=used,
            claim=signed.claim,
            claim_signature=signed.signature,
            binding_hash=draft.keyset.binding_hash,
        )

    async def checkpoint(
        self, keyset: Keyset, *, anchored_size: int, anchored_root: bytes
    ) -> tuple[record_pb2.SignedCheckpoint, record_pb2.ConsistencyProof]:
        """Sign the tree as it is, and prove that it continues the anchored one.

        Raises:
            StateRejectedError: the chain has anchored something that this log does not continue: its state
                was rolled back or replaced. From then on `rejected` is set.
            StoreError: the checkpoint could not be written.
        """
        size = self.size
        self._check_continues(anchored_size, anchored_root)
        if anchored_size > self._anchored:
            await self.on_disk(lambda: self._store.put_anchored(anchored_size))
            self._advance(anchored_size)
        checkpoint = Checkpoint(
            global_id=self._config.global_id,
            node=self._config.node,
            tree_size=size,
            root=self._tree.root(size),
            issued_at=int(self._clock.now()),
        )
        signed = sign_checkpoint(checkpoint, keyset.receipt)
        row = StoredCheckpoint(
            tree_size=size,
            checkpoint=signed.checkpoint,
            signature=signed.signature,
            binding_hash=keyset.binding_hash,
        )
        await self.on_disk(lambda: self._store.put_checkpoint(row))
        proof = record_pb2.ConsistencyProof(
            first_size=anchored_size,
            second_size=size,
            hashes=self._tree.consistency_proof(anchored_size, size),
        )
        return signed, proof

    def _check_continues(self, anchored_size: int, anchored_root: bytes) -> None:
        if anchored_size == 0:
            return  # every log continues the empty one
        if anchored_size > self.size or self._tree.root(anchored_size) != anchored_root:
            self.rejected = StateRejectedError(
                "the chain has anchored receipts that this log does not have",
                details={"anchored": anchored_size, "size": self.size},
            )
            raise self.rejected

    def _advance(self, anchored_size: int) -> None:
        for _ in range(min(anchored_size - self._anchored, len(self._deadlines))):
            self._deadlines.popleft()
        self._anchored = anchored_size

    async def inclusion(
        self, receipt_hash: bytes, tree_size: int
    ) -> tuple[record_pb2.InclusionProof, record_pb2.SignedCheckpoint]:
        """Proof that a receipt is in the tree of a checkpoint that was signed.

        tree_size: size of that checkpoint; 0 for the newest.

        Raises:
            LogProofError: no such receipt or checkpoint, or the checkpoint is older than the receipt.
        """
        index = await self.on_disk(lambda: self._store.index_of(receipt_hash))
        checkpoint = await self.on_disk(lambda: self._store.checkpoint(tree_size))
        if index is None or checkpoint is None:
            raise LogProofError("no such receipt, or no checkpoint of that size")
        if index >= checkpoint.tree_size:
            raise LogProofError("the checkpoint is older than the receipt", hint="ask again later")
        proof = record_pb2.InclusionProof(
            leaf_index=index,
            tree_size=checkpoint.tree_size,
            hashes=self._tree.inclusion_proof(index, checkpoint.tree_size),
        )
        signed = record_pb2.SignedCheckpoint(
            checkpoint=checkpoint.checkpoint, signature=checkpoint.signature
        )
        return proof, signed

    async def put_keyset(self, keyset: StoredKeyset) -> None:
        """Write a keyset's evidence.

        Raises:
            StoreError: nothing was written.
        """
        await self.on_disk(lambda: self._store.put_keyset(keyset))

    async def published_evidence(self, binding_hash: bytes) -> bytes | None:
        """The published evidence of a keyset, byte for byte."""
        return await self.on_disk(lambda: self._store.evidence(binding_hash))

    async def claims(self) -> list[host_service_pb2.ChannelClaim]:
        """The best authorization and claim of every channel, as they were signed."""
        return [claim_message(channel) for channel in await self.on_disk(self._store.channels)]

    async def resign(self, keyset: Keyset, *, keep: frozenset[bytes]) -> int:
        """Sign claims anew that stand under keys other than `keep` (binding hashes); returns how many.

        The node contract knows the current and the previous receipt key only. Frozen channels, whose use
        this enclave does not vouch for, are left as they are.

        Raises:
            StoreError: nothing was changed.
        """
        renewed = []
        for channel in await self.on_disk(self._store.channels):
            if channel.binding_hash in keep or channel.used != self._meter.used(channel.channel):
                continue
            index = parse_claim(channel.claim).index
            claim = Claim(
                global_id=self._config.global_id, channel=channel.channel, used=channel.used, index=index
            )
            signed = sign_claim(claim, keyset.receipt)
            renewed.append(
                replace(
                    channel,
                    claim=signed.claim,
                    claim_signature=signed.signature,
                    binding_hash=keyset.binding_hash,
                )
            )
        await self.on_disk(lambda: self._store.replace_claims(renewed))
        return len(renewed)


def claim_message(channel: StoredChannel) -> host_service_pb2.ChannelClaim:
    """A stored channel in its wire form."""
    message = host_service_pb2.ChannelClaim(binding_hash=channel.binding_hash)
    message.channel.initial_data = channel.initial_data
    message.authorization.authorization = channel.authorization
    message.authorization.signature = channel.authorization_signature
    message.claim.claim = channel.claim
    message.claim.signature = channel.claim_signature
    return message
