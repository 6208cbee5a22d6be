"""Records the checks of one device under its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cocoon_attestation.checks import CheckList

SPEC: Final = "docs/spec/gpu.md#"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRecorder:
    """Appends checks whose detail starts with the device they are about."""

    checks: CheckList
    device: str
    """For example ``gpu 3``."""

    def __call__(self, check: str, ok: bool, detail: str, inputs: tuple[tuple[str, str], ...] = ()) -> bool:
        """Append a passed or failed check and return `ok`."""
        return self.checks.record(check, ok, f"{self.device}: {detail}", spec=SPEC + check, inputs=inputs)

    def skip(self, check: str, why: str) -> None:
        """Append a check that was not made."""
        self.checks.skip(check, f"{self.device}: {why}", spec=SPEC + check)
