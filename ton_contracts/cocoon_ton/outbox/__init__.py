"""Money operations that happen exactly once, whatever crashes: see ``docs/spec/wallet.md#outbox``."""

from cocoon_ton.outbox.operation import (
    ExternalOperation,
    Operation,
    OperationState,
    OperationStatus,
    TransferOperation,
)
from cocoon_ton.outbox.outcome import find_delivery
from cocoon_ton.outbox.sender import Outbox

__all__ = [
    "ExternalOperation",
    "Operation",
    "OperationState",
    "OperationStatus",
    "Outbox",
    "TransferOperation",
    "find_delivery",
]
