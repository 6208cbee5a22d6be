"""Which GPUs and switches make one machine, as a property of their wiring."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cocoon_attestation.gpu.report import GpuReport, Opaque
from cocoon_attestation.gpu.topology import Placed, ppcie_problem

GPU_IDS = [bytes([0x10 + i]) * 8 for i in range(8)]
SWITCH_IDS = [bytes([0x20 + i]) * 8 for i in range(4)]
NONCE = b"\x4e" * 32


def report(**opaque: bytes) -> GpuReport:
    return GpuReport(
        nonce=NONCE,
        response_nonce=bytes(32),
        slot=0,
        measurements=(),
        opaque={Opaque[name]: value for name, value in opaque.items()},
        signature=bytes(96),
        signed=b"",
    )


def gpu(pdi: bytes, links: list[bytes]) -> Placed:
    wires = b"".join(link[::-1] for link in links)
    return Placed(serial="41" + pdi.hex(), report=report(SWITCH_PDI=wires))


def switch(pdi: bytes, ports: list[bytes]) -> Placed:
    return Placed(
        serial="50" + pdi.hex(),
        report=report(SWITCH_PDI=pdi, SWITCH_GPU_PDIS=b"".join(ports).ljust(128, b"\xff")),
    )


def links(order: list[int]) -> list[bytes]:
    """18 links that reach every switch: four fixed ones, then the given order."""
    return [*SWITCH_IDS, *(SWITCH_IDS[i] for i in order)]


def machine() -> tuple[list[Placed], list[Placed]]:
    wires = links([i % 4 for i in range(14)])
    return [gpu(pdi, wires) for pdi in GPU_IDS], [switch(pdi, GPU_IDS) for pdi in SWITCH_IDS]


def change(placed: Placed, **opaque: bytes) -> Placed:
    records: dict[int, bytes] = dict(placed.report.opaque)
    records.update({Opaque[name]: value for name, value in opaque.items()})
    return dataclasses.replace(placed, report=dataclasses.replace(placed.report, opaque=records))


def test_a_machine() -> None:
    gpus, switches = machine()
    assert ppcie_problem(gpus, switches) is None
    assert ppcie_problem(gpus[::-1], switches[::-1]) is None


@settings(max_examples=50)
@given(
    orders=st.lists(st.lists(st.integers(0, 3), min_size=14, max_size=14), min_size=8, max_size=8),
    ports=st.permutations(GPU_IDS),
    shuffled=st.permutations(range(18)),
)
def test_order_of_links_and_ports_does_not_matter(
    orders: list[list[int]], ports: list[bytes], shuffled: list[int]
) -> None:
    gpus = []
    for pdi, order in zip(GPU_IDS, orders, strict=True):
        wires = links(order)
        gpus.append(gpu(pdi, [wires[i] for i in shuffled]))
    assert ppcie_problem(gpus, [switch(pdi, ports) for pdi in SWITCH_IDS]) is None


@settings(max_examples=100)
@given(which=st.integers(0, 7), link=st.integers(0, 17), byte=st.integers(0, 7), flip=st.integers(1, 255))
def test_any_changed_link_is_noticed(which: int, link: int, byte: int, flip: int) -> None:
    gpus, switches = machine()
    wires = bytearray(gpus[which].report.opaque[Opaque.SWITCH_PDI])
    wires[8 * link + byte] ^= flip
    gpus[which] = change(gpus[which], SWITCH_PDI=bytes(wires))
    # Every byte of a test id is the same, so one changed byte never makes another switch.
    problem = ppcie_problem(gpus, switches)
    assert problem is not None
    assert gpus[which].serial in problem


@settings(max_examples=100)
@given(which=st.integers(0, 3), port=st.integers(0, 63), flip=st.integers(1, 255))
def test_any_changed_port_is_noticed(which: int, port: int, flip: int) -> None:
    gpus, switches = machine()
    ports = bytearray(switches[which].report.opaque[Opaque.SWITCH_GPU_PDIS])
    ports[port] ^= flip
    switches[which] = change(switches[which], SWITCH_GPU_PDIS=bytes(ports))
    problem = ppcie_problem(gpus, switches)
    assert problem is not None
    assert switches[which].serial in problem


def test_link_that_is_off_is_ignored_but_not_all_of_them() -> None:
    gpus, switches = machine()
    wires = gpus[0].report.opaque[Opaque.SWITCH_PDI]
    gpus[0] = change(gpus[0], SWITCH_PDI=wires[:-8] + bytes(8))
    assert ppcie_problem(gpus, switches) is None
    gpus[0] = change(gpus[0], SWITCH_PDI=bytes(144))
    assert ppcie_problem(gpus, switches) is not None


@pytest.mark.parametrize(("gpus", "switches"), [(7, 4), (9, 4), (8, 3), (8, 5), (0, 0), (4, 8)])
def test_numbers(gpus: int, switches: int) -> None:
    all_gpus, all_switches = machine()
    problem = ppcie_problem((all_gpus * 2)[:gpus], (all_switches * 2)[:switches])
    assert problem is not None
    assert "expected 8 and 4" in problem


def test_evidence_of_two_moments() -> None:
    gpus, switches = machine()
    stale = dataclasses.replace(switches[2].report, nonce=bytes(32))
    switches[2] = dataclasses.replace(switches[2], report=stale)
    assert ppcie_problem(gpus, switches) == "the reports do not carry one nonce"


@pytest.mark.parametrize("records", [{"SWITCH_PDI": SWITCH_IDS[1]}, {"SWITCH_PDI": bytes(144)}])
def test_switch_that_lies_about_itself(records: dict[str, Any]) -> None:
    gpus, switches = machine()
    switches[0] = change(switches[0], **records)
    problem = ppcie_problem(gpus, switches)
    assert problem is not None
    assert "its certificate does not have" in problem


def test_one_switch_twice() -> None:
    gpus, switches = machine()
    assert ppcie_problem(gpus, [*switches[:3], switches[0]]) == "two switches have one id"


def test_gpus_of_another_board_behind_the_right_switches() -> None:
    """A relay may show good GPUs of elsewhere: their certificates have other serial numbers."""
    gpus, switches = machine()
    wires = links([i % 4 for i in range(14)])
    gpus[5] = gpu(b"\x99" * 8, wires)
    problem = ppcie_problem(gpus, switches)
    assert problem is not None
    assert "connected to other GPUs" in problem


def test_id_is_the_end_of_the_serial_number() -> None:
    assert Placed(serial="412921ce551e4eeda3", report=report()).pdi.hex() == "2921ce551e4eeda3"
    assert Placed(serial="1", report=report()).pdi == bytes(7) + b"\x01"
