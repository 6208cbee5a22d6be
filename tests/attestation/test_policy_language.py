"""Client rules: combinators, leaf checks, the TOML form, and that they can only refuse."""

from __future__ import annotations

import dataclasses
import hashlib
import warnings
from typing import Any, ClassVar

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cocoon_attestation import policy_leaves as leaves
from cocoon_attestation import policy_leaves_hardware as hardware
from cocoon_attestation.binding import KeyBinding
from cocoon_attestation.checks import CheckList
from cocoon_attestation.errors import ConfigError, EvidenceRejectedError
from cocoon_attestation.policy_language import (
    MAX_DEPTH,
    AllOf,
    AnyOf,
    ClientRules,
    Finding,
    Rule,
    UnsafeNoOp,
    UnsafePolicyWarning,
)
from cocoon_attestation.policy_language_toml import rules_from_toml, rules_from_value
from cocoon_attestation.reference import Release, TeeKind
from cocoon_attestation.verified import VerifiedEnclave, _issue

RELEASE = Release(
    name="test",
    mrtd=bytes(48),
    rtmr0=bytes(48),
    rtmr1=bytes(48),
    rtmr2=bytes(48),
    td_attributes=bytes(8),
    xfam=bytes(8),
)
PLATFORM, MODEL, OTHER = b"\x01" * 32, b"\x02" * 32, b"\x03" * 32
NODE, CONFIG = b"\x04" * 32, b"\x05" * 32
GPU = {"kind": "gpu", "serial": "41abcd"}
SWITCH = {"kind": "switch", "serial": "50ffff"}


def enclave(
    *,
    models: tuple[bytes, ...] = (MODEL,),
    tee: TeeKind = TeeKind.TDX,
    simulated: bool = False,
    **claims: object,
) -> VerifiedEnclave:
    binding = KeyBinding(
        node=NODE,
        seal_key_hash=bytes(32),
        receipt_key=bytes(32),
        tls_spki_hash=bytes(32),
        config_hash=CONFIG,
        release_id=RELEASE.release_id,
        not_before=0,
        not_after=10,
        global_id=-3,
    )
    checks = CheckList()
    checks.record("test", True, "test")
    return _issue(
        binding=binding,
        seal_public_key=bytes(1216),
        models=models,
        release=RELEASE,
        tee=tee,
        simulated=simulated,
        platform_id=PLATFORM,
        checks=checks,
        policy_digest=bytes(32),
        evidence_digest=bytes(32),
        appraised_at=0,
        expires_at=10,
        claims=claims,
    )


def one(value: bytes) -> frozenset[bytes]:
    return frozenset({value})


@dataclasses.dataclass(frozen=True)
class Fixed:
    """A rule with a known outcome."""

    name: ClassVar[str] = "fixed"
    ok: bool

    def find(self, enclave: VerifiedEnclave) -> Finding:
        return Finding(id="client.fixed", ok=self.ok, detail=f"fixed {self.ok}")

    def to_plain(self) -> object:
        return self.ok


def verdicts(rule: Rule, found: VerifiedEnclave | None = None) -> dict[str, str]:
    checks = ClientRules(rules=AllOf(rule)).evaluate(found or enclave())
    return {check.id: check.verdict.value for check in checks}


