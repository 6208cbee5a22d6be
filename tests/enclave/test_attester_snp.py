"""The attester on real SEV-SNP, over a made-up configfs: what it writes, what it refuses."""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import json
import struct
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from cocoon_attestation.appraisal import appraise
from cocoon_attestation.binding import KeyBinding
from cocoon_attestation.errors import (
    ConfigError,
    EvidenceRejectedError,
    MalformedError,
    UnavailableError,
    UnsupportedError,
)
from cocoon_attestation.policy import Policy
from cocoon_attestation.policy_vendor import open_snp_policy
from cocoon_attestation.reference import SnpRelease, TeeKind
from cocoon_attestation.snp.policy import SnpPolicy
from cocoon_attestation.snp.report import Product, SigningKey
from cocoon_attestation.snp.verify import verify_snp
from cocoon_enclave.attestation import snp_table
from cocoon_enclave.attestation.attester import make_evidence
from cocoon_enclave.attestation.simulated import DevPlatform
from cocoon_enclave.attestation.simulated_gpu_pki import seeded_random
from cocoon_enclave.attestation.simulated_snp import ReportFields, SimulatedAmd
from cocoon_enclave.attestation.snp import SnpAttester
from cocoon_enclave.attestation.snp_table import HostEndorsements, parse_table, read_endorsements
from cocoon_enclave.attestation.tsm import TsmEntry

NOW = 1_800_000_000
AT = dt.datetime.fromtimestamp(NOW, dt.UTC)
CONFIG, DATA = b"\x01" * 32, b"\x09" * 64


def table(*entries: tuple[uuid.UUID, bytes], swapped: bool = True) -> bytes:
    """A certificate table as a host writes it."""
    head_size = 24 * (len(entries) + 1)
    heads, body = b"", b""
    for name, data in entries:
        raw = name.bytes_le if swapped else name.bytes
        heads += struct.pack("<16sII", raw, head_size + len(body), len(data))
        body += data
    return heads + bytes(24) + body


class FakeGuest(TsmEntry):
    """A directory that behaves like a configfs entry on a simulated chip."""

    def __init__(self, directory: Path, amd: SimulatedAmd) -> None:
        super().__init__(directory)
        directory.mkdir(parents=True)
        self.amd, self.chip = amd, amd.chip()
        self.fields: dict[str, Any] = {"host_data": CONFIG}
        self.generation = 7
        self.intruder = False
        self.out: Callable[[bytes], bytes] = lambda report: report
        self.aux: bytes | None = table(
            (snp_table.VCEK, self.chip.certificate),
            (snp_table.ASK, amd.ask.public_bytes(Encoding.DER)),
            (snp_table.ARK, amd.ark.public_bytes(Encoding.DER)),
            (snp_table.CRL, amd.crl()),
        )
        self.put("provider", b"sev_guest\n")
        self.put("inblob", b"")
        self.put("generation", b"7\n")

    def put(self, name: str, content: bytes) -> None:
        (self.directory / name).write_bytes(content)

    def write(self, name: str, data: bytes) -> None:
        super().write(name, data)
        self.generation += 1 + self.intruder
        self.put("generation", f"{self.generation}\n".encode())
        fields = ReportFields(product=self.amd.product, report_data=data, **self.fields)
        self.put("outblob", self.out(self.chip.report(fields)))
        if self.aux is not None:
            self.put("auxblob", self.aux)

    def attester(self, endorsements: HostEndorsements | None = None) -> SnpAttester:
        source = None if endorsements is None else lambda: endorsements
        return SnpAttester(config_hash=CONFIG, endorsements=source, entry=self)


@pytest.fixture(scope="module")
def amd() -> SimulatedAmd:
    return SimulatedAmd(now=NOW, rng=seeded_random(b"snp attester"))


@pytest.fixture
def guest(tmp_path: Path, amd: SimulatedAmd) -> FakeGuest:
    return FakeGuest(tmp_path / "report" / "cocoon", amd)


def accepted(guest: FakeGuest, evidence: Any, **changes: Any) -> bool:
    policy = SnpPolicy(
        measurements=frozenset({bytes(48)}),
        report_data=DATA,
        host_data=CONFIG,
        roots=(guest.amd.root,),
        **changes,
    )
    _, checks = verify_snp(
        evidence.report, evidence.certificate, evidence.issuer_chain, evidence.crl, policy, AT
    )
    return checks.accepted


def test_evidence(guest: FakeGuest) -> None:
    attester = guest.attester()
    assert (attester.kind, attester.simulated) == (TeeKind.SEV_SNP, False)
    evidence = attester.attest(DATA)
    assert (guest.directory / "inblob").read_bytes() == DATA
    assert accepted(guest, evidence)
    assert evidence.certificate == guest.chip.certificate


