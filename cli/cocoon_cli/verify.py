"""Commands of auditors: `verify node`, `evidence`, `receipt`, `bundle`; raw vendor evidence is in `verify_vendor`."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cocoon_attestation.checks import CheckList
from cocoon_attestation.errors import ConfigError, EvidenceRejectedError
from cocoon_attestation.evidence import MAX_EVIDENCE
from cocoon_cli.auditing import REJECTED, Report, audit_bundle, find_network, show_report
from cocoon_cli.clients import open_client, run
from cocoon_cli.inputs import parse_time, read_file, read_hex, read_text
from cocoon_cli.judged import EAR, EXPLAIN, print_ear, require_json
from cocoon_cli.measure_snp import measure_snp
from cocoon_cli.options import common_options, network_option
from cocoon_cli.output import working
from cocoon_cli.verify_documents import policy, read_registry, release
from cocoon_cli.verify_vendor import eventlog, gpu, quote, snp
from cocoon_ton.network import NetworkConfig, load_network

if TYPE_CHECKING:
    from cocoon_attestation.policy import Policy


@click.group()
def verify() -> None:
    """Check a node, evidence, a receipt or a bundle; or raw evidence of a vendor.

    Exit code 0: accepted, 10: rejected, 20: not supported here, 30: malformed, 40: no decision possible.
    """


for _command in (quote, snp, gpu, eventlog, measure_snp, policy, release):
    verify.add_command(_command)


@verify.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--network", default=None, envvar="COCOON_NETWORK", help="Name or file [default: by its registry]."
)
@click.option("--offline", is_flag=True, help="Use no network. Bundles never need one; this says so.")
@click.option("--no-content", is_flag=True, help="Accept a bundle that leaves request or response out.")
@EXPLAIN
@common_options
def bundle(
    file: Path, network: str | None, offline: bool, no_content: bool, explain: bool, as_json: bool
) -> None:
    """Check an offline bundle: receipt, keys, hardware, log and chain, as of the receipt's own time."""
    from cocoon_attestation.bundle import parse_bundle

    parsed = parse_bundle(read_file(file, 64 << 20))
    chosen = load_network(network) if network else find_network(parsed.global_id, parsed.registry)
    report = audit_bundle(parsed, chosen, content_required=not no_content)
    show_report(report, as_json=as_json, explain=explain)


@verify.command()
@click.argument("receipt_id")
@network_option
@EXPLAIN
@common_options
def receipt(receipt_id: str, network: str, explain: bool, as_json: bool) -> None:
    """Prove a receipt of the local ledger: fetch its proofs from node and chain and check them.

    The content is not checked: the ledger does not keep it. Use `receipts export` with files for that.
    """
    from cocoon_attestation.bundle import parse_bundle

    async def main() -> bytes:
        async with open_client(network) as client:
            return await client.export_bundle(receipt_id)

    with working("fetching proofs from node and chain"):
        parsed = parse_bundle(run(main))
    report = audit_bundle(parsed, load_network(network), content_required=False)
    show_report(report, as_json=as_json, explain=explain)


@verify.command()
@click.argument("node_id", required=False)
@network_option
@EXPLAIN
@common_options
def node(node_id: str | None, network: str, explain: bool, as_json: bool) -> None:
    """Appraise the live evidence of NODE_ID (hex), or of every node that the registry lists.

    Dials the node with a fresh nonce, exactly as a client does before it sends anything.
    """
    from cocoon_proxy.events import ClientEvent, EvidenceChecked

    found: list[EvidenceChecked] = []

    def note(event: ClientEvent) -> None:
        if isinstance(event, EvidenceChecked):
            found.append(event)

    overrides: dict[str, object] = {"policy.nodes": node_id} if node_id else {}

    async def main() -> None:
        async with open_client(network, overrides=overrides, on_event=note) as client:
            await client.models()

    try:
        with working("appraising" if node_id else "appraising every listed node"):
            run(main)
    except EvidenceRejectedError:
        if not found:
            raise
    checks = CheckList([check for event in found for check in event.checks])
    report = Report(
        subject="node",
        accepted=bool(found) and all(event.accepted for event in found),
        simulated=any(event.simulated for event in found),
        network=network,
        checks=checks,
        facts={
            "nodes": [event.node for event in found],
            "expires_at": [event.expires_at for event in found],
        },
    )
    show_report(report, as_json=as_json, explain=explain)


