"""Releases as signed documents: reference values that m of n reviewers vouch for.

The document is an in-toto Statement (version 1) in a DSSE envelope. Its subject is the release id, its
predicate has the full reference values, so the id can be computed again from what was reviewed. A
registry entry says which releases a network accepts; this document says who looked at one and where its
source is. Verification demands both: the release must be the registry's. See docs/spec/releases.md.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cocoon_attestation.checks import CheckList
from cocoon_attestation.dsse import KEY_SIZE, key_id, parse_envelope, sign_envelope, signers
from cocoon_attestation.errors import ConfigError, MalformedError, RejectedError
from cocoon_attestation.reference import MAX_GPUS, AnyRelease, Release, SnpRelease, TeeKind
from cocoon_attestation.strict_json import items, members, number, parse_object, text
from cocoon_attestation.types import parse_hex

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "urn:x-cocoon:release:v1"
RELEASE_DIGEST: Final = "cocoonReleaseId"
"""Name of the release id in the subject's digest set: the hash of the release's TON cell."""
MAX_STATEMENT: Final = 128 * 1024
MAX_ARTIFACTS: Final = 32
MAX_REVIEWERS: Final = 32
MAX_MODELS: Final = 64

_TDX_VALUES: Final = {"mrtd": 48, "rtmr0": 48, "rtmr1": 48, "rtmr2": 48, "td_attributes": 8, "xfam": 8}
_SPEC: Final = "docs/spec/releases.md#"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviewers:
    """Whose word counts. Raises `ConfigError` at construction for a set that protects nothing."""

    keys: frozenset[bytes]
    """Ed25519 public keys, 32 bytes each."""
    threshold: int
    """How many of them must have signed, at least 1."""

    def __post_init__(self) -> None:
        """Check lengths and numbers."""
        if not 1 <= len(self.keys) <= MAX_REVIEWERS or any(len(key) != KEY_SIZE for key in self.keys):
            raise ConfigError(f"reviewers: 1 to {MAX_REVIEWERS} keys of {KEY_SIZE} bytes expected")
        if type(self.threshold) is not int or not 1 <= self.threshold <= len(self.keys):
            raise ConfigError("reviewers: the threshold must be 1 to the number of keys")


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A file that belongs to the release, for example the disk image."""

    name: str
    sha256: bytes
    """32 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the release can be built from."""

    uri: str
    commit: bytes
    """Git object id: 20 or 32 bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseDocument:
    """What a statement says. Meaningful only once `verify_release_document` returned it."""

    release: AnyRelease
    issued_at: int
    """Unix time in seconds."""
    expires_at: int | None = None
    """Unix time in seconds after which nobody vouches any more; None = never."""
    source: Source | None = None
    artifacts: tuple[Artifact, ...] = ()

    def __post_init__(self) -> None:
        """Check the times; raises `MalformedError`."""
        if self.expires_at is not None and self.expires_at <= self.issued_at:
            raise MalformedError("release document: it expires before it is issued")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedRelease:
    """A release that enough reviewers vouch for and that the registry names."""

    document: ReleaseDocument
    signers: frozenset[bytes]
    """Ed25519 public keys of the reviewers who signed."""
    checks: CheckList

    @property
    def release(self) -> AnyRelease:
        """The reference values."""
        return self.document.release


def encode_statement(document: ReleaseDocument) -> bytes:
    """The in-toto Statement as compact JSON: what reviewers sign."""
    predicate: dict[str, object] = {
        "release": release_to_dict(document.release),
        "issuedAt": document.issued_at,
    }
    if document.expires_at is not None:
        predicate["expiresAt"] = document.expires_at
    if document.source is not None:
        predicate["source"] = {"uri": document.source.uri, "commit": document.source.commit.hex()}
    release = document.release
    subjects: list[dict[str, object]] = [
        {"name": release.name, "digest": {RELEASE_DIGEST: release.release_id.hex()}}
    ]
    subjects += [{"name": one.name, "digest": {"sha256": one.sha256.hex()}} for one in document.artifacts]
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": subjects,
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate,
    }
    payload = json.dumps(statement, separators=(",", ":"), ensure_ascii=True).encode("ascii")
    parse_statement(payload)  # never sign what a verifier would not read
    return payload


def sign_release_document(document: ReleaseDocument, keys: Sequence[Ed25519PrivateKey]) -> bytes:
    """A DSSE envelope around the statement with one signature of each key.

    Raises:
        ConfigError: no key, too many, or one twice.
        MalformedError: a value of the document is out of its limits.
    """
    return sign_envelope(PAYLOAD_TYPE, encode_statement(document), keys)


def parse_statement(payload: bytes) -> ReleaseDocument:
    """Read the in-toto Statement of a release; the subject must be the release of the predicate.

    Raises:
        MalformedError: another statement, an unknown member, or a value of the wrong form.
    """
    statement = members(
        parse_object(payload, limit=MAX_STATEMENT, what="release statement"),
        required=frozenset({"_type", "subject", "predicateType", "predicate"}),
        what="release statement",
    )
    if (statement["_type"], statement["predicateType"]) != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise MalformedError("release statement: another type of statement or predicate")
    predicate = members(
        statement["predicate"],
        required=frozenset({"release", "issuedAt"}),
        optional=frozenset({"expiresAt", "source"}),
        what="release predicate",
    )
    release = release_from_dict(predicate["release"])
    subjects = items(statement["subject"], "release subject", limit=MAX_ARTIFACTS + 1)
    if not subjects or _subject(subjects[0], RELEASE_DIGEST) != (release.name, bytes(release.release_id)):
        raise MalformedError("release statement: the first subject is not the release of the predicate")
    artifacts = [_subject(entry, "sha256") for entry in subjects[1:]]
    if len({name for name, _ in artifacts}) != len(artifacts):
        raise MalformedError("release statement: an artifact is named twice")
    expires = predicate.get("expiresAt")
    return ReleaseDocument(
        release=release,
        issued_at=number(predicate["issuedAt"], "issuedAt"),
        expires_at=None if expires is None else number(expires, "expiresAt"),
        source=_source(predicate["source"]) if "source" in predicate else None,
        artifacts=tuple(Artifact(name=name, sha256=digest) for name, digest in artifacts),
    )


def verify_release_document(
    envelope: bytes, *, reviewers: Reviewers, registry_ids: Collection[bytes], now: int
) -> SignedRelease:
    """Accept a release if enough reviewers signed it, it is in date, and the registry names it.

    Args:
        envelope: the DSSE envelope, as received.
        reviewers: whose signatures count.
        registry_ids: ids of the releases that the network's registry accepts, 32 bytes each.
        now: Unix time in seconds.

    Raises:
        MalformedError: the envelope or the statement inside it does not parse.
        RejectedError: a check failed; `checks` has all of them.
    """
    parsed = parse_envelope(envelope)
    if parsed.payload_type != PAYLOAD_TYPE:
        raise MalformedError("release document: another type of payload")
    found = signers(parsed, reviewers.keys)
    checks = CheckList()
    _record(
        checks,
        "release.signatures",
        len(found) >= reviewers.threshold,
        f"{len(found)} of {len(reviewers.keys)} reviewers signed, {reviewers.threshold} are needed",
        inputs=tuple(("signer", key_id(key)) for key in sorted(found)),
    )
    if not checks.accepted:  # unsigned bytes decide nothing further
        raise _rejection(checks)
    document = parse_statement(parsed.payload)
    end = document.expires_at
    _record(
        checks,
        "release.validity",
        document.issued_at <= now and (end is None or now < end),
        f"issued at {document.issued_at}, {'without end' if end is None else f'until {end}'}, now {now}",
    )
    identity = bytes(document.release.release_id)
    _record(
        checks,
        "release.registry",
        identity in registry_ids,
        f"release {identity.hex()[:16]}… is {'' if identity in registry_ids else 'not '}in the registry",
        inputs=(("release_id", identity.hex()),),
    )
    if not checks.accepted:
        raise _rejection(checks)
    return SignedRelease(document=document, signers=found, checks=checks)


def release_to_dict(release: AnyRelease) -> dict[str, object]:
    """The reference values as a JSON-ready object with the member names of a policy file."""
    if isinstance(release, SnpRelease):
        return {
            "name": release.name,
            "tee": release.tee.label,
            "measurement": release.measurement.hex(),
            "models": [model.hex() for model in release.models],
            "gpus": release.gpus,
        }
    values = {key: getattr(release, key).hex() for key in _TDX_VALUES}
    return {"name": release.name, "tee": release.tee.label, **values}


def release_from_dict(value: object) -> AnyRelease:
    """Read what `release_to_dict` wrote.

    Raises:
        MalformedError: an unknown kind of TEE, an unknown or missing member, or a wrong value.
    """
    if not isinstance(value, Mapping):
        raise MalformedError("release: an object expected")
    tee = TeeKind.from_label(text(value.get("tee"), "release tee"))
    if tee is TeeKind.SEV_SNP:
        return _snp_release(value)
    table = members(value, required=frozenset({"name", "tee", *_TDX_VALUES}), what="release")
    measured = {key: parse_hex(table[key], size, f"release {key}") for key, size in _TDX_VALUES.items()}
    return Release(name=text(table["name"], "release name"), tee=tee, **measured)


def _snp_release(value: object) -> SnpRelease:
    names = frozenset({"name", "tee", "measurement", "models", "gpus"})
    table = members(value, required=names, what="release")
    models = items(table["models"], "release models", limit=MAX_MODELS)
    return SnpRelease(
        name=text(table["name"], "release name"),
        measurement=parse_hex(table["measurement"], 48, "release measurement"),
        models=tuple(parse_hex(model, 32, "release model") for model in models),
        gpus=number(table["gpus"], "release gpus", limit=MAX_GPUS),
    )


def _subject(entry: object, algorithm: str) -> tuple[str, bytes]:
    subject = members(entry, required=frozenset({"name", "digest"}), what="release subject")
    digest = members(subject["digest"], required=frozenset({algorithm}), what="release subject digest")
    return text(subject["name"], "subject name"), parse_hex(digest[algorithm], 32, "subject digest")


def _source(value: object) -> Source:
    table = members(value, required=frozenset({"uri", "commit"}), what="release source")
    commit = text(table["commit"], "release commit", limit=64)
    size = 20 if len(commit) == 40 else 32
    return Source(
        uri=text(table["uri"], "release source uri"), commit=parse_hex(commit, size, "release commit")
    )


def _record(
    checks: CheckList, id: str, ok: bool, detail: str, inputs: tuple[tuple[str, str], ...] = ()
) -> None:
    checks.record(id, ok, detail, spec=_SPEC + id, inputs=inputs)


def _rejection(checks: CheckList) -> RejectedError:
    first = checks.failed[0]
    return RejectedError(
        f"release rejected: {first.id}: {first.detail}",
        checks=checks,
        hint="ask the reviewers for a document of a release that the network's registry names",
        details={"failed": [check.id for check in checks.failed]},
    )
