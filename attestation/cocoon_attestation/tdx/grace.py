"""Grace for outdated Intel platforms: a bounded time after a TCB recovery in which operators can update.

Off unless a policy sets `grace_s`. It begins when the first newer level of the part that is outdated
(platform, TDX module or quoting enclave) came into being, so a machine that slept through two recoveries
gets none for the second. Nothing here makes `Revoked` or a platform below every level acceptable: the
library refuses those before this module is asked. Rules: docs/spec/appraisal.md, section 4.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final

from cocoon_attestation.tdx.collateral import Collateral
from cocoon_attestation.tdx.dcap import DcapResult, level_key
from cocoon_attestation.tdx.requirements import PlatformRequirements

READ_AS: Final[Mapping[str, str]] = MappingProxyType(
    {"OutOfDate": "UpToDate", "OutOfDateConfigurationNeeded": "ConfigurationNeeded"}
)
"""What a status counts as while grace runs: the same without the part that only time cures."""
_DAY: Final = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Grace:
    """A running or ended period of grace."""

    read_as: str
    """The status that the policy must allow instead."""
    since: int
    """When the platform became outdated, Unix time in seconds."""
    until: int
    """First second without grace, Unix time."""

    def running(self, now: int) -> bool:
        """Tell whether grace runs at Unix time `now`."""
        return now < self.until

    def words(self, now: int) -> str:
        """One clause for people."""
        start, end = _date(self.since), _date(self.until)
        days = (self.until - self.since) // _DAY
        verb = "tolerated until" if self.running(now) else "grace ended"
        return f"{verb} {end}: {days} days after the recovery of {start}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One part of the platform: its own status, the date of its level and of all levels there are."""

    status: str
    date: int
    dates: tuple[int, ...]
    evaluation: int


def find_grace(
    result: DcapResult, module_svn: bytes | None, collateral: Collateral, policy: PlatformRequirements
) -> Grace | None:
    """The grace that `policy` gives a platform with this result; None if it gives none.

    Args:
        result: the library's answer on an authentic quote.
        module_svn: TEE_TCB_SVN of the report, 16 bytes; None for SGX.
        collateral: authenticated collateral.
        policy: gives the length of grace and, if it knows better than the levels, dates of recoveries.
    """
    read_as = READ_AS.get(result.status)
    if read_as is None or policy.grace_s <= 0:
        return None
    try:
        parts = [part for part in _parts(result, module_svn, collateral) if part.status in READ_AS]
    except (KeyError, TypeError, ValueError, AttributeError):
        return None  # signed by the vendor, yet of another form: no grace rather than a guess
    since = [_outdated_since(part, policy.recovery_dates) for part in parts]
    known = [date for date in since if date is not None]
    if not known or len(known) < len(since):
        return None
    start = min(known)
    return Grace(read_as=read_as, since=start, until=start + policy.grace_s)


def _outdated_since(part: _Part, recoveries: Mapping[int, int]) -> int | None:
    """When the first newer level came; None if there is none, so that nothing says what to update to."""
    newer = sorted({date for date in part.dates if date > part.date})
    if not newer:
        return None
    # Levels carry the date of the advisory; the vendor enforces them later. A policy may know that date,
    # which only concerns the latest recovery.
    latest_only = len(newer) == 1 and part.evaluation in recoveries
    return max(newer[0], recoveries[part.evaluation]) if latest_only else newer[0]


def _parts(result: DcapResult, module_svn: bytes | None, collateral: Collateral) -> Iterator[_Part]:
    info, identity = collateral.tcb_info, collateral.qe_identity
    tcb, qe = json.loads(info.text), json.loads(identity.text)
    matched = [level_key(level["tcb"]) == result.platform_level for level in tcb["tcbLevels"]]
    yield _part(tcb["tcbLevels"], matched, info.evaluation)
    reached = [level["tcb"]["isvsvn"] == result.qe_isv_svn for level in qe["tcbLevels"]]
    yield _part(qe["tcbLevels"], reached, identity.evaluation)
    if module_svn is not None and module_svn[1]:
        name = f"TDX_{module_svn[1]:02X}"
        (module,) = (one for one in tcb["tdxModuleIdentities"] if one["id"] == name)
        reached = [level["tcb"]["isvsvn"] <= module_svn[0] for level in module["tcbLevels"]]
        yield _part(module["tcbLevels"], reached, info.evaluation)


def _part(levels: Sequence[Mapping[str, str]], matched: Sequence[bool], evaluation: int) -> _Part:
    """The first matched level counts; raises `ValueError` without one."""
    level = levels[matched.index(True)]
    return _Part(
        status=level["tcbStatus"],
        date=_unix(level["tcbDate"]),
        dates=tuple(_unix(one["tcbDate"]) for one in levels),
        evaluation=evaluation,
    )


def _unix(text: str) -> int:
    return int(datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())


def _date(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).date().isoformat()
