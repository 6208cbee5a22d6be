"""What is fuzzed: one target for each parser of bytes from strangers.

A target gets arbitrary bytes. It may raise the errors that its parser documents; anything else, and any
`AssertionError`, is a finding. Where bytes alone cannot get deep (base64 in JSON, certificates in a message),
the first byte of the input chooses a part of a good sample and the rest takes its place.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import functools
import itertools
import json
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cocoon.v1 import evidence_pb2
from cocoon_attestation.appraisal import appraise
from cocoon_attestation.binding import parse_key_binding
from cocoon_attestation.bundle import parse_bundle
from cocoon_attestation.cell import parse_boc
from cocoon_attestation.checkpoint import parse_checkpoint
from cocoon_attestation.dsse import encode_envelope, parse_envelope
from cocoon_attestation.errors import (
    ConfigError,
    EvidenceRejectedError,
    MalformedError,
    SealingError,
    UnsupportedError,
)
from cocoon_attestation.eventlog.ccel import parse_ccel, parse_ccel_table
from cocoon_attestation.eventlog.dstack import parse_dstack
from cocoon_attestation.evidence import evidence_digest, parse_evidence
from cocoon_attestation.gpu.certificates import (
    chain_problem,
    dates_problem,
    device_identity,
    parse_der_chain,
    parse_pem_chain,
)
from cocoon_attestation.gpu.evidence import parse_evidence_list
from cocoon_attestation.gpu.ocsp import OcspAnswer, parse_ocsp, response_problem
from cocoon_attestation.gpu.report import GpuReport, parse_gpu_report
from cocoon_attestation.gpu.rim import Rim, parse_rim, rim_chain_problem, verify_rim
from cocoon_attestation.gpu_summary import parse_gpu_summary
from cocoon_attestation.payment import parse_authorization, parse_claim
from cocoon_attestation.policy_language import UnsafePolicyWarning
from cocoon_attestation.policy_language_toml import rules_from_toml
from cocoon_attestation.policy_toml import policy_from_toml
from cocoon_attestation.receipt import parse_receipt
from cocoon_attestation.reference import parse_release
from cocoon_attestation.release_document import encode_statement, parse_statement
from cocoon_attestation.sealing.request import open_request, seal_request
from cocoon_attestation.sgx.quote import parse_sgx_quote
from cocoon_attestation.snp.certificates import crl_problem, parse_crl, parse_issuers, verify_chain
from cocoon_attestation.snp.leaf import parse_leaf
from cocoon_attestation.snp.report import REPORT_SIZE, Product, parse_snp_report, parse_tcb
from cocoon_attestation.tdx.collateral import load_collateral, parse_collateral
from cocoon_attestation.tdx.quote import parse_quote
from cocoon_attestation.vendor.outcome import OutcomeVerdict
from cocoon_attestation.vendor.quote import QuoteOptions, verify_raw_quote
from cocoon_ton.errors import ChainProofError
from cocoon_ton.proof.boc import parse_boc as parse_any_boc
from cocoon_ton.proof.boc import parse_canonical, write_boc

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from tests.fuzz import fuzz_samples as samples
else:
    import fuzz_samples as samples

Run = Callable[[bytes], object]
Seeds = Callable[[], Iterable[bytes]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One parser under test."""

    name: str
    run: Run
    seeds: Seeds
    """Good input made by this project."""
    vectors: tuple[str, ...] = ()
    """Patterns of real samples that are good input too; read where they lie."""
    typed: tuple[type[Exception], ...] = (MalformedError,)
    """Errors that the parser documents."""
    max_length: int = 16 * 1024
    words: tuple[str, ...] = ()
    """Texts that are worth inserting."""

    def step(self, data: bytes) -> bool:
        """Run once; tell whether the input was taken. Any error that is not documented comes through."""
        try:
            self.run(data)
        except self.typed:
            return False
        return True


# --- parts of a good sample -----------------------------------------------------------------------------


