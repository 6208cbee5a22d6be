"""Links of the masterchain: what is signed by whom, and what each proof is bound to."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from pytoniq_core import Cell

from cocoon_ton.errors import ChainProofError
from cocoon_ton.proof.answers import block_id, block_id_query, parse_header_answer, parse_walk
from cocoon_ton.proof.blocks import BackLink, ChainWalker, ForwardLink, Link, ProvedBlock, verify_walk
from cocoon_ton.proof.boc import write_boc
from cocoon_ton.proof.tree import merkle_proof, pruned_branch

from .conftest import GLOBAL_ID, Forged, Smith, sign, sign_simplex, validator_set, validators


def walk(smith: Smith, links: list[Link], target: Forged, start: Forged | None = None) -> ProvedBlock:
    return verify_walk(ChainWalker(GLOBAL_ID), (start or smith.init).id, links, target.id, target.proof)


def rejected(smith: Smith, links: list[Link], target: Forged, start: Forged | None = None) -> str:
    with pytest.raises(ChainProofError) as caught:
        walk(smith, links, target, start)
    return str(caught.value)


class TestForward:
    def test_ordinary_signatures(self, smith: Smith) -> None:
        head = smith.add()
        proved = walk(smith, [smith.forward(smith.init, head)], head)
        assert proved.ref.id == head.id
        assert proved.ref.utime == smith.utime + head.id.seqno
        assert proved.header.state_hash == head.state.hash

    def test_simplex_signatures(self, smith: Smith) -> None:
        head = smith.add()
        link = ForwardLink(
            to=head.id, config=smith.init.proof, signatures=sign_simplex(head.id, smith.members)
        )
        assert walk(smith, [link], head).ref.id == head.id

    def test_key_blocks_hand_over(self, smith: Smith) -> None:
        old = smith.members
        first = smith.init
        second = smith.add(members=validators(5, 5, first=20))
        new = smith.members
        head = smith.add()
        links: list[Link] = [smith.forward(first, second, old), smith.forward(second, head, new)]
        assert walk(smith, links, head).ref.id == head.id

    def test_old_validators_have_no_say_after_the_hand_over(self, smith: Smith) -> None:
        old, first = smith.members, smith.init
        second = smith.add(members=validators(5, 5, first=20))
        head = smith.add()
        links: list[Link] = [smith.forward(first, second, old), smith.forward(second, head, old)]
        assert "unknown validator" in rejected(smith, links, head)

    def test_old_validators_cannot_skip_the_hand_over(self, smith: Smith) -> None:
        old, first = smith.members, smith.init
        smith.add(members=validators(5, 5, first=20))
        head = smith.add()
        assert "older key block" in rejected(smith, [smith.forward(first, head, old)], head)

    def test_configuration_must_belong_to_the_trusted_block(self, smith: Smith) -> None:
        forged = Smith(validators(1, first=50))
        head = forged.add()
        link = ForwardLink(to=head.id, config=forged.init.proof, signatures=sign(head.id, forged.members))
        assert "something else" in rejected(smith, [link], head)

    def test_only_key_blocks_name_validators(self, smith: Smith) -> None:
        middle, head = smith.add(), smith.add()
        assert "not a key block" in rejected(
            smith, [smith.forward(smith.init, middle), smith.forward(middle, head)], head
        )

    def test_key_block_must_say_so_in_its_header(self, smith: Smith) -> None:
        start = smith.add(key=True, admits_key=False)
        head = smith.add()
        assert "not a key block" in rejected(smith, [smith.forward(start, head)], head, start=start)

    def test_goes_forward_only(self, smith: Smith) -> None:
        old = smith.init
        newer = smith.add(key=True)
        assert "goes back" in rejected(smith, [smith.forward(newer, old)], old, start=newer)

    def test_signatures_of_another_block(self, smith: Smith) -> None:
        head, other = smith.add(), smith.add()
        link = dataclasses.replace(
            smith.forward(smith.init, head), signatures=sign(other.id, smith.members)
        )
        assert "wrong validator signature" in rejected(smith, [link], head)

    def test_file_hash_is_signed_too(self, smith: Smith) -> None:
        head = smith.add()
        link = smith.forward(smith.init, head)
        renamed = dataclasses.replace(link, to=dataclasses.replace(link.to, file_hash=bytes(32)))
        assert "wrong validator signature" in rejected(smith, [renamed], head)

    def test_temporary_validators_come_first(self) -> None:
        temporary = validators(9, first=60)
        smith = Smith(validators(1, 2), config_extra={35: validator_set(temporary)})
        head = smith.add()
        assert walk(smith, [smith.forward(smith.init, head, temporary)], head).ref.id == head.id
        assert "unknown validator" in rejected(smith, [smith.forward(smith.init, head)], head)

    def test_only_the_main_validators_sign(self) -> None:
        everyone = validators(1, 1, 1, 100)
        smith = Smith(everyone)
        smith.config_extra[34] = validator_set(everyone, main=3)
        smith.blocks.clear()
        smith.add(key=True)
        head = smith.add()
        assert walk(smith, [smith.forward(smith.init, head, everyone[:3])], head).ref.id == head.id
        assert "unknown validator" in rejected(smith, [smith.forward(smith.init, head, everyone)], head)

    @pytest.mark.parametrize(
        "param",
        [
            validator_set(validators(1, 2), main=3, total=2),
            validator_set(validators(1, 2), main=3, total=3),
            validator_set(validators(1, 2) + validators(1)),
            Cell.empty(),
        ],
        ids=["main above total", "gap", "key twice", "empty"],
    )
    def test_malformed_validator_sets(self, param: Cell) -> None:
        smith = Smith(validators(1, 2), config_extra={34: param})
        head = smith.add()
        rejected(smith, [smith.forward(smith.init, head)], head)

    def test_no_validators_at_all(self) -> None:
        smith = Smith(validators(1))
        smith.without_validators = True
        start = smith.add(key=True)
        head = smith.add()
        assert "no validators" in rejected(smith, [smith.forward(start, head)], head, start=start)


class TestBack:
    def test_listed_in_the_state(self, smith: Smith) -> None:
        old, head = smith.add(), smith.add()
        proved = walk(smith, [smith.back(head, old)], old, start=head)
        assert proved.ref.id == old.id

    def test_then_forward(self, smith: Smith) -> None:
        middle, head = smith.add(), smith.add()
        links: list[Link] = [smith.back(middle, smith.init), smith.forward(smith.init, head)]
        assert walk(smith, links, head, start=middle).ref.id == head.id

    def test_block_that_is_not_listed(self, smith: Smith) -> None:
        smith.add()
        head = smith.add()
        other = Smith(validators(1), first_seqno=1000)
        stranger = other.add()
        assert "does not list" in rejected(smith, [smith.back(head, stranger)], stranger, start=head)

    def test_every_field_of_the_listed_block_is_compared(self, smith: Smith) -> None:
        old, head = smith.add(), smith.add()
        renamed = dataclasses.replace(old.id, file_hash=bytes(32))
        link = BackLink(to=renamed, header=head.proof, state=head.state_proof)
        with pytest.raises(ChainProofError, match="does not list"):
            verify_walk(ChainWalker(GLOBAL_ID), head.id, [link], renamed, old.proof)

    def test_seqno_that_is_not_listed(self, smith: Smith) -> None:
        head = smith.add()
        ancient = Smith(validators(1), first_seqno=5).init
        assert "does not list" in rejected(smith, [smith.back(head, ancient)], ancient, start=head)

    def test_state_of_another_block(self, smith: Smith) -> None:
        old, middle, head = smith.add(), smith.add(), smith.add()
        link = dataclasses.replace(smith.back(head, old), state=middle.state_proof)
        assert "something else" in rejected(smith, [link], old, start=head)

    def test_header_of_another_block(self, smith: Smith) -> None:
        old, middle, head = smith.add(), smith.add(), smith.add()
        link = dataclasses.replace(smith.back(head, old), header=middle.proof, state=middle.state_proof)
        assert "something else" in rejected(smith, [link], old, start=head)

    def test_goes_back_only(self, smith: Smith) -> None:
        head = smith.add()
        assert "goes forward" in rejected(smith, [smith.back(smith.init, head)], head)

    def test_empty_list(self, smith: Smith) -> None:
        ancient = Smith(validators(1), first_seqno=5).init
        assert "does not list" in rejected(smith, [smith.back(smith.init, ancient)], ancient)


class TestHeader:
    def test_no_links_is_the_trusted_block_itself(self, smith: Smith) -> None:
        assert walk(smith, [], smith.init).ref.id == smith.init.id

    def test_links_must_reach_the_target(self, smith: Smith) -> None:
        middle, head = smith.add(), smith.add()
        assert "do not lead" in rejected(smith, [smith.forward(smith.init, middle)], head)
        assert "do not lead" in rejected(smith, [], head)

    def test_header_proof_of_another_block(self, smith: Smith) -> None:
        head = smith.add()
        with pytest.raises(ChainProofError, match="something else"):
            verify_walk(
                ChainWalker(GLOBAL_ID),
                smith.init.id,
                [smith.forward(smith.init, head)],
                head.id,
                smith.init.proof,
            )

    def test_another_network(self, smith: Smith) -> None:
        with pytest.raises(ChainProofError, match="another network"):
            verify_walk(ChainWalker(-239), smith.init.id, [], smith.init.id, smith.init.proof)

    def test_seqno_is_compared(self, smith: Smith) -> None:
        lying = dataclasses.replace(smith.init.id, seqno=7)
        with pytest.raises(ChainProofError, match="does not fit"):
            verify_walk(ChainWalker(GLOBAL_ID), lying, [], lying, smith.init.proof)

    def test_a_shard_block_is_no_masterchain_block(self, smith: Smith) -> None:
        shard = smith.add(workchain=0)
        link = smith.forward(smith.init, shard)
        assert "does not fit" in rejected(smith, [link], shard)

    def test_link_out_of_the_masterchain(self, smith: Smith) -> None:
        head = smith.add()
        link = smith.forward(smith.init, head)
        for to in (
            dataclasses.replace(link.to, workchain=0),
            dataclasses.replace(link.to, shard=1 << 62),
        ):
            moved = dataclasses.replace(link, to=to)
            assert "leaves the masterchain" in rejected(smith, [moved], head)

    def test_pruned_info_is_refused(self, smith: Smith) -> None:
        block = smith.init.cell
        refs = [pruned_branch(block.refs[0]), *block.refs[1:]]
        proof = merkle_proof(Cell(block.bits, refs, -1))
        assert proof.refs[0].get_hash(0) == block.hash
        with pytest.raises(ChainProofError, match="must show"):
            verify_walk(ChainWalker(GLOBAL_ID), smith.init.id, [], smith.init.id, proof)

    def test_not_a_proof_cell(self, smith: Smith) -> None:
        with pytest.raises(ChainProofError, match="something else"):
            verify_walk(ChainWalker(GLOBAL_ID), smith.init.id, [], smith.init.id, smith.init.cell)


class TestMinimalForm:
    def test_cut_down_proofs_verify_alike(self, smith: Smith) -> None:
        old, middle, head = smith.add(), smith.add(), smith.add()
        links: list[Link] = [smith.back(middle, smith.init), smith.forward(smith.init, head)]
        proved = walk(smith, links, head, start=middle)
        again = verify_walk(ChainWalker(GLOBAL_ID), middle.id, proved.links, head.id, proved.proof)
        assert [encoded(link) for link in again.links] == [encoded(link) for link in proved.links]
        assert write_boc([again.proof]) == write_boc([proved.proof])
        assert len(b"".join(encoded(links[0]))) > len(b"".join(encoded(proved.links[0])))
        assert old.id.seqno < head.id.seqno

    def test_remembered_validators_need_no_configuration(self, smith: Smith) -> None:
        walker = ChainWalker(GLOBAL_ID)
        first, second = smith.add(), smith.add()
        walker.follow(smith.init.id, smith.forward(smith.init, first))
        pruned_config = merkle_proof(pruned_branch(smith.init.cell))
        link = dataclasses.replace(smith.forward(smith.init, second), config=pruned_config)
        walker.follow(smith.init.id, link)
        with pytest.raises(ChainProofError):
            ChainWalker(GLOBAL_ID).follow(smith.init.id, link)

    def test_memory_of_validators_is_bounded(self, smith: Smith) -> None:
        walker = ChainWalker(GLOBAL_ID)
        previous = smith.init
        for _ in range(10):
            following = smith.add(key=True)
            walker.follow(previous.id, smith.forward(previous, following))
            previous = following
        assert len(walker._validators) <= 4


def encoded(link: Link) -> tuple[bytes, ...]:
    if isinstance(link, BackLink):
        return write_boc([link.header]), write_boc([link.state])
    return (write_boc([link.config]),)


class TestAnswers:
    """The liteserver's form of the same."""

    def step(self, smith: Smith, head: Forged, **changes: Any) -> dict[str, Any]:
        signatures = sign(head.id, smith.members)
        step = {
            "@type": "liteServer.blockLinkForward",
            "to_key_block": False,
            "from": block_id_query(smith.init.id),
            "to": block_id_query(head.id),
            "dest_proof": write_boc([head.proof]),
            "config_proof": write_boc([smith.init.proof]),
            "signatures": {
                "@type": "liteServer.signatureSet.ordinary",
                "validator_set_hash": 0,
                "catchain_seqno": 0,
                "signatures": [
                    {"node_id_short": node.hex(), "signature": signature}
                    for node, signature in signatures.signatures
                ],
            },
        }
        return step | changes

    def test_forward(self, smith: Smith) -> None:
        head = smith.add()
        partial = parse_walk({"steps": [self.step(smith, head)]}, smith.init.id)
        assert partial.reached == head.id
        assert partial.header is not None
        proved = verify_walk(ChainWalker(GLOBAL_ID), smith.init.id, partial.links, head.id, partial.header)
        assert proved.ref.id == head.id

    def test_start_is_compared_with_the_question(self, smith: Smith) -> None:
        head = smith.add()
        step = self.step(smith, head, **{"from": block_id_query(head.id)})
        with pytest.raises(ChainProofError, match="gap"):
            parse_walk({"steps": [step]}, smith.init.id)

    @pytest.mark.parametrize(
        "change",
        [
            {"@type": "liteServer.blockLinkSideways"},
            {"dest_proof": b""},
            {"config_proof": b"\x00" * 40},
            {"signatures": {"@type": "liteServer.signatureSet.none", "signatures": []}},
            {"signatures": {}},
            {"to": {}},
            {"to": {"workchain": -1, "shard": 0, "seqno": 1, "root_hash": "zz", "file_hash": ""}},
        ],
    )
    def test_malformed(self, smith: Smith, change: dict[str, Any]) -> None:
        with pytest.raises(ChainProofError):
            parse_walk({"steps": [self.step(smith, smith.add(), **change)]}, smith.init.id)

    @pytest.mark.parametrize("answer", [{}, {"steps": None}, {"steps": [None]}, {"steps": [{}]}])
    def test_not_even_steps(self, smith: Smith, answer: dict[str, Any]) -> None:
        with pytest.raises(ChainProofError):
            parse_walk(answer, smith.init.id)

    def test_block_id_round_trip(self, smith: Smith) -> None:
        assert block_id(block_id_query(smith.init.id)) == smith.init.id

    @pytest.mark.parametrize("change", [{"seqno": -1}, {"root_hash": "00"}, {"file_hash": None}])
    def test_block_id_malformed(self, smith: Smith, change: dict[str, Any]) -> None:
        with pytest.raises(ChainProofError):
            block_id(block_id_query(smith.init.id) | change)

    def test_header_answer_about_another_block(self, smith: Smith) -> None:
        head = smith.add()
        answer = {"id": block_id_query(head.id), "header_proof": write_boc([head.proof])}
        assert parse_header_answer(answer, head.id).hash == head.proof.hash
        with pytest.raises(ChainProofError, match="another block"):
            parse_header_answer(answer, smith.init.id)
