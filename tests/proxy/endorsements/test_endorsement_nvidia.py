"""NVIDIA's manifests and revocation answers from services with the real shapes."""

from __future__ import annotations

import base64
import dataclasses
import datetime as dt
import hashlib
import json
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509 import ocsp

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.gpu.evidence import GpuDevice
from cocoon_attestation.gpu.report import parse_gpu_report
from cocoon_attestation.gpu.verify import verify_gpu
from cocoon_enclave.attestation.simulated_gpu import (
    DRIVER_VERSION,
    SimulatedDevice,
    SimulatedNvidia,
)
from cocoon_enclave.attestation.simulated_gpu_pki import chain_pem, make_ocsp_response, seeded_random
from cocoon_proxy.endorsements.cache import EndorsementCache
from cocoon_proxy.endorsements.fetch import Fetcher
from cocoon_proxy.endorsements.nvidia import (
    ManifestId,
    NvidiaEndorsements,
    manifest_ids,
    manifest_of,
    ocsp_request,
)
from cocoon_proxy.endorsements.sources import EndorsementSources
from cocoon_proxy.endorsements.store import EndorsementStore
from cocoon_proxy.errors import EndorsementUnavailableError

NOW = 1_800_000_000
AT = dt.datetime.fromtimestamp(NOW, dt.UTC)
NONCE = b"\x4e" * 32
DRIVER_ID = f"NV_GPU_DRIVER_GH100_{DRIVER_VERSION}"
VBIOS_ID = "NV_GPU_VBIOS_G520_0200_885_9600A50001"


@pytest.fixture(scope="module")
def vendor() -> SimulatedNvidia:
    return SimulatedNvidia(now=NOW - 3600, rng=seeded_random(b"rim service"))


class Service:
    """Routes of the manifest service and of the responder."""

    def __init__(self, server: Any, reply: Any, vendor: SimulatedNvidia, clock: Any) -> None:
        self.server, self.reply, self.vendor, self.clock = server, reply, vendor, clock
        self.status = ocsp.OCSPCertStatus.GOOD
        self.responder: Any = None
        for name, rim in zip((DRIVER_ID, VBIOS_ID), vendor.gpu_rims, strict=True):
            self.manifest(name, rim)
        server.on("/ocsp/", self.answer)
        self.issuers: dict[int, Any] = {}
        self.certificates: dict[int, x509.Certificate] = {}

    def manifest(self, name: str, rim: bytes, /, **changes: object) -> None:
        document: dict[str, object] = {
            "id": name,
            "rim": base64.b64encode(rim).decode(),
            "sha256": hashlib.sha256(rim).hexdigest(),
            "last_updated": "2026-04-08T09:05:11.595000",
            "rim_format": "TCG",
            "request_id": "54922519-b87e-4057-b323-33b9a2bb9743",
        }
        self.server.on(f"/v1/rim/{name}", self.reply(body=json.dumps(document | changes).encode()))

    def know(self, *chains: Any) -> None:
        """Let the responder speak about the certificates of these chains."""
        for chain in chains:
            for child, issuer in pairwise(chain):
                self.issuers[child.certificate.serial_number] = issuer
                self.certificates[child.certificate.serial_number] = child.certificate

    def answer(self, request: Any, *, nonce: bytes | None = None, **changes: Any) -> Any:
        assert request.headers["content-type"] == "application/ocsp-request"
        asked = ocsp.load_der_ocsp_request(request.body)
        assert isinstance(asked.hash_algorithm, hashes.SHA384)
        shown = asked.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce
        issuer = self.issuers[asked.serial_number]
        body = make_ocsp_response(
            self.certificates[asked.serial_number],
            issuer,
            self.responder or self.vendor.responder(issuer),
            nonce=nonce or shown,
            at=dt.datetime.fromtimestamp(self.clock(), dt.UTC),
            status=self.status,
            reason=x509.ReasonFlags.key_compromise,
            **changes,
        )
        return self.reply(body=body, headers={"Content-Type": "application/ocsp-response"})


@pytest.fixture
def service(server: Any, reply: Any, vendor: SimulatedNvidia, clock: Any) -> Service:
    return Service(server, reply, vendor, clock)


Make = Callable[..., NvidiaEndorsements]


