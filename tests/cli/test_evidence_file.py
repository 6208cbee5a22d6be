"""`cocoon verify evidence FILE --policy FILE` for TDX, GPUs and SEV-SNP, on simulated nodes: no network."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from cocoon_attestation.errors import ConfigError
from cocoon_attestation.reference import SnpRelease
from cocoon_cli.__main__ import cli
from cocoon_enclave.attestation.simulated_gpu import SimulatedNvidia
from cocoon_enclave.attestation.simulated_gpu_pki import seeded_random
from cocoon_enclave.attestation.simulated_node import SimulatedGpus
from cocoon_enclave.attestation.simulated_snp import SimulatedAmd

sys.path.insert(0, str(Path(__file__).parents[1] / "attestation"))

if TYPE_CHECKING:
    from tests.attestation.kit_node import MEASUREMENT, snp_node, tdx_node
else:
    from kit_node import MEASUREMENT, snp_node, tdx_node


def b64(data: bytes) -> str:
    return f'"{base64.b64encode(data).decode()}"'


class Nodes:
    """Evidence of one TDX node with a GPU and of one SEV-SNP node, and a policy file for both."""

    def __init__(self, lab: Any, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        nvidia = SimulatedNvidia(now=lab.now, rng=seeded_random(b"evidence file"))
        amd = SimulatedAmd(now=lab.now, rng=seeded_random(b"evidence file"))
        release = SnpRelease(name="SIMULATED snp", measurement=MEASUREMENT, models=(lab.model,))
        gpus = SimulatedGpus(nvidia, [nvidia.gpu()], clock=lambda: lab.now)
        self.files = {
            "tdx": self.write("tdx.bin", lab.evidence()),
            "gpu": self.write("gpu.bin", tdx_node(lab, gpus).evidence(lab.challenge)),
            "sev-snp": self.write("snp.bin", snp_node(lab, amd, release).evidence(lab.challenge)),
        }
        rules = nvidia.policy(gpu_count=1)
        self.text = "\n".join(
            [
                f"global_id = {lab.global_id}",
                f'models = ["{lab.model.hex()}"]',
                "min_tcb_evaluation = 19",
                f"dev_root = {b64(lab.platform.root_der)}",
                'tee_kinds = ["tdx", "sev-snp"]',
                "[[releases]]",
                f'name = "{lab.release.name}"',
                'tee = "tdx"',
                *(
                    f'{name} = "{getattr(lab.release, name).hex()}"'
                    for name in ("mrtd", "rtmr0", "rtmr1", "rtmr2", "td_attributes", "xfam")
                ),
                "[[releases]]",
                f'name = "{release.name}"',
                'tee = "sev-snp"',
                f'measurement = "{release.measurement.hex()}"',
                f'models = ["{lab.model.hex()}"]',
                "[snp]",
                f"dev_roots = {{ {amd.root.product.value} = {b64(amd.root.der)} }}",
                "[gpu]",
                f"dev_device_roots = [{', '.join(map(b64, rules.device_roots))}]",
                f"dev_rim_roots = [{', '.join(map(b64, rules.rim_roots))}]",
                "",
            ]
        )

    def write(self, name: str, data: bytes) -> str:
        (self.folder / name).write_bytes(data)
        return str(self.folder / name)

    def verify(self, kind: str, *more: str, edit: tuple[str, str] = ("", "")) -> Result:
        assert edit[0] in self.text
        policy = self.write("policy.toml", self.text.replace(*edit, 1).encode())
        rules = ("--policy", policy, "--challenge", self.lab.challenge.hex(), "--at", str(self.lab.now))
        return CliRunner().invoke(cli, ["verify", "evidence", self.files[kind], *rules, *more])


@pytest.fixture(scope="module")
def nodes(lab: Any, tmp_path_factory: pytest.TempPathFactory) -> Nodes:
    return Nodes(lab, tmp_path_factory.mktemp("nodes"))


def failed(result: Result) -> list[str]:
    return [c["id"] for c in json.loads(result.stdout)["checks"] if c["verdict"] == "fail"]


@pytest.mark.parametrize("kind", ["tdx", "gpu", "sev-snp"])
def test_evidence_of_every_kind(nodes: Nodes, kind: str) -> None:
    found = nodes.verify(kind, "--json")
    assert found.exit_code == 0, found.stdout
    document = json.loads(found.stdout)
    claims = document["claims"]
    assert document["simulated"] is True
    assert claims["platform_id"]
    assert {"tdx": "ppid", "gpu": "ppid", "sev-snp": "chip_id"}[kind] in claims
    if kind == "gpu":
        assert claims["gpu_count"] == 1
        assert claims["devices"][0]["serial"]
    text = nodes.verify(kind)
    assert "accepted" in text.stdout
    assert "SIMULATED" in text.stdout


@pytest.mark.parametrize("kind", ["tdx", "gpu", "sev-snp"])
def test_ear_of_every_kind(nodes: Nodes, kind: str) -> None:
    found = nodes.verify(kind, "--json", "--ear")
    document = json.loads(found.stdout)
    assert found.exit_code == 0
    assert document["ear_status"] == "none"  # simulated
    assert document["eat_nonce"] == nodes.lab.challenge.hex()
    assert document["exp"] > document["iat"]
    assert set(document["submods"]) == {"cpu", "gpu"}
    refused = nodes.verify(
        kind, "--json", "--ear", edit=("min_tcb_evaluation = 19", "min_tcb_evaluation = 20")
    )
    tdx = kind != "sev-snp"
    assert refused.exit_code == (10 if tdx else 0)
    if tdx:
        assert json.loads(refused.stdout)["ear_status"] == "contraindicated"


@pytest.mark.parametrize(
    ("kind", "edit", "check"),
    [
        ("tdx", ('tee_kinds = ["tdx", "sev-snp"]', 'tee_kinds = ["sev-snp"]'), "tee.kind"),
        ("sev-snp", ('tee_kinds = ["tdx", "sev-snp"]', 'tee_kinds = ["tdx"]'), "tee.kind"),
        ("sev-snp", (MEASUREMENT.hex(), "00" * 48), "snp.measurement"),
        ("gpu", ("[gpu]", "[gpu]\ngpu_count = 2"), "gpu.count"),
    ],
)
def test_refusal_names_the_check(nodes: Nodes, kind: str, edit: tuple[str, str], check: str) -> None:
    found = nodes.verify(kind, "--json", edit=edit)
    assert found.exit_code == 10
    assert check in failed(found)


def test_platform_lists_of_every_kind(nodes: Nodes) -> None:
    for kind, check in (("tdx", "tdx.platform"), ("sev-snp", "policy.platform")):
        identity = json.loads(nodes.verify(kind, "--json").stdout)["claims"]["platform_id"]
        line = "min_tcb_evaluation = 19\n"
        denied = nodes.verify(kind, "--json", edit=(line, f'{line}denied_platforms = ["{identity}"]\n'))
        assert failed(denied) == [check]
        listed = f'{line}allowed_platforms = ["{identity}"]\n'
        assert nodes.verify(kind, "--json", edit=(line, listed)).exit_code == 0
    serial = json.loads(nodes.verify("gpu", "--json").stdout)["claims"]["devices"][0]["serial"]
    assert failed(
        nodes.verify("gpu", "--json", edit=("[gpu]", f'[gpu]\ndenied_serials = ["{serial}"]'))
    ) == ["gpu.serial"]
    chip = json.loads(nodes.verify("sev-snp", "--json").stdout)["claims"]["chip_id"]
    assert failed(
        nodes.verify("sev-snp", "--json", edit=("[snp]", f'[snp]\ndenied_chip_ids = ["{chip}"]'))
    ) == ["snp.chip"]


def test_useful_errors(nodes: Nodes) -> None:
    run = CliRunner()
    policy = nodes.write("policy.toml", nodes.text.encode())
    file = nodes.files["tdx"]
    neither = run.invoke(cli, ["verify", "evidence", file])
    assert neither.exit_code == 2
    assert "--network" in neither.output
    assert "--policy" in neither.output
    unasked = run.invoke(cli, ["verify", "evidence", file, "--policy", policy])
    assert unasked.exit_code == 2
    assert "--challenge" in unasked.output
    unknown = nodes.verify("tdx", edit=("min_tcb_evaluation = 19", "min_tcb_evaluation = 19\nsurprise = 1"))
    assert isinstance(unknown.exception, ConfigError)
    assert "surprise" in str(unknown.exception)
    models = f'models = ["{nodes.lab.model.hex()}"]'
    empty = nodes.verify("tdx", edit=(models, "models = []"))
    assert isinstance(empty.exception, ConfigError)
    assert "no model is allowed" in str(empty.exception)


# --- --explain: enough to compute everything again ---------------------------------------------------------


def explained(nodes: Nodes, kind: str) -> dict[str, dict[str, bytes]]:
    """Inputs in hex as bytes, by check id; of several devices the first."""
    document = json.loads(nodes.verify(kind, "--json", "--explain").stdout)
    found: dict[str, dict[str, bytes]] = {}
    for check in document["checks"]:
        assert check["spec"].startswith("docs/spec/")
        values = {
            k: bytes.fromhex(v)
            for k, v in check["inputs"].items()
            if len(v) % 2 == 0 and not v.strip("0123456789abcdef")
        }
        found.setdefault(check["id"], values)
    return found


def valid(curve: ec.EllipticCurve, key: bytes, signature: bytes, signed: bytes, digest: Any) -> bool:
    half = len(signature) // 2
    encoded = encode_dss_signature(int.from_bytes(signature[:half]), int.from_bytes(signature[half:]))
    public = ec.EllipticCurvePublicKey.from_encoded_point(curve, b"\x04" + key)
    try:
        public.verify(encoded, signed, ec.ECDSA(digest))
    except InvalidSignature:
        return False
    return True


@pytest.mark.parametrize("kind", ["tdx", "gpu"])
def test_explain_tdx(nodes: Nodes, kind: str) -> None:
    inputs = explained(nodes, kind)
    data = inputs["binding.report_data"]
    below = hashlib.sha256(data["binding_cell_below"]).digest()
    assert data["binding_cell"].endswith(below)
    assert hashlib.sha256(data["binding_cell"]).digest() == data["binding_hash"]
    if kind == "gpu":
        assert hashlib.sha256(data["gpu_preimage"]).digest() == data["gpu_digest"]
    assert data["binding_hash"] + data["gpu_digest"] in data["preimage"]
    assert hashlib.sha256(data["preimage"]).digest() == data["quoted"][:32] == data["expected"][:32]
    seal = inputs["binding.seal_key"]
    assert hashlib.sha256(seal["preimage"]).digest() == seal["binding"]
    key = inputs["tdx.attestation_key"]
    assert hashlib.sha256(key["preimage"]).digest() == key["qe_report_data"][:32]
    quote = inputs["tdx.sig"]
    assert key["preimage"].startswith(quote["attestation_key"])
    assert data["quoted"] in quote["signed"]
    assert valid(
        ec.SECP256R1(), quote["attestation_key"], quote["signature"], quote["signed"], hashes.SHA256()
    )
    platform = inputs["tdx.platform"]
    assert hashlib.sha256(platform["preimage"]).digest() == platform["platform_id"]
    replayed, log = bytes(48), inputs["rtmr3.replay"]
    for number in range(len(log) - 2):
        event = hashlib.sha384(log[f"preimage {number}"]).digest()
        replayed = hashlib.sha384(replayed + event).digest()
    assert replayed == log["quoted"]


def test_explain_gpu(nodes: Nodes) -> None:
    inputs = explained(nodes, "gpu")
    nonce = hashlib.sha256(inputs["gpu.allowed"]["nonce_preimage"]).digest()
    assert nonce == inputs["gpu.nonce"]["expected"]
    signed = inputs["gpu.sig"]
    assert nonce in signed["signed"]
    assert signed["signed"] + signed["signature"] in inputs["binding.report_data"]["gpu_preimage"]
    assert all(len(value) == 48 for value in inputs["gpu.rim_match"].values())


def test_explain_snp(nodes: Nodes) -> None:
    inputs = explained(nodes, "sev-snp")
    data, report = inputs["snp.report_data"], inputs["snp.sig"]["signed"]
    assert hashlib.sha256(data["preimage"]).digest() == data["found"][:32]
    assert report[0x50:0x90] == data["found"] == data["expected"]
    assert report[0x90:0xC0] == inputs["snp.measurement"]["found"] == inputs["snp.measurement"]["allowed 0"]
    assert report[0xC0:0xE0] == inputs["snp.host_data"]["found"]
    assert report[0x1A0:0x1E0] == inputs["snp.hwid"]["report"]
    assert len(inputs["snp.sig"]["signature"]) == 96
    platform = inputs["policy.platform"]
    assert hashlib.sha256(platform["preimage"]).digest() == platform["platform_id"]
