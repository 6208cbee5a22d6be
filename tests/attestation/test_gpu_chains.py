"""Rules for P-384 chains, one broken rule at a time, on certificates built for the purpose."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from cocoon_attestation.errors import ConfigError, MalformedError
from cocoon_attestation.gpu.certificates import (
    MAX_CERTIFICATES,
    chain_problem,
    dates_problem,
    device_identity,
    p384_key,
    parse_der_chain,
    signature_valid,
)
from cocoon_attestation.roots.nvidia import (
    DEVICE_ROOT_SHA256,
    RIM_ROOT_SHA256,
    nvidia_device_root,
    nvidia_rim_root,
)
from cocoon_attestation.roots.pinned import load_pinned

AT = dt.datetime(2027, 1, 15, tzinfo=dt.UTC)
Key = ec.EllipticCurvePrivateKey


def name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def issue(
    subject: str,
    issuer: str,
    key: Key,
    signer: Key,
    *,
    ca: bool = True,
    constraints: bool = True,
    key_usage: bool = True,
    sign_certificates: bool | None = None,
    path_length: int | None = None,
    algorithm: hashes.SHA256 | hashes.SHA384 | hashes.SHA512 | None = None,
    days: int = 100,
    fwid: Sequence[tuple[str, bytes]] = (),
) -> x509.Certificate:
    """A certificate with one thing of the caller's choice wrong."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(AT - dt.timedelta(days=1))
        .not_valid_after(AT + dt.timedelta(days=days))
    )
    if constraints:
        builder = builder.add_extension(
            x509.BasicConstraints(ca=ca, path_length=path_length if ca else None), critical=True
        )
    if key_usage:
        allowed = ca if sign_certificates is None else sign_certificates
        builder = builder.add_extension(usage(sign_certificates=allowed), critical=True)
    for oid, value in fwid:
        extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(signer, algorithm or hashes.SHA384())


def new_key(curve: ec.EllipticCurve | None = None) -> Key:
    return ec.generate_private_key(curve or ec.SECP384R1())


class Chain:
    """root <- middle <- leaf, with changes for the middle certificate and the leaf."""

    def __init__(
        self,
        *,
        middle: dict[str, Any] | None = None,
        leaf: dict[str, Any] | None = None,
        middle_curve: ec.EllipticCurve | None = None,
    ) -> None:
        root_key, middle_key, leaf_key = new_key(), new_key(middle_curve), new_key()
        self.root = issue("root", "root", root_key, root_key)
        self.middle = issue("middle", "root", middle_key, root_key, **(middle or {}))
        self.leaf = issue("leaf", "middle", leaf_key, middle_key, **{"ca": False, **(leaf or {})})
        self.keys = (leaf_key, middle_key, root_key)

    @property
    def roots(self) -> frozenset[bytes]:
        return frozenset({self.root.public_bytes(Encoding.DER)})

    def problem(self, *order: str) -> str | None:
        return chain_problem(
            [getattr(self, one) for one in order or ("leaf", "middle", "root")], self.roots
        )


def test_good_chain() -> None:
    assert Chain().problem() is None
    assert Chain(leaf={"constraints": False}).problem() is None


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"middle": {"ca": False}}, "may not issue"),
        ({"middle": {"constraints": False}}, "may not issue"),
        ({"middle": {"key_usage": False}}, "may not issue"),
        ({"middle": {"sign_certificates": False}}, "may not issue"),
        ({"middle": {"algorithm": hashes.SHA256()}}, "signature of certificate 1"),
        ({"leaf": {"algorithm": hashes.SHA256()}}, "signature of certificate 0"),
        ({"leaf": {"algorithm": hashes.SHA512()}}, "signature of certificate 0"),
        ({"leaf": {"ca": True}}, "is a certificate authority"),
        ({"middle_curve": ec.SECP256R1()}, "signature of certificate 0"),
        ({"middle_curve": ec.SECP521R1()}, "signature of certificate 0"),
    ],
)
def test_each_rule_of_a_chain(changes: dict[str, Any], text: str) -> None:
    problem = Chain(**changes).problem()
    assert problem is not None
    assert text in problem


@pytest.mark.parametrize(
    ("order", "text"),
    [
        (("leaf", "root"), "not issued by"),
        (("leaf", "root", "middle"), "trusted root"),
        (("middle", "leaf", "root"), "not issued by"),
        (("leaf", "middle"), "trusted root"),
        (("root",), "trusted root"),
    ],
)
def test_order_and_completeness(order: tuple[str, ...], text: str) -> None:
    problem = Chain().problem(*order)
    assert problem is not None
    assert text in problem


def test_root_shown_twice_adds_no_trust() -> None:
    assert Chain().problem("leaf", "middle", "root", "root") is None


def test_path_length_is_honoured() -> None:
    keys = [new_key() for _ in range(4)]
    root = issue("root", "root", keys[0], keys[0], path_length=1)
    upper = issue("upper", "root", keys[1], keys[0], path_length=0)
    lower = issue("lower", "upper", keys[2], keys[1])
    leaf = issue("leaf", "lower", keys[3], keys[2], ca=False)
    roots = frozenset({root.public_bytes(Encoding.DER)})
    problem = chain_problem([leaf, lower, upper, root], roots)
    assert problem is not None
    assert "at this place" in problem


