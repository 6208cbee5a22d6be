"""Pck on the real TVM: what it accepts, what it says, and everything that it refuses."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from cryptography import x509
from pytoniq_core import Address, Builder, Cell

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.reference import TeeKind
from cocoon_attestation.tdx.platform import platform_id
from cocoon_enclave.attestation import simulated_pki as pki
from cocoon_enclave.attestation.simulated import DevPlatform
from cocoon_ton import opcodes, pck
from cocoon_ton.attestation_rules import parse_rule
from cocoon_ton.cells import finish, record_to_ton
from cocoon_ton.emulator import AccountView, Emulator, SendResult, TestChain
from cocoon_ton.errors import UnprovableError
from cocoon_ton.pck import PckIdentity, parse_attested
from cocoon_ton.quote_hints import QuoteProof, anchor_of, prove_quote

from .pck_kit import GPU, TON, PckWorld, platform_with, seeded, swapped

CODES = {entry.name: number for number, entry in opcodes.EXIT_CODES.items() if entry.contract == "Pck"}
NOW = 1_790_000_000
YEAR = 365 * 86_400


@pytest.fixture(scope="module")
def platform() -> DevPlatform:
    """One simulated machine for all tests: nothing changes it."""
    return DevPlatform.create(NOW, seeded("platform"))


@pytest.fixture
def world(emulator: Emulator, platform: DevPlatform) -> PckWorld:
    """A platform whose contract is not deployed."""
    return PckWorld.create(TestChain(emulator=emulator, now=NOW), platform)


@pytest.fixture(scope="module")
def verified(emulator: Emulator, platform: DevPlatform) -> AccountView:
    """The contract after chain and certification were shown."""
    world = PckWorld.create(TestChain(emulator=emulator, now=NOW), platform)
    assert world.verify().success
    return world.chain.account(world.address)


@pytest.fixture
def known(world: PckWorld, verified: AccountView) -> PckWorld:
    """A world in which the contract knows chain and attestation key."""
    world.chain.add_account(world.address, verified.balance, code=verified.code, data=verified.data)
    return world


def refused(result: SendResult, name: str) -> None:
    """The contract refused for this reason, and the value came back."""
    assert result.first.exit_code == CODES[name], result.exit_codes
    assert result.first.bounced


# ---- what it accepts


def test_a_chain_from_the_root(world: PckWorld) -> None:
    assert world.verify().success
    state = world.state
    certificate = world.platform.pck.certificate
    public = certificate.public_key().public_numbers()  # type: ignore[union-attr]
    assert state.verified
    assert state.identity == world.identity()
    assert state.key_x == public.x.to_bytes(32)  # type: ignore[union-attr]
    assert state.platform_id == platform_id(TeeKind.TDX, world.platform.ppid)
    assert state.fmspc == world.platform.tcb.fmspc
    assert state.components == bytes(world.platform.tcb.sgx_components)
    assert state.pce_svn == world.platform.tcb.pce_svn
    assert state.qe_mrsigner == world.platform.qe_mrsigner
    assert state.qe_svn == 6
    assert state.attestation_x == world.proof().quote.attestation_key[:32]
    ends = (certificate, world.platform.platform_ca.certificate)
    assert state.not_after == min(int(end.not_valid_after_utc.timestamp()) for end in ends)


def test_a_chain_from_the_issuing_authority(world: PckWorld) -> None:
    proof, identity = world.proof(), world.identity(world.issuer)
    body = pck.verify_body(proof.chain_cell(world.issuer), proof.certification_cell)
    assert world.send(body, identity=identity, deploy=True).success
    data = world.chain.account(identity.address).data
    assert data is not None
    assert pck.parse_pck(data).verified
    assert identity.address != world.address


def check_result(world: PckWorld, result: SendResult) -> None:
    assert result.success
    assert len(result) == 2
    assert result[1].address == world.node
    message = result[1].incoming
    assert message is not None
    said = parse_attested(message.body)
    assert (said.query_id, said.requester) == (6, world.owner)
    assert said.release_id == world.platform.release().release_id
    assert said.platform == world.state
    assert said.statement == world.statement()
    assert said.statement.binding.hash == world.binding.hash


def test_everything_in_one_message(world: PckWorld) -> None:
    proof = world.proof()
    body = pck.verify_and_attest_body(proof.chain_cell(world.root), world.attest_body(proof, certify=True))
    check_result(world, world.send(body, deploy=True))


def test_a_renewal_with_the_known_key(known: PckWorld) -> None:
    check_result(known, known.attest())
    known.chain.warp(3600)
    check_result(known, known.attest())


def test_a_new_attestation_key(known: PckWorld) -> None:
    fresh = replace(known.platform, attestation_key=pki.new_key(seeded("other key")))
    other = PckWorld.create(known.chain, fresh)
    refused(other.attest(), "WrongKey")
    check_result(other, other.attest(certify=True))
    check_result(other, other.attest())
    refused(known.attest(), "WrongKey")
    only = pck.verify_body(None, known.proof().certification_cell)
    assert known.send(only).success
    check_result(known, known.attest())


def test_a_quote_of_version_5(known: PckWorld) -> None:
    proof = known.proof(tee_tcb_svn_2=b"\x09" * 16, mrservicetd=bytes(48))
    assert proof.quote.header.version == 5
    check_result(known, known.attest(proof))
    bound = known.proof(tee_tcb_svn_2=b"\x09" * 16, mrservicetd=bytes(47) + b"\x01")
    refused(known.attest(bound), "BadModule")
    bound = known.proof(tee_tcb_svn_2=b"\x09" * 16, mrservicetd=b"\x01" + bytes(47))
    refused(known.attest(bound), "BadModule")


def test_a_chain_that_is_known_is_not_looked_at_again(known: PckWorld) -> None:
    before = known.state
    junk = finish(Builder().store_uint(1, 8))
    result = known.send(pck.verify_body(junk))
    assert result.success
    assert result.first.gas_used < 6000
    assert known.state == before


def test_other_measurements_give_another_release(known: PckWorld) -> None:
    for name in ("mrtd", "rtmr0", "rtmr1", "rtmr2"):
        result = known.attest(known.proof(**{name: b"\x55" * 48}))
        assert result.success
        message = result[1].incoming
        assert message is not None
        release = replace(known.platform.release(), **{name: b"\x55" * 48})  # type: ignore[arg-type]
        assert parse_attested(message.body).release_id == release.release_id


@pytest.mark.parametrize("name", ["mrconfigid", "mrowner", "mrownerconfig", "rtmr3", "mrseam"])
def test_what_does_not_identify_a_release_is_free(known: PckWorld, name: str) -> None:
    check_result(known, known.attest(known.proof(**{name: b"\x55" * 48})))


@pytest.mark.parametrize(
    "tcb",
    [
        pki.PlatformTcb(sgx_components=(0x80, 0xFF, 127, 128, *([200] * 12)), pce_svn=0x8000),
        pki.PlatformTcb(sgx_components=(0,) * 16, pce_svn=127),
        pki.PlatformTcb(pce_svn=255),
    ],
)
def test_security_versions_of_any_length(world: PckWorld, tcb: pki.PlatformTcb) -> None:
    other = PckWorld.create(world.chain, platform_with(world.platform, tcb, NOW))
    assert other.verify().success
    assert other.state.components == bytes(tcb.sgx_components)
    assert other.state.pce_svn == tcb.pce_svn
    assert other.state.platform_id == platform_id(TeeKind.TDX, other.platform.ppid)
    check_result(other, other.attest())


def reordered(extension: bytes, order: list[int]) -> bytes:
    """The entries of an SGX extension in another order."""
    at, entries = 4, []
    while at < len(extension):
        size = (
            2 + extension[at + 1]
            if extension[at + 1] < 0x80
            else 4 + (int.from_bytes(extension[at + 2 : at + 4]))
        )
        entries.append(extension[at : at + size])
        at += size
    return extension[:4] + b"".join(entries[index] for index in order)


@pytest.mark.parametrize("order", [[6, 5, 4, 3, 2, 1, 0], [3, 0, 1, 2, 4, 5, 6], [4, 1, 6, 0, 3, 2, 5]])
def test_extension_entries_in_any_order(world: PckWorld, order: list[int]) -> None:
    tcb = world.platform.tcb
    made = reordered(pki.sgx_extension(ppid=b"\x0a" * 16, instance_id=b"\x0b" * 16, tcb=tcb), order)
    other = PckWorld.create(world.chain, platform_with(world.platform, tcb, NOW, made))
    assert other.verify().success
    assert other.state.components == bytes(tcb.sgx_components)
    assert other.state.fmspc == tcb.fmspc


# ---- certificates


def test_an_anchor_outside_the_chain(world: PckWorld, platform: DevPlatform) -> None:
    """A development chain under Intel's key, or the other way round, has no hint, and no hint can exist."""
    stranger = DevPlatform.create(NOW, seeded("stranger"))
    foreign = anchor_of(stranger.root_der)
    proof = world.proof()
    with pytest.raises(UnprovableError):
        proof.chain_cell(foreign)
    identity = world.identity(foreign)
    for anchor in (world.root, world.issuer):
        body = pck.verify_body(proof.chain_cell(anchor), proof.certification_cell)
        refused(world.send(body, identity=identity, deploy=True), "WrongKey")


