"""Development roots of all vendors inside one certificate.

A development network's registry names one root certificate by its hash. That certificate carries the
stand-ins for AMD's and NVIDIA's roots in an extension, so the hash names them as well and nothing else has
to be trusted. See docs/spec/simulated-tee.md, section 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat import asn1

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.gpu.policy import GpuPolicy
from cocoon_attestation.policy_vendor import open_snp_policy
from cocoon_attestation.snp.policy import SnpPolicy, SnpRoot
from cocoon_attestation.snp.report import Product
from cocoon_attestation.x509_tools import load_der_chain

EXTENSION: Final = x509.ObjectIdentifier("1.3.6.1.4.1.32473.1")
"""OID of the extension, not critical; below the number that RFC 5612 keeps for examples."""
MAX_ROOTS: Final = 8
MAX_BYTES: Final = 16 * 1024
_AMD: Final = "amd-"
_DEVICE: Final = "nvidia-device"
_RIM: Final = "nvidia-rim"


@asn1.sequence
class _Root:
    kind: str
    certificate: bytes


@asn1.sequence
class _Roots:
    roots: list[_Root]


@dataclass(frozen=True, slots=True, kw_only=True)
class DevRoots:
    """Stand-ins for vendors' roots, DER. An empty one stands for no vendor but Intel."""

    amd: Mapping[Product, bytes]
    """Root of SEV-SNP by product."""
    nvidia_device: bytes | None = None
    """Root of device identities."""
    nvidia_rim: bytes | None = None
    """Root of manifest signers."""

    @property
    def snp(self) -> SnpPolicy | None:
        """The default rules for SEV-SNP under these roots; None without one."""
        if not self.amd:
            return None
        roots = (SnpRoot(product=product, der=der, simulated=True) for product, der in self.amd.items())
        return open_snp_policy(roots=tuple(roots))

    @property
    def gpu(self) -> GpuPolicy | None:
        """The default rules for GPUs under these roots, for any number of GPUs; None without both."""
        if self.nvidia_device is None or self.nvidia_rim is None:
            return None
        return GpuPolicy(
            gpu_count=None,
            device_roots=frozenset({self.nvidia_device}),
            rim_roots=frozenset({self.nvidia_rim}),
        )


def encode_dev_roots(roots: DevRoots) -> bytes:
    """The value of the extension: DER of SEQUENCE { SEQUENCE OF { kind UTF8String, certificate OCTET STRING }}."""
    listed = [_Root(kind=f"{_AMD}{product.value}", certificate=der) for product, der in roots.amd.items()]
    if roots.nvidia_device is not None:
        listed.append(_Root(kind=_DEVICE, certificate=roots.nvidia_device))
    if roots.nvidia_rim is not None:
        listed.append(_Root(kind=_RIM, certificate=roots.nvidia_rim))
    return asn1.encode_der(_Roots(roots=listed))


def read_dev_roots(dev_root: bytes) -> DevRoots:
    """The vendors' roots inside a development root (DER); none if it has no such extension.

    Raises:
        MalformedError: not a certificate, or an extension of another form.
    """
    certificate = load_der_chain([dev_root], max_bytes=2 * MAX_BYTES, max_count=1)[0]
    try:
        value = certificate.extensions.get_extension_for_oid(EXTENSION).value
    except x509.ExtensionNotFound:
        return DevRoots(amd={})
    if not isinstance(value, x509.UnrecognizedExtension) or len(value.value) > MAX_BYTES:
        raise MalformedError("development roots: the extension is too long")
    try:
        listed = asn1.decode_der(_Roots, value.value).roots
    except (ValueError, TypeError, OverflowError) as error:
        raise MalformedError("development roots: the extension does not decode") from error
    found = {root.kind: bytes(root.certificate) for root in listed}
    if len(listed) > MAX_ROOTS or len(found) != len(listed):
        raise MalformedError("development roots: too many, or one kind twice")
    load_der_chain(list(found.values()) or [dev_root], max_bytes=2 * MAX_BYTES, max_count=MAX_ROOTS)
    amd = {product: found.pop(f"{_AMD}{product.value}", None) for product in Product}
    roots = DevRoots(
        amd={product: der for product, der in amd.items() if der is not None},
        nvidia_device=found.pop(_DEVICE, None),
        nvidia_rim=found.pop(_RIM, None),
    )
    if found:
        raise MalformedError("development roots: an unknown kind")
    return roots
