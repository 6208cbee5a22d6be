"""Ways to make a liteserver misbehave, for tests of clients. All are off in a new one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pytoniq_core import Address
from pytoniq_core.tlb.vm_stack import VmStack

from cocoon_attestation.errors import MalformedError
from cocoon_ton.devnet.cells import write_boc
from cocoon_ton.devnet.values import BlockId, account_name, name_of
from cocoon_ton.emulator import make_account

Rewrite = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]
"""Gets the query and the honest answer (TL fields), returns the answer to send."""
MAX_DELAY: Final = 3600.0


@dataclass(slots=True)
class Faults:
    """Switches. Method names are those of the protocol, for example ``getAccountState``.

    * `delay`: seconds before every answer;
    * `drop`: methods that are never answered; `refuse`: methods answered with an error;
    * `stale_head`: masterchain seqno that is shown as the head, whatever happens;
    * `hidden_accounts`: accounts (names) said not to exist, without proof;
    * `forged_accounts`: account name to BoC of an ``Account`` shown in place of the true one;
    * `lying_getter`: number that every getter answers with;
    * `claimed_key_block`: block from which this chain falsely claims to descend: block proofs lead
      from there to this chain's head, with this chain's own configuration and signatures;
    * `duplicate_signatures`: how many times each block signature is shown;
    * `rewrite`: any other lie, by method.
    """

    delay: float = 0.0
    drop: set[str] = field(default_factory=set)
    refuse: set[str] = field(default_factory=set)
    stale_head: int | None = None
    hidden_accounts: set[bytes] = field(default_factory=set)
    forged_accounts: dict[bytes, bytes] = field(default_factory=dict)
    lying_getter: int | None = None
    claimed_key_block: BlockId | None = None
    duplicate_signatures: int = 1
    rewrite: dict[str, Rewrite] = field(default_factory=dict)

    def clear(self) -> None:
        """Be honest again."""
        fresh = Faults()
        for name in self.__slots__:
            setattr(self, name, getattr(fresh, name))

    def apply(self, document: Mapping[str, Any]) -> None:
        """Set switches from a JSON object; see the table in ``docs/spec/devnet.md``.

        All or nothing. Raises MalformedError for a switch that does not exist or a value that does not fit.
        """
        changes: dict[str, Any] = {}
        for name, value in document.items():
            reader = _READERS.get(name)
            if reader is None:
                known = ", ".join(sorted(_READERS))
                raise MalformedError(f"there is no fault switch {name!r}", hint=f"switches: {known}")
            try:
                target, found = reader(value)
            except Exception as error:  # any wrong type, any wrong address
                raise MalformedError(f"fault switch {name!r} does not take {value!r}") from error
            changes[target] = found
        for name, found in changes.items():
            setattr(self, name, found)

    def active(self) -> list[str]:
        """The names of the switches that are not off."""
        fresh = Faults()
        return [name for name in self.__slots__ if getattr(self, name) != getattr(fresh, name)]

    async def before(self, method: str) -> None:
        """Delay or swallow a query. A swallowed one waits until its connection ends."""
        if self.delay:
            await asyncio.sleep(self.delay)
        if method in self.drop:
            await asyncio.Event().wait()

    def after(self, method: str, query: Mapping[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        """The answer with the lies in it."""
        if method == "getAccountState":
            account = account_name(query["account"]["workchain"], bytes.fromhex(query["account"]["id"]))
            if account in self.hidden_accounts:
                answer = answer | {"state": b"", "proof": b"", "shard_proof": b""}
            elif account in self.forged_accounts:
                answer = answer | {"state": self.forged_accounts[account]}
        elif method == "runSmcMethod" and self.lying_getter is not None:
            answer = answer | {"exit_code": 0, "result": VmStack.serialize([self.lying_getter]).to_boc()}
        change = self.rewrite.get(method)
        return change(dict(query), answer) if change is not None else answer


def _delay(value: Any) -> tuple[str, float]:
    if not 0 <= float(value) <= MAX_DELAY:
        raise ValueError("out of range")
    return "delay", float(value)


def _methods(name: str) -> Callable[[Any], tuple[str, set[str]]]:
    def read(value: Any) -> tuple[str, set[str]]:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ValueError("not a list of method names")
        return name, set(value)

    return read


def _number(name: str, least: int) -> Callable[[Any], tuple[str, int | None]]:
    def read(value: Any) -> tuple[str, int | None]:
        if value is not None and (type(value) is not int or value < least):
            raise ValueError("not a number")
        return name, value

    return read


def _hidden(value: Any) -> tuple[str, set[bytes]]:
    return "hidden_accounts", {name_of(Address(text)) for text in value}


def _forged(value: Any) -> tuple[str, dict[bytes, bytes]]:
    """Address to the balance that is shown (nanoton)."""
    forged = {}
    for text, balance in value.items():
        address = Address(text)
        account = make_account(address, int(balance), 0).refs[0]
        forged[name_of(address)] = write_boc([account])
    return "forged_accounts", forged


def _claimed(value: Any) -> tuple[str, BlockId | None]:
    """A block as ``init_block`` in a global configuration names it."""
    return "claimed_key_block", None if value is None else BlockId.from_config(value)


def _copies(value: Any) -> tuple[str, int]:
    if type(value) is not int or not 1 <= value <= 8:
        raise ValueError("not from 1 to 8")
    return "duplicate_signatures", value


_READERS: Final[dict[str, Callable[[Any], tuple[str, Any]]]] = {
    "delay": _delay,
    "drop": _methods("drop"),
    "refuse": _methods("refuse"),
    "stale_head": _number("stale_head", 1),
    "hide": _hidden,
    "forge": _forged,
    "lying_getter": _number("lying_getter", -(1 << 255)),
    "claimed_key_block": _claimed,
    "duplicate_signatures": _copies,
}
