"""Intel's collateral from a service with the real shapes, and from the real answers of one day."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cocoon.v1 import evidence_pb2
from cocoon_attestation.errors import ConfigError, MalformedError
from cocoon_attestation.evidence import TdxCollateralBytes
from cocoon_attestation.tdx.collateral import parse_collateral
from cocoon_enclave.attestation.simulated import DevPlatform
from cocoon_enclave.attestation.simulated_gpu_pki import seeded_random
from cocoon_enclave.attestation.tdx import file_collateral
from cocoon_proxy.endorsements.cache import EndorsementCache
from cocoon_proxy.endorsements.collateral import (
    collateral_from_json,
    collateral_to_json,
    collateral_to_proto,
)
from cocoon_proxy.endorsements.fetch import Fetcher
from cocoon_proxy.endorsements.intel import IntelEndorsements, IntelTee, PckCa, crl_der
from cocoon_proxy.endorsements.sources import EndorsementSources
from cocoon_proxy.endorsements.statements import split_envelope
from cocoon_proxy.endorsements.store import EndorsementStore
from cocoon_proxy.errors import EndorsementUnavailableError

NOW = 1_800_000_000
FMSPC = bytes.fromhex("c0c000000000")
TCB, QE = "/tdx/certification/v4/tcb", "/tdx/certification/v4/qe/identity"
CRL, ROOT = "/sgx/certification/v4/pckcrl", "/IntelSGXRootCA.der"


@pytest.fixture(scope="module")
def machine() -> DevPlatform:
    return DevPlatform.create(NOW - 86_400, seeded_random(b"endorsement tests"))


class Pcs:
    """Routes of a PCS that speaks for the simulated root."""

    def __init__(self, server: Any, reply: Any, platform: DevPlatform) -> None:
        self.server, self.reply = server, reply
        self.serve(platform.collateral(NOW))

    def serve(self, collateral: evidence_pb2.TdxCollateral) -> None:
        self.collateral = collateral
        tcb = self.envelope("tcbInfo", collateral.tcb_info, collateral.tcb_info_signature)
        qe = self.envelope("enclaveIdentity", collateral.qe_identity, collateral.qe_identity_signature)
        chain = collateral.tcb_info_issuer_chain
        self.on(TCB, tcb, "TCB-Info-Issuer-Chain", chain)
        self.on(QE, qe, "SGX-Enclave-Identity-Issuer-Chain", chain)
        self.on(CRL, collateral.pck_crl, "SGX-PCK-CRL-Issuer-Chain", collateral.pck_crl_issuer_chain)
        self.server.on(ROOT, self.reply(body=collateral.root_ca_crl))

    @staticmethod
    def envelope(member: str, text: str, signature: bytes) -> bytes:
        return f'{{"{member}":{text},"signature":"{signature.hex()}"}}'.encode()

    def on(self, path: str, body: bytes, header: str, chain: str) -> None:
        self.server.on(path, self.reply(body=body, headers={header: quote(chain, safe="")}))

    @property
    def expected(self) -> TdxCollateralBytes:
        return TdxCollateralBytes(
            **{f.name: getattr(self.collateral, f.name) for f in dataclasses.fields(TdxCollateralBytes)}
        )


@pytest.fixture
def pcs(server: Any, reply: Any, machine: DevPlatform) -> Pcs:
    return Pcs(server, reply, machine)


Make = Callable[..., IntelEndorsements]


@pytest.fixture
def make(fetcher: Fetcher, sources: EndorsementSources, clock: Any, machine: DevPlatform) -> Make:
    def build(store: EndorsementStore | None = None, **options: Any) -> IntelEndorsements:
        cache = EndorsementCache(store, clock=clock, **options)
        return IntelEndorsements(fetcher, cache, sources, root=machine.root_der)

    return build


async def failure(intel: IntelEndorsements, **arguments: Any) -> EndorsementUnavailableError:
    with pytest.raises(EndorsementUnavailableError) as caught:
        await intel.collateral(FMSPC, **arguments)
    assert caught.value.exit_code == 40
    return caught.value


async def test_collateral_is_what_intel_signed(pcs: Pcs, make: Make) -> None:
    found = await make().collateral(FMSPC)
    assert found == pcs.expected
    assert parse_collateral(found).tcb_info.fmspc == FMSPC
    queries = {request.path: request.query for request in pcs.server.requests}
    assert queries[TCB] == {"fmspc": "c0c000000000", "update": "early"}
    assert queries[QE] == {"update": "early"}
    assert queries[CRL] == {"ca": "platform", "encoding": "der"}
    assert queries[ROOT] == {}


async def test_second_question_asks_nobody(pcs: Pcs, make: Make) -> None:
    intel = make()
    assert await intel.collateral(FMSPC) == await intel.collateral(FMSPC)
    assert len(pcs.server.requests) == 4


async def test_collateral_appraises(pcs: Pcs, make: Make, machine: DevPlatform, tmp_path: Path) -> None:
    """The message, the file and the enclave's reader agree."""
    found = await make().collateral(FMSPC)
    assert collateral_to_proto(found) == pcs.collateral
    path = tmp_path / "collateral.json"
    path.write_text(json.dumps(collateral_to_json(found)))
    assert file_collateral(path)() == pcs.collateral
    assert collateral_from_json(path.read_bytes()) == found


