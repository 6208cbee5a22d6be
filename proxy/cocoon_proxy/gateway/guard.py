"""Who may talk to the gateway (attack A19): raw ASGI, in front of everything else.

A web page that the user visits can make the browser send requests to loopback. Three rules stop it: the
Host header must name this machine (so a name that was rebound to 127.0.0.1 fails), a request with an
Origin header is refused unless that origin was allowed, and there are no CORS headers for others. Another
user of this machine is refused by the owner of the socket, or by a bearer token if one is set.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cocoon_attestation.errors import ConfigError
from cocoon_proxy.config import GatewayConfig
from cocoon_proxy.gateway.openai import ErrorResponse, plain_error
from cocoon_proxy.gateway.peer import is_other_user

LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
REQUEST_ID: Final = "x-request-id"


def check_binding(config: GatewayConfig) -> None:
    """Refuse to serve on a non-loopback address without a token. Raises `ConfigError`."""
    if config.host not in LOOPBACK and not config.token:
        raise ConfigError(
            f"refusing to bind {config.host} without a token",
            hint="set gateway.token, or bind 127.0.0.1",
        )
    if config.token and len(config.token) < 16:
        raise ConfigError("gateway.token is shorter than 16 characters")


class Guard:
    """ASGI middleware: Host, Origin and token checks, request ids."""

    def __init__(self, app: ASGIApp, config: GatewayConfig) -> None:
        check_binding(config)
        self._app = app
        self._hosts = LOOPBACK | {config.host.lower()} | {h.lower() for h in config.allowed_hosts}
        self._origins = frozenset(config.allowed_origins)
        self._token = config.token.encode("utf-8")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request and pass it on."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = f"req_{secrets.token_hex(12)}"
        scope.setdefault("state", {})["request_id"] = request_id
        origin = headers.get("origin")

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                out = MutableHeaders(scope=message)
                out[REQUEST_ID] = request_id
                if origin is not None and origin in self._origins:
                    out["access-control-allow-origin"] = origin
                    out["vary"] = "Origin"
            await send(message)

        refusal = self._refusal(scope, headers)
        if refusal is not None:
            await _respond(refusal, send_with_id)
        elif scope["method"] == "OPTIONS" and origin is not None:
            await _preflight(send_with_id)
        else:
            await self._app(scope, receive, send_with_id)

    def _refusal(self, scope: Scope, headers: Headers) -> ErrorResponse | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or _host_name(hosts[0]) not in self._hosts:
            return plain_error(
                421, "unknown host: use the loopback address", kind="invalid_request_error", code="bad_host"
            )
        origins = headers.getlist("origin")
        if any(origin not in self._origins for origin in origins):
            return plain_error(
                403, "this web origin may not call the gateway", kind="permission_error", code="bad_origin"
            )
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not origins:
            return plain_error(
                403, "requests from web pages are refused", kind="permission_error", code="bad_origin"
            )
        preflight = scope["method"] == "OPTIONS" and origins
        if self._token and not preflight and not self._authorized(headers.getlist("authorization")):
            return plain_error(
                401, "wrong or missing token", kind="authentication_error", code="invalid_api_key"
            )
        if not self._token and _other_user(scope):
            return plain_error(
                403,
                "the gateway serves the user who started it",
                kind="permission_error",
                code="other_user",
            )
        return None

    def _authorized(self, values: Iterable[str]) -> bool:
        for value in values:
            scheme, _, token = value.partition(" ")
            if scheme.lower() == "bearer":
                return hmac.compare_digest(token.strip().encode("utf-8"), self._token)
        return False


def _other_user(scope: Scope) -> bool:
    client, server = scope.get("client"), scope.get("server")
    if not client or not server or server[1] is None:  # a Unix socket has no port, and its own permissions
        return False
    return is_other_user((client[0], client[1]), server[1])


def _host_name(value: str) -> str:
    """The host of a Host header, without port; empty if it is malformed."""
    value = value.strip().lower()
    if value.startswith("["):
        name, bracket, rest = value[1:].partition("]")
        return name if bracket and (not rest or _is_port(rest)) else ""
    name, colon, port = value.partition(":")
    return name if not colon or _is_port(f":{port}") else ""


def _is_port(text: str) -> bool:
    return text.startswith(":") and text[1:].isascii() and text[1:].isdecimal()


async def _respond(response: ErrorResponse, send: Send) -> None:
    headers = [(b"content-type", b"application/json")]
    headers += [(k.encode("ascii"), v.encode("ascii")) for k, v in response.headers.items()]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.content})


async def _preflight(send: Send) -> None:
    headers = [
        (b"access-control-allow-methods", b"GET, POST"),
        (b"access-control-allow-headers", b"authorization, content-type, idempotency-key"),
        (b"access-control-max-age", b"600"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
