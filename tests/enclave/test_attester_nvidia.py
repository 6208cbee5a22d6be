"""The GPU gate and GPU evidence over a made-up driver: what passes, and what each fault does."""

from __future__ import annotations

import ctypes
import dataclasses
import datetime as dt
import hashlib
import http.server
import threading
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509 import ocsp

from cocoon_attestation.appraisal import appraise
from cocoon_attestation.binding import KeyBinding, gpu_digest
from cocoon_attestation.errors import (
    ConfigError,
    EvidenceRejectedError,
    MalformedError,
    UnavailableError,
    UnsupportedError,
)
from cocoon_attestation.gpu.evidence import GpuDevice
from cocoon_attestation.gpu.policy import DeviceKind, GpuPolicy
from cocoon_attestation.gpu.report import FeatureFlag
from cocoon_attestation.gpu.verify import verify_gpu
from cocoon_attestation.gpu_summary import Joined, parse_gpu_summary
from cocoon_attestation.policy import Policy
from cocoon_enclave.attestation.attester import make_evidence, measure
from cocoon_enclave.attestation.gpu_endorsements import (
    FileManifests,
    HttpOcsp,
    LiveEndorser,
    ocsp_request,
)
from cocoon_enclave.attestation.nvidia import NvidiaGpus
from cocoon_enclave.attestation.nvml import DriverState, NvmlLibrary, RawDevice
from cocoon_enclave.attestation.simulated import DevPlatform, SimulatedAttester
from cocoon_enclave.attestation.simulated_gpu import (
    DRIVER_VERSION,
    VBIOS_VERSION,
    SimulatedDevice,
    SimulatedNvidia,
)
from cocoon_enclave.attestation.simulated_gpu_pki import chain_pem, make_ocsp_response, seeded_random

NOW = 1_800_000_000
AT = dt.datetime.fromtimestamp(NOW, dt.UTC)
BOOT, NONCE = b"\x0b" * 32, b"\x4e" * 32
GOOD = DriverState(capable=True, production=True, confidential=True, devtools=False, joined=Joined.ALONE)


class FakeDriver:
    """A driver with simulated devices. It writes down what happens."""

    def __init__(self, devices: Sequence[SimulatedDevice], state: DriverState = GOOD) -> None:
        self.devices = list(devices)
        self.now = state
        self.ready = True
        self.stuck = False
        self.nonce: bytes | None = None
        self.events: list[str] = []

    def state(self) -> DriverState:
        self.events.append("state")
        return self.now

    def read(self, kind: DeviceKind, nonce: bytes) -> list[RawDevice]:
        self.events.append(f"{kind} reports")
        return [
            RawDevice(report=one.report(self.nonce or nonce), certificate_chain=chain_pem(one.chain))
            for one in self.devices
            if one.kind is kind
        ]

    def gpus(self, nonce: bytes) -> list[RawDevice]:
        return self.read(DeviceKind.GPU, nonce)

    def switches(self, nonce: bytes) -> list[RawDevice]:
        return self.read(DeviceKind.SWITCH, nonce)

    def set_ready(self, ready: bool) -> None:
        self.events.append(f"ready {ready}")
        self.ready = ready and not self.stuck

    def is_ready(self) -> bool:
        return self.ready


class Responder:
    """Answers about every certificate of the simulated vendor."""

    def __init__(self, vendor: SimulatedNvidia, devices: Sequence[SimulatedDevice]) -> None:
        self.vendor = vendor
        self.status = ocsp.OCSPCertStatus.GOOD
        self.asked = 0
        self.known: dict[int, tuple[x509.Certificate, Any]] = {}
        for chain in [vendor.rim_chain, *(device.chain for device in devices)]:
            for child, issuer in pairwise(chain):
                self.known[child.certificate.serial_number] = (child.certificate, issuer)
                vendor.responder(issuer)  # made once, before threads ask

    def ask(self, request: bytes) -> bytes:
        self.asked += 1
        asked = ocsp.load_der_ocsp_request(request)
        certificate, issuer = self.known[asked.serial_number]
        return make_ocsp_response(
            certificate,
            issuer,
            self.vendor.responder(issuer),
            nonce=asked.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce,
            at=AT,
            status=self.status,
            reason=x509.ReasonFlags.key_compromise,
        )