def split(data: bytes, count: int) -> tuple[int, bytes]:
    """The part that an input chooses, and what takes its place."""
    return (data[0] % count if data else 0), data[1:]


def parts(values: Sequence[bytes]) -> list[bytes]:
    """Seeds for an input of this form: every part unchanged."""
    return [bytes((number,)) + value for number, value in enumerate(values)]


# --- Intel ----------------------------------------------------------------------------------------------


def run_quote(data: bytes) -> None:
    quote = parse_quote(data)
    assert quote.raw == data[: len(quote.raw)]
    assert quote.trailing == len(data) - len(quote.raw)
    assert quote.raw.startswith(quote.signed)
    assert quote.signed.endswith(quote.report.to_bytes())


def run_sgx(data: bytes) -> None:
    quote = parse_sgx_quote(data)
    assert quote.raw + data[len(data) - quote.trailing :] == data
    assert len(quote.signed) == 48 + 384


def run_collateral(data: bytes) -> None:
    parse_collateral(load_collateral(data))


def collateral_parts() -> list[bytes]:
    return [value.encode() for value in samples.collateral().values()]


def run_collateral_part(data: bytes) -> None:
    fields = samples.collateral()
    number, value = split(data, len(fields))
    try:
        text = value.decode("ascii")
    except UnicodeDecodeError:
        text = value.hex()  # as bytes of a field in hex
    changed = dict(fields) | {list(fields)[number]: text}
    parsed = parse_collateral(load_collateral(json.dumps(changed).encode()))
    assert parsed.expires_at <= parsed.tcb_info.next_update


@functools.cache
def quote_claims() -> Mapping[str, object]:
    return judged(samples.tdx_quotes()[0], samples.collateral_json())[1]


def judged(quote: bytes, collateral: bytes) -> tuple[OutcomeVerdict, Mapping[str, object]]:
    options = QuoteOptions(root=samples.intel().root_der)
    outcome = verify_raw_quote(quote, collateral, options, samples.NOW)
    # ECDSA signatures can be rewritten without the key: the bytes differ, what they say does not.
    loose = {"quote_sha256", "trailing_bytes"}
    return outcome.verdict, {key: value for key, value in outcome.claims.items() if key not in loose}


def run_judged_quote(data: bytes) -> None:
    """A changed quote or collateral may only be accepted if it says the same as before."""
    fields = samples.collateral()
    number, value = split(data, len(fields) + 1)
    quote, changed = samples.tdx_quotes()[0], dict(fields)
    if number == len(fields):
        quote = value
    else:
        changed[list(fields)[number]] = value.decode("ascii", "replace")
    verdict, claims = judged(quote, json.dumps(changed).encode())
    if verdict is OutcomeVerdict.ACCEPTED:
        assert claims == quote_claims()


def judged_quote_seeds() -> list[bytes]:
    return parts([*collateral_parts(), samples.tdx_quotes()[0]])


# --- AMD ------------------------------------------------------------------------------------------------


def snp() -> evidence_pb2.SnpEvidence:
    return evidence_pb2.Evidence.FromString(samples.snp_evidence()).snp


def run_snp_report(data: bytes) -> None:
    report = parse_snp_report(data)
    assert report.signed == data[: len(report.signed)]
    for product in Product:
        for raw in (report.reported_tcb, report.committed_tcb, report.launch_tcb, report.current_tcb):
            try:
                parse_tcb(product, raw)
            except MalformedError:
                continue


def run_snp_certificates(data: bytes) -> None:
    """Leaf (DER), issuers (PEM), revocation list (DER or PEM), each with the others as they should be."""
    number, value = split(data, 3)
    given = [snp().certificate, snp().issuer_chain.encode(), snp().crl]
    given[number] = value
    leaf, issuers, crl = parse_leaf(given[0]), parse_issuers(given[1]), parse_crl(given[2])
    endorsement = verify_chain(leaf, issuers, [samples.amd().root])
    if isinstance(endorsement, str):
        return
    at = datetime.fromtimestamp(samples.NOW, UTC)
    problem = crl_problem(crl, leaf, endorsement, at)
    assert number != 0 or leaf.tbs in snp().certificate
    assert number != 2 or problem is not None or crl.tbs_certlist_bytes in snp().crl


