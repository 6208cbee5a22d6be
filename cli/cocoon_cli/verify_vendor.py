"""`verify quote|snp|gpu|eventlog`: raw evidence of hardware vendors. Also the conformance interface.

The JSON document and the exit codes are stable: docs/spec/verify-vendor.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cocoon_attestation.errors import MalformedError
from cocoon_cli.inputs import read_file, read_hex, read_text
from cocoon_cli.judged import AT, EAR, judged

if TYPE_CHECKING:
    from cocoon_attestation.policy import Policy
    from cocoon_attestation.vendor.outcome import Outcome

FILE_LIMIT = 8 << 20
"""Longest input file in bytes; every parser behind it has a lower limit of its own."""

_FILE = click.Path(path_type=Path)
_POLICY = click.option(
    "--policy",
    "policy_file",
    type=_FILE,
    help="Rules of a session: a policy.toml. Without it: the hardware alone.",
)
_REPORT_DATA = click.option(
    "--report-data", default=None, metavar="HEX", help="The 64 bytes that the hardware must have signed."
)


@click.command()
@click.argument("file", type=_FILE)
@click.option(
    "--collateral", "collateral_file", type=_FILE, required=True, help="JSON, fields of QuoteCollateralV3."
)
@AT
@click.option(
    "--root", "root_file", type=_FILE, help="UNSAFE: DER certificate to trust instead of Intel's root."
)
@_REPORT_DATA
@click.option(
    "--mrtd", default=None, metavar="HEX", help="Expected MRTD (48 bytes); SGX: MRENCLAVE (32 bytes)."
)
@click.option(
    "--min-tcb-eval",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Smallest tcbEvaluationDataNumber.",
)
@click.option(
    "--allow-status",
    "statuses",
    multiple=True,
    metavar="S",
    help="TCB status to allow besides UpToDate; repeatable.",
)
@click.option(
    "--grace-days",
    type=click.IntRange(0, 30),
    metavar="N",
    help="Accept an outdated platform for N days after a recovery [default: the policy's, or 0].",
)
@click.option(
    "--allow-advisory",
    "allowed",
    multiple=True,
    metavar="ID",
    help="Advisory to tolerate; repeatable. Without it: all that go with an allowed status.",
)
@click.option(
    "--deny-advisory", "denied", multiple=True, metavar="ID", help="Advisory to refuse; repeatable."
)
@_POLICY
@EAR
@judged("quote")
def quote(
    file: Path,
    collateral_file: Path,
    root_file: Path | None,
    report_data: str | None,
    mrtd: str | None,
    min_tcb_eval: int,
    statuses: tuple[str, ...],
    grace_days: int | None,
    allowed: tuple[str, ...],
    denied: tuple[str, ...],
    policy_file: Path | None,
    now: int,
) -> Outcome:
    """Verify an Intel quote: TDX version 4 or 5, SGX version 3.

    Without expected values the software checks are shown as skipped, and the verdict speaks of the
    hardware only.
    """
    from cocoon_attestation.vendor.quote import QuoteOptions, verify_raw_quote

    options = QuoteOptions(
        root=None if root_file is None else _certificate(root_file),
        report_data=_optional_hex(report_data, 64, "--report-data"),
        mrtd=None if mrtd is None else read_hex(mrtd, _measurement_size(mrtd), "--mrtd"),
        min_tcb_evaluation=min_tcb_eval,
        statuses=frozenset(statuses),
        grace_s=None if grace_days is None else grace_days * 86_400,
        allowed_advisories=frozenset(allowed) or None,
        denied_advisories=frozenset(denied),
        policy=_policy(policy_file),
    )
    return verify_raw_quote(
        read_file(file, FILE_LIMIT), read_file(collateral_file, FILE_LIMIT), options, now
    )


@click.command()
@click.argument("file", type=_FILE)
@click.option("--cert", "cert_file", type=_FILE, required=True, help="VCEK or VLEK, DER or PEM.")
@click.option("--chain", "chain_file", type=_FILE, help="Its issuers, PEM [default: AMD's published ones].")
@click.option("--crl", "crl_file", type=_FILE, help="Revocation list of the product, DER or PEM.")
@AT
@_REPORT_DATA
@_POLICY
@EAR
@judged("snp-report")
def snp(
    file: Path,
    cert_file: Path,
    chain_file: Path | None,
    crl_file: Path | None,
    report_data: str | None,
    policy_file: Path | None,
    now: int,
) -> Outcome:
    """Verify an AMD SEV-SNP report (versions 2 to 5) with its VCEK or VLEK."""
    from cocoon_attestation.vendor.snp import SnpOptions, verify_raw_snp

    options = SnpOptions(
        report_data=_optional_hex(report_data, 64, "--report-data"), policy=_policy(policy_file)
    )
    return verify_raw_snp(
        read_file(file, FILE_LIMIT),
        read_file(cert_file, FILE_LIMIT),
        b"" if chain_file is None else read_file(chain_file, FILE_LIMIT),
        None if crl_file is None else read_file(crl_file, FILE_LIMIT),
        options,
        now,
    )


@click.command()
@click.argument("files", type=_FILE, nargs=-1, required=True, metavar="FILE…")
@click.option("--chain", "chain_file", type=_FILE, help="Certificates of a raw report, PEM, leaf first.")
@click.option("--rim", "rim_files", type=_FILE, multiple=True, help="Reference manifest (XML); repeatable.")
@click.option("--ocsp", "ocsp_files", type=_FILE, multiple=True, help="OCSP response (DER); repeatable.")
@click.option("--nonce", required=True, metavar="HEX", help="The 32 bytes that the requests must carry.")
@click.option(
    "--ocsp-nonce", default=None, metavar="HEX", help="Nonce of the OCSP requests [default: --nonce]."
)
@click.option(
    "--hardware-only", is_flag=True, help="Accept without manifests: genuine device, any firmware."
)
@AT
@_POLICY
@EAR
@judged("gpu-evidence")
def gpu(
    files: tuple[Path, ...],
    chain_file: Path | None,
    rim_files: tuple[Path, ...],
    ocsp_files: tuple[Path, ...],
    nonce: str,
    ocsp_nonce: str | None,
    hardware_only: bool,
    policy_file: Path | None,
    now: int,
) -> Outcome:
    """Verify evidence of NVIDIA GPUs and switches of one machine.

    FILE is a raw report (with --chain) or NVIDIA's JSON list; several files are one machine.
    """
    from cocoon_attestation.vendor.gpu import GpuOptions, read_devices, verify_raw_gpu

    options = GpuOptions(
        nonce=read_hex(nonce, 32, "--nonce"),
        ocsp_nonce=_optional_hex(ocsp_nonce, 32, "--ocsp-nonce"),
        policy=_policy(policy_file),
        hardware_only=hardware_only,
    )
    chain = None if chain_file is None else read_file(chain_file, FILE_LIMIT)
    devices = [device for file in files for device in read_devices(read_file(file, FILE_LIMIT), chain)]
    return verify_raw_gpu(
        devices,
        [read_file(file, FILE_LIMIT) for file in rim_files],
        [read_file(file, FILE_LIMIT) for file in ocsp_files],
        options,
        now,
    )


@click.command()
@click.argument("file", type=_FILE)
@click.option(
    "--quote", "quote_file", type=_FILE, help="TDX quote of the same boot. Without it: undecided."
)
@judged("event-log")
def eventlog(file: Path, quote_file: Path | None) -> Outcome:
    """Replay a boot event log (CCEL, or dstack JSON) against the registers of a quote."""
    from cocoon_attestation.vendor.eventlog import verify_raw_eventlog

    registers = None if quote_file is None else read_file(quote_file, FILE_LIMIT)
    return verify_raw_eventlog(read_file(file, FILE_LIMIT), registers)


def _policy(path: Path | None) -> Policy | None:
    if path is None:
        return None
    from cocoon_attestation.policy_toml import policy_from_toml

    return policy_from_toml(read_text(path))


def _certificate(path: Path) -> bytes:
    """A certificate in DER form; PEM is converted."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    data = read_file(path, 64 << 10)
    load = x509.load_pem_x509_certificate if data.startswith(b"-----") else x509.load_der_x509_certificate
    try:
        return load(data).public_bytes(Encoding.DER)
    except ValueError as error:
        raise MalformedError(f"{path} is not a certificate") from error


def _measurement_size(text: str) -> int:
    return 32 if len(text.removeprefix("0x")) == 64 else 48


def _optional_hex(text: str | None, size: int, what: str) -> bytes | None:
    return None if text is None else read_hex(text, size, what)