class Node:
    """A node with simulated devices behind the real attester."""

    def __init__(
        self,
        vendor: SimulatedNvidia,
        devices: Sequence[SimulatedDevice],
        folder: Path,
        state: DriverState = GOOD,
        policy: GpuPolicy | None = None,
    ) -> None:
        self.vendor, self.driver = vendor, FakeDriver(devices, state)
        self.responder = Responder(vendor, devices)
        for number, rim in enumerate((*vendor.gpu_rims, *vendor.switch_rims)):
            (folder / f"{number}.xml").write_bytes(rim)
        count = sum(one.kind is DeviceKind.GPU for one in devices)
        self.rules = policy or vendor.policy(gpu_count=count)
        self.gpus = NvidiaGpus(
            self.driver,
            policy=self.rules,
            endorser=LiveEndorser(FileManifests(folder), self.responder),
            clock=lambda: NOW,
            switches=self.driver,
        )

    def verify(self, shown: Any, nonce: bytes = NONCE) -> bool:
        kinds = {1: DeviceKind.GPU, 2: DeviceKind.SWITCH}
        devices = [
            GpuDevice(
                kind=kinds[one.kind],
                report=one.report,
                certificate_chain=one.certificate_chain.encode(),
                rims=tuple(one.rims),
                ocsp_responses=tuple(one.ocsp_responses),
            )
            for one in shown
        ]
        _, checks = verify_gpu(devices, self.rules, nonce, AT)
        return checks.accepted


@pytest.fixture(scope="module")
def vendor() -> SimulatedNvidia:
    return SimulatedNvidia(now=NOW - 3600, rng=seeded_random(b"gpu attester"))


@pytest.fixture
def node(vendor: SimulatedNvidia, tmp_path: Path) -> Node:
    return Node(vendor, [vendor.gpu()], tmp_path)


def test_gate_and_evidence(node: Node) -> None:
    summary = parse_gpu_summary(node.gpus.summary(BOOT))
    assert (summary.confidential, summary.devtools, summary.joined) == (True, False, Joined.ALONE)
    assert [one.serial[-16:] for one in summary.devices] == [node.driver.devices[0].pdi.hex()]
    assert summary.gpus == 1
    shown = node.gpus.evidence(NONCE)
    assert node.verify(shown)
    assert not node.verify(shown, nonce=BOOT)


def test_gpus_take_work_only_after_the_check(node: Node) -> None:
    node.gpus.summary(BOOT)
    assert node.driver.events == ["ready False", "state", "gpu reports", "ready True"]


def test_board_of_eight_gpus(vendor: SimulatedNvidia, tmp_path: Path) -> None:
    state = dataclasses.replace(GOOD, confidential=False, joined=Joined.PROTECTED_PCIE)
    node = Node(vendor, vendor.board(), tmp_path, state)
    summary = parse_gpu_summary(node.gpus.summary(BOOT))
    assert (summary.gpus, len(summary.devices), summary.joined) == (8, 12, Joined.PROTECTED_PCIE)
    assert summary.confidential
    shown = node.gpus.evidence(NONCE)
    assert [one.kind for one in shown] == [1] * 8 + [2] * 4
    assert node.verify(shown)
    assert node.responder.asked == 2 * (
        12 + 3 + 3
    )  # each of 12 devices; two ICAs and a family; manifest signers