def snp_certificate_seeds() -> list[bytes]:
    return parts([snp().certificate, snp().issuer_chain.encode(), snp().crl])


# --- NVIDIA ---------------------------------------------------------------------------------------------


def run_gpu_report(data: bytes) -> None:
    report = parse_gpu_report(data)
    assert report.signed + report.signature == data[: len(report.signed) + 96]
    properties = [name for name, kind in vars(GpuReport).items() if isinstance(kind, property)]
    assert properties
    for name in properties:
        getattr(report, name)


@functools.cache
def gpu_chain() -> tuple[bytes, ...]:
    pem = samples.gpu_device().certificate_chain
    found = re.findall("-----BEGIN CERTIFICATE-----(.*?)-----END CERTIFICATE-----", pem, re.DOTALL)
    return tuple(base64.b64decode(one) for one in found)


def run_gpu_chain(data: bytes) -> None:
    """One certificate of a device chain; or the whole chain as PEM text."""
    ders = list(gpu_chain())
    number, value = split(data, len(ders) + 1)
    if number == len(ders):
        chain = parse_pem_chain(value)
    else:
        ders[number] = value
        chain = parse_der_chain(ders)
    dates_problem(chain, datetime.fromtimestamp(samples.NOW, UTC))
    if chain_problem(chain, {samples.nvidia().device_root.der}) is not None:
        return
    identity = device_identity(chain)
    assert identity.serial


def run_rim(data: bytes) -> None:
    rim = parse_rim(data)
    at = datetime.fromtimestamp(samples.NOW, UTC)
    problem = rim_chain_problem(rim.chain, {samples.nvidia().rim_root.der}, at)
    found = verify_rim(rim)
    if problem is None and isinstance(found, Rim):
        known = {(one.chip, one.version): dict(one.active) for one in genuine_rims()}
        assert known[found.chip, found.version] == dict(found.active)


@functools.cache
def genuine_rims() -> tuple[Rim, ...]:
    found = [verify_rim(parse_rim(data)) for data in rim_seeds()]
    return tuple(one for one in found if isinstance(one, Rim))


def rim_seeds() -> list[bytes]:
    return [*samples.nvidia().gpu_rims, *samples.nvidia().switch_rims]


def answer_of(answer: OcspAnswer) -> tuple[object, ...]:
    """What a response says, without the time it was made at: good answers of earlier runs are in the corpus."""
    return (answer.about, answer.start, answer.end, answer.status, answer.nonces, answer.critical)


def run_ocsp(data: bytes) -> None:
    response = parse_ocsp(data)
    chain = parse_der_chain(gpu_chain())
    at = datetime.fromtimestamp(samples.NOW, UTC)
    for child, issuer in itertools.pairwise(chain):
        if response_problem(response, child, issuer, samples.CHALLENGE, at) is None:
            genuine = [parse_ocsp(one) for one in samples.gpu_device().ocsp_responses]
            assert answer_of(response) in [answer_of(one) for one in genuine]


def run_gpu_list(data: bytes) -> None:
    assert parse_evidence_list(data)


def run_gpu_summary(data: bytes) -> None:
    summary = parse_gpu_summary(data)
    assert parse_gpu_summary(summary.encode()) == summary


# --- event logs -----------------------------------------------------------------------------------------


def run_ccel(data: bytes) -> None:
    with contextlib.suppress(MalformedError):
        parse_ccel_table(data)
    for event in parse_ccel(data):
        assert 0 <= event.register <= 3
        assert len(event.digest) == 48


