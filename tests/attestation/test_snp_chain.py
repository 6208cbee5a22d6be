"""Rules for the intermediate certificate and the revocation list of AMD, one broken rule at a time."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from cocoon_attestation.snp.certificates import (
    Endorsement,
    chain_dates_problem,
    crl_problem,
    parse_crl,
    parse_issuers,
    verify_chain,
)
from cocoon_attestation.snp.leaf import SnpLeaf, parse_leaf
from cocoon_attestation.snp.policy import SnpRoot
from cocoon_enclave.attestation.simulated_gpu_pki import seeded_random
from cocoon_enclave.attestation.simulated_snp import SimulatedAmd

NOW = 1_800_000_000
AT = dt.datetime.fromtimestamp(NOW, dt.UTC)
DAY = dt.timedelta(days=1)
PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)


class World:
    """A vendor whose intermediate certificate can be made again with one thing wrong."""

    def __init__(self) -> None:
        self.amd = SimulatedAmd(now=NOW, rng=seeded_random(b"chain"))
        self.leaf: SnpLeaf = parse_leaf(self.amd.chip().certificate)

    def intermediate(
        self,
        *,
        ca: bool | None = True,
        sign_certificates: bool | None = True,
        rule: padding.AsymmetricPadding = PSS,
        digest: hashes.SHA256 | hashes.SHA384 | None = None,
        key: Any = None,
        signer: rsa.RSAPrivateKey | None = None,
        end: dt.datetime = AT + DAY,
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.amd.ask.subject)
            .issuer_name(self.amd.ark.subject)
            .public_key(key or self.amd.ask.public_key())
            .serial_number(7)
            .not_valid_before(AT - DAY)
            .not_valid_after(end)
        )
        if ca is not None:
            builder = builder.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        if sign_certificates is not None:
            usage = dict.fromkeys(
                (
                    "digital_signature",
                    "content_commitment",
                    "key_encipherment",
                    "data_encipherment",
                    "key_agreement",
                    "crl_sign",
                    "encipher_only",
                    "decipher_only",
                ),
                False,
            )
            builder = builder.add_extension(
                x509.KeyUsage(key_cert_sign=sign_certificates, **usage), critical=True
            )
        return builder.sign(signer or self.amd._ark_key, digest or hashes.SHA384(), rsa_padding=rule)  # type: ignore[arg-type]

    def verify(self, **changes: Any) -> Endorsement | str:
        return verify_chain(self.leaf, [self.intermediate(**changes)], [self.amd.root])


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def test_good_intermediate_endorses(world: World) -> None:
    found = world.verify()
    assert isinstance(found, Endorsement)
    assert found.ark == world.amd.ark
    assert found.product is world.amd.product
    assert chain_dates_problem(world.leaf, found, AT) is None


SHORT = rsa.generate_private_key(65537, 1024).public_key()
ELLIPTIC = ec.generate_private_key(ec.SECP384R1()).public_key()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ca": False}, "certificate authority"),
        ({"ca": None}, "certificate authority"),
        ({"sign_certificates": False}, "certificate authority"),
        ({"sign_certificates": None}, "certificate authority"),
        ({"rule": padding.PKCS1v15()}, "signature algorithm"),
        (
            {"rule": padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=32)},
            "signature algorithm",
        ),
        (
            {
                "digest": hashes.SHA256(),
                "rule": padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=48),
            },
            "signature algorithm",
        ),
        ({"key": SHORT}, "too short"),
        ({"key": ELLIPTIC}, "not RSA"),
        ({"signer": rsa.generate_private_key(65537, 2048)}, "not signed by the trusted root"),
        (
            {"key": rsa.generate_private_key(65537, 2048).public_key()},
            "leaf is not signed by the intermediate",
        ),
    ],
)
def test_each_rule_of_the_intermediate(world: World, changes: dict[str, Any], words: str) -> None:
    found = world.verify(**changes)
    assert isinstance(found, str)
    assert words in found


def test_one_good_intermediate_among_bad_ones_is_enough(world: World) -> None:
    bad, good = world.intermediate(ca=False), world.intermediate()
    assert isinstance(verify_chain(world.leaf, [bad, good], [world.amd.root]), Endorsement)


def test_root_that_is_not_listed_does_not_count(world: World) -> None:
    stranger = SimulatedAmd(now=NOW, rng=seeded_random(b"stranger"))
    for roots in ((), (stranger.root,)):
        assert isinstance(verify_chain(world.leaf, [world.intermediate()], roots), str)
    assert isinstance(verify_chain(world.leaf, [world.amd.ark], [world.amd.root]), str)


def test_roots_are_authorities_on_their_product_only(world: World) -> None:
    found = verify_chain(world.leaf, [world.intermediate()], [world.amd.root])
    assert isinstance(found, Endorsement)
    assert isinstance(found.root, SnpRoot)
    assert found.root == world.amd.root


def test_dates_name_the_certificate(world: World) -> None:
    found = world.verify(end=AT - dt.timedelta(hours=1))
    assert isinstance(found, Endorsement)
    assert "intermediate" in str(chain_dates_problem(world.leaf, found, AT))
    assert "root" in str(
        chain_dates_problem(world.leaf, _endorsed(world), AT + 4000 * DAY)
    ) or "leaf" in str(chain_dates_problem(world.leaf, _endorsed(world), AT + 4000 * DAY))


def _endorsed(world: World) -> Endorsement:
    found = world.verify()
    assert isinstance(found, Endorsement)
    return found


def revocations(world: World, **changes: Any) -> x509.CertificateRevocationList:
    """A list of the root with one thing wrong."""
    end = changes.get("end", AT + DAY)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(changes.get("issuer", world.amd.ark.subject))
        .last_update(changes.get("start", AT - DAY))
        .next_update(end)
    )
    if changes.get("critical"):
        builder = builder.add_extension(
            x509.IssuingDistributionPoint(
                full_name=None,
                relative_name=None,
                only_contains_user_certs=False,
                only_contains_ca_certs=False,
                only_some_reasons=None,
                indirect_crl=True,
                only_contains_attribute_certs=False,
            ),
            critical=True,
        )
    for serial in changes.get("revoked", ()):
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(AT).build()
        builder = builder.add_revoked_certificate(entry)
    signer = changes.get("signer", world.amd._ark_key)
    made = builder.sign(signer, hashes.SHA384(), rsa_padding=changes.get("rule", PSS))
    return parse_crl(made.public_bytes(Encoding.DER))


def test_good_list_clears(world: World) -> None:
    assert crl_problem(revocations(world), world.leaf, _endorsed(world), AT) is None
    assert crl_problem(revocations(world, revoked=[12345]), world.leaf, _endorsed(world), AT) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"critical": True}, "critical extension"),
        ({"signer": rsa.generate_private_key(65537, 2048)}, "not signed"),
        ({"rule": padding.PKCS1v15()}, "not signed"),
        ({"start": AT + dt.timedelta(seconds=1), "end": AT + DAY}, "not current"),
        ({"end": AT - dt.timedelta(seconds=1)}, "not current"),
        ({"revoked": [7]}, "intermediate certificate is revoked"),
    ],
)
def test_each_rule_of_the_list(world: World, changes: dict[str, Any], words: str) -> None:
    assert words in str(crl_problem(revocations(world, **changes), world.leaf, _endorsed(world), AT))


def test_list_of_another_authority(world: World) -> None:
    crl = revocations(world, issuer=world.amd.ask.subject)
    assert "another authority" in str(crl_problem(crl, world.leaf, _endorsed(world), AT))


def test_revoked_leaf(world: World) -> None:
    crl = revocations(world, revoked=[world.leaf.serial])
    assert "leaf certificate is revoked" in str(crl_problem(crl, world.leaf, _endorsed(world), AT))


def test_no_issuers_came_with_the_evidence() -> None:
    assert parse_issuers("") == ()
    assert parse_issuers(b" \n") == ()