def test_whole_node_is_appraised(vendor: SimulatedNvidia, tmp_path: Path) -> None:
    """Driver, gate, runtime events and evidence together pass the verifier; another board does not."""
    state = dataclasses.replace(GOOD, joined=Joined.PROTECTED_PCIE)
    node = Node(vendor, vendor.board(), tmp_path, state)
    platform = DevPlatform.create(NOW - 86_400, seeded_random(b"gpu node"))
    attester = SimulatedAttester(platform, clock=lambda: NOW)
    config, model, seal_key = b"\x01" * 32, b"\x02" * 32, b"\x03" * 1216
    measure(attester, config_hash=config, models=[model], gpu=node.gpus.summary(BOOT))
    binding = KeyBinding(
        node=bytes(32),
        seal_key_hash=hashlib.sha256(seal_key).digest(),
        receipt_key=bytes(32),
        tls_spki_hash=bytes(32),
        config_hash=config,
        release_id=platform.release().release_id,
        not_before=NOW - 60,
        not_after=NOW + 3600,
        global_id=-3,
    )
    policy = Policy(
        global_id=-3,
        releases=(platform.release(),),
        models=frozenset({model}),
        min_tcb_evaluation=1,
        dev_root=platform.root_der,
        gpu=vendor.policy(gpu_count=8),
    )

    def shown() -> bytes:
        return make_evidence(
            attester, binding=binding, seal_public_key=seal_key, challenge=NONCE, devices=node.gpus.evidence
        )

    enclave = appraise(shown(), policy=policy, challenge=NONCE, now=NOW)
    assert enclave.claims["gpu_count"] == 8
    assert enclave.simulated
    other = Node(vendor, vendor.board(), tmp_path, state)
    other.gpus.summary(BOOT)
    node.gpus = other.gpus
    with pytest.raises(EvidenceRejectedError) as caught:
        appraise(shown(), policy=policy, challenge=NONCE, now=NOW)
    assert caught.value.details["failed"] == ["rtmr3.gpu"]


def test_evidence_hash_is_that_of_the_boot_reports(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []
    original = node.driver.gpus

    def gpus(nonce: bytes) -> list[RawDevice]:
        found = original(nonce)
        seen.extend(one.report for one in found)
        return found

    monkeypatch.setattr(node.driver, "gpus", gpus)
    assert parse_gpu_summary(node.gpus.summary(BOOT)).evidence == gpu_digest(seen)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"capable": False}, "cannot do confidential computing"),
        ({"production": False}, "not production"),
        ({"confidential": False}, "mode is off"),
        ({"devtools": True}, "developer tools are on"),
        ({"joined": Joined.NVLINK}, "GPUs sign ALONE"),
    ],
)
def test_mode_that_protects_nothing(node: Node, change: dict[str, Any], reason: str) -> None:
    node.driver.now = dataclasses.replace(GOOD, **change)
    with pytest.raises(UnsupportedError, match=reason):
        node.gpus.summary(BOOT)
    assert not node.driver.ready
    assert "ready True" not in node.driver.events
    with pytest.raises(UnsupportedError, match="gate"):
        node.gpus.evidence(NONCE)


def test_protected_pcie_needs_the_switches(vendor: SimulatedNvidia, tmp_path: Path) -> None:
    state = dataclasses.replace(GOOD, joined=Joined.PROTECTED_PCIE)
    node = Node(vendor, vendor.board(), tmp_path, state)
    blind = NvidiaGpus(
        node.driver,
        policy=node.rules,
        endorser=LiveEndorser(FileManifests(tmp_path), node.responder),
        clock=lambda: NOW,
    )
    with pytest.raises(UnsupportedError, match="switches"):
        blind.summary(BOOT)


def test_gpus_of_different_modes(vendor: SimulatedNvidia, tmp_path: Path) -> None:
    devices = [vendor.gpu(), vendor.gpu(mode=FeatureFlag.MULTI)]
    with pytest.raises(EvidenceRejectedError, match=r"gpu\.mode"):
        Node(vendor, devices, tmp_path).gpus.summary(BOOT)