def run_dstack(data: bytes) -> None:
    log = parse_dstack(data)
    runtime = [event for event in log.events if event.register == 3]
    assert len(runtime) == len(log.boot_events) + len(log.app_events)


# --- our own forms --------------------------------------------------------------------------------------


def run_evidence(data: bytes) -> None:
    assert parse_evidence(data).digest == evidence_digest(data)


EVIDENCE_PARTS: tuple[str, ...] = (
    "key_binding",
    "seal_public_key",
    "tdx.quote",
    "tdx.runtime_events.0.payload",
    "tdx.runtime_events.2.payload",
    *(f"tdx.collateral.{field.name}" for field in evidence_pb2.TdxCollateral.DESCRIPTOR.fields),
    "snp.report",
    "snp.certificate",
    "snp.issuer_chain",
    "snp.crl",
    "devices.0.report",
    "devices.0.certificate_chain",
    "devices.0.rims.0",
    "devices.0.ocsp_responses.0",
)
SAID = ("binding", "seal_public_key", "models", "release", "tee", "platform_id", "expires_at")
"""What must be the same whenever evidence is accepted; claims are compared too."""


def evidence_for(path: str) -> bytes:
    return samples.snp_evidence() if path.startswith("snp") else samples.tdx_evidence()


def get_part(message: Any, path: str) -> bytes:
    for name in path.split("."):
        message = message[int(name)] if name.isdigit() else getattr(message, name)
    return message.encode() if isinstance(message, str) else bytes(message)


def set_part(message: Any, path: str, value: bytes) -> None:
    *way, last = path.split(".")
    for name in way:
        message = message[int(name)] if name.isdigit() else getattr(message, name)
    if last.isdigit():
        message[int(last)] = value
    elif isinstance(getattr(message, last), str):
        setattr(message, last, value.decode("ascii", "replace"))
    else:
        setattr(message, last, value)


@functools.cache
def accepted(evidence: bytes) -> tuple[object, ...]:
    """What an enclave says once its evidence is accepted."""
    enclave = appraise(evidence, policy=samples.policy(), challenge=samples.CHALLENGE, now=samples.NOW)
    claims = {key: value for key, value in enclave.claims.items() if key != "quote_sha256"}
    return (*(getattr(enclave, name) for name in SAID), json.dumps(claims, sort_keys=True, default=str))


def run_appraise(data: bytes) -> None:
    """One part of good evidence is replaced: refused, or accepted and says the same."""
    number, value = split(data, len(EVIDENCE_PARTS))
    path = EVIDENCE_PARTS[number]
    good = evidence_for(path)
    message = evidence_pb2.Evidence.FromString(good)
    set_part(message, path, value)
    changed = message.SerializeToString(deterministic=True)
    assert accepted.__wrapped__(changed) == accepted(good)


def appraise_seeds() -> list[bytes]:
    return parts(
        [get_part(evidence_pb2.Evidence.FromString(evidence_for(path)), path) for path in EVIDENCE_PARTS]
    )


def run_cell(data: bytes) -> None:
    cell = parse_boc(data)
    assert cell.to_boc() == data


def run_records(data: bytes) -> None:
    taken = 0
    for parse in (
        parse_key_binding,
        parse_receipt,
        parse_checkpoint,
        parse_authorization,
        parse_claim,
        parse_release,
    ):
        try:
            record: Any = parse(data)
        except MalformedError:
            continue
        taken += 1
        assert record.to_boc() == data
    assert taken <= 1, "one cell is two records"
    if not taken:
        raise MalformedError("no record")


def run_bundle(data: bytes) -> None:
    bundle = parse_bundle(data)
    if not bundle.undecodable:
        again = parse_bundle(bundle.to_json())
        assert again == bundle
        assert again.to_json() == bundle.to_json()


def run_policy(data: bytes) -> None:
    assert policy_from_toml(data.decode("utf-8", "replace")).digest


def run_rules(data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnsafePolicyWarning)
        rules_from_toml(data.decode("utf-8", "replace"))


