"""Conformance of CPU evidence: TDX and SGX quotes, SEV-SNP reports, event logs."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cryptography import x509

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from tests.conformance.conf_kit import Kit, middle, moment
else:
    from conf_kit import Kit, middle, moment

DAY = 86_400
REASONS = {
    "Debug mode": ("attributes",),
    "SEPT_VE_DISABLE": ("attributes",),
    "No matching TCB": ("tcb", "attributes"),
    "TCB status is invalid": ("tcb",),
    "QE report hash": ("attestation_key",),
    "QE MRSIGNER": ("qe",),
    "CertRevoked": ("chain",),
    "expired": ("collateral_time",),
    "Fmspc mismatch": ("collateral",),
    "signature is invalid": ("sig",),
}
"""What the reference library said about a sample -> our checks that may say it."""
MIGRATABLE_OR_DEBUG = 0b11 << 18


def run_quotes(kit: Kit) -> None:
    """Genuine quotes of TDX and SGX, each with each of its collaterals."""
    for category, prefix in (("tdx", "tdx"), ("sgx", "sgx")):
        for entry in kit.index.get(category, []):
            cases = entry.get("cases", [])
            for case in cases:
                _genuine_case(kit, category, prefix, entry, case)
            if not cases:
                _without_collateral(kit, category, entry)
            _rollback(kit, category, entry, cases)


def _genuine_case(
    kit: Kit, category: str, prefix: str, entry: dict[str, Any], case: dict[str, Any]
) -> None:
    name = f"{entry['id']} @ {case['now_iso'][:10]}"
    base = [
        "quote", kit.path(entry["file"]), "--collateral", kit.path(case["collateral"]), "--at", case["now"],
    ]  # fmt: skip
    _judge(kit, category, prefix, name, base, case["dcap_qvl_0_7_0"])
    if case["dcap_qvl_0_7_0"]["result"] != "ok" or "fields" not in entry:
        return
    fields = entry["fields"]
    allow = ["--allow-status", case["dcap_qvl_0_7_0"]["status"]]
    same = [*base, *allow, "--report-data", fields["report_data"]]
    kit.expect(category, f"{name} its report data", "accepted", *same)
    other = [*base, *allow, "--report-data", "5a" * 64]
    kit.expect(category, f"{name} other report data", "rejected", *other, failing={f"{prefix}.report_data"})
    measured = fields.get("mrtd") or fields["mrenclave"]
    kit.expect(category, f"{name} its software", "accepted", *base, *allow, "--mrtd", measured)
    wrong = "5a" * (len(measured) // 2)
    failing = {"tdx.measurement", "sgx.mrenclave"}
    kit.expect(
        category, f"{name} other software", "rejected", *base, *allow, "--mrtd", wrong, failing=failing
    )
    above = max(case["tcb_eval"]) + 1
    kit.expect(
        category, f"{name} newer minimum", "rejected", *base, *allow, "--min-tcb-eval", above,
        failing={f"{prefix}.evaluation"},
    )  # fmt: skip


def _judge(
    kit: Kit, category: str, prefix: str, name: str, base: list[Any], oracle: dict[str, Any]
) -> None:
    """The verdict that follows from what the reference library said, by default and with the status allowed."""
    if oracle["result"] != "ok":
        text = oracle["error"]
        if "decode" in text and "quote" in text:
            kit.expect(category, name, "malformed", *base)
            return
        ids = {f"{prefix}.{id}" for part, ids in REASONS.items() if part in text for id in ids}
        kit.expect(category, name, "rejected", *base, failing=ids)
        return
    status = oracle["status"]
    says = {"tcb_status": status, "advisories": oracle["advisories"]}
    if status == "UpToDate":
        kit.expect(category, name, "accepted", *base, says=says)
    else:
        kit.expect(category, name, "rejected", *base, says=says, failing={f"{prefix}.tcb"})
        allowed = [*base, "--allow-status", status]
        kit.expect(category, f"{name} {status} allowed", "accepted", *allowed, says=says)


def _without_collateral(kit: Kit, category: str, entry: dict[str, Any]) -> None:
    """A quote for which no collateral exists must be refused with any."""
    for file in sorted((kit.folder / category / "collateral").glob("*.json")):
        name = f"{entry['id']} with {file.stem}"
        other = next(
            case["now"]
            for listed in kit.index[category]
            for case in listed.get("cases", [])
            if case["collateral"].endswith(file.name)
        )
        kit.expect(
            category, name, "rejected", "quote", kit.path(entry["file"]), "--collateral", file, "--at", other,
            failing={f"{category}.root", f"{category}.collateral"},
        )  # fmt: skip


def _rollback(kit: Kit, category: str, entry: dict[str, Any], cases: list[dict[str, Any]]) -> None:
    """Two collaterals of one instant: with the newer number as minimum, the older one must be refused."""
    for case in cases:
        newest = max(min(c["tcb_eval"]) for c in cases if c["now"] == case["now"])
        if min(case["tcb_eval"]) < newest:
            kit.expect(
                category, f"{entry['id']} rollback, minimum {newest}", "rejected",
                "quote", kit.path(entry["file"]), "--collateral", kit.path(case["collateral"]),
                "--at", case["now"], "--min-tcb-eval", newest, failing={f"{category}.evaluation"},
            )  # fmt: skip


def run_synthetic(kit: Kit) -> None:
    """Quotes under a throwaway root: judged under that root, and refused under Intel's."""
    for entry in kit.index.get("tdx_synthetic", []):
        base = [
            "quote", kit.path(entry["file"]), "--collateral", kit.path(entry["collateral"]), "--at", entry["now"],
        ]  # fmt: skip
        root = ["--root", kit.path("tdx/synthetic/root_ca.der")]
        oracle = entry["dcap_qvl_0_7_0"]
        minimum = re.search(r"minimum \(e\.g\. (\d+)\)", entry["expect"])
        if minimum:
            failing = {"tdx.evaluation"}
            arguments = [*base, *root, "--min-tcb-eval", minimum[1]]
            kit.expect("tdx_synthetic", f"{entry['id']} minimum", "rejected", *arguments, failing=failing)
        else:
            _judge(kit, "tdx_synthetic", "tdx", entry["id"], [*base, *root], oracle)
        readable = oracle["result"] == "ok" or "decode" not in oracle["error"]
        want = "rejected" if readable else "malformed"
        failing = {"tdx.root"} if readable else set()
        kit.expect("tdx_synthetic", f"{entry['id']} under Intel's root", want, *base, failing=failing)


