"""AMD's root keys (ARK) for SEV-SNP, pinned, and the intermediates AMD publishes beside them.

Only the roots are trusted. The intermediates (ASK for VCEK, ASVK for VLEK) are a convenience for
evidence that comes without them; each is verified like one that came with the evidence.
See PROVENANCE.md beside this file.
"""

import functools
from types import MappingProxyType
from typing import Final

from cocoon_attestation.roots.pinned import load_pinned

ARK_SHA256: Final = MappingProxyType(
    {
        "milan": "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
        "genoa": "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
        "turin": "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
    }
)
"""SHA-256 of the DER form of each product's root certificate."""

INTERMEDIATE_SHA256: Final = MappingProxyType(
    {
        "ask_milan": "67d303bd3905fd38db8b20e0793699870e7fa612eaad5dec358293fd8c0bac1b",
        "ask_genoa": "5464738c1546aed5f2cecf1dc98c5c960a92e8913238a61711bc90ec6e828521",
        "ask_turin": "5b77ef5fe7a7a004fd9032668fba9d0fda22f88c4442069a479636a6ae3b3185",
        "asvk_milan": "c5e081f59b7efab1fe2f8b505e159704e72f29cab7ef7cf628a05a42439082f5",
        "asvk_genoa": "197e610743a917d6b9bb982a5a9226ccc0a15b611be0619e626aca9151457372",
        "asvk_turin": "104e10a8bd060a3c20a434261a57d0588fd65a88915b4f65b08bdecaf8df1a3c",
    }
)
"""SHA-256 of the DER form of each shipped intermediate."""


@functools.cache
def amd_root(product: str) -> bytes:
    """DER form of AMD's root certificate for `product` (``milan``, ``genoa`` or ``turin``).

    Raises:
        ConfigError: the shipped file is missing or is not the pinned certificate.
    """
    return load_pinned("amd", f"ark_{product}.der", ARK_SHA256[product])


@functools.cache
def amd_intermediates() -> tuple[bytes, ...]:
    """DER forms of the intermediates that AMD published for the pinned roots.

    Raises:
        ConfigError: a shipped file is missing or is not the expected certificate.
    """
    return tuple(load_pinned("amd", f"{name}.der", digest) for name, digest in INTERMEDIATE_SHA256.items())
