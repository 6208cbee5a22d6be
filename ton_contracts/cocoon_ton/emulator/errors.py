"""Errors of the emulator."""

from __future__ import annotations

from cocoon_attestation.errors import CocoonError, RejectedError


class EmulatorError(CocoonError):
    """The emulator could not run what it was given, or failed itself."""

    code = "emulator"


class MessageNotAcceptedError(RejectedError):
    """An external message was not accepted by its contract, so no transaction exists.

    `vm_exit_code` is the exit code of the contract, or None where no code ran (no account,
    no balance, no code). `vm_log` is the emulator's log.
    """

    code = "message_not_accepted"

    def __init__(self, message: str, *, vm_exit_code: int | None = None, vm_log: str = "") -> None:
        super().__init__(message, details={"vm_exit_code": vm_exit_code})
        self.vm_exit_code = vm_exit_code
        self.vm_log = vm_log


class GetMethodError(EmulatorError):
    """A getter ended with an exit code other than 0 or 1."""

    code = "get_method"

    def __init__(self, message: str, *, vm_exit_code: int) -> None:
        super().__init__(message, details={"vm_exit_code": vm_exit_code})
        self.vm_exit_code = vm_exit_code