@pytest.fixture
def make(fetcher: Fetcher, sources: EndorsementSources, clock: Any, vendor: SimulatedNvidia) -> Make:
    def build(store: EndorsementStore | None = None, **options: Any) -> NvidiaEndorsements:
        return NvidiaEndorsements(
            fetcher,
            EndorsementCache(store, clock=clock, **options),
            sources,
            random=seeded_random(b"nonces"),
            rim_roots=frozenset({vendor.rim_root.der}),
        )

    return build


def shown(device: SimulatedDevice, *, rims: tuple[bytes, ...] = ()) -> GpuDevice:
    pem = chain_pem(device.chain)
    return GpuDevice(kind=device.kind, report=device.report(NONCE), certificate_chain=pem, rims=rims)


@pytest.fixture
def gpu(service: Service, vendor: SimulatedNvidia) -> SimulatedDevice:
    device = vendor.gpu()
    service.know(device.chain, device.rim_chain)
    return device


async def failure(nvidia: NvidiaEndorsements, *devices: GpuDevice) -> EndorsementUnavailableError:
    with pytest.raises(EndorsementUnavailableError) as caught:
        await nvidia.endorse(devices, now=NOW)
    assert caught.value.exit_code == 40
    return caught.value


async def test_endorsed_device_is_accepted(
    service: Service, make: Make, vendor: SimulatedNvidia, gpu: SimulatedDevice
) -> None:
    found = await make().endorse([shown(gpu)], now=NOW)
    rules = dataclasses.replace(vendor.policy(gpu_count=1), ocsp_nonce=found.ocsp_nonce)
    claims, checks = verify_gpu(found.devices, rules, NONCE, AT)
    assert checks.accepted
    assert len(claims.gpus) == 1
    assert found.ocsp_nonce != NONCE
    assert set(service.server.paths()) == {f"/v1/rim/{DRIVER_ID}", f"/v1/rim/{VBIOS_ID}", "/ocsp/"}
    assert (
        service.server.paths().count("/ocsp/") == 6
    )  # device, provisioner, family; three manifest signers


async def test_whole_board_is_accepted(
    service: Service, make: Make, vendor: SimulatedNvidia, server: Any
) -> None:
    board = vendor.board()
    service.know(*(device.chain for device in board), vendor.rim_chain)
    # The simulated switches name no board, so their manifest must come with them.
    devices = [shown(one, rims=one.rims if one.kind.value == "switch" else ()) for one in board]
    found = await make().endorse(devices, now=NOW)
    rules = dataclasses.replace(vendor.policy(gpu_count=8), ocsp_nonce=found.ocsp_nonce)
    _, checks = verify_gpu(found.devices, rules, NONCE, AT)
    assert checks.accepted
    assert server.paths().count(f"/v1/rim/{DRIVER_ID}") == 1
    assert (
        server.paths().count("/ocsp/") == 12 + 3 + 3
    )  # 12 devices; two ICAs and a family; manifest signers


async def test_answers_are_kept_with_their_nonce(
    service: Service, make: Make, gpu: SimulatedDevice, clock: Any, tmp_path: Path
) -> None:
    nvidia, device = make(EndorsementStore(tmp_path)), shown(gpu)
    first = await nvidia.endorse([device], now=NOW)
    count = len(service.server.requests)
    assert await nvidia.endorse([device], now=NOW) == first
    assert await make(EndorsementStore(tmp_path), offline=True).endorse([device], now=NOW) == first
    assert len(service.server.requests) == count
    clock.now += 3600
    second = await nvidia.endorse([device], now=NOW + 3600)
    assert second.ocsp_nonce != first.ocsp_nonce
    assert len(service.server.requests) == count + 6


async def test_good_manifests_of_the_node_are_preferred(
    service: Service, make: Make, gpu: SimulatedDevice
) -> None:
    found = await make().endorse([shown(gpu, rims=tuple(reversed(gpu.rims)))], now=NOW)
    assert found.devices[0].rims == gpu.rims
    assert set(service.server.paths()) == {"/ocsp/"}


async def test_bad_manifests_of_the_node_are_replaced(
    service: Service, make: Make, gpu: SimulatedDevice, vendor: SimulatedNvidia
) -> None:
    other = SimulatedNvidia(now=NOW - 3600, rng=seeded_random(b"look-alike"))
    edited = gpu.rims[0].replace(b'active="True"', b'active="False"', 1)
    foreign = other.rim(DRIVER_VERSION, {6: (bytes(48),)})
    for bad in (b"nonsense", edited, foreign, vendor.rim("1.2.3", {6: (bytes(48),)})):
        found = await make().endorse([shown(gpu, rims=(bad, gpu.rims[1]))], now=NOW)
        assert found.devices[0].rims == gpu.rims
    assert f"/v1/rim/{VBIOS_ID}" not in service.server.paths()


