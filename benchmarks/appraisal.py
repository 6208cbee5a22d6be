"""What does an appraisal cost? Cold and warm, beside dcap-qvl alone and beside its signature checks alone.

*Cold* is the whole `appraise`: parse, authenticate, apply policy, with nothing kept from before. *Again* is the
same once more, as at the next appraisal of a node whose certificates are known. *Warm* is what a request pays once an
enclave is verified: time, policy and transport key against the existing `VerifiedEnclave`. *Floor* is the
number of different signatures in the evidence times what one check costs with the same library; everything
else (parsing, chains, dates, comparisons) is above it. All evidence is simulated, in the vendors' forms, with
their key types. Cases are interleaved round by round, so that noisy neighbours hit all; times are medians of
CPU time, which hardly depends on neighbours, with wall time beside it.

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
        found[f"again {case.name}"] = (cold(case), 1)
        found[f"warm {case.name}"] = (warm(case), _WARM_REPEATS)
        for kind, check in case.checks.items():
            found.setdefault(f"check {kind}", (check, _CHECK_REPEATS))
        if case.library is not None:
            found["dcap-qvl"] = (case.library, 1)
    return found


def cold(case: Case) -> Callable[[], VerifiedEnclave]:
    """One appraisal."""
    return lambda: appraise(case.evidence, policy=case.policy, challenge=case.challenge, now=case.now)


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
    """The line of one case."""
    cpu, wall = times[f"cold {case.name}"]
    floor = sum(count * times[f"check {kind}"][0] for kind, count in case.signatures.items())
    warm_cpu, warm_wall = times[f"warm {case.name}"]
    return {
        "case": case.name,
        "evidence_bytes": len(case.evidence),
        "signatures": dict(case.signatures),
        "cold_ms": round(cpu, 2),
        "cold_wall_ms": round(wall, 2),
        "floor_ms": round(floor, 2),
        "ratio": round(cpu / floor, 2),
        "again_ms": round(times[f"again {case.name}"][0], 2),
        "ratio_goal": GOAL_RATIO,
        "warm_ms": round(warm_cpu, 4),
        "warm_wall_ms": round(warm_wall, 4),
        "warm_goal_ms": GOAL_WARM_MS,
    }


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
        f"{'evidence':<26}{'KiB':>7}{'cold':>9}{'(wall)':>9}{'floor':>9}{'ratio':>7}{'again':>9}{'warm':>9}  signatures"
    )
    for one in document["rows"]:
        kinds = ", ".join(f"{count} {kind}" for kind, count in one["signatures"].items())
        print(
            f"{one['case']:<26}{one['evidence_bytes'] / 1024:>7.0f}{one['cold_ms']:>9.2f}"
            f"{one['cold_wall_ms']:>9.2f}{one['floor_ms']:>9.2f}{one['ratio']:>7.2f}"
            f"{one['again_ms']:>9.2f}{one['warm_ms']:>9.4f}  {kinds}"
        )
    print(f"{'dcap-qvl alone':<33}{document['dcap_qvl_ms']:>9.2f}")
    print(
        "\none signature check: " + ", ".join(f"{k} {v:.3f} ms" for k, v in document["checks_ms"].items())
    )
    print(f"goals: cold within {GOAL_RATIO} times the floor, warm below {GOAL_WARM_MS} ms")


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
        "dcap_qvl_ms": round(times["dcap-qvl"][0], 2),
        "checks_ms": {
            name.removeprefix("check "): round(taken[0], 4)
            for name, taken in times.items()
            if name.startswith("check ")
        },
    }
    if arguments.json:
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        show(document)


if __name__ == "__main__":
    main()