def run_dsse(data: bytes) -> None:
    envelope = parse_envelope(data)
    assert parse_envelope(encode_envelope(envelope)) == envelope


def run_release(data: bytes) -> None:
    document = parse_statement(data)
    assert parse_statement(encode_statement(document)) == document


def release_seeds() -> list[bytes]:
    return [parse_envelope(one).payload for one in samples.release_envelopes()]


@functools.cache
def sealed() -> bytes:
    evidence = samples.tdx_evidence()
    enclave = appraise(evidence, policy=samples.policy(), challenge=samples.CHALLENGE, now=samples.NOW)
    return seal_request([enclave], b"question", now=samples.NOW)[0]


def run_sealing(data: bytes) -> None:
    opened = open_request([samples.SEAL_KEY], data)
    assert opened.plain == b"question"


# --- cells of the chain ---------------------------------------------------------------------------------


def run_chain_boc(data: bytes) -> None:
    roots = parse_any_boc(data, roots=None, max_bytes=1 << 20)
    assert parse_any_boc(write_boc(roots), roots=len(roots)) == roots
    try:
        cell = parse_canonical(data)
    except ChainProofError:
        return
    assert write_boc([cell]) == data


def chain_boc_seeds() -> list[bytes]:
    from pytoniq_core import begin_cell

    from cocoon_ton.proof.tree import merkle_proof, pruned_branch

    leaf = begin_cell().store_uint(7, 32).end_cell()
    node = begin_cell().store_bits("101").store_ref(leaf).store_ref(leaf).end_cell()
    pruned = begin_cell().store_bits("101").store_ref(leaf).store_ref(pruned_branch(leaf)).end_cell()
    bags = [write_boc([node]), write_boc([node, leaf]), node.to_boc(has_idx=False, hash_crc32=True)]
    return [*bags, write_boc([merkle_proof(pruned)]), *samples.records()]


