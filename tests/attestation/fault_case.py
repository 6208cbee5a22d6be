"""One fault, one failed check: what a case is, and the laboratory that all cases share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cocoon_attestation.checks import CheckList
from cocoon_attestation.errors import EvidenceRejectedError
from cocoon_attestation.policy import Policy
from cocoon_enclave.attestation.simulated_gpu import SimulatedNvidia
from cocoon_enclave.attestation.simulated_snp import SimulatedAmd

sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from tests.attestation.kit_amd import Guest
    from tests.attestation.kit_intel import Intel
    from tests.attestation.kit_nvidia import Machine
else:
    from kit_amd import Guest
    from kit_intel import Intel
    from kit_nvidia import Machine


class World:
    """Everything that is simulated: Intel, AMD, NVIDIA, and nodes."""

    def __init__(self, lab: Any, amd: SimulatedAmd, nvidia: SimulatedNvidia) -> None:
        self.lab, self.amd, self.nvidia = lab, amd, nvidia

    @cached_property
    def intel(self) -> Intel:
        """Raw quotes."""
        return Intel(self.lab)

    @cached_property
    def guest(self) -> Guest:
        """A healthy SEV-SNP guest."""
        return Guest(self.amd)

    @cached_property
    def machine(self) -> Machine:
        """A healthy machine with one GPU."""
        return Machine(self.nvidia)

    def appraise(
        self, evidence: bytes | None = None, policy: Policy | None = None, **changes: Any
    ) -> CheckList:
        """Appraise evidence of the laboratory, accepted or not; `changes` are of its policy."""
        rules = policy or self.lab.policy(**changes)
        try:
            checks: CheckList | None = self.lab.appraise(evidence, policy=rules).checks
        except EvidenceRejectedError as error:
            checks = error.checks
        assert checks is not None
        return checks


Build = Callable[[World], CheckList]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Evidence in which everything is right but one thing."""

    bad: Build
    good: Build
    """The same without the fault: the check passes there, and nothing fails."""
