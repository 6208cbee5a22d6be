"""Leaves of the error tree that the client side raises (the tree: `cocoon_attestation.errors`)."""

from __future__ import annotations

from collections.abc import Mapping

from cocoon_attestation.errors import (
    ConfigError,
    PaymentError,
    RejectedError,
    UnavailableError,
    UnsupportedError,
)


class ModelNotFoundError(RejectedError):
    """No allowed model has this name, or no node of the network serves it."""

    code = "model_not_found"
    http_status = 404
    grpc_status = "NOT_FOUND"
    exit_code = 2
    default_hint = "`cocoon models` lists what the network serves"


class InvalidRequestError(ConfigError):
    """The request body cannot be sent: not a JSON object, no model, or too large."""

    code = "invalid_request"
    http_status = 400
    grpc_status = "INVALID_ARGUMENT"


class NoEligibleNodeError(UnavailableError):
    """No node could be selected; `details["reasons"]` says why for each candidate."""

    code = "no_eligible_node"
    default_hint = "nodes may be busy or starting; try again in a few seconds"


class NodeUnavailableError(UnavailableError):
    """A node could not be reached or ended the connection before anything was sent to it."""

    code = "node_unavailable"


class NodeBusyError(UnavailableError):
    """A node refused the request before opening it, because it has no room now."""

    code = "node_busy"
    http_status = 429
    grpc_status = "RESOURCE_EXHAUSTED"
    default_hint = "try again in a few seconds"


class OutcomeUnknownError(UnavailableError):
    """The answer stopped after the request was sent: the node may have charged for it.

    Repeating the request may cost again, so the client never does it by itself.
    """

    code = "outcome_unknown"
    http_status = 502
    grpc_status = "DATA_LOSS"
    default_hint = "the node may have charged for the part it produced; repeat only if you accept that"


class RequestRefusedError(RejectedError):
    """The enclave refused the request before opening it, and no other node is likely to accept it."""

    code = "request_refused"
    http_status = 400
    grpc_status = "INVALID_ARGUMENT"

    def __init__(self, message: str, *, details: Mapping[str, object] | None = None) -> None:
        super().__init__(message, details=details)


class SpendLimitError(PaymentError):
    """The request could cost more than a cap that the user set."""

    code = "spend_limit"
    default_hint = "lower max_tokens, or raise payment.request_cap or payment.daily_cap"


class PaymentRefusedError(PaymentError):
    """The node did not accept the authorization for this request."""

    code = "payment_refused"


class UnknownReceiptError(ConfigError):
    """The ledger holds no receipt with this id."""

    code = "unknown_receipt"
    http_status = 404
    grpc_status = "NOT_FOUND"


class EndorsementUnavailableError(UnavailableError):
    """A vendor's statement that verification needs cannot be had, or what came cannot be used."""

    code = "endorsement_unavailable"
    default_hint = "check the connection to the vendor's service, or use endorsements stored before"


class EndorsementStoreError(UnavailableError):
    """Endorsements cannot be written to, or read from, their directory."""

    code = "endorsement_store"
    default_hint = "check the permissions and the space of the cache directory"


class MissingExtraError(UnsupportedError):
    """An optional dependency is not installed."""

    code = "missing_extra"

    def __init__(self, extra: str) -> None:
        super().__init__(
            f"this needs the optional dependencies of cocoon-network[{extra}]",
            hint=f"pip install 'cocoon-network[{extra}]'",
            details={"extra": extra},
        )
