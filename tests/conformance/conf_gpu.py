"""Conformance of NVIDIA evidence: reports, lists of devices, manifests, revocation answers."""

from __future__ import annotations

import datetime as dt
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.gpu.certificates import parse_pem_chain
from cocoon_attestation.gpu.evidence import parse_evidence_list
from cocoon_attestation.gpu.ocsp import parse_ocsp, revocation_problem
from cocoon_attestation.gpu.report import parse_gpu_report
from cocoon_attestation.gpu.rim import Rim, parse_rim, rim_chain_problem, verify_rim
from cocoon_attestation.roots.nvidia import nvidia_rim_root

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from tests.conformance.conf_kit import Kit, middle, moment
else:
    from conf_kit import Kit, middle, moment

ANY_TIME = 1_780_272_000
"""Device certificates never expire: some day of 2026."""
OCSP_AT = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)
OCSP_NONCE = bytes(range(32))
"""Time and nonce that the made-up revocation answers are for, as the samples' README says."""


def run_gpu(kit: Kit) -> None:
    """Everything in the category ``nvidia``, told apart by what an entry has."""
    for entry in kit.index.get("nvidia", []):
        file, checks = entry["file"], entry["checks"]
        if file.endswith(".ocsp.der"):
            _ocsp(kit, entry)
        elif isinstance(checks, dict) and "xml_signature" in checks:
            _rim(kit, entry)
        elif file.endswith(".json"):
            _list(kit, entry)
        else:
            _report(kit, entry)
    _machines(kit)


def _report(kit: Kit, entry: dict[str, Any]) -> None:
    checks = entry["checks"]
    origin = re.search(r"derived from (\w+)", entry["note"])
    chain = entry.get("chain") or kit.entry("nvidia", origin[1] if origin else "")["chain"]
    nonce = parse_gpu_report(kit.read(entry["file"])).nonce.hex()
    command = ["gpu", kit.path(entry["file"]), "--chain", kit.path(chain), "--at"]
    hardware = [ANY_TIME, "--hardware-only", "--nonce"]
    if not checks or any(checks[key] is False for key in ("signature", "chain_ok", "fwid_matches_leaf")):
        kit.expect("nvidia", entry["id"], "rejected", *command, *hardware, nonce, failing={"gpu.sig"})
        return
    kit.expect("nvidia", entry["id"], "accepted", *command, *hardware, checks["request_nonce"])
    kit.expect(
        "nvidia", f"{entry['id']} without manifests", "undecided", *command, ANY_TIME, "--nonce", nonce
    )
    kit.expect(
        "nvidia",
        f"{entry['id']} other nonce",
        "rejected",
        *command,
        *hardware,
        "5a" * 32,
        failing={"gpu.nonce"},
    )
    _with_manifests(kit, entry, [*command[:-1], "--nonce", nonce])


def _with_manifests(kit: Kit, entry: dict[str, Any], command: list[Any]) -> None:
    """The fitting manifests while their signers are valid; after that, and with a foreign one, never."""
    raw = bytes.fromhex(entry["checks"]["vbios_raw"])
    vbios = ".".join(f"{raw[i]:02X}" for i in (3, 2, 1, 0, 4))
    wanted = {entry["checks"]["driver"], vbios}
    good = [one for one in kit.index["nvidia"] if _is_good_rim(one)]
    fitting = [one for one in good if one["checks"]["colloquialVersion"].upper() in wanted]
    if len(fitting) == len(wanted):
        rims = [part for one in fitting for part in ("--rim", kit.path(one["file"]))]
        windows = [one["checks"]["validity"] for one in fitting]
        window = [max(start for start, _ in windows), min(end for _, end in windows)]
        name = f"{entry['id']} with its manifests"
        says = {"scope": "hardware and firmware"}
        kit.expect("nvidia", name, "accepted", *command, *rims, "--at", middle(window), says=says)
        late = moment(window[1]) + 2 * 86_400
        failing = {"gpu.rim_chain"}
        kit.expect("nvidia", f"{name}, expired", "rejected", *command, *rims, "--at", late, failing=failing)
    for one in good:
        if one not in fitting:
            at = middle(one["checks"]["validity"])
            name = f"{entry['id']} with {Path(one['file']).stem}"
            arguments = [*command, "--rim", kit.path(one["file"]), "--at", at]
            kit.expect("nvidia", name, "rejected", *arguments, failing={"gpu.rim_version"})


