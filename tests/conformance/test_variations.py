"""`cocoon verify` on inputs of every form that is legal, odd or wrong: a documented outcome, never a trace.

Evidence is real where the samples are at hand, else simulated; what varies is how it is handed over.
"""

from __future__ import annotations

import base64
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cocoon_cli.__main__ import main

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from tests.conformance.conf_kit import samples_folder
else:
    from conf_kit import samples_folder

FOLDER = samples_folder()
HERE = (FOLDER / "INDEX.json").is_file()
pytestmark = pytest.mark.skipif(not HERE, reason=f"the samples are not on this machine ({FOLDER})")
INDEX: dict[str, list[dict[str, Any]]] = (
    json.loads((FOLDER / "INDEX.json").read_text("utf-8")) if HERE else {}
)
CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n?", re.DOTALL)
OUTCOMES = {"accepted": 0, "rejected": 10, "malformed": 30, "undecided": 40, "usage": 2, "config": 2}


@pytest.fixture
def verdict(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., str]:
    """Run ``cocoon verify … --json``; bytes become files. The verdict, or the code of a wrong call."""

    def run(*arguments: object) -> str:
        words = []
        for number, argument in enumerate(arguments):
            if isinstance(argument, bytes):
                path = tmp_path / f"input{number}"
                path.write_bytes(argument)
                words.append(str(path))
            else:
                words.append(str(argument))
        with pytest.raises(SystemExit) as left:
            main(["verify", *words, "--json"])
        document = json.loads(capsys.readouterr().out)
        found = str(document.get("verdict") or document["error"]["code"])
        assert left.value.code == OUTCOMES[found], document
        return found

    return run


def entry(category: str, name: str) -> dict[str, Any]:
    return next(one for one in INDEX[category] if one["id"] == name)


def pem(der: bytes) -> bytes:
    text = base64.encodebytes(der)
    return b"-----BEGIN CERTIFICATE-----\n" + text + b"-----END CERTIFICATE-----\n"


# --- quotes and collateral -------------------------------------------------------------------------------------


class Quote:
    """A quote that is accepted, its collateral, and the time."""

    def __init__(self) -> None:
        one = entry("tdx", "gcp_cos113")
        case = one["cases"][0]
        self.now: int = case["now"]
        self.iso: str = case["now_iso"]
        self.raw = (FOLDER / one["file"]).read_bytes()
        self.text = (FOLDER / case["collateral"]).read_bytes()
        self.report_data: str = one["fields"]["report_data"]
        self.document: dict[str, str] = json.loads(self.text)

    def changed(self, change: Callable[[str, str], object]) -> bytes:
        """The collateral with every field changed by `change(name, value)`."""
        return json.dumps({name: change(name, value) for name, value in self.document.items()}).encode()


def in_chains(change: Callable[[str], str]) -> Callable[[Quote], bytes]:
    """Change the PEM chains."""
    return lambda quote: quote.changed(
        lambda name, value: change(value) if name.endswith("chain") else value
    )


def in_lists(change: Callable[[bytes], object]) -> Callable[[Quote], bytes]:
    """Give the revocation lists in another form; `change` gets DER."""
    return lambda quote: quote.changed(
        lambda name, value: change(bytes.fromhex(value)) if name.endswith("_crl") else value
    )


def crl_pem(der: bytes) -> str:
    return x509.load_der_x509_crl(der).public_bytes(Encoding.PEM).decode()


@pytest.mark.parametrize(
    ("want", "collateral"),
    [
        ("accepted", lambda quote: quote.text),
        ("accepted", lambda quote: b"\xef\xbb\xbf" + quote.text),
        ("accepted", lambda quote: json.dumps(quote.document, indent=8).encode() + b"\n\n"),
        ("accepted", lambda quote: json.dumps({"more": None, **quote.document}).encode()),
        ("accepted", in_chains(lambda text: text.replace("\n", "\r\n"))),
        ("accepted", in_chains(str.strip)),
        ("accepted", in_chains(lambda text: f"subject=x\n\n  {text}\n\n\n")),
        ("accepted", in_lists(lambda der: der.hex().upper())),
        ("accepted", in_lists(lambda der: f" {der.hex()}\n")),
        ("accepted", in_lists(crl_pem)),
        ("accepted", in_lists(lambda der: crl_pem(der).encode().hex())),
        ("malformed", in_lists(lambda der: base64.b64encode(der).decode())),
        ("malformed", in_lists(list)),
        ("malformed", in_lists(lambda der: "-----BEGIN X509 CRL-----")),
        ("malformed", lambda quote: json.dumps({"collateral": quote.document}).encode()),
        ("malformed", lambda quote: quote.text.decode().encode("utf-16")),
        ("malformed", lambda quote: b""),
        ("malformed", in_chains(lambda text: "")),
    ],
)
def test_forms_of_collateral(
    verdict: Callable[..., str], want: str, collateral: Callable[[Quote], bytes]
) -> None:
    quote = Quote()
    assert verdict("quote", quote.raw, "--collateral", collateral(quote), "--at", quote.now) == want


