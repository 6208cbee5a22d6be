"""The payload of ``cocoon.gpu``: one form, read back exactly, anything else malformed."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoon_attestation.errors import MalformedError
from cocoon_attestation.gpu_summary import GpuSummary, Joined, MeasuredDevice, parse_gpu_summary

GPU = MeasuredDevice(kind="gpu", serial="41aa")
SWITCH = MeasuredDevice(kind="switch", serial="50bbc")
SUMMARY = GpuSummary(
    confidential=True,
    devtools=False,
    joined=Joined.PROTECTED_PCIE,
    evidence=b"\x07" * 32,
    devices=(GPU, SWITCH),
)


def test_form_of_the_payload() -> None:
    assert SUMMARY.encode() == b"\x01\x01\x00\x01" + b"\x07" * 32 + b"\x02\x01\x0441aa\x02\x0550bbc"
    assert SUMMARY.gpus == 1


def test_longest_payload() -> None:
    devices = tuple(MeasuredDevice(kind="gpu", serial=f"{15 - i:x}".rjust(40, "f")) for i in range(16))
    assert len(dataclasses.replace(SUMMARY, devices=devices).encode()) == 709


DEVICES = st.builds(
    MeasuredDevice,
    kind=st.sampled_from(["gpu", "switch"]),
    serial=st.integers(1, 2**160 - 1).map(lambda number: f"{number:x}"),
)


@given(
    st.builds(
        GpuSummary,
        confidential=st.booleans(),
        devtools=st.booleans(),
        joined=st.sampled_from(Joined),
        evidence=st.binary(min_size=32, max_size=32),
        devices=st.lists(DEVICES, min_size=1, max_size=16, unique_by=lambda one: one.serial).map(tuple),
    )
)
def test_every_summary_is_read_back(summary: GpuSummary) -> None:
    assert parse_gpu_summary(summary.encode()) == summary


@pytest.mark.parametrize(
    "fault",
    [
        {"devices": ()},
        {"devices": (GPU, GPU)},
        {"devices": tuple(MeasuredDevice(kind="gpu", serial=f"{i:x}") for i in range(1, 18))},
        {"evidence": b"short"},
        {"devices": (dataclasses.replace(GPU, kind="cpu"),)},
        {"devices": (dataclasses.replace(GPU, serial=""),)},
        {"devices": (dataclasses.replace(GPU, serial="0041"),)},
        {"devices": (dataclasses.replace(GPU, serial="41AA"),)},
        {"devices": (dataclasses.replace(GPU, serial="f" * 41),)},
        {"devices": (dataclasses.replace(GPU, serial="٤١"),)},
    ],
)
def test_values_that_do_not_fit_are_refused(fault: dict[str, object]) -> None:
    with pytest.raises(MalformedError):
        dataclasses.replace(SUMMARY, **fault)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (0, 0),
        (0, 2),
        (1, 2),
        (2, 2),
        (3, 3),
        (36, 0),
        (36, 1),
        (36, 3),
        (37, 0),
        (37, 3),
        (38, 3),
        (38, 5),
        (39, 0x30),
    ],
)
def test_other_values_are_malformed(offset: int, value: int) -> None:
    payload = SUMMARY.encode()
    assert payload[offset] != value
    with pytest.raises(MalformedError):
        parse_gpu_summary(payload[:offset] + bytes((value,)) + payload[offset + 1 :])


@given(st.binary(max_size=100) | st.binary(max_size=60).map(lambda rest: SUMMARY.encode()[:37] + rest))
def test_any_bytes_are_read_or_malformed(data: bytes) -> None:
    try:
        summary = parse_gpu_summary(data)
    except MalformedError:
        return
    assert summary.encode() == data


def test_every_truncation_and_extension_is_malformed() -> None:
    payload = SUMMARY.encode()
    for data in (*(payload[:length] for length in range(len(payload))), payload + b"\x00"):
        with pytest.raises(MalformedError):
            parse_gpu_summary(data)
