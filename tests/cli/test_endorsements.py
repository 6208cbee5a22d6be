"""`cocoon endorsements fetch`, against services on this machine that speak for simulated vendors."""

from __future__ import annotations

import base64
import functools
import http.server
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from click.testing import CliRunner, Result

from cocoon_attestation.errors import ConfigError, MalformedError
from cocoon_cli.endorsements import endorsements
from cocoon_enclave.attestation.gpu_endorsements import FileManifests
from cocoon_enclave.attestation.simulated import DevPlatform
from cocoon_enclave.attestation.simulated_gpu import DRIVER_VERSION, SimulatedNvidia
from cocoon_enclave.attestation.simulated_gpu_pki import chain_pem, seeded_random
from cocoon_enclave.attestation.simulated_snp import ReportFields, SimulatedAmd
from cocoon_enclave.attestation.snp_table import read_endorsements
from cocoon_enclave.attestation.tdx import file_collateral
from cocoon_proxy.endorsements import service
from cocoon_proxy.endorsements.sources import EndorsementSources
from cocoon_proxy.errors import EndorsementUnavailableError

NOW = 1_800_000_000
Route = tuple[bytes, dict[str, str]]


class Vendors:
    """Simulated vendors behind one HTTP server."""

    def __init__(self) -> None:
        self.intel = DevPlatform.create(NOW - 86_400, seeded_random(b"cli intel"))
        self.amd = SimulatedAmd(now=NOW, rng=seeded_random(b"cli amd"))
        self.nvidia = SimulatedNvidia(now=NOW - 3600, rng=seeded_random(b"cli nvidia"))
        self.chip, self.gpu = self.amd.chip(), self.nvidia.gpu()
        self.headers: list[dict[str, str]] = []
        self.routes = self._intel() | self._amd() | self._nvidia()

    def _intel(self) -> dict[str, Route]:
        found = self.intel.collateral(NOW)
        chain = quote(found.tcb_info_issuer_chain)
        tcb = f'{{"tcbInfo":{found.tcb_info},"signature":"{found.tcb_info_signature.hex()}"}}'
        qe = f'{{"enclaveIdentity":{found.qe_identity},"signature":"{found.qe_identity_signature.hex()}"}}'
        base = "/certification/v4/"
        return {
            f"/tdx{base}tcb": (tcb.encode(), {"TCB-Info-Issuer-Chain": chain}),
            f"/tdx{base}qe/identity": (qe.encode(), {"SGX-Enclave-Identity-Issuer-Chain": chain}),
            f"/sgx{base}pckcrl": (
                found.pck_crl.hex().encode(),
                {"SGX-PCK-CRL-Issuer-Chain": quote(found.pck_crl_issuer_chain)},
            ),
            f"/sgx{base}rootcacrl": (found.root_ca_crl.hex().encode(), {}),
        }

    def _amd(self) -> dict[str, Route]:
        return {
            f"/vcek/v1/Genoa/{self.chip.chip_id.hex()}": (self.chip.certificate, {}),
            "/vcek/v1/Genoa/cert_chain": (self.amd.chain_pem.encode(), {}),
            "/vcek/v1/Genoa/crl": (self.amd.crl(), {}),
        }

    def _nvidia(self) -> dict[str, Route]:
        names = (f"NV_GPU_DRIVER_GH100_{DRIVER_VERSION}", "NV_GPU_VBIOS_G520_0200_885_9600A50001")
        return {
            f"/v1/rim/{name}": (
                json.dumps({"id": name, "rim": base64.b64encode(rim).decode()}).encode(),
                {},
            )
            for name, rim in zip(names, self.nvidia.gpu_rims, strict=True)
        }


@pytest.fixture(scope="module")
def vendors() -> Vendors:
    return Vendors()


@pytest.fixture(scope="module")
def address(vendors: Vendors) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            vendors.headers.append(dict(self.headers))
            body, headers = vendors.routes.get(urlsplit(self.path).path, (b"", {"X-Status": "404"}))
            self.send_response(int(headers.get("X-Status", "200")))
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


Cocoon = Callable[..., Result]