LEAVES: list[tuple[Rule, dict[str, Any], dict[str, Any]]] = [
    (leaves.TeeIs(frozenset({TeeKind.TDX})), {}, {"tee": TeeKind.SEV_SNP}),
    (leaves.SimulatedIs(False), {}, {"simulated": True}),
    (leaves.SimulatedIs(True), {"simulated": True}, {}),
    (leaves.ModelIn(one(MODEL)), {}, {"models": (MODEL, OTHER)}),
    (leaves.ModelIn(one(MODEL)), {}, {"models": ()}),
    (hardware.TcbEvaluationAtLeast(19), {"tcb_evaluation": [20, 19]}, {"tcb_evaluation": [20, 18]}),
    (hardware.TcbEvaluationAtLeast(1), {"tcb_evaluation": [1]}, {}),
    (hardware.TcbEvaluationAtLeast(1), {"tcb_evaluation": [1]}, {"tcb_evaluation": []}),
    (hardware.TcbEvaluationAtLeast(1), {"tcb_evaluation": [1]}, {"tcb_evaluation": "20"}),
    (
        hardware.TcbStatusIn(frozenset({"UpToDate"})),
        {"tcb_status": "UpToDate"},
        {"tcb_status": "OutOfDate"},
    ),
    (hardware.TcbStatusIn(frozenset({"UpToDate"})), {"tcb_status": "UpToDate"}, {}),
    (hardware.GpuSerialIn(frozenset({"41abcd"})), {"devices": [GPU, SWITCH]}, {}),
    (hardware.GpuSerialIn(frozenset({"41abcd"})), {"devices": [GPU]}, {"devices": [SWITCH]}),
    (
        hardware.GpuSerialIn(frozenset({"41abcd"})),
        {"devices": (GPU,)},
        {"devices": [GPU, {"kind": "gpu", "serial": "41abce"}]},
    ),
    (hardware.GpuCountAtLeast(2), {"devices": [GPU, GPU]}, {"devices": [GPU, SWITCH]}),
    (hardware.GpuCountAtLeast(1), {"devices": [GPU]}, {"devices": "gpu"}),
    (
        hardware.NvlinkEncrypted(),
        {"devices": [GPU, GPU], "nvlink_encrypted": True},
        {"devices": [GPU, GPU], "nvlink_encrypted": False},
    ),
    (hardware.NvlinkEncrypted(), {"devices": [GPU]}, {"devices": [GPU, GPU]}),
    (
        hardware.AdvisoryNotIn(frozenset({"INTEL-SA-1"})),
        {"advisories": ["INTEL-SA-2"]},
        {"advisories": ["INTEL-SA-2", "INTEL-SA-1"]},
    ),
    (hardware.AdvisoryNotIn(frozenset({"INTEL-SA-1"})), {"advisories": []}, {"advisories": "INTEL-SA-2"}),
    (hardware.TcbNotTolerated(), {"tcb_status": "UpToDate"}, {"tcb_status": "OutOfDate"}),
    (
        hardware.TcbNotTolerated(),
        {"tcb_status": "UpToDate", "tcb_tolerated": None},
        {"tcb_status": "UpToDate", "tcb_tolerated": {"until": 1}},
    ),
    (hardware.GpuSerialNotIn(frozenset({"50ffff"})), {}, {"devices": [GPU, SWITCH]}),
    (hardware.GpuSerialNotIn(frozenset({"41abcd"})), {"devices": [SWITCH]}, {"devices": [GPU]}),
]


@pytest.mark.parametrize(("rule", "good", "bad"), LEAVES)
def test_leaf_holds_and_fails(rule: Rule, good: dict[str, Any], bad: dict[str, Any]) -> None:
    check = f"client.{rule.name}"
    assert verdicts(rule, enclave(**good)) == {check: "pass"}
    assert verdicts(rule, enclave(**bad)) == {check: "fail"}


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (leaves.PlatformIn, PLATFORM),
        (leaves.ReleaseIn, bytes(RELEASE.release_id)),
        (leaves.NodeIn, NODE),
        (leaves.ConfigIn, CONFIG),
    ],
)
def test_leaf_compares_its_own_fact(kind: Any, value: bytes) -> None:
    assert verdicts(kind(one(value))) == {f"client.{kind.name}": "pass"}
    assert verdicts(kind(one(OTHER))) == {f"client.{kind.name}": "fail"}
    assert verdicts(kind(frozenset({value, OTHER}))) == {f"client.{kind.name}": "pass"}


def test_platform_deny_list() -> None:
    assert verdicts(leaves.PlatformNotIn(one(OTHER))) == {"client.platform_not_in": "pass"}
    assert verdicts(leaves.PlatformNotIn(one(PLATFORM))) == {"client.platform_not_in": "fail"}


def test_nothing_is_loosened() -> None:
    # The language takes only what `appraise` issued, and a fact that is missing fails.
    bare = enclave(models=())
    for rule, _, _ in LEAVES:
        if rule.name in ("tee_is", "simulated_is", "nvlink_encrypted", "gpu_serial_not_in"):
            continue
        assert verdicts(rule, bare) == {f"client.{rule.name}": "fail"}


