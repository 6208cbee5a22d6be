"""The store's content is the host's word: what was changed, dropped or rolled back is found before serving."""

from __future__ import annotations

import dataclasses
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from enclave_testkit import Wallet  # type: ignore[import-not-found]

from cocoon.v1 import host_service_pb2
from cocoon_attestation.errors import ConfigError
from cocoon_attestation.payment import parse_claim
from cocoon_enclave.attestation.simulated import DevPlatform
from cocoon_enclave.config import EnclaveConfig
from cocoon_enclave.errors import StateRejectedError, StoreError
from cocoon_enclave.store import Store


@pytest.fixture
async def used(start_node: Any, config: EnclaveConfig) -> tuple[Path, Any, list[Any]]:
    """A state directory with five receipts, of which three are under a checkpoint."""
    wallet = Wallet()
    async with start_node() as (node, _), node.client(wallet) as client:
        receipts = [(await client.ask(f"text {number}")).receipt for number in range(2)]
        await node.host.GetCheckpoint(host_service_pb2.GetCheckpointRequest())
        receipts += [(await client.ask(f"text {number}")).receipt for number in range(2, 4)]
    return config.state, wallet, receipts


def _sql(state: Path, *statements: str) -> None:
    database = sqlite3.connect(state / "enclave.sqlite3")
    for statement in statements:
        assert database.execute(statement).rowcount != 0, statement
    database.commit()
    database.close()


async def _starts(start_node: Any) -> None:
    async with start_node():
        pass


async def test_an_untouched_state_is_continued(start_node: Any, used: Any) -> None:
    _, wallet, receipts = used
    async with start_node() as (node, _), node.client(wallet) as client:
        receipt = (await client.ask("ab")).receipt
        assert receipt.cumulative == receipts[-1].cumulative + 3 + 6
        assert receipt.index == 6


EDITS = {
    "receipt_changed": "UPDATE receipts SET receipt = (SELECT receipt FROM receipts WHERE position = 3) "
    "WHERE position = 4",
    "hash_changed": "UPDATE receipts SET hash = zeroblob(32) WHERE position = 1",
    "signature_changed": "UPDATE receipts SET signature = zeroblob(64) WHERE position = 4",
    "receipt_dropped": "DELETE FROM receipts WHERE position = 2",
    "anchored_receipts_dropped": "DELETE FROM receipts WHERE position >= 2",
    "claim_raised": "UPDATE channels SET used = x'000000000000000000000000000f4240'",
    "claim_signature": "UPDATE channels SET claim_signature = zeroblob(64)",
    "claims_dropped": "DELETE FROM channels",
    "binding_changed": "UPDATE keysets SET binding = x'00'",
    "keysets_dropped": "DELETE FROM keysets",
    "checkpoint_changed": "UPDATE checkpoints SET signature = zeroblob(64)",
    "checkpoint_moved": "UPDATE checkpoints SET tree_size = 2",
    "not_a_database": "DROP TABLE receipts",
    "other_types": "UPDATE meta SET value = x'01' WHERE key = 'node'",
    "anchored_ahead": "INSERT OR REPLACE INTO meta VALUES ('anchored', x'0000000000000009')",
}


@pytest.mark.parametrize("edit", EDITS)
async def test_edited_state_is_refused_before_serving(start_node: Any, used: Any, edit: str) -> None:
    _sql(used[0], EDITS[edit])
    with pytest.raises((StateRejectedError, ConfigError)):
        await _starts(start_node)


async def test_rolled_back_claim_is_found(start_node: Any, used: Any, tmp_path: Path) -> None:
    """An old row of `channels`, with its good signature, beside newer receipts."""
    state, wallet, _ = used
    copy = tmp_path / "copy"
    shutil.copytree(state, copy)
    async with start_node() as (node, _), node.client(wallet) as client:
        await client.ask("more")
    _sql(
        state,
        f"ATTACH '{copy / 'enclave.sqlite3'}' AS old",
        "DELETE FROM channels",
        "INSERT INTO channels SELECT * FROM old.channels",
    )
    with pytest.raises(StateRejectedError, match="older than its receipts"):
        await _starts(start_node)


