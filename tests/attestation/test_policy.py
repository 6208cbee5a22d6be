"""Policies: nothing acceptable means refusal, TOML is strict, and tightening never loosens."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from cocoon_attestation.errors import ConfigError
from cocoon_attestation.gpu.policy import GpuPolicy
from cocoon_attestation.policy import OPTIONAL_STATUSES, Policy
from cocoon_attestation.policy_toml import policy_from_toml
from cocoon_attestation.policy_vendor import open_snp_policy
from cocoon_attestation.reference import Release, TeeKind
from cocoon_attestation.roots import INTEL_SGX_ROOT_SHA256, intel_root
from cocoon_attestation.roots.pinned import load_pinned
from cocoon_attestation.snp.policy import DEFAULT_MINIMUM_TCB


def release(name: str = "one") -> Release:
    return Release(
        name=name,
        mrtd=b"\x01" * 48,
        rtmr0=b"\x02" * 48,
        rtmr1=b"\x03" * 48,
        rtmr2=b"\x04" * 48,
        td_attributes=bytes.fromhex("0000001000000000"),
        xfam=bytes.fromhex("e702060000000000"),
    )


def policy(**changes: Any) -> Policy:
    values: dict[str, Any] = {
        "global_id": -3,
        "releases": (release(),),
        "models": frozenset({b"\x05" * 32}),
        "min_tcb_evaluation": 18,
    }
    return Policy(**(values | changes))


# --- construction ---------------------------------------------------------------------------------------


def test_defaults_are_strict() -> None:
    made = policy()
    assert made.statuses == {"UpToDate"}
    assert made.tee_kinds == {TeeKind.TDX}
    assert not made.simulated
    assert made.root == intel_root()
    assert made.root_sha256.hex() == INTEL_SGX_ROOT_SHA256
    assert made.session_limit_s == 600
    assert made.release(release().release_id) == release()
    assert made.release(bytes(32)) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"releases": ()},
        {"models": frozenset()},
        {"tee_kinds": frozenset()},
        {"statuses": frozenset()},
        {"allowed_platforms": frozenset()},
        {"releases": (release(), release())},
        {"tee_kinds": frozenset({"tdx"})},
        {"statuses": frozenset({"OutOfDate"})},
        {"statuses": frozenset({"UpToDate", "OutOfDateConfigurationNeeded"})},
        {"statuses": frozenset({"Revoked"})},
        {"statuses": frozenset({"TDRelaunchAdvised"})},
        {"statuses": frozenset({"uptodate"})},
        {"models": frozenset({bytes(31)})},
        {"models": frozenset({"00" * 32})},
        {"denied_platforms": frozenset({bytes(16)})},
        {"allowed_platforms": frozenset({bytes(33)})},
        {"allowed_modules": frozenset({bytes(32)})},
        {"node": bytes(31)},
        {"global_id": 2**31},
        {"min_tcb_evaluation": 0},
        {"session_limit_s": 0},
        {"max_collateral_age_s": 0},
        {"clock_skew_s": -1},
        {"dev_root": b""},
        {"dev_root": b"\x30\x00"},
    ],
)
def test_policies_that_cannot_be_made(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        policy(**changes)


def test_dev_root_must_be_self_signed(lab: Any) -> None:
    assert policy(dev_root=lab.platform.root_der).simulated
    with pytest.raises(ConfigError):
        policy(dev_root=lab.platform.root_der, global_id=-239)
    with pytest.raises(ConfigError):
        policy(dev_root=lab.platform.platform_ca.certificate.public_bytes(Encoding.DER))


# --- digest -------------------------------------------------------------------------------------------


def test_digest_is_as_specified() -> None:
    made = policy()
    text = json.dumps(made.to_dict(), sort_keys=True, separators=(",", ":"))
    assert made.digest == hashlib.sha256(b"cocoon/v1/policy" + text.encode()).digest()


def test_digest_of_a_fixed_policy() -> None:
    assert policy().digest.hex() == "5ee97c2683f65f6a81881198968c6879447932d47d2476d5e3ad148d1883a501"


def test_digest_ignores_the_order_of_sets() -> None:
    first, second = release("one"), release("two")
    assert policy(releases=(first, second)).digest == policy(releases=(second, first)).digest


CHANGES: list[dict[str, Any]] = [
    {"global_id": -239},
    {"releases": (release("two"),)},
    {"models": frozenset({b"\x06" * 32})},
    {"min_tcb_evaluation": 19},
    {"tee_kinds": frozenset({TeeKind.TDX, TeeKind.SEV_SNP})},
    {"statuses": frozenset({"UpToDate", "SWHardeningNeeded"})},
    {"allowed_advisories": frozenset({"INTEL-SA-1"})},
    {"denied_advisories": frozenset({"INTEL-SA-1"})},
    {"allowed_modules": frozenset({bytes(48)})},
    {"allowed_platforms": frozenset({bytes(32)})},
    {"denied_platforms": frozenset({bytes(32)})},
    {"node": bytes(32)},
    {"max_collateral_age_s": 1},
    {"session_limit_s": 1},
    {"clock_skew_s": 1},
    {"not_after": 1},
    {"grace_s": 1},
    {"grace_s": 1, "recovery_dates": {19: 1}},
]


def test_rules_stay_what_the_digest_says_when_the_caller_changes_its_tables() -> None:
    dates, drivers, levels = {19: 1}, {"GH100": "570.172.08"}, dict(DEFAULT_MINIMUM_TCB)
    made = policy(
        grace_s=1,
        recovery_dates=dates,
        gpu=GpuPolicy(gpu_count=None, minimum_driver=drivers),
        snp=open_snp_policy(minimum_tcb=levels),
    )
    before = made.to_dict()
    dates[19], drivers["GH100"] = 2, "1.0"
    levels.clear()
    assert made.to_dict() == before
    text = json.dumps(before, sort_keys=True, separators=(",", ":"))
    assert made.digest == hashlib.sha256(b"cocoon/v1/policy" + text.encode()).digest()


def test_every_field_is_in_the_digest(lab: Any) -> None:
    changes = [
        *CHANGES,
        {"dev_root": lab.platform.root_der},
        {"snp": open_snp_policy()},
        {"gpu": GpuPolicy(gpu_count=None)},
    ]
    assert {name for change in changes for name in change} == {
        f.name for f in dataclasses.fields(Policy) if f.init
    }
    digests = {policy(**change).digest for change in changes} | {policy().digest}
    assert len(digests) == len(changes) + 1


# --- tightening -----------------------------------------------------------------------------------------


def test_tightened_takes_the_stricter_value() -> None:
    base = policy(
        releases=(release("one"), release("two")),
        models=frozenset({b"\x05" * 32, b"\x06" * 32}),
        denied_platforms=frozenset({bytes(32)}),
        not_after=100,
    )
    tight = base.tightened(
        releases=[release("two").release_id, bytes(32)],
        models=[b"\x06" * 32, b"\x07" * 32],
        node=b"\x08" * 32,
        min_tcb_evaluation=20,
        denied_platforms=[b"\x01" * 32],
        allowed_platforms=[b"\x02" * 32],
        denied_advisories=["INTEL-SA-1"],
        max_collateral_age_s=60,
        session_limit_s=30,
        not_after=50,
    )
    assert tight.releases == (release("two"),)
    assert tight.models == {b"\x06" * 32}
    assert tight.node == b"\x08" * 32
    assert tight.min_tcb_evaluation == 20
    assert tight.denied_platforms == {bytes(32), b"\x01" * 32}
    assert tight.allowed_platforms == frozenset({b"\x02" * 32})
    assert tight.denied_advisories == {"INTEL-SA-1"}
    assert (tight.max_collateral_age_s, tight.session_limit_s, tight.not_after) == (60, 30, 50)


def test_tightened_with_nothing_is_the_same() -> None:
    assert policy().tightened() == policy()


def test_tightened_to_nothing_is_refused() -> None:
    with pytest.raises(ConfigError):
        policy().tightened(models=[bytes(32)])
    with pytest.raises(ConfigError):
        policy().tightened(releases=[])
    with pytest.raises(ConfigError):
        policy(allowed_platforms=frozenset({bytes(32)})).tightened(allowed_platforms=[b"\x01" * 32])
    with pytest.raises(ConfigError):
        policy(node=bytes(32)).tightened(node=b"\x01" * 32)


limits = st.none() | st.integers(1, 10**6)


@given(
    age=limits,
    session=limits,
    until=limits,
    base_until=limits,
    evaluation=st.integers(0, 40),
    denied=st.frozensets(st.binary(min_size=32, max_size=32), max_size=3),
)
def test_tightened_never_loosens(
    age: int | None,
    session: int | None,
    until: int | None,
    base_until: int | None,
    evaluation: int,
    denied: frozenset[bytes],
) -> None:
    base = policy(not_after=base_until)
    tight = base.tightened(
        max_collateral_age_s=age,
        session_limit_s=session,
        not_after=until,
        min_tcb_evaluation=evaluation,
        denied_platforms=denied,
    )
    assert tight.max_collateral_age_s <= base.max_collateral_age_s
    assert tight.session_limit_s <= base.session_limit_s
    assert tight.min_tcb_evaluation >= base.min_tcb_evaluation
    assert tight.denied_platforms >= base.denied_platforms
    if base_until is not None:
        assert tight.not_after is not None
        assert tight.not_after <= base_until
    unchanged = ("statuses", "tee_kinds", "dev_root", "global_id", "allowed_advisories", "clock_skew_s")
    assert all(getattr(tight, name) == getattr(base, name) for name in unchanged)


# --- TOML -----------------------------------------------------------------------------------------------

MINIMAL = f"""
global_id = -3
min_tcb_evaluation = 18
models = ["{"05" * 32}"]