def test_all_of_lists_every_rule() -> None:
    rules = ClientRules(rules=AllOf(Fixed(True), AllOf(Fixed(False), Fixed(True)), Fixed(False)))
    checks = rules.evaluate(enclave())
    assert [check.verdict.value for check in checks] == ["pass", "fail", "pass", "fail"]
    assert not checks.accepted
    assert all(check.spec == "docs/spec/policy-language.md#client.fixed" for check in checks)
    finding = rules.rules.find(enclave())
    assert (finding.ok, finding.detail) == (False, "2 of 3 rules failed")


def test_any_of_is_one_check() -> None:
    held = ClientRules(rules=AllOf(AnyOf(Fixed(False), Fixed(True)))).evaluate(enclave())
    assert [(check.id, check.verdict.value) for check in held] == [("client.any_of", "pass")]
    assert held.accepted
    assert "fixed True" in next(iter(held)).detail
    failed = ClientRules(rules=AllOf(AnyOf(Fixed(False), Fixed(False)))).evaluate(enclave())
    assert [(check.id, check.verdict.value) for check in failed] == [("client.any_of", "fail")]
    assert next(iter(failed)).detail.count("fixed False") == 2


def test_any_of_may_hold_combinators() -> None:
    rule = AnyOf(AllOf(Fixed(True), Fixed(False)), AllOf(Fixed(True), Fixed(True)))
    assert verdicts(rule) == {"client.any_of": "pass"}
    assert verdicts(AnyOf(AllOf(Fixed(True), Fixed(False)))) == {"client.any_of": "fail"}


def outcome(tree: Any) -> bool:
    kind, value = tree
    if kind == "leaf":
        return bool(value)
    return all(map(outcome, value)) if kind == "all" else any(map(outcome, value))


def build(tree: Any) -> Rule:
    kind, value = tree
    if kind == "leaf":
        return Fixed(value)
    return (AllOf if kind == "all" else AnyOf)(*map(build, value))


def depth(tree: Any) -> int:
    kind, value = tree
    return 1 if kind == "leaf" else 1 + max(map(depth, value))


TREES = st.recursive(
    st.tuples(st.just("leaf"), st.booleans()),
    lambda inner: st.tuples(st.sampled_from(["all", "any"]), st.lists(inner, min_size=1, max_size=4)),
    max_leaves=12,
)


@given(TREES)
def test_tree_means_what_its_logic_says(tree: Any) -> None:
    assume(depth(tree) < MAX_DEPTH)
    rules = ClientRules(rules=AllOf(build(tree)))
    checks = rules.evaluate(enclave())
    assert checks.accepted is outcome(tree)
    assert bool(checks.failed) is not outcome(tree)


@pytest.mark.parametrize("combinator", [AllOf, AnyOf])
def test_empty_combinator_is_an_error(combinator: Any) -> None:
    with pytest.raises(ConfigError, match="is empty"):
        combinator()


def test_trees_are_bounded() -> None:
    deep: Rule = Fixed(True)
    for _ in range(6):
        deep = AllOf(deep)
    ClientRules(rules=AllOf(deep))
    with pytest.raises(ConfigError, match="nested deeper"):
        ClientRules(rules=AllOf(AllOf(deep)))
    ClientRules(rules=AllOf(*[Fixed(True)] * 255))
    with pytest.raises(ConfigError, match="more than 256"):
        ClientRules(rules=AllOf(*[Fixed(True)] * 256))


def test_unsafe_rule_warns_and_says_so() -> None:
    with pytest.warns(UnsafePolicyWarning, match="trying it out") as caught:
        rule = UnsafeNoOp("trying it out")
    assert caught[0].filename == __file__
    rules = ClientRules(rules=AllOf(rule))
    assert rules.unsafe
    assert not ClientRules(rules=AllOf(Fixed(True))).unsafe
    checks = rules.evaluate(enclave())
    assert [check.detail for check in checks] == ["UNSAFE: nothing was checked (trying it out)"]
    with pytest.raises(ConfigError, match="reason"):
        UnsafeNoOp(" ")


