"""Which way a key binding gets into the registry: by a quote that a Pck contract verifies, or by a digest. Pure.

The registry decides what counts; this only finds out beforehand, because a refusal costs fees. See
``docs/spec/contracts.md``, section 2.4.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pytoniq_core import Address, Builder, Cell, StateInit

from cocoon_attestation.binding import gpu_digest
from cocoon_attestation.errors import MalformedError, PaymentError
from cocoon_attestation.evidence import Evidence, TdxEvidence
from cocoon_attestation.reference import AnyRelease
from cocoon_attestation.tdx.collateral import parse_collateral
from cocoon_ton import pck
from cocoon_ton.attestation_rules import AttestationRule
from cocoon_ton.cells import finish, record_to_ton
from cocoon_ton.errors import UnprovableError
from cocoon_ton.pck import AttestationStatement, PckIdentity, PckState
from cocoon_ton.quote_hints import QuoteProof, prove_quote
from cocoon_ton.registry import RegistryState

_MAJOR: Final = 1
"""Place of the module's major version in TEE_TCB_SVN."""


class NoRouteError(PaymentError):
    """The registry takes this enclave's keys neither by its quote nor by a digest."""

    code = "no_attestation_route"
    default_hint = (
        "compare the registry's rules and policy with the platform: docs/runbooks/node-does-not-join.md"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ByQuote:
    """A Pck contract verifies the quote under `rule`."""

    proof: QuoteProof
    rule: AttestationRule

    @property
    def identity(self) -> PckIdentity:
        """The contract for the platform's PCK certificate."""
        return PckIdentity(anchor=self.rule.anchor, leaf_hash=self.proof.leaf_hash)


@dataclass(frozen=True, slots=True)
class ByDigest:
    """The owner records the digest of the evidence."""


Route = ByQuote | ByDigest


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What is sent to a Pck contract."""

    to: Address
    value: int
    """Nanoton; what is not used comes back."""
    body: Cell
    state_init: StateInit | None
    """For the first message."""


def choose_route(
    registry: RegistryState,
    evidence: Evidence,
    *,
    release: AnyRelease,
    platform_id: bytes,
    stake: int,
    now: int,
) -> Route:
    """The way that the registry accepts, a verified quote if it can.

    Args:
        registry: its proved state.
        evidence: what the enclave published, appraised before.
        release: that the appraisal matched.
        platform_id: of that appraisal.
        stake: of the node, nanoton.
        now: Unix time.

    Raises:
        NoRouteError: there is none; the message says why.
    """
    if platform_id in registry.denied_platforms:
        raise NoRouteError("the registry denies this platform")
    reason = "its kind of TEE has no quote that is verified on chain"
    if isinstance(evidence.cpu, TdxEvidence) and evidence.cpu.collateral is not None:
        family = parse_collateral(evidence.cpu.collateral).tcb_info.fmspc
        try:
            proof = prove_quote(evidence.cpu.quote)
        except (MalformedError, UnprovableError) as error:
            reason = f"the quote cannot be verified on chain: {error}"
        else:
            least = registry.policy.min_tcb_evaluation
            listed = (entry.rule for entry in registry.rules.values() if entry.rule.evaluation >= least)
            rule = fitting_rule(listed, proof, family=family, now=now)
            if rule is not None:
                return ByQuote(proof=proof, rule=rule)
            reason = "the registry has no attestation rule that fits this platform"
    recorded = registry.policy.recorded.get(release.tee)
    if recorded is None:
        raise NoRouteError(reason)
    if stake < recorded:
        raise NoRouteError(f"{reason}, and a recorded digest takes a stake of {recorded} nanoton")
    return ByDigest()


def fitting_rule(
    rules: Iterable[AttestationRule], proof: QuoteProof, *, family: bytes, now: int
) -> AttestationRule | None:
    """Of the rules that the quote meets, as far as it shows that itself, the one that holds longest.

    `family` is the platform's FMSPC, 6 bytes.
    """
    found = [rule for rule in rules if now < rule.valid_until and _fits(rule, proof, family)]
    return max(found, key=lambda rule: (rule.valid_until, rule.evaluation), default=None)


def _fits(rule: AttestationRule, proof: QuoteProof, family: bytes) -> bool:
    quote = proof.quote
    svns = quote.report.tee_tcb_svn
    return (
        rule.anchor in proof.anchors()
        and rule.fmspc == family
        and rule.qe_mrsigner == quote.qe_report.mrsigner
        and rule.min_qe_svn <= quote.qe_report.isv_svn
        and rule.min_tee_tcb_svn[_MAJOR] == svns[_MAJOR]
        and all(least <= svn for least, svn in zip(rule.min_tee_tcb_svn, svns, strict=True))
    )


def quote_message(
    route: ByQuote, evidence: Evidence, *, release: AnyRelease, known: PckState | None, node: Address
) -> Message:
    """The message that has the quote verified and its result sent to `node`.

    Args:
        route: from `choose_route`.
        evidence: the same; its beacon must be one that Pck accepts.
        release: that the quote shows.
        known: state of the Pck contract; None if it is not deployed.
        node: the node contract.

    Raises:
        MalformedError: the evidence was not made for a beacon.
        UnprovableError: a certificate's signature does not hold.
    """
    if evidence.beacon is None:
        raise MalformedError("evidence for the chain names a beacon")
    statement = AttestationStatement(
        beacon_seqno=evidence.beacon.seqno,
        gpu_digest=gpu_digest([device.report for device in evidence.devices]),
        release_name_hash=pck.release_name_hash(release.name),
        rule=route.rule,
        binding=record_to_ton(evidence.binding.cell),
        payload=finish(Builder().store_bytes(evidence.digest)),
    )
    full = known is None or not known.verified
    certified = (
        not full and known is not None and known.attestation_x == route.proof.quote.attestation_key[:32]
    )
    body = pck.attest_body(route.proof, statement, node=node, certify=not certified)
    if not full:
        return Message(to=route.identity.address, value=pck.ATTEST_VALUE, body=body, state_init=None)
    return Message(
        to=route.identity.address,
        value=pck.VERIFY_VALUE + pck.ATTEST_VALUE,
        body=pck.verify_and_attest_body(route.proof.chain_cell(route.rule.anchor), body),
        state_init=route.identity.state_init,
    )