async def test_a_whole_rollback_shows_against_the_chain(start_node: Any, used: Any, tmp_path: Path) -> None:
    state, wallet, _ = used
    copy = tmp_path / "copy"
    shutil.copytree(state, copy)
    async with start_node() as (node, _), node.client(wallet) as client:
        await client.ask("more")
        answer = await node.host.GetCheckpoint(host_service_pb2.GetCheckpointRequest())
    shutil.rmtree(state)
    shutil.copytree(copy, state)
    from cocoon_attestation.checkpoint import parse_checkpoint

    anchored = parse_checkpoint(answer.checkpoint.checkpoint)
    async with start_node() as (node, _):
        request = host_service_pb2.GetCheckpointRequest(
            anchored_size=anchored.tree_size, anchored_root=anchored.root
        )
        with pytest.raises(Exception, match="anchored receipts that this log does not have"):
            await node.host.GetCheckpoint(request)
        async with node.client(Wallet(salt=9), funded=False) as client:
            assert (await client.ask()).error == "state_rejected"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda config: {"release": _other_release(config)}, id="other_release"),
        pytest.param(lambda config: {"platform": _other_platform(config)}, id="other_root"),
    ],
)
async def test_claims_of_a_stranger_are_listed_but_not_continued(
    start_node: Any, used: Any, config: EnclaveConfig, change: Callable[[EnclaveConfig], dict[str, Any]]
) -> None:
    _, wallet, receipts = used
    async with start_node(**change(config)) as (node, _):
        claims = (await node.host.ListClaims(host_service_pb2.ListClaimsRequest())).claims
        assert parse_claim(claims[0].claim.claim).used == receipts[-1].cumulative
        assert claims[0].binding_hash == receipts[-1].binding_hash
        service = node.enclave.service
        with pytest.raises(Exception, match="history that this enclave cannot verify"):
            service.meter.authorize(wallet.payment(), now=0)


def _other_release(config: EnclaveConfig) -> Any:
    return dataclasses.replace(config.release, name="another")


def _other_platform(config: EnclaveConfig) -> Path:
    import secrets
    import time

    path = config.state.parent / "other-platform"
    DevPlatform.create(int(time.time()), secrets.token_bytes).save(path)
    return path


async def test_old_claims_are_signed_anew_when_their_key_is_too_old(start_node: Any, used: Any) -> None:
    """The node contract knows the current and the previous receipt key only."""
    _, _, receipts = used

    async def binding_of_claim(publish: bool) -> tuple[bytes, bytes]:
        async with start_node() as (node, _):
            if publish:
                request = host_service_pb2.PublishEvidenceRequest()
                request.beacon.seqno, request.beacon.root_hash = 17, b"\x05" * 32
                await node.host.PublishEvidence(request)
            (claim,) = (await node.host.ListClaims(host_service_pb2.ListClaimsRequest())).claims
            assert parse_claim(claim.claim.claim).used == receipts[-1].cumulative
            return claim.binding_hash, bytes.fromhex(node.ready.binding_hash)

    first = await binding_of_claim(publish=True)
    assert first[0] == first[1]  # the keyset that signed it was never published: signed anew
    second = await binding_of_claim(publish=True)
    assert second[0] == first[0]  # previous, published: kept as it was signed
    third = await binding_of_claim(publish=False)
    assert third[0] == third[1]


def test_a_directory_belongs_to_one_node(tmp_path: Path) -> None:
    Store(tmp_path / "s", node=b"\x01" * 32, global_id=-3).close()
    for node, global_id in ((b"\x02" * 32, -3), (b"\x01" * 32, -239)):
        with pytest.raises(ConfigError):
            Store(tmp_path / "s", node=node, global_id=global_id)


def test_two_enclaves_cannot_share_a_store(tmp_path: Path) -> None:
    first = Store(tmp_path / "s", node=b"\x01" * 32, global_id=-3)
    with pytest.raises(StoreError):
        Store(tmp_path / "s", node=b"\x01" * 32, global_id=-3)
    first.close()


async def test_a_full_disk_charges_nothing(start_node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with start_node() as (node, _), node.client() as client:
        before = node.enclave.service.meter.used(client.wallet.channel)

        def full(self: Store, entries: Any) -> None:
            raise StoreError("disk full")

        with monkeypatch.context() as patch:
            patch.setattr(Store, "append", full)
            assert (await client.ask("lost")).error == "store"
        service = node.enclave.service
        assert (service.meter.used(client.wallet.channel), service.meter.reserved) == (before, 0)
        receipt = (await client.ask("ab")).receipt
        assert (receipt.index, receipt.cumulative) == (1, before + 6)
