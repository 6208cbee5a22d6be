"""`cocoon verify bundle --offline` on the demo's own bundle: accepted as it is, refused after any change."""

from __future__ import annotations

import base64
import copy
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from tests.network.netkit import DemoRun, InProcess, Outcome, Running, Served, cocoon_process
else:
    from netkit import cocoon_process

pytestmark = [pytest.mark.network, pytest.mark.model]

ACCEPTED, REJECTED, MALFORMED, UNDECIDED = 0, 10, 30, 40
Keys = tuple[str | int, ...]
SWEEP = 40
"""Positions that are tried in every part, spread over it, besides its first and last two."""


def leaves(value: Any, at: Keys = ()) -> Iterator[tuple[Keys, Any]]:
    """All values of a document that are no containers, with the way to them."""
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from leaves(value[key], (*at, key))
    else:
        yield at, value


def value_at(document: Any, keys: Keys) -> Any:
    for key in keys:
        document = document[key]
    return document


def changed(original: bytes, keys: Keys, value: object) -> bytes:
    document = copy.deepcopy(json.loads(original))
    value_at(document, keys[:-1])[keys[-1]] = value
    return json.dumps(document).encode()


def proof_parts(original: bytes) -> dict[Keys, bytes]:
    """The binary parts, decoded."""
    plain = {("media_type",), ("network", "name"), ("network", "registry"), ("chain", "format")}
    return {
        keys: base64.b64decode(value, validate=True)
        for keys, value in leaves(json.loads(original))
        if isinstance(value, str) and keys not in plain and keys[-1] not in ("address", "kind")
    }


