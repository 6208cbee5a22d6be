"""Genuine evidence cut at every length and changed at many places: refused, never misread, never a crash.

Some bytes are signed by nobody: bytes behind a quote, line ends of PEM text, event data. Where such a byte
changes, acceptance is right, and then what was read must be the same as before.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.gpu.report import parse_gpu_report
from cocoon_attestation.gpu.rim import Rim, parse_rim, verify_rim
from cocoon_attestation.sgx.quote import parse_sgx_quote
from cocoon_attestation.snp.report import SIGNED_SIZE
from cocoon_attestation.tdx.collateral import load_collateral
from cocoon_attestation.tdx.quote import parse_quote
from cocoon_attestation.vendor.eventlog import verify_raw_eventlog
from cocoon_attestation.vendor.gpu import GpuOptions, read_devices, verify_raw_gpu
from cocoon_attestation.vendor.outcome import Outcome, OutcomeVerdict
from cocoon_attestation.vendor.quote import QuoteOptions, verify_raw_quote
from cocoon_attestation.vendor.snp import SnpOptions, verify_raw_snp

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from tests.conformance.conf_kit import Kit, middle, samples_folder
else:
    from conf_kit import Kit, middle, samples_folder

FOLDER = samples_folder()
HERE = (FOLDER / "INDEX.json").is_file()
needs_samples = pytest.mark.skipif(not HERE, reason=f"the samples are not on this machine ({FOLDER})")
KIT = Kit(FOLDER) if HERE else None
ACCEPTED = OutcomeVerdict.ACCEPTED
Judge = Callable[[bytes], Outcome]


def entries(category: str) -> list[Any]:
    """Entries of a category as parameters; none where there are no samples."""
    found = KIT.index.get(category, []) if KIT else []
    return [pytest.param(entry, id=entry["id"]) for entry in found]


def kit() -> Kit:
    assert KIT is not None
    return KIT


def flips(data: bytes, stride: int) -> Iterator[tuple[int, bytes]]:
    """Copies of `data` with one bit changed, at every `stride`-th offset, a different bit each time."""
    for number, offset in enumerate(range(0, len(data), stride)):
        yield offset, data[:offset] + bytes((data[offset] ^ 1 << number % 8,)) + data[offset + 1 :]


def verdict(judge: Judge, data: bytes) -> Outcome | None:
    """The outcome, or None for input that does not parse. Any other exception is a failure."""
    try:
        return judge(data)
    except MalformedError:
        return None


# --- quotes --------------------------------------------------------------------------------------------------


def quote_judge(entry: dict[str, Any]) -> tuple[bytes, Judge]:
    case = entry["cases"][0]
    collateral = kit().read(case["collateral"])
    status = case["dcap_qvl_0_7_0"].get("status")
    options = QuoteOptions(statuses=frozenset({status}) if status else frozenset())
    raw = kit().read(entry["file"])
    parsed = parse_sgx_quote(raw) if raw[0] == 3 else parse_quote(raw)
    return parsed.raw, lambda data: verify_raw_quote(data, collateral, options, case["now"])


@needs_samples
@pytest.mark.parametrize("entry", [*entries("tdx"), *entries("sgx")])
def test_quote_cut_anywhere_is_malformed(entry: dict[str, Any]) -> None:
    raw = kit().read(entry["file"])
    parse = parse_sgx_quote if raw[0] == 3 else parse_quote
    for length in range(len(parse(raw).raw)):
        with pytest.raises(MalformedError):
            parse(raw[:length])


@needs_samples
@pytest.mark.parametrize("entry", [*entries("tdx"), *entries("sgx")])
def test_quote_changed_anywhere_is_refused(entry: dict[str, Any]) -> None:
    if not entry["cases"]:
        pytest.skip("no collateral exists for this quote: it is refused anyhow")
    raw, judge = quote_judge(entry)
    before = judge(raw)
    pem = raw.index(b"-----BEGIN")
    for offset, changed in flips(raw, 37):
        outcome = verdict(judge, changed)
        if outcome is not None and outcome.verdict is ACCEPTED:
            assert offset >= pem, f"a changed byte at {offset} was accepted"
            same = dict(before.claims) | {"quote_sha256": outcome.claims["quote_sha256"]}
            assert outcome.claims == same


@needs_samples
def test_collateral_changed_anywhere_is_refused() -> None:
    entry = next(
        e
        for e in kit().index["tdx"]
        if e["cases"] and quote_judge(e)[1](quote_judge(e)[0]).verdict is ACCEPTED
    )
    case, quote = entry["cases"][0], kit().read(entry["file"])
    genuine = kit().read(case["collateral"])
    before = load_collateral(genuine)
    signed = (
        "tcb_info",
        "tcb_info_signature",
        "qe_identity",
        "qe_identity_signature",
        "pck_crl",
        "root_ca_crl",
    )
    for offset, changed in flips(genuine, 29):
        outcome = verdict(lambda data: verify_raw_quote(quote, data, QuoteOptions(), case["now"]), changed)
        if outcome is not None and outcome.verdict is ACCEPTED:
            after = load_collateral(changed)
            assert all(getattr(after, name) == getattr(before, name) for name in signed), offset


# --- SEV-SNP -------------------------------------------------------------------------------------------------


@needs_samples
@pytest.mark.parametrize("entry", [e for e in entries("snp") if "cert" in e.values[0]])
def test_snp_report_changed_anywhere_is_refused(entry: dict[str, Any]) -> None:
    report, cert = kit().read(entry["file"]), kit().read(entry["cert"])
    at = middle(entry["checks"]["cert_validity"])
    for length in range(len(report)):
        assert (
            verdict(lambda data: verify_raw_snp(data, cert, b"", None, SnpOptions(), at), report[:length])
            is None
        )
    for offset, changed in flips(report, 5):
        outcome = verdict(lambda data: verify_raw_snp(data, cert, b"", None, SnpOptions(), at), changed)
        assert outcome is None or outcome.verdict is OutcomeVerdict.REJECTED, offset
        assert (
            offset >= SIGNED_SIZE or outcome is None or "snp.sig" in {c.id for c in outcome.checks.failed}
        )


@needs_samples
@pytest.mark.parametrize("entry", [e for e in entries("snp") if "cert" in e.values[0]])
def test_snp_certificate_changed_anywhere_is_refused(entry: dict[str, Any]) -> None:
    report, cert = kit().read(entry["file"]), kit().read(entry["cert"])
    at = middle(entry["checks"]["cert_validity"])
    for offset, changed in flips(cert, 11):
        outcome = verdict(lambda data: verify_raw_snp(report, data, b"", None, SnpOptions(), at), changed)
        assert outcome is None or outcome.verdict is OutcomeVerdict.REJECTED, offset


# --- GPU -----------------------------------------------------------------------------------------------------


def gpu_entries() -> list[Any]:
    return [entry for entry in entries("nvidia") if "chain" in entry.values[0]]


def gpu_judge(entry: dict[str, Any]) -> Callable[[bytes, bytes], Outcome]:
    nonce = bytes.fromhex(entry["checks"]["request_nonce"])
    options = GpuOptions(nonce=nonce, hardware_only=True)
    return lambda report, chain: verify_raw_gpu(read_devices(report, chain), [], [], options, 1_780_272_000)


@needs_samples
@pytest.mark.parametrize("entry", gpu_entries())
def test_gpu_report_changed_anywhere_is_refused(entry: dict[str, Any]) -> None:
    report, chain = kit().read(entry["file"]), kit().read(entry["chain"])
    judge = gpu_judge(entry)
    parsed = parse_gpu_report(report)
    end = len(parsed.signed) + len(parsed.signature)
    for length in range(end):
        with pytest.raises(MalformedError):
            parse_gpu_report(report[:length])
    for offset, changed in flips(report[:end], 31):
        outcome = verdict(lambda data: judge(data, chain), changed)
        assert outcome is None or outcome.verdict is OutcomeVerdict.REJECTED, offset
    pem = judge(report, chain)
    for offset, changed in flips(chain, 61):
        outcome = verdict(lambda data: judge(report, data), changed)
        if outcome is not None and outcome.verdict is ACCEPTED:
            assert outcome.claims == pem.claims, offset


@needs_samples
def test_manifest_changed_anywhere_gives_no_other_values() -> None:
    for entry in kit().index["nvidia"]:
        if not isinstance(entry["checks"], dict) or entry["checks"].get("xml_signature") != "ok":
            continue
        data = kit().read(entry["file"])
        genuine = verify_rim(parse_rim(data))
        assert isinstance(genuine, Rim)
        for offset, changed in flips(data, 173):
            try:
                found = verify_rim(parse_rim(changed))
            except MalformedError:
                continue
            if isinstance(found, Rim):
                assert (found.chip, found.version, found.active) == (
                    genuine.chip,
                    genuine.version,
                    genuine.active,
                ), offset


# --- event logs ------------------------------------------------------------------------------------------------


@needs_samples
@pytest.mark.parametrize(
    "entry", [e for e in entries("eventlog") if all(e.values[0].get("match", [False]))]
)
def test_event_log_changed_anywhere_is_refused_or_says_the_same(entry: dict[str, Any]) -> None:
    log = kit().read(entry["file"])
    quote = kit().read(kit().entry("tdx", entry["quote"])["file"])
    before = verify_raw_eventlog(log, quote)
    assert before.verdict is ACCEPTED
    for length in range(0, len(log) - 8, 149):
        outcome = verdict(lambda data: verify_raw_eventlog(data, quote), log[:length])
        assert outcome is None or outcome.verdict is not ACCEPTED or not log[length:].strip(b"\xff\x00\n ")
    for offset, changed in flips(log, 101):
        outcome = verdict(lambda data: verify_raw_eventlog(data, quote), changed)
        if outcome is not None and outcome.verdict is ACCEPTED:
            for name in ("replayed_rtmr", "boot_events", "app_events", "events"):
                assert outcome.claims.get(name) == before.claims.get(name), offset


# --- anything ---------------------------------------------------------------------------------------------------

PREFIXES = (
    b"",
    b"\x03\x00\x02\x00",
    b"\x04\x00\x02\x00\x81\x00",
    b"[{",
    b'{"arch":',
    b"\x11\xe0\x01\xff",
    bytes(4),
)
JUDGES: tuple[Judge, ...] = (
    lambda data: verify_raw_quote(data, data, QuoteOptions(), 0),
    lambda data: verify_raw_snp(data, data, data, data, SnpOptions(), 0),
    lambda data: verify_raw_gpu(read_devices(data, data), [data], [data], GpuOptions(nonce=bytes(32)), 0),
    lambda data: verify_raw_eventlog(data, None),
    lambda data: verify_raw_eventlog(data, data),
)


@settings(max_examples=150, deadline=None)
@given(prefix=st.sampled_from(PREFIXES), data=st.binary(max_size=2048), judge=st.sampled_from(JUDGES))
def test_any_bytes_are_refused_with_one_kind_of_error(prefix: bytes, data: bytes, judge: Judge) -> None:
    outcome = verdict(judge, prefix + data)
    assert outcome is None or outcome.verdict is not ACCEPTED
