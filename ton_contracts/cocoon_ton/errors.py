"""Leaves of the error tree that belong to the chain. Roots: `cocoon_attestation.errors`."""

from __future__ import annotations

from cocoon_attestation.errors import (
    ConfigError,
    PaymentError,
    RejectedError,
    UnavailableError,
)


class ChainUnavailableError(UnavailableError):
    """No liteserver gave an answer in time, or none could reach the chain. A retry may help."""

    code = "chain_unavailable"
    default_hint = "check the liteservers of the network file and the connection"


class StaleHeadError(ChainUnavailableError):
    """Every liteserver shows an old head: the chain stands still, or they hide newer blocks."""

    code = "chain_stale"
    default_hint = "check this machine's clock, then try other liteservers"


class ChainProofError(RejectedError):
    """A liteserver's answer, or a proof document, is not proved by the trusted chain."""

    code = "chain_proof"
    default_hint = "do not use this liteserver; another one may answer honestly"


class MessageRefusedError(UnavailableError):
    """Every liteserver that answered refused an external message for the state it knows."""

    code = "message_refused"


class InsufficientFundsError(PaymentError):
    """The wallet's balance does not cover the transfers and their fees."""

    code = "insufficient_funds"
    default_hint = "top up the wallet's address"


class MessageFailedError(PaymentError):
    """A contract refused a message that the wallet sent; its value came back less the fees."""

    code = "message_failed"
    default_hint = "the exit code is explained in docs/spec/contracts.md"


class OutboxBusyError(ConfigError):
    """Another process uses the wallet's outbox."""

    code = "outbox_busy"
    default_hint = "wait until the other command has ended"


class AddressError(ConfigError):
    """An address that somebody typed is not one, or is one of another network."""

    code = "address"
    default_hint = "copy it whole from the receiver; one changed letter is noticed by its checksum"


class AmountError(ConfigError):
    """An amount of TON that somebody typed is none."""

    code = "amount"
    default_hint = 'write it like "1.5": digits, and at most nine of them behind the point'


class OutboxConflictError(RejectedError):
    """An operation key was used again for a different operation."""

    code = "outbox_conflict"


class KeystoreError(ConfigError):
    """A key file is missing, unreadable, damaged, readable by others, or the passphrase is wrong."""

    code = "keystore"


class UnprovableError(RejectedError):
    """A signature, certificate chain or quote cannot pass the on-chain check, so no message is made."""

    code = "unprovable"
    default_hint = "the quote or its certificate chain is damaged, or of a kind that TVM cannot check"
