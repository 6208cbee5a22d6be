"""The simulated TEE makes what the real verifier accepts, says what it is, and keeps its keys private."""

from __future__ import annotations

import hashlib
import json
import secrets
import stat
from pathlib import Path
from typing import Any

import dcap_qvl
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cocoon.v1 import evidence_pb2
from cocoon_attestation.appraisal import appraise
from cocoon_attestation.binding import KeyBinding, beacon_challenge
from cocoon_attestation.errors import ConfigError, EvidenceRejectedError, MalformedError
from cocoon_attestation.policy import Policy
from cocoon_attestation.reference import TeeKind
from cocoon_attestation.tdx.quote import parse_quote
from cocoon_enclave.attestation import simulated_pki as pki
from cocoon_enclave.attestation.attester import Attester, make_evidence, measure
from cocoon_enclave.attestation.simulated import (
    EVALUATION_NUMBER,
    DevPlatform,
    SimulatedAttester,
    simulated_release,
)

NOW = 1_800_000_000
YEAR = 365 * 86_400
CONFIG = b"\x01" * 32
MODEL = b"\x02" * 32
SEAL_KEY = b"\x03" * 1216
CHALLENGE = b"\x04" * 32


@pytest.fixture(scope="module")
def platform() -> DevPlatform:
    return DevPlatform.create(NOW, secrets.token_bytes)


def binding(now: int = NOW) -> KeyBinding:
    return KeyBinding(
        node=b"\x05" * 32,
        seal_key_hash=hashlib.sha256(SEAL_KEY).digest(),
        receipt_key=b"\x06" * 32,
        tls_spki_hash=b"\x07" * 32,
        config_hash=CONFIG,
        release_id=simulated_release().release_id,
        not_before=now,
        not_after=now + 3600,
        global_id=-3,
    )


def policy(platform: DevPlatform) -> Policy:
    return Policy(
        global_id=-3,
        releases=(platform.release(),),
        models=frozenset({MODEL}),
        min_tcb_evaluation=EVALUATION_NUMBER,
        dev_root=platform.root_der,
    )


def measured(platform: DevPlatform, now: int = NOW) -> SimulatedAttester:
    attester = SimulatedAttester(platform, clock=lambda: now)
    measure(attester, config_hash=CONFIG, models=[MODEL])
    return attester


def test_fresh_evidence_is_accepted(platform: DevPlatform) -> None:
    attester: Attester = measured(platform)
    assert attester.simulated
    assert attester.kind is TeeKind.TDX
    evidence = make_evidence(attester, binding=binding(), seal_public_key=SEAL_KEY, challenge=CHALLENGE)
    enclave = appraise(evidence, policy=policy(platform), challenge=CHALLENGE, now=NOW)
    assert enclave.simulated
    assert enclave.models == (MODEL,)


def test_published_evidence_is_accepted(platform: DevPlatform) -> None:
    beacon = (77, b"\x08" * 32)
    evidence = make_evidence(measured(platform), binding=binding(), seal_public_key=SEAL_KEY, beacon=beacon)
    challenge = beacon_challenge(*beacon)
    assert appraise(evidence, policy=policy(platform), challenge=challenge, now=NOW).simulated


def test_mainnet_refuses_it(platform: DevPlatform) -> None:
    evidence = make_evidence(
        measured(platform), binding=binding(), seal_public_key=SEAL_KEY, challenge=CHALLENGE
    )
    mainnet = Policy(
        global_id=-3,
        releases=(platform.release(),),
        models=frozenset({MODEL}),
        min_tcb_evaluation=1,
    )
    with pytest.raises(EvidenceRejectedError, match=r"tdx\.root"):
        appraise(evidence, policy=mainnet, challenge=CHALLENGE, now=NOW)


@pytest.mark.parametrize("age", [0, 30 * 86_400, YEAR, 9 * YEAR])
def test_network_that_runs_long_never_dries_out(platform: DevPlatform, age: int) -> None:
    now = NOW + age
    evidence = make_evidence(
        measured(platform, now), binding=binding(now), seal_public_key=SEAL_KEY, challenge=CHALLENGE
    )
    enclave = appraise(evidence, policy=policy(platform), challenge=CHALLENGE, now=now)
    assert enclave.appraised_at == now


