"""HTTP for endorsements: bounded in size and time, no redirects, patient with busy services.

Endorsements are signed, so the transport proves nothing; the bounds here protect this process, and TLS
keeps others from seeing which platforms are verified.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import httpx

from cocoon_attestation.errors import ConfigError
from cocoon_proxy.endorsements.sources import EndorsementSources
from cocoon_proxy.errors import EndorsementUnavailableError

USER_AGENT: Final = "cocoon-network"
_BUSY: Final = frozenset({429, 500, 502, 503, 504})
Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchLimits:
    """Bounds on one fetch, all attempts included."""

    total_s: float = 30.0
    """Longest time from the first attempt to the last byte."""
    connect_s: float = 10.0
    """Longest time to connect, in one attempt."""
    attempts: int = 3
    """Attempts while the service is busy or cannot be reached."""
    backoff_s: float = 0.5
    """Wait before the second attempt; it doubles. A longer Retry-After is obeyed within `total_s`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A complete answer with status 200."""

    body: bytes
    headers: Mapping[str, str]
    """Names in lower case."""


class _BusyError(Exception):
    """A failure that another attempt may cure."""

    def __init__(self, reason: str, retry_after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class Fetcher:
    """Fetches bounded documents. Enter it as an async context manager, or call `close`."""

    def __init__(
        self,
        sources: EndorsementSources,
        *,
        limits: FetchLimits | None = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """Prepare; nothing is connected yet.

        Raises:
            ConfigError: `ca_file` of the sources cannot be read.
        """
        self._limits = limits or FetchLimits()
        self._sleep = sleep
        self._client = httpx.AsyncClient(
            verify=_tls(sources),
            follow_redirects=False,
            trust_env=False,
            timeout=httpx.Timeout(self._limits.total_s, connect=self._limits.connect_s),
            limits=httpx.Limits(max_connections=16, max_keepalive_connections=8),
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def get(
        self,
        url: str,
        *,
        limit: int,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Fetch `url`; the body has at most `limit` bytes.

        Raises:
            EndorsementUnavailableError: no such answer came in time; `details` say why.
        """
        request = self._client.build_request(
            "GET", url, params=dict(params or {}), headers=dict(headers or {})
        )
        return await self._fetch(request, limit)

    async def post(self, url: str, *, content: bytes, content_type: str, accept: str, limit: int) -> Answer:
        """Send `content` to `url`; the answer's body has at most `limit` bytes.

        Raises:
            EndorsementUnavailableError: no such answer came in time; `details` say why.
        """
        headers = {"Content-Type": content_type, "Accept": accept}
        return await self._fetch(
            self._client.build_request("POST", url, content=content, headers=headers), limit
        )

    async def _fetch(self, request: httpx.Request, limit: int) -> Answer:
        place = f"{request.url.scheme}://{request.url.netloc.decode('ascii')}{request.url.path}"
        try:
            async with asyncio.timeout(self._limits.total_s):
                return await self._attempts(request, limit, place)
        except TimeoutError as error:
            raise EndorsementUnavailableError(
                f"{place}: no complete answer within {self._limits.total_s:g} s", details={"source": place}
            ) from error

    async def _attempts(self, request: httpx.Request, limit: int, place: str) -> Answer:
        wait = self._limits.backoff_s
        for attempt in range(1, self._limits.attempts + 1):
            try:
                return await self._once(request, limit, place)
            except (_BusyError, httpx.TransportError) as error:
                reason = str(error) or type(error).__name__
                pause = max(wait, error.retry_after_s if isinstance(error, _BusyError) else 0.0)
                if attempt == self._limits.attempts or pause >= self._limits.total_s:
                    raise EndorsementUnavailableError(
                        f"{place}: {reason}", details={"source": place, "retry_after_s": pause}
                    ) from error
            await self._sleep(pause)
            wait *= 2
        raise EndorsementUnavailableError(f"{place}: no attempt was made", details={"source": place})

    async def _once(self, request: httpx.Request, limit: int, place: str) -> Answer:
        response = await self._client.send(request, stream=True)
        try:
            status = response.status_code
            if status in _BUSY:
                raise _BusyError(f"the service answered {status}", _retry_after(response))
            problem = _refusal(response, limit)
            if problem is not None:
                raise EndorsementUnavailableError(
                    f"{place}: {problem}", details={"source": place, "status": status}
                )
            body = await _bounded(response, limit)
        finally:
            await response.aclose()
        if body is None:
            raise EndorsementUnavailableError(
                f"{place}: the answer is longer than {limit} bytes", details={"source": place}
            )
        return Answer(body=body, headers={name.lower(): value for name, value in response.headers.items()})


def _refusal(response: httpx.Response, limit: int) -> str | None:
    """Why the head of an answer is not acceptable, or None."""
    status = response.status_code
    if 300 <= status < 400:
        return f"the service answered {status}: redirects are not followed"
    if status == 404:
        return "the service does not know this (404)"
    if status != 200:
        return f"the service answered {status}"
    if response.headers.get("content-encoding", "identity").lower() not in ("", "identity"):
        return "the answer is compressed, which was not asked for"
    length = response.headers.get("content-length", "")
    if length.isdecimal() and int(length[:20]) > limit:
        return f"the answer is longer than {limit} bytes"
    return None


async def _bounded(response: httpx.Response, limit: int) -> bytes | None:
    """The body, or None as soon as it is longer than `limit`."""
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > limit:
            return None
    return bytes(body)


def _retry_after(response: httpx.Response) -> float:
    """Seconds of Retry-After; the form with a date counts as none."""
    value = response.headers.get("retry-after", "")
    return float(value) if value.isdecimal() and len(value) < 8 else 0.0


def _tls(sources: EndorsementSources) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if sources.ca_file is not None:
        try:
            context.load_verify_locations(cafile=sources.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"ca_file: {sources.ca_file} cannot be used") from error
    return context