async def test_stapled_answers_are_dropped(service: Service, make: Make, gpu: SimulatedDevice) -> None:
    device = dataclasses.replace(shown(gpu), ocsp_responses=(b"anything",))
    found = await make().endorse([device], now=NOW)
    assert b"anything" not in found.devices[0].ocsp_responses


async def test_revoked_is_an_answer(
    service: Service, make: Make, vendor: SimulatedNvidia, gpu: SimulatedDevice
) -> None:
    service.status = ocsp.OCSPCertStatus.REVOKED
    found = await make().endorse([shown(gpu)], now=NOW)
    rules = dataclasses.replace(vendor.policy(gpu_count=1), ocsp_nonce=found.ocsp_nonce)
    _, checks = verify_gpu(found.devices, rules, NONCE, AT)
    assert {check.id for check in checks.failed} == {"gpu.ocsp", "gpu.rim_ocsp"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"nonce": b"\x00" * 32}, "nonce"),
        ({"hours": -0.5}, "not current"),
    ],
)
async def test_answer_to_another_question_is_refused(
    service: Service, make: Make, gpu: SimulatedDevice, changes: dict[str, Any], reason: str
) -> None:
    service.server.on("/ocsp/", lambda request: service.answer(request, **changes))
    assert reason in str(await failure(make(), shown(gpu)))


async def test_responder_of_nobody_is_refused(service: Service, make: Make, gpu: SimulatedDevice) -> None:
    other = SimulatedNvidia(now=NOW - 3600, rng=seeded_random(b"look-alike"))
    service.responder = other.responder(other.device_root)
    service.status = ocsp.OCSPCertStatus.REVOKED  # nor can a stranger revoke anything
    assert "not certified by the issuer" in str(await failure(make(), shown(gpu)))


@pytest.mark.parametrize("body", [b"", b"<html>", b"\x30\x03\x0a\x01\x06", b"x" * 17_000])
async def test_answer_that_is_none(
    service: Service, make: Make, gpu: SimulatedDevice, reply: Any, body: bytes
) -> None:
    service.server.on("/ocsp/", reply(body=body))
    await failure(make(), shown(gpu))


@pytest.mark.parametrize("status", [404, 429, 500, 302])
@pytest.mark.parametrize("path", ["/ocsp/", f"/v1/rim/{DRIVER_ID}"])
async def test_service_that_fails(
    service: Service, make: Make, gpu: SimulatedDevice, reply: Any, path: str, status: int
) -> None:
    service.server.on(path, reply(status=status, headers={"Location": "https://example.org/"}))
    assert str(status) in str(await failure(make(), shown(gpu)))


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "another"},
        {"sha256": "00" * 32},
        {"rim": "***"},
        {"rim": ""},
        {"rim": None},
        {"rim": base64.b64encode(b"<x/>").decode()},
        {"rim": base64.b64encode(b"x" * 300_000).decode()},
    ],
)
async def test_manifest_answer_of_another_form(
    service: Service, make: Make, gpu: SimulatedDevice, changes: dict[str, object]
) -> None:
    service.manifest(DRIVER_ID, gpu.rims[0], **({"sha256": ""} | changes))
    await failure(make(), shown(gpu))


async def test_manifest_of_another_version_is_refused(
    service: Service, make: Make, gpu: SimulatedDevice
) -> None:
    service.manifest(DRIVER_ID, gpu.rims[1])
    assert "another version" in str(await failure(make(), shown(gpu)))


async def test_manifest_of_a_foreign_signer_is_refused(
    service: Service, make: Make, gpu: SimulatedDevice
) -> None:
    other = SimulatedNvidia(now=NOW - 3600, rng=seeded_random(b"look-alike"))
    service.manifest(DRIVER_ID, other.gpu_rims[0])
    assert "trusted root" in str(await failure(make(), shown(gpu)))


async def test_expired_manifest_signer_is_refused(
    service: Service, make: Make, gpu: SimulatedDevice, clock: Any
) -> None:
    clock.now += 800 * 86_400
    assert "manifest signer" in str(await failure(make(), shown(gpu)))


