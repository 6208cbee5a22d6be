"""What `verify` and `demo` share: auditing a bundle, and showing a verdict with all its checks."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cocoon_attestation.checks import CheckList, Verdict
from cocoon_attestation.errors import ConfigError, MalformedError, UnavailableError
from cocoon_cli.output import MARKS, SIMULATED, check_line, checks_json, explained_json, out, print_json
from cocoon_ton.address import raw_address
from cocoon_ton.errors import ChainProofError
from cocoon_ton.network import NetworkConfig, load_network
from cocoon_ton.paths import home_dir

if TYPE_CHECKING:
    from cocoon_attestation.bundle import Bundle

REJECTED = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The outcome of one verification."""

    subject: str
    accepted: bool
    simulated: bool
    network: str
    checks: CheckList
    facts: Mapping[str, object]

    def to_dict(self) -> dict[str, object]:
        """JSON-ready form."""
        return {
            "ok": self.accepted,
            "subject": self.subject,
            "verdict": "accepted" if self.accepted else "rejected",
            "simulated": self.simulated,
            "network": self.network,
            **self._tcb(),
            "claims": dict(self.facts),
            "checks": checks_json(self.checks),
        }

    def _tcb(self) -> dict[str, object]:
        """TCB status and advisories as the platform check saw them, refused ones too; null without one."""
        seen = next(
            (dict(check.inputs) for check in self.checks if check.id == "tdx.tcb" and check.inputs), {}
        )
        return {"tcb_status": seen.get("status"), "advisories": seen.get("advisories", "").split()}


def find_network(global_id: int, registry: str) -> NetworkConfig:
    """The network that this machine knows by its registry. A bundle never brings its own trust anchors.

    Raises:
        UnavailableError: no known network has that registry.
    """
    for path in sorted((home_dir() / "networks").glob("*.json")):
        try:
            network = load_network(path)
        except ConfigError:
            continue  # a broken file of another network must not hide this one
        if network.registry and (network.global_id, raw_address(network.registry_address)) == (
            global_id,
            registry,
        ):
            return network
    raise UnavailableError(
        f"no known network has the registry {registry[:80]} (global id {global_id})",
        hint="give its trust anchors with --network FILE; a bundle's own word for them counts nothing",
    )


def audit_bundle(bundle: Bundle, network: NetworkConfig, *, content_required: bool = True) -> Report:
    """Verify a parsed bundle against the trust anchors of `network`, without any I/O."""
    from cocoon_attestation.bundle import verify_bundle
    from cocoon_attestation.receipt import parse_receipt
    from cocoon_proxy.audit import chain_facts
    from cocoon_ton.proof.facts import verify_chain_facts

    checks = CheckList()
    facts: dict[str, object] = {}
    simulated = network.simulated
    try:
        proved = verify_chain_facts(bundle.chain, network)
        checks.record(
            "chain.proof",
            True,
            f"registry and node are proved at masterchain block {proved.block.seqno} from the pinned block",
            spec="docs/spec/ledger-client.md#proof-document",
        )
        receipt = parse_receipt(bundle.receipt)
        chain = chain_facts(
            proved.accounts, network=network, node=receipt.node, block_time=proved.block.utime
        )
        simulated = chain.policy.simulated
        checks.extend(verify_bundle(bundle, chain, content_required=content_required))
        facts = {
            "receipt": receipt.hash.hex(),
            "node": receipt.node.hex(),
            "model": receipt.model.hex(),
            "status": receipt.status,
            "prompt_tokens": receipt.prompt_tokens,
            "completion_tokens": receipt.completion_tokens,
            "amount_nanoton": receipt.amount,
            "issued_at": receipt.issued_at,
            "block": proved.block.seqno,
        }
    except ChainProofError as error:
        checks.record("chain.proof", False, str(error), spec="docs/spec/ledger-client.md#proof-document")
    except (MalformedError, ConfigError) as error:
        # The document was well-formed; a part inside it that does not parse is a refusal, not noise.
        checks.record("bundle.parts", False, str(error), spec="docs/spec/bundle.md")
    return Report(
        subject="bundle",
        accepted=checks.accepted,
        simulated=simulated,
        network=network.name,
        checks=checks,
        facts=facts,
    )


def show_report(report: Report, *, as_json: bool, explain: bool) -> None:
    """Print a report and leave with 0 or 10."""
    if as_json:
        document = report.to_dict()
        if explain:
            document["checks"] = explained_json(report.checks)
        print_json(document)
    else:
        _print_report(report, explain=explain)
    if not report.accepted:
        sys.exit(REJECTED)


def _print_report(report: Report, *, explain: bool) -> None:
    show = out().print
    for check in report.checks:
        show(check_line(check))
        if explain:
            for name, value in check.inputs:
                show(f"      [dim]{name} = {value}[/]")
    skipped = [c.id for c in report.checks.skipped]
    verdict = "[bold green]accepted[/]" if report.accepted else "[bold red]rejected[/]"
    mark = MARKS[Verdict.PASS if report.accepted else Verdict.FAIL]
    note = f"; not made: {', '.join(skipped)}" if skipped else ""
    show(f"{mark} {report.subject} {verdict} on network {report.network}{note}")
    if report.simulated:
        show(f"[bold yellow]{SIMULATED}[/]: no hardware stands behind this evidence.")
