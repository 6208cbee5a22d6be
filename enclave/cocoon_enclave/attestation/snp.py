"""The attester on real AMD SEV-SNP hardware: reports through configfs-tsm.

SEV-SNP has no run-time register. What a TDX guest extends is fixed at launch here: the configuration
digest is HOST_DATA, and the measured command line names the models. So `extend` refuses, and the attester
refuses to exist in a guest whose HOST_DATA is another configuration's.
Sources: AMD publication 56860 (report), Documentation/ABI/testing/configfs-tsm-report (Linux 6.7).
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from cocoon.v1 import evidence_pb2
from cocoon_attestation.errors import ConfigError, MalformedError, UnavailableError, UnsupportedError
from cocoon_attestation.reference import TeeKind
from cocoon_attestation.roots.amd import amd_intermediates
from cocoon_attestation.snp.leaf import SnpLeaf, parse_leaf
from cocoon_attestation.snp.report import REPORT_SIZE, SnpReport, parse_snp_report
from cocoon_attestation.types import exact_bytes
from cocoon_enclave.attestation.snp_table import HostEndorsements, parse_table
from cocoon_enclave.attestation.tsm import REPORTS, TsmEntry

NO_SNP_HINT: Final = (
    "run this inside an SEV-SNP guest with Linux 6.7 or newer, or use a development network, "
    "where the TEE is simulated"
)
FETCH_HINT: Final = "on the host: cocoon endorsements fetch snp"
PROVIDER: Final = "sev_guest"
EndorsementFile = Callable[[], HostEndorsements]
"""Gives what the host fetched from AMD; see `snp_table.read_endorsements`."""


class SnpAttester:
    """An `Attester` on AMD SEV-SNP."""

    def __init__(
        self,
        *,
        config_hash: bytes,
        endorsements: EndorsementFile | None = None,
        entry: TsmEntry | None = None,
    ) -> None:
        """Take a first report and compare it with the configuration.

        Args:
            config_hash: SHA-256 of the measured configuration, 32 bytes.
            endorsements: called for every evidence whose certificate table lacks something; None: the
                table must have everything.
            entry: None for the kernel's.

        Raises:
            UnsupportedError: no SEV-SNP guest, or one that was launched for another configuration.
            UnavailableError: the firmware did not answer.
        """
        self._entry = entry or TsmEntry(REPORTS / "cocoon")
        self._endorsements = endorsements
        self._entry.open(PROVIDER, hint=NO_SNP_HINT)
        expected = exact_bytes(config_hash, 32, "config hash")
        _, report, _ = self._report(bytes(64))
        if not hmac.compare_digest(report.host_data, expected):
            raise UnsupportedError(
                "HOST_DATA is not the digest of this configuration: no client would accept this guest",
                hint=f"launch the guest with HOST_DATA {expected.hex()}",
            )

    @property
    def kind(self) -> TeeKind:
        """SEV-SNP."""
        return TeeKind.SEV_SNP

    @property
    def simulated(self) -> bool:
        """Always false."""
        return False

    def extend(self, name: str, payload: bytes) -> None:
        """Refused: SEV-SNP has no run-time register.

        Raises:
            UnsupportedError: always.
        """
        raise UnsupportedError(
            f"SEV-SNP cannot measure {name} at run time", hint="models stand in the measured command line"
        )

    def attest(self, report_data: bytes) -> evidence_pb2.SnpEvidence:
        """Evidence over 64 bytes of report data, with the certificate of the key that signed it.

        Raises:
            MalformedError: not 64 bytes.
            UnavailableError: no report, or no certificate for it.
        """
        raw, report, table = self._report(exact_bytes(report_data, 64, "report data"))
        sources = [table, *([self._endorsements()] if self._endorsements is not None else [])]
        leaf, certificate = _certificate(report, sources)
        crl = next((source.crl for source in reversed(sources) if source.crl), b"")
        if not crl:
            raise UnavailableError("there is no revocation list", hint=FETCH_HINT)
        return evidence_pb2.SnpEvidence(
            report=raw, certificate=certificate, issuer_chain=_issuers(leaf, sources), crl=crl
        )

    def _report(self, report_data: bytes) -> tuple[bytes, SnpReport, HostEndorsements]:
        out, aux = self._entry.report(report_data)
        try:
            raw = exact_bytes(out, REPORT_SIZE, "report")
            report, table = parse_snp_report(raw), parse_table(aux)
        except MalformedError as error:
            raise UnavailableError(f"the platform gave no usable report: {error}") from error
        # The entry could be shared with another program: what counts is whose data was signed.
        if not hmac.compare_digest(report.report_data, report_data):
            raise UnavailableError("the platform answered another request", hint="try again")
        return raw, report, table


def _certificate(report: SnpReport, sources: list[HostEndorsements]) -> tuple[SnpLeaf, bytes]:
    """The first certificate whose key signed the report; hosts keep outdated ones after updates."""
    for der in (der for source in sources for der in source.certificates):
        try:
            leaf = parse_leaf(der)
        except MalformedError:
            continue
        if _signed_by(leaf, report):
            return leaf, der
    raise UnavailableError("no certificate belongs to the key that signs reports", hint=FETCH_HINT)


def _signed_by(leaf: SnpLeaf, report: SnpReport) -> bool:
    r, s = report.signature
    try:
        leaf.public_key.verify(encode_dss_signature(r, s), report.signed, ec.ECDSA(hashes.SHA384()))
    except (InvalidSignature, ValueError):
        return False
    return True


def _issuers(leaf: SnpLeaf, sources: list[HostEndorsements]) -> str:
    """PEM of the intermediate that issued `leaf`; AMD's published ones serve where the host gave none."""
    for source in reversed(sources):
        if source.issuer_chain:
            return source.issuer_chain
    for der in (*(der for source in sources for der in source.issuers), *amd_intermediates()):
        try:
            certificate = x509.load_der_x509_certificate(der)
        except ValueError:
            continue
        if certificate.subject.public_bytes() == leaf.issuer:
            return certificate.public_bytes(Encoding.PEM).decode("ascii")
    raise ConfigError("the issuer of the certificate is not known", hint=FETCH_HINT)
