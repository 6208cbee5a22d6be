"""`cocoon verify bundle --offline` on what is no bundle, and on bundles of networks that nobody knows."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.network.netkit import DemoRun, InProcess, Outcome

pytestmark = [pytest.mark.network, pytest.mark.model]

ACCEPTED, REJECTED, MALFORMED, UNDECIDED = 0, 10, 30, 40


def changed(original: bytes, keys: tuple[str, ...], value: object) -> bytes:
    document: Any = json.loads(original)
    place = document
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    return json.dumps(document).encode()


def _without(original: bytes, name: str) -> bytes:
    document = json.loads(original)
    del document[name]
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b"",
        lambda b: b"\x00\xff" * 50,
        lambda b: b"{}",
        lambda b: b"[]",
        lambda b: b'"text"',
        lambda b: b"null",
        lambda b: b"[" * 100_000,
        lambda b: b[: len(b) // 2],
        lambda b: b[:-3],
        lambda b: b + b"x",
        lambda b: b.replace(b"bundle.v1+json", b"bundle.v2+json"),
        lambda b: b.replace(b'"media_type"', b'"mediatype"'),
        lambda b: b.replace(b'"receipt":', b'"receipt": 5, "receipt":'),
        lambda b: _without(b, "receipt"),
        lambda b: _without(b, "chain"),
        lambda b: _without(b, "salt"),
        lambda b: changed(b, ("more",), 1),
        lambda b: changed(b, ("receipt",), 5),
        lambda b: changed(b, ("chain",), "text"),
        lambda b: changed(b, ("inclusion", "leaf_index"), 1.5),
        lambda b: changed(b, ("inclusion", "leaf_index"), -1),
        lambda b: changed(b, ("inclusion", "tree_size"), 1 << 64),
        lambda b: changed(b, ("inclusion", "hashes"), {}),
        lambda b: changed(b, ("network", "name"), "\u202e"),
        lambda b: changed(b, ("evidence",), None),
    ],
)
def test_what_is_no_bundle_is_malformed(
    verify: Callable[[bytes], Outcome], original: bytes, damage: Callable[[bytes], bytes]
) -> None:
    found = verify(damage(original))
    assert found.code == MALFORMED, found.out
    assert found.json["error"]["code"] == "malformed"


def test_a_huge_file_is_malformed(verify: Callable[[bytes], Outcome], original: bytes) -> None:
    assert verify(original + b" " * (33 << 20)).code == MALFORMED


def test_a_network_that_this_machine_does_not_know_is_undecided(
    cocoon: InProcess, original: bytes, tmp_path: Path
) -> None:
    """The bundle brings its network's name and registry, and neither is believed."""
    file = tmp_path / "bundle.json"
    file.write_bytes(original)
    found = cocoon("verify", "bundle", file, "--offline", "--json")
    assert found.code == UNDECIDED
    assert found.json["error"]["code"] == "unavailable"
    assert "--network" in found.json["error"]["hint"]


def test_trust_anchors_of_another_network_reject_it(
    demo: DemoRun, cocoon: InProcess, original: bytes, tmp_path: Path
) -> None:
    file, anchors = tmp_path / "bundle.json", tmp_path / "network.json"
    file.write_bytes(original)
    network = json.loads((demo.home / "networks" / "demo.json").read_text())
    anchors.write_text(json.dumps(network))
    assert cocoon("verify", "bundle", file, "--network", anchors, "--json").code == ACCEPTED
    other = copy.deepcopy(network)
    other["global_config"]["validator"]["init_block"]["root_hash"] = base64.b64encode(b"\x07" * 32).decode()
    anchors.write_text(json.dumps(other))
    found = cocoon("verify", "bundle", file, "--network", anchors, "--json")
    assert found.code == REJECTED
    assert found.failed_checks() == {"chain.proof"}
    other = copy.deepcopy(network)
    other["dev_root"] = None
    anchors.write_text(json.dumps(other))
    assert cocoon("verify", "bundle", file, "--network", anchors, "--json").code == REJECTED