@pytest.mark.parametrize("form", ["der", "pem", "hex", "HEX", "hex with line end"])
async def test_revocation_lists_come_in_many_forms(pcs: Pcs, make: Make, reply: Any, form: str) -> None:
    der = pcs.collateral.pck_crl
    body = {
        "der": der,
        "pem": x509.load_der_x509_crl(der).public_bytes(Encoding.PEM),
        "hex": der.hex().encode(),
        "HEX": der.hex().upper().encode(),
        "hex with line end": der.hex().encode() + b"\n",
    }[form]
    pcs.on(CRL, body, "SGX-PCK-CRL-Issuer-Chain", pcs.collateral.pck_crl_issuer_chain)
    pcs.server.on(ROOT, reply(body=pcs.collateral.root_ca_crl.hex().encode()))
    assert await make().collateral(FMSPC) == pcs.expected


async def test_old_name_of_the_header(pcs: Pcs, make: Make) -> None:
    body = pcs.envelope("tcbInfo", pcs.collateral.tcb_info, pcs.collateral.tcb_info_signature)
    pcs.on(TCB, body, "SGX-TCB-Info-Issuer-Chain", pcs.collateral.tcb_info_issuer_chain)
    assert await make().collateral(FMSPC) == pcs.expected


async def test_text_is_never_encoded_again(pcs: Pcs, make: Make, machine: DevPlatform) -> None:
    """White space inside and around, and the order of members, stay as Intel wrote them."""
    from cocoon_enclave.attestation import simulated_pki as pki

    text = pcs.collateral.tcb_info.replace(",", " ,\n ", 3)
    signature = pki.sign_raw(machine.tcb_signer.key, text.encode())
    body = f' {{ "signature" : "{signature.hex()}" , "tcbInfo" :\t{text} }} \n'.encode()
    pcs.on(TCB, body, "TCB-Info-Issuer-Chain", pcs.collateral.tcb_info_issuer_chain)
    assert (await make().collateral(FMSPC)).tcb_info == text


