"""What is kept between appraisals never speaks for another time, policy, challenge or byte."""

from __future__ import annotations

import dataclasses
import datetime as dt
import importlib
import inspect
import pkgutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.ocsp import OCSPCertStatus

import cocoon_attestation
from cocoon_attestation.errors import MalformedError
from cocoon_attestation.gpu import certificates, manifests
from cocoon_attestation.gpu.ocsp import RevocationReader, parse_ocsp
from cocoon_enclave.attestation.simulated_gpu import SimulatedNvidia
from cocoon_enclave.attestation.simulated_gpu_pki import make_ocsp_response, seeded_random

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from tests.attestation.kit_nvidia import AT, NONCE, NOW, Machine
else:
    from kit_nvidia import AT, NONCE, NOW, Machine


@pytest.fixture
def machine(nvidia: SimulatedNvidia) -> Machine:
    made = Machine(nvidia)
    assert made.check()[1].accepted  # everything about it is kept from here on
    assert manifests._read.cache_info().currsize
    return made


def caches() -> list[tuple[str, Any]]:
    """Every memoized function of the package."""
    found = []
    for module in pkgutil.walk_packages(cocoon_attestation.__path__, "cocoon_attestation."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if hasattr(value, "cache_info") and value.__module__ == module.name:
                found.append((f"{module.name}.{name}", value))
    return found


def test_every_cache_has_a_bound() -> None:
    """Only pinned files, and what takes no argument, may be kept for ever."""
    kept = caches()
    assert len(kept) > 10
    for name, function in kept:
        bound = function.cache_info().maxsize
        pinned = name.startswith("cocoon_attestation.roots.")
        assert bound is not None or pinned or not inspect.signature(function).parameters, name


def test_no_cached_function_knows_time_policy_or_challenge() -> None:
    allowed = {
        "binding",
        "certificate",
        "child",
        "data",
        "der",
        "issuer",
        "name",
        "one",
        "position",
        "release",
        "version",
        "minimum",
        "form",
        "base",
    }
    for name, function in caches():
        if not name.startswith("cocoon_attestation.roots."):
            assert set(inspect.signature(function).parameters) <= allowed, name


@pytest.mark.parametrize("years", [-1, 1, 5])
def test_another_time_is_judged_anew(machine: Machine, years: int) -> None:
    at = AT + dt.timedelta(days=365 * years)
    failed = machine.failed(at=at)
    assert {"gpu.ocsp", "gpu.rim_ocsp"} <= set(failed)
    assert ("gpu.rim_chain" in failed) == (years in (-1, 5))


def test_another_policy_is_judged_anew(machine: Machine) -> None:
    other = SimulatedNvidia(now=NOW, rng=seeded_random(b"another vendor"))
    assert machine.failed(rules={"device_roots": frozenset({other.device_root.der})}) == ["gpu.chain"]
    assert machine.failed(rules={"rim_roots": frozenset({other.rim_root.der})}) == ["gpu.rim_chain"]


def test_another_challenge_is_judged_anew(machine: Machine) -> None:
    assert set(machine.failed(nonce=bytes(32))) == {"gpu.nonce", "gpu.ocsp", "gpu.rim_ocsp"}


def test_a_changed_manifest_is_read_anew(machine: Machine) -> None:
    [evidence] = machine.evidence()
    for position in range(0, len(evidence.rims[0]), 331):
        changed = bytearray(evidence.rims[0])
        changed[position] ^= 1
        broken = dataclasses.replace(evidence, rims=(bytes(changed), *evidence.rims[1:]))
        try:
            _, checks = machine.check(broken)
        except MalformedError:
            continue
        values = [manifests._read(bytes(changed))[1], manifests._read(evidence.rims[0])[1]]
        assert not checks.accepted or values[0] == values[1], position  # not signed: space, KeyInfo


def test_a_certificate_of_another_key_is_checked_anew() -> None:
    """A name, a serial number and an issuer in common are not enough: all bytes count."""
    first, second = (SimulatedNvidia(now=NOW, rng=seeded_random(seed)) for seed in (b"one", b"two"))
    chains = [[one.certificate for one in vendor.gpu(pdi=bytes(8)).chain] for vendor in (first, second)]
    for chain in chains:
        assert certificates.signature_valid(chain[0], chain[1])
        assert certificates.chain_problem(chain, {chain[-1].public_bytes(Encoding.DER)}) is None
    assert chains[0][1].serial_number == chains[1][1].serial_number
    assert not certificates.signature_valid(chains[0][0], chains[1][1])
    mixed = [chains[0][0], *chains[1][1:]]
    problem = certificates.chain_problem(mixed, {mixed[-1].public_bytes(Encoding.DER)})
    assert problem == "the signature of certificate 0 is wrong"


def test_answers_of_one_appraisal_are_not_those_of_another(machine: Machine) -> None:
    chain = [one.certificate for one in machine.gpu.chain]
    [evidence] = machine.evidence()
    reader = RevocationReader(NONCE, AT)
    answers = [reader.parse(data) for data in evidence.ocsp_responses]
    assert reader.problem(chain, range(1, 4), answers) is None
    assert reader.parse(evidence.ocsp_responses[0]) is answers[0]
    assert reader.problem(chain, range(1, 4), answers) is None
    for other in (RevocationReader(bytes(32), AT), RevocationReader(NONCE, AT + dt.timedelta(days=99))):
        assert other.problem(chain, range(1, 4), answers) is not None
    revoked = parse_ocsp(_revoked(machine))
    assert reader.problem(chain, [1], [*answers, revoked]) == "certificate 1: status revoked"
    assert reader.problem(chain, [1], answers) is None


def _revoked(machine: Machine) -> bytes:
    issuer = machine.gpu.chain[2]
    return make_ocsp_response(
        machine.gpu.chain[1].certificate,
        issuer,
        machine.vendor.responder(issuer),
        nonce=NONCE,
        at=AT,
        status=OCSPCertStatus.REVOKED,
    )
