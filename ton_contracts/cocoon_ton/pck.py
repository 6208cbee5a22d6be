"""The Pck contract: identity, address, state, rules and messages. Pure; no chain access.

Layouts: ``ton_contracts/cocoon.tlb``. Rules: ``docs/spec/onchain-attestation.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from pytoniq_core import Address, Builder, Cell, StateInit

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.reference import MAX_NAME
from cocoon_attestation.types import digest32, uint
from cocoon_ton import opcodes
from cocoon_ton.attestation_rules import AttestationRule, parse_rule
from cocoon_ton.cells import Reader, begin, finish, write_text
from cocoon_ton.code import contract_address, pck_code
from cocoon_ton.quote_hints import QuoteProof

BEACON_STEP: Final = 100
"""Only masterchain blocks whose seqno is a multiple of this make a challenge that Pck accepts."""
BEACON_BLOCKS: Final = 16
"""The newest so many of them are accepted."""
VERIFY_VALUE: Final = 250_000_000
"""Value that pays for showing a certificate chain at the prices of the reference configuration, in
nanoton; what is not used, apart from the contract's reserve for storage, comes back."""
ATTEST_VALUE: Final = 200_000_000
"""Value that pays for an attestation and for what the node does with it; as above."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PckIdentity:
    """What the address of a Pck contract is made of. Raises `MalformedError` for a wrong length."""

    anchor: bytes
    """x coordinate of the key that the certificate chain starts from, 32 bytes."""
    leaf_hash: bytes
    """SHA-256 of the signed part of the PCK certificate."""

    def __post_init__(self) -> None:
        """Check lengths."""
        digest32(self.anchor, "anchor")
        digest32(self.leaf_hash, "leaf hash")

    @property
    def cell(self) -> Cell:
        """``PckIdentity``."""
        return finish(Builder().store_bytes(self.anchor).store_bytes(self.leaf_hash))

    @property
    def initial_data(self) -> Cell:
        """Data cell of the StateInit."""
        nothing = bytes(4 + 6 + 2 + 16 + 32 + 32 + 2)
        return finish(begin(opcodes.PCK_STORAGE).store_bytes(nothing).store_ref(self.cell).store_bit(0))

    @property
    def address(self) -> Address:
        """Address, computed with the Pck code of this package."""
        return contract_address(pck_code().cell, self.initial_data)

    @property
    def state_init(self) -> StateInit:
        """StateInit that deploys the contract."""
        return StateInit(code=pck_code().cell, data=self.initial_data)


@dataclass(frozen=True, slots=True, kw_only=True)
class PckState:
    """Data of a Pck contract."""

    identity: PckIdentity
    not_after: int
    """End of the certificates, Unix time in seconds; 0 until the chain was shown."""
    fmspc: bytes
    """6 bytes: platform family."""
    pce_svn: int
    components: bytes
    """16 SGX security version numbers."""
    attestation_x: bytes
    """x coordinate of the attestation key that was certified last, 32 bytes; zeros for none."""
    qe_mrsigner: bytes
    """Signer of the quoting enclave that holds it, 32 bytes."""
    qe_svn: int
    key_x: bytes | None
    """x coordinate of the PCK key, 32 bytes; None until the chain was shown."""
    platform_id: bytes | None
    """32 bytes; what registries deny platforms by. None until the chain was shown."""

    @property
    def verified(self) -> bool:
        """True once the certificate chain was shown."""
        return self.key_x is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationStatement:
    """What an attestation is about."""

    beacon_seqno: int
    """Masterchain block that the challenge is made of: a multiple of `BEACON_STEP`."""
    gpu_digest: bytes
    """Part of the report data, 32 bytes."""
    release_name_hash: bytes
    """Hash of the name cell of the release, 32 bytes (`release_name_hash`)."""
    rule: AttestationRule
    binding: Cell
    """The key binding that the report data name."""
    payload: Cell
    """For the node."""

    @property
    def cell(self) -> Cell:
        """``AttestationStatement``."""
        return finish(
            begin(opcodes.ATTESTATION_STATEMENT)
            .store_uint(uint(self.beacon_seqno, 32, "beacon seqno"), 32)
            .store_bytes(digest32(self.gpu_digest, "GPU digest"))
            .store_bytes(digest32(self.release_name_hash, "hash of the release name"))
            .store_ref(self.rule.cell)
            .store_ref(self.binding)
            .store_ref(self.payload)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Attested:
    """What Pck tells a node. See the Tolk struct ``PckAttested`` for what the receiver must check."""

    query_id: int
    requester: Address
    """Who asked for it: a node accepts its owner only."""
    release_id: bytes
    """Of the measurements in the quote, 32 bytes."""
    platform: PckState
    statement: AttestationStatement


def parse_pck(data: Cell) -> PckState:
    """Read the data cell of a Pck contract.

    Raises:
        MalformedError: anything else.
    """
    reader = Reader(data)
    reader.tag(opcodes.PCK_STORAGE)
    not_after, fmspc, pce_svn, components = reader.uint(32), reader.raw(6), reader.uint(16), reader.raw(16)
    attestation_x, qe_mrsigner, qe_svn = reader.raw(32), reader.raw(32), reader.uint(16)
    identity, key = reader.sub(), reader.maybe_ref()
    reader.end()
    parsed = PckIdentity(anchor=identity.raw(32), leaf_hash=identity.raw(32))
    identity.end()
    key_x = platform_id = None
    if key is not None:
        known = Reader(key)
        key_x, platform_id = known.raw(32), known.raw(32)
        known.end()
    return PckState(
        identity=parsed,
        not_after=not_after,
        fmspc=fmspc,
        pce_svn=pce_svn,
        components=components,
        attestation_x=attestation_x,
        qe_mrsigner=qe_mrsigner,
        qe_svn=qe_svn,
        key_x=key_x,
        platform_id=platform_id,
    )


def parse_statement(cell: Cell) -> AttestationStatement:
    """Read an attestation statement.

    Raises:
        MalformedError: anything else.
    """
    reader = Reader(cell)
    reader.tag(opcodes.ATTESTATION_STATEMENT)
    statement = AttestationStatement(
        beacon_seqno=reader.uint(32),
        gpu_digest=reader.raw(32),
        release_name_hash=reader.raw(32),
        rule=parse_rule(reader.ref()),
        binding=reader.ref(),
        payload=reader.ref(),
    )
    reader.end()
    return statement


def parse_attested(body: Cell) -> Attested:
    """Read the body of a message from Pck to a node.

    Raises:
        MalformedError: anything else.
    """
    reader = Reader(body)
    reader.tag(opcodes.PCK_ATTESTED)
    attested = Attested(
        query_id=reader.uint(64),
        requester=reader.address(),
        release_id=reader.raw(32),
        platform=parse_pck(reader.ref()),
        statement=parse_statement(reader.ref()),
    )
    reader.end()
    return attested


def release_name_hash(name: str) -> bytes:
    """Hash of the name cell of a release, 32 bytes.

    Raises:
        MalformedError: a name that no release can have.
    """
    if not 0 < len(name) <= MAX_NAME or not name.isascii():
        raise MalformedError(f"release name: 1 to {MAX_NAME} ASCII characters expected")
    return bytes(write_text(name).hash)


def newest_beacon(seqno: int) -> int:
    """The newest masterchain block up to `seqno` whose challenge Pck accepts."""
    return seqno - seqno % BEACON_STEP


def verify_body(chain: Cell | None, certification: Cell | None = None, *, query_id: int = 0) -> Cell:
    """Body, from anybody: show what later attestations build on. Deploys with the StateInit.

    Args:
        chain: `QuoteProof.chain_cell`; needed once.
        certification: `QuoteProof.certification_cell`: makes its attestation key the known one.
        query_id: any number.
    """
    return finish(_body(opcodes.PCK_VERIFY, query_id).store_maybe_ref(chain).store_maybe_ref(certification))


def attest_body(
    proof: QuoteProof,
    statement: AttestationStatement,
    *,
    node: Address,
    certify: bool,
    query_id: int = 0,
) -> Cell:
    """Body, from anybody: check a quote and tell `node`.

    Args:
        proof: from `prove_quote`.
        statement: what the report data name, and the rule that the node's registry has.
        node: gets ``PckAttested``.
        certify: also show the certification of the attestation key; needed unless it is the one that
            this contract knows (`PckState.attestation_x`).
        query_id: any number.
    """
    builder = _body(opcodes.PCK_ATTEST, query_id).store_address(node).store_ref(statement.cell)
    builder.store_ref(proof.signed_cell).store_ref(proof.signature.cell)
    return finish(builder.store_maybe_ref(proof.certification_cell if certify else None))


def verify_and_attest_body(chain: Cell | None, attest: Cell, *, query_id: int = 0) -> Cell:
    """Body, from anybody: `verify_body` and `attest_body` in one transaction; deploys with the StateInit."""
    return finish(_body(opcodes.PCK_VERIFY_AND_ATTEST, query_id).store_maybe_ref(chain).store_ref(attest))


def top_up_body(query_id: int = 0) -> Cell:
    """Body, from anybody: pay for the contract's storage."""
    return finish(_body(opcodes.PCK_TOP_UP, query_id))


def _body(opcode: int, query_id: int) -> Builder:
    builder: Builder = begin(opcode).store_uint(uint(query_id, 64, "query id"), 64)
    return builder
