"""Reference manifests of the simulated GPU vendor: SWID tags with an enveloped XML signature.

Needs the extra ``gpu`` (lxml, signxml).
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cryptography.hazmat.primitives.serialization import Encoding

from cocoon_enclave.attestation.simulated_gpu_pki import Signer

_SWID: Final = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd"
_HASH: Final = "http://www.w3.org/2001/04/xmlenc#sha384"
_RIM: Final = (
    "https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/"
)
ENTRIES: Final = 64


def make_rim(
    *,
    chip: str,
    version: str,
    values: Mapping[int, Sequence[bytes]],
    signer_chain: Sequence[Signer],
    manufacturer: str = "5703",
) -> bytes:
    """A signed manifest. `values` are the allowed 48-byte values of each active index.

    `signer_chain` is leaf first; its first key signs, all its certificates go into the document.
    """
    etree: Any = importlib.import_module("lxml.etree")
    signxml: Any = importlib.import_module("signxml")
    root = etree.Element(
        f"{{{_SWID}}}SoftwareIdentity",
        nsmap={None: _SWID, "h": _HASH},
        name=chip,
        tagId=hashlib.sha384(f"{chip} {version}".encode()).hexdigest(),
        version="1.0",
    )
    etree.SubElement(root, f"{{{_SWID}}}Entity", name="SIMULATED vendor", role="tagCreator")
    meta = etree.SubElement(
        root, f"{{{_SWID}}}Meta", colloquialVersion=version, edition="SIMULATED", product=chip
    )
    meta.set(f"{{{_RIM}}}FirmwareManufacturerId", manufacturer)
    payload = etree.SubElement(root, f"{{{_SWID}}}Payload")
    for index in range(ENTRIES):
        _add_entry(payload, index, values.get(index))
    signer = signxml.XMLSigner(
        method=signxml.SignatureConstructionMethod.enveloped,
        signature_algorithm=signxml.SignatureMethod.ECDSA_SHA384,
        digest_algorithm=signxml.DigestAlgorithm.SHA384,
        c14n_algorithm=signxml.CanonicalizationMethod.CANONICAL_XML_1_1,
    )
    certificates = [one.certificate.public_bytes(Encoding.PEM).decode("ascii") for one in signer_chain]
    signed = signer.sign(root, key=signer_chain[0].key, cert=certificates)
    return bytes(etree.tostring(signed))


def _add_entry(payload: Any, index: int, values: Sequence[bytes] | None) -> None:
    entry = payload.makeelement(f"{{{_SWID}}}Resource", {"type": "Measurement", "index": str(index)})
    payload.append(entry)
    shown = values if values is not None else (bytes(48),)
    entry.set("active", "True" if values is not None else "False")
    entry.set("alternatives", str(len(shown)))
    entry.set("name", f"Measurement_{index}")
    entry.set("size", "48")
    for number, value in enumerate(shown):
        entry.set(f"{{{_HASH}}}Hash{number}", value.hex())
