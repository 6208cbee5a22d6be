"""Transactions of an account, proved by the hash chain that ends in its proved state.

The state names the hash of the newest transaction, and each transaction names the one before, so a list
that starts at the proved hash can be neither changed nor thinned out.
"""

from __future__ import annotations

from typing import Any

from pytoniq_core import Address, Cell
from pytoniq_core.tlb.transaction import (
    ExternalMsgInfo,
    InternalMsgInfo,
    MessageAny,
    Transaction,
)

from cocoon_ton.errors import ChainProofError
from cocoon_ton.proof.boc import ORDINARY, parse_boc
from cocoon_ton.proof.seam import proof_seam
from cocoon_ton.values import MessageInfo, TransactionInfo


def verify_transactions(
    data: bytes, address: Address, last_lt: int, last_hash: bytes
) -> list[TransactionInfo]:
    """Transactions from a liteserver's answer, newest first, starting at the proved (lt, hash).

    Raises `ChainProofError` if one is not the one that the chain before it names, or if there is none.
    """
    cells = parse_boc(data, roots=None)
    found: list[TransactionInfo] = []
    for cell in cells:
        if not last_lt:
            raise ChainProofError("transaction list goes on before the first transaction")
        if cell.hash != last_hash:
            raise ChainProofError("transaction is not the one that the account's history names")
        with proof_seam("transaction"):
            transaction = _parse(cell, address)
        if transaction.lt != last_lt:
            raise ChainProofError("transaction has another logical time than its history says")
        if transaction.prev_lt >= transaction.lt:
            raise ChainProofError("transaction follows a later one")
        found.append(transaction)
        last_lt, last_hash = transaction.prev_lt, transaction.prev_hash
    return found


def _parse(cell: Cell, address: Address) -> TransactionInfo:
    if cell.type_ != ORDINARY:
        raise ChainProofError("transaction is not shown")
    parsed = Transaction.deserialize(cell.begin_parse())
    if parsed.account_addr != address.hash_part:
        raise ChainProofError("transaction is of another account")
    description = parsed.description
    compute = getattr(description, "compute_ph", None)
    action = getattr(description, "action", None)
    vm = compute if compute is not None and compute.type_ == "vm" else None
    aborted = bool(getattr(description, "aborted", False))
    messages = cell.refs[0].begin_parse()
    in_msg = parse_message(messages.load_ref()) if messages.load_bit() else None
    out_cells = messages.load_dict(15, value_deserializer=lambda leaf: leaf.load_ref()) or {}
    return TransactionInfo(
        address=address,
        lt=parsed.lt,
        hash=bytes(cell.hash),
        utime=parsed.now,
        success=not aborted and vm is not None and bool(vm.success) and _action_succeeded(action),
        aborted=aborted,
        exit_code=None if vm is None else vm.exit_code,
        action_code=None if action is None else action.result_code,
        total_fees=parsed.total_fees.grams,
        in_msg=in_msg,
        out_msgs=tuple(parse_message(out_cells[key]) for key in sorted(out_cells)),
        prev_lt=parsed.prev_trans_lt,
        prev_hash=parsed.prev_trans_hash,
    )


def _action_succeeded(action: Any) -> bool:
    return action is None or bool(action.success)


def parse_message(cell: Cell) -> MessageInfo:
    """A message cell. Raises what the cell library raises; call it under `proof_seam`."""
    if cell.type_ != ORDINARY:
        raise ChainProofError("message is not shown")
    message = MessageAny.deserialize(cell.begin_parse())
    info = message.info
    internal = isinstance(info, InternalMsgInfo)
    external_in = isinstance(info, ExternalMsgInfo)
    return MessageInfo(
        kind="internal" if internal else "external_in" if external_in else "external_out",
        hash=bytes(cell.hash),
        source=None if external_in else info.src,
        destination=info.dest if internal or external_in else None,
        value=info.value_coins if internal else 0,
        bounce=internal and bool(info.bounce),
        bounced=internal and bool(info.bounced),
        created_lt=0 if external_in else info.created_lt,
        body=message.body,
        has_state_init=message.init is not None,
    )
