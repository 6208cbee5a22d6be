"""Sessions whose nodes staple too little, too old or rolled-back endorsements: the client gets its own, or refuses."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import hashlib
import json
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.x509 import ocsp

from cocoon.v1 import evidence_pb2
from cocoon_attestation.errors import EvidenceRejectedError, UnavailableError
from cocoon_attestation.payment import PriceList
from cocoon_enclave.attestation.simulated import EVALUATION_NUMBER, DevPlatform
from cocoon_enclave.attestation.simulated_gpu import DRIVER_VERSION
from cocoon_enclave.attestation.simulated_gpu_pki import make_ocsp_response
from cocoon_enclave.attestation.simulated_node import simulated_snp_release
from cocoon_enclave.attestation.simulated_vendors import DevVendors
from cocoon_enclave.gpu_config import gpu_config
from cocoon_proxy import events as e
from cocoon_proxy.config import EndorsementConfig
from cocoon_proxy.errors import EndorsementUnavailableError

sys.path[:0] = [str(Path(__file__).parents[2] / "enclave"), str(Path(__file__).parents[1])]
if TYPE_CHECKING:
    from tests.enclave.enclave_testkit import config, start_node, tiny_model
    from tests.proxy.real_enclave import Live, running
else:
    from enclave_testkit import config, start_node, tiny_model
    from real_enclave import running

__all__ = ["config", "start_node", "tiny_model"]  # fixtures

CHAT = "/v1/chat/completions"
DAY = 86_400
Start = Callable[..., AbstractAsyncContextManager["Scene"]]
Edit = Callable[[Any], object]


@pytest.fixture(scope="module")
def platform_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated platform that knows all vendors, some days old."""
    directory = tmp_path_factory.mktemp("vendors") / "p"
    now = int(time.time()) - 20 * DAY
    vendors = DevVendors.create(now, secrets.token_bytes)
    DevPlatform.create(now, secrets.token_bytes, vendors).save(directory)
    return directory


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COCOON_CACHE", str(tmp_path / "cache"))


@dataclasses.dataclass
class Edited:
    """An attester, or the GPUs of a machine, whose evidence a host changes on its way."""

    inner: Any
    edit: Edit

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def attest(self, report_data: bytes) -> Any:
        message = self.inner.attest(report_data)
        self.edit(message)
        return message

    def evidence(self, nonce: bytes, *, complete: bool = True) -> Any:
        devices = self.inner.evidence(nonce, complete=complete)
        for device in devices:
            self.edit(device)
        return devices


def serve_intel(server: Any, reply: Any, made: evidence_pb2.TdxCollateral) -> None:
    """Routes of a PCCS."""

    def on(path: str, body: bytes, header: str, chain: str) -> None:
        server.on(path, reply(body=body, headers={header: quote(chain, safe="")}))

    def envelope(member: str, text: str, signature: bytes) -> bytes:
        return f'{{"{member}":{text},"signature":"{signature.hex()}"}}'.encode()

    base, crl = "/tdx/certification/v4", "/sgx/certification/v4"
    tcb = envelope("tcbInfo", made.tcb_info, made.tcb_info_signature)
    qe = envelope("enclaveIdentity", made.qe_identity, made.qe_identity_signature)
    on(f"{base}/tcb", tcb, "TCB-Info-Issuer-Chain", made.tcb_info_issuer_chain)
    on(f"{base}/qe/identity", qe, "SGX-Enclave-Identity-Issuer-Chain", made.qe_identity_issuer_chain)
    on(f"{crl}/pckcrl", made.pck_crl, "SGX-PCK-CRL-Issuer-Chain", made.pck_crl_issuer_chain)
    server.on(f"{crl}/rootcacrl", reply(body=made.root_ca_crl.hex().encode()))


