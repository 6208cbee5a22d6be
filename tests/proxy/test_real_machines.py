"""The client against enclaves on other simulated machines: SEV-SNP, single GPUs, a board of eight GPUs."""

from __future__ import annotations

import dataclasses
import secrets
import sys
import time
import types
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pytoniq_core import Address

from cocoon.v1 import host_service_pb2
from cocoon_attestation.binding import parse_key_binding
from cocoon_attestation.errors import EvidenceRejectedError
from cocoon_attestation.evidence import parse_evidence
from cocoon_enclave.attestation.machine import make_machine
from cocoon_enclave.attestation.simulated import DevPlatform
from cocoon_enclave.attestation.simulated_node import simulated_snp_release
from cocoon_enclave.attestation.simulated_vendors import DevVendors
from cocoon_enclave.gpu_config import gpu_config
from cocoon_enclave.host.attest import Attestor
from cocoon_proxy import events as e

sys.path[:0] = [str(Path(__file__).parents[1] / "enclave"), str(Path(__file__).parent)]
if TYPE_CHECKING:
    from tests.enclave.enclave_testkit import config, start_node, tiny_model
    from tests.proxy.real_enclave import Live, running
else:
    from enclave_testkit import config, start_node, tiny_model
    from real_enclave import running

__all__ = ["config", "start_node", "tiny_model"]  # fixtures

CHAT = "/v1/chat/completions"
Start = Callable[..., AbstractAsyncContextManager["Live"]]