[[releases]]
name = "one"
tee = "tdx"
mrtd = "{"01" * 48}"
rtmr0 = "{"02" * 48}"
rtmr1 = "{"03" * 48}"
rtmr2 = "{"04" * 48}"
td_attributes = "0000001000000000"
xfam = "e702060000000000"
"""


def test_minimal_toml() -> None:
    assert policy_from_toml(MINIMAL) == policy()


def test_complete_toml(lab: Any) -> None:
    root = base64.b64encode(lab.platform.root_der).decode()
    text = f"""
tee_kinds = ["tdx", "sev-snp"]
dev_root = "{root}"
statuses = ["UpToDate", "SWHardeningNeeded"]
allowed_advisories = ["INTEL-SA-1"]
denied_advisories = ["INTEL-SA-2"]
allowed_modules = ["{"06" * 48}"]
allowed_platforms = ["{"07" * 32}"]
denied_platforms = ["{"08" * 32}"]
node = "{"09" * 32}"
max_collateral_age_s = 3600
session_limit_s = 300
clock_skew_s = 5
not_after = 1800000000
"""
    made = policy_from_toml(text + MINIMAL)
    assert made == policy(
        tee_kinds=frozenset({TeeKind.TDX, TeeKind.SEV_SNP}),
        dev_root=lab.platform.root_der,
        statuses=frozenset({"UpToDate", "SWHardeningNeeded"}),
        allowed_advisories=frozenset({"INTEL-SA-1"}),
        denied_advisories=frozenset({"INTEL-SA-2"}),
        allowed_modules=frozenset({b"\x06" * 48}),
        allowed_platforms=frozenset({b"\x07" * 32}),
        denied_platforms=frozenset({b"\x08" * 32}),
        node=b"\x09" * 32,
        max_collateral_age_s=3600,
        session_limit_s=300,
        clock_skew_s=5,
        not_after=1_800_000_000,
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "global_id",
        MINIMAL.replace("global_id = -3", ""),
        MINIMAL.replace("min_tcb_evaluation = 18", ""),
        MINIMAL.replace("models", "model"),
        "allow_debug = true\n" + MINIMAL,
        "skip_appraisal = true\n" + MINIMAL,
        MINIMAL + 'mrseam = "00"\n',
        MINIMAL.replace('name = "one"', ""),
        MINIMAL.replace('"tdx"', '"sgx"'),
        MINIMAL.replace('"tdx"', '"TDX"'),
        MINIMAL.replace('"tdx"', "1"),
        MINIMAL.replace("05" * 32, "05" * 31),
        MINIMAL.replace("05" * 32, "0X" * 32),
        MINIMAL.replace("01" * 48, "01" * 47),
        MINIMAL.replace(f'["{"05" * 32}"]', "[]"),
        MINIMAL.replace(f'["{"05" * 32}"]', f'["{"05" * 32}", "{"05" * 32}"]'),
        MINIMAL.replace(f'["{"05" * 32}"]', "[5]"),
        MINIMAL.replace(f'["{"05" * 32}"]', f'"{"05" * 32}"'),
        MINIMAL.replace("-3", '"-3"'),
        MINIMAL.replace("-3", "true"),
        MINIMAL.replace("= 18", "= 18.0"),
        MINIMAL.replace("[[releases]]", "[releases]"),
        MINIMAL.replace("[[releases]]", "[other]"),
        'statuses = ["OutOfDate"]\n' + MINIMAL,
        "statuses = []\n" + MINIMAL,
        'tee_kinds = ["trustzone"]\n' + MINIMAL,
        "tee_kinds = []\n" + MINIMAL,
        'dev_root = "!!!"\n' + MINIMAL,
        'dev_root = "AAAA"\n' + MINIMAL,
        'node = "00"\n' + MINIMAL,
        "releases = []\n" + MINIMAL.split("[[releases]]")[0],
        "a = " + "[" * 5000,
    ],
)
def test_toml_that_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        policy_from_toml(text)


def test_unknown_key_is_named() -> None:
    with pytest.raises(ConfigError, match="allow_debug"):
        policy_from_toml("allow_debug = true\n" + MINIMAL)


@given(st.text(max_size=200))
def test_arbitrary_text_is_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError):
        policy_from_toml(text)


def test_optional_statuses_exclude_everything_outdated() -> None:
    assert not any(s.startswith(("OutOfDate", "Revoked", "TDRelaunch")) for s in OPTIONAL_STATUSES)


# --- roots ----------------------------------------------------------------------------------------------


def test_root_is_pinned_by_digest() -> None:
    assert hashlib.sha256(intel_root()).hexdigest() == INTEL_SGX_ROOT_SHA256
    with pytest.raises(ConfigError):
        load_pinned("intel", "sgx_root_ca.der", "00" * 32)
    with pytest.raises(ConfigError):
        load_pinned("intel", "missing.der", INTEL_SGX_ROOT_SHA256)
