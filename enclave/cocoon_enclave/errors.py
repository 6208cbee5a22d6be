"""Leaves of the error tree that only the enclave raises; the tree itself is in `cocoon_attestation.errors`.

No message here ever contains content of a request or an answer.
"""

from __future__ import annotations

from cocoon_attestation.errors import (
    EngineError,
    MalformedError,
    PaymentError,
    RejectedError,
    UnavailableError,
)


class InvalidRequestError(MalformedError):
    """The body of a request is not what its endpoint takes."""

    code = "invalid_request"
    http_status = 400


class ContextLengthError(InvalidRequestError):
    """Prompt and answer together do not fit the model's context."""

    code = "context_length_exceeded"
    default_hint = "shorten the prompt or lower max_tokens"


class ModelNotServedError(InvalidRequestError):
    """The request names a model that this enclave does not run."""

    code = "model_not_found"
    http_status = 404
    grpc_status = "NOT_FOUND"


class UnknownEndpointError(InvalidRequestError):
    """The request names an endpoint that does not exist."""

    code = "unknown_endpoint"
    http_status = 404
    grpc_status = "NOT_FOUND"


class RequestReplayedError(RejectedError):
    """A request id was used before under this key, or its deadline is too far away to be remembered."""

    code = "request_replayed"
    http_status = 409
    grpc_status = "ALREADY_EXISTS"
    default_hint = "a request is sealed once and sent once: seal it again with a new id"


class DeadlineError(UnavailableError):
    """The deadline of the request passed."""

    code = "deadline_exceeded"
    http_status = 504
    grpc_status = "DEADLINE_EXCEEDED"


class CancelledByClientError(UnavailableError):
    """The client cancelled the request, or its session ended."""

    code = "cancelled"
    http_status = 499
    grpc_status = "CANCELLED"


class NodeBusyError(UnavailableError):
    """A limit on concurrent or refused work is reached."""

    code = "node_busy"
    http_status = 429
    grpc_status = "RESOURCE_EXHAUSTED"
    default_hint = "try another node, or the same one a little later"


class NodeDrainingError(UnavailableError):
    """The node finishes its work and takes no more."""

    code = "node_draining"
    default_hint = "try another node"


class ChannelUnknownError(PaymentError):
    """The host has not yet told the enclave what the chain says about the channel."""

    code = "channel_unknown"
    default_hint = "check that the channel is deployed and funded, then try again"


class ChannelUnusableError(PaymentError):
    """The channel is closing, is with another node or network, or has a history nobody can check."""

    code = "channel_unusable"
    default_hint = "open a new channel with this node"


class AuthorizationError(PaymentError):
    """The authorization is expired, for another channel, or not signed by the channel's client key."""

    code = "authorization_refused"


class CapTooLowError(PaymentError):
    """The authorized cap does not cover the worst case of this request beside what is used and reserved."""

    code = "cap_too_low"
    default_hint = "authorize more, or lower max_tokens"


class BalanceTooLowError(PaymentError):
    """The channel holds less than the worst case of this request beside what is used and reserved."""

    code = "balance_too_low"
    default_hint = "top up the channel, or lower max_tokens"


class PriceError(PaymentError):
    """The node's prices are above the client's limit."""

    code = "price_above_limit"
    default_hint = "read the node's prices again, or choose another node"


class EngineCrashedError(EngineError):
    """The engine process ended while it worked on the request. It is started again."""

    code = "engine_crashed"
    http_status = 503
    grpc_status = "UNAVAILABLE"
    default_hint = "try again: the engine restarts by itself"


class ModelRejectedError(RejectedError):
    """The files of a model are not those that were measured."""

    code = "model_rejected"


class StateRejectedError(RejectedError):
    """The stored log, receipts or claims were changed, or are older than what the chain has anchored."""

    code = "state_rejected"
    default_hint = "restore the newest copy of the state directory; nothing is served from this one"


class StoreError(UnavailableError):
    """The state could not be written: nothing was charged for what is not on disk."""

    code = "store"
    default_hint = "check the disk of the state directory"
