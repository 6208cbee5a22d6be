"""Ways to make a liteserver misbehave, for tests of clients. All are off in a new one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cocoon_ton.devnet.values import BlockId, account_name

Rewrite = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]
"""Gets the query and the honest answer (TL fields), returns the answer to send."""


@dataclass(slots=True)
class Faults:
    """Switches. Method names are those of the protocol, for example ``getAccountState``.

    * `delay`: seconds before every answer;
    * `drop`: methods that are never answered; `refuse`: methods answered with an error;
    * `stale_head`: masterchain seqno that is shown as the head, whatever happens;
    * `hidden_accounts`: account ids said not to exist, without proof;
    * `forged_accounts`: account id to BoC of an ``Account`` shown in place of the true one;
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
    claimed_key_block: BlockId | None = None
    duplicate_signatures: int = 1
    rewrite: dict[str, Rewrite] = field(default_factory=dict)

    def clear(self) -> None:
        """Be honest again."""
        fresh = Faults()
        for name in self.__slots__:
            setattr(self, name, getattr(fresh, name))

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
        change = self.rewrite.get(method)
        return change(dict(query), answer) if change is not None else answer
