"""Runs both servers of the gateway in the current event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from types import TracebackType
from typing import Self

import grpc.aio
import uvicorn

from cocoon.v1 import local_service_pb2_grpc
from cocoon_attestation.errors import ConfigError
from cocoon_proxy.config import GatewayConfig
from cocoon_proxy.gateway.app import create_app
from cocoon_proxy.gateway.backend import Backend
from cocoon_proxy.gateway.guard import check_binding
from cocoon_proxy.gateway.local_grpc import LocalInference

_GRACE_S = 5


class Gateway:
    """HTTP and gRPC servers as an async context manager."""

    def __init__(self, backend: Backend, config: GatewayConfig) -> None:
        check_binding(config)
        self._backend = backend
        self._config = config
        self._http: asyncio.Task[None] | None = None
        self._server: uvicorn.Server | None = None
        self._grpc: grpc.aio.Server | None = None
        self.http_port = 0
        """Port of the HTTP server, once entered."""
        self.grpc_port = 0
        """Port of the gRPC server, once entered."""

    @property
    def base_url(self) -> str:
        """What ``OPENAI_BASE_URL`` should be."""
        host = self._config.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.http_port}/v1"

    async def __aenter__(self) -> Self:
        """Bind and start both servers; raises `ConfigError` if a port is taken."""
        listener = _bind(self._config.host, self._config.port)
        try:
            await self._start_grpc()
        except BaseException:
            listener.close()
            raise
        self.http_port = listener.getsockname()[1]
        settings = uvicorn.Config(
            create_app(self._backend, self._config),
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=_GRACE_S,
        )
        self._server = _QuietServer(settings)
        self._http = asyncio.get_running_loop().create_task(self._server.serve(sockets=[listener]))
        while not self._server.started and not self._http.done():  # noqa: ASYNC110  # uvicorn has no event
            await asyncio.sleep(0.005)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop both servers, giving answers in flight a few seconds."""
        if self._grpc is not None:
            await self._grpc.stop(grace=_GRACE_S if error is None else 0)
        if self._server is not None and self._http is not None:
            self._server.should_exit = True
            await self._http

    async def wait(self) -> None:
        """Return when the HTTP server stops."""
        if self._http is not None:
            await asyncio.shield(self._http)

    async def _start_grpc(self) -> None:
        server = grpc.aio.server()
        servicer = LocalInference(self._backend, self._config)
        local_service_pb2_grpc.add_LocalInferenceServiceServicer_to_server(servicer, server)
        try:
            self.grpc_port = servicer.port = server.add_insecure_port(f"127.0.0.1:{self._config.grpc_port}")
        except RuntimeError as error:
            raise ConfigError(f"cannot bind port {self._config.grpc_port} for gRPC") from error
        await server.start()
        self._grpc = server


class _QuietServer(uvicorn.Server):
    """Leaves signals to whoever runs the event loop."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]  # uvicorn's own signature is untyped
        """Install no handlers."""
        yield


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot bind {host}:{port}: {error.strerror}") from error
    return listener
