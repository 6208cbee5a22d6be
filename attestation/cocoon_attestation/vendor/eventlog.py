"""A raw boot event log, CCEL or dstack JSON, against the registers of a quote."""

from __future__ import annotations

from cocoon_attestation.eventlog.replay import parse_eventlog, replay, verify_eventlog
from cocoon_attestation.tdx.quote import parse_quote
from cocoon_attestation.vendor.outcome import Outcome, judge

QUOTE_NOT_JUDGED = "the quote itself is not judged here: verify it with `cocoon verify quote`"


def verify_raw_eventlog(log: bytes, quote: bytes | None) -> Outcome:
    """Replay a log and compare it with the registers of a TDX quote.

    Without a quote nothing says that the log is true: the verdict is undecided.

    Raises:
        MalformedError: log or quote do not parse.
    """
    registers = None
    claims: dict[str, object] = {}
    if quote is not None:
        parsed = parse_quote(quote)
        report = parsed.report
        registers = [report.rtmr0, report.rtmr1, report.rtmr2, report.rtmr3]
        claims["quote_sha256"] = parsed.sha256.hex()
        claims["quote_rtmr"] = [register.hex() for register in registers]
    checks = verify_eventlog(log, registers)
    events, agent = parse_eventlog(log)
    claims |= {
        "format": "ccel" if agent is None else "dstack",
        "events": len(events),
        "replayed_rtmr": [register.hex() for register in replay(events)],
    }
    if agent is not None:
        claims["boot_events"] = [
            {"name": event.name, "payload": event.payload.hex()} for event in agent.boot_events
        ]
        claims["app_events"] = [event.name for event in agent.app_events]
    return Outcome(
        kind="event-log",
        verdict=judge(checks, frozenset()),
        checks=checks,
        waived=frozenset(),
        scope="event log",
        claims=claims,
        warnings=() if quote is None else (QUOTE_NOT_JUDGED,),
    )