class Scene:
    """A node, vendors' services on this machine, and clients with one home."""

    def __init__(self, live: Live, server: Any, reply: Any, platform: DevPlatform, harness: Any) -> None:
        self.live, self.server, self.reply, self.platform = live, server, reply, platform
        self.harness = harness
        assert platform.vendors is not None
        self.vendors = platform.vendors
        self.maker = live.node.enclave._evidence
        self.machine = self.maker._machine

    def staple(self, edit: Edit) -> None:
        """What the host makes of the CPU's endorsements from now on."""
        attester = Edited(self.machine.attester, edit)
        self.maker._machine = dataclasses.replace(self.maker._machine, attester=attester)

    def staple_devices(self, edit: Edit) -> None:
        """The same for every GPU."""
        self.maker._machine = dataclasses.replace(self.maker._machine, gpus=Edited(self.machine.gpus, edit))

    def collateral(self, age_s: int = 0, **changes: Any) -> evidence_pb2.TdxCollateral:
        return self.platform.collateral(int(time.time()) - age_s, **changes)

    def staple_collateral(self, age_s: int = 0, **changes: Any) -> None:
        made = self.collateral(age_s, **changes)
        self.staple(lambda message: message.collateral.CopyFrom(made))

    def serve_intel(self, age_s: int = 0, **changes: Any) -> None:
        """PCCS with collateral of that age."""
        serve_intel(self.server, self.reply, self.collateral(age_s, **changes))

    def serve_amd(self) -> None:
        """KDS for this machine's chip."""
        amd = self.vendors.amd(int(time.time()), secrets.token_bytes)
        chip = self.vendors.chip
        self.server.on(f"/vcek/v1/Genoa/{chip.chip_id.hex()}", self.reply(body=chip.certificate))
        self.server.on("/vcek/v1/Genoa/cert_chain", self.reply(body=amd.chain_pem.encode()))
        self.server.on("/vcek/v1/Genoa/crl", self.reply(body=amd.crl()))

    def serve_nvidia(self, status: ocsp.OCSPCertStatus = ocsp.OCSPCertStatus.GOOD) -> None:
        """Manifest service and responder for this machine's devices."""
        vendor = self.vendors.nvidia(int(time.time()))
        devices = self.machine.gpus._endorser._devices.values()
        for name, rim in zip(
            (f"NV_GPU_DRIVER_GH100_{DRIVER_VERSION}", "NV_GPU_VBIOS_G520_0200_885_9600A50001"),
            vendor.gpu_rims,
            strict=True,
        ):
            document = {
                "id": name,
                "rim": base64.b64encode(rim).decode(),
                "sha256": hashlib.sha256(rim).hexdigest(),
            }
            self.server.on(f"/v1/rim/{name}", self.reply(body=json.dumps(document).encode()))
        known = {
            child.certificate.serial_number: (child.certificate, issuer)
            for chain in (vendor.rim_chain, *(device.chain for device in devices))
            for child, issuer in pairwise(chain)
        }

        def answer(request: Any) -> Any:
            asked = ocsp.load_der_ocsp_request(request.body)
            certificate, issuer = known[asked.serial_number]
            nonce = asked.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce
            body = make_ocsp_response(
                certificate,
                issuer,
                vendor.responder(issuer),
                nonce=nonce,
                at=dt.datetime.now(dt.UTC),
                status=status,
                reason=x509.ReasonFlags.key_compromise,
            )
            return self.reply(body=body)

        self.server.on("/ocsp/", answer)

    def client(self, mode: str = "fetch", *, asked: bool = True) -> Any:
        """A client; `asked`: its settings name the services on this machine."""
        url = self.server.url
        addresses = {"pccs": url, "amd_kds": url, "nvidia_rim": url, "nvidia_ocsp": f"{url}/ocsp"}
        settings = EndorsementConfig(mode=mode, **(addresses if asked else {}))
        quick = self.live.network.client().config
        return self.live.network.client(dataclasses.replace(quick, endorsements=settings))

    async def ask(self, mode: str = "fetch", *, asked: bool = True) -> Any:
        """One request of a new client; the claims of its session."""
        async with self.client(mode, asked=asked) as client:
            answer = await client.complete(CHAT, self.harness.body("hello", stream=False))
            assert answer.text == "hello"
            (link,) = client._pool.links
            return link.verified.claims

    async def refused(self, kind: type[Exception], mode: str = "fetch", *, asked: bool = True) -> Any:
        """One request that is refused before anything is sent; the error."""
        before = len(self.live.engine.started)
        async with self.client(mode, asked=asked) as client:
            with pytest.raises(kind) as caught:
                await client.complete(CHAT, self.harness.body("hello", stream=False))
        assert len(self.live.engine.started) == before
        return caught.value


