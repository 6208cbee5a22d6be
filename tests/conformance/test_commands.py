"""`cocoon verify quote|snp|gpu|eventlog`: stable JSON and exit codes, on simulated evidence."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cocoon_attestation.errors import ConfigError, UnsupportedError
from cocoon_attestation.gpu import rim as rim_module
from cocoon_cli.__main__ import cli, main
from cocoon_enclave.attestation.simulated_gpu import SimulatedNvidia
from cocoon_enclave.attestation.simulated_gpu_pki import seeded_random
from cocoon_enclave.attestation.simulated_snp import ReportFields, SimulatedAmd

MEMBERS = {
    "ok", "kind", "verdict", "reason", "scope", "tcb_status", "advisories", "claims", "checks", "not_checked",
    "warnings",
}  # fmt: skip
NONCE = b"\x4e" * 32


class Files:
    """Simulated evidence as files."""

    def __init__(self, lab: Any, folder: Path) -> None:
        self.folder = folder
        self.now = str(lab.now)
        platform = lab.platform
        self.report_data = bytes(range(64))
        report = platform.td_report(self.report_data, b"\x11" * 48)
        self.quote = self.write("quote.bin", platform.quote(report))
        message = platform.collateral(lab.now, status="OutOfDate", advisories=("INTEL-SA-1",))
        collateral = {
            field.name: value.hex() if isinstance(value, bytes) else value
            for field, value in message.ListFields()
        }
        self.collateral = self.write("collateral.json", json.dumps(collateral).encode())
        self.root = self.write("root.der", platform.root_der)
        vendor = SimulatedNvidia(now=lab.now, rng=seeded_random(b"command"))
        device = vendor.evidence([vendor.gpu()], NONCE, now=lab.now)[0]
        self.gpu = self.write("gpu.bin", device.report)
        self.chain = self.write("chain.pem", device.certificate_chain)
        self.rim = self.write("rim.xml", device.rims[0])
        self.ocsp = self.write("ocsp.der", device.ocsp_responses[0])
        amd = SimulatedAmd(now=lab.now, rng=seeded_random(b"command"))
        chip = amd.chip()
        self.snp = self.write("report.bin", chip.report(ReportFields()))
        self.cert = self.write("vcek.der", chip.certificate)
        self.issuers = self.write("issuers.pem", amd.chain_pem.encode())
        self.crl = self.write("crl.der", amd.crl())

    def write(self, name: str, data: bytes) -> str:
        path = self.folder / name
        path.write_bytes(data)
        return str(path)

    def verify_quote(self, *more: str) -> Result:
        return verify("quote", self.quote, "--collateral", self.collateral, "--at", self.now, *more)


@pytest.fixture(scope="module")
def files(lab: Any, tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(lab, tmp_path_factory.mktemp("evidence"))


def verify(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["verify", *arguments])


def document(result: Result) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(result.stdout)
    assert set(made) >= MEMBERS
    assert all(set(check) >= {"id", "verdict", "detail"} for check in made["checks"])
    return made


def test_status_that_is_not_allowed_is_shown(files: Files) -> None:
    result = files.verify_quote("--root", files.root, "--json")
    made = document(result)
    assert result.exit_code == 10
    assert (made["verdict"], made["tcb_status"], made["advisories"]) == (
        "rejected",
        "OutOfDate",
        ["INTEL-SA-1"],
    )
    assert made["ok"] is False


def test_allowed_status_is_accepted(files: Files) -> None:
    more = ("--root", files.root, "--allow-status", "OutOfDate", "--allow-status", "SWHardeningNeeded")
    result = files.verify_quote(*more, "--report-data", files.report_data.hex(), "--json")
    assert result.exit_code == 0
    assert document(result)["verdict"] == "accepted"


def test_grace_and_advisories_by_option(files: Files) -> None:
    root = ("--root", files.root, "--json")
    # The simulated collateral has no newer level, so nothing says since when the platform is outdated.
    assert files.verify_quote(*root, "--grace-days", "30").exit_code == 10
    allowed = (*root, "--allow-status", "OutOfDate")
    accepted = document(files.verify_quote(*allowed, "--allow-advisory", "INTEL-SA-1"))
    assert accepted["claims"]["tcb_tolerated"]["advisories"] == ["INTEL-SA-1"]
    for more in (("--allow-advisory", "INTEL-SA-2"), ("--deny-advisory", "INTEL-SA-1")):
        refused = document(files.verify_quote(*allowed, *more))
        assert [check["id"] for check in refused["checks"] if check["verdict"] == "fail"] == ["tdx.tcb"]
    assert files.verify_quote(*root, "--grace-days", "31").exit_code == 2


def test_ear_claims(files: Files) -> None:
    more = ("--root", files.root, "--allow-status", "OutOfDate", "--json", "--ear")
    accepted = files.verify_quote(*more)
    made = json.loads(accepted.stdout)
    assert accepted.exit_code == 0
    assert "UNSAFE custom root" in accepted.stderr
    assert made["ear_status"] == "none"  # a root of somebody's own is never affirming
    assert made["iat"] == int(files.now)
    assert made["submods"]["cpu"]["ear_trustworthiness_vector"] == {}
    refused = files.verify_quote("--json", "--ear")
    assert refused.exit_code == 10
    part = json.loads(refused.stdout)["submods"]["cpu"]
    assert part["ear_status"] == "contraindicated"
    assert part["ear_trustworthiness_vector"]["hardware"] == 99
    assert "tdx.root" in part["ear_verifier_claims"]["cocoon_failed"]
    assert files.verify_quote("--ear").exit_code == 2
    gpu = verify(
        *("gpu", files.gpu, "--chain", files.chain, "--nonce", NONCE.hex(), "--at", files.now),
        *("--json", "--ear"),
    )
    assert set(json.loads(gpu.stdout)["submods"]) == {"gpu"}
    snp = verify(
        *("snp", files.snp, "--cert", files.cert, "--chain", files.issuers, "--at", files.now),
        *("--json", "--ear"),
    )
    assert json.loads(snp.stdout)["submods"]["cpu"]["ear_trustworthiness_vector"]["hardware"] == 99
    assert verify("eventlog", files.gpu, "--ear").exit_code == 2


def test_custom_root_is_loud_on_both_streams(files: Files) -> None:
    result = files.verify_quote("--root", files.root, "--json")
    assert "UNSAFE custom root" in result.stderr
    assert any("UNSAFE" in warning for warning in document(result)["warnings"])
    text = files.verify_quote("--root", files.root)
    assert "UNSAFE custom root" in text.stdout
    assert "UNSAFE" not in files.verify_quote().stderr


def test_text_shows_every_check_and_the_verdict(files: Files) -> None:
    result = files.verify_quote("--root", files.root, "--allow-status", "OutOfDate", "--explain")
    assert result.exit_code == 0
    for part in ("tdx.sig", "tdx.report_data", "accepted tdx-quote", "TCB OutOfDate", "quote_sha256 ="):
        assert part in result.stdout


def test_explain_shows_inputs_in_json(files: Files) -> None:
    made = document(files.verify_quote("--json", "--explain"))
    signature = next(check for check in made["checks"] if check["id"] == "tdx.sig")
    assert signature["inputs"]["quote_sha256"] == made["claims"]["quote_sha256"]
    assert signature["spec"] == "docs/spec/appraisal.md#tdx.sig"


def test_malformed_input_is_json_on_stdout(files: Files) -> None:
    broken = files.write("broken.bin", b"\x04\x00 no quote")
    result = verify("quote", broken, "--collateral", files.collateral, "--json")
    made = document(result)
    assert result.exit_code == 30
    assert made["verdict"] == "malformed"
    assert made["error"]["code"] == "malformed"
    assert made["checks"] == []
    text = verify("quote", broken, "--collateral", files.collateral)
    assert text.exit_code == 30
    assert "malformed" in text.stderr


def test_file_that_is_too_long_is_malformed(files: Files) -> None:
    huge = files.write("huge.bin", bytes((8 << 20) + 1))
    assert verify("eventlog", huge, "--json").exit_code == 30


@pytest.mark.parametrize(
    "arguments",
    [
        ["--report-data", "00"],
        ["--report-data", "zz"],
        ["--mrtd", "00"],
        ["--at", "yesterday"],
        ["--at", "2026-01-01T00:00:00"],
        ["--min-tcb-eval", "-1"],
        ["--policy", "/nowhere.toml"],
    ],
)
def test_wrong_options_are_usage_errors(files: Files, arguments: list[str]) -> None:
    assert files.verify_quote(*arguments).exit_code == 2


def test_status_that_can_never_be_allowed(files: Files) -> None:
    result = files.verify_quote("--allow-status", "Revoked")
    assert isinstance(result.exception, ConfigError)


def test_policy_file_is_applied_and_checked(files: Files, lab: Any) -> None:
    release = lab.release
    text = f"""