def _is_good_rim(entry: dict[str, Any]) -> bool:
    checks = entry["checks"]
    return (
        isinstance(checks, dict)
        and checks.get("xml_signature") == "ok"
        and bool(checks["chain_ok"])
        and bool(checks["root_is_nvidia_rim_root"])
    )


def _list(kit: Kit, entry: dict[str, Any]) -> None:
    genuine = all(
        one["signature"] and one["chain_ok"] and one["fwid_matches_leaf"] is not False
        for one in entry["checks"]
    )
    nonce = entry["checks"][0]["request_nonce"]
    command = ["gpu", kit.path(entry["file"]), "--at", ANY_TIME, "--hardware-only", "--nonce"]
    kit.expect("nvidia", entry["id"], "accepted" if genuine else "rejected", *command, nonce)
    kit.expect(
        "nvidia", f"{entry['id']} other nonce", "rejected", *command, "5a" * 32, failing={"gpu.nonce"}
    )


def _machines(kit: Kit) -> None:
    """Lists of GPUs and of switches with one nonce are one machine."""
    lists = [entry for entry in kit.index.get("nvidia", []) if isinstance(entry["checks"], list)]
    kinds = {
        entry["id"]: {device.kind.value for device in parse_evidence_list(kit.read(entry["file"]))}
        for entry in lists
    }
    for gpus in (entry for entry in lists if kinds[entry["id"]] == {"gpu"}):
        nonce = gpus["checks"][0]["request_nonce"]
        for switches in (entry for entry in lists if kinds[entry["id"]] == {"switch"}):
            same = switches["checks"][0]["request_nonce"] == nonce
            files = [kit.path(gpus["file"]), kit.path(switches["file"])]
            kit.expect(
                "nvidia", f"{gpus['id']} + {switches['id']}", "accepted" if same else "rejected",
                "gpu", *files, "--at", ANY_TIME, "--hardware-only", "--nonce", nonce,
            )  # fmt: skip


def _rim(kit: Kit, entry: dict[str, Any]) -> None:
    """A manifest alone: its signature, and the chain of its signer now and after its end."""
    checks = entry["checks"]
    good = _is_good_rim(entry)
    at = middle(checks["validity"])
    got, reason = _judge_rim(kit.read(entry["file"]), at, checks if good else None)
    want = "accepted" if good else "rejected"
    kit.add("nvidia", entry["id"], want, got, reason, [] if got == want else ["verdict"])
    late, reason = _judge_rim(kit.read(entry["file"]), moment(checks["validity"][1]) + 2 * 86_400, None)
    problems = [] if late == "rejected" else ["verdict"]
    kit.add("nvidia", f"{entry['id']} expired", "rejected", late, reason, problems)


def _judge_rim(data: bytes, at: int, expected: dict[str, Any] | None) -> tuple[str, str]:
    try:
        parsed = parse_rim(data)
        problem = rim_chain_problem(
            parsed.chain, {nvidia_rim_root()}, dt.datetime.fromtimestamp(at, dt.UTC)
        )
        values = verify_rim(parsed)
    except MalformedError as error:
        return "malformed", str(error)
    if problem or not isinstance(values, Rim):
        return "rejected", problem or str(values)
    if expected and (values.version, len(values.active)) != (
        expected["colloquialVersion"],
        expected["active"],
    ):
        return "accepted with other values", f"{values.version}, {len(values.active)} active"
    return "accepted", f"{values.chip} {values.version}, {len(values.active)} active entries"


def _ocsp(kit: Kit, entry: dict[str, Any]) -> None:
    folder = Path(entry["file"]).parent
    chain = parse_pem_chain(kit.read(str(folder / "chain.pem")))
    want = "accepted" if entry["expect"] == "good" else "rejected"
    try:
        response = parse_ocsp(kit.read(entry["file"]))
        problem = revocation_problem(chain, [0], [response], OCSP_NONCE, OCSP_AT)
        got = "rejected" if problem else "accepted"
    except MalformedError as error:
        got, problem = "malformed", str(error)
    kit.add("nvidia", entry["id"], want, got, problem or "good", [] if got == want else ["verdict"])