async def test_token_is_sent_to_the_manifest_service_only(
    service: Service,
    fetcher: Fetcher,
    sources: EndorsementSources,
    clock: Any,
    vendor: SimulatedNvidia,
    gpu: SimulatedDevice,
) -> None:
    with_token = dataclasses.replace(sources, nvidia_token="api-key")
    nvidia = NvidiaEndorsements(
        fetcher,
        EndorsementCache(None, clock=clock),
        with_token,
        random=seeded_random(b"n"),
        rim_roots=frozenset({vendor.rim_root.der}),
    )
    await nvidia.endorse([shown(gpu)], now=NOW)
    for request in service.server.requests:
        expected = "Bearer api-key" if request.path.startswith("/v1/rim/") else None
        assert request.headers.get("authorization") == expected


def test_names_of_manifests(vendor: SimulatedNvidia) -> None:
    report = parse_gpu_report(vendor.gpu().report(NONCE))
    assert manifest_ids(report, "GH100") == (
        ManifestId(id=DRIVER_ID, version=DRIVER_VERSION),
        ManifestId(id=VBIOS_ID, version="96.00.A5.00.01"),
    )
    blackwell = dataclasses.replace(report, opaque={**report.opaque, 35: b"GB100\x00"})
    assert manifest_ids(blackwell, "GB100")[0].id == f"NV_GPU_CC_DRIVER_GB100_{DRIVER_VERSION}"
    for record in (3, 6, 17):
        bare = dataclasses.replace(
            report, opaque={key: value for key, value in report.opaque.items() if key != record}
        )
        with pytest.raises(MalformedError):
            manifest_ids(bare, "GH100")


def test_request_asks_about_one_certificate_with_our_nonce(vendor: SimulatedNvidia) -> None:
    device, issuer = vendor.gpu().chain[1:3]
    asked = ocsp.load_der_ocsp_request(ocsp_request(device.certificate, issuer.certificate, NONCE))
    assert asked.serial_number == device.certificate.serial_number
    assert asked.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce == NONCE


def test_manifest_answer_without_extras_is_read() -> None:
    assert manifest_of(b'{"rim":"PHgvPg=="}', "any") == b"<x/>"


SAMPLES = Path(
    os.environ.get("COCOON_TEST_VECTORS") or Path(__file__).resolve().parents[4] / "shared" / "vectors"
)


@pytest.mark.skipif(
    not (SAMPLES / "INDEX.json").is_file(), reason="the real samples are not on this machine"
)
class TestRealManifests:
    """Genuine reports name the genuine manifests, and those are accepted in their time."""

    @pytest.mark.parametrize(
        ("report", "ids"),
        [
            ("h100_545", ["NV_GPU_DRIVER_GH100_545.00", "NV_GPU_VBIOS_1010_0200_882_96005E0001"]),
            ("h100_550", None),
            ("b200_575", None),
        ],
    )
    def test_names(self, report: str, ids: list[str] | None) -> None:
        parsed = parse_gpu_report((SAMPLES / "nvidia" / f"{report}.report.bin").read_bytes())
        chip = "GB100" if report.startswith("b200") else "GH100"
        found = [one.id for one in manifest_ids(parsed, chip)]
        if ids is not None:
            assert found == ids
        driver = "NV_GPU_CC_DRIVER_GB100_" if report.startswith("b200") else "NV_GPU_DRIVER_GH100_"
        assert found[0].startswith(driver)

    async def test_manifest_is_accepted_in_its_time(
        self, server: Any, reply: Any, fetcher: Fetcher, sources: EndorsementSources, clock: Any
    ) -> None:
        data = (SAMPLES / "nvidia" / "rim" / "driver_GH100_550.144.03.xml").read_bytes()
        name = "NV_GPU_DRIVER_GH100_550.144.03"
        body = json.dumps({"id": name, "rim": base64.b64encode(data).decode(), "rim_format": "TCG"})
        server.on(f"/v1/rim/{name}", reply(body=body.encode()))
        nvidia = NvidiaEndorsements(
            fetcher, EndorsementCache(None, clock=clock, retry_s=0), sources, random=os.urandom
        )
        wanted = ManifestId(id=name, version="550.144.03")
        clock.now = dt.datetime(2025, 6, 1, tzinfo=dt.UTC).timestamp()
        assert await nvidia.manifest(wanted) == data
        clock.now = dt.datetime(2035, 6, 1, tzinfo=dt.UTC).timestamp()
        with pytest.raises(EndorsementUnavailableError):
            await nvidia.manifest(wanted)
