"""`cocoon verify measure-snp` against an independent computation over made-up firmware.

`Reference` follows the SNP firmware ABI (PAGE_INFO, section 8.17.2) and the AMD manual (VMSA, table B-4) by
offsets, and shares nothing with the package that the command uses.
"""

from __future__ import annotations

import hashlib
import json
import struct
import sys
import tomllib
import uuid
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cocoon_attestation.errors import ConfigError, MalformedError, UnsupportedError
from cocoon_attestation.policy_toml import policy_from_toml
from cocoon_attestation.release_document import parse_statement
from cocoon_cli.__main__ import cli

PAGE = 4096
RESET_EIP = 0x80B004
HASHES_GPA = 0x810C00
MODEL = "07" * 32
CMDLINE = f"console=ttyS0 cocoon.models={MODEL}"
SECTIONS = ((0x800000, 2, 1), (0x80A000, 1, 3), (0x80D000, 1, 2), (0x810000, 1, 0x10))
"""Guest address, pages, type: zero pages, CPUID, secrets, kernel hashes."""


def guid(text: str) -> bytes:
    return uuid.UUID(text).bytes_le


def entry(name: str, data: bytes) -> bytes:
    return data + struct.pack("<H", len(data) + 18) + guid(name)


def firmware(sections: tuple[tuple[int, int, int], ...] = SECTIONS, *, reset: bool = True) -> bytes:
    """Three pages with the table of GUIDs that OVMF keeps 32 bytes before its end."""
    metadata = b"ASEV" + struct.pack("<III", 16 + 12 * len(sections), 1, len(sections))
    metadata += b"".join(struct.pack("<III", gpa, pages * PAGE, kind) for gpa, pages, kind in sections)
    offset = PAGE  # of the metadata, from the end
    table = entry("dc886566-984a-4798-a75e-5585a7bf67cc", struct.pack("<I", offset))
    table += entry("7255371f-3a3b-4b04-927b-1da6efa8d454", struct.pack("<II", HASHES_GPA, 0x400))
    if reset:
        table += entry("00f771de-1a7e-4fcb-890e-68c77e2fb44e", struct.pack("<I", RESET_EIP))
    table += struct.pack("<H", len(table) + 18) + guid("96b582de-1fb2-45f7-baea-a366c55a082d")
    body = bytes(range(256)) * (2 * PAGE // 256)
    last = metadata + bytes(PAGE - len(metadata) - len(table) - 32) + table + b"\xea" * 32
    return body + last


class Reference:
    """Launch digest of a QEMU guest, page by page."""

    def __init__(self) -> None:
        self.digest = bytes(48)

    def page(self, kind: int, gpa: int, contents: bytes | None = None) -> None:
        digest = bytes(48) if contents is None else hashlib.sha384(contents).digest()
        info = struct.pack("<HBBBBBBQ", 0x70, kind, 0, 0, 0, 0, 0, gpa)
        self.digest = hashlib.sha384(self.digest + digest + info).digest()

    def hashes(self, kernel: bytes, initrd: bytes, cmdline: str) -> bytes:
        def one(name: str, data: bytes) -> bytes:
            return guid(name) + struct.pack("<H", 50) + hashlib.sha256(data).digest()

        table = guid("9438d606-4f22-4cc9-b479-a793d411fd21") + struct.pack("<H", 18 + 3 * 50)
        table += one("97d02dd8-bd20-4c94-aa78-e7714d36ab2a", cmdline.encode() + b"\0")
        table += one("44baf731-3a2f-4bd7-9af1-41e29169781d", initrd)
        table += one("4de79437-abd2-427f-b835-d5b172d2045b", kernel)
        return (bytes(HASHES_GPA % PAGE) + table).ljust(PAGE, b"\0")

    def vmsa(self, eip: int, cpuid: int) -> bytes:
        area = bytearray(PAGE)

        def put(offset: int, form: str, *values: int) -> None:
            struct.pack_into("<" + form, area, offset, *values)

        for offset in (0x00, 0x20, 0x30, 0x40, 0x50):  # ES, SS, DS, FS, GS
            put(offset, "HHIQ", 0, 0x93, 0xFFFF, 0)
        put(0x10, "HHIQ", 0xF000, 0x9B, 0xFFFF, eip & 0xFFFF0000)  # CS
        put(0x60, "HHIQ", 0, 0, 0xFFFF, 0)  # GDTR
        put(0x70, "HHIQ", 0, 0x82, 0xFFFF, 0)  # LDTR
        put(0x80, "HHIQ", 0, 0, 0xFFFF, 0)  # IDTR
        put(0x90, "HHIQ", 0, 0x8B, 0xFFFF, 0)  # TR
        put(0xD0, "Q", 0x1000)  # EFER
        put(0x148, "QQQ", 0x40, 0, 0x10)  # CR4, CR3, CR0
        put(0x160, "QQQQ", 0x400, 0xFFFF0FF0, 2, eip & 0xFFFF)  # DR7, DR6, RFLAGS, RIP
        put(0x268, "Q", 0x0007040600070406)  # PAT
        put(0x310, "Q", cpuid)  # RDX
        put(0x3B0, "Q", 1)  # SEV_FEATURES
        put(0x3E8, "Q", 1)  # XCR0
        put(0x408, "IHHH", 0x1F80, 0, 0, 0x37F)  # MXCSR, FTW, FSW, FCW
        return bytes(area)

    def run(self, kernel: bytes, initrd: bytes, cmdline: str, vcpus: int) -> str:
        image = firmware()
        for offset in range(0, len(image), PAGE):
            self.page(1, (1 << 32) - len(image) + offset, image[offset : offset + PAGE])
        for gpa, pages, kind in SECTIONS:
            for number in range(pages):
                if kind == 0x10:
                    self.page(1, gpa, self.hashes(kernel, initrd, cmdline))
                else:
                    self.page({1: 3, 2: 5, 3: 6}[kind], gpa + number * PAGE)
        genoa = 0xA << 20 | 1 << 16 | 0xF << 8 | 1 << 4
        for number in range(vcpus):
            self.page(2, 0xFFFFFFFFF000, self.vmsa(RESET_EIP if number else 0xFFFFFFF0, genoa))
        return self.digest.hex()


class Guest:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kernel, self.initrd = b"kernel" * 1000, b"initrd" * 1000
        self.ovmf = self.write("ovmf.fd", firmware())
        self.files = (
            *("--kernel", self.write("kernel", self.kernel), "--initrd", self.write("initrd", self.initrd)),
            *("--append", CMDLINE, "--vcpu-type", "EPYC-Genoa"),
        )

    def write(self, name: str, data: bytes) -> str:
        (self.folder / name).write_bytes(data)
        return str(self.folder / name)

    def measure(self, *more: str, ovmf: str | None = None, vcpus: int = 2) -> Result:
        arguments = ["--ovmf", ovmf or self.ovmf, "--vcpus", str(vcpus), *self.files, *more]
        return CliRunner().invoke(cli, ["verify", "measure-snp", *arguments])

    def document(self, *more: str, **changes: Any) -> dict[str, Any]:
        made: dict[str, Any] = json.loads(self.measure(*more, "--json", **changes).stdout)
        return made


@pytest.fixture
def guest(tmp_path: Path) -> Guest:
    return Guest(tmp_path)


@pytest.mark.parametrize("vcpus", [1, 2, 8])
def test_measurement_is_the_one_computed_by_hand(guest: Guest, vcpus: int) -> None:
    expected = Reference().run(guest.kernel, guest.initrd, CMDLINE, vcpus)
    found = guest.document(vcpus=vcpus)
    assert found["measurement"] == expected
    assert found["sha256"]["kernel"] == hashlib.sha256(guest.kernel).hexdigest()
    assert found["sha256"]["append"] == hashlib.sha256(CMDLINE.encode()).hexdigest()


def test_every_input_changes_it(guest: Guest) -> None:
    plain = guest.document()["measurement"]
    other = guest.write("other", b"other")
    ovmf = guest.write("other.fd", firmware()[:PAGE] + bytes(PAGE) + firmware()[2 * PAGE :])
    changed = [
        guest.document("--kernel", other),
        guest.document("--initrd", other),
        guest.document("--append", CMDLINE + " init=/bin/sh"),
        guest.document("--vcpu-type", "EPYC-Milan"),
        guest.document("--guest-features", "0x3"),
        guest.document("--vmm", "ec2"),
        guest.document(ovmf=ovmf),
        guest.document(vcpus=3),
    ]
    assert len({plain, *(one["measurement"] for one in changed)}) == len(changed) + 1


def test_expected_value(guest: Guest) -> None:
    digest = guest.document()["measurement"]
    assert guest.measure("--expect", digest).exit_code == 0
    wrong = guest.measure("--expect", "00" * 48, "--json")
    assert wrong.exit_code == 10
    assert json.loads(wrong.stdout)["ok"] is False
    assert guest.measure("--expect", "00").exit_code == 2


def test_entry_of_a_release(guest: Guest) -> None:
    release = ("--name", 'SIMULATED "one"', "--model", MODEL, "--gpus", "2")
    file = guest.folder / "statement.json"
    found = guest.document(*release, "--statement", str(file), "--issued-at", "1800000000")
    statement = parse_statement(file.read_bytes())
    assert statement.release.release_id.hex() == found["release_id"]
    assert statement.issued_at == 1_800_000_000
    assert {one.name: one.sha256.hex() for one in statement.artifacts} == found["sha256"]
    text = guest.measure(*release).stdout
    toml = text[text.index("[[releases]]") :]
    head = f'global_id = -3\nmin_tcb_evaluation = 1\nmodels = ["{MODEL}"]\ntee_kinds = ["sev-snp"]\n'
    assert tomllib.loads(toml)["releases"][0]["gpus"] == 2
    policy = policy_from_toml(head + toml)
    assert [one.release_id.hex() for one in policy.snp_releases] == [found["release_id"]]


def test_model_that_is_not_measured(guest: Guest) -> None:
    found = guest.measure("--name", "one", "--model", "08" * 32)
    assert isinstance(found.exception, ConfigError)
    assert "does not name the model" in str(found.exception)
    assert guest.measure("--statement", "x").exit_code == 2


@pytest.mark.parametrize(
    ("image", "error"),
    [
        (b"", MalformedError),
        (bytes(100), MalformedError),
        (bytes(PAGE), MalformedError),
        (firmware(reset=False), MalformedError),
        (firmware(SECTIONS[:3]), MalformedError),  # no place for kernel hashes
        (firmware(((0x800000, 1, 9),)), MalformedError),
    ],
)
def test_firmware_that_does_not_fit(guest: Guest, image: bytes, error: type[Exception]) -> None:
    assert isinstance(guest.measure(ovmf=guest.write("bad.fd", image)).exception, error)


@pytest.mark.parametrize("more", [("--vcpu-type", "Pentium"), ("--vmm", "bhyve")])
def test_unknown_machine(guest: Guest, more: tuple[str, str]) -> None:
    assert isinstance(guest.measure(*more).exception, ConfigError)


def test_wrong_features(guest: Guest) -> None:
    for wrong in ("x", "0", "-1", hex(1 << 64)):
        assert guest.measure("--guest-features", wrong).exit_code == 2


def test_without_the_package(guest: Guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sevsnpmeasure", None)
    found = guest.measure()
    assert isinstance(found.exception, UnsupportedError)
    assert "measure" in str(found.exception.hint)