def run_snp(kit: Kit) -> None:
    """SEV-SNP reports with their certificates, at a time inside and after the certificate."""
    entries = kit.index.get("snp", [])
    for entry in entries:
        checks = entry["checks"]
        base = entry if "cert" in entry else kit.entry("snp", _derived_from(entry))
        cert = kit.path(base["cert"])
        window = base["checks"]["cert_validity"]
        command = ["snp", kit.path(entry["file"]), "--cert", cert, "--at"]
        genuine = bool(checks) and not any(value is False for value in checks.values())
        closed = not int(entry.get("fields", {}).get("policy", "0"), 16) & MIGRATABLE_OR_DEBUG
        if genuine and closed:
            fields = entry["fields"]
            claims = {
                "measurement": fields["meas"],
                "report_data": fields["report_data"],
                "vmpl": fields["vmpl"],
            }
            kit.expect("snp", entry["id"], "accepted", *command, middle(window), claims=claims)
            right = ["--report-data", fields["report_data"]]
            kit.expect(
                "snp", f"{entry['id']} its report data", "accepted", *command, middle(window), *right
            )
            kit.expect(
                "snp", f"{entry['id']} other report data", "rejected",
                *command, middle(window), "--report-data", "5a" * 64, failing={"snp.report_data"},
            )  # fmt: skip
            after = moment(window[1]) + 2 * DAY
            kit.expect("snp", f"{entry['id']} expired", "rejected", *command, after, failing={"snp.dates"})
            _with_crl(kit, entry, command, window)
            _with_chain(kit, entry, command, window)
        else:
            failing = {"snp.debug"} if genuine else {"snp.sig", "snp.chain", "snp.tcb_match"}
            kit.expect("snp", entry["id"], "rejected", *command, middle(window), failing=failing)
    _foreign_certificates(kit, entries)