@pytest.mark.parametrize(
    ("want", "at"),
    [
        ("accepted", lambda quote: quote.now),
        ("accepted", lambda quote: quote.iso),
        ("accepted", lambda quote: quote.iso[:10]),
        ("accepted", lambda quote: quote.iso.replace("Z", "+00:00")),
        ("usage", lambda quote: quote.iso.rstrip("Z")),
        ("usage", lambda quote: "-1"),
        ("usage", lambda quote: "2026-02-30"),
        ("rejected", lambda quote: 0),
        ("rejected", lambda quote: 99_999_999_999),
        ("rejected", lambda quote: "0001-01-01T00:00:00Z"),
        ("rejected", lambda quote: "9999-12-31"),
        ("rejected", lambda quote: quote.now - 40 * 86_400),
        ("rejected", lambda quote: quote.now + 40 * 86_400),
    ],
)
def test_forms_of_time(verdict: Callable[..., str], want: str, at: Callable[[Quote], object]) -> None:
    quote = Quote()
    assert verdict("quote", quote.raw, "--collateral", quote.text, "--at", at(quote)) == want


def root(form: Encoding) -> bytes:
    data = (FOLDER / "tdx" / "pcs_raw" / "intel_sgx_root_ca.pem").read_bytes()
    return x509.load_pem_x509_certificate(data).public_bytes(form)


@pytest.mark.parametrize(
    ("want", "options"),
    [
        ("accepted", lambda quote: ["--root", root(Encoding.DER)]),
        ("accepted", lambda quote: ["--root", root(Encoding.PEM)]),
        ("rejected", lambda quote: ["--root", FOLDER / "tdx" / "synthetic" / "root_ca.der"]),
        ("malformed", lambda quote: ["--root", b"no certificate"]),
        ("malformed", lambda quote: ["--root", b""]),
        ("accepted", lambda quote: ["--report-data", quote.report_data.upper()]),
        ("accepted", lambda quote: ["--report-data", "0x" + quote.report_data]),
        ("usage", lambda quote: ["--report-data", quote.report_data[:64]]),
        ("rejected", lambda quote: ["--mrtd", "0x" + "00" * 48]),
        ("rejected", lambda quote: ["--mrtd", "00" * 32]),
        ("accepted", lambda quote: ["--allow-status", "UpToDate"]),
        ("config", lambda quote: ["--allow-status", "uptodate"]),
        ("rejected", lambda quote: ["--min-tcb-eval", 10**12]),
        ("usage", lambda quote: ["--policy", FOLDER]),
        ("config", lambda quote: ["--policy", b""]),
    ],
)
def test_forms_of_options(
    verdict: Callable[..., str], want: str, options: Callable[[Quote], list[object]]
) -> None:
    quote = Quote()
    base = ["quote", quote.raw, "--collateral", quote.text, "--at", quote.now]
    assert verdict(*base, *options(quote)) == want


@pytest.mark.parametrize(
    ("want", "change"),
    [
        ("accepted", lambda raw: raw + bytes(3000)),
        ("malformed", lambda raw: raw + bytes(70_000)),
        ("malformed", lambda raw: raw.hex().encode()),
        ("malformed", base64.b64encode),
        ("malformed", lambda raw: b""),
        ("malformed", lambda raw: bytes(9 << 20)),
        ("malformed", lambda raw: b"\x03" + raw[1:]),
        ("malformed", lambda raw: b"\x05" + raw[1:]),
        ("usage", lambda raw: FOLDER),
        ("usage", lambda raw: FOLDER / "nothing"),
    ],
)
def test_forms_of_a_quote(
    verdict: Callable[..., str], want: str, change: Callable[[bytes], object]
) -> None:
    quote = Quote()
    assert verdict("quote", change(quote.raw), "--collateral", quote.text, "--at", quote.now) == want


