"""The Channel contract: who gets what, and who is refused."""

from __future__ import annotations

from cocoon_ton import channel


def test_open_and_settle(paying):
    r = paying.settle(TON)
    print([(t.exit_code, t.gas_used, t.action_code) for t in r])


TON = 10**9