@pytest.fixture(scope="module")
def platform_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated platform that knows all vendors."""
    directory = tmp_path_factory.mktemp("vendors") / "p"
    now = int(time.time()) - 3600
    vendors = DevVendors.create(now, secrets.token_bytes)
    DevPlatform.create(now, secrets.token_bytes, vendors).save(directory)
    return directory


@pytest.fixture
def start(harness: Any, tmp_path: Path, config: Any, start_node: Any) -> Start:
    """Start an enclave on a machine: ``async with start("tdx", 8) as live``."""

    def begin(tee: str, gpus: int, **changes: Any) -> AbstractAsyncContextManager[Live]:
        settings: dict[str, Any] = {"gpu": gpu_config(gpus) if gpus else None, **changes}
        if tee == "snp":
            settings["tee"] = "simulated-snp"
            settings["release"] = simulated_snp_release([m.digest for m in config.models], gpus=gpus)
        return running(harness, tmp_path / "net", config, start_node, **settings)

    return begin


@pytest.mark.parametrize(("tee", "gpus", "devices"), [("snp", 0, 0), ("tdx", 8, 12), ("snp", 2, 2)])
async def test_a_conversation(start: Start, harness: Any, tee: str, gpus: int, devices: int) -> None:
    async with start(tee, gpus) as live, live.network.client() as client:
        answer = await client.complete(CHAT, harness.body("hello", stream=False))
        assert answer.text == "hello"
        assert answer.completed.amount > 0
        (checked,) = live.network.of(e.EvidenceChecked)
        assert checked.accepted
        assert checked.simulated
        ids = {check.id for check in checked.checks}
        assert ("snp.sig" in ids, "tdx.sig" in ids) == (tee == "snp", tee == "tdx")
        assert ("gpu.sig" in ids) == bool(gpus)
        row = client.ledger.evidence(client.ledger.receipts()[0].binding_hash, "session")
        assert row is not None
        assert len(parse_evidence(row.evidence).devices) == devices


@pytest.mark.parametrize(("tee", "gpus"), [("snp", 0), ("tdx", 1)])
async def test_the_next_enclave_goes_on_with_the_channels(
    start: Start, harness: Any, start_node: Any, tee: str, gpus: int
) -> None:
    """The evidence of the enclave before appraises on the same machine: no channel is frozen."""
    async with start(tee, gpus) as live, live.network.client() as client:
        await client.complete(CHAT, harness.body("hello", stream=False))
        used = live.node.config
    changes = {item.name: getattr(used, item.name) for item in dataclasses.fields(used)}
    async with start_node(**changes) as (node, _):
        assert node.enclave is not None
        channels = node.enclave.service.meter._channels.values()
        assert [channel.frozen for channel in channels] == [False]


async def test_gpus_of_another_machine(
    start: Start, harness: Any, platform_dir: Path, tmp_path: Path
) -> None:
    """A7 over the wire: genuine GPUs of the same vendor answer our nonce, but the guest measured others."""
    sibling = DevPlatform.load(platform_dir).sibling(int(time.time()) - 60, secrets.token_bytes)
    sibling.save(tmp_path / "sibling")
    async with start("tdx", 1) as live:
        other = make_machine(
            dataclasses.replace(live.node.config, platform=tmp_path / "sibling"), time.time
        )
        other.pass_gate()
        maker = live.node.enclave._evidence
        honest, maker._machine = maker._machine, dataclasses.replace(maker._machine, gpus=other.gpus)
        async with live.network.client() as client:
            with pytest.raises(EvidenceRejectedError, match=r"rtmr3\.gpu"):
                await client.complete(CHAT, harness.body("hello", stream=False))
            assert live.engine.started == []
            maker._machine = dataclasses.replace(honest, gpus=None)
            client._pool.health.clear()
            with pytest.raises(EvidenceRejectedError, match=r"rtmr3\.gpu"):
                await client.complete(CHAT, harness.body("hello", stream=False))
            maker._machine = honest
            client._pool.health.clear()
            assert (await client.complete(CHAT, harness.body("hello", stream=False))).text == "hello"


class Paid(Exception):  # noqa: N818  # ends an attestation where the host would pay
    """The host would send this message."""


class Purse:
    """A treasury that stops at the first payment."""

    async def pay(self, **payment: Any) -> None:
        raise Paid(payment["key"])


@pytest.mark.parametrize(("tee", "gpus", "fault"), [("snp", 0, "snp.crl"), ("tdx", 1, "gpu.ocsp")])
async def test_the_host_pays_only_for_evidence_that_clients_accept(
    start: Start, tee: str, gpus: int, fault: str
) -> None:
    """The host agent's own appraisal, before anything goes on chain."""
    async with start(tee, gpus) as live:
        chain: Any = live.network.chain

        async def masterchain_block(seqno: int) -> Any:
            return types.SimpleNamespace(seqno=seqno, root_hash=b"\x05" * 32)

        chain.masterchain_block = masterchain_block
        status = await live.node.host.GetStatus(host_service_pb2.GetStatusRequest())
        binding = parse_key_binding(status.key_binding)
        attestor = Attestor(
            live.network.config,
            chain=chain,
            treasury=Purse(),  # type: ignore[arg-type]  # all that is used of one
            enclave=live.node.host,
            node=Address((0, binding.node)),
            clock=time.time,
        )
        state: Any = types.SimpleNamespace(stake=10**12)
        with pytest.raises(Paid, match="attest"):
            await attestor.attest(binding, state)
        maker = live.node.enclave._evidence
        machine = maker._machine
        if tee == "snp":
            spoilt = dataclasses.replace(machine, attester=Without(machine.attester))
        else:
            spoilt = dataclasses.replace(machine, gpus=Without(machine.gpus))
        maker._machine = spoilt
        with pytest.raises(EvidenceRejectedError) as caught:
            await attestor.attest(binding, state)
        assert caught.value.checks is not None
        assert fault in {check.id for check in caught.value.checks.failed}


class Without:
    """An attester, or GPUs, whose revocation statements were lost."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def attest(self, report_data: bytes) -> Any:
        message = self.inner.attest(report_data)
        message.crl = b""
        return message

    def evidence(self, nonce: bytes, *, complete: bool = True) -> Any:
        devices = self.inner.evidence(nonce, complete=complete)
        for device in devices:
            del device.ocsp_responses[:]
        return devices
