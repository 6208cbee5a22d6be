"""AMD's endorsements from the Key Distribution Service: VCEK certificates, chains and revocation lists.

Interface: AMD publication 57230. A VCEK certificate is for one chip at one TCB version. VLEK certificates
are given to cloud providers only, so a guest must bring its own; its chain and list are fetched here.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from cocoon_attestation.endorsements import SnpEndorsements
from cocoon_attestation.errors import ConfigError, MalformedError, RejectedError
from cocoon_attestation.snp import certificates as certs
from cocoon_attestation.snp.leaf import MAX_CERTIFICATE, SnpLeaf, parse_leaf
from cocoon_attestation.snp.policy import SnpRoot, amd_roots
from cocoon_attestation.snp.report import (
    Product,
    SigningKey,
    SnpReport,
    TcbVersion,
    parse_snp_report,
    parse_tcb,
)
from cocoon_attestation.snp.validate import product_of_cpuid
from cocoon_proxy.endorsements.cache import AgeLimits, EndorsementCache, Parts, Validate, Validity, Wanted
from cocoon_proxy.endorsements.fetch import Fetcher
from cocoon_proxy.endorsements.sources import EndorsementSources

CERTIFICATE_AGES: Final = AgeLimits(refresh_s=30 * 86_400, max_age_s=365 * 86_400)
"""A VCEK never changes and the service allows few questions: ask seldom."""
CRL_AGES: Final = AgeLimits(refresh_s=86_400, max_age_s=7 * 86_400)
_PSS: Final = padding.PSS(mgf=padding.MGF1(hashes.SHA384()), salt_length=48)


class AmdEndorsements:
    """Certificates and revocation lists for chips of AMD."""

    def __init__(
        self,
        fetcher: Fetcher,
        cache: EndorsementCache,
        sources: EndorsementSources,
        *,
        roots: Iterable[SnpRoot] | None = None,
    ) -> None:
        """Fetch from `sources` what is not in `cache`; `roots` other than AMD's serve tests."""
        self._fetcher = fetcher
        self._cache = cache
        self._base = sources.amd_kds.rstrip("/")
        self._roots = {root.product: root for root in (amd_roots() if roots is None else roots)}

    async def endorse(
        self,
        report: bytes,
        *,
        certificate: bytes | None = None,
        product: Product | None = None,
    ) -> SnpEndorsements:
        """Everything that vouches for a report.

        Args:
            report: 1184 bytes.
            certificate: the VCEK or VLEK that the guest brought, DER. A VCEK that does not fit is fetched
                again; a VLEK cannot be.
            product: needed only for reports of version 2, which do not name it.

        Raises:
            MalformedError: report or certificate do not parse.
            ConfigError: the product or the kind of key is not known, or a VLEK is missing.
            EndorsementUnavailableError: the service cannot be asked, or what came cannot be used.
        """
        parsed = parse_snp_report(report)
        found = product_of_cpuid(parsed.cpuid) if parsed.cpuid is not None else product
        if found is None or found not in self._roots:
            raise ConfigError("the processor of the report is not known", hint="name the product")
        if parsed.signing_key not in (SigningKey.VCEK, SigningKey.VLEK):
            raise ConfigError("the report is not signed by a chip or provider key")
        kind = SigningKey(parsed.signing_key)
        if kind is SigningKey.VLEK and certificate is None:
            raise ConfigError(
                "a report signed by a VLEK needs the certificate that the provider gave to the guest"
            )
        issuers, crl = await asyncio.gather(self.issuers(found, kind), self.crl(found))
        if certificate is None or self._vcek_problem(certificate, parsed, found, kind) is not None:
            certificate = await self.vcek(parsed, found)
        return SnpEndorsements(certificate=certificate, issuer_chain=issuers.decode("ascii"), crl=crl)

    async def issuers(self, product: Product, kind: SigningKey = SigningKey.VCEK) -> bytes:
        """The intermediate and the root of a product, PEM.

        Raises:
            EndorsementUnavailableError: the service cannot be asked, or what came cannot be used.
        """
        return (await self._cache.get(self._wanted_chain(product, kind))).parts["body"]

    async def crl(self, product: Product) -> bytes:
        """The revocation list of a product, DER.

        Raises:
            EndorsementUnavailableError: the service cannot be asked, or what came cannot be used.
        """
        return (await self._cache.get(self._wanted_crl(product))).parts["body"]

    async def vcek(self, report: SnpReport, product: Product) -> bytes:
        """The certificate of the chip and TCB version that a report names, DER.

        Raises:
            EndorsementUnavailableError: the service cannot be asked, or what came cannot be used.
            ConfigError: the host masked the chip id.
        """
        if not any(report.chip_id):
            raise ConfigError("the host masked the chip id: no VCEK can be asked for")
        tcb, hwid = parse_tcb(product, report.reported_tcb), _hwid(report, product)
        wanted = self._wanted_vcek(product, hwid, tcb, await self.issuers(product))
        return (await self._cache.get(wanted)).parts["body"]

    def _vcek_problem(
        self, der: bytes, report: SnpReport, product: Product, kind: SigningKey
    ) -> str | None:
        """Why a VCEK that came with the report is not the right one; a VLEK is left to verification."""
        if kind is SigningKey.VLEK:
            return None
        leaf = parse_leaf(der)
        try:
            _check_vcek(leaf, parse_tcb(product, report.reported_tcb), _hwid(report, product))
        except RejectedError as error:
            return str(error)
        return None

    def _wanted_vcek(self, product: Product, hwid: bytes, tcb: TcbVersion, issuers: bytes) -> Wanted:
        name = product.value.capitalize()
        parameters = {
            "blSPL": str(tcb.boot_loader),
            "teeSPL": str(tcb.tee),
            "snpSPL": str(tcb.snp),
            "ucodeSPL": str(tcb.microcode),
        }
        if product is Product.TURIN:
            parameters["fmcSPL"] = str(tcb.fmc)

        async def fetch() -> Parts:
            url = f"{self._base}/vcek/v1/{name}/{hwid.hex()}"
            return {"body": (await self._fetcher.get(url, params=parameters, limit=MAX_CERTIFICATE)).body}

        def validate(parts: Parts, now: int) -> Validity:
            leaf = parse_leaf(parts["body"])
            _check_vcek(leaf, tcb, hwid)
            at = datetime.fromtimestamp(now, UTC)
            endorsement = certs.verify_chain(leaf, certs.parse_issuers(issuers), [self._roots[product]])
            if isinstance(endorsement, str):
                raise RejectedError(endorsement)
            if not leaf.not_before <= at <= leaf.not_after:
                raise RejectedError("the certificate is not in date")
            return Validity(valid_until=int(leaf.not_after.timestamp()))

        levels = "-".join(parameters.values())
        return self._wanted(
            f"amd/vcek/{name}/{hwid.hex()}/{levels}", product, fetch, validate, CERTIFICATE_AGES
        )

    def _wanted_chain(self, product: Product, kind: SigningKey) -> Wanted:
        path = f"{kind.name.lower()}/v1/{product.value.capitalize()}/cert_chain"

        async def fetch() -> Parts:
            return {"body": (await self._fetcher.get(f"{self._base}/{path}", limit=certs.MAX_CHAIN)).body}

        def validate(parts: Parts, now: int) -> Validity:
            return self._check_issuers(parts["body"], product, now)

        return self._wanted(f"amd/{path}", product, fetch, validate, CERTIFICATE_AGES)

    def _wanted_crl(self, product: Product) -> Wanted:
        path = f"vcek/v1/{product.value.capitalize()}/crl"

        async def fetch() -> Parts:
            body = (await self._fetcher.get(f"{self._base}/{path}", limit=certs.MAX_CRL)).body
            return {"body": certs.parse_crl(body).public_bytes(Encoding.DER)}

        def validate(parts: Parts, now: int) -> Validity:
            return self._check_crl(parts["body"], product, now)

        return self._wanted(f"amd/{path}", product, fetch, validate, CRL_AGES)

    def _check_issuers(self, pem: bytes, product: Product, now: int) -> Validity:
        if not pem.isascii():
            raise MalformedError("the certificate chain is not PEM")
        issuers, at = certs.parse_issuers(pem), datetime.fromtimestamp(now, UTC)
        root = self._root(product)
        if len(issuers) != 2 or issuers[1] != root:
            raise RejectedError("the chain is not one intermediate and the trusted root")
        if issuers[0].issuer != root.subject or not _signed_by(
            root, issuers[0].signature, issuers[0].tbs_certificate_bytes
        ):
            raise RejectedError("the intermediate is not issued by the trusted root")
        if any(not one.not_valid_before_utc <= at <= one.not_valid_after_utc for one in issuers):
            raise RejectedError("a certificate of the chain is not in date")
        return Validity(valid_until=int(min(one.not_valid_after_utc for one in issuers).timestamp()))

    def _check_crl(self, der: bytes, product: Product, now: int) -> Validity:
        crl, root = certs.parse_crl(der), self._root(product)
        if crl.issuer != root.subject or not _signed_by(root, crl.signature, crl.tbs_certlist_bytes):
            raise RejectedError("the revocation list is not signed by the trusted root")
        if crl.next_update_utc is None:
            raise MalformedError("the revocation list has no next update")
        issued, ends = int(crl.last_update_utc.timestamp()), int(crl.next_update_utc.timestamp())
        if not issued <= now < ends:
            raise RejectedError("the revocation list is not in date")
        return Validity(valid_until=ends, rank=(0, issued))

    def _root(self, product: Product) -> x509.Certificate:
        return x509.load_der_x509_certificate(self._roots[product].der)

    def _wanted(
        self,
        key: str,
        product: Product,
        fetch: Callable[[], Awaitable[Parts]],
        validate: Validate,
        ages: AgeLimits,
    ) -> Wanted:
        root = self._roots[product]
        scope = "" if root in amd_roots() else f"/{hashlib.sha256(root.der).hexdigest()[:16]}"
        return Wanted(key=key + scope, fetch=fetch, validate=validate, ages=ages)


def _check_vcek(leaf: SnpLeaf, tcb: TcbVersion, hwid: bytes) -> None:
    if leaf.kind is not SigningKey.VCEK or leaf.hwid != hwid:
        raise RejectedError("the certificate is for another chip")
    if leaf.tcb != tcb:
        raise RejectedError("the certificate is for another TCB version")


def _hwid(report: SnpReport, product: Product) -> bytes:
    return report.chip_id[:8] if product is Product.TURIN else report.chip_id


def _signed_by(root: x509.Certificate, signature: bytes, message: bytes) -> bool:
    key = root.public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        return False
    try:
        key.verify(signature, message, _PSS, hashes.SHA384())
    except InvalidSignature:
        return False
    return True