def test_run_time_measurement_is_refused(guest: FakeGuest) -> None:
    with pytest.raises(UnsupportedError, match="cannot measure"):
        guest.attester().extend("cocoon.model", b"")


def test_guest_of_another_configuration_is_refused(guest: FakeGuest) -> None:
    guest.fields["host_data"] = b"\x02" * 32
    with pytest.raises(UnsupportedError, match="HOST_DATA") as caught:
        guest.attester()
    assert CONFIG.hex() in caught.value.hint
    with pytest.raises(MalformedError):
        SnpAttester(config_hash=b"short", entry=guest)


def test_no_interface(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="no report interface") as caught:
        SnpAttester(config_hash=CONFIG, entry=TsmEntry(tmp_path / "missing" / "cocoon"))
    assert (caught.value.exit_code, "SEV-SNP guest" in caught.value.hint) == (20, True)


def test_another_provider(guest: FakeGuest) -> None:
    guest.put("provider", b"tdx_guest\n")
    with pytest.raises(UnsupportedError, match="the provider is tdx_guest"):
        guest.attester()


def test_real_machine_without_hardware_says_so() -> None:
    with pytest.raises(UnsupportedError) as caught:
        SnpAttester(config_hash=CONFIG)
    assert caught.value.hint


def test_second_user_of_the_entry_is_noticed(guest: FakeGuest) -> None:
    attester = guest.attester()
    guest.intruder = True
    with pytest.raises(UnavailableError, match="another program"):
        attester.attest(DATA)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda report: b"", "no usable report"),
        (lambda report: report[:-1], "no usable report"),
        (lambda report: report + b"\x00", "no usable report"),
        (lambda report: b"\x09" + report[1:], "no usable report"),
        (lambda report: report[:0x50] + bytes(64) + report[0x90:], "another request"),
        (lambda report: b"x" * 70_000, "no report"),
    ],
)
def test_report_that_is_none(guest: FakeGuest, change: Callable[[bytes], bytes], reason: str) -> None:
    attester = guest.attester()
    guest.out = change
    with pytest.raises(UnavailableError, match=reason):
        attester.attest(DATA)


def test_firmware_that_does_not_answer(guest: FakeGuest) -> None:
    attester = guest.attester()
    guest.put("generation", b"many\n")
    with pytest.raises(UnavailableError, match="no report"):
        attester.attest(DATA)
    (guest.directory / "inblob").unlink()
    guest.put("generation", b"8\n")
    with pytest.raises(UnavailableError, match="no report"):
        attester.attest(DATA)


def test_report_data_has_64_bytes(guest: FakeGuest) -> None:
    with pytest.raises(MalformedError):
        guest.attester().attest(b"short")


def test_host_without_table_needs_the_file(guest: FakeGuest, amd: SimulatedAmd) -> None:
    guest.aux = None
    with pytest.raises(UnavailableError, match="no certificate") as caught:
        guest.attester().attest(DATA)
    assert "cocoon endorsements fetch snp" in caught.value.hint
    file = HostEndorsements(
        certificates=(guest.chip.certificate,), issuer_chain=amd.chain_pem, crl=amd.crl()
    )
    assert accepted(guest, guest.attester(file).attest(DATA))


def test_outdated_certificate_in_the_table_is_passed_over(guest: FakeGuest, amd: SimulatedAmd) -> None:
    """After a firmware update the host's table still has the old certificate."""
    old = amd.chip()
    guest.aux = table((snp_table.VCEK, old.certificate), (snp_table.VLEK, b"nonsense"))
    file = HostEndorsements(
        certificates=(guest.chip.certificate,), issuer_chain=amd.chain_pem, crl=amd.crl()
    )
    evidence = guest.attester(file).attest(DATA)
    assert evidence.certificate == guest.chip.certificate
    assert accepted(guest, evidence)


def test_fresh_list_of_the_file_is_preferred(guest: FakeGuest, amd: SimulatedAmd) -> None:
    fresh = amd.crl(days=60)
    file = HostEndorsements(certificates=(guest.chip.certificate,), issuer_chain=amd.chain_pem, crl=fresh)
    assert guest.attester(file).attest(DATA).crl == fresh


def test_missing_list_and_unknown_issuer(guest: FakeGuest, amd: SimulatedAmd) -> None:
    guest.aux = table((snp_table.VCEK, guest.chip.certificate))
    with pytest.raises(UnavailableError, match="revocation list"):
        guest.attester().attest(DATA)
    guest.aux = table(
        (snp_table.VCEK, guest.chip.certificate), (snp_table.CRL, amd.crl()), (snp_table.ASK, b"x")
    )
    with pytest.raises(ConfigError, match="issuer"):
        guest.attester().attest(DATA)


