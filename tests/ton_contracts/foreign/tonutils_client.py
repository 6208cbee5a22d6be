"""tonutils on a development chain: its lite client reads, its wallet pays. Run as a process.

Standard input: one JSON job (`config`, `registry`, `getter`, `seed`, `to`, `amount`). Standard output, one JSON
line each: ``{"wallet": address}``, and, when money came and the payment is seen, the report.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from ton_core import Address, NetworkGlobalID, PrivateKey
from tonutils.clients import LiteBalancer, LiteClient
from tonutils.contracts import WalletV4R2


def say(document: dict[str, Any]) -> None:
    """One line on standard output."""
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


async def until(what: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it is so, at most 30 s."""
    async with asyncio.timeout(30):
        while not await what():  # noqa: ASYNC110 - asks a server
            await asyncio.sleep(0.1)


async def main() -> None:
    """Do the job."""
    job = json.load(sys.stdin)
    client: Any = LiteClient.from_config(NetworkGlobalID.TESTNET, config=job["config"], index=0)
    async with client:
        wallet = WalletV4R2.from_private_key(client, PrivateKey(bytes.fromhex(job["seed"])))
        say({"wallet": wallet.address.to_str(is_user_friendly=False)})

        async def funded() -> bool:
            return int((await client.get_info(wallet.address)).balance) > 0

        async def arrived() -> bool:
            return int((await client.get_info(job["to"])).balance) == int(job["amount"])

        await until(funded)
        head = await client.get_masterchain_info()
        registry = await client.get_info(job["registry"])
        answer = await client.run_get_method(job["registry"], job["getter"])
        await wallet.refresh()
        await wallet.transfer(destination=Address(job["to"]), amount=int(job["amount"]), bounce=False)
        await until(arrived)
        await wallet.refresh()
        history = await client.get_transactions(wallet.address, limit=10)
        config = await client.get_config()
        later = await client.get_masterchain_info()
        async with LiteBalancer.from_config(NetworkGlobalID.TESTNET, config=job["config"]) as balancer:
            balanced = await balancer.get_info(job["registry"])
        say(
            {
                "head": head.last.seqno,
                "balance": str(registry.balance),
                "data": base64.b64encode(registry.data.to_boc()).decode(),
                "getter": answer[0],
                "seqno": await wallet.seqno(),
                "history": [str(transaction.lt) for transaction in history],
                "later": later.last.seqno,
                "time": await client.get_time(),
                "version": await client.get_version(),
                "config_params": sorted(config),
                "balanced": str(balanced.balance),
                "shards": len(await client.get_all_shards_info()),
            }
        )


if __name__ == "__main__":
    asyncio.run(main())
