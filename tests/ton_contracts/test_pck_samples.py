"""Genuine TDX quotes on the real TVM: Intel's certificates and signatures, not our imitation of them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from pytoniq_core import Address

from cocoon_attestation.reference import Release, TeeKind
from cocoon_attestation.roots import intel_root
from cocoon_attestation.tdx.platform import platform_id
from cocoon_ton import opcodes, pck, registry_messages
from cocoon_ton.attestation_rules import AttestationRule
from cocoon_ton.cells import begin, finish
from cocoon_ton.code import pck_code, state_init
from cocoon_ton.emulator import Emulator, GetMethodResult, SendResult, TestChain
from cocoon_ton.errors import UnprovableError
from cocoon_ton.pck import PckIdentity, PckState, parse_pck
from cocoon_ton.quote_hints import QuoteProof, anchor_of, prove_quote

from .attest_kit import quoted

NAMED = os.environ.get("COCOON_TEST_VECTORS")
FOLDER = (Path(NAMED) if NAMED else Path(__file__).resolve().parents[3] / "shared" / "vectors") / "tdx"
pytestmark = pytest.mark.skipif(
    not FOLDER.is_dir(), reason=f"the samples are not on this machine ({FOLDER})"
)
CODES = {entry.name: number for number, entry in opcodes.EXIT_CODES.items() if entry.contract == "Pck"}
NOW = 1_790_000_000
GENUINE = {
    "azure_dcesv5": "00806f050000",
    "cocoon_test": "90c06f000000",
    "dstack_90c06f": "90c06f000000",
    "flashbots_rollback": "b0c06f000000",
    "gcp_cos113": "00806f050000",
    "gcp_outofdate": "00806f050000",
    "intel_spr_lab": "50806f000000",
    "nearmpc_2026": "b0c06f000000",
    "old_platform": "b0c06f000000",
    "phala_tdx_lab": "b0c06f000000",
    "v5_azure": "90c06f000000",
}
INTEL_QE_SIGNER = bytes.fromhex("dc9e2a7c6f948f17474e34a7fc43ed030f7c1563f1babddf6340c82e0e54a8c5")
"""MRSIGNER of Intel's quoting enclave for TDX (its QE identity)."""
NAME = "sample"


def read(name: str) -> bytes:
    path = FOLDER / f"{name}.quote.bin"
    if not path.is_file():
        pytest.skip(f"no sample {name}")
    return path.read_bytes()


class Platform:
    """A sample's platform on a chain."""

    def __init__(self, emulator: Emulator, proof: QuoteProof, anchor: bytes, now: int = NOW) -> None:
        self.proof = proof
        self.anchor = anchor
        self.chain = TestChain(emulator=emulator, now=now)
        self.identity = PckIdentity(anchor=anchor, leaf_hash=proof.leaf_hash)

    @property
    def address(self) -> Address:
        return self.identity.address

    def verify(self) -> SendResult:
        body = pck.verify_body(self.proof.chain_cell(self.anchor), self.proof.certification_cell)
        init = state_init(pck_code().cell, self.identity.initial_data)
        sender = self.chain.treasury("anybody")
        return self.chain.send_from(sender, self.address, 10**9, body, init=init)

    @property
    def state(self) -> PckState:
        data = self.chain.account(self.address).data
        assert data is not None
        return parse_pck(data)

    def rule(self) -> AttestationRule:
        """Exactly what this platform has."""
        state = self.state
        return AttestationRule(
            anchor=self.anchor,
            qe_mrsigner=state.qe_mrsigner,
            min_qe_svn=state.qe_svn,
            fmspc=state.fmspc,
            min_components=state.components,
            min_pce_svn=state.pce_svn,
            min_tee_tcb_svn=self.proof.quote.report.tee_tcb_svn,
            evaluation=20,
            valid_until=NOW + 1,
        )

    def check(self, rule: AttestationRule, proof: QuoteProof | None = None) -> GetMethodResult:
        shown = proof or self.proof
        name = int.from_bytes(pck.release_name_hash(NAME))
        arguments = (shown.signed_cell, shown.signature.cell, rule.cell, name)
        return self.chain.run_getter(self.address, "checkedQuote", arguments)


@pytest.mark.parametrize("name", GENUINE)
@pytest.mark.parametrize("start", ["root", "issuer"])
def test_a_genuine_quote_passes(emulator: Emulator, name: str, start: str) -> None:
    proof = prove_quote(read(name))
    issuer, root = proof.anchors()
    assert root == anchor_of(intel_root())
    platform = Platform(emulator, proof, root if start == "root" else issuer)
    assert platform.verify().first.exit_code == 0
    state, report = platform.state, proof.quote.report
    assert state.fmspc.hex() == GENUINE[name]
    assert state.qe_mrsigner == INTEL_QE_SIGNER
    assert state.qe_svn == proof.quote.qe_report.isv_svn
    release = Release(
        name=NAME,
        mrtd=report.mrtd,
        rtmr0=report.rtmr0,
        rtmr1=report.rtmr1,
        rtmr2=report.rtmr2,
        td_attributes=report.td_attributes,
        xfam=report.xfam,
    )
    found = platform.check(platform.rule())
    assert found.exit_code == 0
    release_id, _data = found.unwrap()
    assert isinstance(release_id, int)
    assert release_id.to_bytes(32) == release.release_id