@pytest.mark.parametrize(
    ("path", "change"),
    [
        (TCB, lambda body: body.replace(b'"tcbInfo"', b'"other"')),
        (TCB, lambda body: body.replace(b'"UpToDate"', b'"Revoked"')),
        (TCB, lambda body: body[:-4] + b'00"}'),
        (TCB, lambda body: b'{"tcbInfo":1,"signature":"' + b"00" * 64 + b'"}'),
        (TCB, lambda body: body.replace(b'"signature"', b'"extra":1,"signature"')),
        (TCB, lambda body: body.replace(b'"signature"', b'"tcbInfo":{},"signature"')),
        (TCB, lambda body: b"<html>busy</html>"),
        (TCB, lambda body: b""),
        (TCB, lambda body: b"\xff\xfe"),
        (TCB, lambda body: b"[" * 10_000),
        (QE, lambda body: body.replace(b'"enclaveIdentity"', b'"tcbInfo"')),
        (QE, lambda body: body[: len(body) // 2]),
        (CRL, lambda body: body[:-1]),
        (CRL, lambda body: body[:-8] + b"\x00" * 8),
        (CRL, lambda body: b"abc"),
        (CRL, lambda body: b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n"),
        (ROOT, lambda body: b""),
        (ROOT, lambda body: body[:-8] + b"\x00" * 8),
    ],
)
async def test_wrong_content_is_refused(
    pcs: Pcs, make: Make, reply: Any, path: str, change: Callable[[bytes], bytes]
) -> None:
    original = pcs.server.routes[path](None)
    pcs.server.on(path, reply(body=change(original.body), headers=original.headers))
    error = await failure(make())
    assert error.details["reason"] in ("malformed", "rejected")


@pytest.mark.parametrize("path", [TCB, QE, CRL])
@pytest.mark.parametrize("chain", ["", "not PEM", "%ff%fe", "-----BEGIN CERTIFICATE-----", "A" * 200_000])
async def test_wrong_issuer_chain_is_refused(
    pcs: Pcs, make: Make, reply: Any, path: str, chain: str
) -> None:
    original = pcs.server.routes[path](None)
    (name,) = original.headers
    pcs.server.on(path, reply(body=original.body, headers={name: chain} if chain else {}))
    await failure(make())


async def test_statements_of_another_root_are_refused(pcs: Pcs, make: Make) -> None:
    other = DevPlatform.create(NOW - 86_400, seeded_random(b"look-alike"))
    pcs.serve(other.collateral(NOW))
    assert "does not end in the trusted root" in str(await failure(make()))


async def test_statement_for_another_platform_is_refused(pcs: Pcs, make: Make) -> None:
    with pytest.raises(EndorsementUnavailableError, match="another platform family"):
        await make().collateral(bytes.fromhex("90c06f000000"))


async def test_tdx_and_sgx_do_not_mix(pcs: Pcs, make: Make) -> None:
    for path in (TCB, QE):
        pcs.server.routes[path.replace("tdx", "sgx")] = pcs.server.routes[path]
    assert "another kind or version" in str(await failure(make(), tee=IntelTee.SGX))


async def test_list_of_the_other_authority_is_refused(pcs: Pcs, make: Make) -> None:
    error = await failure(make(), ca=PckCa.PROCESSOR)
    assert "another authority" in str(error)


async def test_root_list_in_place_of_the_pck_list_is_refused(
    pcs: Pcs, make: Make, machine: DevPlatform
) -> None:
    pcs.on(CRL, pcs.collateral.root_ca_crl, "SGX-PCK-CRL-Issuer-Chain", machine.root.pem)
    assert "another authority" in str(await failure(make()))


@pytest.mark.parametrize("shift", [-40 * 86_400, 40 * 86_400])
async def test_statements_out_of_date_are_refused(
    pcs: Pcs, make: Make, machine: DevPlatform, shift: int
) -> None:
    pcs.serve(machine.collateral(NOW + shift))
    assert "not in date" in str(await failure(make()))


@pytest.mark.parametrize("status", [404, 429, 500, 503, 302])
async def test_service_that_fails(pcs: Pcs, make: Make, reply: Any, status: int) -> None:
    pcs.server.on(TCB, reply(status=status, headers={"Location": "https://example.org/"}))
    await failure(make())


async def test_oversize_answer_is_refused(pcs: Pcs, make: Make, reply: Any) -> None:
    pcs.server.on(TCB, reply(body=b" " * 200_000))
    assert "longer than" in str(await failure(make()))


async def test_good_statements_survive_a_bad_day(
    pcs: Pcs, make: Make, machine: DevPlatform, clock: Any, reply: Any, tmp_path: Path
) -> None:
    intel = make(EndorsementStore(tmp_path), retry_s=0)
    first = await intel.collateral(FMSPC)
    clock.now += 7 * 3600
    pcs.server.on(TCB, reply(status=500))
    pcs.server.on(QE, reply(body=b"nonsense", headers={"SGX-Enclave-Identity-Issuer-Chain": "x"}))
    assert await intel.collateral(FMSPC) == first
    assert await make(EndorsementStore(tmp_path), offline=True).collateral(FMSPC) == first
    pcs.serve(machine.collateral(NOW + 7 * 3600, evaluation=20))
    assert (await intel.collateral(FMSPC)).tcb_info != first.tcb_info


async def test_rollback_is_refused(pcs: Pcs, make: Make, machine: DevPlatform, clock: Any) -> None:
    intel = make()
    await intel.collateral(FMSPC)
    clock.now += 25 * 3600
    pcs.serve(machine.collateral(NOW + 24 * 3600, evaluation=18))
    assert "older statement" in str(await failure(intel))


class TestStapled:
    """A node's own collateral is taken if it is as good as ours would be."""

    async def test_young_one_is_preferred(self, pcs: Pcs, make: Make) -> None:
        found = await make().prefer(pcs.expected, FMSPC, PckCa.PLATFORM, now=NOW, min_evaluation=19)
        assert found is not None
        assert found == pcs.expected
        assert pcs.server.requests == []

    async def test_none_means_fetch(self, pcs: Pcs, make: Make) -> None:
        assert await make().prefer(None, FMSPC, PckCa.PLATFORM, now=NOW) == pcs.expected
        assert len(pcs.server.requests) == 4

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"days": 30, "now": NOW - 2 * 86_400}, "more than a day ago"),
            ({"evaluation": 18}, "below the minimum"),
            ({"now": NOW - 40 * 86_400}, "not in date"),
        ],
    )
    async def test_old_one_is_replaced(
        self, pcs: Pcs, make: Make, machine: DevPlatform, change: dict[str, int], reason: str
    ) -> None:
        intel, fresh = make(), pcs.expected
        arguments = dict(change)
        message = machine.collateral(arguments.pop("now", NOW), **arguments)  # type: ignore[arg-type]
        names = [f.name for f in dataclasses.fields(TdxCollateralBytes)]
        stapled = TdxCollateralBytes(**{name: getattr(message, name) for name in names})
        problem = intel.stapled_problem(stapled, FMSPC, PckCa.PLATFORM, now=NOW, min_evaluation=19)
        assert problem is not None
        assert reason in problem
        found = await intel.prefer(stapled, FMSPC, PckCa.PLATFORM, now=NOW, min_evaluation=19)
        assert found == fresh

    @pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(TdxCollateralBytes)])
    async def test_damaged_one_is_replaced(self, pcs: Pcs, make: Make, field: str) -> None:
        good = getattr(pcs.expected, field)
        bad = good[:-40] + good[-20:] if len(good) > 64 else bytes(64)
        stapled = dataclasses.replace(pcs.expected, **{field: bad})  # type: ignore[arg-type]
        assert await make().prefer(stapled, FMSPC, PckCa.PLATFORM, now=NOW) == pcs.expected
        assert len(pcs.server.requests) == 4

    async def test_bad_one_and_no_service(self, make: Make, machine: DevPlatform) -> None:
        message = machine.collateral(NOW - 40 * 86_400)
        names = [f.name for f in dataclasses.fields(TdxCollateralBytes)]
        stapled = TdxCollateralBytes(**{name: getattr(message, name) for name in names})
        with pytest.raises(EndorsementUnavailableError):
            await make().prefer(stapled, FMSPC, PckCa.PLATFORM, now=NOW)


