"""`verify policy` and `verify release`: the documents that say what evidence must be."""

from __future__ import annotations

import time
import tomllib
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cocoon_attestation.checks import CheckList
from cocoon_attestation.errors import ConfigError, RejectedError
from cocoon_cli.auditing import Report, show_report
from cocoon_cli.clients import run
from cocoon_cli.inputs import parse_time, read_file, read_hex, read_text
from cocoon_cli.judged import EXPLAIN
from cocoon_cli.options import common_options
from cocoon_cli.output import out, print_json, working
from cocoon_ton.network import NetworkConfig, load_network

if TYPE_CHECKING:
    from cocoon_attestation.policy import Policy
    from cocoon_ton.registry import RegistryState

_FILE = click.Path(path_type=Path)
MAX_ENVELOPE = 256 << 10


@click.command()
@click.argument("file", type=_FILE)
@common_options
def policy(file: Path, as_json: bool) -> None:
    """Check a policy.toml, or a file of client rules, and print its digest."""
    text = read_text(file)
    try:
        rules = "rules" in tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is not TOML: {error}") from error
    document = _rules(text) if rules else _policy(text)
    if as_json:
        print_json(document)
        return
    show = out().print
    show(f"[bold]{document['kind']}[/] digest {document['digest']}")
    notes = document["warnings"]
    for note in notes if isinstance(notes, list) else ():
        show(f"[bold yellow]{note}[/]")


def _policy(text: str) -> dict[str, object]:
    from cocoon_attestation.policy_toml import policy_from_toml

    found = policy_from_toml(text)
    names = {"releases": [{"id": one.release_id.hex(), "name": one.name} for one in found.releases]}
    return {
        "ok": True,
        "kind": "policy",
        "digest": found.digest.hex(),
        "warnings": _notes(found, int(time.time())),
        "policy": found.to_dict() | names,
    }


def _notes(found: Policy, now: int) -> list[str]:
    """What somebody should know before he relies on a policy."""
    from cocoon_attestation.snp.report import Product

    notes = []
    if found.simulated:
        notes.append("SIMULATED: a development root, so evidence of real hardware is refused")
    notes += [f"TCB status {status} is allowed" for status in sorted(found.statuses - {"UpToDate"})]
    if found.grace_s:
        notes.append(f"outdated platforms have {found.grace_s // 86_400} days of grace after a recovery")
    if found.snp is not None and Product.MILAN in found.snp.products:
        notes.append("Milan is allowed: extraction of its root seed is reported")
    if found.not_after is not None and found.not_after <= now:
        notes.append("the policy is past its own end: every appraisal under it fails")
    return notes


def _rules(text: str) -> dict[str, object]:
    from cocoon_attestation.policy_language import UnsafePolicyWarning
    from cocoon_attestation.policy_language_toml import rules_from_toml

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnsafePolicyWarning)  # said below, once and in one form
        found = rules_from_toml(text)
    return {
        "ok": True,
        "kind": "client-rules",
        "digest": found.digest.hex(),
        "warnings": [f"UNSAFE: a rule checks nothing ({reason})" for reason in found.unsafe],
        "rules": found.to_dict(),
    }


@click.command()
@click.argument("file", type=_FILE)
@click.option(
    "--reviewer", "keys", multiple=True, required=True, metavar="HEX", help="Ed25519 key; repeatable."
)
@click.option("--threshold", type=click.IntRange(1), required=True, help="How many must have signed.")
@click.option("--network", "--registry", default=None, help="Network whose registry must name it.")
@click.option("--policy", "policy_file", type=_FILE, help="Policy in TOML that must name it instead.")
@click.option("--at", default=None, metavar="TIME", help="Time to verify at [default: now].")
@EXPLAIN
@common_options
def release(
    file: Path,
    keys: tuple[str, ...],
    threshold: int,
    network: str | None,
    policy_file: Path | None,
    at: str | None,
    explain: bool,
    as_json: bool,
) -> None:
    """Check a signed release document: enough reviewers signed it, and the registry names the release."""
    from cocoon_attestation.policy_toml import policy_from_toml
    from cocoon_attestation.release_document import Reviewers, release_to_dict, verify_release_document
    from cocoon_ton.registry import policy_from_registry

    if (network is None) == (policy_file is None):
        raise click.UsageError("give either --network (or --registry) or --policy")
    reviewers = Reviewers(
        keys=frozenset(read_hex(key, 32, "--reviewer") for key in keys), threshold=threshold
    )
    envelope = read_file(file, MAX_ENVELOPE)
    if policy_file is not None:
        found, name = policy_from_toml(read_text(policy_file)), str(policy_file)
    else:
        chosen = load_network(str(network))
        with working(f"reading the registry of {chosen.name}"):
            found = policy_from_registry(run(lambda: read_registry(chosen)), chosen.dev_root)
        name = chosen.name
    facts: dict[str, object] = {}
    try:
        signed = verify_release_document(
            envelope, reviewers=reviewers, registry_ids=_ids(found), now=parse_time(at)
        )
        checks = signed.checks
        facts = {
            "release_id": signed.release.release_id.hex(),
            "release": release_to_dict(signed.release),
            "signers": sorted(key.hex() for key in signed.signers),
            "artifacts": {one.name: one.sha256.hex() for one in signed.document.artifacts},
            "issued_at": signed.document.issued_at,
            "expires_at": signed.document.expires_at,
        }
    except RejectedError as error:
        checks = error.checks or CheckList()
    report = Report(
        subject="release",
        accepted=checks.accepted,
        simulated=found.simulated,
        network=name,
        checks=checks,
        facts=facts,
    )
    show_report(report, as_json=as_json, explain=explain)


def _ids(found: Policy) -> Collection[bytes]:
    return {bytes(one.release_id) for one in found.releases}


async def read_registry(network: NetworkConfig) -> RegistryState:
    """The state of a network's registry, proved.

    Raises:
        ConfigError: there is no registry at the network's address.
    """
    from cocoon_ton.chain import LiteChain, default_anchors
    from cocoon_ton.registry import parse_registry

    async with LiteChain(network, anchors=default_anchors()) as chain:
        account = await chain.account(network.registry_address)
    if account.data is None:
        raise ConfigError("the network's registry is not deployed")
    return parse_registry(account.data)
