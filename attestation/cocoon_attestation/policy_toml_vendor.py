"""The tables ``[snp]`` and ``[gpu]`` of a policy file. Unknown keys are errors. See docs/spec/policy.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from cocoon_attestation.errors import ConfigError, MalformedError
from cocoon_attestation.gpu.policy import GpuPolicy
from cocoon_attestation.gpu.report import FeatureFlag
from cocoon_attestation.policy_vendor import open_snp_policy
from cocoon_attestation.snp.policy import SnpPolicy, SnpRoot
from cocoon_attestation.snp.report import Product, TcbVersion
from cocoon_attestation.toml_values import base64_bytes, integer, require_keys, strings, typed
from cocoon_attestation.types import parse_hex

_TCB_PARTS: Final = ("boot_loader", "tee", "snp", "microcode", "fmc")
_T = TypeVar("_T")


def snp_from_table(table: Mapping[str, object]) -> SnpPolicy:
    """Read ``[snp]``.

    Raises:
        ConfigError: an unknown key, or a value of the wrong form.
        MalformedError: bytes of the wrong form.
    """
    require_keys("snp", table, known=frozenset(_SNP), required=frozenset())
    changes = {key: _SNP[key](f"snp.{key}", value) for key, value in table.items()}
    if "dev_roots" in changes:
        changes["roots"] = changes.pop("dev_roots")
    return open_snp_policy(**changes)


def gpu_from_table(table: Mapping[str, object]) -> GpuPolicy:
    """Read ``[gpu]``; without ``gpu_count`` the number of GPUs is the one that was measured.

    Raises:
        ConfigError: an unknown key, or a value of the wrong form.
        MalformedError: bytes of the wrong form.
    """
    require_keys("gpu", table, known=frozenset(_GPU), required=frozenset())
    values: dict[str, object] = {"gpu_count": None}
    values |= {key: _GPU[key](f"gpu.{key}", value) for key, value in table.items()}
    for kind in ("device_roots", "rim_roots"):
        if f"dev_{kind}" in values:
            values[kind] = values.pop(f"dev_{kind}")
    return GpuPolicy(**values)  # type: ignore[arg-type]  # every value was read by its own reader


def _flag(what: str, value: object) -> bool:
    return typed(what, value, bool)


def _texts(what: str, value: object) -> frozenset[str]:
    return frozenset(strings(what, value))


def _by_text(what: str, value: object) -> dict[str, str]:
    return {key: typed(f"{what}.{key}", item, str) for key, item in _table(what, value).items()}


def _bytes(length: int) -> Callable[[str, object], frozenset[bytes]]:
    def read(what: str, value: object) -> frozenset[bytes]:
        return frozenset(parse_hex(item, length, what) for item in strings(what, value))

    return read


def _some(read: Callable[[str, object], _T]) -> Callable[[str, object], _T]:
    """A reader of a list that allows everything if it is left out: an empty one must not mean the same."""

    def checked(what: str, value: object) -> _T:
        if value == []:
            raise ConfigError(
                f"policy: {what} is empty, so it allows nothing", hint="leave it out to allow everything"
            )
        return read(what, value)

    return checked


def _one(length: int) -> Callable[[str, object], bytes]:
    return lambda what, value: parse_hex(value, length, what)


def _table(what: str, value: object) -> Mapping[str, object]:
    return typed(what, value, dict)


def _product(what: str, text: str) -> Product:
    try:
        return Product(text)
    except ValueError as error:
        raise ConfigError(f"policy: {what} names the unknown product {text!r}") from error


def _products(what: str, value: object) -> frozenset[Product]:
    return frozenset(_product(what, text) for text in strings(what, value))


def _by_product(what: str, value: object, read: Callable[[str, object], _T]) -> dict[Product, _T]:
    return {_product(what, key): read(f"{what}.{key}", item) for key, item in _table(what, value).items()}


def _tcbs(what: str, value: object) -> dict[Product, TcbVersion]:
    def read(name: str, item: object) -> TcbVersion:
        table = _table(name, item)
        require_keys(name, table, known=frozenset(_TCB_PARTS), required=frozenset(_TCB_PARTS[:4]))
        return TcbVersion(**{key: integer(name, number, 255) for key, number in table.items()})

    return _by_product(what, value, read)


def _flags_by_product(what: str, value: object) -> dict[Product, int]:
    return _by_product(what, value, lambda name, item: integer(name, item, 0xFF))


def _roots(what: str, value: object) -> tuple[SnpRoot, ...]:
    """Development roots by product: base64 of the DER certificate."""
    found = _by_product(what, value, lambda name, item: base64_bytes(name, typed(name, item, str)))
    return tuple(SnpRoot(product=product, der=der, simulated=True) for product, der in found.items())


def _ders(what: str, value: object) -> frozenset[bytes]:
    return frozenset(base64_bytes(what, text) for text in strings(what, value))


def _version(what: str, value: object) -> tuple[int, int]:
    parts = typed(what, value, list)
    if len(parts) != 2:
        raise ConfigError(f"policy: {what} is [major, minor]")
    return integer(what, parts[0], 255), integer(what, parts[1], 255)


def _mode(what: str, text: str) -> FeatureFlag:
    try:
        return FeatureFlag[text.upper()]
    except KeyError as error:
        raise MalformedError(f"{what}: unknown mode {text!r}") from error


def _modes(what: str, value: object) -> frozenset[FeatureFlag]:
    return frozenset(_mode(what, text) for text in strings(what, value))


def _numbers(limit: int) -> Callable[[str, object], frozenset[int]]:
    return lambda what, value: frozenset(integer(what, item, limit) for item in typed(what, value, list))


def _number(limit: int) -> Callable[[str, object], int]:
    return lambda what, value: integer(what, value, limit)


def _text(what: str, value: object) -> str:
    return typed(what, value, str)


_SNP: Final[Mapping[str, Callable[[str, object], object]]] = {
    "products": _products,
    "dev_roots": _roots,
    "minimum_tcb": _tcbs,
    "vlek_csps": _texts,
    "allow_masked_chip_id": _flag,
    "chip_ids": _some(_bytes(64)),
    "denied_chip_ids": _bytes(64),
    "policy_required": _number(2**64 - 1),
    "policy_forbidden": _number(2**64 - 1),
    "minimum_abi": _version,
    "platform_required": _flags_by_product,
    "platform_forbidden": _number(0xFF),
    "vmpls": _numbers(3),
    "minimum_guest_svn": _number(2**32 - 1),
    "family_id": _one(16),
    "image_id": _one(16),
    "id_key_digests": _some(_bytes(48)),
    "author_key_digests": _some(_bytes(48)),
}
_GPU: Final[Mapping[str, Callable[[str, object], object]]] = {
    "gpu_count": _number(16),
    "dev_device_roots": _ders,
    "dev_rim_roots": _ders,
    "chips": _texts,
    "minimum_driver": _by_text,
    "minimum_vbios": _by_text,
    "minimum_switch": _text,
    "modes": _modes,
    "opaque_versions": _numbers(0xFFFF),
    "ocsp_nonce": _one(32),
    "allow_missing_fwid": _flag,
    "serials": _some(_texts),
    "denied_serials": _texts,
}
