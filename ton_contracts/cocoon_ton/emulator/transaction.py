"""The result of one emulated transaction, as a value."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from pytoniq_core import Address, Cell, MessageAny, Transaction
from pytoniq_core.tlb.transaction import InternalMsgInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedTransaction:
    """One transaction. Amounts are nanoton, hashes 32 bytes.

    `shard_account` is the account after it. `out_messages` holds the message cells exactly as the
    transaction holds them, in order. `compute_skipped` is the reason of a skipped compute phase
    (``no_state``, ``bad_state``, ``no_gas``, ``suspended``), else None; `exit_code` is None then.
    `action_code` is None where there was no action phase.
    """

    address: Address
    cell: Cell
    parsed: Transaction
    shard_account: Cell
    in_message: Cell | None
    out_messages: tuple[Cell, ...]
    actions: Cell | None
    vm_log: str = dataclasses.field(repr=False, default="")

    @property
    def hash(self) -> bytes:
        """Representation hash of the transaction."""
        return bytes(self.cell.hash)

    @property
    def lt(self) -> int:
        """Logical time."""
        return int(self.parsed.lt)

    @property
    def now(self) -> int:
        """Unix time of the block."""
        return int(self.parsed.now)

    @property
    def end_lt(self) -> int:
        """First logical time after this transaction and its out-messages."""
        return self.lt + len(self.out_messages) + 1

    @property
    def total_fees(self) -> int:
        """Fees that the block collects from this transaction."""
        return int(self.parsed.total_fees.grams)

    @property
    def fees(self) -> int:
        """`total_fees` and the forward fees that its internal out-messages carry along.

        What older schemes call ``ihr_fee`` holds flags of the message since global version 12.
        """
        carried = (m.info for m in self.outgoing if isinstance(m.info, InternalMsgInfo))
        return self.total_fees + sum(int(info.fwd_fee) for info in carried)

    @property
    def _compute(self) -> Any:
        return self.parsed.description.compute_ph

    @property
    def compute_skipped(self) -> str | None:
        """Why the compute phase was skipped, or None."""
        phase = self._compute
        return str(phase.reason.type_) if phase.type_ == "skipped" else None

    @property
    def exit_code(self) -> int | None:
        """Exit code of the contract; None if it did not run."""
        phase = self._compute
        return None if phase.type_ == "skipped" else int(phase.exit_code)

    @property
    def action_code(self) -> int | None:
        """Result code of the action phase; None if there was none."""
        action = self.parsed.description.action
        return None if action is None else int(action.result_code)

    @property
    def gas_used(self) -> int:
        """Gas of the compute phase, 0 if skipped."""
        phase = self._compute
        return 0 if phase.type_ == "skipped" else int(phase.gas_used)

    @property
    def aborted(self) -> bool:
        """Whether the transaction changed nothing but fees."""
        return bool(self.parsed.description.aborted)

    @property
    def success(self) -> bool:
        """Both phases ran and succeeded."""
        return self.exit_code in (0, 1) and self.action_code in (0, None) and not self.aborted

    @property
    def bounced(self) -> bool:
        """Whether the bounce phase sent the value back."""
        bounce = getattr(self.parsed.description, "bounce", None)
        return bounce is not None and bounce.type_ == "ok"

    @property
    def destroyed(self) -> bool:
        """Whether the account is gone."""
        return bool(self.parsed.description.destroyed)

    @property
    def incoming(self) -> MessageAny | None:
        """The in-message, parsed."""
        return self.parsed.in_msg

    @property
    def outgoing(self) -> list[MessageAny]:
        """The out-messages, parsed."""
        return list(self.parsed.out_msgs)

    @property
    def events(self) -> list[Cell]:
        """Bodies of the external out-messages."""
        return [m.body for m in self.outgoing if m.is_external_out]

    @property
    def in_opcode(self) -> int | None:
        """First 32 bits of the in-message's body, or None if it is shorter."""
        return opcode(self.incoming.body) if self.incoming is not None else None


def opcode(body: Cell) -> int | None:
    """First 32 bits of a message body, or None."""
    return int(body.begin_parse().load_uint(32)) if len(body.bits) >= 32 else None


def parse_transaction(
    cell: Cell, shard_account: Cell, address: Address, actions: Cell | None = None, vm_log: str = ""
) -> EmulatedTransaction:
    """Wrap a transaction cell and the account after it."""
    messages = cell.refs[0].begin_parse()
    incoming = messages.load_ref() if messages.load_bit() else None
    outgoing = messages.load_dict(15, value_deserializer=lambda part: part.load_ref()) or {}
    return EmulatedTransaction(
        address=address,
        cell=cell,
        parsed=Transaction.deserialize(cell.begin_parse()),
        shard_account=shard_account,
        in_message=incoming,
        out_messages=tuple(outgoing[key] for key in sorted(outgoing)),
        actions=actions,
        vm_log=vm_log,
    )
