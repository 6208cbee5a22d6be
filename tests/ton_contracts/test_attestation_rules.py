"""Rules that follow from Intel's statements, and platforms that meet them or do not."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from cocoon_attestation.errors import MalformedError, RejectedError
from cocoon_attestation.evidence import TdxCollateralBytes
from cocoon_attestation.tdx.collateral import Collateral, load_collateral, parse_collateral
from cocoon_enclave.attestation import simulated_pki as pki
from cocoon_enclave.attestation.simulated import DevPlatform
from cocoon_ton.attestation_rules import AttestationRule, parse_rule, rule_from_collateral
from cocoon_ton.emulator import Emulator, TestChain

from .pck_kit import PckWorld, platform_with, seeded

NAMED = os.environ.get("COCOON_TEST_VECTORS")
FOLDER = (Path(NAMED) if NAMED else Path(__file__).resolve().parents[3] / "shared" / "vectors") / "tdx"
NOW = 1_790_000_000
ANCHOR = b"\x0b" * 32
PLATFORM = DevPlatform.create(NOW, seeded("platform"))


def collateral(platform: DevPlatform = PLATFORM, **changes: object) -> Collateral:
    message = platform.collateral(NOW, **changes)  # type: ignore[arg-type]
    names = [field.name for field in message.DESCRIPTOR.fields]
    return parse_collateral(TdxCollateralBytes(**{name: getattr(message, name) for name in names}))


def edited(which: str, edit: object) -> Collateral:
    """Collateral with other JSON; signatures are not this module's business."""
    made = collateral()
    statement = getattr(made, which)
    document = json.loads(statement.text)
    edit(document)  # type: ignore[operator]
    return replace(made, **{which: replace(statement, text=json.dumps(document).encode())})


def test_the_rule_is_what_the_platform_has() -> None:
    rule = rule_from_collateral(collateral(), anchor=ANCHOR, module_major=1)
    tcb = PLATFORM.tcb
    assert rule == AttestationRule(
        anchor=ANCHOR,
        qe_mrsigner=PLATFORM.qe_mrsigner,
        min_qe_svn=6,
        fmspc=tcb.fmspc,
        min_components=bytes(tcb.sgx_components),
        min_pce_svn=13,
        min_tee_tcb_svn=bytes(tcb.tee_tcb_svn),
        evaluation=19,
        valid_until=rule.valid_until,
    )
    assert NOW < rule.valid_until <= NOW + 30 * 86_400
    assert parse_rule(rule.cell) == rule


def test_levels_count_down_to_the_first_that_is_not_accepted() -> None:
    def levels(document: dict[str, list[dict[str, object]]]) -> None:
        (newest,) = document["tcbLevels"]
        for status, pce in (("SWHardeningNeeded", 12), ("OutOfDate", 11), ("UpToDate", 10)):
            tcb = dict(newest["tcb"]) | {"pcesvn": pce}  # type: ignore[call-overload]
            document["tcbLevels"].append({"tcb": tcb, "tcbStatus": status})

    made = edited("tcb_info", levels)
    strict = rule_from_collateral(made, anchor=ANCHOR, module_major=1)
    assert strict.min_pce_svn == 13
    both = frozenset({"UpToDate", "SWHardeningNeeded"})
    assert rule_from_collateral(made, anchor=ANCHOR, module_major=1, statuses=both).min_pce_svn == 12


def test_no_accepted_level_is_an_error() -> None:
    with pytest.raises(RejectedError):
        rule_from_collateral(collateral(status="OutOfDate"), anchor=ANCHOR, module_major=1)
    with pytest.raises(RejectedError, match="module"):
        rule_from_collateral(collateral(), anchor=ANCHOR, module_major=3)


def test_a_module_of_version_0_is_judged_by_the_components() -> None:
    rule = rule_from_collateral(collateral(), anchor=ANCHOR, module_major=0)
    assert rule.min_tee_tcb_svn == bytes((5, 0, 4)) + bytes(13)


@pytest.mark.parametrize("which", ["tcb_info", "qe_identity"])
@pytest.mark.parametrize(
    "edit",
    [
        lambda d: d.pop("tcbLevels"),
        lambda d: d.update(tcbLevels=[{}]),
        lambda d: d.update(tcbLevels=5),
        lambda d: d["tcbLevels"][0].update(tcb={"isvsvn": "x", "pcesvn": None}),
        lambda d: d["tcbLevels"][0].update(tcb=None),
    ],
)
def test_statements_of_another_form_are_refused(which: str, edit: object) -> None:
    with pytest.raises(MalformedError):
        rule_from_collateral(edited(which, edit), anchor=ANCHOR, module_major=1)


def test_the_contract_judges_by_the_rule(emulator: Emulator) -> None:
    """The platform of the collateral passes; one a step behind does not."""
    chain = TestChain(emulator=emulator, now=NOW)
    world = PckWorld.create(chain, PLATFORM)
    assert world.verify().success
    rule = rule_from_collateral(collateral(), anchor=world.root, module_major=1)
    assert world.attest(None, world.statement(rule=rule)).success
    behind = PckWorld.create(chain, platform_with(PLATFORM, pki.PlatformTcb(pce_svn=12), NOW))
    assert behind.verify().success
    assert behind.attest(None, behind.statement(rule=rule)).first.exit_code == 514


@pytest.mark.skipif(not FOLDER.is_dir(), reason=f"the samples are not on this machine ({FOLDER})")
@pytest.mark.parametrize(
    ("name", "major", "tee", "pce"),
    [
        ("b0c06f000000_tdx_2026-08_ev20-19", 1, (11, 1, 4), 11),
        ("b0c06f000000_tdx_2026-08_ev20-19", 3, (5, 3, 4), 11),
        ("90c06f000000_tdx_2026-05_ev19", 1, (6, 1, 3), 13),
        ("50806f000000_tdx_2023-06_ev15", 0, (3, 0, 5), 11),
    ],
)
def test_genuine_statements(name: str, major: int, tee: tuple[int, int, int], pce: int) -> None:
    data = (FOLDER / "collateral" / f"{name}.json").read_bytes()
    made = parse_collateral(load_collateral(data))
    rule = rule_from_collateral(made, anchor=ANCHOR, module_major=major)
    assert rule.min_tee_tcb_svn[:3] == bytes(tee)
    assert rule.min_pce_svn == pce
    assert rule.fmspc.hex() == name[:12]
    assert rule.qe_mrsigner.hex().startswith("dc9e2a7c")
    assert rule.min_qe_svn == 4
