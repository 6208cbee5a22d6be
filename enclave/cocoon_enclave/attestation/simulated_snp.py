"""A simulated SEV-SNP platform: reports and endorsements in AMD's exact form under a development root.

It has no hardware behind it and protects nothing. It exists so that the verifier in
`cocoon_attestation.snp` can be run end to end, and so that tests can produce evidence with exactly
one fault. Every certificate says SIMULATED. See docs/spec/snp.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from cocoon_attestation.snp import report as layout
from cocoon_attestation.snp.policy import DEFAULT_MINIMUM_TCB, SnpRoot
from cocoon_attestation.snp.report import Product, SigningKey, TcbVersion

Random = Callable[[int], bytes]
"""Source of randomness: number of bytes -> bytes, like `secrets.token_bytes`."""

ORGANIZATION: Final = "Cocoon Development (SIMULATED, no hardware security)"
SIMULATED_CSP: Final = "CN=simulated.invalid"
RSA_BITS: Final = 2048
_PSS: Final = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)
_P384_ORDER: Final = int(
    "ffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973", 16
)
_AMD: Final = "1.3.6.1.4.1.3704.1"
_CPUID: Final = {
    Product.MILAN: (0x19, 0x01, 0x01),
    Product.GENOA: (0x19, 0x11, 0x01),
    Product.TURIN: (0x1A, 0x02, 0x01),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFields:
    """Every byte range of a report, with the values of a healthy guest. `encode` makes 1184 bytes."""

    product: Product = Product.GENOA
    version: int = 3
    guest_svn: int = 0
    policy: int = layout.POLICY_RESERVED_ONE | layout.POLICY_SMT
    family_id: bytes = bytes(16)
    image_id: bytes = bytes(16)
    vmpl: int = 0
    signature_algorithm: int = layout.SIGNATURE_ECDSA_P384_SHA384
    current_tcb: TcbVersion | None = None
    platform_info: int = layout.PLATFORM_SMT | layout.PLATFORM_ECC | layout.PLATFORM_ALIAS_CHECK
    key_info: int = SigningKey.VCEK << 2
    report_data: bytes = bytes(64)
    measurement: bytes = bytes(48)
    host_data: bytes = bytes(32)
    id_key_digest: bytes = bytes(48)
    author_key_digest: bytes = bytes(48)
    report_id: bytes = b"\x01" * 32
    report_id_ma: bytes = b"\xff" * 32
    reported_tcb: TcbVersion | None = None
    cpuid: tuple[int, int, int] | None = None
    chip_id: bytes = bytes(64)
    committed_tcb: TcbVersion | None = None
    launch_tcb: TcbVersion | None = None
    launch_mitigations: int = 0
    current_mitigations: int = 0
    overwrite: Mapping[int, bytes] = field(default_factory=dict)
    """Bytes to put at offsets after everything else, before signing."""

    def encode(self) -> bytes:
        """The report without its signature (zeros in its place)."""
        usual = DEFAULT_MINIMUM_TCB[self.product]
        out = bytearray(layout.REPORT_SIZE)
        cpuid = self.cpuid or (_CPUID[self.product] if self.version >= 3 else (0, 0, 0))
        for offset, size, value in (
            (0x000, 4, self.version),
            (0x004, 4, self.guest_svn),
            (0x008, 8, self.policy),
            (0x030, 4, self.vmpl),
            (0x034, 4, self.signature_algorithm),
            (0x040, 8, self.platform_info),
            (0x048, 4, self.key_info),
            (0x1F8, 8, self.launch_mitigations),
            (0x200, 8, self.current_mitigations),
        ):
            out[offset : offset + size] = value.to_bytes(size, "little")
        for offset, raw in (
            (0x010, self.family_id),
            (0x020, self.image_id),
            (0x038, encode_tcb(self.product, self.current_tcb or usual)),
            (0x050, self.report_data),
            (0x090, self.measurement),
            (0x0C0, self.host_data),
            (0x0E0, self.id_key_digest),
            (0x110, self.author_key_digest),
            (0x140, self.report_id),
            (0x160, self.report_id_ma),
            (0x180, encode_tcb(self.product, self.reported_tcb or usual)),
            (0x188, bytes(cpuid)),
            (0x1A0, self.chip_id),
            (0x1E0, encode_tcb(self.product, self.committed_tcb or usual)),
            (0x1E8, bytes((40, 55, 1))),
            (0x1EC, bytes((40, 55, 1))),
            (0x1F0, encode_tcb(self.product, self.launch_tcb or usual)),
            *self.overwrite.items(),
        ):
            out[offset : offset + len(raw)] = raw
        return bytes(out)


def encode_tcb(product: Product, tcb: TcbVersion) -> bytes:
    """8 bytes in the layout of `product`."""
    if product is Product.TURIN:
        return bytes((tcb.fmc, tcb.boot_loader, tcb.tee, tcb.snp, 0, 0, 0, tcb.microcode))
    return bytes((tcb.boot_loader, tcb.tee, 0, 0, 0, 0, tcb.snp, tcb.microcode))


def sign_report(body: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Put the signature of `key` into an encoded report."""
    r, s = decode_dss_signature(key.sign(body[: layout.SIGNED_SIZE], ec.ECDSA(hashes.SHA384())))
    out = bytearray(body)
    out[0x2A0:0x2D0] = r.to_bytes(48, "little")
    out[0x2E8:0x318] = s.to_bytes(48, "little")
    return bytes(out)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedChip:
    """A signing key with its certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: bytes
    """VCEK or VLEK in DER form."""
    chip_id: bytes
    """64 bytes; zeros for a VLEK."""

    def __repr__(self) -> str:
        """The chip id only: the key is secret."""
        return f"SimulatedChip({self.chip_id[:8].hex()})"

    def report(self, fields: ReportFields) -> bytes:
        """A signed report of 1184 bytes with this chip's id."""
        return sign_report(replace(fields, chip_id=self.chip_id).encode(), self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class AmdAuthorities:
    """Keys and certificates of the stand-in for AMD."""

    ark_key: rsa.RSAPrivateKey
    ask_key: rsa.RSAPrivateKey
    """Key of both intermediates."""
    ark: x509.Certificate
    ask: x509.Certificate
    asvk: x509.Certificate

    def __repr__(self) -> str:
        """The root's name only: the keys are secret."""
        return f"AmdAuthorities({self.ark.subject.rfc4514_string()!r})"


class SimulatedAmd:
    """The stand-in for AMD: a root, an ASK, an ASVK, and certificates for chips under them."""

    def __init__(
        self,
        *,
        product: Product = Product.GENOA,
        now: int,
        rng: Random,
        authorities: AmdAuthorities | None = None,
    ) -> None:
        """New authorities at Unix time `now`, or those that were kept; certificates start at `now`."""
        self.product = product
        self._now = datetime.fromtimestamp(now, UTC)
        self._rng = rng
        self.authorities = authorities or self._found()
        self.ark, self.ask, self.asvk = self.authorities.ark, self.authorities.ask, self.authorities.asvk
        self._ark_key, self._ask_key = self.authorities.ark_key, self.authorities.ask_key

    def _found(self) -> AmdAuthorities:
        name = self.product.value.capitalize()
        ark_key = rsa.generate_private_key(65537, RSA_BITS)
        ask_key = rsa.generate_private_key(65537, RSA_BITS)
        ark = self._authority(f"ARK-{name}", ark_key, None, ark_key)
        return AmdAuthorities(
            ark_key=ark_key,
            ask_key=ask_key,
            ark=ark,
            ask=self._authority(f"SEV-{name}", ask_key, ark, ark_key),
            asvk=self._authority(f"SEV-VLEK-{name}", ask_key, ark, ark_key),
        )

    @property
    def root(self) -> SnpRoot:
        """The trust anchor for a policy; marked as simulated."""
        return SnpRoot(product=self.product, der=self.ark.public_bytes(Encoding.DER), simulated=True)

    @property
    def chain_pem(self) -> str:
        """ASK and root in PEM."""
        return _pem(self.ask) + _pem(self.ark)

    @property
    def vlek_chain_pem(self) -> str:
        """ASVK and root in PEM."""
        return _pem(self.asvk) + _pem(self.ark)

    def chip(
        self,
        *,
        kind: SigningKey = SigningKey.VCEK,
        tcb: TcbVersion | None = None,
        hwid: bytes | None = None,
        csp: str | None = SIMULATED_CSP,
        days: int = 365,
        extra: Sequence[tuple[str, bytes]] = (),
        issuer: x509.Certificate | None = None,
    ) -> SimulatedChip:
        """A new chip. `extra` adds extensions (OID, value); `issuer` puts another name above it."""
        key = ec.derive_private_key(
            int.from_bytes(self._rng(72), "big") % (_P384_ORDER - 1) + 1, ec.SECP384R1()
        )
        size = 8 if self.product is Product.TURIN else 64
        identity = hwid if hwid is not None else self._rng(size)
        extensions = [*_tcb_extensions(self.product, tcb or DEFAULT_MINIMUM_TCB[self.product])]
        if kind is SigningKey.VCEK:
            extensions.append((f"{_AMD}.4", identity))
        elif csp is not None:
            extensions.append((f"{_AMD}.5", _ia5(csp)))
        parent = issuer or (self.ask if kind is SigningKey.VCEK else self.asvk)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(f"SEV-{kind.name}"))
            .issuer_name(parent.subject)
            .public_key(key.public_key())
            .serial_number(int.from_bytes(self._rng(8), "big") | 1)
            .not_valid_before(self._now - timedelta(days=1))
            .not_valid_after(self._now + timedelta(days=days))
        )
        for oid, value in (*extensions, *extra):
            builder = builder.add_extension(
                x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), critical=False
            )
        signed = builder.sign(self._ask_key, hashes.SHA384(), rsa_padding=_PSS)
        chip_id = identity.ljust(64, b"\x00")[:64] if kind is SigningKey.VCEK else bytes(64)
        return SimulatedChip(key=key, certificate=signed.public_bytes(Encoding.DER), chip_id=chip_id)

    def crl(self, *, revoked: Sequence[int] = (), days: int = 30, now: int | None = None) -> bytes:
        """A revocation list of the root in DER form; `revoked` are serial numbers.

        It starts a day before Unix time `now`, by default the time of this object.
        """
        moment = self._now if now is None else datetime.fromtimestamp(now, UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.ark.subject)
            .last_update(moment - timedelta(days=1))
            .next_update(moment + timedelta(days=days))
        )
        for serial in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial)
            builder = builder.add_revoked_certificate(entry.revocation_date(self._now).build())
        signed = builder.sign(self._ark_key, hashes.SHA384(), rsa_padding=_PSS)
        return signed.public_bytes(Encoding.DER)

    def _authority(
        self,
        name: str,
        key: rsa.RSAPrivateKey,
        parent: x509.Certificate | None,
        signer: rsa.RSAPrivateKey,
    ) -> x509.Certificate:
        subject = _name(name)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(parent.subject if parent else subject)
            .public_key(key.public_key())
            .serial_number(int.from_bytes(self._rng(8), "big") | 1)
            .not_valid_before(self._now - timedelta(days=1))
            .not_valid_after(self._now + timedelta(days=3650))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0 if parent else None), critical=True)
            .add_extension(_certificate_signing(), critical=True)
        )
        return builder.sign(signer, hashes.SHA384(), rsa_padding=_PSS)


def _certificate_signing() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


def _tcb_extensions(product: Product, tcb: TcbVersion) -> list[tuple[str, bytes]]:
    values = [
        (f"{_AMD}.1", _integer(1 if product is Product.TURIN else 0)),
        (f"{_AMD}.2", _ia5(product.value.capitalize())),
        (f"{_AMD}.3.1", _integer(tcb.boot_loader)),
        (f"{_AMD}.3.2", _integer(tcb.tee)),
        (f"{_AMD}.3.3", _integer(tcb.snp)),
        (f"{_AMD}.3.8", _integer(tcb.microcode)),
    ]
    if product is Product.TURIN:
        values.append((f"{_AMD}.3.9", _integer(tcb.fmc)))
    return values


def _integer(value: int) -> bytes:
    raw = value.to_bytes(2 if value > 0x7F else 1, "big")
    return bytes((0x02, len(raw))) + raw


def _ia5(text: str) -> bytes:
    return bytes((0x16, len(text))) + text.encode("ascii")


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, ORGANIZATION),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode("ascii")
