"""Loads X.509 certificates from evidence so that only `MalformedError` can come out, now or later.

`cryptography` decodes most fields on first use and raises several types on broken ones. Here every
field that the verifiers read is decoded once, at the edge.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

from cryptography import x509

from cocoon_attestation.errors import MalformedError


def load_pem_chain(pem: bytes | str, *, max_bytes: int, max_count: int) -> tuple[x509.Certificate, ...]:
    """Read 1 to `max_count` certificates from PEM text, in the order of the text.

    Raises:
        MalformedError: longer than `max_bytes`, too many, none, or one does not decode.
    """
    data = pem.encode() if isinstance(pem, str) else bytes(pem)
    if len(data) > max_bytes:
        raise MalformedError("the certificate chain is too long")
    try:
        chain = decoded(x509.load_pem_x509_certificates(data))
    except Exception as error:  # seam: the loader raises many types, see above
        raise MalformedError("the certificate chain is not PEM") from error
    return _bounded(chain, max_count)


def load_der_chain(
    ders: Sequence[bytes], *, max_bytes: int, max_count: int
) -> tuple[x509.Certificate, ...]:
    """Like `load_pem_chain` for certificates in DER form; `max_bytes` is for all together.

    Raises:
        MalformedError: too long, too many, none, or one does not decode.
    """
    if len(ders) > max_count or sum(map(len, ders)) > max_bytes:
        raise MalformedError("the certificate chain is too long")
    try:
        chain = decoded(x509.load_der_x509_certificate(bytes(der)) for der in ders)
    except Exception as error:  # seam: the loader raises many types, see above
        raise MalformedError("a certificate of the chain does not decode") from error
    return _bounded(chain, max_count)


def load_crl(data: bytes, *, max_bytes: int) -> x509.CertificateRevocationList:
    """Read a revocation list in DER or PEM form.

    Raises:
        MalformedError: longer than `max_bytes`, or it does not decode.
    """
    raw = bytes(data)
    if len(raw) > max_bytes:
        raise MalformedError("the revocation list is too long")
    try:
        is_pem = raw.lstrip().startswith(b"-----BEGIN")
        crl = x509.load_pem_x509_crl(raw) if is_pem else x509.load_der_x509_crl(raw)
        _ = (crl.issuer, crl.last_update_utc, crl.next_update_utc, list(crl.extensions))
        _ = (crl.signature, crl.tbs_certlist_bytes, [entry.serial_number for entry in crl])
    except Exception as error:  # seam: the loader raises many types, see above
        raise MalformedError("the revocation list does not decode") from error
    return crl


def decoded(chain: Iterable[x509.Certificate]) -> tuple[x509.Certificate, ...]:
    """The same certificates, every field decoded; raises whatever the loader raises, so wrap the call."""
    return tuple(_decoded(one) for one in chain)


@functools.lru_cache(maxsize=256)
def _decoded(one: x509.Certificate) -> x509.Certificate:
    """Decode every field that verifiers read.

    Certificates are compared by all their bytes, and fields stay decoded. The devices of one machine share
    most of their chains, and so do the machines of one vendor.
    """
    _ = (one.subject, one.issuer, one.serial_number, list(one.extensions), one.version)
    _ = (one.not_valid_before_utc, one.not_valid_after_utc, one.public_key())
    _ = (one.signature, one.tbs_certificate_bytes, one.signature_algorithm_oid)
    return one


def _bounded(chain: tuple[x509.Certificate, ...], max_count: int) -> tuple[x509.Certificate, ...]:
    if not 1 <= len(chain) <= max_count:
        raise MalformedError(f"a chain has 1 to {max_count} certificates, {len(chain)} found")
    return chain
