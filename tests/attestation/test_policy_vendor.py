"""The vendor parts of a policy: strict, never mixed with development roots, in the digest and in TOML."""

from __future__ import annotations

import base64
import dataclasses
import json
from typing import Any

import pytest

from cocoon_attestation.errors import ConfigError, MalformedError
from cocoon_attestation.gpu.policy import GpuPolicy
from cocoon_attestation.gpu.report import FeatureFlag
from cocoon_attestation.policy import Policy
from cocoon_attestation.policy_toml import policy_from_toml
from cocoon_attestation.policy_toml_vendor import gpu_from_table, snp_from_table
from cocoon_attestation.policy_vendor import gpu_to_dict, open_snp_policy, snp_to_dict
from cocoon_attestation.reference import Release, SnpRelease, TeeKind
from cocoon_attestation.snp.policy import SnpPolicy
from cocoon_attestation.snp.report import Product, TcbVersion

MODEL = b"\x05" * 32
SNP = SnpRelease(name="snp", measurement=b"\x01" * 48, models=(MODEL,))


def policy(**changes: Any) -> Policy:
    values: dict[str, Any] = {
        "global_id": -3,
        "releases": (SNP,),
        "models": frozenset({MODEL}),
        "min_tcb_evaluation": 18,
        "tee_kinds": frozenset({TeeKind.SEV_SNP}),
    }
    return Policy(**(values | changes))


def test_parts_must_not_waive_a_check() -> None:
    for loose in (
        SnpPolicy.dangerous_genuine_only(),
        open_snp_policy(require_crl=False),
        open_snp_policy(minimum_tcb={}),
        open_snp_policy(host_data=bytes(32)),
    ):
        with pytest.raises(ConfigError):
            policy(snp=loose)
    for open_gpu in (GpuPolicy.dangerous_genuine_only(), GpuPolicy(gpu_count=8, require_ocsp=False)):
        with pytest.raises(ConfigError):
            policy(gpu=open_gpu)
    assert policy(snp=open_snp_policy(), gpu=GpuPolicy(gpu_count=None)).gpu


def test_roots_of_vendors_and_of_development_never_mix(lab: Any, amd: Any, nvidia: Any) -> None:
    simulated = open_snp_policy(roots=(amd.root,))
    dev = {"dev_root": lab.platform.root_der}
    assert policy(snp=simulated, gpu=nvidia.policy(gpu_count=1), **dev).simulated
    for wrong in (
        {"snp": simulated},
        {"snp": open_snp_policy(), **dev},
        {"snp": open_snp_policy(roots=(dataclasses.replace(amd.root, simulated=False),))},
        {"snp": open_snp_policy(roots=(*open_snp_policy().roots, amd.root)), **dev},
        {"gpu": nvidia.policy(gpu_count=1)},
        {"gpu": GpuPolicy(gpu_count=1), **dev},
        {"gpu": dataclasses.replace(GpuPolicy(gpu_count=1), rim_roots=frozenset({nvidia.rim_root.der}))},
    ):
        with pytest.raises(ConfigError):
            policy(**wrong)


def test_genuine_root_marked_as_simulated_is_refused(lab: Any) -> None:
    disguised = tuple(dataclasses.replace(root, simulated=True) for root in open_snp_policy().roots)
    with pytest.raises(ConfigError):
        policy(snp=open_snp_policy(roots=disguised), dev_root=lab.platform.root_der)


def test_every_field_of_a_part_is_in_its_canonical_form() -> None:
    snp, gpu = snp_to_dict(open_snp_policy()), gpu_to_dict(GpuPolicy(gpu_count=2))
    assert set(snp) == {field.name for field in dataclasses.fields(SnpPolicy)}
    assert set(gpu) == {field.name for field in dataclasses.fields(GpuPolicy)}
    assert json.loads(json.dumps([snp, gpu])) == [snp, gpu]
    assert all(len(root) == 64 for root in gpu["device_roots"])  # type: ignore[attr-defined]
    digests = {
        policy(snp=part).digest
        for part in (
            open_snp_policy(),
            open_snp_policy(vmpls=frozenset({1})),
            open_snp_policy(products=frozenset({Product.GENOA})),
            open_snp_policy(
                minimum_tcb={Product.GENOA: TcbVersion(boot_loader=1, tee=1, snp=1, microcode=1)}
            ),
        )
    }
    assert len(digests) == 4


# --- releases -------------------------------------------------------------------------------------------


def test_release_id_depends_on_every_field() -> None:
    others = [
        dataclasses.replace(SNP, name="other"),
        dataclasses.replace(SNP, measurement=b"\x02" * 48),
        dataclasses.replace(SNP, models=(MODEL, bytes(32))),
        dataclasses.replace(SNP, gpus=8),
    ]
    assert len({release.release_id for release in (SNP, *others)}) == 5
    assert SNP.release_id.hex() == SnpRelease(**dataclasses.asdict(SNP)).release_id.hex()


