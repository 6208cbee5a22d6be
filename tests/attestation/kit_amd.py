"""A healthy SEV-SNP guest for tests, with a place for every fault."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable
from typing import Any

from cocoon_attestation.checks import CheckList
from cocoon_attestation.snp.policy import SnpPolicy
from cocoon_attestation.snp.verify import SnpClaims, verify_snp
from cocoon_enclave.attestation.simulated_snp import ReportFields, SimulatedAmd, SimulatedChip

NOW = 1_800_000_000
AT = dt.datetime.fromtimestamp(NOW, dt.UTC)
MEASUREMENT = b"\x4d" * 48
REPORT_DATA = b"\x44" * 64


class Guest:
    """A healthy guest. `check` takes what to put wrong: rules, certificates, or fields of the report."""

    def __init__(self, amd: SimulatedAmd) -> None:
        self.amd = amd
        self.chip = amd.chip()
        self.crl = amd.crl()

    def rules(self, **changes: Any) -> SnpPolicy:
        policy = SnpPolicy(
            measurements=frozenset({MEASUREMENT}), report_data=REPORT_DATA, roots=(self.amd.root,)
        )
        return dataclasses.replace(policy, **changes)

    def check(
        self,
        *,
        fields: dict[str, Any] | None = None,
        rules: dict[str, Any] | None = None,
        chip: SimulatedChip | None = None,
        chain: str | None = None,
        crl: bytes | None = b"good",
        at: dt.datetime = AT,
        edit: Callable[[bytes], bytes] = lambda report: report,
    ) -> tuple[SnpClaims, CheckList]:
        signer = chip or self.chip
        report = ReportFields(product=self.amd.product, measurement=MEASUREMENT, report_data=REPORT_DATA)
        return verify_snp(
            edit(signer.report(dataclasses.replace(report, **(fields or {})))),
            signer.certificate,
            self.amd.chain_pem if chain is None else chain,
            self.crl if crl == b"good" else crl,
            self.rules(**(rules or {})),
            at,
        )

    def failed(self, **arguments: Any) -> list[str]:
        _, checks = self.check(**arguments)
        assert not checks.accepted
        return [check.id for check in checks.failed]
