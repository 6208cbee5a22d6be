"""The attester on real Intel TDX hardware: quotes through configfs-tsm, RTMR3 through sysfs.

Kernel interfaces: Documentation/ABI/testing/configfs-tsm-report (Linux 6.7) and
Documentation/ABI/testing/sysfs-devices-virtual-misc-tdx_guest (Linux 6.16).
"""

from __future__ import annotations

import errno
import hmac
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cocoon.v1 import evidence_pb2
from cocoon_attestation.errors import (
    ConfigError,
    MalformedError,
    UnavailableError,
    UnsupportedError,
)
from cocoon_attestation.reference import TeeKind
from cocoon_attestation.rtmr3 import REGISTER_SIZE, RuntimeEvent, replay
from cocoon_attestation.tdx.quote import MAX_QUOTE, parse_quote
from cocoon_attestation.types import exact_bytes

NO_TDX_HINT: Final = (
    "run this inside a TDX guest with Linux 6.16 or newer, or use a development network, "
    "where the TEE is simulated"
)
CollateralSource = Callable[[], evidence_pb2.TdxCollateral]
"""Gives current collateral for this platform; the host refreshes it, verifiers check it."""

_TEXT_FIELDS: Final = (
    "pck_crl_issuer_chain",
    "tcb_info_issuer_chain",
    "tcb_info",
    "qe_identity_issuer_chain",
    "qe_identity",
)
_HEX_FIELDS: Final = ("root_ca_crl", "pck_crl", "tcb_info_signature", "qe_identity_signature")
_MAX_COLLATERAL_FILE: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class TdxPaths:
    """Where the kernel shows its interfaces; tests point it to an ordinary directory."""

    report_entry: Path = Path("/sys/kernel/config/tsm/report/cocoon")
    """Directory that is made for our requests; the kernel fills it with attributes."""
    rtmr3: Path = Path("/sys/devices/virtual/misc/tdx_guest/measurements/rtmr3:sha384")
    """Writing 48 bytes extends the register, reading gives it."""


class TdxAttester:
    """An `Attester` on Intel TDX."""

    def __init__(self, *, collateral: CollateralSource, paths: TdxPaths | None = None) -> None:
        """Prepare; nothing is measured yet.

        Args:
            collateral: called for every evidence.
            paths: None for the real ones.

        Raises:
            UnsupportedError: this is no TDX guest, or its kernel is too old.
        """
        self._paths = paths or TdxPaths()
        self._collateral = collateral
        self._events: list[RuntimeEvent] = []
        self._open_entry()
        if any(self._register()):
            raise UnsupportedError(
                "RTMR3 was extended before this program started",
                hint="start a fresh guest; nothing else may extend RTMR3",
            )

    @property
    def kind(self) -> TeeKind:
        """TDX."""
        return TeeKind.TDX

    @property
    def simulated(self) -> bool:
        """Always false."""
        return False

    def extend(self, name: str, payload: bytes) -> None:
        """Measure one runtime event into RTMR3. Irrevocable.

        Raises:
            UnsupportedError: the kernel did not take it.
        """
        event = RuntimeEvent(name=name, payload=bytes(payload))
        try:
            _write(self._paths.rtmr3, event.digest)
        except OSError as error:
            raise UnsupportedError(
                f"RTMR3 cannot be extended: {error.strerror}", hint=NO_TDX_HINT
            ) from error
        self._events.append(event)

    def attest(self, report_data: bytes) -> evidence_pb2.TdxEvidence:
        """Evidence over 64 bytes of report data.

        Raises:
            MalformedError: not 64 bytes.
            UnsupportedError: somebody else extended RTMR3; no verifier would accept this guest.
            UnavailableError: the quoting service did not answer, or answered another request.
        """
        quote = self._quote(exact_bytes(report_data, 64, "report data"))
        events = [evidence_pb2.RuntimeEvent(name=e.name, payload=e.payload) for e in self._events]
        return evidence_pb2.TdxEvidence(quote=quote, runtime_events=events, collateral=self._collateral())

    def _quote(self, report_data: bytes) -> bytes:
        entry = self._paths.report_entry
        try:
            _write(entry / "inblob", report_data)
            raw = _read(entry / "outblob", MAX_QUOTE)
        except OSError as error:
            raise UnavailableError(
                f"no quote: {error.strerror}", hint="check the quote generation service of the host"
            ) from error
        try:
            quote = parse_quote(raw)
        except MalformedError as error:
            raise UnavailableError(f"the platform gave no usable quote: {error}") from error
        # The entry could be shared with another program: what counts is whose data was signed.
        if not hmac.compare_digest(quote.report.report_data, report_data):
            raise UnavailableError("the platform answered another request", hint="try again")
        if not hmac.compare_digest(quote.report.rtmr3, replay(self._events)):
            raise UnsupportedError(
                "RTMR3 does not follow from our events: something else extended it",
                hint="start a fresh guest; nothing else may extend RTMR3",
            )
        return quote.raw

    def _open_entry(self) -> None:
        entry = self._paths.report_entry
        try:
            entry.mkdir(exist_ok=True)
            provider = _read(entry / "provider", 64).strip()
        except OSError as error:
            reason = "no quote interface here" if error.errno == errno.ENOENT else str(error.strerror)
            raise UnsupportedError(f"not a TDX guest: {reason}", hint=NO_TDX_HINT) from error
        if provider != b"tdx_guest":
            name = provider.decode("ascii", "replace")
            raise UnsupportedError(f"not a TDX guest: the provider is {name}", hint=NO_TDX_HINT)

    def _register(self) -> bytes:
        try:
            value = _read(self._paths.rtmr3, REGISTER_SIZE)
        except OSError as error:
            raise UnsupportedError("the kernel does not show RTMR3", hint=NO_TDX_HINT) from error
        if len(value) != REGISTER_SIZE:
            raise UnsupportedError("the kernel shows RTMR3 in an unknown form", hint=NO_TDX_HINT)
        return value


def file_collateral(path: Path) -> CollateralSource:
    """A source that reads collateral from a JSON file at every call; the host keeps it current.

    The file has the nine fields of `TdxCollateral`; byte fields are hex. Its content is untrusted.
    """

    def read() -> evidence_pb2.TdxCollateral:
        try:
            return _collateral(json.loads(_read(path, _MAX_COLLATERAL_FILE)))
        except OSError as error:
            raise UnavailableError(
                f"collateral {path}: {error.strerror}", hint="the host fetches it from Intel's PCS"
            ) from error
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ConfigError(f"collateral {path}: not in the expected form") from error

    return read


def _collateral(document: dict[str, str]) -> evidence_pb2.TdxCollateral:
    message = evidence_pb2.TdxCollateral()
    for name in _TEXT_FIELDS:
        setattr(message, name, document[name])
    for name in _HEX_FIELDS:
        setattr(message, name, bytes.fromhex(document[name]))
    return message


def _write(path: Path, data: bytes) -> None:
    """One write call to an existing file: sysfs takes a value whole or not at all."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        if os.write(descriptor, data) != len(data):
            raise OSError(errno.EIO, "short write")
    finally:
        os.close(descriptor)


def _read(path: Path, limit: int) -> bytes:
    with path.open("rb") as stream:
        return stream.read(limit + 1)[:limit]