def test_the_contract_reads_what_the_other_verifier_reads(emulator: Emulator) -> None:
    """FMSPC and PPID of a sample for which the collateral is known."""
    dcap_qvl = pytest.importorskip("dcap_qvl")
    proof = prove_quote(read("gcp_cos113"))
    platform = Platform(emulator, proof, proof.anchors()[1])
    assert platform.verify().first.exit_code == 0
    extension = dcap_qvl.parse_pck_extension_from_pem(proof.quote.pck_chain)
    state = platform.state
    assert state.fmspc == bytes(extension.fmspc)
    assert state.pce_svn == extension.pce_svn
    assert state.components == bytes(extension.cpu_svn)
    assert state.platform_id == platform_id(TeeKind.TDX, bytes(extension.ppid))


def test_a_debuggable_guest_is_refused(emulator: Emulator) -> None:
    proof = prove_quote(read("debug_td"))
    platform = Platform(emulator, proof, proof.anchors()[1])
    assert platform.verify().first.exit_code == 0
    assert platform.check(platform.rule()).exit_code == CODES["Debug"]


def test_a_forged_attestation_key_is_refused(emulator: Emulator) -> None:
    """Its signatures hold, but the quoting enclave certified another key."""
    proof = prove_quote(read("neg_forged_attkey"))
    platform = Platform(emulator, proof, proof.anchors()[1])
    assert platform.verify().first.exit_code == CODES["BadEnclave"]


def test_another_root_is_another_address(emulator: Emulator) -> None:
    """Intel's pre-production root signs a complete chain: nothing of it counts under the production key."""
    proof = prove_quote(read("preprod_root_v4"))
    assert anchor_of(intel_root()) not in proof.anchors()
    with pytest.raises(UnprovableError):
        proof.chain_cell(anchor_of(intel_root()))
    own = Platform(emulator, proof, proof.anchors()[1])
    assert own.verify().first.exit_code == 0
    identity = PckIdentity(anchor=anchor_of(intel_root()), leaf_hash=proof.leaf_hash)
    assert identity.address != own.address
    body = pck.verify_body(proof.chain_cell(own.anchor), proof.certification_cell)
    init = state_init(pck_code().cell, identity.initial_data)
    sender = own.chain.treasury("anybody")
    result = own.chain.send_from(sender, identity.address, 10**9, body, init=init)
    assert result.first.exit_code == CODES["WrongKey"]


@pytest.mark.parametrize("name", ["gcp_cos113", "cocoon_test"])
def test_a_quote_of_another_platform_is_refused(emulator: Emulator, name: str) -> None:
    proof, foreign = prove_quote(read(name)), prove_quote(read("nearmpc_2026"))
    platform = Platform(emulator, proof, proof.anchors()[0])
    assert platform.verify().first.exit_code == 0
    rule = replace(platform.rule(), min_tee_tcb_svn=foreign.quote.report.tee_tcb_svn)
    assert platform.check(rule, foreign).exit_code == CODES["WrongKey"]


def test_a_genuine_chain_ends(emulator: Emulator) -> None:
    proof = prove_quote(read("gcp_cos113"))
    end = int(proof.certificates[0].not_valid_after_utc.timestamp())
    assert Platform(emulator, proof, proof.anchors()[1], end).verify().first.exit_code == 0
    late = Platform(emulator, proof, proof.anchors()[1], end + 1)
    assert late.verify().first.exit_code == CODES["CertificateTime"]


def test_a_genuine_chain_stays_below_the_goal(emulator: Emulator) -> None:
    """Real certificates have other names than simulated ones; attesting comes on top in one message."""
    for name in ("gcp_cos113", "cocoon_test"):
        proof = prove_quote(read(name))
        platform = Platform(emulator, proof, proof.anchors()[1])
        spent = platform.verify().first.gas_used + platform.check(platform.rule()).gas_used
        assert spent < 110_000


def test_a_genuine_quote_that_names_none_of_our_keys_attests_nothing(emulator: Emulator) -> None:
    """Everything about it holds but its report data: they were made for somebody else."""
    proof = prove_quote(read("cocoon_test"))
    platform = Platform(emulator, proof, proof.anchors()[1])
    assert platform.verify().first.exit_code == 0
    node = quoted(platform.chain)
    rule = replace(platform.rule(), valid_until=NOW + 20 * 86_400)
    body = pck.attest_body(proof, node.statement(rule=rule), node=node.w.node, certify=False)
    result = platform.chain.send_from(node.w.owner, platform.address, 10**9, body)
    assert result.first.exit_code == CODES["WrongReportData"]
    assert not result.on(node.w.node)


@pytest.mark.parametrize("name", ["cocoon_test", "v5_azure"])
def test_a_genuine_platform_leads_into_the_list(emulator: Emulator, name: str) -> None:
    """What its Pck contract would say about a quote for our keys is taken, once the registry has its rule."""
    proof = prove_quote(read(name))
    platform = Platform(emulator, proof, proof.anchors()[1])
    assert platform.verify().first.exit_code == 0
    node = quoted(platform.chain)
    rule = replace(platform.rule(), valid_until=NOW + 20 * 86_400)
    data = platform.chain.account(platform.address).data
    body = begin(opcodes.PCK_ATTESTED).store_uint(0, 64).store_address(node.w.owner)
    body.store_bytes(node.platform.release().release_id).store_ref(data)
    said = finish(body.store_ref(node.statement(rule=rule).cell))
    result = platform.chain.send_internal(node.w.node, 10**9, said, sender=platform.address)
    assert result[1].exit_code == 222
    assert node.w.change(registry_messages.set_rule(rule)).success
    assert platform.chain.send_internal(node.w.node, 10**9, said, sender=platform.address).success
    (entry,) = node.w.registry_state().usable_nodes(platform.chain.now)
    assert entry.claim is not None
    assert (entry.claim.rule, entry.claim.platform_id) == (rule.cell.hash, platform.state.platform_id)
