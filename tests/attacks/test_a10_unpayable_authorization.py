"""A10: a client gets answers on authorizations that are worth nothing by the time the host can settle."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "enclave"))

from enclave_testkit import (  # type: ignore[import-not-found]
    GLOBAL_ID,
    NODE,
    Wallet,
    config,
    platform_dir,
    start_node,
    tiny_model,
)

from cocoon.v1 import host_service_pb2
from cocoon_attestation.payment import parse_authorization, parse_claim
from cocoon_attestation.types import Digest32
from cocoon_enclave.metering import StoredChannel
from cocoon_enclave.store import Entry, Store, StoredReceipt

__all__ = ["config", "platform_dir", "start_node", "tiny_model"]


async def test_an_authorization_that_ends_before_the_host_can_settle_buys_nothing(start_node: Any) -> None:
    """The claim comes at the request's deadline at the latest, and settling takes time after that."""
    async with start_node() as (node, engine), node.client() as client:
        for left in (1, 100):
            payment = client.wallet.payment(valid_for=60 + left)
            reply = await client.ask("free lunch", payment=payment, deadline_s=60)
            assert reply.document["error"]["code"] == "authorization_refused"
        assert len(engine.started) == 1  # its own first request
        assert (await client.ask("paid", deadline_s=60)).status == 200


async def test_a_high_cap_that_expires_first_does_not_hide_the_authorization_that_pays(
    start_node: Any,
) -> None:
    async with start_node() as (node, _), node.client() as client:
        await client.ask("a", payment=client.wallet.payment(cap=10**9, valid_for=400), deadline_s=60)
        await client.ask("b", payment=client.wallet.payment(cap=10**8, valid_for=90_000), deadline_s=60)
        (kept,) = (await node.host.ListClaims(host_service_pb2.ListClaimsRequest())).claims
        authorization = parse_authorization(kept.authorization.authorization)
        assert authorization.cap == 10**8
        assert parse_claim(kept.claim.claim).used <= authorization.cap


def _entry(wallet: Any, index: int, *, used: int, cap: int, claim: bytes = b"claim") -> Entry:
    payment = wallet.payment(cap=cap)
    return Entry(
        receipt=StoredReceipt(
            index=index, hash=Digest32(bytes([index]) * 32), receipt=b"r", signature=b"s"
        ),
        channel=StoredChannel(
            channel=wallet.channel,
            initial_data=payment.channel.initial_data,
            authorization=payment.authorization.authorization,
            authorization_signature=payment.authorization.signature,
            used=used,
            claim=claim,
            claim_signature=b"c",
            binding_hash=b"b" * 32,
        ),
        cap=cap,
    )


@pytest.fixture
def store(tmp_path: Path) -> Any:
    opened = Store(tmp_path, node=NODE, global_id=GLOBAL_ID)
    yield opened
    opened.close()


def _cap(store: Store) -> int:
    (channel,) = store.channels()
    return parse_authorization(channel.authorization).cap


def test_an_authorization_below_the_use_never_replaces_one_that_covers_it(store: Store) -> None:
    """Requests end in another order than they were admitted in."""
    wallet = Wallet()
    store.append([_entry(wallet, 0, used=150, cap=200)])
    store.append([_entry(wallet, 1, used=160, cap=50)])
    assert _cap(store) == 200
    store.append([_entry(wallet, 2, used=170, cap=180)])
    assert _cap(store) == 180


def test_a_claim_signed_anew_never_replaces_a_higher_one(store: Store) -> None:
    """Keys rotate while an answer ends: the old use under the new key must not overwrite the new use."""
    wallet = Wallet()
    store.append([_entry(wallet, 0, used=5, cap=100)])
    read = store.channels()
    store.append([_entry(wallet, 1, used=10, cap=100, claim=b"higher")])
    store.replace_claims(read)
    (channel,) = store.channels()
    assert (channel.used, channel.claim) == (10, b"higher")