def test_same_names_with_other_keys() -> None:
    good, evil = Chain(), Chain()
    assert chain_problem([evil.leaf, evil.middle, good.root], good.roots) is not None
    assert chain_problem([evil.leaf, good.middle, good.root], good.roots) is not None
    assert not signature_valid(evil.leaf, good.middle)


def test_dates_name_the_certificate() -> None:
    chain = Chain(middle={"days": 5})
    certificates = [chain.leaf, chain.middle, chain.root]
    assert dates_problem(certificates, AT) is None
    late = dates_problem(certificates, AT + dt.timedelta(days=6))
    assert late is not None
    assert late.startswith("certificate 1 ")
    early = dates_problem(certificates, AT - dt.timedelta(days=2))
    assert early is not None
    assert early.startswith("certificate 0 ")


def test_only_p384_keys_count() -> None:
    assert p384_key(Chain().middle) is not None
    assert p384_key(Chain(middle_curve=ec.SECP256R1()).middle) is None


HOPPER, BLACKWELL = "2.23.133.5.4.1", "2.23.133.5.4.1.1"
SHA384_OID, SHA256_OID = "0609608648016503040202", "0609608648016503040201"


def der(tag: str, *parts: str) -> str:
    content = bytes.fromhex("".join(parts))
    length = f"{len(content):02x}" if len(content) < 0x80 else f"81{len(content):02x}"
    return tag + length + content.hex()


def fwid_entry(value: bytes = b"\x0f" * 48, oid: str = SHA384_OID) -> str:
    return der("30", oid, der("04", value.hex()))


def device_chain(*fwid: tuple[str, str], leaf: str = "GH100 A01 GSP FMC LF") -> list[x509.Certificate]:
    key = new_key()
    extensions = [(oid, bytes.fromhex(value)) for oid, value in fwid]
    first = issue(leaf, "device", key, key, ca=False, fwid=extensions)
    device = issue("GH100 A01 GSP BROM", "ica", key, key)
    return [first, device, device, device, device]


def composite(entry: str) -> str:
    return der("30", "020101", der("30", ""), entry)


def tcb_info(*entries: str) -> str:
    return der("30", der("80", b"NVIDIA".hex()), der("83", "01"), der("a6", *entries))


@pytest.mark.parametrize(
    "extension", [(HOPPER, composite(fwid_entry())), (BLACKWELL, tcb_info(fwid_entry()))]
)
def test_firmware_id_of_both_generations(extension: tuple[str, str]) -> None:
    identity = device_identity(device_chain(extension))
    assert identity.fwid == b"\x0f" * 48
    assert identity.chip == "GH100"


def test_first_firmware_id_counts() -> None:
    extension = (BLACKWELL, tcb_info(fwid_entry(), fwid_entry(bytes(48))))
    assert device_identity(device_chain(extension)).fwid == b"\x0f" * 48
    extension = (BLACKWELL, tcb_info(fwid_entry(bytes(48)), fwid_entry()))
    assert device_identity(device_chain(extension)).fwid == bytes(48)


def test_certificate_without_firmware_id() -> None:
    assert device_identity(device_chain()).fwid is None


@pytest.mark.parametrize(
    "extensions",
    [
        [(HOPPER, composite(fwid_entry())), (BLACKWELL, tcb_info(fwid_entry()))],
        [(HOPPER, composite(fwid_entry(bytes(32))))],
        [(HOPPER, composite(fwid_entry(oid=SHA256_OID)))],
        [(HOPPER, "3000")],
        [(HOPPER, composite(fwid_entry()) + "00")],
        [(HOPPER, (b"\x00" * 48).hex())],
        [(BLACKWELL, tcb_info())],
        [(BLACKWELL, composite(fwid_entry()))],
    ],
)
def test_firmware_id_of_another_form_is_malformed(extensions: list[tuple[str, str]]) -> None:
    with pytest.raises(MalformedError, match="firmware identit"):
        device_identity(device_chain(*extensions))


@pytest.mark.parametrize(
    "leaf",
    [
        "GB100 A01 GSP FMC LF",
        "GH100 A01 GSP FMC",
        "GH100 A01 GSP FMC LF ",
        "gh100 A01 GSP FMC LF",
        "GH100 A01 GSP BROM",
        "NVIDIA",
    ],
)
def test_names_have_a_form(leaf: str) -> None:
    with pytest.raises(MalformedError, match="one NVIDIA chip"):
        device_identity(device_chain(leaf=leaf))


def test_number_of_certificates_is_limited() -> None:
    one = Chain().root.public_bytes(Encoding.DER)
    assert len(parse_der_chain([one] * MAX_CERTIFICATES)) == MAX_CERTIFICATES
    with pytest.raises(MalformedError):
        parse_der_chain([one] * (MAX_CERTIFICATES + 1))


def test_pinned_roots_are_the_pinned_ones() -> None:
    assert nvidia_device_root() != nvidia_rim_root()
    for der_bytes in (nvidia_device_root(), nvidia_rim_root()):
        [root] = parse_der_chain([der_bytes])
        assert root.subject == root.issuer
        assert signature_valid(root, root)
    with pytest.raises(ConfigError):
        load_pinned("nvidia", "rim_root.der", DEVICE_ROOT_SHA256)
    with pytest.raises(ConfigError):
        load_pinned("nvidia", "device_identity_root.der", RIM_ROOT_SHA256)