def test_require_raises_with_every_fault() -> None:
    rules = ClientRules(rules=AllOf(Fixed(False), leaves.NodeIn(one(OTHER)), Fixed(True)))
    with pytest.raises(EvidenceRejectedError) as caught:
        rules.require(enclave())
    assert caught.value.details["failed"] == ["client.fixed", "client.node_in"]
    assert caught.value.details["rules"] == rules.digest.hex()
    assert caught.value.checks is not None
    ids = [check.id for check in caught.value.checks]
    assert ids == ["test", "client.fixed", "client.node_in", "client.fixed"]  # appraisal first
    assert ClientRules(rules=AllOf(Fixed(True))).require(enclave()).accepted


def test_values_at_their_limits() -> None:
    for serial in ("4", "4" * 64):
        assert hardware.GpuSerialIn(frozenset({serial})).values == {serial}
    for kind in (hardware.GpuCountAtLeast, hardware.TcbEvaluationAtLeast):
        for number in (1, 2**31 - 1):
            assert kind(number).to_plain() == number
        with pytest.raises(ConfigError):
            kind(2**31)


@pytest.mark.parametrize(
    "make",
    [
        lambda: leaves.PlatformIn(frozenset()),
        lambda: leaves.PlatformIn(one(b"short")),
        lambda: leaves.PlatformIn(frozenset({"text"})),  # type: ignore[arg-type]
        lambda: leaves.TeeIs(frozenset()),
        lambda: hardware.TcbStatusIn(frozenset()),
        lambda: hardware.TcbEvaluationAtLeast(0),
        lambda: hardware.TcbEvaluationAtLeast(True),
        lambda: hardware.GpuCountAtLeast(0),
        lambda: hardware.GpuSerialIn(frozenset()),
        lambda: hardware.GpuSerialIn(frozenset({"41AB"})),
        lambda: hardware.GpuSerialIn(frozenset({"041ab"})),
        lambda: hardware.GpuSerialIn(frozenset({""})),
        lambda: hardware.GpuSerialIn(frozenset({"4" * 65})),
        lambda: leaves.NodeIn(frozenset(number.to_bytes(32) for number in range(4097))),
    ],
)
def test_leaf_that_could_never_decide_cannot_be_made(make: Any) -> None:
    with pytest.raises(ConfigError):
        make()


TOML = """
version = 1
rules = [
  {{ tee_is = ["sev-snp", "tdx"] }},
  {{ simulated_is = false }},
  {{ nvlink_encrypted = true }},
  {{ any_of = [
    {{ platform_in = ["{platform}"] }},
    {{ all_of = [
      {{ tcb_evaluation_at_least = 19 }},
      {{ tcb_status_in = ["UpToDate"] }},
      {{ gpu_serial_in = ["41abcd"] }},
      {{ gpu_count_at_least = 8 }},
    ] }},
  ] }},
  {{ platform_not_in = ["{other}"] }},
  {{ release_in = ["{other}", "{platform}"] }},
  {{ model_in = ["{other}"] }},
  {{ node_in = ["{other}"] }},
  {{ config_in = ["{other}"] }},
  {{ advisory_not_in = ["INTEL-SA-01036"] }},
  {{ gpu_serial_not_in = ["41abce"] }},
  {{ tcb_not_tolerated = true }},
]
""".format(platform=PLATFORM.hex(), other=OTHER.hex())


def test_plain_form_of_every_rule_reads_back() -> None:
    rules = rules_from_toml(TOML)
    assert rules_from_value(rules.to_dict()["rules"]) == rules
    assert rules_from_value(rules.to_dict()["rules"]).digest == rules.digest


def test_toml_reads_every_rule() -> None:
    rules = rules_from_toml(TOML)
    expected = ClientRules(
        rules=AllOf(
            leaves.TeeIs(frozenset(TeeKind)),
            leaves.SimulatedIs(False),
            hardware.NvlinkEncrypted(),
            AnyOf(
                leaves.PlatformIn(one(PLATFORM)),
                AllOf(
                    hardware.TcbEvaluationAtLeast(19),
                    hardware.TcbStatusIn(frozenset({"UpToDate"})),
                    hardware.GpuSerialIn(frozenset({"41abcd"})),
                    hardware.GpuCountAtLeast(8),
                ),
            ),
            leaves.PlatformNotIn(one(OTHER)),
            leaves.ReleaseIn(frozenset({OTHER, PLATFORM})),
            leaves.ModelIn(one(OTHER)),
            leaves.NodeIn(one(OTHER)),
            leaves.ConfigIn(one(OTHER)),
            hardware.AdvisoryNotIn(frozenset({"INTEL-SA-01036"})),
            hardware.GpuSerialNotIn(frozenset({"41abce"})),
            hardware.TcbNotTolerated(),
        )
    )
    assert rules == expected
    assert rules.digest == expected.digest