global_id = -3
min_tcb_evaluation = 20
models = ["{lab.model.hex()}"]
dev_root = "{base64.b64encode(lab.platform.root_der).decode()}"
[[releases]]
name = "one"
tee = "tdx"
""" + "".join(
        f'{name} = "{getattr(release, name).hex()}"\n'
        for name in ("mrtd", "rtmr0", "rtmr1", "rtmr2", "td_attributes", "xfam")
    )
    made = document(files.verify_quote("--policy", files.write("policy.toml", text.encode()), "--json"))
    failed = [check["id"] for check in made["checks"] if check["verdict"] == "fail"]
    assert failed == ["tdx.evaluation", "tdx.tcb"]
    wrong = files.verify_quote("--policy", files.write("wrong.toml", b"surprise = 1\n" + text.encode()))
    assert isinstance(wrong.exception, ConfigError)
    unreadable = files.verify_quote("--policy", files.write("bad.toml", b"\xff"))
    assert isinstance(unreadable.exception, ConfigError)


def test_snp(files: Files) -> None:
    result = verify(
        "snp", files.snp, "--cert", files.cert, "--chain", files.issuers, "--crl", files.crl, "--at", files.now,
        "--report-data", "00" * 64, "--json",
    )  # fmt: skip
    made = document(result)
    assert (result.exit_code, made["kind"], made["verdict"]) == (10, "snp-report", "rejected")
    assert made["reason"].startswith("snp.chain")


def test_gpu(files: Files) -> None:
    base = ["gpu", files.gpu, "--chain", files.chain, "--nonce", NONCE.hex(), "--at", files.now, "--json"]
    made = document(verify(*base, "--hardware-only"))
    assert [check["id"] for check in made["checks"] if check["verdict"] == "fail"] == ["gpu.chain"]
    rest = document(verify(*base, "--rim", files.rim, "--ocsp", files.ocsp, "--ocsp-nonce", NONCE.hex()))
    assert rest["verdict"] == "rejected"
    assert verify("gpu", files.gpu, "--chain", files.chain, "--json").exit_code == 2
    assert isinstance(verify("gpu", files.gpu, "--nonce", NONCE.hex()).exception, ConfigError)


def test_missing_extra_is_undecided_with_its_own_exit_code(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> Any:
        raise UnsupportedError(f"no {name}")

    monkeypatch.setattr(rim_module, "_module", missing)
    result = verify(
        "gpu", files.gpu, "--chain", files.chain, "--nonce", NONCE.hex(), "--rim", files.rim, "--json"
    )
    assert result.exit_code == 20
    assert document(result)["verdict"] == "undecided"


def test_eventlog(files: Files) -> None:
    log = files.write("log.json", json.dumps([]).encode())
    assert verify("eventlog", log, "--quote", files.quote, "--json").exit_code == 30
    entry = {"imr": 3, "event_type": 0x08000001, "digest": "", "event": "system-ready", "event_payload": ""}
    log = files.write("log.json", json.dumps([entry]).encode())
    result = verify("eventlog", log, "--quote", files.quote, "--json")
    made = document(result)
    assert result.exit_code == 10
    assert made["claims"]["quote_rtmr"][3] == "11" * 48
    assert made["reason"].startswith("eventlog.rtmr0")


# --- our own evidence ----------------------------------------------------------------------------------------


def evidence_policy(lab: Any) -> bytes:
    lines = [
        f"global_id = {lab.global_id}",
        "min_tcb_evaluation = 19",
        f'models = ["{lab.model.hex()}"]',
        f'dev_root = "{base64.b64encode(lab.platform.root_der).decode()}"',
        "[[releases]]",
        f'name = "{lab.release.name}"',
        'tee = "tdx"',
    ]
    names = ("mrtd", "rtmr0", "rtmr1", "rtmr2", "td_attributes", "xfam")
    lines += [f'{name} = "{getattr(lab.release, name).hex()}"' for name in names]
    return "\n".join(lines).encode()


def test_own_evidence(files: Files, lab: Any) -> None:
    policy = files.write("own.toml", evidence_policy(lab))
    base = ["--policy", policy, "--challenge", lab.challenge.hex(), "--at", files.now, "--json"]
    good = verify("evidence", files.write("good.pb", lab.evidence()), *base)
    made = json.loads(good.stdout)
    assert (good.exit_code, made["verdict"], made["tcb_status"], made["advisories"]) == (
        0,
        "accepted",
        "UpToDate",
        [],
    )
    assert made["simulated"] is True
    outdated = lab.evidence(
        collateral=lab.platform.collateral(lab.now, status="OutOfDate", advisories=("A-1",))
    )
    bad = verify("evidence", files.write("old.pb", outdated), *base)
    made = json.loads(bad.stdout)
    assert (bad.exit_code, made["verdict"]) == (10, "rejected")
    assert (made["tcb_status"], made["advisories"]) == ("OutOfDate", ["A-1"])


def test_own_evidence_that_does_not_parse(
    files: Files, lab: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = files.write("own.toml", evidence_policy(lab))
    broken = files.write("broken.pb", b"\xff" * 10)
    arguments = [
        "verify",
        "evidence",
        broken,
        "--policy",
        policy,
        "--challenge",
        lab.challenge.hex(),
        "--json",
    ]
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 30
    made = json.loads(capsys.readouterr().out)
    assert (made["verdict"], made["error"]["code"]) == ("malformed", "malformed")
