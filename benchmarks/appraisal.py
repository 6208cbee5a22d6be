"""What does an appraisal cost? Cold, at the next challenge and warm, beside its signature checks alone.

*Cold* is the whole `appraise`: parse, authenticate, apply policy, with every cache of the package emptied
before. *Next* is the next appraisal of the same machine, for a fresh challenge: quote, device reports and
revocation answers are new, chains and manifests are known. *Warm* is what a request pays once an enclave is
verified: time, policy and transport key against the existing `VerifiedEnclave`.

*Floor* is the number of different signatures in the evidence times what one check costs with the same library,
the reading of its key included. *Floor and libraries* adds what the libraries take beside signatures: dcap-qvl,
signxml, decoding of certificates, one hash. All evidence is simulated, in the vendors' forms, with their key
types. Cases are interleaved round by round, so that noisy neighbours hit all; times are medians of CPU time,
which hardly depends on neighbours, with wall time beside it.

    python benchmarks/appraisal.py [--rounds 15] [--json]
"""

from __future__ import annotations

import argparse
import hmac
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from appraisal_cases import Case, board_case, snp_case, tdx_case  # type: ignore[import-not-found]
from cpu import machine  # type: ignore[import-not-found]

from cocoon_attestation.appraisal import appraise
from cocoon_attestation.verified import VerifiedEnclave

QUESTION: Final = "what does an appraisal cost, beside the signatures that it checks?"
GOAL_RATIO: Final = 1.5
GOAL_WARM_MS: Final = 0.2
_WARM_REPEATS: Final = 50
_CHECK_REPEATS: Final = 5

Work = Callable[[], object]


def works(cases: Sequence[Case]) -> dict[str, tuple[Work, int]]:
    """Everything that is timed, by name, with the number of repetitions in one sample."""
    found: dict[str, tuple[Work, int]] = {}
    for case in cases:
        found[f"cold {case.name}"] = (cold(case), 1)
        found[f"next {case.name}"] = (following(case), 1)
        found[f"warm {case.name}"] = (warm(case), _WARM_REPEATS)
        for kind, check in case.checks.items():
            found[f"check {kind}, {case.name}"] = (check, _CHECK_REPEATS)
        for name, library in case.libraries.items():
            found[f"library {name}, {case.name}"] = (library.call, 1)
    return found


def cold(case: Case) -> Callable[[], VerifiedEnclave]:
    """One appraisal."""
    return lambda: appraise(case.evidence, policy=case.policy, challenge=case.challenge, now=case.now)


def following(case: Case) -> Work:
    """One appraisal of the same machine for another challenge."""
    return lambda: appraise(
        case.next_evidence, policy=case.policy, challenge=case.next_challenge, now=case.now
    )


def forget() -> None:
    """Empty every cache of the package, so that an appraisal is the first of its process."""
    for name, module in list(sys.modules.items()):
        if name.startswith("cocoon_attestation"):
            for value in list(vars(module).values()):
                if callable(clear := getattr(value, "cache_clear", None)):
                    clear()


def warm(case: Case) -> Work:
    """The check before a request on an open session."""
    enclave, policy, now = cold(case)(), case.policy, case.now
    spki = bytes(enclave.binding.tls_spki_hash)

    def check() -> None:
        fits = hmac.compare_digest(enclave.binding.tls_spki_hash, spki)
        if not (fits and enclave.is_current(now) and enclave.policy_digest == policy.digest):
            raise RuntimeError("the session is not usable")

    return check


def measure(timed: Mapping[str, tuple[Work, int]], rounds: int) -> dict[str, tuple[float, float]]:
    """Median CPU and wall milliseconds of each, over interleaved rounds."""
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in timed}
    for number in range(rounds + 1):
        for name, (work, repeats) in timed.items():
            if name.startswith("cold "):
                forget()
            wall, cpu = time.perf_counter(), time.process_time()
            for _ in range(repeats):
                work()
            taken = (time.process_time() - cpu, time.perf_counter() - wall)
            if number:  # the first round warms the caches
                samples[name].append((taken[0] / repeats * 1e3, taken[1] / repeats * 1e3))
    return {
        name: (statistics.median(s[0] for s in taken), statistics.median(s[1] for s in taken))
        for name, taken in samples.items()
    }


