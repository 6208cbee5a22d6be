"""Links from a trusted masterchain block to another: the walk that everything else stands on.

* A **forward** link starts at a key block and is signed by the validators that this key block names.
* A **back** link follows the list of old blocks in the state of the trusted block.

Each link is bound to the block it starts from, so a proof about some other chain proves nothing here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from pytoniq_core import Cell

from cocoon_ton.errors import ChainProofError
from cocoon_ton.proof.seam import proof_seam
from cocoon_ton.proof.signatures import SignatureSet, Validators, read_validators, verify_signatures
from cocoon_ton.proof.tlb import Header, find_old_block, read_header, read_master_state
from cocoon_ton.proof.tree import ProofTree
from cocoon_ton.values import FULL_SHARD, MASTERCHAIN, BlockId, BlockRef

_CACHED_VALIDATOR_SETS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardLink:
    """`to` is signed by the validators of the key block that the link starts from."""

    to: BlockId
    config: Cell
    """Merkle proof: header and configuration of the key block."""
    signatures: SignatureSet


@dataclass(frozen=True, slots=True, kw_only=True)
class BackLink:
    """`to` is listed in the state after the block that the link starts from."""

    to: BlockId
    header: Cell
    """Merkle proof: header of the block that the link starts from."""
    state: Cell
    """Merkle proof: old blocks in the state after that block."""


Link = ForwardLink | BackLink


def open_header(proof: Cell, block: BlockId, global_id: int) -> tuple[Header, ProofTree]:
    """The header of `block` from a Merkle proof, compared with the block's name and the network."""
    with proof_seam("block header proof"):
        tree = ProofTree(proof, block.root_hash)
        header = read_header(tree)
    if header.global_id != global_id:
        raise ChainProofError("block is of another network")
    if header.seqno != block.seqno or header.workchain != block.workchain:
        raise ChainProofError("block header does not fit the block's name")
    if block.workchain == MASTERCHAIN and header.shard_prefix:
        raise ChainProofError("block header does not fit the block's name")
    return header, tree


class ChainWalker:
    """Verifies links of one network; remembers validator sets of key blocks it has seen."""

    def __init__(self, global_id: int) -> None:
        self.global_id = global_id
        self._validators: OrderedDict[bytes, Validators] = OrderedDict()

    def follow(self, start: BlockId, link: Link) -> Link:
        """Verify one link from the trusted block `start`.

        Returns the link with its Merkle proofs cut down to what was read (a forward link whose validators
        were remembered is returned as it came). Raises `ChainProofError`.
        """
        if link.to.workchain != MASTERCHAIN or link.to.shard != FULL_SHARD:
            raise ChainProofError("link leaves the masterchain")
        with proof_seam("block link"):
            if isinstance(link, ForwardLink):
                return self._forward(start, link)
            return self._back(start, link)

    def _forward(self, start: BlockId, link: ForwardLink) -> ForwardLink:
        if link.to.seqno <= start.seqno:
            raise ChainProofError("forward link goes back")
        validators = self._validators.get(start.root_hash)
        config = link.config
        if validators is None:
            validators, config = self._read_key_block(start, link.config)
        verify_signatures(link.signatures, validators, link.to)
        return ForwardLink(to=link.to, config=config, signatures=link.signatures)

    def _read_key_block(self, start: BlockId, proof: Cell) -> tuple[Validators, Cell]:
        header, tree = open_header(proof, start, self.global_id)
        if not header.key_block:
            raise ChainProofError("forward link from a block that is not a key block")
        validators = read_validators(tree)
        self._validators[start.root_hash] = validators
        while len(self._validators) > _CACHED_VALIDATOR_SETS:
            self._validators.popitem(last=False)
        return validators, tree.minimal()

    def _back(self, start: BlockId, link: BackLink) -> BackLink:
        if link.to.seqno >= start.seqno:
            raise ChainProofError("back link goes forward")
        header, header_tree = open_header(link.header, start, self.global_id)
        state_tree = ProofTree(link.state, header.state_hash)
        found = find_old_block(state_tree, read_master_state(state_tree).info, link.to.seqno)
        if found != link.to:
            raise ChainProofError("state does not list the block of the back link")
        return BackLink(to=link.to, header=header_tree.minimal(), state=state_tree.minimal())

    def knows_validators(self, block: BlockId) -> bool:
        """Whether forward links from `block` can be verified without its configuration."""
        return block.root_hash in self._validators


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvedBlock:
    """A masterchain block that the trusted chain leads to."""

    ref: BlockRef
    header: Header
    links: tuple[Link, ...]
    """The links that led here, each cut down to what was read."""
    proof: Cell
    """Merkle proof of the header, cut down to what was read."""


def verify_walk(
    walker: ChainWalker, start: BlockId, links: Sequence[Link], target: BlockId, header: Cell
) -> ProvedBlock:
    """Follow `links` from the trusted block `start` to `target` and read the target's header proof."""
    current, followed = start, []
    signer = None
    for link in links:
        followed.append(walker.follow(current, link))
        signer = current if isinstance(link, ForwardLink) else None
        current = link.to
    if current != target:
        raise ChainProofError("links do not lead to the block")
    found, tree = open_header(header, target, walker.global_id)
    if signer is not None and found.prev_key_seqno != signer.seqno:
        raise ChainProofError("block was signed by validators of an older key block")
    ref = BlockRef(
        seqno=target.seqno, root_hash=target.root_hash, file_hash=target.file_hash, utime=found.utime
    )
    return ProvedBlock(ref=ref, header=found, links=tuple(followed), proof=tree.minimal())