def test_a_certificate_other_than_the_address_says(world: PckWorld) -> None:
    sibling = PckWorld.create(world.chain, world.platform.sibling(NOW, seeded("sibling")))
    proof = sibling.proof()
    body = pck.verify_body(proof.chain_cell(world.root), proof.certification_cell)
    refused(world.send(body, deploy=True), "WrongCertificate")


def test_a_certification_by_another_platform(known: PckWorld) -> None:
    sibling = PckWorld.create(known.chain, known.platform.sibling(NOW, seeded("sibling")))
    refused(known.attest(sibling.proof(), certify=True), "WrongKey")


def test_a_signer_that_is_no_authority(world: PckWorld) -> None:
    """The root also signs the key for TCB information: it must not be able to make platforms."""
    extension = pki.sgx_extension(ppid=b"\x0a" * 16, instance_id=bytes(16), tcb=world.platform.tcb)
    signer = world.platform.tcb_signer
    leaf = pki.make_leaf(
        pki.PCK_NAME, parent=signer, now=NOW, years=5, rng=seeded("fake"), sgx_extension=extension
    )
    fake = PckWorld.create(world.chain, replace(world.platform, pck=leaf, platform_ca=signer))
    refused(fake.verify(), "NotAnAuthority")


def test_a_certificate_without_the_extension(world: PckWorld) -> None:
    leaf = pki.make_leaf(pki.PCK_NAME, parent=world.platform.platform_ca, now=NOW, years=5, rng=seeded("x"))
    bare = PckWorld.create(world.chain, replace(world.platform, pck=leaf))
    assert bare.verify().first.exit_code == 9


