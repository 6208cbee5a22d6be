"""Background work with an owner: every task belongs to a scope, and closing the scope ends them all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine

_LOG = logging.getLogger("cocoon_proxy")


class TaskScope:
    """Tasks that live until they finish or the scope closes.

    Unlike `asyncio.TaskGroup` it may be entered and left by different tasks, which servers with
    start-up and shut-down hooks need. A task that fails with an error nobody awaits is logged by type.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self.closed = False
        """True once `close` was called."""

    def spawn(self, work: Coroutine[object, object, None], name: str) -> asyncio.Task[None]:
        """Start `work` in the background."""
        if self.closed:
            work.close()
            raise RuntimeError("the client is closed")
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def close(self) -> None:
        """Cancel what still runs and wait for it."""
        self.closed = True
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # Only the type: a message could quote what a peer sent.
            _LOG.error("background task %s failed: %s", task.get_name(), type(error).__name__)
