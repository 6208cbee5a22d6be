"""The attester on real TDX, over a made-up sysfs: what it writes, what it refuses."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToDict

from cocoon.v1 import evidence_pb2
from cocoon_attestation.errors import (
    ConfigError,
    MalformedError,
    UnavailableError,
    UnsupportedError,
)
from cocoon_attestation.reference import TeeKind
from cocoon_attestation.rtmr3 import RuntimeEvent, replay
from cocoon_enclave.attestation.attester import measure
from cocoon_enclave.attestation.simulated import DevPlatform
from cocoon_enclave.attestation.tdx import TdxAttester, TdxPaths, file_collateral

NOW = 1_800_000_000
CONFIG = b"\x01" * 32
MODEL = b"\x02" * 32
DATA = b"\x09" * 64
EVENTS = [
    RuntimeEvent(name="cocoon.config", payload=CONFIG),
    RuntimeEvent(name="cocoon.model", payload=MODEL),
    RuntimeEvent(name="cocoon.gpu", payload=b"none"),
    RuntimeEvent(name="cocoon.ready", payload=b""),
]


class FakeGuest:
    """Directories that look like the kernel's; quotes come from the simulated platform."""

    def __init__(self, root: Path) -> None:
        self.platform = DevPlatform.create(NOW, secrets.token_bytes)
        self.paths = TdxPaths(report_entry=root / "report" / "cocoon", rtmr3=root / "rtmr3:sha384")
        self.paths.report_entry.mkdir(parents=True)
        self.file("provider", b"tdx_guest\n")
        self.file("inblob", b"")
        self.file("outblob", b"")
        self.paths.rtmr3.write_bytes(bytes(48))

    def file(self, name: str, content: bytes) -> None:
        (self.paths.report_entry / name).write_bytes(content)

    def attester(self) -> TdxAttester:
        return TdxAttester(collateral=lambda: self.platform.collateral(NOW), paths=self.paths)

    def answer(self, report_data: bytes, events: list[RuntimeEvent], tail: bytes = b"") -> None:
        report = self.platform.td_report(report_data, replay(events))
        self.file("outblob", self.platform.quote(report) + tail)


@pytest.fixture
def guest(tmp_path: Path) -> FakeGuest:
    return FakeGuest(tmp_path)


def test_evidence(guest: FakeGuest) -> None:
    attester = guest.attester()
    assert not attester.simulated
    assert attester.kind is TeeKind.TDX
    measure(attester, config_hash=CONFIG, models=[MODEL])
    guest.answer(DATA, EVENTS, tail=bytes(70))
    evidence = attester.attest(DATA)
    assert (guest.paths.report_entry / "inblob").read_bytes() == DATA
    assert guest.paths.rtmr3.read_bytes() == EVENTS[-1].digest  # a plain file keeps the last write
    assert [(e.name, e.payload) for e in evidence.runtime_events] == [(e.name, e.payload) for e in EVENTS]
    assert evidence.collateral.tcb_info
    assert not evidence.quote.endswith(bytes(70))


def test_each_event_is_one_write_of_its_digest(guest: FakeGuest) -> None:
    attester = guest.attester()
    for event in EVENTS:
        attester.extend(event.name, event.payload)
        assert guest.paths.rtmr3.read_bytes() == event.digest


def test_no_tdx_at_all(tmp_path: Path) -> None:
    paths = TdxPaths(report_entry=tmp_path / "a" / "b", rtmr3=tmp_path / "r")
    with pytest.raises(UnsupportedError) as caught:
        TdxAttester(collateral=evidence_pb2.TdxCollateral, paths=paths)
    assert "TDX guest" in caught.value.hint


@pytest.mark.skipif(
    Path("/sys/kernel/config/tsm/report").exists(), reason="this machine has a quote interface"
)
def test_this_machine_has_no_tdx() -> None:
    with pytest.raises(UnsupportedError):
        TdxAttester(collateral=evidence_pb2.TdxCollateral)


def test_another_provider(guest: FakeGuest) -> None:
    guest.file("provider", b"sev_guest\n")
    with pytest.raises(UnsupportedError, match="sev_guest"):
        guest.attester()


def test_kernel_without_rtmr_interface(guest: FakeGuest) -> None:
    guest.paths.rtmr3.unlink()
    with pytest.raises(UnsupportedError):
        guest.attester()


def test_register_in_an_unknown_form(guest: FakeGuest) -> None:
    guest.paths.rtmr3.write_bytes(bytes(32))
    with pytest.raises(UnsupportedError):
        guest.attester()


def test_register_that_was_already_extended(guest: FakeGuest) -> None:
    guest.paths.rtmr3.write_bytes(b"\x01" * 48)
    with pytest.raises(UnsupportedError, match="before this program"):
        guest.attester()


def test_register_that_cannot_be_written(guest: FakeGuest) -> None:
    attester = guest.attester()
    guest.paths.rtmr3.unlink()
    with pytest.raises(UnsupportedError):
        attester.extend("cocoon.config", CONFIG)


def test_somebody_else_extended_the_register(guest: FakeGuest) -> None:
    attester = guest.attester()
    measure(attester, config_hash=CONFIG, models=[MODEL])
    guest.answer(DATA, [*EVENTS, RuntimeEvent(name="foreign", payload=b"")])
    with pytest.raises(UnsupportedError):
        attester.attest(DATA)


def test_answer_to_another_request(guest: FakeGuest) -> None:
    attester = guest.attester()
    guest.answer(b"\x08" * 64, [])
    with pytest.raises(UnavailableError):
        attester.attest(DATA)


def test_no_usable_quote(guest: FakeGuest) -> None:
    attester = guest.attester()
    with pytest.raises(UnavailableError):
        attester.attest(DATA)
    (guest.paths.report_entry / "outblob").unlink()
    with pytest.raises(UnavailableError):
        attester.attest(DATA)


def test_report_data_has_64_bytes(guest: FakeGuest) -> None:
    with pytest.raises(MalformedError):
        guest.attester().attest(bytes(32))


def test_collateral_from_a_file(guest: FakeGuest, tmp_path: Path) -> None:
    collateral = guest.platform.collateral(NOW)
    document = MessageToDict(collateral, preserving_proto_field_name=True)
    for name in ("root_ca_crl", "pck_crl", "tcb_info_signature", "qe_identity_signature"):
        document[name] = getattr(collateral, name).hex()
    path = tmp_path / "collateral.json"
    read = file_collateral(path)
    with pytest.raises(UnavailableError):
        read()
    path.write_text(json.dumps(document))
    assert read() == collateral


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"tcb_info": 5}', "[" * 5000])
def test_collateral_file_of_another_form(tmp_path: Path, text: str) -> None:
    path = tmp_path / "collateral.json"
    path.write_text(text)
    with pytest.raises(ConfigError):
        file_collateral(path)()
