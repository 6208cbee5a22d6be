"""Client progress events as lines for people."""

from __future__ import annotations

from typing import assert_never

from rich.markup import escape

from cocoon_cli.output import SIMULATED, moment, ton
from cocoon_proxy import events as e


def describe(event: e.ClientEvent) -> str:
    """One line of rich markup on an event; empty for events that only machines want."""
    match event:
        case e.WalletReady():
            note = f", funded with {ton(event.funded)} by the development faucet" if event.funded else ""
            return f"[dim]wallet[/] {event.address}{note}" if event.created else ""
        case e.UnsafeRules():
            return f"[bold red]UNSAFE[/] rules that check nothing: {escape('; '.join(event.reasons))}"
        case e.RegistryRead():
            return f"[dim]registry[/] proved at block {event.block_seqno}, {event.nodes} node(s)"
        case e.EvidenceChecked():
            passed = sum(c.verdict.value == "pass" for c in event.checks)
            mark = "[green]✓ verified[/]" if event.accepted else "[bold red]✗ refused[/]"
            note = f"  [yellow]{SIMULATED}[/]" if event.simulated else ""
            return f"{mark} node {event.node[:12]}…: {passed}/{len(event.checks)} checks passed{note}"
        case e.ChannelOpened():
            return f"[dim]channel[/] {event.channel[:12]}… opened with {ton(event.deposit)}"
        case e.ChannelToppedUp():
            return f"[dim]channel[/] {event.channel[:12]}… topped up with {ton(event.amount)}"
        case e.ChannelClosing():
            return f"[yellow]channel[/] {event.channel[:12]}… is closing; its rest is free at {moment(event.close_at)}"
        case e.ChannelClosed():
            note = f", {ton(event.returned)} went back to the wallet" if event.returned else ""
            return f"[dim]channel[/] {event.channel[:12]}… is closed{note}"
        case e.RequestSealed():
            return f"[dim]sealed[/] {event.size} bytes to {event.recipients} enclave(s), {event.suite}"
        case e.ReceiptVerified():
            return f"[dim]receipt[/] {event.receipt_id[:16]}… verified, cost {ton(event.amount)}"
        case e.FailedOver():
            return f"[yellow]node {event.node[:12]}… failed ({event.code}); trying another[/]"
        case e.NodeSelected() | e.FirstData() | e.SessionEnded():
            return ""
    assert_never(event)
