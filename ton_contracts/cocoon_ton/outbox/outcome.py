"""What a proved transaction means for the operations it should have carried out. Pure."""

from __future__ import annotations

from pytoniq_core import Address

from cocoon_attestation.errors import ConfigError
from cocoon_ton.chain import ChainReader
from cocoon_ton.messages import Transfer
from cocoon_ton.outbox.operation import OperationState, TransferOperation
from cocoon_ton.outbox.store import Outcome, Pending
from cocoon_ton.values import AccountState, TransactionInfo

_NOT_SENT = "the wallet ran the message but did not send this transfer: its balance was too low"


async def find_delivery(
    chain: ChainReader, destination: Address, message_hash: bytes, *, after_lt: int = 0, limit: int = 1000
) -> TransactionInfo | None:
    """The transaction in which `destination` received a message that the wallet emitted, if it is there.

    `message_hash` and a lower bound for `after_lt` are in the operation's status.
    """
    for transaction in await chain.transactions(destination, after_lt=after_lt, limit=limit):
        if transaction.in_msg is not None and transaction.in_msg.hash == message_hash:
            return transaction
    return None


def transfer_of(pending: Pending) -> Transfer:
    """The transfer of a stored transfer operation."""
    if not isinstance(pending.operation, TransferOperation):
        raise ConfigError("outbox database is inconsistent")
    return pending.operation.transfer


def expired(pending: Pending, state: AccountState) -> bool:
    """Whether the operation's limit has passed in the time of a proved block."""
    limit = pending.operation.not_after
    return limit is not None and state.shard_utime > limit


def failed(pending: Pending, error: str) -> Outcome:
    """The operation was not carried out."""
    return Outcome(number=pending.number, state=OperationState.FAILED, error=error)


def match_emitted(transfers: list[Pending], transaction: TransactionInfo) -> list[Outcome]:
    """Find each transfer among the messages that the wallet's transaction emitted."""
    emitted = [message for message in transaction.out_msgs if message.kind == "internal"]
    outcomes = []
    for pending in transfers:
        transfer = transfer_of(pending)
        wanted = (transfer.destination, transfer.amount, transfer.body.hash)
        found = next((m for m in emitted if (m.destination, m.value, m.body.hash) == wanted), None)
        if found is not None:
            emitted.remove(found)
        outcomes.append(
            Outcome(
                number=pending.number,
                state=OperationState.FAILED if found is None else OperationState.SEEN,
                tx_lt=transaction.lt,
                tx_hash=transaction.hash,
                message_hash=None if found is None else found.hash,
                error=_NOT_SENT if found is None else "",
            )
        )
    return outcomes


def external_outcome(pending: Pending, transaction: TransactionInfo) -> Outcome:
    """How an external message ended that `transaction` executed."""
    return Outcome(
        number=pending.number,
        state=OperationState.SEEN if transaction.success else OperationState.FAILED,
        tx_lt=transaction.lt,
        tx_hash=transaction.hash,
        error="" if transaction.success else f"the contract ended with exit code {transaction.exit_code}",
    )