def positions(length: int) -> list[int]:
    spread = {length * step // SWEEP for step in range(SWEEP)}
    return sorted(p for p in spread | {0, 1, length - 2, length - 1} if 0 <= p < length)


# ---- as it is


def test_the_demos_bundle_is_accepted(verify: Callable[[bytes], Outcome], original: bytes) -> None:
    found = verify(original)
    assert found.code == ACCEPTED, found.out
    document = found.json
    assert document.keys() == {
        "ok", "subject", "verdict", "simulated", "network", "claims", "checks", "tcb_status", "advisories"
    }  # fmt: skip
    assert document["ok"] is True
    assert document["verdict"] == "accepted"
    assert document["simulated"] is True
    assert {check["verdict"] for check in document["checks"]} == {"pass"}
    ids = {check["id"] for check in document["checks"]}
    assert {
        "chain.proof", "bundle.receipt_signature", "bundle.evidence_digest", "bundle.inclusion",
        "bundle.checkpoint", "bundle.request_commitment", "bundle.response_commitment", "tdx.tcb",
    } <= ids  # fmt: skip


def test_a_process_without_network_gives_the_same_verdict(
    demo: DemoRun, original: bytes, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(demo.home / "networks", home / "networks")
    bundle = tmp_path / "bundle.json"
    bundle.write_bytes(original)
    # An interpreter in which every socket is refused: offline means offline.
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "def refuse(event, arguments):\n"
        "    if event.startswith('socket.') and event != 'socket.gethostname':\n"
        "        raise RuntimeError('network use: ' + event)\n"
        "sys.addaudithook(refuse)\n"
    )
    found = cocoon_process(
        "verify", "bundle", bundle, "--offline", "--json", home=home, PYTHONPATH=str(tmp_path)
    )
    assert found.code == ACCEPTED, found.out + found.err
    assert found.json["ok"] is True
    people = cocoon_process("verify", "bundle", bundle, "--offline", "--explain", home=home)
    assert people.code == ACCEPTED
    assert "SIMULATED" in people.out
    assert "accepted" in people.out


def test_without_content_nothing_is_proved_about_it(
    verify: Callable[[bytes], Outcome], original: bytes
) -> None:
    document = json.loads(original)
    for name in ("request", "response", "salt"):
        del document[name]
    found = verify(json.dumps(document).encode())
    assert found.code == REJECTED
    assert found.failed_checks() == {"bundle.request_commitment", "bundle.response_commitment"}


# ---- any byte changed


@pytest.mark.parametrize(
    "part", ["receipt", "receipt_signature", "salt", "request", "response", "evidence", "chain"]
)
def test_a_flipped_byte_in_any_part_is_rejected(
    verify: Callable[[bytes], Outcome], original: bytes, part: str
) -> None:
    parts = {keys: data for keys, data in proof_parts(original).items() if keys[0] == part}
    assert parts
    for keys, data in parts.items():
        for position in positions(len(data)):
            damaged = bytearray(data)
            damaged[position] ^= 1 << (position % 8)
            found = verify(changed(original, keys, base64.b64encode(damaged).decode()))
            assert found.code == REJECTED, (keys, position, found.out)
            assert found.json["verdict"] == "rejected"
            assert found.failed_checks()


def test_another_registry_or_network_is_not_known(
    verify: Callable[[bytes], Outcome], original: bytes
) -> None:
    registry = json.loads(original)["network"]["registry"]
    other = registry[:-1] + ("1" if registry[-1] == "0" else "0")
    assert verify(changed(original, ("network", "registry"), other)).code == UNDECIDED
    assert verify(changed(original, ("network", "global_id"), -218)).code == UNDECIDED


def test_every_bit_of_the_signature_counts(verify: Callable[[bytes], Outcome], original: bytes) -> None:
    signature = proof_parts(original)[("receipt_signature",)]
    for bit in range(0, 8 * len(signature), 7):
        damaged = bytearray(signature)
        damaged[bit // 8] ^= 1 << (bit % 8)
        found = verify(changed(original, ("receipt_signature",), base64.b64encode(damaged).decode()))
        assert found.code == REJECTED
        assert found.failed_checks() == {"bundle.receipt_signature"}


def test_longer_and_shorter_parts_are_rejected(verify: Callable[[bytes], Outcome], original: bytes) -> None:
    for keys, data in proof_parts(original).items():
        for other in (data + b"\0", data[:-1], b""):
            found = verify(changed(original, keys, base64.b64encode(other).decode()))
            assert found.code == REJECTED, (keys, len(other), found.out)


def test_text_of_every_part_is_canonical_base64(
    verify: Callable[[bytes], Outcome], original: bytes
) -> None:
    for keys, data in proof_parts(original).items():
        text = base64.b64encode(data).decode()
        middle = len(text) // 2
        other = "A" if text[middle] != "A" else "B"
        for damaged in (
            text[:middle] + other + text[middle + 1 :],
            text[:middle] + "!" + text[middle + 1 :],
            text[:middle] + "\n" + text[middle:],
            text + "=",
            text + "\u00e9",
            text.rstrip("=") + "====",
        ):
            found = verify(changed(original, keys, damaged))
            assert found.code == REJECTED, (keys, damaged[:40], found.out)


def test_numbers_and_lists_of_the_proofs_count(verify: Callable[[bytes], Outcome], original: bytes) -> None:
    document = json.loads(original)
    assert document["inclusion"]["hashes"] == []  # the demo has one receipt
    noise = base64.b64encode(b"\x07" * 32).decode()
    links = document["chain"]["links"]
    cases: list[tuple[Keys, object]] = [
        (("inclusion", "leaf_index"), 1),
        (("inclusion", "tree_size"), 2),
        (("inclusion", "tree_size"), 0),
        (("inclusion", "hashes"), [noise]),
        (("chain", "format"), "cocoon.chain.v2"),
        (("chain", "links"), []),
        (("chain", "links"), [*links, *links]),
        (("chain", "links", 0, "to", "seqno"), links[0]["to"]["seqno"] + 1),
        (("chain", "links", 0, "signatures", "signatures"), []),
        (("chain", "accounts"), document["chain"]["accounts"][::-1]),
        (("chain", "accounts"), document["chain"]["accounts"][:1]),
        (("chain", "accounts"), document["chain"]["accounts"][1:]),
        (("chain", "accounts"), []),
        (("chain", "more"), 1),
    ]
    for keys, value in cases:
        found = verify(changed(original, keys, value))
        assert found.code == REJECTED, (keys, found.out)


def test_a_wrong_checkpoint_is_rejected(verify: Callable[[bytes], Outcome], original: bytes) -> None:
    parts = proof_parts(original)
    for boc in (b"", b"\x07" * 40, parts[("receipt",)]):
        document = json.loads(original)
        document["checkpoint"] = {
            "checkpoint": base64.b64encode(boc).decode(),
            "signature": document["receipt_signature"],
        }
        found = verify(json.dumps(document).encode())
        assert found.code == REJECTED
        assert "bundle.checkpoint" in found.failed_checks()


def test_parts_of_another_answer_do_not_fit(verify: Callable[[bytes], Outcome], original: bytes) -> None:
    document = json.loads(original)
    document["request"], document["response"] = document["response"], document["request"]
    found = verify(json.dumps(document).encode())
    assert found.code == REJECTED
    assert found.failed_checks() == {"bundle.request_commitment", "bundle.response_commitment"}


@settings(
    max_examples=250,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_any_change_of_any_part_is_rejected(
    verify: Callable[[bytes], Outcome], original: bytes, data: st.DataObject
) -> None:
    parts = proof_parts(original)
    keys = data.draw(st.sampled_from(sorted(parts, key=str)))
    position = data.draw(st.integers(0, len(parts[keys]) - 1))
    mask = data.draw(st.integers(1, 255))
    damaged = bytearray(parts[keys])
    damaged[position] ^= mask
    assert verify(changed(original, keys, base64.b64encode(damaged).decode())).code == REJECTED


@settings(
    max_examples=250,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_any_changed_character_of_the_file_is_noticed(
    verify: Callable[[bytes], Outcome], original: bytes, data: st.DataObject
) -> None:
    position = data.draw(st.integers(0, len(original) - 1))
    damaged = bytearray(original)
    damaged[position] ^= data.draw(st.integers(1, 127))
    found = verify(bytes(damaged))
    if found.code == ACCEPTED:  # white space between the members, or the network's name for people
        before, after = json.loads(original), json.loads(bytes(damaged))
        before["network"]["name"] = after["network"]["name"] = ""
        assert after == before
    else:
        assert found.code in (REJECTED, MALFORMED, UNDECIDED)
        assert found.json["ok"] is False


def test_a_changed_inclusion_proof_is_rejected(
    net: Running, served: Served, cocoon: InProcess, tmp_path: Path
) -> None:
    """The demo's log has one leaf; here the path to the root has several hashes."""
    answers = [served.ask(f"Say {word}.") for word in ("one", "two", "three")]
    file = tmp_path / "bundle.json"
    good = net.export(answers[1], file)
    document = json.loads(good)
    hashes = document["inclusion"]["hashes"]
    assert len(hashes) >= 2

    def code(data: bytes) -> int:
        file.write_bytes(data)
        return cocoon("verify", "bundle", file, "--network", net.network_file, "--offline", "--json").code

    assert code(good) == ACCEPTED
    for number, text in enumerate(hashes):
        data = base64.b64decode(text)
        for position in range(len(data)):
            damaged = bytearray(data)
            damaged[position] ^= 1 << (position % 8)
            keys = ("inclusion", "hashes", number)
            assert code(changed(good, keys, base64.b64encode(damaged).decode())) == REJECTED
    for other in (hashes[::-1], hashes[1:], hashes[:-1], [], [*hashes, hashes[0]]):
        assert code(changed(good, ("inclusion", "hashes"), other)) == REJECTED
    index, size = document["inclusion"]["leaf_index"], document["inclusion"]["tree_size"]
    for other in (index - 1, index + 1, index ^ 2, size):
        assert code(changed(good, ("inclusion", "leaf_index"), other)) == REJECTED
    for other in (size - 1, size + 1, 2 * size):
        assert code(changed(good, ("inclusion", "tree_size"), other)) == REJECTED