def test_certificates_count_from_their_start_to_their_end(emulator: Emulator, world: PckWorld) -> None:
    certificate = world.platform.pck.certificate
    start = int(certificate.not_valid_before_utc.timestamp())
    end = int(world.platform.platform_ca.certificate.not_valid_after_utc.timestamp())
    for moment, accepted in ((start - 1, False), (start, True), (end, True), (end + 1, False)):
        at = PckWorld.create(TestChain(emulator=emulator, now=moment), world.platform)
        proof = world.proof()
        result = at.send(pck.verify_body(proof.chain_cell(at.root)), deploy=True)
        assert (result.first.exit_code == 0) == accepted
        if accepted:
            assert at.state.not_after == end
        else:
            refused(result, "CertificateTime")


def test_a_year_behind_2049_is_refused(world: PckWorld) -> None:
    """X.509 writes it in another form, which the contract does not read."""
    leaf = pki.make_leaf(
        pki.PCK_NAME,
        parent=world.platform.platform_ca,
        now=NOW,
        years=40,
        rng=seeded("late"),
        sgx_extension=pki.sgx_extension(ppid=bytes(16), instance_id=bytes(16), tcb=world.platform.tcb),
    )
    late = PckWorld.create(world.chain, replace(world.platform, pck=leaf))
    with pytest.raises(MalformedError):
        late.proof().chain_cell(late.root)


# ---- time, rule, report data