def test_device_that_fails_stops_the_start(node: Node) -> None:
    node.responder.status = ocsp.OCSPCertStatus.REVOKED
    with pytest.raises(EvidenceRejectedError, match=r"gpu\.ocsp") as caught:
        node.gpus.summary(BOOT)
    assert caught.value.checks is not None
    assert "gpu.ocsp" in [check.id for check in caught.value.checks.failed]
    assert not node.driver.ready


def test_old_driver_stops_the_start(vendor: SimulatedNvidia, tmp_path: Path) -> None:
    rules = dataclasses.replace(vendor.policy(gpu_count=1), minimum_driver={"GH100": "999.1"})
    node = Node(vendor, [vendor.gpu()], tmp_path, policy=rules)
    with pytest.raises(EvidenceRejectedError, match=r"gpu\.driver"):
        node.gpus.summary(BOOT)


def test_number_of_gpus_is_exact(vendor: SimulatedNvidia, tmp_path: Path) -> None:
    node = Node(vendor, [vendor.gpu()], tmp_path, policy=vendor.policy(gpu_count=2))
    with pytest.raises(EvidenceRejectedError, match=r"gpu\.count"):
        node.gpus.summary(BOOT)


def test_gate_that_does_not_look_is_refused(vendor: SimulatedNvidia, tmp_path: Path) -> None:
    for rules in (GpuPolicy.dangerous_genuine_only(), vendor.policy(gpu_count=1)):
        loose = dataclasses.replace(rules, require_ocsp=False)
        with pytest.raises(UnsupportedError, match="left out"):
            Node(vendor, [vendor.gpu()], tmp_path, policy=loose)


def test_driver_that_does_not_release_the_gpus(node: Node) -> None:
    node.driver.stuck = True
    with pytest.raises(UnavailableError, match="take work"):
        node.gpus.summary(BOOT)
    with pytest.raises(UnsupportedError, match="gate"):
        node.gpus.evidence(NONCE)


def test_answer_to_another_request(node: Node) -> None:
    node.driver.nonce = b"\x00" * 32
    with pytest.raises(UnavailableError, match="another request"):
        node.gpus.summary(BOOT)


def test_report_that_is_none(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node.driver, "gpus", lambda nonce: [RawDevice(report=b"x", certificate_chain=b"y")])
    with pytest.raises(UnavailableError, match="no usable report"):
        node.gpus.summary(BOOT)


def test_nonces_have_32_bytes(node: Node) -> None:
    with pytest.raises(MalformedError):
        node.gpus.summary(b"short")
    node.gpus.summary(BOOT)
    with pytest.raises(MalformedError):
        node.gpus.evidence(b"short")


@pytest.mark.parametrize("change", [{"devtools": True}, {"confidential": False}])
def test_mode_that_changes_later_ends_the_evidence(node: Node, change: dict[str, Any]) -> None:
    node.gpus.summary(BOOT)
    assert node.driver.ready
    node.driver.now = dataclasses.replace(GOOD, **change)
    with pytest.raises(UnsupportedError, match="not protected"):
        node.gpus.evidence(NONCE)
    assert not node.driver.ready  # the GPUs take no more work
    node.driver.now = GOOD
    with pytest.raises(UnsupportedError, match="gate"):
        node.gpus.evidence(NONCE)


def test_device_that_is_exchanged_ends_the_evidence(vendor: SimulatedNvidia, tmp_path: Path) -> None:
    first, second = vendor.gpu(), vendor.gpu()
    node = Node(vendor, [first, second], tmp_path, policy=vendor.policy(gpu_count=1))
    node.driver.devices = [first]
    node.gpus.summary(BOOT)
    node.driver.devices = [second]
    with pytest.raises(UnsupportedError, match="changed since"):
        node.gpus.evidence(NONCE)
    assert not node.driver.ready
    node.driver.devices = [first]
    with pytest.raises(UnsupportedError, match="gate"):  # the gate must be passed again
        node.gpus.evidence(NONCE)