def test_verifier_with_a_clock_slightly_behind(platform: DevPlatform) -> None:
    evidence = make_evidence(
        measured(platform), binding=binding(), seal_public_key=SEAL_KEY, challenge=CHALLENGE
    )
    assert appraise(evidence, policy=policy(platform), challenge=CHALLENGE, now=NOW - 30).simulated


def test_sibling_shares_the_root_and_nothing_else(platform: DevPlatform) -> None:
    sibling = platform.sibling(NOW, secrets.token_bytes)
    assert sibling.root_der == platform.root_der
    evidence = make_evidence(
        measured(sibling), binding=binding(), seal_public_key=SEAL_KEY, challenge=CHALLENGE
    )
    theirs = appraise(evidence, policy=policy(platform), challenge=CHALLENGE, now=NOW)
    own = make_evidence(
        measured(platform), binding=binding(), seal_public_key=SEAL_KEY, challenge=CHALLENGE
    )
    ours = appraise(own, policy=policy(platform), challenge=CHALLENGE, now=NOW)
    assert theirs.platform_id != ours.platform_id
    attestation_keys = {
        parse_quote(evidence_pb2.Evidence.FromString(item).tdx.quote).attestation_key
        for item in (own, evidence)
    }
    assert len(attestation_keys) == 2


def test_every_name_says_simulated(platform: DevPlatform) -> None:
    for issuer in (platform.root, platform.platform_ca, platform.pck, platform.tcb_signer):
        (name,) = issuer.certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        (organization,) = issuer.certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
        assert "SIMULATED" in str(name.value)
        assert "SIMULATED" in str(organization.value)
    quote = parse_quote(platform.quote(platform.td_report(bytes(64), bytes(48))))
    assert quote.header.user_data.startswith(b"SIMULATED")
    assert quote.qe_auth_data.startswith(b"SIMULATED")


def test_creation_is_deterministic_in_its_randomness() -> None:
    def source(seed: bytes) -> pki.Random:
        counter = iter(range(10**6))
        return lambda n: hashlib.shake_256(seed + next(counter).to_bytes(4)).digest(n)

    first, second, third = (DevPlatform.create(NOW, source(seed)) for seed in (b"a", b"a", b"b"))
    assert first.ppid == second.ppid != third.ppid
    assert pki.raw_public_key(first.root.key) == pki.raw_public_key(second.root.key)
    assert pki.raw_public_key(first.root.key) != pki.raw_public_key(third.root.key)
    keys = {
        pki.raw_public_key(key)
        for key in (first.root.key, first.platform_ca.key, first.pck.key, first.attestation_key)
    }
    assert len(keys) == 4


# --- on disk --------------------------------------------------------------------------------------------


def test_save_and_load(platform: DevPlatform, tmp_path: Path) -> None:
    directory = tmp_path / "new" / "platform"
    platform.save(directory)
    loaded = DevPlatform.load(directory)
    assert loaded.root_der == platform.root_der
    assert loaded.ppid == platform.ppid
    evidence = make_evidence(
        measured(loaded), binding=binding(), seal_public_key=SEAL_KEY, challenge=CHALLENGE
    )
    assert appraise(evidence, policy=policy(platform), challenge=CHALLENGE, now=NOW).simulated


def test_files_are_private(platform: DevPlatform, tmp_path: Path) -> None:
    platform.save(tmp_path / "p")
    (file,) = (tmp_path / "p").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "p").stat().st_mode) == 0o700