def test_nothing_counts_behind_the_end_of_the_certificates(known: PckWorld) -> None:
    assert known.send(pck.top_up_body(), 2 * TON).success  # ten years of storage
    known.chain.now = known.state.not_after - 1
    later = known.statement(rule=replace(known.rule, valid_until=2**32 - 1))
    check = known.attest(known.proof(), later)
    assert check.first.exit_code == 0
    known.chain.now += 1
    refused(known.attest(known.proof(), later), "RuleExpired")


RULES = {
    "expired": ("RuleExpired", {"valid_until": NOW}),
    "other family": ("WrongRule", {"fmspc": b"\xc0\xc0\x00\x00\x00\x01"}),
    "other signer": ("WrongRule", {"qe_mrsigner": b"\x01" * 32}),
    "newer enclave": ("OldTcb", {"min_qe_svn": 7}),
    "newer PCE": ("OldTcb", {"min_pce_svn": 14}),
    "other module": ("WrongRule", {"min_tee_tcb_svn": bytes((5, 0, 4)) + bytes(13)}),
    "newer module": ("OldTcb", {"min_tee_tcb_svn": bytes((6, 1, 4)) + bytes(13)}),
    "newer loader": ("OldTcb", {"min_tee_tcb_svn": bytes((5, 1, 5)) + bytes(13)}),
    "far newer": ("OldTcb", {"min_tee_tcb_svn": bytes((5, 1, 4)) + bytes(12) + b"\x80"}),
}


@pytest.mark.parametrize("name", RULES)
def test_a_rule_that_is_not_met(known: PckWorld, name: str) -> None:
    code, changes = RULES[name]
    rule = replace(known.rule, **changes)  # type: ignore[arg-type]
    refused(known.attest(None, known.statement(rule=rule)), code)


def test_every_component_counts(known: PckWorld) -> None:
    have, proof = bytes(known.platform.tcb.sgx_components), known.proof()
    for index in range(16):
        for more in (1, 0x80):
            wanted = have[:index] + bytes([have[index] + more]) + have[index + 1 :]
            rule = replace(known.rule, min_components=wanted)
            refused(known.attest(proof, known.statement(rule=rule)), "OldTcb")
    lower = replace(known.rule, min_components=bytes(16), min_tee_tcb_svn=b"\x00\x01" + bytes(14))
    assert known.attest(None, known.statement(rule=lower)).success


def test_a_beacon_counts_for_sixteen_steps(known: PckWorld) -> None:
    seqno = known.beacon
    proof, statement = known.proof(), known.statement()
    known.chain.add_blocks(15 * pck.BEACON_STEP)
    assert known.attest(proof, statement).success
    known.chain.add_blocks(pck.BEACON_STEP)
    refused(known.attest(proof, statement), "OldBeacon")
    assert known.beacon == seqno + 16 * pck.BEACON_STEP


def test_only_recent_hundreds_are_beacons(known: PckWorld) -> None:
    for seqno in (known.beacon - 1, known.beacon - 99, known.chain.mc_blocks[-1].seqno - 1):
        if seqno % pck.BEACON_STEP:
            proof = known.proof(known.report_data(seqno=seqno))
            refused(known.attest(proof, known.statement(beacon_seqno=seqno)), "OldBeacon")
    for seqno in (known.beacon + pck.BEACON_STEP, 2**32 - 96):
        refused(known.attest(None, known.statement(beacon_seqno=seqno)), "OldBeacon")


def test_report_data_name_binding_gpu_and_block(known: PckWorld) -> None:
    other = replace(known.binding, receipt_key=b"\x33" * 32)
    changes: list[dict[str, object]] = [
        {"binding": record_to_ton(other.cell)},
        {"gpu_digest": bytes(32)},
        {"beacon_seqno": known.beacon - pck.BEACON_STEP},
    ]
    for change in changes:
        refused(known.attest(None, known.statement(**change)), "WrongReportData")
    refused(known.attest(known.proof(bytes(64))), "WrongReportData")
    first_half = known.report_data()[:32]
    refused(known.attest(known.proof(first_half + bytes(32))), "WrongReportData")


# ---- guest, module, quoting enclave