async def test_fmspc_has_six_bytes(make: Make) -> None:
    with pytest.raises(ConfigError):
        await make().collateral(b"\x00" * 5)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d | {"extra": ""},
        lambda d: {k: v for k, v in d.items() if k != "pck_crl"},
        lambda d: d | {"pck_crl": "xyz"},
        lambda d: d | {"tcb_info": 7},
        lambda d: d | {"tcb_info": "é"},
        lambda d: [],
    ],
)
def test_collateral_file_of_another_form(pcs: Pcs, change: Callable[[Any], Any]) -> None:
    document = collateral_to_json(pcs.expected)
    with pytest.raises(MalformedError):
        collateral_from_json(json.dumps(change(document)).encode())


@pytest.mark.parametrize("body", [b"abcdefABCDEF0", b"-----BEGIN nothing"])
def test_list_that_only_looks_like_a_form(body: bytes) -> None:
    with pytest.raises(MalformedError):
        crl_der(body)


SAMPLES = Path(
    os.environ.get("COCOON_TEST_VECTORS") or Path(__file__).resolve().parents[4] / "shared" / "vectors"
)


@pytest.mark.skipif(
    not (SAMPLES / "INDEX.json").is_file(), reason="the real samples are not on this machine"
)
class TestRealAnswers:
    """What Intel's service sent on 2026-04-24, with the headers it sends, under Intel's real root."""

    AT = 1_777_010_000  # 2026-04-24T05:53Z
    FMSPC = bytes.fromhex("90c06f000000")

    @pytest.fixture
    def intel(
        self, server: Any, reply: Any, fetcher: Fetcher, sources: EndorsementSources, clock: Any
    ) -> IntelEndorsements:
        raw = SAMPLES / "tdx" / "pcs_raw"
        root = (raw / "intel_sgx_root_ca.pem").read_text()
        signer = (raw / "tcb_signing_2025_2032.pem").read_text()
        platform = (raw / "pck_platform_ca.pem").read_text()
        for path, file, header, chain in (
            (TCB, "tcb_90c06f000000_2026-04-24.json", "TCB-Info-Issuer-Chain", signer),
            (QE, "td_qe_identity_2026-04-24.json", "SGX-Enclave-Identity-Issuer-Chain", signer),
            (CRL, "pck_platform_2026-04-24.crl", "SGX-PCK-CRL-Issuer-Chain", platform),
        ):
            headers = {header: quote(chain + root, safe="")}
            server.on(path, reply(body=(raw / file).read_bytes(), headers=headers))
        server.on(ROOT, reply(body=(raw / "root_ca_2026-04-24.crl").read_bytes()))
        clock.now = float(self.AT)
        return IntelEndorsements(fetcher, EndorsementCache(None, clock=clock), sources)

    async def test_answers_are_accepted(self, intel: IntelEndorsements) -> None:
        found = parse_collateral(await intel.collateral(self.FMSPC))
        assert found.tcb_info.evaluation == 18
        assert (found.tcb_info.fmspc, found.qe_identity.id) == (self.FMSPC, "TD_QE")

    async def test_answers_expire(self, intel: IntelEndorsements, clock: Any) -> None:
        clock.now += 40 * 86_400
        with pytest.raises(EndorsementUnavailableError):
            await intel.collateral(self.FMSPC)

    async def test_whole_collateral_of_the_samples_is_accepted_as_stapled(
        self, intel: IntelEndorsements
    ) -> None:
        for file in sorted((SAMPLES / "tdx" / "collateral").glob("90c06f000000_tdx_2026-05*.json")):
            stapled = collateral_from_json(file.read_bytes())
            at = parse_collateral(stapled).tcb_info.issue_date + 3600
            problem = intel.stapled_problem(stapled, self.FMSPC, PckCa.PLATFORM, now=at, min_evaluation=19)
            assert problem is None
            assert intel.stapled_problem(stapled, self.FMSPC, PckCa.PROCESSOR, now=at) is not None

    def test_inner_text_is_exact(self) -> None:
        body = (SAMPLES / "tdx" / "pcs_raw" / "tcb_90c06f000000_2026-04-24.json").read_bytes()
        signed = split_envelope(body, "tcbInfo")
        assert body.startswith(b'{"tcbInfo":' + signed.text + b',"signature":"')
