"""Every genuine sample with the routine that judges it, for tests that cut it and change its bytes.

A judge answers what a relying party would learn: None if the input is refused (it does not parse, or the verdict
is another than accepted), else what was read, together with the exact bytes that vendors signed, read again by
other code where that is possible. So "accepted, and the answer is the same" means that only bytes changed that
nobody signs: line ends of PEM text, padding, event data.
"""

from __future__ import annotations

import datetime as dt
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain as joined
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.gpu.certificates import parse_pem_chain
from cocoon_attestation.gpu.ocsp import parse_ocsp, revocation_problem
from cocoon_attestation.gpu.report import parse_gpu_report
from cocoon_attestation.gpu.rim import Rim, parse_rim, rim_chain_problem, verify_rim
from cocoon_attestation.roots.nvidia import nvidia_rim_root
from cocoon_attestation.sgx.quote import parse_sgx_quote
from cocoon_attestation.snp.certificates import parse_crl
from cocoon_attestation.tdx.collateral import load_collateral
from cocoon_attestation.tdx.quote import parse_quote
from cocoon_attestation.vendor.eventlog import verify_raw_eventlog
from cocoon_attestation.vendor.gpu import GpuOptions, read_devices, verify_raw_gpu
from cocoon_attestation.vendor.outcome import Outcome
from cocoon_attestation.vendor.quote import QuoteOptions, verify_raw_quote
from cocoon_attestation.vendor.snp import SnpOptions, verify_raw_snp

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from tests.conformance.conf_gpu import ANY_TIME, OCSP_AT, OCSP_NONCE
    from tests.conformance.conf_kit import Kit, middle
else:
    from conf_gpu import ANY_TIME, OCSP_AT, OCSP_NONCE
    from conf_kit import Kit, middle

