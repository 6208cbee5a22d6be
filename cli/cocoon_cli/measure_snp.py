"""`verify measure-snp`: the launch measurement that a SEV-SNP guest must show, from its files.

The computation is the package ``sev-snp-measure`` (extra ``measure``). It is what reviewers of a release
repeat: same files, same number, then a policy entry and an in-toto statement to sign.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from cocoon_attestation.errors import ConfigError, MalformedError, UnsupportedError
from cocoon_attestation.reference import SnpRelease
from cocoon_attestation.release_document import Artifact, ReleaseDocument, encode_statement, release_to_dict
from cocoon_cli.inputs import read_hex
from cocoon_cli.options import common_options
from cocoon_cli.output import out, print_json

MAX_OVMF = 64 << 20
"""Longest firmware in bytes."""
MAX_VCPUS = 4096
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


def launch_digest(
    *,
    ovmf: Path,
    kernel: Path,
    initrd: Path | None,
    append: str,
    vcpus: int,
    vcpu_type: str,
    vmm: str = "QEMU",
    guest_features: int = 1,
) -> bytes:
    """The 48 bytes that AMD's firmware puts into MEASUREMENT of such a guest (SNP firmware ABI, 8.17).

    Args:
        ovmf: firmware image, whole pages, with SEV metadata and kernel hashes.
        kernel: kernel image, hashed into the firmware's table.
        initrd: initial file system, or None.
        append: kernel command line without the closing NUL.
        vcpus: number of virtual CPUs: each has a measured initial state.
        vcpu_type: CPU model of QEMU, for example ``EPYC-Genoa``.
        vmm: hypervisor: ``QEMU``, ``ec2`` or ``gce``.
        guest_features: SEV_FEATURES of the guest; bit 0 is SNP.

    Raises:
        UnsupportedError: ``sev-snp-measure`` is not installed.
        ConfigError: an unknown CPU model or hypervisor.
        MalformedError: the firmware is not one that a measured direct boot can use.
    """
    try:
        from sevsnpmeasure import guest, vcpu_types, vmm_types
        from sevsnpmeasure.sev_mode import SevMode
    except ImportError as error:
        raise UnsupportedError(
            "sev-snp-measure is not installed", hint="pip install 'cocoon-network[measure]'"
        ) from error
    signatures: Mapping[str, int] = vcpu_types.CPU_SIGS
    if vcpu_type not in signatures:
        raise ConfigError(f"unknown CPU model {vcpu_type!r}", hint="known: " + ", ".join(signatures))
    kinds: Mapping[str, Any] = vmm_types.VMMType.__members__
    if vmm not in kinds:
        raise ConfigError(f"unknown hypervisor {vmm!r}", hint="known: " + ", ".join(kinds))
    size = ovmf.stat().st_size
    if not 0 < size <= MAX_OVMF or size % 4096:
        raise MalformedError(f"{ovmf}: firmware has whole pages of 4096 bytes, at most {MAX_OVMF}")
    try:
        digest: bytes = guest.calc_launch_digest(
            SevMode.SEV_SNP,
            vcpus,
            signatures[vcpu_type],
            str(ovmf),
            str(kernel),
            "" if initrd is None else str(initrd),
            append,
            guest_features,
            vmm_type=kinds[vmm],
        )
    except Exception as error:  # seam to a third-party library: whatever it says, the firmware does not fit
        raise MalformedError(
            f"{ovmf}: {str(error) or type(error).__name__}",
            hint="a build of OVMF for AMD SEV with kernel hashes is needed (OvmfPkg/AmdSev)",
        ) from error
    return digest


@click.command("measure-snp")
@click.option("--ovmf", type=_FILE, required=True, help="Firmware with SEV metadata.")
@click.option("--kernel", type=_FILE, required=True, help="Kernel: without it nobody knows what is booted.")
@click.option("--initrd", type=_FILE, help="Initial file system.")
@click.option("--append", default="", metavar="TEXT", help="Kernel command line.")
@click.option("--vcpus", type=click.IntRange(1, MAX_VCPUS), required=True, help="Number of virtual CPUs.")
@click.option(
    "--vcpu-type", default="EPYC-Genoa", show_default=True, metavar="MODEL", help="CPU model of QEMU."
)
@click.option("--vmm", default="QEMU", show_default=True, metavar="NAME", help="QEMU, ec2 or gce.")
@click.option("--guest-features", default="0x1", show_default=True, metavar="HEX", help="SEV_FEATURES.")
@click.option("--name", default=None, metavar="TEXT", help="Name of the release: also print its entry.")
@click.option("--model", "models", multiple=True, metavar="HEX", help="Model digest in TEXT; repeatable.")
@click.option("--gpus", type=click.IntRange(0, 16), default=0, help="GPUs that the image demands.")
@click.option("--expect", default=None, metavar="HEX", help="48 bytes: exit with 10 if it is another one.")
@click.option(
    "--statement", "statement_file", type=click.Path(path_type=Path), help="Write the statement to sign."
)
@click.option("--issued-at", type=click.IntRange(1), default=None, help="Time in it [default: now].")
@common_options
def measure_snp(
    ovmf: Path,
    kernel: Path,
    initrd: Path | None,
    append: str,
    vcpus: int,
    vcpu_type: str,
    vmm: str,
    guest_features: str,
    name: str | None,
    models: tuple[str, ...],
    gpus: int,
    expect: str | None,
    statement_file: Path | None,
    issued_at: int | None,
    as_json: bool,
) -> None:
    """Compute the launch measurement of a SEV-SNP guest from firmware, kernel, initrd and command line."""
    expected = None if expect is None else read_hex(expect, 48, "--expect")
    digest = launch_digest(
        ovmf=ovmf,
        kernel=kernel,
        initrd=initrd,
        append=append,
        vcpus=vcpus,
        vcpu_type=vcpu_type,
        vmm=vmm,
        guest_features=_number(guest_features),
    )
    files = {"ovmf": ovmf, "kernel": kernel} | ({} if initrd is None else {"initrd": initrd})
    hashes = {what: _sha256(path) for what, path in files.items()}
    hashes["append"] = hashlib.sha256(append.encode()).digest()
    document: dict[str, object] = {
        "ok": expected in (None, digest),
        "kind": "snp-measurement",
        "measurement": digest.hex(),
        "expected": None if expected is None else expected.hex(),
        "vcpus": vcpus,
        "vcpu_type": vcpu_type,
        "vmm": vmm,
        "sha256": {what: value.hex() for what, value in hashes.items()},
    }
    release = None if name is None else _release(name, digest, models, gpus, append)
    if release is not None:
        document |= {"release": release_to_dict(release), "release_id": release.release_id.hex()}
    if statement_file is not None:
        if release is None:
            raise click.UsageError("--statement needs --name and --model")
        artifacts = tuple(Artifact(name=what, sha256=value) for what, value in hashes.items())
        signed = ReleaseDocument(
            release=release, issued_at=issued_at or int(time.time()), artifacts=artifacts
        )
        statement_file.write_bytes(encode_statement(signed))
    _show(document, release, as_json=as_json)
    raise SystemExit(0 if document["ok"] else 10)


def _release(name: str, digest: bytes, models: tuple[str, ...], gpus: int, append: str) -> SnpRelease:
    """The release, whose models must stand in the measured command line."""
    digests = tuple(read_hex(model, 32, "--model") for model in models)
    for model in digests:
        if model.hex() not in append:
            raise ConfigError(
                f"the command line does not name the model {model.hex()}",
                hint="what is not in the measured command line is not measured",
            )
    return SnpRelease(name=name, measurement=digest, models=digests, gpus=gpus)


def _number(text: str) -> int:
    try:
        value = int(text, 0)
    except ValueError as error:
        raise click.UsageError("--guest-features: a number such as 0x1") from error
    if not 0 < value < 1 << 64:
        raise click.UsageError("--guest-features has 64 bits, and bit 0 is SNP")
    return value


def _sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _show(document: Mapping[str, object], release: SnpRelease | None, *, as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    show = out().print
    show(f"[bold]{document['measurement']}[/]")
    if document["expected"] is not None:
        show("[green]as expected[/]" if document["ok"] else f"[bold red]expected[/] {document['expected']}")
    if release is not None:
        show(f"release id {release.release_id.hex()}; entry of a policy file:\n", markup=False)
        show("[[releases]]", markup=False)
        for key, value in release_to_dict(release).items():
            # JSON of printable ASCII texts, their lists and small numbers is TOML as well.
            show(f"{key} = {json.dumps(value)}", markup=False)
