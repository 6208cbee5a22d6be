"""Single faults in what a session appraises: keys, policy, the TDX guest and platform, runtime log, SEV-SNP."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from cocoon.v1 import evidence_pb2
from cocoon_attestation.binding import report_data
from cocoon_attestation.checks import CheckList
from cocoon_attestation.policy import Policy
from cocoon_attestation.reference import SnpRelease, TeeKind
from cocoon_attestation.rtmr3 import replay
from cocoon_attestation.tdx import platform as platform_checks
from cocoon_attestation.tdx.dcap import DcapResult, dcap_verify
from cocoon_enclave.attestation import simulated_pki as pki
from cocoon_enclave.attestation.simulated import DevPlatform
from cocoon_enclave.attestation.simulated_node import SimulatedGpus, simulated_snp_rules
from cocoon_enclave.attestation.simulated_quote import certify, encode_quote

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from tests.attestation.fault_case import Build, Case, World
    from tests.attestation.kit_node import BOOT_NONCE, MEASUREMENT, snp_node, tdx_node
else:
    from fault_case import Build, Case, World
    from kit_node import BOOT_NONCE, MEASUREMENT, snp_node, tdx_node

ONES_32, ONES_48 = b"\x01" * 32, b"\x01" * 48


def good(world: World) -> CheckList:
    """The good TDX node without GPU."""
    return world.appraise()


def shown(**arguments: Any) -> Case:
    """A case about the evidence; arguments as of `Lab.evidence`."""
    return Case(good=good, bad=lambda world: world.appraise(world.lab.evidence(**arguments)))


def bound(**fields: Any) -> Case:
    """A case about the key binding."""
    return Case(
        good=good,
        bad=lambda world: world.appraise(world.lab.evidence(binding=world.lab.binding(**fields))),
    )


def ruled(bad: dict[str, Any], fine: dict[str, Any] | None = None) -> Case:
    """A case about the policy; `fine` makes a check that is optional."""
    return Case(good=lambda world: world.appraise(**(fine or {})), bad=lambda world: world.appraise(**bad))


def made(change: Callable[[World], dict[str, Any]]) -> Case:
    """A case whose evidence is built from the laboratory; arguments as of `Lab.evidence`."""
    return Case(good=good, bad=lambda world: world.appraise(world.lab.evidence(**change(world))))


def attributes(value: int) -> dict[str, bytes]:
    return {"td_attributes": value.to_bytes(8, "little")}


def forged_quote(world: World, *, own_key: bool = False, **identity: Any) -> dict[str, Any]:
    """A quote that is signed by another key than was certified, or that another quoting enclave made."""
    lab = world.lab
    machine: DevPlatform = lab.platform
    certification = certify(
        attestation_key=machine.attestation_key,
        chain=(machine.pck, machine.platform_ca, machine.root),
        identity=dataclasses.replace(machine.quoting_enclave, **identity),
    )
    report = machine.td_report(
        report_data(lab.binding().hash, bytes(32), lab.challenge), replay(lab.events())
    )
    key = pki.new_key(lab.random) if own_key else machine.attestation_key
    quote = encode_quote(report, attestation_key=key, certification=certification)
    return {"quote": lambda _: quote}


def collateral(**arguments: Any) -> Case:
    """A case about statements and lists that Intel's stand-in signed."""
    return made(lambda w: {"collateral": w.lab.platform.collateral(w.lab.now, **arguments)})


def unsigned_statement(world: World) -> dict[str, Any]:
    message = world.lab.platform.collateral(world.lab.now)
    message.tcb_info_signature = b"\x01" * 64
    return {"collateral": message}


def revoked_pck(world: World) -> dict[str, Any]:
    serial = world.lab.platform.pck.certificate.serial_number
    return {"collateral": world.lab.platform.collateral(world.lab.now, revoked=(serial,))}


def other_root(world: World) -> CheckList:
    other = DevPlatform.create(world.lab.now - 86_400, world.lab.random)
    return world.appraise(dev_root=other.root_der)


def disagreement(world: World) -> CheckList:
    """No evidence is known that two parsers read differently; so one of them lies."""

    def lying(*arguments: Any, **named: Any) -> DcapResult:
        return dataclasses.replace(dcap_verify(*arguments, **named), fmspc=bytes(6))

    with mock.patch.object(platform_checks, "dcap_verify", lying):
        return world.appraise()


def paravisor(*, half: bool) -> Build:
    """A raw quote with empty registers: a session would refuse its measurements as well."""

    def build(world: World) -> CheckList:
        data = bytes(range(32)) + (bytes(32) if half else bytes(range(32)))
        registers = {f"rtmr{i}": bytes(48) for i in range(4)}
        return world.intel.judge(world.intel.tdx(report_data=data, **registers)).checks

    return build


def edited_log(world: World) -> CheckList:
    def swap(message: evidence_pb2.Evidence) -> None:
        message.tdx.runtime_events[1].payload = b"\x07" * 32

    return world.appraise(world.lab.evidence(edit=swap), models=frozenset({world.lab.model, b"\x07" * 32}))


def disordered_log(world: World) -> dict[str, Any]:
    events = world.lab.events()
    return {"events": [events[1], events[0], *events[2:]]}


# --- nodes with GPUs, and on SEV-SNP ---------------------------------------------------------------------


def one_gpu(world: World) -> SimulatedGpus:
    return SimulatedGpus(world.nvidia, [world.nvidia.gpu()], clock=lambda: world.lab.now)


