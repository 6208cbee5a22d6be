"""Prints the result of the overhead benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def show(document: Mapping[str, Any]) -> None:
    """Print the document as tables."""
    rows: Sequence[Mapping[str, Any]] = document["rows"]
    machine = document["machine"]
    print(f"{document['question']}\n")
    print(f"engine: {document['engine']}, answers of {document['max_tokens']} tokens; medians over rounds")
    print(
        f"machine: {machine['cores']} cores {machine['arch']}, Python {machine['python']}, "
        f"load average {machine['load_average_before'][0]} before, {machine['load_average_after'][0]} after\n"
    )
    print("wall time")
    print(f"{'streams':>8}{'ratio':>9}{'range':>18}{'bare tok/s':>12}{'conf. tok/s':>13}{'TTFT +ms':>10}")
    for row in rows:
        span = row["throughput_ratio_range"]
        print(
            f"{row['streams']:>8}{row['throughput_ratio']:>9}{span!s:>18}{row['bare_tokens_per_second']:>12}"
            f"{row['confidential_tokens_per_second']:>13}{row['ttft_overhead_ms']:>10}"
        )
    _where(rows, scripted=document["engine"].startswith("stand-in"))
    print("\nsingle parts")
    for part in document["parts"]:
        print(f"  {part['part']:<44}{part['microseconds']:>10} us per {part['per']}")


def _where(rows: Sequence[Mapping[str, Any]], *, scripted: bool) -> None:
    print("\nwhere the time goes: CPU microseconds")
    print(f"{'':44}" + "".join(f"{row['streams']:>7} str." for row in rows))
    lines: list[tuple[str, tuple[str, ...]]] = [
        ("per token, bare: engine", ("cpu_us_per_token", "bare", "engine")),
        ("per token, bare: driver", ("cpu_us_per_token", "bare", "driver")),
        ("per token: engine", ("cpu_us_per_token", "confidential", "engine")),
        ("per token: front-end, requests included", ("cpu_us_per_token", "confidential", "front_end")),
        ("per token: client, requests included", ("cpu_us_per_token", "confidential", "client")),
        ("one more token: front-end", ("marginal_cpu", "front_end", "us_per_token")),
        ("one more token: client", ("marginal_cpu", "client", "us_per_token")),
        ("one more request: front-end", ("marginal_cpu", "front_end", "us_per_request")),
        ("one more request: client", ("marginal_cpu", "client", "us_per_request")),
        ("engine CPU, confidential / bare", ("engine_cpu_ratio",)),
    ]
    if not scripted:  # a stand-in's time is nothing to compare with
        lines.append(("CPU, front-end / engine", ("front_end_share_of_engine_cpu",)))
    for name, path in lines:
        print(f"  {name:<42}" + "".join(f"{_at(row, path):>12}" for row in rows))


def _at(row: Mapping[str, Any], path: Sequence[str]) -> object:
    value: Any = row
    for key in path:
        value = value[key]
    return value
