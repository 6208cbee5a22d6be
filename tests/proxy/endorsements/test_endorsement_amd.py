"""AMD's certificates and lists from a service with the real shapes, and real certificates."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cocoon_attestation.errors import ConfigError, MalformedError
from cocoon_attestation.snp.policy import DEFAULT_MINIMUM_TCB, SnpPolicy
from cocoon_attestation.snp.report import Product, SigningKey, TcbVersion, parse_snp_report
from cocoon_attestation.snp.verify import verify_snp
from cocoon_enclave.attestation.simulated_gpu_pki import seeded_random
from cocoon_enclave.attestation.simulated_snp import ReportFields, SimulatedAmd, SimulatedChip
from cocoon_enclave.attestation.snp_table import read_endorsements
from cocoon_proxy.endorsements.amd import AmdEndorsements
from cocoon_proxy.endorsements.cache import EndorsementCache
from cocoon_proxy.endorsements.fetch import Fetcher
from cocoon_proxy.endorsements.sources import EndorsementSources
from cocoon_proxy.endorsements.store import EndorsementStore
from cocoon_proxy.errors import EndorsementUnavailableError

NOW = 1_800_000_000
AT = dt.datetime.fromtimestamp(NOW, dt.UTC)


@pytest.fixture(scope="module", params=[Product.GENOA, Product.TURIN])
def vendor(request: pytest.FixtureRequest) -> SimulatedAmd:
    return SimulatedAmd(product=request.param, now=NOW, rng=seeded_random(b"kds"))


class Kds:
    """Routes of a key distribution service for one chip."""

    def __init__(self, server: Any, reply: Any, vendor: SimulatedAmd) -> None:
        self.server, self.reply, self.vendor = server, reply, vendor
        self.chip = vendor.chip()
        self.name = vendor.product.value.capitalize()
        hwid = self.chip.chip_id[:8] if vendor.product is Product.TURIN else self.chip.chip_id
        self.vcek_path = f"/vcek/v1/{self.name}/{hwid.hex()}"
        self.chain_path, self.crl_path = f"/vcek/v1/{self.name}/cert_chain", f"/vcek/v1/{self.name}/crl"
        server.on(self.vcek_path, reply(body=self.chip.certificate))
        server.on(self.chain_path, reply(body=vendor.chain_pem.encode()))
        server.on(f"/vlek/v1/{self.name}/cert_chain", reply(body=vendor.vlek_chain_pem.encode()))
        server.on(self.crl_path, reply(body=vendor.crl()))

    def report(self, **fields: Any) -> bytes:
        return self.chip.report(ReportFields(product=self.vendor.product, **fields))


@pytest.fixture
def kds(server: Any, reply: Any, vendor: SimulatedAmd) -> Kds:
    return Kds(server, reply, vendor)


Make = Callable[..., AmdEndorsements]


@pytest.fixture
def make(fetcher: Fetcher, sources: EndorsementSources, clock: Any, vendor: SimulatedAmd) -> Make:
    def build(store: EndorsementStore | None = None, **options: Any) -> AmdEndorsements:
        cache = EndorsementCache(store, clock=clock, **options)
        return AmdEndorsements(fetcher, cache, sources, roots=[vendor.root])

    return build


def policy(vendor: SimulatedAmd, **changes: Any) -> SnpPolicy:
    rules = SnpPolicy(measurements=frozenset({bytes(48)}), report_data=bytes(64), roots=(vendor.root,))
    return dataclasses.replace(rules, **changes)


async def failure(amd: AmdEndorsements, report: bytes, **arguments: Any) -> EndorsementUnavailableError:
    with pytest.raises(EndorsementUnavailableError) as caught:
        await amd.endorse(report, **arguments)
    return caught.value


async def test_endorsements_verify_the_report(kds: Kds, make: Make) -> None:
    report = kds.report()
    found = await make().endorse(report)
    _, checks = verify_snp(report, found.certificate, found.issuer_chain, found.crl, policy(kds.vendor), AT)
    assert checks.accepted
    tcb = DEFAULT_MINIMUM_TCB[kds.vendor.product]
    query = next(request.query for request in kds.server.requests if request.path == kds.vcek_path)
    expected = {
        "blSPL": str(tcb.boot_loader),
        "teeSPL": str(tcb.tee),
        "snpSPL": str(tcb.snp),
        "ucodeSPL": str(tcb.microcode),
    }
    if kds.vendor.product is Product.TURIN:
        expected["fmcSPL"] = str(tcb.fmc)
    assert query == expected


async def test_file_is_what_the_enclave_reads(kds: Kds, make: Make, tmp_path: Path) -> None:
    found = await make().endorse(kds.report())
    path = tmp_path / "snp.json"
    path.write_text(json.dumps(found.to_json()))
    read = read_endorsements(path)
    assert (read.certificates, read.issuer_chain, read.crl) == (
        (found.certificate,),
        found.issuer_chain,
        found.crl,
    )


async def test_second_question_asks_nobody(kds: Kds, make: Make, tmp_path: Path) -> None:
    report = kds.report()
    first = await make(EndorsementStore(tmp_path)).endorse(report)
    assert await make(EndorsementStore(tmp_path)).endorse(report) == first
    assert await make(EndorsementStore(tmp_path), offline=True).endorse(report) == first
    assert len(kds.server.requests) == 3


async def test_certificate_of_the_guest_is_preferred(kds: Kds, make: Make) -> None:
    found = await make().endorse(kds.report(), certificate=kds.chip.certificate)
    assert found.certificate == kds.chip.certificate
    assert kds.vcek_path not in kds.server.paths()


async def test_certificate_that_does_not_fit_is_replaced(kds: Kds, make: Make) -> None:
    other = kds.vendor.chip()
    old = kds.vendor.chip(
        hwid=kds.chip.chip_id[: 8 if kds.vendor.product is Product.TURIN else 64],
        tcb=TcbVersion(boot_loader=1, tee=0, snp=1, microcode=1),
    )
    for wrong in (other, old):
        found = await make().endorse(kds.report(), certificate=wrong.certificate)
        assert found.certificate == kds.chip.certificate


async def test_vlek_comes_with_the_guest(kds: Kds, make: Make) -> None:
    chip = kds.vendor.chip(kind=SigningKey.VLEK)
    report = chip.report(ReportFields(product=kds.vendor.product, key_info=SigningKey.VLEK << 2))
    found = await make().endorse(report, certificate=chip.certificate)
    rules = policy(kds.vendor, vlek_csps=frozenset({"CN=simulated.invalid"}))
    _, checks = verify_snp(report, found.certificate, found.issuer_chain, found.crl, rules, AT)
    assert checks.accepted
    with pytest.raises(ConfigError, match="VLEK"):
        await make().endorse(report)


async def test_masked_chip_has_no_certificate_to_ask_for(kds: Kds, make: Make) -> None:
    masked = SimulatedChip(key=kds.chip.key, certificate=kds.chip.certificate, chip_id=bytes(64))
    with pytest.raises(ConfigError, match="masked"):
        await make().endorse(masked.report(ReportFields(product=kds.vendor.product)))


async def test_report_of_version_2_needs_the_product(kds: Kds, make: Make) -> None:
    if kds.vendor.product is Product.TURIN:
        pytest.skip("Turin has no reports of version 2")
    report = kds.report(version=2)
    with pytest.raises(ConfigError, match="not known"):
        await make().endorse(report)
    assert (await make().endorse(report, product=kds.vendor.product)).certificate == kds.chip.certificate


async def test_product_without_a_root(kds: Kds, make: Make) -> None:
    with pytest.raises(ConfigError, match="not known"):
        await make().endorse(kds.report(cpuid=(0x19, 0x01, 0x01)))


async def test_report_without_a_key(kds: Kds, make: Make) -> None:
    with pytest.raises(ConfigError, match="not signed"):
        await make().endorse(kds.report(key_info=7 << 2))
    with pytest.raises(MalformedError):
        await make().endorse(b"short")


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda kds, other: other.chip().certificate,
        lambda kds, other: kds.vendor.chip().certificate,
        lambda kds, other: kds.chip.certificate[:-1],
        lambda kds, other: kds.chip.certificate[:-8] + bytes(8),
        lambda kds, other: pem(kds.vendor.ask),
        lambda kds, other: b"",
        lambda kds, other: b"<html>",
        lambda kds, other: b"x" * 9000,
    ],
)
async def test_wrong_vcek_is_refused(kds: Kds, make: Make, reply: Any, wrong: Any) -> None:
    other = SimulatedAmd(product=kds.vendor.product, now=NOW, rng=seeded_random(b"look-alike"))
    kds.server.on(kds.vcek_path, reply(body=wrong(kds, other)))
    await failure(make(), kds.report())


async def test_expired_vcek_is_refused(kds: Kds, make: Make, reply: Any, clock: Any) -> None:
    clock.now += 366 * 86_400
    kds.server.on(kds.crl_path, reply(body=kds.vendor.crl(days=400)))
    assert "not in date" in str(await failure(make(), kds.report()))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda vendor, other: pem(vendor.ask),
        lambda vendor, other: pem(vendor.ark) + pem(vendor.ask),
        lambda vendor, other: pem(vendor.ask) + pem(other.ark),
        lambda vendor, other: pem(other.ask) + pem(vendor.ark),
        lambda vendor, other: pem(vendor.ask) + pem(vendor.ask) + pem(vendor.ark),
        lambda vendor, other: b"",
        lambda vendor, other: b"\xff" * 10,
        lambda vendor, other: b"x" * 40_000,
    ],
)
async def test_wrong_chain_is_refused(kds: Kds, make: Make, reply: Any, wrong: Any) -> None:
    other = SimulatedAmd(product=kds.vendor.product, now=NOW, rng=seeded_random(b"look-alike"))
    kds.server.on(kds.chain_path, reply(body=wrong(kds.vendor, other)))
    await failure(make(), kds.report())


@pytest.mark.parametrize(
    "wrong",
    [
        lambda vendor, other: other.crl(),
        lambda vendor, other: vendor.crl()[:-8] + bytes(8),
        lambda vendor, other: vendor.crl(days=-0.5),
        lambda vendor, other: b"",
        lambda vendor, other: b"<html>",
    ],
)
async def test_wrong_list_is_refused(kds: Kds, make: Make, reply: Any, wrong: Any) -> None:
    other = SimulatedAmd(product=kds.vendor.product, now=NOW, rng=seeded_random(b"look-alike"))
    kds.server.on(kds.crl_path, reply(body=wrong(kds.vendor, other)))
    await failure(make(), kds.report())


async def test_list_in_pem_is_read_too(kds: Kds, make: Make, reply: Any) -> None:
    crl = x509.load_der_x509_crl(kds.vendor.crl())
    kds.server.on(kds.crl_path, reply(body=crl.public_bytes(Encoding.PEM)))
    assert (await make().endorse(kds.report())).crl == crl.public_bytes(Encoding.DER)


async def test_list_that_revokes_is_handed_on(kds: Kds, make: Make, reply: Any) -> None:
    """A revocation is an answer, not a fault of the service: verification must see it."""
    crl = kds.vendor.crl(revoked=[kds.vendor.ask.serial_number])
    kds.server.on(kds.crl_path, reply(body=crl))
    report = kds.report()
    found = await make().endorse(report)
    _, checks = verify_snp(report, found.certificate, found.issuer_chain, found.crl, policy(kds.vendor), AT)
    assert [check.id for check in checks.failed] == ["snp.crl"]


@pytest.mark.parametrize("status", [404, 429, 500, 307])
async def test_service_that_fails(kds: Kds, make: Make, reply: Any, status: int) -> None:
    kds.server.on(kds.vcek_path, reply(status=status, headers={"Location": "https://example.org/"}))
    error = await failure(make(), kds.report())
    assert (error.exit_code, str(status) in str(error)) == (40, True)


async def test_busy_service_is_left_alone(kds: Kds, make: Make, reply: Any) -> None:
    amd = make()
    kds.server.on(kds.vcek_path, reply(status=429))
    for _ in range(3):
        await failure(amd, kds.report())
    assert kds.server.paths().count(kds.vcek_path) == 3  # the attempts of the first question only


SAMPLES = Path(
    os.environ.get("COCOON_TEST_VECTORS") or Path(__file__).resolve().parents[4] / "shared" / "vectors"
)


@pytest.mark.skipif(
    not (SAMPLES / "INDEX.json").is_file(), reason="the real samples are not on this machine"
)
@pytest.mark.parametrize(
    ("sample", "name", "chain"), [("genoa_v3", "Genoa", "genoa"), ("turin_v5", "Turin", "turin_vcek")]
)
async def test_real_certificates(
    server: Any,
    reply: Any,
    fetcher: Fetcher,
    sources: EndorsementSources,
    clock: Any,
    sample: str,
    name: str,
    chain: str,
) -> None:
    """Genuine reports and certificates under AMD's real roots; no current list is at hand, which is said."""
    folder = SAMPLES / "snp"
    report = (folder / f"{sample}.report.bin").read_bytes()
    vcek = (folder / f"{sample}.vcek.der").read_bytes()
    at = dt.datetime(2026, 6, 1, tzinfo=dt.UTC)
    clock.now = at.timestamp()
    server.on(
        f"/vcek/v1/{name}/cert_chain", reply(body=(folder / "ca" / f"ask_ark_{chain}.pem").read_bytes())
    )
    size = 8 if name == "Turin" else 64
    path = f"/vcek/v1/{name}/{report[0x1A0 : 0x1A0 + size].hex()}"
    server.on(path, reply(body=vcek))
    amd = AmdEndorsements(fetcher, EndorsementCache(None, clock=clock), sources)
    with pytest.raises(EndorsementUnavailableError, match=r"/crl"):
        await amd.endorse(report)

    parsed, product = parse_snp_report(report), Product(name.lower())
    assert await amd.vcek(parsed, product) == vcek
    _, checks = verify_snp(
        report, vcek, await amd.issuers(product), None, SnpPolicy.dangerous_genuine_only(), at
    )
    assert not checks.failed