def test_quote_from_standard_input(
    verdict: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    quote = Quote()
    (tmp_path / "stdin").write_bytes(quote.raw)
    with (tmp_path / "stdin").open() as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        assert verdict("quote", "-", "--collateral", quote.text, "--at", quote.now) == "accepted"


@pytest.mark.parametrize("kind", ["tdx", "sgx"])
def test_collateral_of_another_platform_is_refused(verdict: Callable[..., str], kind: str) -> None:
    """Every quote with every collateral of its kind that the index does not name for it."""
    for one in INDEX[kind]:
        own = {case["collateral"] for case in one["cases"]}
        for other in INDEX[kind]:
            for case in other["cases"][:1]:
                if case["collateral"] not in own and not _same_family(one, other):
                    arguments = ["--collateral", FOLDER / case["collateral"], "--at", case["now"]]
                    assert verdict("quote", FOLDER / one["file"], *arguments) in ("rejected", "malformed")


def _same_family(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return bool(one.get("fields", {}).get("fmspc") == other.get("fields", {}).get("fmspc"))


# --- SEV-SNP ---------------------------------------------------------------------------------------------------


class Snp:
    """A report of Genoa with its certificate and issuers."""

    at = "2027-01-01"

    def __init__(self) -> None:
        one = entry("snp", "genoa_v3")
        self.report = (FOLDER / one["file"]).read_bytes()
        self.cert = (FOLDER / one["cert"]).read_bytes()
        self.issuers = CERTIFICATE.findall((FOLDER / "snp" / "ca" / "ask_ark_genoa.pem").read_bytes())


@pytest.mark.parametrize(
    ("want", "arguments"),
    [
        ("accepted", lambda snp: [snp.report, "--cert", snp.cert]),
        ("accepted", lambda snp: [snp.report, "--cert", pem(snp.cert)]),
        ("accepted", lambda snp: [snp.report, "--cert", pem(snp.cert).replace(b"\n", b"\r\n")]),
        ("malformed", lambda snp: [snp.report, "--cert", pem(snp.cert)[:400]]),
        ("malformed", lambda snp: [snp.report, "--cert", pem(snp.cert).replace(b"M", b"*")]),
        ("malformed", lambda snp: [snp.report, "--cert", snp.issuers[0]]),
        ("malformed", lambda snp: [snp.report, "--cert", b""]),
        ("accepted", lambda snp: [snp.report, "--cert", snp.cert, "--chain", b"".join(snp.issuers)]),
        ("accepted", lambda snp: [snp.report, "--cert", snp.cert, "--chain", b"".join(snp.issuers[::-1])]),
        ("accepted", lambda snp: [snp.report, "--cert", snp.cert, "--chain", snp.issuers[0]]),
        (
            "accepted",
            lambda snp: [
                snp.report,
                "--cert",
                snp.cert,
                "--chain",
                b"".join([pem(snp.cert), *snp.issuers]),
            ],
        ),
        ("accepted", lambda snp: [snp.report, "--cert", snp.cert, "--chain", b""]),
        ("malformed", lambda snp: [snp.report, "--cert", snp.cert, "--chain", b"text"]),
        ("malformed", lambda snp: [snp.report, "--cert", snp.cert, "--chain", b"".join(snp.issuers * 2)]),
        ("malformed", lambda snp: [snp.report, "--cert", snp.cert, "--crl", b"text"]),
        (
            "rejected",
            lambda snp: [snp.report, "--cert", snp.cert, "--crl", FOLDER / "snp" / "ca" / "milan.crl.pem"],
        ),
        ("malformed", lambda snp: [snp.report + b"\0", "--cert", snp.cert]),
        ("malformed", lambda snp: [snp.report[:-1], "--cert", snp.cert]),
        ("rejected", lambda snp: [snp.report, "--cert", snp.cert, "--report-data", "11" * 64]),
        ("usage", lambda snp: [snp.report]),
        ("usage", lambda snp: [snp.report, "--cert", FOLDER]),
    ],
)
def test_forms_of_snp_evidence(
    verdict: Callable[..., str], want: str, arguments: Callable[[Snp], list[object]]
) -> None:
    snp = Snp()
    assert verdict("snp", *arguments(snp), "--at", snp.at) == want


# --- GPUs ------------------------------------------------------------------------------------------------------


class Gpu:
    """A report with its chain, and as NVIDIA's JSON."""

    def __init__(self) -> None:
        one = entry("nvidia", "h100_550")
        self.report = (FOLDER / one["file"]).read_bytes()
        self.chain = (FOLDER / one["chain"]).read_bytes()
        self.nonce: str = one["checks"]["request_nonce"]

    def entry(self, **changes: object) -> dict[str, object]:
        return {
            "arch": "HOPPER",
            "certificate": base64.b64encode(self.chain).decode(),
            "evidence": base64.b64encode(self.report).decode(),
            **changes,
        }


@pytest.mark.parametrize(
    ("want", "document"),
    [
        ("accepted", lambda gpu: [gpu.entry()]),
        ("accepted", lambda gpu: gpu.entry()),
        ("accepted", lambda gpu: {"evidence_list": [gpu.entry()], "nonce": "ignored"}),
        ("accepted", lambda gpu: {"arch": "HOPPER", "evidence_list": [gpu.entry(arch="HOPPER")]}),
        ("accepted", lambda gpu: [gpu.entry(arch="hopper")]),
        ("accepted", lambda gpu: [gpu.entry(evidence=base64.encodebytes(gpu.report).decode())]),
        ("malformed", lambda gpu: [gpu.entry(evidence=gpu.report.hex())]),
        ("malformed", lambda gpu: [gpu.entry(arch="LS10")]),
        ("malformed", lambda gpu: [gpu.entry(arch="AMPERE")]),
        ("malformed", lambda gpu: [gpu.entry(arch=None)]),
        ("malformed", lambda gpu: []),
        ("malformed", lambda gpu: None),
        ("malformed", lambda gpu: {"devices": [gpu.entry()]}),
        ("rejected", lambda gpu: [gpu.entry(), gpu.entry()]),
    ],
)
def test_forms_of_gpu_lists(
    verdict: Callable[..., str], want: str, document: Callable[[Gpu], object]
) -> None:
    gpu = Gpu()
    data = json.dumps(document(gpu)).encode()
    arguments = ["gpu", data, "--nonce", gpu.nonce, "--at", "2026-06-01", "--hardware-only"]
    assert verdict(*arguments) == want


@pytest.mark.parametrize(
    ("want", "arguments"),
    [
        ("undecided", lambda gpu: ["--chain", gpu.chain, "--nonce", gpu.nonce]),
        ("accepted", lambda gpu: ["--chain", gpu.chain, "--nonce", gpu.nonce.upper(), "--hardware-only"]),
        ("rejected", lambda gpu: ["--chain", gpu.chain, "--nonce", "00" * 32, "--hardware-only"]),
        ("usage", lambda gpu: ["--chain", gpu.chain, "--nonce", "00"]),
        ("usage", lambda gpu: ["--chain", gpu.chain]),
        ("config", lambda gpu: ["--nonce", gpu.nonce]),
        ("malformed", lambda gpu: ["--chain", b"text", "--nonce", gpu.nonce]),
        (
            "malformed",
            lambda gpu: [
                "--chain", b"".join(CERTIFICATE.findall(gpu.chain)[::-1]), "--nonce", gpu.nonce,
            ],
        ),
        ("malformed", lambda gpu: ["--chain", gpu.chain, "--nonce", gpu.nonce, "--rim", b"text"]),
        ("malformed", lambda gpu: ["--chain", gpu.chain, "--nonce", gpu.nonce, "--ocsp", b"text"]),
    ],
)  # fmt: skip
def test_forms_of_a_raw_gpu_report(
    verdict: Callable[..., str], want: str, arguments: Callable[[Gpu], list[object]]
) -> None:
    gpu = Gpu()
    assert verdict("gpu", gpu.report, *arguments(gpu), "--at", "2026-06-01") == want


# --- event logs, own evidence ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("want", "log", "quote"),
    [
        ("accepted", "eventlog/gcp_cos113.ccel.bin", "tdx/gcp_cos113.quote.bin"),
        ("undecided", "eventlog/gcp_cos113.ccel.bin", None),
        ("malformed", "eventlog/gcp_cos113.ccel.bin", "sgx/phala_v3.quote.bin"),
        ("malformed", "eventlog/gcp_cos113.ccel_table.bin", "tdx/gcp_cos113.quote.bin"),
        ("usage", "eventlog", "tdx/gcp_cos113.quote.bin"),
        ("usage", "eventlog/nothing", None),
    ],
)
def test_forms_of_event_logs(verdict: Callable[..., str], want: str, log: str, quote: str | None) -> None:
    given = ["--quote", FOLDER / quote] if quote else []
    assert verdict("eventlog", FOLDER / log, *given) == want


@pytest.mark.parametrize(
    ("want", "arguments"),
    [
        ("usage", []),
        ("usage", ["--policy", "/nowhere", "--challenge", "11" * 32]),
        ("usage", ["--policy", b"", "--network", "dev"]),
        ("usage", ["--policy", b""]),
        ("config", ["--policy", b"", "--challenge", "11" * 32]),
        ("config", ["--policy", b"\xff\xfe", "--challenge", "11" * 32]),
        ("config", ["--network", "/nowhere"]),
    ],
)
def test_forms_of_calls_on_own_evidence(
    verdict: Callable[..., str], want: str, arguments: list[object]
) -> None:
    assert verdict("evidence", b"", *arguments) == want
