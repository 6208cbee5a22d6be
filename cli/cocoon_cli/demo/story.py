"""The demo, step by step: each method is one chapter that a person sees and one part of the JSON document."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from cocoon_attestation.checks import Check, Verdict
from cocoon_attestation.errors import ConfigError, RejectedError
from cocoon_cli.demo import attacks
from cocoon_cli.demo.gateway import Answer, DemoGateway, Seen, save_exchange
from cocoon_cli.demo.ledger import wait_anchored, wait_settled
from cocoon_cli.demo.recorder import Recorder
from cocoon_cli.devnetwork import DevNetwork, DevSettings, host_wallet
from cocoon_cli.output import SIMULATED, ton
from cocoon_cli.processes import ManagedProcess
from cocoon_ton.network import NetworkConfig

ANCHOR_WAIT_S = 40.0
SETTLE_WAIT_S = 40.0


class Story:
    """Runs the demo's network below `work` and writes the proof to `bundle`. A context manager."""

    def __init__(self, recorder: Recorder, *, work: Path, bundle: Path) -> None:
        self.recorder = recorder
        self.work = work
        self.bundle = bundle
        settings = DevSettings(name="demo", root=work, anchor_every_s=1, settle_above=1, poll_s=0.3)
        self.running = DevNetwork(settings, self._brought_up)
        self._mark = time.monotonic()

    def __enter__(self) -> Story:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.running.stop()

    def run(self, prompt: str, max_tokens: int) -> None:
        """The whole story. Raises the first error; what came before stays recorded."""
        network = self._bring_up()
        gateway = self._start_gateway()
        answer = Answer(self._request(prompt, max_tokens))
        self._ask(gateway, answer)
        receipt = self._receipt(gateway, answer)
        self._anchor(network, receipt)
        self._settle(network, gateway, receipt)
        self._export(answer, receipt)
        self._audit()
        self._attack(network)

    # -- chapters ---------------------------------------------------------------------------------

    def _brought_up(self, what: str, detail: str) -> None:
        elapsed = round((time.monotonic() - self._mark) * 1000)
        self._mark = time.monotonic()
        titles = {
            "chain": "TON chain",
            "registry": "registry deployed",
            "enclave": "enclave started",
            "node": "node joined",
        }
        self.recorder.done(what, titles.get(what, what), ms=elapsed, detail=detail)

    def _bring_up(self) -> NetworkConfig:
        self._mark = time.monotonic()
        network = self.running.start()
        model = self.running.model
        if model is None:
            raise ConfigError("the network has no model")
        self.recorder.document.update(
            network={
                "name": network.name,
                "global_id": network.global_id,
                "registry": network.registry,
                "simulated": network.simulated,
            },
            model={"name": model.name, "digest": model.digest.hex()},
        )
        return network

    def _start_gateway(self) -> DemoGateway:
        argv = [
            *_cocoon("serve"), "--network", str(self.work / "network.json"),
            "--port", "0", "--grpc-port", "0", "--events",
        ]  # fmt: skip
        process = ManagedProcess(
            "gateway", argv, self.work / "logs" / "gateway.log", env=self._client_env()
        )
        with self.recorder.step("gateway", "gateway started") as step:
            ready = self.running.group.add(process, timeout=60)
            step.detail = str(ready["base_url"])
        return DemoGateway(process, ready)

    def _request(self, prompt: str, max_tokens: int) -> bytes:
        model = self.recorder.document["model"]["name"]
        body = {
            "model": model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        self.recorder.say(f"\n[bold]You:[/] {prompt}\n")
        return json.dumps(body).encode()

    def _ask(self, gateway: DemoGateway, answer: Answer) -> None:
        shown = False
        for piece in gateway.ask(answer.request, answer):
            if not shown:
                self._before_the_answer(gateway, answer)
                self.recorder.say("\n[bold]Answer:[/]")
                shown = True
            self.recorder.write(piece)
        self.recorder.write("\n\n")
        elapsed = round((answer.ended - answer.started) * 1000)
        self.recorder.done("answer", "answer streamed", ms=elapsed, detail="decrypted piece by piece")

    def _before_the_answer(self, gateway: DemoGateway, answer: Answer) -> None:
        """What happened between the request and its first token, from the gateway's own events."""
        registry, evidence = gateway.event("RegistryRead"), gateway.event("EvidenceChecked")
        channel, sealed = gateway.event("ChannelOpened"), gateway.event("RequestSealed")
        say = self.recorder.done
        say(
            "registry_read", "registry proved", ms=_ms(answer.started, registry.at),
            detail=f"block {registry.body['block_seqno']}, validator signatures and Merkle proofs checked",
        )  # fmt: skip
        checks = _checks(evidence)
        accepted = bool(evidence.body["accepted"])
        say(
            "evidence", "evidence appraised", ms=_ms(registry.at, evidence.at), ok=accepted,
            detail=f"fresh nonce; {len(checks)} checks   {SIMULATED}",
        )  # fmt: skip
        self.recorder.checks(checks)
        self.recorder.document["evidence"] = {
            "tee": "tdx",
            "simulated": bool(evidence.body["simulated"]),
            "checks": [{"id": c.id, "verdict": c.verdict.value} for c in checks],
        }
        deposit = int(str(channel.body["deposit"]))
        say(
            "channel", "channel funded", ms=_ms(evidence.at, channel.at),
            detail=f"{str(channel.body['channel'])[:16]}… with {ton(deposit)}",
        )  # fmt: skip
        say(
            "sealed", "prompt sealed", ms=_ms(channel.at, sealed.at),
            detail=f"{sealed.body['size']} bytes, {sealed.body['suite']}, "
            f"{sealed.body['recipients']} recipient(s)",
        )  # fmt: skip
        say(
            "first_token",
            "first token",
            ms=_ms(sealed.at, answer.first),
            detail="after the prompt was sealed",
        )

    def _receipt(self, gateway: DemoGateway, answer: Answer) -> dict[str, Any]:
        seen = gateway.event("ReceiptVerified")
        usage = seen.body["usage"]
        if not isinstance(usage, dict):
            raise ConfigError("the gateway reported no usage")
        completion = int(usage["completion"])
        seconds = answer.ended - answer.first
        self.recorder.document.update(
            prompt_tokens=int(usage["prompt"]),
            completion_tokens=completion,
            tokens_per_second=round((completion - 1) / seconds, 2)
            if completion > 1 and seconds > 0
            else 0.0,
            receipt={"id": str(seen.body["receipt_id"]), "verified": True},
        )
        amount = int(str(seen.body["amount"]))
        self.recorder.done(
            "receipt", "receipt verified", ms=_ms(answer.started, seen.at),
            detail=f"{str(seen.body['receipt_id'])[:16]}…  {usage['prompt']} + {completion} tokens, {ton(amount)}",
        )  # fmt: skip
        self.recorder.checks(_checks(seen))
        return dict(seen.body)

    def _anchor(self, network: NetworkConfig, receipt: dict[str, Any]) -> None:
        index = self._ledger_receipt(str(receipt["receipt_id"]))["log_index"]
        with self.recorder.step("anchor", "receipt anchored") as step:
            anchored = asyncio.run(
                wait_anchored(network, str(receipt["node"]), int(index), within=ANCHOR_WAIT_S)
            )
            step.detail = f"tree of {anchored.tree_size}, transaction {anchored.tx_hash[:16]}…, fee {ton(anchored.fee)}"
        self.recorder.document["anchor"] = {
            "tx_hash": anchored.tx_hash,
            "tree_size": anchored.tree_size,
            "fee_nanoton": anchored.fee,
            "inclusion_verified": False,
        }

    def _settle(self, network: NetworkConfig, gateway: DemoGateway, receipt: dict[str, Any]) -> None:
        channel = str(gateway.event("ChannelOpened").body["channel"])
        owner = host_wallet(self.work / "host", network.global_id).address
        with self.recorder.step("settle", "channel settled") as step:
            settled = asyncio.run(
                wait_settled(network, channel, owner, int(receipt["amount"]), within=SETTLE_WAIT_S)
            )
            step.detail = f"client paid {ton(settled.paid)}, host received {ton(settled.received)}"
        self.recorder.document["payment"] = {
            "channel": channel,
            "client_paid_nanoton": settled.paid,
            "host_received_nanoton": settled.received,
            "settled": True,
        }

    def _export(self, answer: Answer, receipt: dict[str, Any]) -> None:
        request, response = save_exchange(self.work, answer)
        self.bundle.parent.mkdir(parents=True, exist_ok=True)
        with self.recorder.step("inclusion", "inclusion proved") as step:
            self._run_cocoon(
                "receipts", "export", str(receipt["receipt_id"]),
                "--request", str(request), "--response", str(response),
                "--output", str(self.bundle), "--network", str(self.work / "network.json"),
            )  # fmt: skip
            step.detail = f"offline bundle of {self.bundle.stat().st_size:,} bytes: {self.bundle}"
        self.recorder.document["bundle"] = str(self.bundle)

    def _audit(self) -> None:
        with self.recorder.step("audit", "audited offline") as step:
            report = self._run_cocoon(
                "verify",
                "bundle",
                str(self.bundle),
                "--offline",
                "--network",
                str(self.work / "network.json"),
            )
            if not report.get("ok"):
                raise RejectedError("the auditor rejected the bundle")
            passed = {c["id"] for c in report["checks"] if c["verdict"] == "pass"}
            self.recorder.document["anchor"]["inclusion_verified"] = "bundle.inclusion" in passed
            step.ok = "bundle.inclusion" in passed
            step.detail = f"separate process, no network: {len(report['checks'])} checks passed"

    def _attack(self, network: NetworkConfig) -> None:
        platform = self.running.platform
        if platform is None:
            raise ConfigError("the network has no simulated platform")
        policy, evidence, nonce = asyncio.run(attacks.live_evidence(network))
        mounted: list[Callable[[], attacks.Outcome]] = [
            lambda: attacks.flipped_measurement(platform, policy, evidence, nonce),
            lambda: attacks.swapped_seal_key(policy, evidence, nonce),
            lambda: attacks.altered_answer(self.bundle.read_bytes(), network),
        ]
        self.recorder.say("\n[bold]Attacks[/]")
        outcomes = []
        for mount in mounted:
            started = time.monotonic()
            outcome = mount()
            outcomes.append(outcome.to_dict())
            self.recorder.done(
                f"attack_{outcome.id}", "refused" if outcome.refused else "NOT REFUSED",
                ms=_ms(started, time.monotonic()), ok=outcome.refused,
                detail=f"{outcome.story}: caught by {outcome.check}",
            )  # fmt: skip
        self.recorder.document["attacks"] = outcomes

    # -- helpers ----------------------------------------------------------------------------------

    def _client_env(self) -> dict[str, str]:
        return {**os.environ, "COCOON_HOME": str(self.work / "home")}

    def _run_cocoon(self, *arguments: str) -> dict[str, Any]:
        """Run `cocoon … --json` as a process of its own and return its document."""
        result = subprocess.run(
            [*_cocoon(*arguments), "--json"],
            env=self._client_env(),
            capture_output=True,
            timeout=120,
            check=False,
        )
        document: dict[str, Any] = {}
        with contextlib.suppress(ValueError):
            document = json.loads(result.stdout)
        if result.returncode != 0:
            error = document.get("error") or {"message": result.stderr.decode(errors="replace")[-500:]}
            failed = [c["id"] for c in document.get("checks", []) if c["verdict"] != "pass"]
            raise RejectedError(
                f"cocoon {arguments[0]} {arguments[1]}: {error.get('message', '')} {failed}"
            )
        return document

    def _ledger_receipt(self, receipt_id: str) -> dict[str, Any]:
        return self._run_cocoon(
            "receipts", "show", receipt_id, "--network", str(self.work / "network.json")
        )


def _cocoon(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "cocoon_cli", *arguments]


def _ms(start: float, end: float) -> int:
    return max(0, round((end - start) * 1000))


def _checks(seen: Seen) -> list[Check]:
    found = seen.body.get("checks")
    if not isinstance(found, list):
        return []
    return [Check(id=str(c["id"]), verdict=Verdict(c["verdict"]), detail=str(c["detail"])) for c in found]
