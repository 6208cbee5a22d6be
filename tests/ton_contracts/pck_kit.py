"""A simulated platform, its Pck contract, and everything that can be wrong with a quote of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from cryptography.hazmat.primitives.serialization import Encoding
from pytoniq_core import Address, Builder, Cell

from cocoon_attestation.binding import KeyBinding, beacon_challenge, report_data
from cocoon_attestation.tdx.report import TdReport
from cocoon_enclave.attestation import simulated_pki as pki
from cocoon_enclave.attestation.simulated import DevPlatform
from cocoon_enclave.attestation.simulated_quote import QeIdentityValues, certify, encode_quote
from cocoon_ton import pck
from cocoon_ton.attestation_rules import AttestationRule
from cocoon_ton.cells import finish, record_to_ton
from cocoon_ton.code import pck_code, state_init
from cocoon_ton.emulator import SendResult, TestChain
from cocoon_ton.pck import AttestationStatement, PckIdentity, PckState, parse_pck
from cocoon_ton.quote_hints import QuoteProof, anchor_of, prove_quote

TON = 10**9
GPU = b"\x09" * 32
Change = Callable[[TdReport], TdReport]


def seeded(label: str) -> pki.Random:
    """Random-looking bytes, the same in every run."""

    def stream() -> Iterator[bytes]:
        counter = 0
        while True:
            yield hashlib.sha256(f"{label} {counter}".encode()).digest()
            counter += 1

    blocks = stream()

    def take(count: int) -> bytes:
        data = b""
        while len(data) < count:
            data += next(blocks)
        return data[:count]

    return take


def platform_with(
    base: DevPlatform, tcb: pki.PlatformTcb, now: int, extension: bytes | None = None
) -> DevPlatform:
    """Another machine under the same root with other security versions."""
    ppid = b"\x0a" * 16
    made = extension or pki.sgx_extension(ppid=ppid, instance_id=b"\x0b" * 16, tcb=tcb)
    leaf = pki.make_leaf(
        pki.PCK_NAME,
        parent=base.platform_ca,
        now=now,
        years=10,
        rng=seeded("other"),
        sgx_extension=made,
    )
    return replace(base, pck=leaf, ppid=ppid, tcb=tcb)


def swapped(cell: Cell, old: Cell, new: Cell) -> Cell:
    """The tree with one cell replaced."""
    if cell.hash == old.hash:
        return new
    builder = Builder().store_bits(cell.bits.to01())
    for ref in cell.refs:
        builder.store_ref(swapped(ref, old, new))
    return finish(builder)


@dataclass
class PckWorld:
    """One platform on a chain. Quotes are made for the binding and the beacon of the moment."""

    chain: TestChain
    platform: DevPlatform
    owner: Address
    node: Address
    payload: Cell = field(default_factory=lambda: finish(Builder().store_uint(0xAB, 8)))

    @classmethod
    def create(cls, chain: TestChain, platform: DevPlatform) -> PckWorld:
        """`platform` on `chain`; the node is an account that takes every message."""
        return cls(
            chain=chain,
            platform=platform,
            owner=chain.treasury("owner"),
            node=chain.treasury("node"),
        )

    # ---- what a quote speaks for

    @property
    def beacon(self) -> int:
        """The newest block that makes a challenge."""
        return pck.newest_beacon(self.chain.mc_blocks[-1].seqno)

    def root_hash(self, seqno: int) -> bytes:
        return self.chain.mc_blocks[seqno - 1].root_hash

    @property
    def binding(self) -> KeyBinding:
        return KeyBinding(
            node=bytes(self.node.hash_part),
            seal_key_hash=b"\x02" * 32,
            receipt_key=b"\x03" * 32,
            tls_spki_hash=b"\x04" * 32,
            config_hash=b"\x05" * 32,
            release_id=self.platform.release().release_id,
            not_before=self.chain.now,
            not_after=self.chain.now + 86_400,
            global_id=-3,
        )

    def report_data(self, *, seqno: int | None = None, gpu: bytes = GPU) -> bytes:
        number = self.beacon if seqno is None else seqno
        return report_data(self.binding.hash, gpu, beacon_challenge(number, self.root_hash(number)))

    def report(self, data: bytes | None = None, **changes: object) -> TdReport:
        report = self.platform.td_report(data or self.report_data(), b"\x07" * 48)
        return replace(report, **changes)  # type: ignore[arg-type]

    def proof(self, data: bytes | None = None, **changes: object) -> QuoteProof:
        return prove_quote(self.platform.quote(self.report(data, **changes)))

    def proof_of_enclave(self, **changes: object) -> QuoteProof:
        """A quote under a quoting enclave that says other things about itself."""
        identity: QeIdentityValues = replace(self.platform.quoting_enclave, **changes)  # type: ignore[arg-type]
        certification = certify(
            attestation_key=self.platform.attestation_key,
            chain=(self.platform.pck, self.platform.platform_ca, self.platform.root),
            identity=identity,
        )
        return prove_quote(
            encode_quote(
                self.report(),
                attestation_key=self.platform.attestation_key,
                certification=certification,
            )
        )

    # ---- the contract

    @property
    def root(self) -> bytes:
        return anchor_of(self.platform.root_der)

    @property
    def issuer(self) -> bytes:
        return anchor_of(self.platform.platform_ca.certificate.public_bytes(Encoding.DER))

    def identity(self, anchor: bytes | None = None) -> PckIdentity:
        tbs = self.platform.pck.certificate.tbs_certificate_bytes
        return PckIdentity(anchor=anchor or self.root, leaf_hash=hashlib.sha256(tbs).digest())

    @property
    def address(self) -> Address:
        return self.identity().address

    @property
    def state(self) -> PckState:
        data = self.chain.account(self.address).data
        assert data is not None
        return parse_pck(data)

    @property
    def rule(self) -> AttestationRule:
        tcb = self.platform.tcb
        return AttestationRule(
            anchor=self.root,
            qe_mrsigner=self.platform.qe_mrsigner,
            min_qe_svn=self.platform.quoting_enclave.isv_svn,
            fmspc=tcb.fmspc,
            min_components=bytes(tcb.sgx_components),
            min_pce_svn=tcb.pce_svn,
            min_tee_tcb_svn=bytes(tcb.tee_tcb_svn),
            evaluation=19,
            valid_until=self.chain.now + 30 * 86_400,
        )

    def statement(self, **changes: object) -> AttestationStatement:
        values: dict[str, object] = {
            "beacon_seqno": self.beacon,
            "gpu_digest": GPU,
            "release_name_hash": pck.release_name_hash(self.platform.release().name),
            "rule": self.rule,
            "binding": record_to_ton(self.binding.cell),
            "payload": self.payload,
        }
        return AttestationStatement(**(values | changes))  # type: ignore[arg-type]

    def send(
        self, body: Cell, value: int = TON, *, identity: PckIdentity | None = None, deploy: bool = False
    ) -> SendResult:
        of = identity or self.identity()
        init = state_init(pck_code().cell, of.initial_data) if deploy else None
        return self.chain.send_from(self.owner, of.address, value, body, init=init)

    def verify(self, proof: QuoteProof | None = None) -> SendResult:
        """Deploy, show the chain, and have the attestation key certified."""
        proof = proof or self.proof()
        body = pck.verify_body(proof.chain_cell(self.root), proof.certification_cell, query_id=4)
        return self.send(body, deploy=True)

    def attest_body(
        self,
        proof: QuoteProof | None = None,
        statement: AttestationStatement | None = None,
        *,
        certify: bool = False,
        node: Address | None = None,
    ) -> Cell:
        return pck.attest_body(
            proof or self.proof(),
            statement or self.statement(),
            node=node or self.node,
            certify=certify,
            query_id=6,
        )

    def attest(
        self,
        proof: QuoteProof | None = None,
        statement: AttestationStatement | None = None,
        *,
        certify: bool = False,
        node: Address | None = None,
    ) -> SendResult:
        return self.send(self.attest_body(proof, statement, certify=certify, node=node))


def measure_pck(chain: TestChain) -> dict[str, SendResult]:
    """One of every message to Pck, by the name that its gas goes by."""
    world = PckWorld.create(chain, DevPlatform.create(chain.now, seeded("gas")))
    proof, issuer = world.proof(), world.identity(world.issuer)
    attest = world.attest_body(proof, certify=True)
    by_issuer = pck.verify_body(proof.chain_cell(world.issuer))
    full = pck.verify_and_attest_body(proof.chain_cell(world.root), attest)
    results = {
        "Pck.verify issuer": world.send(by_issuer, identity=issuer, deploy=True),
        "Pck.verify_and_attest": world.send(full, deploy=True),
        "Pck.attest new key": world.send(attest),
        "Pck.attest": world.send(world.attest_body(proof)),
        "Pck.verify key": world.send(pck.verify_body(None, proof.certification_cell)),
        "Pck.top_up": world.send(pck.top_up_body()),
    }
    refused = world.attest(proof, node=world.address)
    return results | {"Pck.bounced": SendResult(transactions=refused.transactions[2:])}
