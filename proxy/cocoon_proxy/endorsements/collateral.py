"""Forms of Intel's collateral: the value of an appraisal, the stapled message, and the JSON file.

The file has the nine fields of DCAP's ``QuoteCollateralV3`` with byte fields in hex. An enclave's
``file_collateral`` and ``cocoon verify quote --collateral`` read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Final

from cocoon.v1 import evidence_pb2
from cocoon_attestation.errors import MalformedError
from cocoon_attestation.evidence import TdxCollateralBytes
from cocoon_attestation.strict_json import parse_object

MAX_FILE: Final = 4 * 1024 * 1024


def collateral_to_proto(collateral: TdxCollateralBytes) -> evidence_pb2.TdxCollateral:
    """The stapled form."""
    return evidence_pb2.TdxCollateral(
        **{item.name: getattr(collateral, item.name) for item in fields(collateral)}
    )


def collateral_to_json(collateral: TdxCollateralBytes) -> dict[str, str]:
    """The nine fields of DCAP's ``QuoteCollateralV3``, bytes in hex: a file for the enclave and `cocoon verify`."""
    values = {item.name: getattr(collateral, item.name) for item in fields(collateral)}
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in values.items()}


def collateral_from_json(data: bytes) -> TdxCollateralBytes:
    """Read what `collateral_to_json` wrote.

    Raises:
        MalformedError: a field is missing, unknown or of another form.
    """
    document: Mapping[str, object] = parse_object(data, limit=MAX_FILE, what="collateral")
    names = {item.name: item.type for item in fields(TdxCollateralBytes)}
    if document.keys() != names.keys():
        raise MalformedError("collateral: exactly the nine fields of QuoteCollateralV3 expected")
    values: dict[str, object] = {}
    for name, kind in names.items():
        value = document[name]
        if not isinstance(value, str) or not value.isascii():
            raise MalformedError(f"collateral: {name} is not a text")
        values[name] = value if kind == "str" else _unhex(value, name)
    return TdxCollateralBytes(**values)  # type: ignore[arg-type]  # every field was read by its type


def _unhex(value: str, name: str) -> bytes:
    try:
        return bytes.fromhex(value)
    except ValueError as error:
        raise MalformedError(f"collateral: {name} is not hex") from error