@verify.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--network", "--registry", default=None, help="Network whose registry gives the policy.")
@click.option(
    "--policy", "policy_file", type=click.Path(path_type=Path, exists=True), help="Policy in TOML."
)
@click.option(
    "--challenge", default=None, help="Your own nonce, 64 hex digits; without it: published evidence."
)
@click.option("--at", default=None, help="Time to appraise at (ISO 8601 or Unix) [default: now].")
@EXPLAIN
@EAR
@common_options
def evidence(
    file: Path,
    network: str | None,
    policy_file: Path | None,
    challenge: str | None,
    at: str | None,
    explain: bool,
    ear: bool,
    as_json: bool,
) -> None:
    """Appraise serialized evidence under the policy of a registry, or of a TOML file.

    Without --challenge the evidence must be the one whose digest the node recorded on chain.
    """
    from cocoon_attestation.policy_toml import policy_from_toml

    require_json(ear, as_json)
    if (network is None) == (policy_file is None):
        raise click.UsageError("give either --network (or --registry) or --policy")
    data = read_file(file, MAX_EVIDENCE)
    nonce = read_hex(challenge, 32, "--challenge") if challenge else None
    moment = parse_time(at)
    if policy_file is not None:
        if nonce is None:
            raise click.UsageError(
                "--policy needs --challenge: your own nonce; published evidence answers a block of the chain, "
                "which only --network can look up"
            )
        policy, name = policy_from_toml(read_text(policy_file)), str(policy_file)
    else:
        chosen = load_network(str(network))
        with working(f"reading the registry of {chosen.name}"):
            policy, recorded = run(lambda: _registry_view(chosen, data))
        name = chosen.name
        nonce = nonce or recorded
        if nonce is None:
            raise ConfigError(
                "the node's contract does not record this evidence",
                hint="if it answers your own nonce, give --challenge",
            )
    if ear:
        sys.exit(_show_ear(data, policy, nonce, moment))
    show_report(_appraised(data, policy, nonce, moment, name), as_json=as_json, explain=explain)


def _show_ear(data: bytes, policy: Policy, nonce: bytes, moment: int) -> int:
    """Print the claims set of an EAR; returns the exit code."""
    from cocoon_attestation.appraisal import appraise
    from cocoon_attestation.ear import Result

    result = Result(
        checks=(),
        accepted=False,
        simulated=policy.simulated,
        issued_at=moment,
        nonce=nonce,
        policy_digest=policy.digest,
    )
    try:
        enclave = appraise(data, policy=policy, challenge=nonce, now=moment)
    except EvidenceRejectedError as error:
        print_ear(dataclasses.replace(result, checks=tuple(error.checks or ())))
        return REJECTED
    print_ear(
        dataclasses.replace(
            result,
            checks=tuple(enclave.checks),
            accepted=True,
            expires_at=enclave.expires_at,
            tolerated=enclave.claims.get("tcb_tolerated") is not None,
        )
    )
    return 0


def _appraised(data: bytes, policy: Policy, nonce: bytes, moment: int, name: str) -> Report:
    """The report on evidence under a policy that `name` gives."""
    from cocoon_attestation.appraisal import appraise

    try:
        enclave = appraise(data, policy=policy, challenge=nonce, now=moment)
    except EvidenceRejectedError as error:
        return Report(
            subject="evidence",
            accepted=False,
            simulated=policy.simulated,
            network=name,
            checks=error.checks or CheckList(),
            facts={},
        )
    facts = {k: v.hex() if isinstance(v, bytes) else v for k, v in enclave.claims.items()}
    return Report(
        subject="evidence",
        accepted=True,
        simulated=enclave.simulated,
        network=name,
        checks=enclave.checks,
        facts=facts,
    )


async def _registry_view(network: NetworkConfig, data: bytes) -> tuple[Policy, bytes | None]:
    """The registry's policy, and the beacon challenge if the node's contract records exactly this evidence."""
    from cocoon_attestation.binding import beacon_challenge
    from cocoon_attestation.evidence import evidence_digest, parse_evidence
    from cocoon_ton.registry import policy_from_registry

    state = await read_registry(network)
    policy = policy_from_registry(state, network.dev_root)
    parsed = parse_evidence(data)
    entry = state.nodes.get(parsed.binding.node)
    keys = [k for k in ((entry.key, entry.key.previous) if entry and entry.key else ()) if k is not None]
    if parsed.beacon is None or not any(k.evidence_digest == evidence_digest(data) for k in keys):
        return policy, None
    return policy, beacon_challenge(parsed.beacon.seqno, parsed.beacon.root_hash)