def test_vlek_from_the_table(guest: FakeGuest, amd: SimulatedAmd) -> None:
    guest.chip = amd.chip(kind=SigningKey.VLEK)
    guest.fields["key_info"] = SigningKey.VLEK << 2
    guest.aux = table(
        (snp_table.VLEK, guest.chip.certificate),
        (snp_table.ASK, amd.asvk.public_bytes(Encoding.DER)),
        (snp_table.CRL, amd.crl()),
        swapped=False,
    )
    evidence = guest.attester().attest(DATA)
    assert accepted(guest, evidence, vlek_csps=frozenset({"CN=simulated.invalid"}))


def test_whole_node_is_appraised(guest: FakeGuest) -> None:
    """What the attester gives passes the verifier, and does not under another configuration."""
    seal_key, model, challenge = b"\x03" * 1216, b"\x02" * 32, b"\x04" * 32
    release = SnpRelease(name="SIMULATED snp", measurement=bytes(48), models=(model,))
    binding = KeyBinding(
        node=bytes(32),
        seal_key_hash=hashlib.sha256(seal_key).digest(),
        receipt_key=bytes(32),
        tls_spki_hash=bytes(32),
        config_hash=CONFIG,
        release_id=release.release_id,
        not_before=NOW - 60,
        not_after=NOW + 3600,
        global_id=-3,
    )
    policy = Policy(
        global_id=-3,
        releases=(release,),
        models=frozenset({model}),
        min_tcb_evaluation=1,
        tee_kinds=frozenset({TeeKind.SEV_SNP}),
        dev_root=DevPlatform.create(NOW - 60, seeded_random(b"snp root")).root_der,
        snp=open_snp_policy(roots=(guest.amd.root,)),
    )
    attester = guest.attester()
    evidence = make_evidence(attester, binding=binding, seal_public_key=seal_key, challenge=challenge)
    enclave = appraise(evidence, policy=policy, challenge=challenge, now=NOW)
    assert (enclave.tee, enclave.models, enclave.simulated) == (TeeKind.SEV_SNP, (model,), True)
    other = dataclasses.replace(binding, config_hash=b"\x05" * 32)
    evidence = make_evidence(attester, binding=other, seal_public_key=seal_key, challenge=challenge)
    with pytest.raises(EvidenceRejectedError) as caught:
        appraise(evidence, policy=policy, challenge=challenge, now=NOW)
    assert caught.value.details["failed"] == ["snp.host_data"]


@pytest.mark.parametrize("product", [Product.TURIN])
def test_turin(tmp_path: Path, product: Product) -> None:
    guest = FakeGuest(
        tmp_path / "report" / "cocoon", SimulatedAmd(product=product, now=NOW, rng=seeded_random(b"turin"))
    )
    assert accepted(guest, guest.attester().attest(DATA))


class TestTable:
    """The host's table is untrusted bytes."""

    def test_empty(self) -> None:
        assert parse_table(b"") == HostEndorsements()
        assert parse_table(bytes(24)) == HostEndorsements()
        assert parse_table(table((uuid.uuid4(), b"unknown"))) == HostEndorsements()

    @pytest.mark.parametrize(
        "blob",
        [
            bytes(23),
            table((snp_table.VCEK, b"a"), (snp_table.VCEK, b"b")),
            table((snp_table.VCEK, b"")),
            struct.pack("<16sII", snp_table.VCEK.bytes_le, 1000, 10) + bytes(24),
            struct.pack("<16sII", snp_table.VCEK.bytes_le, 0, 2**32 - 1) + bytes(24),
            struct.pack("<16sII", snp_table.VCEK.bytes_le, 0, 10),
            bytes(70_000),
            b"".join(struct.pack("<16sII", bytes([n]) * 16, 0, 1) for n in range(1, 60)) + bytes(24),
        ],
    )
    def test_malformed(self, blob: bytes) -> None:
        with pytest.raises(MalformedError):
            parse_table(blob)

    @given(st.binary(max_size=200))
    def test_any_bytes(self, blob: bytes) -> None:
        try:
            found = parse_table(blob)
        except MalformedError:
            return
        assert all(part in blob for part in found.certificates)


class TestFile:
    """The file that the host refreshes."""

    def test_read(self, tmp_path: Path) -> None:
        path = tmp_path / "snp.json"
        path.write_text(json.dumps({"certificate": "0a0b", "issuer_chain": "PEM", "crl": "0c"}))
        assert read_endorsements(path) == HostEndorsements(
            certificates=(b"\x0a\x0b",), issuer_chain="PEM", crl=b"\x0c"
        )

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(UnavailableError) as caught:
            read_endorsements(tmp_path / "missing.json")
        assert caught.value.hint

    @pytest.mark.parametrize(
        "text", ["", "[]", "{}", '{"certificate":"xx","issuer_chain":"","crl":""}', '{"certificate":"00"}']
    )
    def test_other_form(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "snp.json"
        path.write_text(text)
        with pytest.raises(ConfigError):
            read_endorsements(path)
