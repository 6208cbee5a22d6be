"""`cocoon receipts`: what was answered, what it cost, and the proof of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cocoon_cli.clients import open_client, open_ledger, run
from cocoon_cli.inputs import read_file
from cocoon_cli.options import common_options, network_option
from cocoon_cli.output import SIMULATED, console, out, print_json, table, ton

if TYPE_CHECKING:
    from cocoon_proxy.dispute import Assessment
    from cocoon_proxy.ledger import ReceiptRow


@click.group()
def receipts() -> None:
    """List, show and export receipts."""


@receipts.command("list")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
@network_option
@common_options
def list_receipts(limit: int, network: str, as_json: bool) -> None:
    """List the newest receipts of the local ledger."""
    ledger = open_ledger(network)
    try:
        rows = ledger.receipts(limit=limit)
    finally:
        ledger.close()
    if as_json:
        print_json({"receipts": [_document(row) for row in rows]})
        return
    table(
        "Receipts",
        ["receipt", "time", "model", "status", "cost", ""],
        [
            (
                row.id.hex()[:16] + "…",
                time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row.issued_at)),
                row.model,
                row.status,
                ton(row.amount),
                SIMULATED if row.simulated else "",
            )
            for row in rows
        ],
    )


@receipts.command()
@click.argument("receipt_id")
@network_option
@common_options
def show(receipt_id: str, network: str, as_json: bool) -> None:
    """Show one receipt. RECEIPT_ID may be shortened to a unique beginning."""
    row = _find(receipt_id, network)
    if as_json:
        print_json(_document(row))
        return
    for key, value in _document(row).items():
        out().print(f"[bold]{key:>14}[/]  {value}")


@receipts.command()
@click.argument("receipt_id")
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    default=None,
    help="File [default: the first 16 digits of the id, with .cocoon.json].",
)
@click.option(
    "--request", type=click.Path(path_type=Path, exists=True), help="Exact request body, to include."
)
@click.option(
    "--response", type=click.Path(path_type=Path, exists=True), help="Exact response body, to include."
)
@network_option
@common_options
def export(
    receipt_id: str,
    output: Path | None,
    request: Path | None,
    response: Path | None,
    network: str,
    as_json: bool,
) -> None:
    """Write an offline bundle that `cocoon verify bundle` checks without any network.

    The ledger keeps no prompts and no answers; give their files to include them.
    """
    from cocoon_attestation.bundle import MAX_BUNDLE

    row = _find(receipt_id, network)
    bodies = {
        name: read_file(path, MAX_BUNDLE) if path else None
        for name, path in (("request", request), ("response", response))
    }

    async def main() -> bytes:
        async with open_client(network) as client:
            return await client.export_bundle(row.id.hex(), **bodies)

    document = run(main)
    target = output or Path(f"{row.id.hex()[:16]}.cocoon.json")
    try:
        target.write_bytes(document)
    except OSError as error:
        raise click.UsageError(f"cannot write {target}: {error.strerror}") from error
    if as_json:
        print_json({"ok": True, "bundle": str(target), "receipt": row.id.hex()})
    else:
        flag = "" if request and response else " --no-content"
        console().print(
            f"wrote [bold]{target}[/]; check it with: cocoon verify bundle {target} --offline{flag}"
        )


@receipts.command()
@click.argument("receipt_id")
@click.option("--send", is_flag=True, help="Send the challenge, or end one that was not answered.")
@network_option
@common_options
def dispute(receipt_id: str, send: bool, network: str, as_json: bool) -> None:
    """Check that the node has shown a receipt in its anchored log, and challenge it if not.

    A challenge needs a deposit; half of it comes back if the node can answer, all of it and a bounty if not.
    """
    row = _find(receipt_id, network)

    async def main() -> tuple[Assessment, str]:
        async with open_client(network) as client:
            return await client.dispute(row.id.hex(), send=send)

    assessment, action = run(main)
    if as_json:
        print_json(
            {
                "ok": True,
                "receipt": row.id.hex(),
                "finding": assessment.finding.value,
                "action": action or None,
                "sent": bool(action) and send,
                "log_index": assessment.receipt.index,
                "anchored_in_time": assessment.anchored_in_time,
                "anchor_by": assessment.receipt.anchor_by,
                "challenge_until": assessment.challenge_until,
                "answer_until": assessment.answer_until or None,
            }
        )
        return
    out().print(f"[bold]{assessment.finding.value}[/]: {_FINDINGS[assessment.finding.value]}")
    if action and send:
        console().print(f"sent: {action}")
    elif action:
        console().print(f"to do about it: cocoon receipts dispute {row.id.hex()[:16]} --send")


_FINDINGS = {
    "not_due": "the node still has time to anchor this receipt",
    "anchored": "the receipt is in the node's log, and the log was anchored in time",
    "withheld": "no log that was anchored in time reaches this receipt",
    "not_shown": "the node does not prove that the receipt is in its log",
    "challenged": "a challenge is open",
    "punished": "the node was slashed for this receipt",
    "too_late": "the time in which this receipt could be challenged is over",
    "nothing_at_stake": "the node holds no stake",
}


def _find(prefix: str, network: str) -> ReceiptRow:
    ledger = open_ledger(network)
    try:
        if len(prefix) == 64:
            return ledger.receipt(prefix)
        rows = [r for r in ledger.receipts(limit=10_000) if r.id.hex().startswith(prefix.lower())]
    finally:
        ledger.close()
    if len(rows) != 1:
        raise click.UsageError(f"{len(rows)} receipts begin with {prefix!r}")
    return rows[0]


def _document(row: ReceiptRow) -> dict[str, object]:
    document = row.to_dict()
    for secret in ("salt", "boc", "signature"):
        document.pop(secret, None)
    return document
