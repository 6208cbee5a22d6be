"""Whole networks on other simulated machines: SEV-SNP, and eight GPUs behind four switches, as processes."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cocoon.v1 import evidence_pb2
from cocoon_attestation.bundle import parse_bundle
from cocoon_attestation.evidence import SnpEvidence, TdxEvidence, parse_evidence

if TYPE_CHECKING:
    from tests.network.netkit import InProcess, Running, why_not
else:
    from netkit import Running, why_not

pytestmark = [pytest.mark.network, pytest.mark.model]

SNP_CHECKS = {
    "snp.sig",
    "snp.chain",
    "snp.crl",
    "snp.host_data",
    "snp.tcb_min",
    "release.models",
    "release.gpu",
}
GPU_CHECKS = {
    "gpu.sig",
    "gpu.ocsp",
    "gpu.rim_match",
    "gpu.topology",
    "gpu.nonce",
    "rtmr3.gpu",
    "rtmr3.gpu_mode",
}


@pytest.fixture(params=[("snp", 0, SNP_CHECKS), ("tdx", 8, GPU_CHECKS)], ids=["snp", "8-gpus"])
def machine(request: pytest.FixtureRequest) -> Iterator[tuple[Running, int, set[str]]]:
    """A network, its number of GPUs, and checks that only such a machine has."""
    if reason := why_not():
        pytest.skip(reason)
    tee, gpus, checks = request.param
    with tempfile.TemporaryDirectory(prefix="cocoon-net-") as directory:
        running = Running.start(Path(directory), tee=tee, gpus=gpus)
        try:
            yield running, gpus, checks
        finally:
            running.stop()


def test_prompt_to_bundle(
    machine: tuple[Running, int, set[str]], cocoon: InProcess, tmp_path: Path
) -> None:
    net, gpus, own_checks = machine
    cocoon.home = net.home
    with net.gateway() as served:
        answer = served.ask("Say one word.", max_tokens=4)
        assert answer.text
        session = session_evidence(served.home)
    assert_machine(session, gpus)
    bundle = net.export(answer, tmp_path / "bundle.json")
    found = cocoon("verify", "bundle", tmp_path / "bundle.json", "--offline", "--json")
    assert found.code == 0, found.out
    assert found.json["simulated"] is True
    published = parse_bundle(bundle).evidence
    assert_machine(published, gpus)
    file = tmp_path / "evidence.bin"
    file.write_bytes(published)
    found = cocoon("verify", "evidence", file, "--network", "dev", "--json")
    assert found.code == 0, found.out
    if gpus:
        assert_borrowed_devices_are_refused(cocoon, published, file)
    assert own_checks <= {check["id"] for check in found.json["checks"]}
    assert found.json["claims"].get("gpu_count", 0) == gpus


def assert_borrowed_devices_are_refused(cocoon: InProcess, published: bytes, file: Path) -> None:
    """A7 on the node's own evidence: a GPU less, one twice, one for another."""
    edits: list[Callable[[Any], object]] = [
        lambda devices: devices.pop(0),
        lambda devices: devices[1].CopyFrom(devices[0]),
        lambda devices: devices[0].ClearField("rims"),
    ]
    for edit in edits:
        message = evidence_pb2.Evidence.FromString(published)
        edit(message.devices)
        file.write_bytes(message.SerializeToString(deterministic=True))
        nonce = message.challenge.hex()
        found = cocoon("verify", "evidence", file, "--network", "dev", "--challenge", nonce, "--json")
        assert found.code == 10, found.out
        assert not any(check.startswith("tdx.") for check in found.failed_checks())


def assert_machine(evidence: bytes, gpus: int) -> None:
    parsed = parse_evidence(evidence)
    assert isinstance(parsed.cpu, TdxEvidence if gpus else SnpEvidence)
    assert len(parsed.devices) == (gpus and gpus + 4)


def session_evidence(home: Path) -> bytes:
    """The evidence that the client's ledger kept of its session."""
    path = home / "client" / "dev" / "ledger.sqlite3"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        rows: list[Any] = db.execute("SELECT evidence FROM evidence WHERE kind = 'session'").fetchall()
    return bytes(rows[0][0])
