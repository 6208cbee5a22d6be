"""What a verifier asks of SEV-SNP evidence beyond its being genuine."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from cocoon_attestation.errors import ConfigError
from cocoon_attestation.roots.amd import amd_root
from cocoon_attestation.snp import report as layout
from cocoon_attestation.snp.report import Product, TcbVersion

ZERO_HOST_DATA: Final = bytes(32)

ANY_CSP: Final = frozenset({"*"})
"""Value of `SnpPolicy.vlek_csps` that accepts the VLEK of every provider."""

DEFAULT_MINIMUM_TCB: Final[Mapping[Product, TcbVersion]] = MappingProxyType(
    {
        Product.MILAN: TcbVersion(boot_loader=4, tee=0, snp=24, microcode=219),
        Product.GENOA: TcbVersion(boot_loader=10, tee=0, snp=23, microcode=84),
        Product.TURIN: TcbVersion(fmc=1, boot_loader=1, tee=1, snp=4, microcode=81),
    }
)
"""Versions seen in the field in 2026. Older microcode can be replaced by the host (EntrySign)."""

DEFAULT_PLATFORM: Final[Mapping[Product, int]] = MappingProxyType(
    dict.fromkeys(Product, layout.PLATFORM_ECC | layout.PLATFORM_ALIAS_CHECK)
)
"""Platform flags that must be set: ECC, and the memory alias check (BadRAM)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpRoot:
    """A trust anchor: the self-signed root certificate of one product."""

    product: Product
    der: bytes
    simulated: bool = False
    """True for a development root: claims made under it say so."""


@functools.cache
def amd_roots() -> tuple[SnpRoot, ...]:
    """AMD's pinned roots of Milan, Genoa and Turin.

    Raises:
        ConfigError: the package data is damaged.
    """
    return tuple(SnpRoot(product=product, der=amd_root(product.value)) for product in Product)


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpPolicy:
    """Rules for SEV-SNP evidence. The defaults are what a client session asks for.

    A field that is None where the type allows it means: not compared. Such a check is recorded as
    skipped, so a list of checks made under it is never `accepted`; `waived` names those checks.
    """

    measurements: frozenset[bytes] | None
    """Allowed 48-byte launch digests. An empty set is a configuration error."""
    report_data: bytes | None
    """The exact 64 bytes expected."""
    host_data: bytes | None = ZERO_HOST_DATA
    """The exact 32 bytes expected."""
    roots: tuple[SnpRoot, ...] = field(default_factory=amd_roots)
    products: frozenset[Product] = frozenset({Product.GENOA, Product.TURIN})
    """Milan is left out on purpose: its root seed is reported as extractable. Opt in by naming it."""
    minimum_tcb: Mapping[Product, TcbVersion] = field(default_factory=lambda: DEFAULT_MINIMUM_TCB)
    """Floor for the reported, the committed and the launch TCB. A product without one is refused."""
    require_crl: bool = True
    vlek_csps: frozenset[str] = frozenset()
    """Cloud providers (text of the CSP id) whose VLEK is accepted. Empty: VCEK only."""
    allow_masked_chip_id: bool = False
    """Accept a VCEK report whose chip id the host masked."""
    chip_ids: frozenset[bytes] = frozenset()
    """Allow-list of 64-byte chip ids; the empty set allows every chip."""
    denied_chip_ids: frozenset[bytes] = frozenset()
    policy_required: int = 0
    """Guest policy bits that must be set."""
    policy_forbidden: int = 0
    """Guest policy bits that must be clear, besides DEBUG and MIGRATE_MA."""
    minimum_abi: tuple[int, int] = (0, 0)
    platform_required: Mapping[Product, int] = field(default_factory=lambda: DEFAULT_PLATFORM)
    platform_forbidden: int = 0
    platform_known: int = 0xFF
    """Platform flags outside this mask are refused: nobody reviewed what they mean."""
    vmpls: frozenset[int] = frozenset({0})
    allow_paravisor: bool = False
    """Do not refuse a guest whose report carries the mark of a cloud's paravisor."""
    minimum_guest_svn: int = 0
    family_id: bytes | None = None
    """Compared only if set."""
    image_id: bytes | None = None
    """Compared only if set."""
    id_key_digests: frozenset[bytes] = frozenset()
    """Compared only if not empty."""
    author_key_digests: frozenset[bytes] = frozenset()
    """Compared only if not empty."""

    def __post_init__(self) -> None:
        if self.measurements is not None and not self.measurements:
            raise ConfigError("no SNP measurement is allowed: the policy could never accept")
        if not self.roots:
            raise ConfigError("an SNP policy needs a root")
        if not self.products or not self.vmpls:
            raise ConfigError("no SNP product or no VMPL is allowed: the policy could never accept")
        _require_sizes("measurement", self.measurements or (), 48)
        _require_sizes("report data", (self.report_data,), 64)
        _require_sizes("host data", (self.host_data,), 32)
        _require_sizes("chip id", self.chip_ids | self.denied_chip_ids, 64)
        for name in ("minimum_tcb", "platform_required"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @property
    def waived(self) -> frozenset[str]:
        """Ids of the checks that this policy leaves out; they are recorded as skipped."""
        options = {
            "snp.measurement": self.measurements is None,
            "snp.report_data": self.report_data is None,
            "snp.host_data": self.host_data is None,
            "snp.crl": not self.require_crl,
            "snp.tcb_min": not self.minimum_tcb,
            "snp.platform": not self.platform_required,
            "snp.paravisor": self.allow_paravisor,
        }
        return frozenset(check for check, left_out in options.items() if left_out)

    @classmethod
    def dangerous_genuine_only(cls) -> SnpPolicy:
        """Ask only whether a report is genuine and its guest is closed to the host's debugger.

        For inspection and conformance runs. It says nothing about the software or about freshness,
        and it accepts Milan, any firmware version, any provider's VLEK, any VMPL of the guest, and a guest
        that a paravisor speaks for.
        """
        return cls(
            measurements=None,
            report_data=None,
            host_data=None,
            products=frozenset(Product),
            minimum_tcb=MappingProxyType({}),
            require_crl=False,
            vlek_csps=ANY_CSP,
            allow_masked_chip_id=True,
            platform_required=MappingProxyType({}),
            vmpls=frozenset({0, 1, 2, 3}),
            allow_paravisor=True,
        )


def _require_sizes(what: str, values: object, size: int) -> None:
    for value in values if isinstance(values, (tuple, frozenset)) else ():
        if value is not None and len(value) != size:
            raise ConfigError(f"{what}: {size} bytes expected, {len(value)} found")