def row(case: Case, times: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
    """The line of one case, with its parts."""
    cpu, wall = times[f"cold {case.name}"]
    one = {kind: times[f"check {kind}, {case.name}"][0] for kind in case.checks}
    floor = _cost(case.signatures, one)
    parts = {"different signatures, once each (the floor)": floor}
    if case.repeated:
        parts["signatures checked by a second implementation"] = _cost(case.repeated, one)
    for name, library in case.libraries.items():
        whole = times[f"library {name}, {case.name}"][0]
        parts[f"{name}{', beside its signatures' if library.signatures else ''}"] = max(
            0.0, whole - _cost(library.signatures, one)
        )
    known = sum(parts.values())
    parts["our own code"] = cpu - known
    warm_cpu, warm_wall = times[f"warm {case.name}"]
    return {
        "case": case.name,
        "evidence_bytes": len(case.evidence),
        "signatures": dict(case.signatures),
        "signatures_presented": case.presented,
        "cold_ms": round(cpu, 2),
        "cold_wall_ms": round(wall, 2),
        "floor_ms": round(floor, 2),
        "ratio": round(cpu / floor, 2),
        "ratio_goal": GOAL_RATIO,
        "ratio_with_libraries": round(cpu / known, 2),
        "next_ms": round(times[f"next {case.name}"][0], 2),
        "warm_ms": round(warm_cpu, 4),
        "warm_wall_ms": round(warm_wall, 4),
        "warm_goal_ms": GOAL_WARM_MS,
        "parts_ms": {name: round(value, 2) for name, value in parts.items()},
        "check_ms": {kind: round(value, 4) for kind, value in one.items()},
    }


def _cost(counts: Mapping[str, int], one: Mapping[str, float]) -> float:
    return sum(count * one[kind] for kind, count in counts.items())


def show(document: Mapping[str, Any]) -> None:
    """Print the document as tables."""
    host = document["machine"]
    print(f"{document['question']}\n")
    print(
        f"machine: {host['cores']} cores {host['arch']}, Python {host['python']}, load average "
        f"{host['load_average_before'][0]} before, {host['load_average_after'][0]} after; "
        f"medians of {document['rounds']} rounds, CPU milliseconds\n"
    )
    print(
        f"{'evidence':<25}{'KiB':>5}{'cold':>8}{'(wall)':>8}{'floor':>8}{'ratio':>7}{'+ libs':>8}{'next':>8}{'warm':>9}"
        "  signatures: different (presented)"
    )
    for one in document["rows"]:
        kinds = ", ".join(
            f"{count} {kind} of {one['check_ms'][kind]:.3f} ms" for kind, count in one["signatures"].items()
        )
        print(
            f"{one['case']:<25}{one['evidence_bytes'] / 1024:>5.0f}{one['cold_ms']:>8.2f}{one['cold_wall_ms']:>8.2f}"
            f"{one['floor_ms']:>8.2f}{one['ratio']:>7.2f}{one['ratio_with_libraries']:>8.2f}{one['next_ms']:>8.2f}"
            f"{one['warm_ms']:>9.4f}  {kinds} ({one['signatures_presented']})"
        )
    for one in document["rows"]:
        print(f"\nwhere the time of a cold appraisal goes: {one['case']}")
        for name, value in one["parts_ms"].items():
            print(f"  {name:<50}{value:>8.2f} ms{value / one['cold_ms']:>7.0%}")
    print(f"\ngoals: cold within {GOAL_RATIO} times the floor, warm below {GOAL_WARM_MS} ms")


def main() -> None:
    """Run the benchmark and print a table, or one JSON document."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    load = os.getloadavg()
    cases = (tdx_case(), snp_case(), board_case())
    times = measure(works(cases), arguments.rounds)
    document = {
        "question": QUESTION,
        "rounds": arguments.rounds,
        "machine": machine(load),
        "rows": [row(case, times) for case in cases],
    }
    if arguments.json:
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        show(document)


if __name__ == "__main__":
    main()
