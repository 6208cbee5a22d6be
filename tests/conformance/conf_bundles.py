"""Conformance of complete provider answers: the evidence inside is taken out and judged piece by piece.

What a provider means by its report data is its own business and not read here; neither are verdicts of
remote services, which prove what somebody else saw.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509

from cocoon_attestation.gpu.report import parse_gpu_report

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from tests.conformance.conf_kit import Kit
else:
    from conf_kit import Kit

RAW = "tdx/pcs_raw"


def run_bundles(kit: Kit) -> None:
    """Every answer of the index."""
    for entry in kit.index.get("bundles", []):
        folder = entry["dir"]
        name = next(name for name in entry["files"] if name.startswith("attestation"))
        answer = kit.read(f"{folder}/{name}")
        document = json.loads(answer)
        quotes = _quotes(kit, entry, answer)
        _eventlogs(kit, entry, document, quotes)
        _gpus(kit, entry, document)
        _snp(kit, entry, document)
        if "nras" in entry["checks"]:
            kit.skip(
                "bundles", f"{entry['id']} NRAS token", "verdicts of a remote service are no evidence here"
            )
        if "sigstoreBundle" in document:
            kit.skip(
                "bundles",
                f"{entry['id']} Sigstore bundle",
                "releases come from the registry, not from a log",
            )


def _quotes(kit: Kit, entry: dict[str, Any], answer: bytes) -> list[str]:
    listed = entry["checks"].get("quotes", [])
    if not listed:
        return []
    collateral = _collateral(kit, entry)
    files = []
    for number, quote in enumerate(listed):
        form, offset = quote["where"].split("@")
        text = answer[int(offset) : answer.index(b'"', int(offset))]
        data = bytes.fromhex(text.decode()) if form == "hex" else base64.b64decode(text)
        file = kit.write(f"{entry['id']}-{number}.quote.bin", data)
        files.append(file)
        status = quote["dcap_qvl"].get("status")
        kit.expect(
            "bundles", f"{entry['id']} quote {number}", "accepted" if status == "UpToDate" else "rejected",
            "quote", file, "--collateral", collateral, "--at", entry["now"], "--report-data", quote["report_data"],
            says={"tcb_status": status, "advisories": quote["dcap_qvl"].get("advisories", [])},
            claims={"mrtd": quote["mrtd"]},
        )  # fmt: skip
    return files


def _collateral(kit: Kit, entry: dict[str, Any]) -> str:
    """Collateral from the recorded answers of Intel's service; issuer chains travelled in HTTP headers."""
    read = {name: kit.read(f"{entry['dir']}/{name}") for name in entry["files"] if name.startswith("pcs_")}
    root = kit.read(f"{RAW}/intel_sgx_root_ca.pem").decode()
    issuer = x509.load_der_x509_crl(read["pcs_pckcrl.der"]).issuer
    issuers = [
        kit.read(name).decode() for name in (f"{RAW}/pck_platform_ca.pem", "sgx/pck_processor_ca.pem")
    ]
    own = next(pem for pem in issuers if x509.load_pem_x509_certificate(pem.encode()).subject == issuer)
    signer = kit.read(f"{RAW}/tcb_signing_2025_2032.pem").decode()
    document = {
        "pck_crl_issuer_chain": own + root,
        "root_ca_crl": read["pcs_rootca_crl.der"].hex(),
        "pck_crl": read["pcs_pckcrl.der"].hex(),
        "tcb_info_issuer_chain": signer + root,
        "qe_identity_issuer_chain": signer + root,
    }
    for name, file, member in (
        ("tcb_info", "pcs_tcb.json", "tcbInfo"),
        ("qe_identity", "pcs_qe_identity.json", "enclaveIdentity"),
    ):
        text, signature = _signed_text(read[file].decode(), member)
        document[name], document[f"{name}_signature"] = text, signature
    return kit.write(f"{entry['id']}.collateral.json", json.dumps(document).encode())


def _signed_text(body: str, member: str) -> tuple[str, str]:
    """The exact text of the signed member, and the signature in hex."""
    start = body.index(":", body.index(f'"{member}"')) + 1
    _, length = json.JSONDecoder().raw_decode(body[start:].lstrip())
    start += len(body[start:]) - len(body[start:].lstrip())
    return body[start : start + length], str(json.loads(body)["signature"])