@pytest.fixture
def start(harness: Any, tmp_path: Path, config: Any, start_node: Any, server: Any, reply: Any) -> Start:
    """Start a node on a machine: ``async with start("tdx", gpus=1) as scene``."""

    @asynccontextmanager
    async def begin(tee: str = "tdx", gpus: int = 0) -> AsyncIterator[Scene]:
        settings: dict[str, Any] = {"gpu": gpu_config(gpus) if gpus else None}
        if tee == "snp":
            settings["tee"] = "simulated-snp"
            settings["release"] = simulated_snp_release([m.digest for m in config.models], gpus=gpus)
        async with running(harness, tmp_path / "net", config, start_node, **settings) as live:
            yield Scene(live, server, reply, DevPlatform.load(config.platform), harness)

    return begin


# ---- Intel


async def test_stapled_collateral_is_preferred(start: Start) -> None:
    async with start() as scene:
        scene.serve_intel()
        claims = await scene.ask()
        assert "endorsements_sha256" not in claims
        assert scene.server.requests == []


async def test_missing_collateral_is_fetched_once(start: Start) -> None:
    async with start() as scene:
        scene.serve_intel()
        scene.staple(lambda message: message.ClearField("collateral"))
        claims = await scene.ask()
        assert len(bytes.fromhex(str(claims["endorsements_sha256"]))) == 32
        assert len(scene.server.requests) == 4
        again = await scene.ask()  # another client, the same store
        assert again["endorsements_sha256"] == claims["endorsements_sha256"]
        assert len(scene.server.requests) == 4
        await scene.ask("offline")
        assert len(scene.server.requests) == 4
        await scene.refused(EvidenceRejectedError, "stapled")


async def test_old_collateral_is_replaced_or_the_session_refused(start: Start) -> None:
    """In date and within the policy's week, but a node must not choose among the statements of a month."""
    async with start() as scene:
        scene.staple_collateral(age_s=2 * DAY)
        error = await scene.refused(EndorsementUnavailableError)
        assert error.exit_code == 40
        await scene.refused(EndorsementUnavailableError, "offline")
        scene.serve_intel()
        claims = await scene.ask()
        assert "endorsements_sha256" in claims
        claims = await scene.ask("offline")
        assert "endorsements_sha256" in claims


async def test_fetched_collateral_of_a_look_alike_is_not_used(start: Start) -> None:
    async with start() as scene:
        scene.staple(lambda message: message.ClearField("collateral"))
        other = DevPlatform.create(int(time.time()) - DAY, secrets.token_bytes)
        honest, scene.platform = scene.platform, other
        scene.serve_intel()
        await scene.refused(EndorsementUnavailableError)
        scene.platform = honest


async def test_nobody_is_asked_about_simulated_hardware_unless_settings_say_whom(start: Start) -> None:
    async with start() as scene:
        scene.staple(lambda message: message.ClearField("collateral"))
        error = await scene.refused(EvidenceRejectedError, asked=False)
        assert error.details["failed"] == ["tdx.collateral"]
        assert scene.server.requests == []


async def test_evidence_that_no_endorsement_can_help_asks_nobody(start: Start) -> None:
    async with start("snp") as scene:
        scene.serve_amd()

        def spoil(message: Any) -> None:
            message.report = message.report[:0x90] + bytes(48) + message.report[0xC0:]
            message.crl = b""

        scene.staple(spoil)
        error = await scene.refused(EvidenceRejectedError)
        assert "snp.measurement" in error.details["failed"]
        assert scene.server.requests == []


# ---- rollback (A5)


