"""The release cell of SEV-SNP images: layout, identity, strictness."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import pytoniq_core
from hypothesis import given
from hypothesis import strategies as st

from cocoon_attestation.cell import Cell, CellBuilder
from cocoon_attestation.errors import MalformedError
from cocoon_attestation.reference import (
    MAX_MODELS,
    SNP_RELEASE_TAG,
    SnpRelease,
    parse_release,
    release_from_cell,
)

digests = st.binary(min_size=32, max_size=32)
releases = st.builds(
    SnpRelease,
    name=st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=127),
    measurement=st.binary(min_size=48, max_size=48),
    models=st.lists(digests, min_size=1, max_size=12, unique=True).map(tuple),
    gpus=st.integers(0, 16),
)
EXAMPLE = SnpRelease(
    name="cocoon-gpu 0.1.0",
    measurement=b"\x01" * 48,
    models=tuple(bytes([number]) * 32 for number in range(5)),
    gpus=8,
)
begin_cell: Any = pytoniq_core.begin_cell


def oracle(release: SnpRelease) -> Any:
    """The TL-B layout written down a second time, with another library."""
    models = None
    for start in reversed(range(0, len(release.models), 3)):
        builder = begin_cell().store_bytes(b"".join(release.models[start : start + 3]))
        models = (builder if models is None else builder.store_ref(models)).end_cell()
    name = begin_cell().store_bytes(release.name.encode()).end_cell()
    root = begin_cell().store_uint(0xC0C00009, 32).store_bytes(release.measurement)
    return root.store_uint(release.gpus, 8).store_ref(models).store_ref(name).end_cell()


@given(releases)
def test_layout_matches_the_oracle(release: SnpRelease) -> None:
    assert release.release_id == oracle(release).hash
    assert parse_release(release.to_boc()) == release


def test_fixed_release_id() -> None:
    assert EXAMPLE.release_id.hex() == "124060764c9e863dc16a124b8c67f63d23b6065967e3df42f2cd7c04ddc72e2b"


@given(releases, releases)
def test_id_identifies(first: SnpRelease, second: SnpRelease) -> None:
    assert (first == second) == (first.release_id == second.release_id)


def test_most_models_fit_and_one_more_does_not() -> None:
    most = tuple(number.to_bytes(32) for number in range(MAX_MODELS))
    full = dataclasses.replace(EXAMPLE, models=most)
    assert parse_release(full.to_boc()) == full
    with pytest.raises(MalformedError):
        dataclasses.replace(EXAMPLE, models=(*most, b"\xff" * 32))
    with pytest.raises(MalformedError):
        dataclasses.replace(EXAMPLE, models=())


def chain(*counts: int) -> Cell:
    """Cells with these numbers of digests, one behind the other."""
    cell: Cell | None = None
    number = sum(counts)
    for count in reversed(counts):
        builder = CellBuilder()
        for index in range(number - count, number):
            builder.raw(index.to_bytes(32), 32)
        number -= count
        cell = (builder if cell is None else builder.ref(cell)).build()
    assert cell is not None
    return cell


def build(models: Cell, *, gpus: int = 0, extra: int = 0, more: bool = False) -> Cell:
    name = CellBuilder().raw(b"n", 1).build()
    root = CellBuilder().uint(SNP_RELEASE_TAG, 32).raw(bytes(48), 48).uint(gpus, 8).ref(models).ref(name)
    return (root.ref(name) if more else root).uint(0, extra).build()


def test_cells_that_are_refused() -> None:
    assert len(parsed_models(build(chain(3, 3, 1)))) == 7
    one = CellBuilder().raw(bytes(32), 32).build()
    refused = [
        build(CellBuilder().build()),  # no model
        build(CellBuilder().raw(bytes(31), 31).build()),
        build(CellBuilder().raw(bytes(32), 32).uint(0, 1).build()),
        build(chain(1, 3)),  # a cell that is not full has no follower
        build(chain(3, 0)),
        build(
            CellBuilder()
            .raw(bytes(32), 32)
            .raw(b"\x01" * 32, 32)
            .raw(b"\x02" * 32, 32)
            .ref(one)
            .ref(one)
            .build()
        ),
        build(CellBuilder().raw(bytes(32), 32).raw(bytes(32), 32).build()),  # one twice
        build(chain(*[3] * 22)),  # 66 of them
        build(chain(1), gpus=17),
        build(chain(1), extra=1),
        build(chain(1), more=True),
    ]
    for cell in refused:
        with pytest.raises(MalformedError):
            release_from_cell(cell)


def parsed_models(cell: Cell) -> tuple[bytes, ...]:
    release = release_from_cell(cell)
    assert isinstance(release, SnpRelease)
    return release.models