@pytest.mark.parametrize(
    "fault",
    [
        {"name": ""},
        {"name": "ü"},
        {"measurement": bytes(47)},
        {"models": ()},
        {"models": (MODEL, MODEL)},
        {"models": (b"short",)},
        {"gpus": 17},
        {"gpus": -1},
        {"gpus": True},
    ],
)
def test_malformed_release(fault: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        dataclasses.replace(SNP, **fault)


def test_releases_are_told_apart_by_kind() -> None:
    tdx = Release(
        name="tdx",
        mrtd=bytes(48),
        rtmr0=bytes(48),
        rtmr1=bytes(48),
        rtmr2=bytes(48),
        td_attributes=bytes(8),
        xfam=bytes(8),
    )
    both = policy(releases=(tdx, SNP))
    assert both.tdx_releases == (tdx,)
    assert both.snp_releases == (SNP,)
    assert both.release(SNP.release_id) is SNP
    # A Release cell of kind SEV-SNP has no meaning yet: it never matches a TDX quote.
    assert policy(releases=(dataclasses.replace(tdx, tee=TeeKind.SEV_SNP), SNP)).tdx_releases == ()
    with pytest.raises(ConfigError):
        policy(releases=(SNP, dataclasses.replace(SNP, gpus=1)))


# --- TOML -----------------------------------------------------------------------------------------------

TOML = f"""
global_id = -3
min_tcb_evaluation = 18
models = ["{MODEL.hex()}"]
tee_kinds = ["sev-snp"]

[[releases]]
name = "snp"
tee = "sev-snp"
measurement = "{"01" * 48}"
models = ["{MODEL.hex()}"]
gpus = 8

[snp]
products = ["genoa"]
vlek_csps = ["CN=cc-us-east-2.amazonaws.com"]
vmpls = [0, 1]
minimum_abi = [1, 55]
policy_required = 65536
platform_required = {{ genoa = 36 }}
minimum_guest_svn = 3
family_id = "{"02" * 16}"
chip_ids = ["{"03" * 64}"]
[snp.minimum_tcb.genoa]
boot_loader = 11
tee = 0
snp = 24
microcode = 85

[gpu]
gpu_count = 8
chips = ["GH100", "LS_10"]
modes = ["ppcie"]
minimum_driver = {{ GH100 = "580.95.05" }}
serials = ["41aa"]
"""


def test_toml_gives_the_parts() -> None:
    made = policy_from_toml(TOML)
    assert made.snp is not None
    assert made.gpu is not None
    assert made.snp_releases == (dataclasses.replace(SNP, gpus=8),)
    assert made.snp.products == {Product.GENOA}
    assert made.snp.minimum_tcb[Product.GENOA].snp == 24
    assert made.snp.minimum_abi == (1, 55)
    assert made.snp.platform_required == {Product.GENOA: 36}
    assert made.snp.require_crl
    assert made.gpu.gpu_count == 8
    assert made.gpu.modes == {FeatureFlag.PPCIE}
    assert made.gpu.minimum_driver == {"GH100": "580.95.05"}
    assert made.gpu.require_ocsp
    assert made.gpu.require_rims


def test_toml_names_development_roots(lab: Any, amd: Any, nvidia: Any) -> None:
    snp = snp_from_table({"dev_roots": {"genoa": base64.b64encode(amd.root.der).decode()}})
    assert snp.roots == (amd.root,)
    gpu = gpu_from_table(
        {
            "dev_device_roots": [base64.b64encode(nvidia.device_root.der).decode()],
            "dev_rim_roots": [base64.b64encode(nvidia.rim_root.der).decode()],
        }
    )
    assert gpu == dataclasses.replace(nvidia.policy(gpu_count=1), gpu_count=None)
    assert policy(snp=snp, gpu=gpu, dev_root=lab.platform.root_der).simulated


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("vmpls", "vmpl"),
        ("gpu_count = 8", "gpu_count = 0"),
        ("gpu_count = 8", "gpu_count = 17"),
        ("gpu_count = 8", 'gpu_count = "8"'),
        ("gpu_count = 8", "require_ocsp = false"),
        ("[0, 1]", "[0, 4]"),
        ("[0, 1]", "[true]"),
        ("[1, 55]", "[1]"),
        ('["genoa"]', '["rome"]'),
        ('["genoa"]', '["genoa", "genoa"]'),
        ('["ppcie"]', '["fast"]'),
        ("genoa = 36", "genoa = 256"),
        ("microcode = 85", "microcode = 256"),
        ("microcode = 85", ""),
        ("boot_loader = 11", "bootloader = 11"),
        ("gpus = 8", "gpus = 99"),
        ("gpus = 8", "mrtd = 8"),
        ('measurement = "01', 'measurement = "'),
        ('tee = "sev-snp"', 'tee = "tdx"'),
        ('tee = "sev-snp"', 'tee = "sgx"'),
        ('tee = "sev-snp"', ""),
        ("minimum_guest_svn = 3", "require_crl = false"),
        ('GH100 = "580.95.05"', "GH100 = 580"),
        ("policy_required = 65536", "policy_required = -1"),
    ],
)
def test_wrong_toml_is_refused(old: str, new: str) -> None:
    assert old in TOML
    with pytest.raises(ConfigError):
        policy_from_toml(TOML.replace(old, new, 1))


@pytest.mark.parametrize("name", ["products", "vmpls"])
def test_snp_part_that_allows_nothing_cannot_be_made(name: str) -> None:
    with pytest.raises(ConfigError, match="could never accept"):
        open_snp_policy(**{name: frozenset()})


@pytest.mark.parametrize("name", ["chips", "modes", "opaque_versions"])
def test_gpu_part_that_allows_nothing_cannot_be_made(name: str) -> None:
    values: dict[str, Any] = {"gpu_count": 1, name: frozenset()}
    with pytest.raises(ConfigError, match="could never accept"):
        GpuPolicy(**values)


@pytest.mark.parametrize("key", ["chip_ids", "id_key_digests", "author_key_digests"])
def test_empty_list_of_allowed_machines_is_not_all_of_them(key: str) -> None:
    with pytest.raises(ConfigError, match="allows nothing"):
        snp_from_table({key: []})
    assert snp_from_table({"denied_chip_ids": []}).denied_chip_ids == frozenset()


def test_empty_list_of_allowed_devices_is_not_all_of_them() -> None:
    with pytest.raises(ConfigError, match="allows nothing"):
        gpu_from_table({"serials": []})
    assert gpu_from_table({"denied_serials": []}).denied_serials == frozenset()