def gpu_node(*, measured: bool = True, **mode: bool) -> Build:
    """A TDX node that shows one GPU and measured it, or another one, in a mode."""

    def build(world: World) -> CheckList:
        own = one_gpu(world)
        source = None if measured else one_gpu(world).evidence
        node = tdx_node(world.lab, own, payload=own.summary(BOOT_NONCE, **mode), shown=source)
        return world.appraise(node.evidence(world.lab.challenge), gpu=world.nvidia.policy(gpu_count=1))

    return build


def denied_gpu(world: World) -> CheckList:
    """A good node with a GPU that the policy denies as it would deny a machine."""
    own = one_gpu(world)
    node = tdx_node(world.lab, own)
    rules = world.nvidia.policy(gpu_count=1)
    evidence = node.evidence(world.lab.challenge)
    claims = world.lab.appraise(evidence, policy=world.lab.policy(gpu=rules)).claims
    denied = frozenset({bytes.fromhex(claims["devices"][0]["platform_id"])})
    return world.appraise(evidence, gpu=rules, denied_platforms=denied)


def snp_session(
    *,
    release: dict[str, Any] | None = None,
    gpus: bool = False,
    rules: Callable[[World], dict[str, Any]] = lambda _: {},
) -> Build:
    """An SEV-SNP node; `rules` changes the policy."""

    def build(world: World) -> CheckList:
        values: dict[str, Any] = {"models": (world.lab.model,), **(release or {})}
        measured = SnpRelease(name="SIMULATED snp", measurement=MEASUREMENT, **values)
        devices = one_gpu(world).evidence if gpus else None
        node = snp_node(world.lab, world.amd, measured, devices=devices)
        policy: Policy = world.lab.policy(
            releases=(measured,),
            tee_kinds=frozenset({TeeKind.SEV_SNP}),
            snp=simulated_snp_rules(world.amd),
        )
        policy = dataclasses.replace(policy, **rules(world))
        return world.appraise(node.evidence(world.lab.challenge), policy)

    return build


def gpu_rules(world: World) -> dict[str, Any]:
    return {"gpu": world.nvidia.policy(gpu_count=1)}


SEPT_VE, MIGRATABLE = 1 << 28, 1 << 29
CASES: dict[str, Case] = {
    "policy.validity": ruled({"not_after": 1_800_000_000}, {"not_after": 1_800_000_001}),
    "challenge": shown(challenge=ONES_32),
    "binding.seal_key": bound(seal_key_hash=ONES_32),
    "binding.validity": bound(not_after=1_800_000_000),
    "binding.network": bound(global_id=-239),
    "binding.node": ruled({"node": b"\x09" * 32}, {"node": ONES_32}),
    "binding.release": bound(release_id=ONES_32),
    "binding.report_data": shown(report={"report_data": b"\x01" * 64}),
    "tee.kind": ruled({"tee_kinds": frozenset({TeeKind.SEV_SNP})}),
    "policy.platform": Case(
        good=snp_session(),
        bad=snp_session(rules=lambda _: {"allowed_platforms": frozenset({ONES_32})}),
    ),
    "release.models": Case(
        good=snp_session(),
        bad=snp_session(rules=lambda _: {"models": frozenset({ONES_32})}),
    ),
    "release.gpu": Case(
        good=snp_session(release={"gpus": 1}, gpus=True, rules=gpu_rules),
        bad=snp_session(release={"gpus": 1}),
    ),
    "gpu.allowed": Case(
        good=snp_session(release={"gpus": 1}, gpus=True, rules=gpu_rules),
        bad=snp_session(release={"gpus": 1}, gpus=True),
    ),
    "policy.device": Case(good=gpu_node(), bad=denied_gpu),
    "tdx.measurement": shown(report={"rtmr2": ONES_48}),
    "tdx.attributes": shown(report=attributes(SEPT_VE | MIGRATABLE)),
    "tdx.xfam": shown(report={"xfam": bytes.fromhex("e718060000000000")}),
    "tdx.module": ruled({"allowed_modules": frozenset({ONES_48})}),
    "tdx.service_td": shown(
        report={"tee_tcb_svn_2": bytes.fromhex("0501040000") + bytes(11), "mrservicetd": ONES_48}
    ),
    "tdx.owner": shown(report={"mrowner": ONES_48}),
    "tdx.paravisor": Case(good=paravisor(half=False), bad=paravisor(half=True)),
    "tdx.root": Case(good=good, bad=other_root),
    "tdx.collateral": made(unsigned_statement),
    "tdx.collateral_time": ruled({"max_collateral_age_s": 299}, {"max_collateral_age_s": 300}),
    "tdx.evaluation": collateral(evaluation=18),
    "tdx.attestation_key": made(lambda world: forged_quote(world, own_key=True)),
    "tdx.qe": made(lambda world: forged_quote(world, mrsigner=ONES_32)),
    "tdx.sig": shown(quote=lambda quote: quote[:640] + bytes((quote[640] ^ 1,)) + quote[641:]),
    "tdx.chain": made(revoked_pck),
    "tdx.tcb": collateral(status="OutOfDate"),
    "tdx.consistency": Case(good=good, bad=disagreement),
    "tdx.platform": ruled({"allowed_platforms": frozenset({ONES_32})}),
    "rtmr3.replay": Case(good=good, bad=edited_log),
    "rtmr3.grammar": made(disordered_log),
    "rtmr3.config": bound(config_hash=ONES_32),
    "rtmr3.models": ruled({"models": frozenset({ONES_32})}),
    "rtmr3.gpu": Case(good=gpu_node(), bad=gpu_node(measured=False)),
    "rtmr3.gpu_mode": Case(good=gpu_node(), bad=gpu_node(devtools=True)),
}