def _derived_from(entry: dict[str, Any]) -> str:
    found = re.search(r"derived from (\w+)", entry["note"])
    if found is None:
        raise ValueError(f"{entry['id']} names neither a certificate nor its origin")
    return found[1]


def _product(entry: dict[str, Any]) -> str:
    return str(entry["checks"]["issuer"]).rsplit("-", 1)[1].lower()


def _with_crl(kit: Kit, entry: dict[str, Any], command: list[Any], window: list[str]) -> None:
    """With the product's revocation list: accepted while it is current, refused when it is stale."""
    name = f"snp/ca/{_product(entry)}.crl.pem"
    if not (kit.folder / name).is_file():
        return
    crl = x509.load_pem_x509_crl(kit.read(name))
    if crl.next_update_utc is None:
        return
    start = max(crl.last_update_utc.timestamp(), moment(window[0]))
    end = min(crl.next_update_utc.timestamp(), moment(window[1]))
    given = ["--crl", kit.path(name)]
    if start + DAY < end:
        kit.expect("snp", f"{entry['id']} with CRL", "accepted", *command, int((start + end) / 2), *given)
    late = crl.next_update_utc.timestamp() + DAY
    if late < moment(window[1]):
        late_at = int(max(late, moment(window[0]) + DAY))
        kit.expect(
            "snp",
            f"{entry['id']} with a stale CRL",
            "rejected",
            *command,
            late_at,
            *given,
            failing={"snp.crl"},
        )


def _with_chain(kit: Kit, entry: dict[str, Any], command: list[Any], window: list[str]) -> None:
    """The issuers may come with the evidence; those of another product lead nowhere but do no harm."""
    kind = "vlek" if "VLEK" in entry["checks"]["issuer"] else ""
    for file in sorted((kit.folder / "snp" / "ca").glob(f"ask_ark_{_product(entry)}*.pem")):
        if ("vlek" in file.stem) is bool(kind):
            given = ["--chain", kit.path(f"snp/ca/{file.name}")]
            kit.expect(
                "snp", f"{entry['id']} with {file.stem}", "accepted", *command, middle(window), *given
            )


def _foreign_certificates(kit: Kit, entries: list[dict[str, Any]]) -> None:
    """Certificates that are listed as bad must not vouch for any report."""
    for file in sorted((kit.folder / "snp").glob("neg_*.der")):
        for entry in entries:
            if "cert" not in entry:
                continue
            at = middle(entry["checks"]["cert_validity"])
            arguments = ["snp", kit.path(entry["file"]), "--cert", kit.path(f"snp/{file.name}"), "--at", at]
            kit.expect("snp", f"{entry['id']} with {file.stem}", "rejected|malformed", *arguments)


def run_eventlogs(kit: Kit) -> None:
    """Boot logs: replay as published, and against the quote of the same boot where there is one."""
    for entry in kit.index.get("eventlog", []):
        claims = {"replayed_rtmr": entry["replayed_rtmr"], "events": entry["events"]}
        command = ["eventlog", kit.path(entry["file"])]
        kit.expect("eventlog", f"{entry['id']} without a quote", "undecided", *command, claims=claims)
        if "quote" not in entry:
            continue
        for quote in kit.index["tdx"]:
            own = quote["id"] == entry["quote"]
            fits = own and all(entry["match"])
            want, failing = (
                ("accepted", set()) if fits else ("rejected", {f"eventlog.rtmr{i}" for i in range(4)})
            )
            arguments = [*command, "--quote", kit.path(quote["file"])]
            name = f"{entry['id']} with {'its' if own else 'a foreign'} quote {quote['id']}"
            kit.expect("eventlog", name, want, *arguments, claims=claims, failing=failing)