def test_digest_is_that_of_the_canonical_form() -> None:
    rules = rules_from_toml('version = 1\n[[rules]]\ntee_is = ["tdx"]\n[[rules]]\nsimulated_is = false\n')
    text = b'{"rules":[{"tee_is":["tdx"]},{"simulated_is":false}],"version":1}'
    assert rules.digest == hashlib.sha256(b"cocoon/v1/policy-language" + text).digest()
    other = rules_from_toml('version = 1\nrules = [{ tee_is = ["tdx"] }]')
    assert other.digest != rules.digest


def test_order_of_values_does_not_change_the_digest() -> None:
    first = rules_from_toml('version = 1\nrules = [{ tee_is = ["tdx", "sev-snp"] }]')
    second = rules_from_toml('version = 1\nrules = [{ tee_is = ["sev-snp", "tdx"] }]')
    assert first.digest == second.digest


def test_unsafe_rule_in_a_file_warns() -> None:
    with pytest.warns(UnsafePolicyWarning):
        rules = rules_from_toml('version = 1\nrules = [{ unsafe_no_op = "test" }]')
    assert rules.unsafe
    assert rules.to_dict() == {"version": 1, "rules": [{"unsafe_no_op": "test"}]}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "version = 1",
        "rules = []",
        "version = 1\nrules = []",
        "version = 2\nrules = [{ simulated_is = false }]",
        "version = true\nrules = [{ simulated_is = false }]",
        "version = 1\nextra = 1\nrules = [{ simulated_is = false }]",
        "version = 1\nrules = { simulated_is = false }",
        "version = 1\nrules = [7]",
        "version = 1\nrules = [{}]",
        'version = 1\nrules = [{ simulated_is = false, tee_is = ["tdx"] }]',
        "version = 1\nrules = [{ is_good = true }]",
        'version = 1\nrules = [{ simulated_is = "no" }]',
        "version = 1\nrules = [{ nvlink_encrypted = false }]",
        "version = 1\nrules = [{ tee_is = [] }]",
        'version = 1\nrules = [{ tee_is = ["sgx"] }]',
        'version = 1\nrules = [{ tee_is = ["tdx", "tdx"] }]',
        'version = 1\nrules = [{ tee_is = "tdx" }]',
        "version = 1\nrules = [{ any_of = [] }]",
        "version = 1\nrules = [{ all_of = [] }]",
        "version = 1\nrules = [{ any_of = 1 }]",
        'version = 1\nrules = [{ platform_in = ["00"] }]',
        f'version = 1\nrules = [{{ platform_in = ["{"AB" * 32}"] }}]',
        "version = 1\nrules = [{ tcb_evaluation_at_least = 0 }]",
        "version = 1\nrules = [{ tcb_evaluation_at_least = 1.0 }]",
        'version = 1\nrules = [{ unsafe_no_op = "" }]',
        "version = 1\nrules = [{ unsafe_no_op = true }]",
        "version = 1\nrules = [" + "{ all_of = [" * 8 + "{ simulated_is = false }" + "] }" * 8 + "]",
        "not toml",
    ],
)
def test_bad_files_are_errors(text: str) -> None:
    with pytest.raises(ConfigError):
        rules_from_toml(text)


@given(st.text(max_size=200))
def test_any_text_is_a_config_error_or_rules(text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnsafePolicyWarning)
        with pytest.raises(ConfigError):
            rules_from_toml(text)


def test_set_of_a_rule_has_a_limit() -> None:
    values = frozenset(range(leaves.MAX_VALUES))
    leaves.require_set("rule", values)
    for wrong in (frozenset(), values | {-1}, [1]):
        with pytest.raises(ConfigError):
            leaves.require_set("rule", wrong)
