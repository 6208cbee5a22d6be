"""The kernel's report interface (configfs-tsm) as a few careful reads and writes.

Source: Documentation/ABI/testing/configfs-tsm-report (Linux 6.7). An entry is a directory; making it
creates the attributes. ``generation`` grows with every write, so that a second user of the entry shows.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

from cocoon_attestation.errors import UnavailableError, UnsupportedError

REPORTS: Final = Path("/sys/kernel/config/tsm/report")
MAX_BLOB: Final = 64 * 1024


class TsmEntry:
    """One entry of the report interface."""

    def __init__(self, directory: Path) -> None:
        """Use `directory`; tests point it to an ordinary one."""
        self.directory = directory

    def open(self, provider: str, *, hint: str) -> None:
        """Make the entry and demand that `provider` is behind it.

        Raises:
            UnsupportedError: there is no such interface, or another provider.
        """
        try:
            self.directory.mkdir(exist_ok=True)
            found = self.read("provider", 64).strip()
        except OSError as error:
            missing = error.errno == errno.ENOENT
            reason = "the kernel has no report interface" if missing else str(error.strerror)
            raise UnsupportedError(f"no {provider} here: {reason}", hint=hint) from error
        if found != provider.encode("ascii"):
            name = found.decode("ascii", "replace")
            raise UnsupportedError(f"no {provider} here: the provider is {name}", hint=hint)

    def report(self, report_data: bytes) -> tuple[bytes, bytes]:
        """The report over `report_data` and the auxiliary data that came with it (may be empty).

        Raises:
            UnavailableError: no report, or somebody else wrote to the entry meanwhile.
        """
        try:
            before = self._generation()
            self.write("inblob", report_data)
            out = self.read("outblob", MAX_BLOB)
            aux = self._auxiliary()
            after = self._generation()
        except OSError as error:
            raise UnavailableError(
                f"no report: {error.strerror}",
                hint="try again; if it stays so, look at the host's firmware",
            ) from error
        if after != before + 1:
            raise UnavailableError("another program used the report interface", hint="try again")
        return out, aux

    def read(self, name: str, limit: int) -> bytes:
        """The content of an attribute, at most `limit` bytes.

        Raises:
            OSError: the kernel refuses, or the content is longer.
        """
        with (self.directory / name).open("rb") as stream:
            data = stream.read(limit + 1)
        if len(data) > limit:
            raise OSError(errno.EFBIG, "the attribute is too long")
        return data

    def write(self, name: str, data: bytes) -> None:
        """Write an attribute in one call: the kernel takes a value whole or not at all.

        Raises:
            OSError: the kernel refuses.
        """
        descriptor = os.open(self.directory / name, os.O_WRONLY)
        try:
            if os.write(descriptor, data) != len(data):
                raise OSError(errno.EIO, "short write")
        finally:
            os.close(descriptor)

    def _auxiliary(self) -> bytes:
        try:
            return self.read("auxblob", MAX_BLOB)
        except FileNotFoundError:  # the attribute depends on the provider
            return b""

    def _generation(self) -> int:
        text = self.read("generation", 32).strip()
        if not text.isdigit():
            raise OSError(errno.EINVAL, "the generation is no number")
        return int(text)