JSON_WORDS = ("{", "}", "[", "]", '":', ',"', "null", "true", "NaN", "1e999", "-1", "\\ud800", "\\u0000")
TOML_WORDS = ("[[releases]]", "[gpu]", "[snp]", "= [", "1979-05-27", "inf", "0x", "'''", '"""', "9" * 40)
TARGETS: tuple[Target, ...] = (
    Target(
        name="tdx-quote",
        run=run_quote,
        seeds=samples.tdx_quotes,
        vectors=("tdx/*.quote.bin", "tdx/synthetic/*.quote.bin"),
    ),
    Target(
        name="tdx-collateral",
        run=run_collateral,
        seeds=lambda: [samples.collateral_json()],
        vectors=("tdx/synthetic/*.collateral.json",),
        max_length=64 * 1024,
        words=JSON_WORDS,
    ),
    Target(
        name="tdx-collateral-parts",
        run=run_collateral_part,
        seeds=lambda: parts(collateral_parts()),
        words=JSON_WORDS,
    ),
    Target(name="tdx-judged", run=run_judged_quote, seeds=judged_quote_seeds, words=JSON_WORDS),
    Target(
        name="sgx-quote",
        run=run_sgx,
        seeds=lambda: [samples.sgx_quote()],
        vectors=("sgx/*.quote.bin",),
    ),
    Target(
        name="snp-report",
        run=run_snp_report,
        seeds=lambda: [snp().report],
        vectors=("snp/*.report.bin",),
        max_length=REPORT_SIZE + 16,
    ),
    Target(
        name="snp-certificates",
        run=run_snp_certificates,
        seeds=snp_certificate_seeds,
    ),
    Target(
        name="gpu-report",
        run=run_gpu_report,
        seeds=lambda: [samples.gpu_device().report, samples.switch_report()],
        vectors=("nvidia/*.report.bin",),
    ),
    Target(
        name="gpu-chain",
        run=run_gpu_chain,
        seeds=lambda: parts([*gpu_chain(), samples.gpu_device().certificate_chain.encode()]),
    ),
    Target(
        name="gpu-rim",
        run=run_rim,
        seeds=rim_seeds,
        vectors=("nvidia/rim/*.swidtag", "nvidia/rim/*.xml"),
        typed=(MalformedError, UnsupportedError),
        max_length=64 * 1024,
        words=("<!DOCTYPE x>", "<!--", "&#0;", "xmlns:", 'encoding="utf-16"', "<![CDATA[", "Resource"),
    ),
    Target(
        name="gpu-ocsp",
        run=run_ocsp,
        seeds=lambda: list(samples.gpu_device().ocsp_responses),
        vectors=("nvidia/ocsp_synthetic/*.der",),
    ),
    Target(
        name="gpu-evidence",
        run=run_gpu_list,
        seeds=lambda: [samples.gpu_list()],
        words=(*JSON_WORDS, "evidence_list", "HOPPER", "LS_10"),
    ),
    Target(
        name="gpu-summary", run=run_gpu_summary, seeds=lambda: [samples.one_gpu().summary(b"\x0b" * 32)]
    ),
    Target(
        name="ccel",
        run=run_ccel,
        seeds=lambda: [samples.ccel_log()],
        vectors=("eventlog/*.ccel.bin", "eventlog/*.ccel_table.bin"),
        max_length=128 * 1024,
    ),
    Target(
        name="dstack",
        run=run_dstack,
        seeds=lambda: [samples.dstack_log(), samples.dstack_log(nested=True)],
        vectors=("eventlog/*.json",),
        max_length=64 * 1024,
        words=(*JSON_WORDS, "event_log", "system-ready"),
    ),
    Target(
        name="evidence",
        run=run_evidence,
        seeds=lambda: [samples.tdx_evidence(), samples.snp_evidence()],
        max_length=128 * 1024,
    ),
    Target(
        name="appraise",
        run=run_appraise,
        seeds=appraise_seeds,
        typed=(MalformedError, EvidenceRejectedError),
        max_length=32 * 1024,
    ),
    Target(name="cell", run=run_cell, seeds=samples.records, max_length=4200),
    Target(name="records", run=run_records, seeds=samples.records, max_length=1024),
    Target(name="bundle", run=run_bundle, seeds=lambda: [samples.bundle()], words=JSON_WORDS),
    Target(
        name="policy",
        run=run_policy,
        seeds=lambda: [samples.policy_toml()],
        typed=(ConfigError,),
        words=TOML_WORDS,
    ),
    Target(
        name="rules",
        run=run_rules,
        seeds=lambda: [samples.rules_toml()],
        typed=(ConfigError,),
        words=TOML_WORDS,
    ),
    Target(name="dsse", run=run_dsse, seeds=samples.release_envelopes, words=JSON_WORDS),
    Target(name="release", run=run_release, seeds=release_seeds, words=(*JSON_WORDS, "sev-snp")),
    Target(
        name="sealing",
        run=run_sealing,
        seeds=lambda: [sealed()],
        typed=(MalformedError, SealingError),
    ),
    Target(name="chain-boc", run=run_chain_boc, seeds=chain_boc_seeds, typed=(ChainProofError,)),
)


def target(name: str) -> Target:
    """The target of that name.

    Raises:
        KeyError: there is none.
    """
    return {one.name: one for one in TARGETS}[name]


def seeds(one: Target, vectors: Path | None) -> list[bytes]:
    """Good input of both kinds: made here, and real samples where they are at hand."""
    found = list(one.seeds())
    if vectors is not None:
        for pattern in one.vectors:
            found += [path.read_bytes() for path in sorted(vectors.glob(pattern))]
    return [data for data in dict.fromkeys(found) if len(data) <= one.max_length]


def fits(one: Target) -> Target:
    """`one` with a length limit that takes all of its own samples."""
    longest = max(len(data) for data in one.seeds())
    return one if longest <= one.max_length else dataclasses.replace(one, max_length=2 * longest)
