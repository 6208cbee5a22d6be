"""The quote parser: fields at their offsets, and nothing but `MalformedError` for bad bytes."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.tdx.quote import (
    BODY_TD10,
    BODY_TD15,
    MAX_QUOTE,
    parse_quote,
)
from cocoon_attestation.tdx.report import (
    TD10_SIZE,
    TD15_SIZE,
    TdReport,
    parse_enclave_report,
    parse_td_report,
)

HEADER = 48
V4_SIGNED = HEADER + TD10_SIZE


@pytest.fixture(scope="module")
def v4(lab: Any) -> bytes:
    quote: bytes = lab.platform.quote(lab.platform.td_report(b"\x11" * 64, b"\x22" * 48))
    return quote


@pytest.fixture(scope="module")
def v5(lab: Any) -> bytes:
    report = lab.platform.td_report(b"\x11" * 64, b"\x22" * 48)
    report = dataclasses.replace(report, tee_tcb_svn_2=b"\x33" * 16, mrservicetd=b"\x44" * 48)
    quote: bytes = lab.platform.quote(report)
    return quote


def patched(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


def test_version_4(v4: bytes) -> None:
    quote = parse_quote(v4)
    assert (quote.header.version, quote.body_type) == (4, BODY_TD10)
    assert quote.header.user_data.startswith(b"SIMULATED")
    assert quote.signed == v4[:V4_SIGNED]
    assert quote.report.report_data == v4[HEADER + 520 : V4_SIGNED] == b"\x11" * 64
    assert quote.report.rtmr3 == v4[HEADER + 472 : HEADER + 520] == b"\x22" * 48
    assert quote.report.mrtd == v4[HEADER + 136 : HEADER + 184]
    assert quote.report.td_attributes == v4[HEADER + 120 : HEADER + 128]
    assert not quote.report.is_td15
    assert (quote.raw, quote.trailing) == (v4, 0)
    assert quote.qe_report.isv_prod_id == 2
    assert quote.pck_chain.startswith(b"-----BEGIN CERTIFICATE-----")
    assert not quote.pck_chain.endswith(b"\0")


def test_version_5(v5: bytes) -> None:
    quote = parse_quote(v5)
    assert (quote.header.version, quote.body_type) == (5, BODY_TD15)
    assert quote.signed == v5[: 54 + TD15_SIZE]
    assert quote.report.is_td15
    assert quote.report.tee_tcb_svn_2 == b"\x33" * 16
    assert quote.report.mrservicetd == b"\x44" * 48


def test_trailing_bytes_are_counted_and_left_out(v4: bytes) -> None:
    quote = parse_quote(v4 + b"\0" * 70)
    assert (quote.trailing, quote.raw) == (70, v4)
    assert quote.sha256 == parse_quote(v4).sha256


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, b"\x03\x00"),
        (0, b"\x06\x00"),
        (2, b"\x03\x00"),
        (4, b"\x00\x00\x00\x00"),
        (4, b"\x82\x00\x00\x00"),
        (12, b"\x00"),
        (V4_SIGNED, b"\xff\xff\xff\xff"),
        (V4_SIGNED, b"\x00\x00\x00\x00"),
        (V4_SIGNED + 4 + 128, b"\x05\x00"),
        (V4_SIGNED + 4 + 128 + 2, b"\xff\xff\xff\x7f"),
        (V4_SIGNED + 4 + 128 + 6 + 448, b"\xff\xff"),
        (V4_SIGNED + 4 + 128 + 6 + 448 + 2 + 32, b"\x04\x00"),
        (V4_SIGNED + 4 + 128 + 6 + 448 + 2 + 32 + 2, b"\x00\x00\x00\x00"),
    ],
    ids=[
        "version-3",
        "version-6",
        "p384-key",
        "sgx",
        "unknown-tee",
        "vendor",
        "section-too-long",
        "section-empty",
        "outer-certification-type",
        "outer-certification-size",
        "auth-data-size",
        "inner-certification-type",
        "inner-certification-size",
    ],
)
def test_refused_headers_and_lengths(v4: bytes, at: int, value: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_quote(patched(v4, at, value))


@pytest.mark.parametrize(("kind", "size"), [(1, 384), (2, 648), (3, 584), (4, 885), (0, 0), (3, 2**31)])
def test_version_5_refuses_other_bodies(v5: bytes, kind: int, size: int) -> None:
    with pytest.raises(MalformedError):
        parse_quote(patched(v5, HEADER, kind.to_bytes(2, "little") + size.to_bytes(4, "little")))


def test_every_truncation_is_malformed(v4: bytes, v5: bytes) -> None:
    for quote in (v4, v5):
        for length in range(len(quote)):
            with pytest.raises(MalformedError):
                parse_quote(quote[:length])


def test_oversize_is_malformed(v4: bytes) -> None:
    assert parse_quote(v4.ljust(MAX_QUOTE, b"\0")).raw == v4
    with pytest.raises(MalformedError):
        parse_quote(v4.ljust(MAX_QUOTE + 1, b"\0"))


@given(st.binary(max_size=2000))
def test_arbitrary_bytes(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_quote(data)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(data=st.data())
def test_edited_quotes_parse_or_are_malformed(v4: bytes, v5: bytes, data: st.DataObject) -> None:
    quote = bytearray(data.draw(st.sampled_from([v4, v5])))
    for _ in range(data.draw(st.integers(1, 4))):
        quote[data.draw(st.integers(0, len(quote) - 1))] = data.draw(st.integers(0, 255))
    try:
        parsed = parse_quote(bytes(quote))
    except MalformedError:
        return
    assert bytes(quote).startswith(parsed.raw)
    assert parsed.report.to_bytes() in parsed.signed


@given(
    st.binary(min_size=TD10_SIZE, max_size=TD10_SIZE) | st.binary(min_size=TD15_SIZE, max_size=TD15_SIZE)
)
def test_td_report_round_trip(data: bytes) -> None:
    assert parse_td_report(data).to_bytes() == data


@given(st.binary(max_size=700).filter(lambda data: len(data) not in (TD10_SIZE, TD15_SIZE)))
def test_td_report_of_another_length(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_td_report(data)


def test_td_report_checks_its_fields(lab: Any) -> None:
    good: TdReport = lab.platform.td_report(bytes(64), bytes(48))
    with pytest.raises(MalformedError):
        dataclasses.replace(good, mrtd=bytes(47))
    with pytest.raises(MalformedError):
        dataclasses.replace(good, mrservicetd=bytes(48))
    with pytest.raises(MalformedError):
        dataclasses.replace(good, mrservicetd=bytes(48), tee_tcb_svn_2=bytes(15))


def test_enclave_report_fields() -> None:
    raw = bytearray(384)
    raw[48] = 0x02
    raw[256:260] = b"\x02\x00\x06\x00"
    report = parse_enclave_report(bytes(raw))
    assert report.debug
    assert (report.isv_prod_id, report.isv_svn) == (2, 6)
    with pytest.raises(MalformedError):
        parse_enclave_report(bytes(383))