@pytest.mark.parametrize("bit", range(8))
def test_a_debuggable_guest(known: PckWorld, bit: int) -> None:
    flags = bytes([1 << bit]) + known.platform.release().td_attributes[1:]
    refused(known.attest(known.proof(td_attributes=flags)), "Debug")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mrsignerseam", b"\x01" + bytes(47)),
        ("mrsignerseam", bytes(47) + b"\x01"),
        ("seam_attributes", b"\x01" + bytes(7)),
        ("seam_attributes", bytes(7) + b"\x80"),
    ],
)
def test_a_module_that_is_not_the_vendors(known: PckWorld, name: str, value: bytes) -> None:
    refused(known.attest(known.proof(**{name: value})), "BadModule")


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("Debug", {"attributes": b"\x17" + bytes(7) + b"\xe7" + bytes(7)}),
        ("Debug", {"attributes": b"\x05" + bytes(15)}),
        ("Debug", {"attributes": b"\x15" + bytes(6) + b"\x01" + bytes(8)}),
        ("BadEnclave", {"isv_prod_id": 1}),
        ("BadEnclave", {"isv_prod_id": 0x0200}),
    ],
)
def test_a_quoting_enclave_that_is_none(known: PckWorld, code: str, changes: dict[str, object]) -> None:
    refused(known.attest(known.proof_of_enclave(**changes), certify=True), code)


def test_what_the_quoting_enclave_says_is_kept(known: PckWorld) -> None:
    proof = known.proof_of_enclave(isv_svn=0x0107, mrsigner=b"\x77" * 32)
    assert known.send(pck.verify_body(None, proof.certification_cell)).success
    assert known.state.qe_svn == 0x0107
    assert known.state.qe_mrsigner == b"\x77" * 32
    refused(known.attest(), "WrongRule")
    rule = replace(known.rule, qe_mrsigner=b"\x77" * 32, min_qe_svn=0x0107)
    assert known.attest(None, known.statement(rule=rule)).success


def test_an_attestation_key_that_was_not_certified(known: PckWorld) -> None:
    """The certification of the true key beside a quote by another one."""
    fresh = replace(known.platform, attestation_key=pki.new_key(seeded("other key")))
    other = PckWorld.create(known.chain, fresh).proof()
    mixed = replace(other, certification_cell=known.proof().certification_cell)
    refused(known.attest(mixed, certify=True), "WrongKey")
    hint = replace(other.signature, key_x=known.proof().signature.key_x)
    refused(known.attest(replace(other, signature=hint)), "BadRelation")


def resliced(data: bytes, lengths: tuple[int, ...]) -> Cell:
    cell: Cell | None = None
    end = len(data)
    for length in reversed(lengths):
        builder = Builder().store_bytes(data[end - length : end])
        cell = finish(builder if cell is None else builder.store_ref(cell))
        end -= length
    assert cell is not None
    assert end == 0
    return cell


@pytest.mark.parametrize(
    "lengths",
    [
        (112, 120, 96, 96, 112, 96),
        (111, 121, 96, 96, 96, 112),
        (113, 119, 96, 96, 96, 112),
        (112, 119, 97, 96, 96, 112),
        (112, 121, 95, 96, 96, 112),
        (112, 120, 95, 97, 96, 112),
        (112, 120, 96, 95, 97, 112),
        (112, 120, 96, 96, 95, 113),
        (112, 120, 96, 97, 96, 111),
        (120, 112, 96, 96, 96, 112),
        (112, 120, 96, 96, 96, 64, 48),
    ],
)
def test_fields_cannot_be_moved_by_cutting_elsewhere(known: PckWorld, lengths: tuple[int, ...]) -> None:
    """The same signed bytes in other cells would put other bytes where a field is read."""
    proof = known.proof()
    moved = replace(proof, signed_cell=resliced(proof.quote.signed, lengths))
    assert known.attest(moved).first.exit_code in (CODES["BadChunks"], CODES["BadModule"], CODES["Debug"])


