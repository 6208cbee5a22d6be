"""Weights and thresholds: more than two thirds, each validator once, for exactly this block."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytoniq_core.tl.generator import TlGenerator

from cocoon_ton.errors import ChainProofError
from cocoon_ton.proof import signatures as module
from cocoon_ton.proof.signatures import SignatureSet, Validators, tl_block_id, verify_signatures
from cocoon_ton.values import FULL_SHARD, BlockId

from .conftest import Validator, sign, sign_simplex, validators

BLOCK = BlockId(workchain=-1, shard=FULL_SHARD, seqno=5, root_hash=b"\x01" * 32, file_hash=b"\x02" * 32)
OTHER = dataclasses.replace(BLOCK, file_hash=b"\x03" * 32)


def group(members: Sequence[Validator]) -> Validators:
    return Validators(
        members={member.id: (member.public, member.weight) for member in members},
        total_weight=sum(member.weight for member in members),
    )


def rejected(signatures: SignatureSet, members: Sequence[Validator], block: BlockId = BLOCK) -> str:
    with pytest.raises(ChainProofError) as caught:
        verify_signatures(signatures, group(members), block)
    return str(caught.value)


class TestThreshold:
    def test_exactly_two_thirds_is_too_little(self) -> None:
        members = validators(1, 1, 1)
        assert "too little" in rejected(sign(BLOCK, members[:2]), members)

    def test_a_little_more_is_enough(self) -> None:
        members = validators(100, 101, 100)
        verify_signatures(sign(BLOCK, members[:2]), group(members), BLOCK)

    def test_nobody(self) -> None:
        assert "too little" in rejected(sign(BLOCK, []), validators(1))

    @given(st.lists(st.integers(1, 1 << 60), min_size=1, max_size=8), st.integers(0, 255))
    def test_follows_the_arithmetic(self, weights: list[int], chosen: int) -> None:
        members = validators(*weights)
        signers = [member for index, member in enumerate(members) if chosen >> index & 1]
        enough = 3 * sum(member.weight for member in signers) > 2 * sum(weights)
        if enough:
            verify_signatures(sign(BLOCK, signers), group(members), BLOCK)
        else:
            rejected(sign(BLOCK, signers), members)


@pytest.mark.parametrize("signer", [sign, sign_simplex])
class TestSigners:
    def test_all(self, signer: type) -> None:
        members = validators(1, 2, 3)
        verify_signatures(signer(BLOCK, members), group(members), BLOCK)

    def test_one_counts_once(self, signer: type) -> None:
        members = validators(1, 1, 1)
        assert "twice" in rejected(signer(BLOCK, [members[0]] * 3), members)

    def test_stranger(self, signer: type) -> None:
        members = validators(1, 1, 1)
        assert "unknown" in rejected(signer(BLOCK, [*members, *validators(1, first=90)]), members)

    def test_one_wrong_signature_spoils_all(self, signer: type) -> None:
        members = validators(1, 1, 1)
        good = signer(BLOCK, members)
        node, signature = good.signatures[2]
        bad = (*good.signatures[:2], (node, signature[:-1] + bytes([signature[-1] ^ 1])))
        assert "wrong validator signature" in rejected(dataclasses.replace(good, signatures=bad), members)

    @pytest.mark.parametrize("length", [0, 63, 65])
    def test_signature_of_a_wrong_length(self, signer: type, length: int) -> None:
        members = validators(1)
        good = signer(BLOCK, members)
        bad = dataclasses.replace(good, signatures=((members[0].id, bytes(length)),))
        rejected(bad, members)

    def test_other_block(self, signer: type) -> None:
        members = validators(1)
        rejected(signer(OTHER, members), members)


class TestSimplex:
    def test_a_notarising_vote_is_not_final(self) -> None:
        members = validators(1)
        schema = TlGenerator.with_default_schemas().generate().get_by_name("consensus.simplex.notarizeVote")
        assert schema is not None
        assert "wrong validator signature" in rejected(
            sign_simplex(BLOCK, members, vote=schema.little_id().hex()), members
        )

    def test_candidate_names_the_block(self) -> None:
        members = validators(1)
        assert "another block" in rejected(sign_simplex(OTHER, members), members)

    @pytest.mark.parametrize("change", [{"slot": 78}, {"session_id": bytes(32)}, {"session_id": b""}])
    def test_session_and_slot_are_signed(self, change: dict[str, object]) -> None:
        members = validators(1)
        rejected(dataclasses.replace(sign_simplex(BLOCK, members), **change), members)  # type: ignore[arg-type]

    def test_rest_of_the_candidate_is_signed(self) -> None:
        members = validators(1)
        good = sign_simplex(BLOCK, members)
        rejected(dataclasses.replace(good, candidate=good.candidate + b"\0"), members)

    def test_candidate_of_an_unknown_kind(self) -> None:
        members = validators(1)
        good = sign_simplex(BLOCK, members)
        assert "another block" in rejected(
            dataclasses.replace(good, candidate=bytes(4) + good.candidate[4:]), members
        )

    def test_ordinary_signatures_are_no_simplex_signatures(self) -> None:
        members = validators(1)
        mixed = dataclasses.replace(
            sign_simplex(BLOCK, members), signatures=sign(BLOCK, members).signatures
        )
        assert "wrong validator signature" in rejected(mixed, members)


def test_numbers_are_those_of_the_tl_schemes() -> None:
    schemas = TlGenerator.with_default_schemas().generate()

    def number(name: str) -> bytes:
        schema = schemas.get_by_name(name)
        assert schema is not None
        found: bytes = schema.little_id()
        return found

    assert number("pub.ed25519") == module._PUBLIC_KEY_TL
    assert number("consensus.candidateId") == module._CANDIDATE_ID_TL
    assert number("consensus.simplex.finalizeVote") == module._FINALIZE_VOTE_TL
    assert number("consensus.dataToSign") == module._DATA_TO_SIGN_TL
    names = ("consensus.candidateHashDataOrdinary", "consensus.candidateHashDataEmpty")
    assert {number(name) for name in names} == module._CANDIDATE_TL
    packed = schemas.serialize(
        "tonNode.blockIdExt",
        {
            "workchain": -1,
            "shard": FULL_SHARD,
            "seqno": 5,
            "root_hash": BLOCK.root_hash.hex(),
            "file_hash": BLOCK.file_hash.hex(),
        },
        boxed=False,
    )
    assert packed == tl_block_id(BLOCK)


def test_node_id() -> None:
    assert module.node_id(bytes(32)) == hashlib.sha256(bytes.fromhex("c6b41348") + bytes(32)).digest()