def _eventlogs(kit: Kit, entry: dict[str, Any], document: Any, quotes: list[str]) -> None:
    """Each log replays to one of the answer's quotes, also where RTMR3 digests were left empty."""
    for number, listed in enumerate(entry["checks"].get("event_logs") or []):
        log = _at(document, listed["pointer"])
        data = log.encode() if isinstance(log, str) else json.dumps(log).encode()
        file = kit.write(f"{entry['id']}-{number}.eventlog.json", data)
        verdicts = [kit.run("eventlog", file, "--quote", quote) for quote in quotes]
        best = next((one for one in verdicts if one["verdict"] == "accepted"), verdicts[0])
        problems = [] if best["verdict"] == "accepted" else ["verdict"]
        name = f"{entry['id']} event log {listed['pointer']}"
        kit.add("bundles", name, "accepted", str(best["verdict"]), str(best["reason"]), problems)


def _at(document: Any, pointer: str) -> Any:
    """The value at a JSON pointer without escapes."""
    for part in pointer.strip("/").split("/"):
        document = document[int(part)] if isinstance(document, list) else document[part]
    return document


def _gpus(kit: Kit, entry: dict[str, Any], document: Any) -> None:
    listed = entry["checks"].get("gpu")
    if not listed:
        return
    groups = {json.dumps(group): group for group in _evidence_lists(document)}
    total, nonces = 0, set()
    sent = re.search(r"client sent nonce ([0-9a-f]{64})", entry["expect"])
    for number, (text, group) in enumerate(groups.items()):
        file = kit.write(f"{entry['id']}-{number}.gpu.json", text.encode())
        nonce = parse_gpu_report(base64.b64decode(group[0]["evidence"])).nonce.hex()
        nonces.add(nonce)
        command = ["gpu", file, "--at", entry["now"], "--hardware-only", "--nonce"]
        shown = kit.expect("bundles", f"{entry['id']} GPUs {number}", "accepted", *command, nonce)
        total += shown["claims"].get("gpu_count", 0)
        if sent:
            name = f"{entry['id']} GPUs {number}, the client's own nonce"
            kit.expect("bundles", name, "rejected", *command, sent[1], failing={"gpu.nonce"})
    found = f"{total} reports, nonces {len(nonces)}"
    same = total == listed["reports"] and nonces == set(listed["nonces"])
    want = f"{listed['reports']} reports, nonces {len(listed['nonces'])}"
    kit.add(
        "bundles", f"{entry['id']} GPUs", want, found, "every report was seen", [] if same else ["number"]
    )


def _evidence_lists(value: Any) -> Iterator[list[dict[str, Any]]]:
    """Lists of device evidence anywhere in a document, also inside of JSON texts; architecture filled in."""
    if isinstance(value, str) and value[:1] in "[{" and '"evidence"' in value:
        yield from _evidence_lists(json.loads(value))
    elif isinstance(value, dict):
        for item in value.values():
            yield from _evidence_lists(item)
    elif (
        isinstance(value, list)
        and value
        and all(isinstance(one, dict) and "evidence" in one for one in value)
    ):
        yield [
            {
                "arch": one.get("arch", "HOPPER"),
                "certificate": one["certificate"],
                "evidence": one["evidence"],
            }
            for one in value
        ]
    elif isinstance(value, list):
        for item in value:
            yield from _evidence_lists(item)


def _snp(kit: Kit, entry: dict[str, Any], document: Any) -> None:
    report = document.get("enclaveAttestationReport", {})
    if "sev-snp" not in report.get("format", ""):
        return
    data = gzip.decompress(base64.b64decode(report["body"]))
    file = kit.write(f"{entry['id']}.report.bin", data)
    cert = kit.write(f"{entry['id']}.vcek.der", base64.b64decode(document["vcek"]))
    checks = entry["checks"]
    kit.expect(
        "bundles", f"{entry['id']} SNP report", "accepted", "snp", file, "--cert", cert, "--at", entry["now"],
        "--report-data", checks["report_data"],
        claims={"measurement": checks["meas"], "report_data": checks["report_data"]},
    )  # fmt: skip