Answer = tuple[Any, ...]
Judge = Callable[[bytes], Answer | None]
SIGNED_FIELDS = (
    "tcb_info", "tcb_info_signature", "qe_identity", "qe_identity_signature", "pck_crl", "root_ca_crl",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Genuine bytes and who judges them."""

    kind: str
    name: str
    data: bytes
    judge: Judge
    signed: int = 0
    """So many bytes from the start are signed or decide what is: with one of them changed, never accepted."""


def answer(outcome: Outcome, signed: Callable[[], object] = lambda: None) -> Answer | None:
    """What an accepted outcome says, and signed bytes; hashes of whole inputs aside, which always change."""
    if not outcome.to_dict()["ok"]:
        return None
    claims = {name: value for name, value in outcome.claims.items() if name != "quote_sha256"}
    return claims, outcome.tcb_status, outcome.advisories, signed()


def tbs(pem: bytes) -> list[bytes]:
    """The signed part of every certificate in PEM text."""
    return [one.tbs_certificate_bytes for one in x509.load_pem_x509_certificates(pem)]


def samples(kit: Kit) -> Iterator[Sample]:
    """All of them, small and quick ones first."""
    return joined(
        _snp(kit), _revocation_answers(kit), _gpus(kit), _quotes(kit), _collateral(kit), _logs(kit),
        _manifests(kit), _gpu_lists(kit),
    )  # fmt: skip


# --- AMD ---------------------------------------------------------------------------------------------------


def _snp(kit: Kit) -> Iterator[Sample]:
    for entry in kit.index.get("snp", []):
        if "cert" not in entry:
            continue  # a sample that was damaged on purpose: its genuine form is another entry
        report, cert = kit.read(entry["file"]), kit.read(entry["cert"])
        at = middle(entry["checks"]["cert_validity"])
        name = entry["id"]
        yield Sample(kind="snp report", name=name, data=report, judge=_report(cert, at), signed=len(report))
        yield Sample(kind="snp certificate", name=name, data=cert, judge=_certificate(report, at))
        product = str(entry["checks"]["issuer"]).rsplit("-", 1)[1].lower()
        vlek = "VLEK" in entry["checks"]["issuer"]
        for file in sorted((kit.folder / "snp" / "ca").glob(f"ask_ark_{product}*.pem")):
            if ("vlek" in file.stem) is vlek:
                pem = file.read_bytes()
                yield Sample(
                    kind="snp chain", name=f"{name} {file.stem}", data=pem, judge=_chain(report, cert, at)
                )
        listed = kit.folder / "snp" / "ca" / f"{product}.crl.pem"
        if listed.is_file():
            yield from _revocations(name, report, cert, listed.read_bytes())


def _report(cert: bytes, at: int) -> Judge:
    return lambda data: answer(verify_raw_snp(data, cert, b"", None, SnpOptions(), at), lambda: data)


def _certificate(report: bytes, at: int) -> Judge:
    def judge(data: bytes) -> Answer | None:
        return answer(verify_raw_snp(report, data, b"", None, SnpOptions(), at), lambda: data)

    return judge


def _chain(report: bytes, cert: bytes, at: int) -> Judge:
    """AMD's published issuers are known, so a damaged chain does no harm: what counts is what is read."""
    return lambda data: answer(verify_raw_snp(report, cert, data, None, SnpOptions(), at))


def _revocations(name: str, report: bytes, cert: bytes, pem: bytes) -> Iterator[Sample]:
    crl = x509.load_pem_x509_crl(pem)
    assert crl.next_update_utc is not None
    at = int((crl.last_update_utc.timestamp() + crl.next_update_utc.timestamp()) / 2)

    def judge(data: bytes) -> Answer | None:
        outcome = verify_raw_snp(report, cert, b"", data, SnpOptions(), at)
        return answer(outcome, lambda: parse_crl(data).tbs_certlist_bytes)

    yield Sample(kind="snp CRL", name=f"{name} PEM", data=pem, judge=judge)
    der = crl.public_bytes(Encoding.DER)
    yield Sample(kind="snp CRL", name=f"{name} DER", data=der, judge=judge)


# --- NVIDIA ------------------------------------------------------------------------------------------------


def _revocation_answers(kit: Kit) -> Iterator[Sample]:
    for entry in kit.index.get("nvidia", []):
        if entry["file"].endswith(".ocsp.der"):
            folder = Path(entry["file"]).parent
            issuers = parse_pem_chain(kit.read(str(folder / "chain.pem")))

            def judge(data: bytes, issuers: Any = issuers) -> Answer | None:
                response = parse_ocsp(data)
                problem = revocation_problem(issuers, [0], [response], OCSP_NONCE, OCSP_AT)
                return None if problem else (response.signed, response.status)

            yield Sample(kind="OCSP", name=entry["id"], data=kit.read(entry["file"]), judge=judge)


def _gpu_outcome(report: bytes, chain: bytes | None, nonce: bytes) -> Outcome:
    options = GpuOptions(nonce=nonce, hardware_only=True)
    return verify_raw_gpu(read_devices(report, chain), [], [], options, ANY_TIME)


def _gpus(kit: Kit) -> Iterator[Sample]:
    for entry in kit.index.get("nvidia", []):
        if "chain" not in entry:
            continue
        report, chain = kit.read(entry["file"]), kit.read(entry["chain"])
        parsed = parse_gpu_report(report)
        end = len(parsed.signed) + len(parsed.signature)

        def judge(data: bytes, chain: bytes = chain, nonce: bytes = parsed.nonce) -> Answer | None:
            return answer(_gpu_outcome(data, chain, nonce), lambda: parse_gpu_report(data).signed)

        def judge_chain(data: bytes, report: bytes = report, nonce: bytes = parsed.nonce) -> Answer | None:
            return answer(_gpu_outcome(report, data, nonce), lambda: tbs(data))

        yield Sample(kind="GPU report", name=entry["id"], data=report, judge=judge, signed=end)
        yield Sample(kind="GPU chain", name=entry["id"], data=chain, judge=judge_chain)


def _gpu_lists(kit: Kit) -> Iterator[Sample]:
    for entry in kit.index.get("nvidia", []):
        if not isinstance(entry["checks"], list):
            continue
        nonce = bytes.fromhex(entry["checks"][0]["request_nonce"])

        def judge(data: bytes, nonce: bytes = nonce) -> Answer | None:
            def signed() -> object:
                devices = read_devices(data, None)
                return [
                    (parse_gpu_report(one.report).signed, tbs(one.certificate_chain)) for one in devices
                ]

            return answer(_gpu_outcome(data, None, nonce), signed)

        yield Sample(kind="GPU list", name=entry["id"], data=kit.read(entry["file"]), judge=judge)


def _manifests(kit: Kit) -> Iterator[Sample]:
    for entry in kit.index.get("nvidia", []):
        checks = entry["checks"]
        if not isinstance(checks, dict) or "xml_signature" not in checks:
            continue
        at = dt.datetime.fromtimestamp(middle(checks["validity"]), dt.UTC)

        def judge(data: bytes, at: dt.datetime = at) -> Answer | None:
            parsed = parse_rim(data)
            if rim_chain_problem(parsed.chain, {nvidia_rim_root()}, at) is not None:
                return None
            found = verify_rim(parsed)
            if not isinstance(found, Rim):
                return None
            signers = [one.tbs_certificate_bytes for one in found.chain]
            return (found.chip, found.version, dict(found.active), signers, _without_signature(data))

        yield Sample(kind="manifest", name=entry["id"], data=kit.read(entry["file"]), judge=judge)


def _without_signature(data: bytes) -> bytes:
    """What an enveloped signature covers: the document in canonical form, its signature taken out."""
    etree: Any = importlib.import_module("lxml.etree")
    root = etree.fromstring(data)
    for element in root.findall("{http://www.w3.org/2000/09/xmldsig#}Signature"):
        tail = element.tail or ""
        before = element.getprevious()
        if before is not None:
            before.tail = (before.tail or "") + tail
        else:
            root.text = (root.text or "") + tail
        root.remove(element)
    return bytes(etree.tostring(root, method="c14n"))


# --- Intel -------------------------------------------------------------------------------------------------


def _quotes(kit: Kit) -> Iterator[Sample]:
    for kind, entry, case, root in _quote_cases(kit):
        raw, collateral = kit.read(entry["file"]), kit.read(case["collateral"])
        parse = parse_sgx_quote if raw[0] == 3 else parse_quote
        options = _options(case, root)
        try:
            whole = parse(raw).raw
        except MalformedError:
            continue  # a sample that was damaged on purpose

        def judge(
            data: bytes,
            collateral: bytes = collateral,
            options: QuoteOptions = options,
            case: dict[str, Any] = case,
            parse: Any = parse,
        ) -> Answer | None:
            outcome = verify_raw_quote(data, collateral, options, case["now"])

            def signed() -> object:
                quote = parse(data)
                return quote.signed, quote.qe_report.raw, tbs(quote.pck_chain)

            return answer(outcome, signed)

        yield Sample(
            kind=f"{kind} quote",
            name=entry["id"],
            data=whole,
            judge=judge,
            signed=whole.index(b"-----BEGIN"),
        )


def _quote_cases(kit: Kit) -> Iterator[tuple[str, dict[str, Any], dict[str, Any], bytes | None]]:
    """Kind, entry, the first case that is accepted (else the first), root."""
    for kind in ("tdx", "sgx"):
        for entry in kit.index.get(kind, []):
            cases = entry["cases"]
            if cases:
                good = [case for case in cases if case["dcap_qvl_0_7_0"]["result"] == "ok"]
                yield kind, entry, (good or cases)[0], None
    root = kit.folder / "tdx" / "synthetic" / "root_ca.der"
    for entry in kit.index.get("tdx_synthetic", []):
        # A body that was changed after it was signed is no genuine sample: the right change mends it.
        if "report signature is invalid" not in entry["dcap_qvl_0_7_0"].get("error", ""):
            yield "tdx synthetic", entry, entry, root.read_bytes()


def _options(case: dict[str, Any], root: bytes | None) -> QuoteOptions:
    status = case["dcap_qvl_0_7_0"].get("status")
    return QuoteOptions(statuses=frozenset({status}) if status else frozenset(), root=root)


def _collateral(kit: Kit) -> Iterator[Sample]:
    """Every collateral once, with a quote that it vouches for; and its two lists as DER."""
    seen: set[bytes] = set()
    for kind in ("tdx", "sgx"):
        for entry in kit.index.get(kind, []):
            for case in entry["cases"]:
                data = kit.read(case["collateral"])
                if case["dcap_qvl_0_7_0"]["result"] != "ok" or data in seen:
                    continue
                seen.add(data)
                judge = _collateral_judge(kit.read(entry["file"]), _options(case, None), case["now"])
                name = Path(case["collateral"]).stem
                yield Sample(kind="collateral", name=name, data=data, judge=judge)
                for field in ("pck_crl", "root_ca_crl"):
                    der = getattr(load_collateral(data), field)
                    if der not in seen:
                        seen.add(der)
                        yield Sample(
                            kind="Intel CRL",
                            name=f"{name} {field}",
                            data=der,
                            judge=_inside(data, field, judge),
                        )


def _collateral_judge(quote: bytes, options: QuoteOptions, now: int) -> Judge:
    def judge(data: bytes) -> Answer | None:
        outcome = verify_raw_quote(quote, data, options, now)

        def signed() -> object:
            read = load_collateral(data)
            chains = (read.pck_crl_issuer_chain, read.tcb_info_issuer_chain, read.qe_identity_issuer_chain)
            texts = [getattr(read, field) for field in SIGNED_FIELDS[:4]]
            lists = [x509.load_der_x509_crl(getattr(read, field)) for field in SIGNED_FIELDS[4:]]
            return texts, [one.tbs_certlist_bytes for one in lists], [tbs(pem.encode()) for pem in chains]

        return answer(outcome, signed)

    return judge


def _inside(collateral: bytes, field: str, judge: Judge) -> Judge:
    document = json.loads(collateral)
    return lambda data: judge(json.dumps({**document, field: data.hex()}).encode())


# --- event logs --------------------------------------------------------------------------------------------


def _logs(kit: Kit) -> Iterator[Sample]:
    for entry in kit.index.get("eventlog", []):
        quote = kit.read(kit.entry("tdx", entry["quote"])["file"]) if "quote" in entry else None

        def judge(data: bytes, quote: bytes | None = quote) -> Answer | None:
            outcome = verify_raw_eventlog(data, quote)
            names = ("replayed_rtmr", "boot_events", "app_events", "events")
            return tuple(outcome.claims.get(name) for name in names) if outcome.to_dict()["ok"] else None

        yield Sample(kind="event log", name=entry["id"], data=kit.read(entry["file"]), judge=judge)
