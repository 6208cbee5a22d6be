"""Reference values: the measurements that a release of the enclave image is known by.

The full values stand on chain as a ``Release`` cell; its representation hash is the release id that a
key binding names. See docs/spec/policy.md, section 2.
"""

from __future__ import annotations

import enum
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from cocoon_attestation.cell import Cell, CellBuilder, CellReader, parse_boc
from cocoon_attestation.errors import MalformedError
from cocoon_attestation.types import Digest32, digest32, exact_bytes

RELEASE_TAG: Final = 0xC0C00006
SNP_RELEASE_TAG: Final = 0xC0C00009
MAX_NAME: Final = 127
"""Longest release name in bytes: one cell."""
MAX_GPUS: Final = 16
MAX_MODELS: Final = 64
"""Most models that one SEV-SNP release names."""
_MODELS_PER_CELL: Final = 3
_MEASUREMENT: Final = 48
_FLAGS: Final = 8


class TeeKind(enum.Enum):
    """Kind of trusted execution environment; the value is the byte in the release cell."""

    TDX = 1
    SEV_SNP = 2

    @property
    def label(self) -> str:
        """Name in policy files and reports: ``tdx`` or ``sev-snp``."""
        return {TeeKind.TDX: "tdx", TeeKind.SEV_SNP: "sev-snp"}[self]

    @classmethod
    def from_label(cls, label: str) -> Self:
        """The kind called `label`.

        Raises:
            MalformedError: no kind has that name.
        """
        for kind in cls:
            if kind.label == label:
                return kind
        raise MalformedError(f"unknown TEE kind {label!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Reference values of one release.

    All byte fields are exactly as they stand in the TDX report (Intel TDX module specification).
    Raises `MalformedError` at construction for a wrong length or name.
    """

    name: str
    """Name for people, 1 to 127 printable ASCII characters."""
    tee: TeeKind = TeeKind.TDX
    mrtd: bytes
    """48 bytes: digest of the initial memory (the virtual firmware)."""
    rtmr0: bytes
    """48 bytes: firmware configuration."""
    rtmr1: bytes
    """48 bytes: kernel and boot loader."""
    rtmr2: bytes
    """48 bytes: command line and initial file system."""
    td_attributes: bytes
    """8 bytes: TDATTRIBUTES, little-endian as in the report."""
    xfam: bytes
    """8 bytes: XFAM, little-endian as in the report."""

    def __post_init__(self) -> None:
        """Check lengths and the name."""
        for field in ("mrtd", "rtmr0", "rtmr1", "rtmr2"):
            exact_bytes(getattr(self, field), _MEASUREMENT, f"release {field}")
        for field in ("td_attributes", "xfam"):
            exact_bytes(getattr(self, field), _FLAGS, f"release {field}")
        if not isinstance(self.tee, TeeKind):
            raise MalformedError("release tee: unknown kind")
        _check_name(self.name)

    def to_cell(self) -> Cell:
        """The release as a cell (TL-B ``release#c0c00006``)."""
        first = CellBuilder().raw(self.mrtd, _MEASUREMENT).raw(self.rtmr0, _MEASUREMENT).build()
        second = CellBuilder().raw(self.rtmr1, _MEASUREMENT).raw(self.rtmr2, _MEASUREMENT).build()
        name = self.name.encode("ascii")
        return (
            CellBuilder()
            .uint(RELEASE_TAG, 32)
            .uint(self.tee.value, 8)
            .ref(first)
            .ref(second)
            .raw(self.td_attributes, _FLAGS)
            .raw(self.xfam, _FLAGS)
            .ref(CellBuilder().raw(name, len(name)).build())
            .build()
        )

    def to_boc(self) -> bytes:
        """The release as a bag of cells."""
        return self.to_cell().to_boc()

    @property
    def release_id(self) -> Digest32:
        """Representation hash of the cell, 32 bytes."""
        return _release_id(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class SnpRelease:
    """Reference values of one SEV-SNP release.

    There is no runtime register on SEV-SNP: kernel, initial file system and command line are inside the
    launch digest, and the command line names the models that the image loads and the GPUs it demands.
    Raises `MalformedError` at construction for a wrong length, number or name.
    """

    name: str
    """Name for people, 1 to 127 printable ASCII characters."""
    measurement: bytes
    """48 bytes: the launch digest."""
    models: tuple[bytes, ...]
    """Digests of the models that the measured command line names, in its order: 1 to 64, 32 bytes each, all
    different."""
    gpus: int = 0
    """Number of GPUs (without switches) that the image attests itself before it serves, 0 to 16."""

    def __post_init__(self) -> None:
        """Check lengths, numbers and the name."""
        exact_bytes(self.measurement, _MEASUREMENT, "release measurement")
        for model in self.models:
            digest32(model, "release model")
        if not 1 <= len(self.models) <= MAX_MODELS or len(set(self.models)) != len(self.models):
            raise MalformedError(f"release models: 1 to {MAX_MODELS} different digests expected")
        if type(self.gpus) is not int or not 0 <= self.gpus <= MAX_GPUS:
            raise MalformedError(f"release gpus: 0 to {MAX_GPUS} expected")
        _check_name(self.name)

    @property
    def tee(self) -> TeeKind:
        """Always SEV-SNP."""
        return TeeKind.SEV_SNP

    def to_cell(self) -> Cell:
        """The release as a cell (TL-B ``snp_release#c0c00009``)."""
        name = self.name.encode("ascii")
        return (
            CellBuilder()
            .uint(SNP_RELEASE_TAG, 32)
            .raw(self.measurement, _MEASUREMENT)
            .uint(self.gpus, 8)
            .ref(_models_cell(self.models))
            .ref(CellBuilder().raw(name, len(name)).build())
            .build()
        )

    def to_boc(self) -> bytes:
        """The release as a bag of cells."""
        return self.to_cell().to_boc()

    @property
    def release_id(self) -> Digest32:
        """Representation hash of the cell, 32 bytes."""
        return _release_id(self)


AnyRelease = Release | SnpRelease
"""A release of any kind of TEE."""


@functools.lru_cache(maxsize=256)
def _release_id(release: AnyRelease) -> Digest32:
    """Every appraisal and every request asks for the ids of all allowed releases: compute each once."""
    return Digest32(release.to_cell().hash)


def parse_release(boc: bytes | memoryview) -> AnyRelease:
    """Read a release of any kind from its bag of cells.

    Raises:
        MalformedError: anything but one canonical release cell of a known kind.
    """
    return release_from_cell(parse_boc(boc))


def release_from_cell(cell: Cell) -> AnyRelease:
    """Read a release of any kind from its root cell.

    Raises:
        MalformedError: another record, an unknown TEE kind, or bits or references left over.
    """
    root = cell.read()
    tag = root.uint(32)
    if tag == SNP_RELEASE_TAG:
        return _snp_release(root)
    if tag != RELEASE_TAG:
        raise MalformedError("release: another record's tag")
    return _register_release(root)


def _register_release(root: CellReader) -> Release:
    kind = root.uint(8)
    if kind not in {tee.value for tee in TeeKind}:
        raise MalformedError(f"release: unknown TEE kind {kind}")
    mrtd, rtmr0 = _pair(root.ref())
    rtmr1, rtmr2 = _pair(root.ref())
    td_attributes, xfam = root.raw(_FLAGS), root.raw(_FLAGS)
    name = _name(root.ref_cell())
    root.end()
    return Release(
        name=name,
        tee=TeeKind(kind),
        mrtd=mrtd,
        rtmr0=rtmr0,
        rtmr1=rtmr1,
        rtmr2=rtmr2,
        td_attributes=td_attributes,
        xfam=xfam,
    )


def _snp_release(root: CellReader) -> SnpRelease:
    measurement, gpus = root.raw(_MEASUREMENT), root.uint(8)
    models, name = _models(root.ref_cell()), _name(root.ref_cell())
    root.end()
    return SnpRelease(name=name, measurement=measurement, models=models, gpus=gpus)


def _models_cell(models: Sequence[bytes]) -> Cell:
    """Up to three digests in a cell; the others in the cell behind its one reference."""
    builder = CellBuilder()
    for model in models[:_MODELS_PER_CELL]:
        builder.raw(model, 32)
    rest = models[_MODELS_PER_CELL:]
    return builder.ref(_models_cell(rest)).build() if rest else builder.build()


def _models(cell: Cell) -> tuple[bytes, ...]:
    found: list[bytes] = []
    while True:
        count, odd = divmod(cell.bit_length, 256)
        full = count == _MODELS_PER_CELL
        if odd or not 1 <= count <= _MODELS_PER_CELL or len(cell.refs) > int(full):
            raise MalformedError(
                "release models: 1 to 3 digests in a cell expected, more behind a full one"
            )
        reader = cell.read()
        found += [reader.raw(32) for _ in range(count)]
        if not cell.refs:
            return tuple(found)
        if len(found) >= MAX_MODELS:
            raise MalformedError(f"release models: at most {MAX_MODELS} expected")
        cell = cell.refs[0]


def _check_name(name: str) -> None:
    if not 1 <= len(name) <= MAX_NAME or not name.isascii() or not name.isprintable():
        raise MalformedError(f"release name: 1 to {MAX_NAME} printable ASCII characters expected")


def _pair(reader: CellReader) -> tuple[bytes, bytes]:
    pair = reader.raw(_MEASUREMENT), reader.raw(_MEASUREMENT)
    reader.end()
    return pair


def _name(cell: Cell) -> str:
    if cell.refs or cell.bit_length % 8:
        raise MalformedError("release name: one cell of whole bytes expected")
    try:
        return cell.data.decode("ascii")
    except UnicodeDecodeError as error:
        raise MalformedError("release name: ASCII expected") from error