async def test_collateral_from_before_a_recovery_is_refused_once_a_newer_one_was_seen(start: Start) -> None:
    """Both are signed, in date, fresh and not below the registry's minimum."""
    async with start() as scene:
        scene.staple_collateral(evaluation=EVALUATION_NUMBER)
        await scene.ask("stapled")
        scene.staple_collateral(evaluation=EVALUATION_NUMBER + 1)
        await scene.ask("stapled")
        scene.staple_collateral(evaluation=EVALUATION_NUMBER)
        error = await scene.refused(EvidenceRejectedError, "stapled")  # a new client: it is on disk
        assert error.details["failed"] == ["endorsements.rollback"]
        assert any("/tcb/c0c000000000" in subject for subject in error.details["older"])
        failed = [c for c in error.checks if c.id == "endorsements.rollback"]
        assert [c.verdict.value for c in failed] == ["fail"]
        # Other rules of this client may fetch: then the node's choice does not matter.
        scene.serve_intel(evaluation=EVALUATION_NUMBER + 1)
        assert "endorsements_sha256" in await scene.ask()


async def test_a_service_that_rolls_back_is_refused(start: Start, tmp_path: Path) -> None:
    async with start() as scene:
        scene.staple_collateral(evaluation=EVALUATION_NUMBER + 1)
        await scene.ask("stapled")
        scene.staple(lambda message: message.ClearField("collateral"))
        scene.serve_intel(evaluation=EVALUATION_NUMBER)
        error = await scene.refused(EvidenceRejectedError)
        assert error.details["failed"] == ["endorsements.rollback"]


async def test_old_revocation_list_with_current_statements(start: Start) -> None:
    """The list from before the platform was revoked is in date for a month."""
    async with start() as scene:
        await scene.ask("stapled")
        old, new = scene.collateral(age_s=10 * DAY), scene.collateral()
        new.pck_crl = old.pck_crl
        scene.staple(lambda message: message.collateral.CopyFrom(new))
        error = await scene.refused(EvidenceRejectedError, "stapled")
        assert error.details["failed"] == ["endorsements.rollback"]
        assert "/crl/" in error.details["older"][0]
        scene.serve_intel()
        assert "endorsements_sha256" in await scene.ask()


async def test_what_was_refused_is_not_remembered(start: Start) -> None:
    async with start() as scene:
        scene.staple_collateral(evaluation=EVALUATION_NUMBER + 5, status="OutOfDate")
        await scene.refused(EvidenceRejectedError, "stapled")
        scene.staple_collateral()
        await scene.ask("stapled")


async def test_an_older_revocation_list_of_amd(start: Start) -> None:
    async with start("snp") as scene:
        await scene.ask("stapled")
        amd = scene.vendors.amd(int(time.time()), secrets.token_bytes)
        old = amd.crl(now=int(time.time()) - 9 * DAY)
        scene.staple(lambda message: setattr(message, "crl", old))
        error = await scene.refused(EvidenceRejectedError, "stapled")
        assert error.details["failed"] == ["endorsements.rollback"]
        scene.serve_amd()
        assert "endorsements_sha256" in await scene.ask()


# ---- AMD and NVIDIA


async def test_missing_certificate_and_list_of_amd_are_fetched(start: Start) -> None:
    async with start("snp") as scene:

        def strip(message: Any) -> None:
            message.certificate, message.issuer_chain, message.crl = b"", "", b""

        scene.staple(strip)
        await scene.refused(EvidenceRejectedError, asked=False)
        await scene.refused(EvidenceRejectedError, "stapled")
        await scene.refused(EndorsementUnavailableError)
        scene.serve_amd()
        async with scene.client() as client:  # the failure above was another client's: no pause
            await client.complete(CHAT, scene.harness.body("hello"))
            (link,) = client._pool.links
            assert "endorsements_sha256" in link.verified.claims
        assert len(scene.server.paths()) >= 3


