"""The collateral parser and the seam to dcap-qvl."""

from __future__ import annotations

import base64
import dataclasses
import json
from typing import Any

import dcap_qvl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.evidence import TdxCollateralBytes, parse_evidence
from cocoon_attestation.tdx import dcap
from cocoon_attestation.tdx.collateral import parse_chain, parse_collateral
from cocoon_attestation.tdx.dcap import DcapError, dcap_verify, pck_family
from cocoon_attestation.tdx.quote import parse_quote


@pytest.fixture(scope="module")
def source(lab: Any) -> TdxCollateralBytes:
    cpu = parse_evidence(lab.evidence()).cpu
    collateral: TdxCollateralBytes = cpu.collateral  # type: ignore[union-attr,assignment]
    return collateral


def changed(source: TdxCollateralBytes, field: str, value: Any) -> TdxCollateralBytes:
    return dataclasses.replace(source, **{field: value})


def with_json(source: TdxCollateralBytes, field: str, **changes: object) -> TdxCollateralBytes:
    document = json.loads(getattr(source, field))
    for key, value in changes.items():
        if value is None:
            del document[key]
        else:
            document[key] = value
    return changed(source, field, json.dumps(document))


def test_fields(lab: Any, source: TdxCollateralBytes) -> None:
    collateral = parse_collateral(source)
    assert (collateral.tcb_info.id, collateral.tcb_info.version) == ("TDX", 3)
    assert (collateral.qe_identity.id, collateral.qe_identity.version) == ("TD_QE", 2)
    assert collateral.tcb_info.issue_date == lab.now - 300
    assert collateral.tcb_info.next_update == lab.now - 300 + 30 * 86_400
    assert collateral.expires_at == collateral.root_crl.next_update == collateral.pck_crl.next_update
    assert collateral.tcb_info.fmspc == lab.platform.tcb.fmspc
    assert collateral.tcb_info.text.decode() == source.tcb_info
    assert collateral.qe_identity.mrsigner == lab.platform.qe_mrsigner
    assert collateral.qe_identity.isv_prod_id == 2
    assert [len(collateral.pck_crl_chain), len(collateral.tcb_info.chain)] == [2, 2]


@pytest.mark.parametrize("key", ["id", "version", "issueDate", "nextUpdate", "fmspc", "pceId"])
def test_missing_field_of_the_tcb_info(source: TdxCollateralBytes, key: str) -> None:
    with pytest.raises(MalformedError):
        parse_collateral(with_json(source, "tcb_info", **{key: None}))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("version", "3"),
        ("version", True),
        ("version", -1),
        ("version", 3.0),
        ("tcbEvaluationDataNumber", 2**31),
        ("issueDate", "2026-05-20"),
        ("issueDate", "2026-05-20T01:16:27+02:00"),
        ("issueDate", 5),
        ("fmspc", "c0c0"),
        ("fmspc", "zzzzzzzzzzzz"),
        ("fmspc", " c0c00000000"),
    ],
)
def test_wrong_field_of_the_tcb_info(source: TdxCollateralBytes, key: str, value: object) -> None:
    with pytest.raises(MalformedError):
        parse_collateral(with_json(source, "tcb_info", **{key: value}))


@pytest.mark.parametrize("key", ["miscselect", "miscselectMask", "attributes", "mrsigner", "isvprodid"])
def test_missing_field_of_the_qe_identity(source: TdxCollateralBytes, key: str) -> None:
    with pytest.raises(MalformedError):
        parse_collateral(with_json(source, "qe_identity", **{key: None}))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        '{"id":"TDX","id":"TDX"}',
        '{"a":{"b":1,"b":2}}',
        '{"version":NaN}',
        '{"version":Infinity}',
        '{"version":' + "9" * 5000 + "}",
        "[" * 100_000,
        '{"id":"TDX"}trailing',
    ],
)
def test_json_that_readers_could_disagree_on(source: TdxCollateralBytes, text: str) -> None:
    for field in ("tcb_info", "qe_identity"):
        with pytest.raises(MalformedError):
            parse_collateral(changed(source, field, text))


