"""Every error that Cocoon raises, shaped by what the caller can do about it.

::

    CocoonError                        .code  .hint  .details
    ├─ ConfigError                     the settings are wrong: fix them
    ├─ MalformedError                  the bytes do not parse: get better bytes
    ├─ RejectedError                   understood and refused: carries the failed checks
    │  ├─ EvidenceRejectedError        quote, collateral, TCB, binding, policy
    │  ├─ ReceiptRejectedError         a receipt or its commitments
    │  └─ LogProofError                inclusion or consistency
    ├─ UnsupportedError                a check that cannot be made here
    ├─ UnavailableError                could not decide: a retry may help
    ├─ PaymentError                    money: top up, or lower the request
    ├─ SealingError                    authentication failed; one message, so no oracle
    └─ EngineError                     the model could not answer

Each package adds its leaves in its own ``errors.py``. `exit_code`, `http_status` and `grpc_status`
are the one table from an error to the outside; third-party exceptions are wrapped where they enter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from cocoon_attestation.checks import CheckList


class CocoonError(Exception):
    """Base of all errors. `code` is stable; the message may change."""

    code: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500
    grpc_status: ClassVar[str] = "INTERNAL"
    default_hint: ClassVar[str] = ""

    def __init__(
        self, message: str, *, hint: str = "", details: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(message)
        self.hint = hint or self.default_hint
        self.details: dict[str, object] = dict(details or {})

    def to_dict(self) -> dict[str, object]:
        """The error as a JSON-ready object with `code`, `message`, `hint` and `details`."""
        document: dict[str, object] = {"code": self.code, "message": str(self)}
        if self.hint:
            document["hint"] = self.hint
        if self.details:
            document["details"] = self.details
        return document


class ConfigError(CocoonError):
    """Settings are missing, unknown or contradictory."""

    code = "config"
    exit_code = 2
    http_status = 500
    grpc_status = "FAILED_PRECONDITION"


class MalformedError(CocoonError):
    """Bytes do not parse as what they claim to be. The only error a parser raises."""

    code = "malformed"
    exit_code = 30
    http_status = 400
    grpc_status = "INVALID_ARGUMENT"


class RejectedError(CocoonError):
    """Well-formed, understood, and refused. `checks` holds every check that was made."""

    code = "rejected"
    exit_code = 10
    http_status = 403
    grpc_status = "PERMISSION_DENIED"

    def __init__(
        self,
        message: str,
        *,
        checks: CheckList | None = None,
        hint: str = "",
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message, hint=hint, details=details)
        self.checks = checks


class EvidenceRejectedError(RejectedError):
    """Evidence failed appraisal. No plaintext may be sent to its keys."""

    code = "evidence_rejected"
    default_hint = "run `cocoon verify node` to see each check, and `cocoon explain CHECK` for its rule"


class ReceiptRejectedError(RejectedError):
    """A receipt does not say what was asked, answered or agreed, or its signature is wrong."""

    code = "receipt_rejected"
    default_hint = "keep the request and the answer: a signed receipt is proof against the node"


class LogProofError(RejectedError):
    """An inclusion or consistency proof does not lead to the root."""

    code = "log_proof"


class UnsupportedError(CocoonError):
    """The check or the feature cannot be had on this machine or in this installation."""

    code = "unsupported"
    exit_code = 20
    http_status = 501
    grpc_status = "UNIMPLEMENTED"


class UnavailableError(CocoonError):
    """No decision was possible: network, chain or node. A retry may help."""

    code = "unavailable"
    exit_code = 40
    http_status = 503
    grpc_status = "UNAVAILABLE"


class PaymentError(CocoonError):
    """The request cannot be paid as it stands."""

    code = "payment"
    exit_code = 50
    http_status = 402
    grpc_status = "FAILED_PRECONDITION"


class SealingError(CocoonError):
    """A sealed message did not authenticate. Deliberately says no more than that."""

    code = "sealing"
    exit_code = 10
    http_status = 502
    grpc_status = "DATA_LOSS"

    def __init__(self) -> None:
        super().__init__("sealed message did not authenticate")


class EngineError(CocoonError):
    """The model could not produce an answer."""

    code = "engine"
    exit_code = 1
    http_status = 500
    grpc_status = "INTERNAL"