async def test_missing_manifests_and_answers_of_nvidia_are_fetched(start: Start) -> None:
    async with start("tdx", 2) as scene:
        scene.serve_nvidia()
        assert "endorsements_sha256" not in await scene.ask()
        assert scene.server.requests == []

        def strip(device: Any) -> None:
            del device.rims[:]
            del device.ocsp_responses[:]

        scene.staple_devices(strip)
        error = await scene.refused(EvidenceRejectedError, "stapled")
        assert {"gpu.ocsp", "gpu.rim_match"} <= set(error.details["failed"])
        claims = await scene.ask()
        assert claims["gpu_count"] == 2
        assert "endorsements_sha256" in claims
        assert "/ocsp/" in scene.server.paths()


async def test_a_responder_that_is_down_for_the_node_only(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client gets the answers itself; evidence that the node keeps or publishes must be whole."""
    async with start("tdx", 1) as scene:
        scene.serve_nvidia()

        def down(devices: Any, nonce: bytes) -> Any:
            raise UnavailableError("the responder is down")

        monkeypatch.setattr(scene.machine.gpus._endorser, "endorse", down)
        assert "endorsements_sha256" in await scene.ask()
        with pytest.raises(UnavailableError, match="down"):
            await scene.maker.make(beacon=(1, bytes(32)))
        keyset = scene.live.node.enclave.service.keyring.current
        with pytest.raises(UnavailableError, match="down"):
            await scene.maker.make(challenge=b"\x01" * 32, keyset=keyset)


async def test_a_revoked_gpu_is_refused_whoever_asks(start: Start) -> None:
    async with start("tdx", 1) as scene:
        scene.staple_devices(lambda device: device.ClearField("ocsp_responses"))
        scene.serve_nvidia(ocsp.OCSPCertStatus.REVOKED)
        error = await scene.refused(EvidenceRejectedError)
        assert "gpu.ocsp" in error.details["failed"]
        checked = scene.live.network.of(e.EvidenceChecked)
        assert not any(event.accepted for event in checked)


# ---- several nodes


class Nodes:
    """A network of fake enclaves on one platform family, with settings that name a PCCS on this machine."""

    def __init__(self, harness: Any, platform: DevPlatform, home: Path, server: Any) -> None:
        self.network, self.server = harness.Network(platform, home), server
        self.harness = harness

    async def add(self, *, stapled: bool, **listing: Any) -> Any:
        enclave = await self.network.add_enclave(**listing)
        if not stapled:
            honest = enclave.make_evidence

            def stripped(challenge: bytes) -> bytes:
                message = evidence_pb2.Evidence.FromString(honest(challenge))
                message.tdx.ClearField("collateral")
                return message.SerializeToString(deterministic=True)

            enclave.make_evidence = stripped
        return enclave

    def client(self) -> Any:
        settings = EndorsementConfig(pccs=self.server.url)
        quick = self.network.client().config
        return self.network.client(dataclasses.replace(quick, endorsements=settings))

    async def stop(self) -> None:
        for enclave in self.network.enclaves:
            await enclave.stop()


@pytest.fixture
async def nodes(harness: Any, platform_dir: Path, tmp_path: Path, server: Any) -> AsyncIterator[Nodes]:
    found = Nodes(harness, DevPlatform.load(platform_dir), tmp_path / "home", server)
    yield found
    await found.stop()


async def test_another_node_is_used_while_endorsements_cannot_be_had(nodes: Nodes) -> None:
    cheap = PriceList(prompt=1, cached=1, completion=1)
    lazy = await nodes.add(stapled=False, prices=cheap)
    good = await nodes.add(stapled=True)
    async with nodes.client() as client:
        answer = await client.complete(CHAT, nodes.harness.body("hello", stream=False))
        assert answer.status == 200
    (moved,) = nodes.network.of(e.FailedOver)
    assert (moved.node, moved.code) == (lazy.node.hex(), "endorsement_unavailable")
    assert lazy.sealed_seen == []
    assert len(good.sealed_seen) == 1


async def test_sessions_that_begin_together_ask_once(nodes: Nodes, reply: Any) -> None:
    for _ in range(4):
        await nodes.add(stapled=False)
    serve_intel(nodes.server, reply, nodes.network.platform.collateral(int(time.time())))
    async with nodes.client() as client:
        (model,) = await client.models()
        assert len(model.nodes) == 4
    assert len(nodes.server.requests) == 4  # four statements, not sixteen