@pytest.mark.parametrize("field", ["root_ca_crl", "pck_crl"])
@pytest.mark.parametrize("value", [b"", b"\x30\x00", b"\xff" * 100])
def test_lists_that_do_not_decode(source: TdxCollateralBytes, field: str, value: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_collateral(changed(source, field, value))


@pytest.mark.parametrize(
    "field", ["pck_crl_issuer_chain", "tcb_info_issuer_chain", "qe_identity_issuer_chain"]
)
@pytest.mark.parametrize(
    "value", ["", "text", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_chains_that_do_not_decode(source: TdxCollateralBytes, field: str, value: str) -> None:
    with pytest.raises(MalformedError):
        parse_collateral(changed(source, field, value))


def test_chain_length_is_bounded(lab: Any) -> None:
    pem = lab.platform.root.pem.encode()
    assert len(parse_chain(pem * 4, "chain")) == 4
    with pytest.raises(MalformedError):
        parse_chain(pem * 5, "chain")


@given(st.binary(max_size=300))
def test_arbitrary_chains(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_chain(data, "chain")


@given(data=st.data())
def test_edited_certificates_parse_or_are_malformed(lab: Any, data: st.DataObject) -> None:
    der = bytearray(lab.platform.root_der)
    for _ in range(data.draw(st.integers(1, 3))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    body = base64.encodebytes(bytes(der))
    pem = b"-----BEGIN CERTIFICATE-----\n" + body + b"-----END CERTIFICATE-----\n"
    try:
        chain = parse_chain(pem, "chain")
    except MalformedError:
        return
    assert len(chain) == 1


# --- dcap-qvl -------------------------------------------------------------------------------------------


def test_library_result(lab: Any, source: TdxCollateralBytes) -> None:
    report = lab.platform.td_report(b"\x01" * 64, b"\x02" * 48)
    quote = lab.platform.quote(report)
    result = dcap_verify(quote, source, root=lab.platform.root_der, now=lab.now)
    assert result.status == "UpToDate"
    assert result.ppid == lab.platform.ppid
    assert result.report["report_data"] == b"\x01" * 64
    assert result.evaluation == 19
    assert pck_family(parse_quote(quote).pck_chain) == (result.fmspc, result.pce_id)


def test_library_refusal(lab: Any, source: TdxCollateralBytes) -> None:
    quote = lab.platform.quote(lab.platform.td_report(bytes(64), bytes(48)))
    with pytest.raises(DcapError) as caught:
        dcap_verify(quote[:-3000], source, root=lab.platform.root_der, now=lab.now)
    assert not caught.value.about_tcb


def test_panic_of_the_library_is_a_refusal(
    lab: Any, source: TdxCollateralBytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    panic = type("PanicException", (BaseException,), {"__module__": "pyo3_runtime"})

    def panics(root: bytes) -> None:
        raise panic("index out of bounds")

    monkeypatch.setattr(dcap_qvl, "QuoteVerifier", panics)
    with pytest.raises(DcapError):
        dcap_verify(b"", source, root=lab.platform.root_der, now=lab.now)


def test_interrupts_are_not_swallowed(
    lab: Any, source: TdxCollateralBytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(root: bytes) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(dcap_qvl, "QuoteVerifier", interrupted)
    with pytest.raises(KeyboardInterrupt):
        dcap_verify(b"", source, root=lab.platform.root_der, now=lab.now)


def test_answer_in_an_unknown_form(
    lab: Any, source: TdxCollateralBytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(claims: object) -> None:
        raise KeyError("report")

    monkeypatch.setattr(dcap, "_result", unknown)
    quote = lab.platform.quote(lab.platform.td_report(bytes(64), bytes(48)))
    with pytest.raises(DcapError):
        dcap_verify(quote, source, root=lab.platform.root_der, now=lab.now)


def test_chain_without_sgx_extension(lab: Any) -> None:
    with pytest.raises(DcapError):
        pck_family(lab.platform.root.pem.encode())
