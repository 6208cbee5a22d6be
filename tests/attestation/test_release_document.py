"""Signed releases: m of n reviewers, the registry's id, and a statement with one meaning."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from cocoon_attestation import dsse
from cocoon_attestation import release_document as rd
from cocoon_attestation.errors import ConfigError, MalformedError, RejectedError
from cocoon_attestation.reference import Release, SnpRelease

NOW = 1_800_000_000
KEYS = [Ed25519PrivateKey.from_private_bytes(bytes((number,)) * 32) for number in (1, 2, 3)]
PUBLIC = [key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw) for key in KEYS]
TDX = Release(
    name="cocoon-cpu 0.1.0",
    mrtd=b"\x01" * 48,
    rtmr0=b"\x02" * 48,
    rtmr1=b"\x03" * 48,
    rtmr2=b"\x04" * 48,
    td_attributes=bytes.fromhex("0000001000000000"),
    xfam=bytes.fromhex("e702060000000000"),
)
SNP = SnpRelease(
    name="cocoon-gpu 0.1.0", measurement=b"\x05" * 48, models=(b"\x06" * 32, b"\x07" * 32), gpus=8
)
DOCUMENT = rd.ReleaseDocument(
    release=TDX,
    issued_at=NOW - 60,
    expires_at=NOW + 60,
    source=rd.Source(uri="git+https://example.org/cocoon.git", commit=b"\x08" * 20),
    artifacts=(rd.Artifact(name="cocoon.img", sha256=b"\x09" * 32),),
)
REVIEWERS = rd.Reviewers(keys=frozenset(PUBLIC), threshold=2)
STATEMENT = (
    b'{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"cocoon-cpu 0.1.0","digest":'
    b'{"cocoonReleaseId":"%b"}},{"name":"cocoon.img","digest":{"sha256":"%b"}}],'
    b'"predicateType":"urn:x-cocoon:release:v1","predicate":{"release":{"name":"cocoon-cpu 0.1.0",'
    b'"tee":"tdx","mrtd":"%b","rtmr0":"%b","rtmr1":"%b","rtmr2":"%b",'
    b'"td_attributes":"0000001000000000","xfam":"e702060000000000"},"issuedAt":1799999940,'
    b'"expiresAt":1800000060,"source":{"uri":"git+https://example.org/cocoon.git","commit":"%b"}}}'
) % (
    TDX.release_id.hex().encode(),
    b"09" * 32,
    b"01" * 48,
    b"02" * 48,
    b"03" * 48,
    b"04" * 48,
    b"08" * 20,
)


def verify(envelope: bytes, **changes: Any) -> rd.SignedRelease:
    arguments: dict[str, Any] = {
        "reviewers": REVIEWERS,
        "registry_ids": {bytes(TDX.release_id), bytes(SNP.release_id)},
        "now": NOW,
    }
    return rd.verify_release_document(envelope, **(arguments | changes))


def failures(envelope: bytes, **changes: Any) -> list[str]:
    with pytest.raises(RejectedError) as caught:
        verify(envelope, **changes)
    assert caught.value.checks is not None
    assert not caught.value.checks.accepted
    return [check.id for check in caught.value.checks.failed]


def statement() -> dict[str, Any]:
    parsed = json.loads(STATEMENT)
    assert isinstance(parsed, dict)
    return parsed


def test_statement_has_exactly_these_bytes() -> None:
    assert rd.encode_statement(DOCUMENT) == STATEMENT
    assert rd.parse_statement(STATEMENT) == DOCUMENT


@pytest.mark.parametrize("release", [TDX, SNP])
def test_two_of_three_reviewers_are_enough(release: Release | SnpRelease) -> None:
    document = rd.ReleaseDocument(release=release, issued_at=NOW)
    signed = verify(rd.sign_release_document(document, KEYS[1:]))
    assert signed.release == release
    assert signed.release.release_id == release.release_id
    assert signed.signers == set(PUBLIC[1:])
    assert signed.checks.accepted
    assert [check.id for check in signed.checks] == [
        "release.signatures",
        "release.validity",
        "release.registry",
    ]
    assert all(check.spec.startswith("docs/spec/releases.md#") for check in signed.checks)


def test_one_of_three_reviewers_is_not_enough() -> None:
    envelope = rd.sign_release_document(DOCUMENT, KEYS[:1])
    assert failures(envelope) == ["release.signatures"]


def test_two_signatures_of_one_reviewer_are_not_enough() -> None:
    parsed = json.loads(rd.sign_release_document(DOCUMENT, KEYS[:1]))
    parsed["signatures"] *= 2
    assert failures(json.dumps(parsed).encode()) == ["release.signatures"]


def test_strangers_do_not_count() -> None:
    strangers = [Ed25519PrivateKey.from_private_bytes(bytes((number,)) * 32) for number in (8, 9)]
    assert failures(rd.sign_release_document(DOCUMENT, strangers)) == ["release.signatures"]
    mixed = rd.sign_release_document(DOCUMENT, [*strangers, KEYS[0]])
    assert failures(mixed) == ["release.signatures"]


def test_unsigned_statement_is_not_even_parsed() -> None:
    envelope = dsse.sign_envelope(rd.PAYLOAD_TYPE, b"not a statement", KEYS[:1])
    assert failures(envelope) == ["release.signatures"]
    with pytest.raises(MalformedError):
        verify(dsse.sign_envelope(rd.PAYLOAD_TYPE, b"not a statement", KEYS))


def test_release_must_be_in_the_registry() -> None:
    envelope = rd.sign_release_document(DOCUMENT, KEYS)
    assert failures(envelope, registry_ids={bytes(SNP.release_id)}) == ["release.registry"]
    assert failures(envelope, registry_ids=[]) == ["release.registry"]


@pytest.mark.parametrize(
    ("now", "ok"), [(NOW - 61, False), (NOW - 60, True), (NOW + 59, True), (NOW + 60, False)]
)
def test_document_has_its_time(now: int, ok: bool) -> None:
    envelope = rd.sign_release_document(DOCUMENT, KEYS)
    if ok:
        assert verify(envelope, now=now).document == DOCUMENT
    else:
        assert failures(envelope, now=now) == ["release.validity"]


def test_all_faults_are_listed() -> None:
    envelope = rd.sign_release_document(DOCUMENT, KEYS)
    assert failures(envelope, now=0, registry_ids=[]) == ["release.validity", "release.registry"]


def test_another_payload_type_is_malformed() -> None:
    with pytest.raises(MalformedError):
        verify(dsse.sign_envelope("application/json", STATEMENT, KEYS))


def test_subject_must_be_the_release_of_the_predicate() -> None:
    changed = statement()
    changed["predicate"]["release"]["mrtd"] = "ff" * 48
    with pytest.raises(MalformedError, match="first subject"):
        rd.parse_statement(json.dumps(changed).encode())
    changed = statement()
    changed["subject"][0]["name"] = "another name"
    with pytest.raises(MalformedError, match="first subject"):
        rd.parse_statement(json.dumps(changed).encode())


def set_path(document: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    changed = copy.deepcopy(document)
    *parents, last = path.split(".")
    target: Any = changed
    for part in parents:
        target = target[int(part) if part.isdigit() else part]
    if value is DELETE:
        del target[last]
    else:
        target[int(last) if last.isdigit() else last] = value
    return changed


DELETE = object()


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("_type", "https://in-toto.io/Statement/v0.1"),
        ("_type", DELETE),
        ("predicateType", "https://slsa.dev/provenance/v1"),
        ("unknown", 1),
        ("subject", {}),
        ("subject", []),
        ("subject.0.digest", {}),
        ("subject.0.digest.sha256", "00" * 32),
        ("subject.1.digest.sha256", "00" * 31),
        ("subject.1.name", "tab\there"),
        ("subject.1.uri", "x"),
        ("predicate", []),
        ("predicate.unknown", 1),
        ("predicate.issuedAt", DELETE),
        ("predicate.issuedAt", True),
        ("predicate.issuedAt", 1.5),
        ("predicate.issuedAt", -1),
        ("predicate.issuedAt", 2**53),
        ("predicate.expiresAt", "tomorrow"),
        ("predicate.expiresAt", 1),
        ("predicate.source", "x"),
        ("predicate.source.uri", ""),
        ("predicate.source.uri", "x" * 257),
        ("predicate.source.commit", "main"),
        ("predicate.source.commit", "0" * 41),
        ("predicate.release", 7),
        ("predicate.release.tee", "sgx"),
        ("predicate.release.tee", DELETE),
        ("predicate.release.xfam", DELETE),
        ("predicate.release.rtmr3", "00" * 48),
        ("predicate.release.mrtd", "0A" * 48),
        ("predicate.release.name", ""),
        ("predicate.release.name", "n" * 128),
    ],
)
def test_statement_of_another_form_is_malformed(path: str, value: object) -> None:
    with pytest.raises(MalformedError):
        rd.parse_statement(json.dumps(set_path(statement(), path, value)).encode())


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("measurement", "00" * 32),
        ("models", []),
        ("models", ["06" * 32, "06" * 32]),
        ("models", ["06" * 31]),
        ("models", [f"{number:064x}" for number in range(65)]),
        ("gpus", 17),
        ("gpus", "8"),
        ("gpus", DELETE),
        ("mrtd", "00" * 48),
    ],
)
def test_snp_release_of_another_form_is_malformed(path: str, value: object) -> None:
    table = rd.release_to_dict(SNP)
    assert rd.release_from_dict(table) == SNP
    with pytest.raises(MalformedError):
        rd.release_from_dict(set_path(table, path, value))


def test_artifacts_are_bounded_and_named_once() -> None:
    many = tuple(rd.Artifact(name=f"file {number}", sha256=bytes(32)) for number in range(33))
    rd.encode_statement(rd.ReleaseDocument(release=TDX, issued_at=NOW, artifacts=many[:32]))
    with pytest.raises(MalformedError):
        rd.encode_statement(rd.ReleaseDocument(release=TDX, issued_at=NOW, artifacts=many))
    with pytest.raises(MalformedError, match="named twice"):
        rd.encode_statement(rd.ReleaseDocument(release=TDX, issued_at=NOW, artifacts=(many[0],) * 2))


def test_repeated_member_is_malformed() -> None:
    doubled = STATEMENT.replace(b'"issuedAt"', b'"issuedAt":1,"issuedAt"', 1)
    with pytest.raises(MalformedError, match="repeated"):
        rd.parse_statement(doubled)


def test_long_commits_are_read() -> None:
    source = rd.Source(uri="git+https://example.org/x", commit=b"\x0a" * 32)
    document = rd.ReleaseDocument(release=TDX, issued_at=NOW, source=source)
    assert rd.parse_statement(rd.encode_statement(document)) == document


@pytest.mark.parametrize(
    ("keys", "threshold"),
    [
        ([], 1),
        (PUBLIC, 0),
        (PUBLIC, 4),
        (PUBLIC, True),
        ([b"short"], 1),
        ([bytes((number,)) * 32 for number in range(33)], 1),
    ],
)
def test_reviewers_that_protect_nothing_cannot_be_made(keys: list[bytes], threshold: int) -> None:
    with pytest.raises(ConfigError):
        rd.Reviewers(keys=frozenset(keys), threshold=threshold)


@given(st.integers(min_value=0), st.integers(min_value=0, max_value=7))
def test_a_flipped_bit_is_never_accepted_as_another_release(position: int, bit: int) -> None:
    data = bytearray(rd.sign_release_document(DOCUMENT, KEYS[:2]))
    data[position % len(data)] ^= 1 << bit
    try:
        assert verify(bytes(data)).document == DOCUMENT
    except (MalformedError, RejectedError):
        return


@given(st.integers(min_value=0, max_value=len(STATEMENT) - 1))
def test_every_truncation_is_malformed(length: int) -> None:
    with pytest.raises(MalformedError):
        rd.parse_statement(STATEMENT[:length])
