"""``Idempotency-Key``: a request that a caller repeats under the same key is not sent, and not paid, twice.

Answers are not kept, so a repeat gets an error that names the receipt of the first one. Keys live in
memory, for a day at most. A request that ended without charge frees its key.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cocoon_attestation.errors import RejectedError
from cocoon_proxy.errors import InvalidRequestError

MAX_KEYS: Final = 10_000
LIFETIME_S: Final = 86_400.0
MAX_KEY_LENGTH: Final = 255


class IdempotencyError(RejectedError):
    """A request under this key was sent before."""

    code = "idempotency_conflict"
    http_status = 409
    grpc_status = "ALREADY_EXISTS"
    default_hint = "answers are not kept; use a new key to ask, and pay, again"


@dataclass(slots=True)
class _Entry:
    digest: bytes
    expires_at: float
    receipt_id: str = ""
    """Of the answer, once there is one."""


class IdempotencyKeys:
    """The keys that were used. Holds digests of bodies, never bodies."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    def claim(self, key: str, body: bytes) -> None:
        """Take a key for a request.

        Raises:
            InvalidRequestError: the key is too long, or was used with another body.
            IdempotencyError: a request under it was sent, or is under way.
        """
        if not 0 < len(key) <= MAX_KEY_LENGTH:
            raise InvalidRequestError(f"Idempotency-Key: 1 to {MAX_KEY_LENGTH} characters expected")
        self._sweep()
        digest = hashlib.sha256(body).digest()
        known = self._entries.get(key)
        if known is None:
            self._entries[key] = _Entry(digest=digest, expires_at=self._clock() + LIFETIME_S)
            return
        if known.digest != digest:
            raise InvalidRequestError("Idempotency-Key was used with another body")
        raise IdempotencyError(
            "a request with this Idempotency-Key was sent before",
            details={"receipt_id": known.receipt_id} if known.receipt_id else {},
        )

    def completed(self, key: str, receipt_id: str) -> None:
        """The request under this key was answered."""
        if key in self._entries:
            self._entries[key].receipt_id = receipt_id

    def release(self, key: str) -> None:
        """The request under this key ended without charge: it may be repeated."""
        self._entries.pop(key, None)

    def _sweep(self) -> None:
        now = self._clock()
        while self._entries:
            key, entry = next(iter(self._entries.items()))
            if entry.expires_at > now and len(self._entries) < MAX_KEYS:
                return
            del self._entries[key]