def test_a_root_is_never_replaced(platform: DevPlatform, tmp_path: Path) -> None:
    platform.save(tmp_path)
    before = (tmp_path / "platform.json").read_bytes()
    with pytest.raises(ConfigError):
        DevPlatform.create(NOW, secrets.token_bytes).save(tmp_path)
    assert (tmp_path / "platform.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["platform.json"]


def test_unwritable_directory(platform: DevPlatform, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError):
        platform.save(tmp_path / "file" / "below")


@pytest.mark.parametrize("damage", ["missing", "text", "list", "format", "key", "rsa"])
def test_files_that_are_refused(platform: DevPlatform, tmp_path: Path, damage: str) -> None:
    file = tmp_path / "platform.json"
    if damage != "missing":
        platform.save(tmp_path)
        document: Any = json.loads(file.read_text())
        if damage == "format":
            document["format"] = "other"
        if damage == "key":
            del document["issuers"]["pck"]
        if damage == "rsa":
            document["attestation_key"] = document["issuers"]["pck"]["certificate"]
        content = {"text": "no json", "list": "[]"}.get(damage, json.dumps(document))
        file.write_text(content)
    with pytest.raises(ConfigError):
        DevPlatform.load(tmp_path)


def test_repr_shows_no_secret(platform: DevPlatform) -> None:
    text = repr(platform) + repr(platform.root)
    secret = platform.root.key.private_numbers().private_value
    assert "PRIVATE" not in text
    assert str(secret) not in text
    assert f"{secret:x}" not in text
    assert "SIMULATED" in text


# --- helpers around an attester -----------------------------------------------------------------------


def test_measuring_refuses_before_it_extends(platform: DevPlatform) -> None:
    for config_hash, models in ((CONFIG, []), (CONFIG, [MODEL, MODEL]), (b"", [MODEL]), (CONFIG, [b""])):
        attester = SimulatedAttester(platform, clock=lambda: NOW)
        with pytest.raises(MalformedError):
            measure(attester, config_hash=config_hash, models=models)
        assert not attester.attest(bytes(64)).runtime_events


def test_evidence_answers_one_thing(platform: DevPlatform) -> None:
    attester = measured(platform)
    both: dict[str, Any] = {"challenge": CHALLENGE, "beacon": (1, bytes(32))}
    for arguments in ({}, both):
        with pytest.raises(ConfigError):
            make_evidence(attester, binding=binding(), seal_public_key=SEAL_KEY, **arguments)


def test_evidence_with_wrong_lengths(platform: DevPlatform) -> None:
    attester = measured(platform)
    with pytest.raises(MalformedError):
        make_evidence(attester, binding=binding(), seal_public_key=b"short", challenge=CHALLENGE)
    with pytest.raises(MalformedError):
        make_evidence(attester, binding=binding(), seal_public_key=SEAL_KEY, challenge=b"short")
    with pytest.raises(MalformedError):
        attester.attest(bytes(63))


# --- certificates ---------------------------------------------------------------------------------------


def test_certificates_have_the_form_of_their_models(platform: DevPlatform) -> None:
    root, ca, pck = (i.certificate for i in (platform.root, platform.platform_ca, platform.pck))
    root.verify_directly_issued_by(root)
    ca.verify_directly_issued_by(root)
    pck.verify_directly_issued_by(ca)
    platform.tcb_signer.certificate.verify_directly_issued_by(root)
    limits = [c.extensions.get_extension_for_class(x509.BasicConstraints).value for c in (root, ca, pck)]
    assert [(limit.ca, limit.path_length) for limit in limits] == [(True, 1), (True, 0), (False, None)]
    serials = {c.serial_number for c in (root, ca, pck, platform.tcb_signer.certificate)}
    assert len(serials) == 4


def test_keys_are_in_range() -> None:
    assert isinstance(pki.new_key(lambda n: b"\xff" * n), ec.EllipticCurvePrivateKey)
    assert pki.new_key(lambda n: bytes(n)).private_numbers().private_value == 1


def test_large_values_in_the_sgx_extension() -> None:
    tcb = pki.PlatformTcb(sgx_components=(255,) * 16, pce_svn=300)
    extension = pki.sgx_extension(ppid=bytes(16), instance_id=bytes(16), tcb=tcb)
    now = NOW
    root = pki.make_ca(
        "SIMULATED root", parent=None, path_length=1, now=now, years=1, rng=secrets.token_bytes
    )
    leaf = pki.make_leaf(
        "SIMULATED leaf", parent=root, now=now, years=1, rng=secrets.token_bytes, sgx_extension=extension
    )
    parsed = dcap_qvl.parse_pck_extension_from_pem(leaf.pem.encode())
    assert parsed.pce_svn == 300
    assert bytes(parsed.cpu_svn) == b"\xff" * 16
