"""`cocoon endorsements fetch tdx|snp|gpu`: what vendors say about hardware, as files for a host.

A host refreshes these files (cron is enough); the enclave staples them to its evidence. Nothing in them is
trusted: enclave and clients check every statement. See docs/spec/endorsements.md.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

import click

from cocoon_attestation.errors import ConfigError, MalformedError
from cocoon_cli.clients import run
from cocoon_cli.inputs import read_file
from cocoon_cli.options import common_options
from cocoon_cli.output import out, print_json
from cocoon_ton.paths import cache_dir

if TYPE_CHECKING:
    from cocoon_proxy.endorsements.service import Endorsements

P = ParamSpec("P")
FILE_LIMIT = 8 << 20
NVIDIA_VARIABLE = "COCOON_NVIDIA_TOKEN"
"""Environment variable with the bearer token for NVIDIA's manifest service, if one is needed."""
_FILE = click.Path(path_type=Path)
_OUT = click.option(
    "--out", "target", type=_FILE, required=True, help="Where to write; replaced as a whole."
)


@click.group()
def endorsements() -> None:
    """Fetch what vendors say about their hardware."""


@endorsements.group()
def fetch() -> None:
    """Fetch endorsements and write them for the enclave."""


def _connected(
    command: Callable[Concatenate[Endorsements, P], Awaitable[dict[str, object]]],
) -> Callable[P, None]:
    """Add the options of every fetch, open the cache, and show the document that the command returns."""

    @click.option("--pccs", default=None, metavar="URL", help="Take Intel's statements from this PCCS.")
    @click.option(
        "--ca-file", type=_FILE, default=None, help="Certificate authority of that service (PEM)."
    )
    @click.option("--offline", is_flag=True, help="Use what was fetched before; ask nobody.")
    @common_options
    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        options: dict[str, Any] = {
            name: kwargs.pop(name) for name in ("pccs", "ca_file", "offline", "as_json")
        }

        async def work() -> dict[str, object]:
            from cocoon_proxy.endorsements.service import Endorsements, sources_with

            token = os.environ.get(NVIDIA_VARIABLE, "")
            sources = sources_with(pccs=options["pccs"], ca_file=options["ca_file"], token=token)
            directory = cache_dir() / "endorsements"
            async with Endorsements(sources, directory=directory, offline=options["offline"]) as opened:
                return await command(opened, *args, **kwargs)

        document = run(work)
        if options["as_json"]:
            print_json(document)
            return
        for key, value in document.items():
            out().print(f"[bold]{key:>12}[/]  {value}")

    return wrapper


@fetch.command("tdx")
@click.option("--fmspc", default=None, metavar="HEX", help="Platform family, 12 hex digits.")
@click.option("--quote", type=_FILE, default=None, help="A quote of the platform, in place of --fmspc.")
@click.option(
    "--ca",
    type=click.Choice(["platform", "processor"]),
    default="platform",
    show_default=True,
    help="Authority of the PCK certificate; servers have the platform CA.",
)
@_OUT
@_connected
async def fetch_tdx(
    opened: Endorsements, fmspc: str | None, quote: Path | None, ca: str, target: Path
) -> dict[str, object]:
    """Intel's collateral for a platform family: the file that host.toml names as collateral."""
    from cocoon_attestation.tdx.collateral import parse_collateral
    from cocoon_proxy.endorsements.collateral import collateral_to_json
    from cocoon_proxy.endorsements.intel import PckCa

    if (fmspc is None) == (quote is None):
        raise click.UsageError("give either --fmspc or --quote")
    family = _family(fmspc) if fmspc is not None else _family_of_quote(quote or Path())
    collateral = await opened.intel.collateral(family, PckCa(ca))
    _write(target, json.dumps(collateral_to_json(collateral), indent=1).encode("ascii"))
    parsed = parse_collateral(collateral)
    return {
        "file": str(target),
        "fmspc": family.hex(),
        "evaluation": [parsed.tcb_info.evaluation, parsed.qe_identity.evaluation],
        "expires_at": parsed.expires_at,
    }


@fetch.command("snp")
@click.argument("report", type=_FILE)
@click.option("--certificate", type=_FILE, default=None, help="VCEK or VLEK that the guest has (DER).")
@click.option(
    "--product",
    type=click.Choice(["milan", "genoa", "turin"]),
    default=None,
    help="Needed for reports of version 2, which do not name it.",
)
@_OUT
@_connected
async def fetch_snp(
    opened: Endorsements, report: Path, certificate: Path | None, product: str | None, target: Path
) -> dict[str, object]:
    """AMD's certificate, chain and revocation list for the chip that made REPORT."""
    from cocoon_attestation.snp.report import Product

    found = await opened.amd.endorse(
        read_file(report, FILE_LIMIT),
        certificate=None if certificate is None else read_file(certificate, FILE_LIMIT),
        product=None if product is None else Product(product),
    )
    _write(target, json.dumps(found.to_json(), indent=1).encode("ascii"))
    return {"file": str(target), "certificate_bytes": len(found.certificate), "crl_bytes": len(found.crl)}


@fetch.command("gpu")
@click.argument("evidence", type=_FILE)
@click.option("--chain", type=_FILE, default=None, help="Certificate chain of a raw report (PEM).")
@_OUT
@_connected
async def fetch_gpu(
    opened: Endorsements, evidence: Path, chain: Path | None, target: Path
) -> dict[str, object]:
    """NVIDIA's manifests for the devices in EVIDENCE (a raw report, or NVIDIA's JSON), into a directory."""
    from cocoon_attestation.gpu.certificates import device_identity, parse_pem_chain
    from cocoon_attestation.gpu.report import parse_gpu_report
    from cocoon_attestation.vendor.gpu import read_devices
    from cocoon_proxy.endorsements.nvidia import manifest_ids

    pem = None if chain is None else read_file(chain, FILE_LIMIT)
    wanted = {
        manifest.id: manifest
        for device in read_devices(read_file(evidence, FILE_LIMIT), pem)
        for manifest in manifest_ids(
            parse_gpu_report(device.report), device_identity(parse_pem_chain(device.certificate_chain)).chip
        )
    }
    _make_directory(target)
    for name, manifest in wanted.items():
        _write(target / f"{name}.xml", await opened.nvidia.manifest(manifest))
    return {"directory": str(target), "manifests": sorted(wanted)}


def _family(text: str) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError as error:
        raise click.UsageError("--fmspc needs 12 hex digits") from error
    if len(value) != 6:
        raise click.UsageError("--fmspc needs 12 hex digits")
    return value


def _family_of_quote(path: Path) -> bytes:
    """The platform family in the PCK certificate of a TDX quote."""
    from cocoon_attestation.tdx.dcap import DcapError, pck_family
    from cocoon_attestation.tdx.quote import parse_quote

    quote = parse_quote(read_file(path, FILE_LIMIT))
    try:
        return pck_family(quote.pck_chain)[0]
    except DcapError as error:
        raise MalformedError("the quote's PCK certificate names no platform family") from error


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{path} cannot be made: {error.strerror}") from error


def _write(path: Path, data: bytes) -> None:
    """Public statements: readable by all, so that the enclave's user can read them too."""
    from cocoon_proxy.endorsements.store import write_atomically

    try:
        write_atomically(path, data, mode=0o644)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