def test_evidence_goes_out_without_what_cannot_be_had(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At the start everything must be had; later a client may get its own."""

    def down(request: bytes) -> bytes:
        raise UnavailableError("the responder is down")

    with monkeypatch.context() as broken:
        broken.setattr(node.responder, "ask", down)
        with pytest.raises(UnavailableError, match="down"):
            node.gpus.summary(BOOT)
        assert not node.driver.ready
    node.gpus.summary(BOOT)
    with monkeypatch.context() as broken:
        broken.setattr(node.responder, "ask", down)
        with pytest.raises(UnavailableError, match="down"):
            node.gpus.evidence(NONCE)  # what is kept must verify by itself
        (shown,) = node.gpus.evidence(NONCE, complete=False)
        assert (list(shown.rims), list(shown.ocsp_responses)) == ([], [])
        assert not node.verify([shown])
        assert "without endorsements" in caplog.text
    assert node.driver.ready
    assert node.verify(node.gpus.evidence(NONCE))


class TestManifests:
    """Files that the host keeps."""

    def test_bad_files_do_not_hide_good_ones(self, vendor: SimulatedNvidia, tmp_path: Path) -> None:
        (tmp_path / "0.xml").write_bytes(b"nonsense")
        (tmp_path / "1.xml").write_bytes(vendor.gpu_rims[0].replace(b'active="True"', b'active="False"', 1))
        (tmp_path / "2.swidtag").write_bytes(vendor.gpu_rims[0])
        (tmp_path / "3.txt").write_bytes(vendor.gpu_rims[1])
        manifests = FileManifests(tmp_path)
        assert manifests.fitting([DRIVER_VERSION]) == (vendor.gpu_rims[0],)
        with pytest.raises(UnavailableError, match=VBIOS_VERSION.lower()) as caught:
            manifests.fitting([DRIVER_VERSION, VBIOS_VERSION.casefold()])
        assert "cocoon endorsements fetch gpu" in caught.value.hint
        (tmp_path / "4.xml").write_bytes(vendor.gpu_rims[1])
        assert manifests.fitting([VBIOS_VERSION.casefold()]) == (vendor.gpu_rims[1],)

    def test_missing_directory(self, tmp_path: Path) -> None:
        with pytest.raises(UnavailableError):
            FileManifests(tmp_path / "missing").fitting(["1"])


@pytest.fixture
def responder_address(vendor: SimulatedNvidia) -> Iterator[tuple[str, dict[str, Any]]]:
    """An HTTP server for OCSP on this machine, with knobs."""
    knobs: dict[str, Any] = {"status": 200, "body": None, "responder": Responder(vendor, [])}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = self.rfile.read(int(self.headers["Content-Length"]))
            body = knobs["responder"].ask(request) if knobs["body"] is None else knobs["body"]
            self.send_response(knobs["status"])
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Location", "https://example.org/")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/", knobs
    server.shutdown()
    thread.join()
    server.server_close()


def test_responder_over_http(
    vendor: SimulatedNvidia, responder_address: tuple[str, dict[str, Any]]
) -> None:
    address, knobs = responder_address
    client = HttpOcsp(address)
    child, issuer = vendor.rim_chain[:2]
    request = ocsp_request(child.certificate, issuer.certificate, NONCE)
    answer = ocsp.load_der_ocsp_response(client.ask(request))
    assert answer.serial_number == child.certificate.serial_number
    for status in (302, 404, 500):
        knobs["status"] = status
        with pytest.raises(UnavailableError, match=str(status)):
            client.ask(request)
    knobs |= {"status": 200, "body": b"x" * 20_000}
    with pytest.raises(UnavailableError, match="too long"):
        client.ask(request)
    client.close()


def test_responder_that_is_not_there() -> None:
    client = HttpOcsp("http://127.0.0.1:9/", timeout_s=0.5)
    with pytest.raises(UnavailableError, match="did not answer"):
        client.ask(b"x")
    client.close()
    with pytest.raises(ConfigError):
        HttpOcsp("ftp://127.0.0.1/")


class FakeLibrary:
    """``pynvml`` as the attester uses it, with C structures like the real ones."""

    NVML_SUCCESS = 0
    NVML_ERROR_NOT_SUPPORTED = 3
    NVML_ERROR_NO_PERMISSION = 4
    NVML_ERROR_FUNCTION_NOT_FOUND = 13
    NVML_ERROR_GPU_IS_LOST = 15

    class NVMLError(Exception):
        def __init__(self, value: int) -> None:
            super().__init__(f"error {value}")
            self.value = value

    class c_nvmlSystemConfComputeSettings_v1_t(ctypes.Structure):  # noqa: N801
        _fields_ = (
            ("version", ctypes.c_uint),
            ("environment", ctypes.c_uint),
            ("ccFeature", ctypes.c_uint),
            ("devToolsMode", ctypes.c_uint),
            ("multiGpuMode", ctypes.c_uint),
        )

    def __init__(self, device: SimulatedDevice) -> None:
        self.device = device
        self.fail: dict[str, int] = {}
        self.system = SimpleNamespace(environment=2, ccFeature=1, devToolsMode=0)
        self.capabilities = SimpleNamespace(cpuCaps=2, gpusCaps=1)
        self.multi, self.settings_code, self.count, self.ready, self.extra = 0, 0, 1, 0, 0

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("nvml"):
            code = object.__getattribute__(self, "fail").get(name)
            if code is not None:
                raise FakeLibrary.NVMLError(code)
        return object.__getattribute__(self, name)

    def nvmlInit(self) -> None:  # noqa: N802
        """Start."""

    def nvmlSystemGetConfComputeState(self) -> Any:  # noqa: N802
        return self.system

    def nvmlSystemGetConfComputeCapabilities(self) -> Any:  # noqa: N802
        return self.capabilities

    def nvmlSystemGetConfComputeSettings(self, pointer: Any) -> int:  # noqa: N802
        pointer._obj.multiGpuMode = self.multi
        return self.settings_code

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return self.count

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetConfComputeGpuCertificate(self, handle: int) -> Any:  # noqa: N802
        pem = chain_pem(self.device.chain) + b"\0\0"
        return SimpleNamespace(
            attestationCertChain=(ctypes.c_uint8 * 8192)(*pem), attestationCertChainSize=len(pem)
        )

    def nvmlDeviceGetConfComputeGpuAttestationReport(self, handle: int, nonce: bytes) -> Any:  # noqa: N802
        report = self.device.report(nonce)
        return SimpleNamespace(
            attestationReport=(ctypes.c_uint8 * 8192)(*report),
            attestationReportSize=len(report) + self.extra,
        )

    def nvmlSystemSetConfComputeGpusReadyState(self, state: int) -> None:  # noqa: N802
        self.ready = state

    def nvmlSystemGetConfComputeGpusReadyState(self) -> int:  # noqa: N802
        return self.ready


@pytest.fixture
def library(vendor: SimulatedNvidia) -> FakeLibrary:
    return FakeLibrary(vendor.gpu())


class TestLibrary:
    """The seam to ``nvidia-ml-py``."""

    def test_state(self, library: FakeLibrary) -> None:
        nvml = NvmlLibrary(library)
        assert nvml.state() == GOOD
        library.system.devToolsMode = 1
        library.multi = 2
        assert nvml.state() == dataclasses.replace(GOOD, devtools=True, joined=Joined.NVLINK)
        library.system.environment = 1
        library.capabilities.gpusCaps = 0
        assert (nvml.state().production, nvml.state().capable) == (False, False)
        library.multi = 9
        with pytest.raises(UnsupportedError, match="unknown mode"):
            nvml.state()

    def test_reports(self, library: FakeLibrary) -> None:
        (device,) = NvmlLibrary(library).gpus(NONCE)
        assert device.report[4:36] == NONCE
        assert device.certificate_chain == chain_pem(library.device.chain)
        library.extra = 100_000
        with pytest.raises(UnavailableError, match="impossible length"):
            NvmlLibrary(library).gpus(NONCE)

    @pytest.mark.parametrize("count", [0, 17])
    def test_number_of_gpus(self, library: FakeLibrary, count: int) -> None:
        library.count = count
        with pytest.raises(UnsupportedError, match=f"{count} GPUs"):
            NvmlLibrary(library).gpus(NONCE)

    def test_ready(self, library: FakeLibrary) -> None:
        nvml = NvmlLibrary(library)
        nvml.set_ready(True)
        assert nvml.is_ready()
        nvml.set_ready(False)
        assert not nvml.is_ready()

    @pytest.mark.parametrize(
        ("code", "error"),
        [(3, UnsupportedError), (4, UnsupportedError), (13, UnsupportedError), (15, UnavailableError)],
    )
    def test_errors(self, library: FakeLibrary, code: int, error: type[Exception]) -> None:
        nvml = NvmlLibrary(library)
        library.settings_code = code
        with pytest.raises(error):
            nvml.state()
        for name, call in (
            ("nvmlSystemGetConfComputeState", nvml.state),
            ("nvmlDeviceGetConfComputeGpuAttestationReport", lambda: nvml.gpus(NONCE)),
            ("nvmlSystemSetConfComputeGpusReadyState", lambda: nvml.set_ready(True)),
            ("nvmlSystemGetConfComputeGpusReadyState", nvml.is_ready),
        ):
            library.fail = {name: code}
            with pytest.raises(error):
                call()
        library.fail = {"nvmlInit": code}
        with pytest.raises(UnsupportedError, match="no NVIDIA driver"):
            NvmlLibrary(library)

    def test_through_the_gate(self, library: FakeLibrary, vendor: SimulatedNvidia, tmp_path: Path) -> None:
        node = Node(vendor, [library.device], tmp_path)
        gpus = NvidiaGpus(
            NvmlLibrary(library),
            policy=node.rules,
            endorser=LiveEndorser(FileManifests(tmp_path), node.responder),
            clock=lambda: NOW,
        )
        assert parse_gpu_summary(gpus.summary(BOOT)).gpus == 1
        assert node.verify(gpus.evidence(NONCE))
        assert library.ready == 1

    def test_names_are_those_of_the_real_library(self, library: FakeLibrary) -> None:
        real = pytest.importorskip("pynvml")
        for name in dir(FakeLibrary):
            if name.startswith(("nvml", "NVML", "c_nvml")):
                assert hasattr(real, name), name
        for name in (
            "NVML_ERROR_NOT_SUPPORTED",
            "NVML_ERROR_NO_PERMISSION",
            "NVML_ERROR_FUNCTION_NOT_FOUND",
        ):
            assert getattr(real, name) == getattr(FakeLibrary, name)
        fields = [name for name, _ in real.c_nvmlSystemConfComputeSettings_v1_t._fields_]
        assert fields == [name for name, *_ in FakeLibrary.c_nvmlSystemConfComputeSettings_v1_t._fields_]
        joined = (real.NVML_CC_SYSTEM_MULTIGPU_NONE, real.NVML_CC_SYSTEM_MULTIGPU_PROTECTED_PCIE)
        assert joined == (Joined.ALONE, Joined.PROTECTED_PCIE)
        assert real.NVML_CC_SYSTEM_MULTIGPU_NVLE == Joined.NVLINK
        assert library.system.environment == real.NVML_CC_SYSTEM_ENVIRONMENT_PROD
