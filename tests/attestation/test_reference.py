"""The release cell: layout, identity, strictness."""

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
    RELEASE_TAG,
    Release,
    TeeKind,
    parse_release,
    release_from_cell,
)
from cocoon_enclave.attestation.simulated import simulated_release

measurements = st.binary(min_size=48, max_size=48)
flags = st.binary(min_size=8, max_size=8)
releases = st.builds(
    Release,
    name=st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=127),
    tee=st.sampled_from(TeeKind),
    mrtd=measurements,
    rtmr0=measurements,
    rtmr1=measurements,
    rtmr2=measurements,
    td_attributes=flags,
    xfam=flags,
)

EXAMPLE = Release(
    name="cocoon-cpu 0.1.0",
    mrtd=b"\x01" * 48,
    rtmr0=b"\x02" * 48,
    rtmr1=b"\x03" * 48,
    rtmr2=b"\x04" * 48,
    td_attributes=bytes.fromhex("0000001000000000"),
    xfam=bytes.fromhex("e702060000000000"),
)


begin_cell: Any = pytoniq_core.begin_cell


def oracle(release: Release) -> Any:
    """The TL-B layout written down a second time, with another library."""
    first = begin_cell().store_bytes(release.mrtd).store_bytes(release.rtmr0).end_cell()
    second = begin_cell().store_bytes(release.rtmr1).store_bytes(release.rtmr2).end_cell()
    name = begin_cell().store_bytes(release.name.encode()).end_cell()
    root = begin_cell().store_uint(0xC0C00006, 32).store_uint(release.tee.value, 8)
    root = root.store_ref(first).store_ref(second)
    root = root.store_bytes(release.td_attributes).store_bytes(release.xfam)
    return root.store_ref(name).end_cell()


@given(releases)
def test_layout_matches_the_oracle(release: Release) -> None:
    assert release.release_id == oracle(release).hash
    assert parse_release(release.to_boc()) == release


def test_fixed_release_id() -> None:
    assert EXAMPLE.release_id.hex() == "c171772fe3691272aae2431f6d7da4d30a6380b994eeab3d26b373c42e4182f8"


@given(releases, releases)
def test_id_identifies(first: Release, second: Release) -> None:
    assert (first == second) == (first.release_id == second.release_id)


@pytest.mark.parametrize("field", ["mrtd", "rtmr0", "rtmr1", "rtmr2", "td_attributes", "xfam"])
def test_lengths_are_checked(field: str) -> None:
    with pytest.raises(MalformedError):
        dataclasses.replace(EXAMPLE, **{field: bytes(47)})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "x" * 128, "näme", "tab\t", "nul\0"])
def test_names_are_checked(name: str) -> None:
    with pytest.raises(MalformedError):
        dataclasses.replace(EXAMPLE, name=name)


def test_unknown_tee() -> None:
    with pytest.raises(MalformedError):
        dataclasses.replace(EXAMPLE, tee=1)  # type: ignore[arg-type]


def build(*, tag: int = RELEASE_TAG, tee: int = 1, name: Cell | None = None, extra: int = 0) -> Cell:
    pair = CellBuilder().raw(bytes(48), 48).raw(bytes(48), 48).build()
    label = name or CellBuilder().raw(b"n", 1).build()
    root = CellBuilder().uint(tag, 32).uint(tee, 8).ref(pair).ref(pair)
    return root.raw(bytes(8), 8).raw(bytes(8), 8).ref(label).uint(0, extra).build()


def test_cells_that_are_refused() -> None:
    assert release_from_cell(build()).name == "n"
    leaf = CellBuilder().raw(b"n", 1).build()
    refused: list[Cell] = [
        build(tag=0xC0C00001),
        build(tee=0),
        build(tee=3),
        build(extra=1),
        build(name=CellBuilder().build()),
        build(name=CellBuilder().uint(1, 4).build()),
        build(name=CellBuilder().raw(b"n", 1).ref(leaf).build()),
        build(name=CellBuilder().raw(b"\xff", 1).build()),
        CellBuilder().uint(RELEASE_TAG, 32).build(),
    ]
    for cell in refused:
        with pytest.raises(MalformedError):
            release_from_cell(cell)


@given(st.binary(max_size=300))
def test_arbitrary_bytes(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_release(data)


def test_labels() -> None:
    assert [TeeKind.from_label(kind.label) for kind in TeeKind] == list(TeeKind)
    with pytest.raises(MalformedError):
        TeeKind.from_label("sgx")


def test_simulated_release_follows_from_the_version(lab: Any) -> None:
    assert lab.platform.release() == simulated_release()
    assert simulated_release("1") == simulated_release("1")
    assert simulated_release("1").release_id != simulated_release("2").release_id
    assert "SIMULATED" in simulated_release().name