@pytest.mark.parametrize(
    "lengths", [(95, 97, 68, 124), (96, 95, 69, 124), (96, 96, 67, 125), (97, 96, 68, 123)]
)
def test_the_same_holds_for_the_report(known: PckWorld, lengths: tuple[int, ...]) -> None:
    proof = known.proof()
    old = proof.certification_cell.refs[0]
    moved = swapped(proof.certification_cell, old, resliced(proof.quote.qe_report.raw, lengths))
    result = known.attest(replace(proof, certification_cell=moved), certify=True)
    refused(result, "BadChunks")


# ---- flipped bits


def flip(cell: Cell, path: tuple[int, ...], bit: int) -> Cell:
    """The tree with one bit of one cell flipped."""
    bits = list(cell.bits.to01())
    if not path:
        bits[bit] = "10"[int(bits[bit])]
    builder = Builder().store_bits("".join(bits))
    for index, ref in enumerate(cell.refs):
        builder.store_ref(flip(ref, path[1:], bit) if path and path[0] == index else ref)
    return finish(builder)


def paths(cell: Cell, prefix: tuple[int, ...] = ()) -> list[tuple[tuple[int, ...], int]]:
    """Every cell of the tree, and how many bits it has."""
    found = [(prefix, len(cell.bits))]
    for index, ref in enumerate(cell.refs):
        found += paths(ref, (*prefix, index))
    return found


def mutants(cell: Cell, step: int) -> list[Cell]:
    """One flipped bit each, every `step` bits of the whole tree and in every cell."""
    found, offset = [], 0
    for path, bits in paths(cell):
        found += [flip(cell, path, bit) for bit in range(offset % step if bits > step else 0, bits, step)]
        offset += bits
    return found


def test_every_flipped_bit_of_a_quote_is_refused(known: PckWorld) -> None:
    proof = known.proof()
    quotes = [replace(proof, signed_cell=cell) for cell in mutants(proof.signed_cell, 41)]
    assert len(quotes) > 120
    for changed in quotes:
        assert not known.attest(changed).first.success
    for cell in mutants(proof.signature.cell, 29):
        body = swapped(known.attest_body(proof), proof.signature.cell, cell)
        assert not known.send(body).first.success
    before = known.state
    for cell in mutants(proof.certification_cell, 47):
        body = pck.verify_body(None, cell)
        assert not known.send(body).first.success
    assert known.state == before
    assert known.attest(proof).success


def test_every_flipped_bit_of_a_certificate_chain_is_refused(world: PckWorld) -> None:
    chain = world.proof().chain_cell(world.root)
    bodies = [pck.verify_body(cell) for cell in mutants(chain, 113)]
    assert len(bodies) > 130
    for body in bodies:
        result = world.send(body, deploy=True)
        assert not result.first.success
        assert not world.chain.account(world.address).data or not world.state.verified
    assert world.send(pck.verify_body(chain), deploy=True).success
    assert world.state.verified


# ---- messages


def test_nothing_works_before_the_chain_was_shown(world: PckWorld) -> None:
    refused(world.send(pck.verify_body(None, world.proof().certification_cell), deploy=True), "NotVerified")
    refused(world.attest(certify=True), "NotVerified")
    refused(world.attest(), "RuleExpired")  # nothing is valid yet
    assert not world.state.verified


def test_a_refusal_of_the_node_returns_the_value(known: PckWorld) -> None:
    """The node's contract throws: the rest goes to whoever asked, not to the contract."""
    before, held = known.chain.balance(known.owner), known.chain.balance(known.address)
    for node in (known.address, Address((0, b"\x42" * 32))):
        result = known.attest(node=node)
        assert result.first.success
        assert [t.address for t in result][-1] == known.owner
        assert result[-1].in_opcode == opcodes.EXCESSES
    assert known.chain.balance(known.owner) > before - TON // 10
    assert known.chain.balance(known.address) >= held - TON // 1000


def test_the_reserve_stays_and_the_rest_returns(world: PckWorld) -> None:
    before = world.chain.balance(world.owner)
    result = world.verify()
    assert [t.address for t in result] == [world.address, world.owner]
    held = world.chain.balance(world.address)
    assert 0 < held < TON // 10
    assert world.chain.balance(world.owner) == before - held - result.fees
    value = pck.VERIFY_VALUE
    other = PckWorld.create(world.chain, world.platform.sibling(NOW, seeded("sibling")))
    proof = other.proof()
    full = pck.verify_and_attest_body(proof.chain_cell(other.root), other.attest_body(proof, certify=True))
    assert other.send(full, value, deploy=True).success
    assert other.send(other.attest_body(other.proof(), certify=True), pck.ATTEST_VALUE).success


