"""Accounts and messages as cells: the few forms that a test or a development chain has to write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

from pytoniq_core import Account, Address, Builder, Cell, StateInit, begin_cell

NO_ACCOUNT: Final = begin_cell().store_bit(0).end_cell()
EMPTY_ACCOUNT: Final = (
    begin_cell().store_ref(NO_ACCOUNT).store_bytes(bytes(32)).store_uint(0, 64).end_cell()
)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountView:
    """What an account holds. `status` is ``nonexist``, ``uninit``, ``active`` or ``frozen``."""

    status: str
    balance: int
    code: Cell | None
    data: Cell | None

    @property
    def active(self) -> bool:
        """Whether it has code."""
        return self.status == "active"


def view_account(shard_account: Cell) -> AccountView:
    """Read a ``ShardAccount``."""
    account = Account.deserialize(shard_account.refs[0].begin_parse())
    if account is None:
        return AccountView(status="nonexist", balance=0, code=None, data=None)
    state = account.storage.state
    init = state.state_init if state.type_ == "account_active" else None
    return AccountView(
        status=str(state.type_).removeprefix("account_"),
        balance=int(account.storage.balance.grams),
        code=init.code if init is not None else None,
        data=init.data if init is not None else None,
    )


def make_account(
    address: Address, balance: int, now: int, *, code: Cell | None = None, data: Cell | None = None
) -> Cell:
    """A ``ShardAccount`` with no transactions: active if `code` is given, else uninit."""
    builder = begin_cell().store_bit(1).store_address(address)
    builder.store_uint(0, 3).store_uint(0, 3)  # storage used: 0 cells, 0 bits; counted anew when it runs
    builder.store_uint(0, 3).store_uint(now, 32).store_bit(0)  # no extra, last paid, no debt
    builder.store_uint(0, 64).store_coins(balance).store_bit(0)
    if code is None:
        builder.store_uint(0, 2)
    else:
        builder.store_bit(1).store_cell(state_init(code, data or begin_cell().end_cell()))
    return cast(
        Cell, begin_cell().store_ref(builder.end_cell()).store_bytes(bytes(32)).store_uint(0, 64).end_cell()
    )


def state_init(code: Cell, data: Cell) -> Cell:
    """``StateInit`` with code and data."""
    return StateInit(code=code, data=data).serialize()


def contract_address(code: Cell, data: Cell, workchain: int = 0) -> Address:
    """The address that a contract with this initial state has."""
    return Address((workchain, state_init(code, data).hash))


def internal_message(
    *,
    source: Address,
    destination: Address,
    value: int,
    body: Cell | None = None,
    init: Cell | None = None,
    bounce: bool = True,
    bounced: bool = False,
    created_lt: int = 0,
    created_at: int = 0,
) -> Cell:
    """An internal message with init and body in cells of their own, no fees."""
    builder = begin_cell().store_bit(0).store_bit(1).store_bit(int(bounce)).store_bit(int(bounced))
    builder.store_address(source).store_address(destination).store_coins(value).store_bit(0)
    builder.store_coins(0).store_coins(0).store_uint(created_lt, 64).store_uint(created_at, 32)
    return _finish(builder, body, init)


def external_message(destination: Address, body: Cell | None = None, init: Cell | None = None) -> Cell:
    """An external message."""
    builder = begin_cell().store_uint(2, 2).store_uint(0, 2).store_address(destination).store_coins(0)
    return _finish(builder, body, init)


def _finish(builder: Builder, body: Cell | None, init: Cell | None) -> Cell:
    if init is None:
        builder.store_bit(0)
    else:
        builder.store_bit(1).store_bit(1).store_ref(init)
    builder.store_bit(1).store_ref(body if body is not None else begin_cell().end_cell())
    return builder.end_cell()