@pytest.fixture
def call(vendors: Vendors, address: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cocoon:
    """The command with the simulated vendors' roots, time and addresses in place of the real ones."""
    monkeypatch.setenv("COCOON_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("COCOON_NVIDIA_TOKEN", raising=False)
    original = service.Endorsements

    def opened(sources: EndorsementSources, **options: Any) -> service.Endorsements:
        local = EndorsementSources(
            intel_pcs=sources.intel_pcs if "127.0.0.1" in sources.intel_pcs else address,
            intel_root_crl=f"{address}/sgx/certification/v4/rootcacrl",
            amd_kds=address,
            nvidia_rim=address,
            nvidia_ocsp=address,
            nvidia_token=sources.nvidia_token,
        )
        return original(
            local,
            clock=lambda: float(NOW),
            intel_root=vendors.intel.root_der,
            amd_roots=(vendors.amd.root,),
            rim_roots=frozenset({vendors.nvidia.rim_root.der}),
            **options,
        )

    monkeypatch.setattr(service, "Endorsements", opened)
    return functools.partial(CliRunner().invoke, endorsements)


def test_collateral_for_a_family(call: Cocoon, vendors: Vendors, address: str, tmp_path: Path) -> None:
    target = tmp_path / "collateral.json"
    result = call(
        ["fetch", "tdx", "--fmspc", "c0c000000000", "--pccs", address, "--out", str(target), "--json"],
        catch_exceptions=False,
    )
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert (document["fmspc"], document["evaluation"]) == ("c0c000000000", [19, 19])
    assert document["expires_at"] > NOW
    assert parsed_equal(file_collateral(target)().tcb_info, vendors)
    assert os.stat(target).st_mode & 0o777 == 0o644


def parsed_equal(text: str, vendors: Vendors) -> bool:
    body, _ = vendors.routes["/tdx/certification/v4/tcb"]
    return body.decode().startswith(f'{{"tcbInfo":{text},"signature"')


def test_family_of_a_quote(call: Cocoon, vendors: Vendors, tmp_path: Path) -> None:
    source, target = tmp_path / "quote.bin", tmp_path / "collateral.json"
    source.write_bytes(vendors.intel.quote(vendors.intel.td_report(bytes(64), bytes(48))))
    result = call(["fetch", "tdx", "--quote", str(source), "--out", str(target)], catch_exceptions=False)
    assert result.exit_code == 0
    assert "c0c000000000" in result.stdout
    assert target.is_file()


def test_offline_uses_what_was_fetched(call: Cocoon, vendors: Vendors, tmp_path: Path) -> None:
    arguments = ["fetch", "tdx", "--fmspc", "c0c000000000", "--out", str(tmp_path / "a.json")]
    with pytest.raises(EndorsementUnavailableError, match="offline store"):
        call([*arguments, "--offline"], catch_exceptions=False)
    assert not (tmp_path / "a.json").exists()
    call(arguments, catch_exceptions=False)
    before = len(vendors.headers)
    assert call([*arguments, "--offline"], catch_exceptions=False).exit_code == 0
    assert len(vendors.headers) == before


def test_file_stays_when_the_fetch_fails(call: Cocoon, tmp_path: Path) -> None:
    target = tmp_path / "collateral.json"
    target.write_text("good")
    with pytest.raises(EndorsementUnavailableError, match="another platform family"):
        call(["fetch", "tdx", "--fmspc", "00" * 6, "--out", str(target)], catch_exceptions=False)
    assert target.read_text() == "good"


def test_snp(call: Cocoon, vendors: Vendors, tmp_path: Path) -> None:
    source, target = tmp_path / "report.bin", tmp_path / "snp.json"
    source.write_bytes(vendors.chip.report(ReportFields()))
    result = call(["fetch", "snp", str(source), "--out", str(target), "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    assert read_endorsements(target).certificates == (vendors.chip.certificate,)
    assert json.loads(result.stdout)["certificate_bytes"] == len(vendors.chip.certificate)


def test_gpu(call: Cocoon, vendors: Vendors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COCOON_NVIDIA_TOKEN", "api-key")
    evidence = [
        {
            "arch": "HOPPER",
            "certificate": base64.b64encode(chain_pem(vendors.gpu.chain)).decode(),
            "evidence": base64.b64encode(vendors.gpu.report(b"\x01" * 32)).decode(),
        }
    ]
    source, target = tmp_path / "evidence.json", tmp_path / "manifests"
    source.write_text(json.dumps(evidence))
    result = call(["fetch", "gpu", str(source), "--out", str(target), "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    assert len(json.loads(result.stdout)["manifests"]) == 2
    assert FileManifests(target).fitting([DRIVER_VERSION]) == (vendors.nvidia.gpu_rims[0],)
    assert vendors.headers[-1]["Authorization"] == "Bearer api-key"
    assert "api-key" not in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--fmspc", "00"],
        ["--fmspc", "xyz"],
        ["--fmspc", "00" * 6, "--quote", "x"],
        ["--fmspc", "00" * 6, "--ca", "root"],
    ],
)
def test_usage(call: Cocoon, arguments: list[str], tmp_path: Path) -> None:
    assert call(["fetch", "tdx", "--out", str(tmp_path / "x"), *arguments]).exit_code == 2


def test_bad_addresses_and_places(call: Cocoon, vendors: Vendors, tmp_path: Path) -> None:
    arguments = ["fetch", "tdx", "--fmspc", "c0c000000000", "--out"]
    with pytest.raises(ConfigError, match="https"):
        call([*arguments, str(tmp_path / "x"), "--pccs", "http://pccs.example.org"], catch_exceptions=False)
    with pytest.raises(ConfigError, match="cannot be written"):
        call([*arguments, str(tmp_path / "no" / "such" / "folder")], catch_exceptions=False)
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(MalformedError):
        call(["fetch", "tdx", "--quote", str(tmp_path / "file"), "--out", "x"], catch_exceptions=False)