def test_too_little_value(world: PckWorld) -> None:
    proof = world.proof()
    body = pck.verify_body(proof.chain_cell(world.root))
    refused(world.send(body, TON // 12, deploy=True), "TooLittleValue")
    full = pck.verify_and_attest_body(proof.chain_cell(world.root), world.attest_body(proof))
    refused(world.send(full, TON // 12, deploy=True), "TooLittleValue")
    assert world.verify().success
    assert world.send(world.attest_body(), TON // 200).first.exit_code == -14  # out of gas


def test_other_messages(known: PckWorld) -> None:
    before = known.chain.balance(known.address)
    assert known.send(pck.top_up_body(), TON).success
    assert known.send(Cell.empty(), TON).success
    assert known.chain.balance(known.address) > before + 2 * TON - TON // 100
    assert known.send(finish(Builder().store_uint(0xC0C40009, 32))).first.exit_code == 0xFFFF
    wrong = pck.verify_and_attest_body(None, finish(Builder().store_uint(7, 32)))
    assert known.send(wrong).first.exit_code == 0xFFFF


def test_a_drained_contract_recovers(world: PckWorld) -> None:
    """Storage debt is paid out of the next value."""
    assert world.verify().success
    world.chain.now += 4 * YEAR  # the reserve is for two
    rule = replace(world.rule, valid_until=2**32 - 1)
    assert world.attest(world.proof(), world.statement(rule=rule)).success
    assert world.chain.balance(world.address) == 0
    assert world.send(pck.verify_body(None)).success
    assert world.chain.balance(world.address) > TON // 20


# ---- codecs


def test_codecs_refuse_other_cells(known: PckWorld) -> None:
    assert parse_rule(known.rule.cell) == known.rule
    assert pck.parse_statement(known.statement().cell) == known.statement()
    for parse in (pck.parse_pck, parse_rule, pck.parse_statement, pck.parse_attested):
        for cell in (Cell.empty(), record_to_ton(known.binding.cell), finish(Builder().store_uint(0, 32))):
            with pytest.raises(MalformedError):
                parse(cell)
    with pytest.raises(MalformedError):
        PckIdentity(anchor=bytes(31), leaf_hash=bytes(32))
    with pytest.raises(MalformedError):
        replace(known.rule, min_qe_svn=2**16)
    with pytest.raises(MalformedError):
        replace(known.rule, fmspc=bytes(5))
    for name in ("", "x" * 128, "ü"):
        with pytest.raises(MalformedError):
            pck.release_name_hash(name)
    assert pck.newest_beacon(1999) == 1900
    assert known.platform.release().to_cell().refs[2].hash == pck.release_name_hash(
        known.platform.release().name
    )


def test_the_address_follows_from_anchor_and_certificate(world: PckWorld, platform: DevPlatform) -> None:
    proof = world.proof()
    assert proof.leaf_hash == hashlib.sha256(platform.pck.certificate.tbs_certificate_bytes).digest()
    assert proof.anchors() == (world.issuer, world.root)
    init = world.identity().state_init
    assert init.serialize().hash == bytes(world.address.hash_part)


def test_quotes_that_have_no_proof(known: PckWorld) -> None:
    quote = bytearray(known.platform.quote(known.report()))
    quote[100] ^= 1
    with pytest.raises(UnprovableError):
        prove_quote(bytes(quote))
    with pytest.raises(MalformedError):
        prove_quote(bytes(quote[:500]))
    with pytest.raises(MalformedError):
        anchor_of(b"\x30\x00")


def test_proofs_are_values(known: PckWorld) -> None:
    proof = known.proof()
    assert isinstance(proof, QuoteProof)
    assert all(isinstance(one, x509.Certificate) for one in proof.certificates)
    assert known.statement().gpu_digest == GPU
