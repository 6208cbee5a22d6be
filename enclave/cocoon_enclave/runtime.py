"""From a configuration to a serving enclave: check GPUs, verify, load, check the state, measure, make keys, serve.

Nothing is loaded before the GPUs were appraised, nothing is measured before the model's files were verified,
nothing is served before the state was checked.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import grpc

from cocoon.v1 import (
    attestation_service_pb2_grpc,
    host_service_pb2_grpc,
    inference_service_pb2_grpc,
)
from cocoon_attestation.errors import CocoonError, ConfigError
from cocoon_attestation.payment import PriceList
from cocoon_enclave.attestation.machine import make_machine
from cocoon_enclave.clock import Clock, MonotonicClock
from cocoon_enclave.config import EnclaveConfig, ModelConfig
from cocoon_enclave.engine.process import EngineProcess, engine_threads
from cocoon_enclave.engine.protocol import Engine
from cocoon_enclave.engine.wire import EngineSpec
from cocoon_enclave.frames import CLIENT_BATCH_BYTES
from cocoon_enclave.handover import Handover, take_over
from cocoon_enclave.health import HealthServer
from cocoon_enclave.host_service import Host
from cocoon_enclave.keys import Keyring, Keyset, generate_keyset
from cocoon_enclave.log import ReceiptLog
from cocoon_enclave.metering import Meter
from cocoon_enclave.metrics import Metrics
from cocoon_enclave.models.manifest import read_verified
from cocoon_enclave.public_service import Attestation, EvidenceMaker, Inference
from cocoon_enclave.service import ServedModel, Service
from cocoon_enclave.store import Store, StoredKeyset
from cocoon_enclave.text import FILES, TextModel

_LOG: Final = logging.getLogger("cocoon_enclave")
ROTATION_CHECK_S: Final = 30.0
DRAIN_S: Final = 30.0
EngineFactory = Callable[[EnclaveConfig, ModelConfig], Engine]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What a running enclave tells whoever started it. JSON-ready with `to_dict`."""

    public_port: int
    host_port: int
    health_port: int
    binding_hash: str
    models: dict[str, str]
    """Digest in hex by name."""
    simulated: bool

    def to_dict(self) -> dict[str, object]:
        """The ready line."""
        return {
            "public_port": self.public_port,
            "host_port": self.host_port,
            "health_port": self.health_port,
            "binding_hash": self.binding_hash,
            "models": self.models,
            "simulated": self.simulated,
        }


def engine_spec(config: EnclaveConfig, model: ModelConfig) -> EngineSpec:
    """What the engine process of `model` is told."""
    return EngineSpec(
        directory=model.path,
        digest=model.digest,
        context_length=model.context_length,
        dtype=config.engine.dtype,
        slots=config.engine.slots,
        prefill_chunk=config.engine.prefill_chunk,
        threads=max(1, engine_threads() // len(config.models)),
    )


def process_engine(config: EnclaveConfig, model: ModelConfig) -> Engine:
    """The default engine: transformers on the CPU, in a process of its own."""
    return EngineProcess(
        engine_spec(config, model), queue_limit=config.engine.queue, stall_s=config.engine.stall_s
    )


class Enclave:
    """A running enclave. `start` once, `close` once."""

    def __init__(
        self,
        config: EnclaveConfig,
        *,
        clock: Clock | None = None,
        engine_factory: EngineFactory = process_engine,
    ) -> None:
        self.config = config
        self._clock = clock or MonotonicClock()
        self._factory = engine_factory
        self._engines: list[Engine] = []
        self._servers: list[grpc.aio.Server] = []
        self._health: HealthServer | None = None
        self._rotation: asyncio.Task[None] | None = None
        self._service: Service | None = None
        self._evidence: EvidenceMaker | None = None

    @property
    def service(self) -> Service:
        """The shared state, once started."""
        if self._service is None:
            raise ConfigError("the enclave is not started")
        return self._service

    async def start(self) -> Ready:
        """Boot and serve.

        Raises:
            CocoonError: it must not, or cannot, serve. Nothing is left running.
        """
        try:
            return await self._start()
        except BaseException:
            await self.close(drain_s=0)
            raise

    async def _start(self) -> Ready:
        config = self.config
        machine = await asyncio.to_thread(make_machine, config, self._clock.now)
        # GPUs take no work, and so no model, before they have passed.
        summary = await asyncio.to_thread(machine.pass_gate)
        models = await self._load_models()
        store = Store(config.state, node=config.node, global_id=config.global_id)
        try:
            state = await asyncio.to_thread(take_over, store, config, machine.dev_root)
        except CocoonError:
            store.close()
            raise
        if state.frozen:
            _LOG.warning("%d channels have claims that cannot be continued", state.frozen)
        machine.measure(config, summary)
        self._service = service = self._make_service(store, state, models)
        self._evidence = EvidenceMaker(service, machine)
        await self._introduce(service.keyring.current)
        published = [
            k.binding_hash for k in store.keysets() if k.published and k.binding_hash in state.verified
        ]
        await service.log.resign(service.keyring.current, keep=frozenset(published[-1:]))
        public_port = await self._serve_public(service, self._evidence)
        host_port = await self._serve_host(service, self._evidence)
        self._health = HealthServer(
            _split(config.server.health),
            loop=asyncio.get_running_loop(),
            ready=lambda: service.ready,
            refresh=service.refresh_metrics,
            registry=service.metrics.registry,
        )
        self._rotation = asyncio.create_task(self._rotate())
        return Ready(
            public_port=public_port,
            host_port=host_port,
            health_port=self._health.port,
            binding_hash=service.keyring.current.binding_hash.hex(),
            models={model.name: model.digest.hex() for model in config.models},
            simulated=machine.simulated,
        )

    async def _load_models(self) -> dict[str, ServedModel]:
        models = {}
        for model in self.config.models:
            files = await asyncio.to_thread(read_verified, model.path, model.digest, FILES)
            engine = self._factory(self.config, model)
            self._engines.append(engine)
            await engine.start()
            models[model.name] = ServedModel(
                name=model.name,
                digest=model.digest,
                context_length=engine.info.context_length,
                engine=engine,
                text=TextModel.from_files(files),
            )
        return models

    def _make_service(self, store: Store, state: Handover, models: dict[str, ServedModel]) -> Service:
        config, prices = self.config, self.config.prices
        meter = Meter(
            node=config.node,
            global_id=config.global_id,
            prices=PriceList(prompt=prices.prompt, cached=prices.cached, completion=prices.completion),
            claim_time_s=config.limits.claim_time_s,
        )
        meter.resume(state.channels, state.verified)
        log = ReceiptLog(
            config=config,
            store=store,
            meter=meter,
            clock=self._clock,
            tree=state.tree,
            anchored=state.anchored,
            deadlines=state.deadlines,
        )
        return Service(
            config=config,
            clock=self._clock,
            keyring=Keyring(current=generate_keyset(config, self._clock.now())),
            meter=meter,
            log=log,
            models=models,
            metrics=Metrics(),
        )

    async def _introduce(self, keyset: Keyset) -> None:
        """Keep evidence for a new keyset, so that the enclave after this one can verify what it signed."""
        if self._evidence is None:
            raise ConfigError("the enclave is not started")
        evidence = await self._evidence.make(challenge=secrets.token_bytes(32), keyset=keyset)
        row = StoredKeyset(
            binding_hash=keyset.binding_hash,
            binding=keyset.binding_boc,
            evidence=evidence,
            published=False,
            made_at=int(self._clock.now()),
        )
        await self.service.log.put_keyset(row)

    async def _serve_public(self, service: Service, evidence: EvidenceMaker) -> int:
        server = grpc.aio.server(options=_server_options(service.config))
        attestation_service_pb2_grpc.add_AttestationServiceServicer_to_server(
            Attestation(service, evidence), server
        )
        inference_service_pb2_grpc.add_InferenceServiceServicer_to_server(Inference(service), server)
        port = server.add_secure_port(service.config.server.public, _credentials(service))
        await server.start()
        self._servers.append(server)
        return int(port)

    async def _serve_host(self, service: Service, evidence: EvidenceMaker) -> int:
        server = grpc.aio.server()
        host_service_pb2_grpc.add_HostServiceServicer_to_server(Host(service, evidence), server)
        # The host answers challenges with the proofs that anybody may ask for.
        attestation_service_pb2_grpc.add_AttestationServiceServicer_to_server(
            Attestation(service, evidence), server
        )
        port = server.add_insecure_port(service.config.server.host)
        await server.start()
        self._servers.append(server)
        return int(port)

    async def _rotate(self) -> None:
        """Replace the keyset before its end, and forget those that are past theirs."""
        while True:
            await asyncio.sleep(ROTATION_CHECK_S)
            try:
                await self.rotate_if_due()
            except CocoonError as error:  # the old keyset still serves; try again
                _LOG.error("new keys could not be made: %s", error.code)

    async def rotate_if_due(self) -> bool:
        """Make a new keyset if the current one nears its end; True if so.

        Raises:
            UnavailableError: no evidence could be made or stored; the old keyset stays current.
        """
        service, now = self.service, self._clock.now()
        service.keyring.expire(now)
        if not service.keyring.due(now, self.config.key_overlap_s):
            return False
        before, keyset = service.keyring.current, generate_keyset(self.config, now)
        # On disk before it is used: a receipt must never name a keyset that a restart cannot find.
        await self._introduce(keyset)
        service.keyring.rotate(keyset)
        await service.log.resign(keyset, keep=frozenset({before.binding_hash}))
        _LOG.info("new keys: %s", keyset.binding_hash.hex())
        return True

    async def drain(self, seconds: float = DRAIN_S) -> None:
        """Take no more requests and finish those in flight."""
        if self._service is not None:
            await self._service.drain(seconds)

    async def close(self, *, drain_s: float = DRAIN_S) -> None:
        """Drain, stop serving, end the engines, close the store. Idempotent."""
        if self._rotation is not None:
            self._rotation.cancel()
        await self.drain(drain_s)
        for server in self._servers:
            await server.stop(1.0)
        self._servers.clear()
        if self._health is not None:
            await asyncio.to_thread(self._health.close)
            self._health = None
        for engine in self._engines:
            await engine.close()
        self._engines.clear()
        if self._service is not None:
            service, self._service = self._service, None
            await service.drain(5.0)
            await service.log.close()


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"server: host:port expected, not {address!r}")
    return host, int(port)


def _server_options(config: EnclaveConfig) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", max(config.limits.sealed_bytes, CLIENT_BATCH_BYTES) + 8192),
        ("grpc.max_concurrent_streams", 1000),
        ("grpc.so_reuseport", 0),
        # Clients may ping an idle session every 20 seconds to keep it open through middle boxes.
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
    ]


def _credentials(service: Service) -> grpc.ServerCredentials:
    """TLS with the certificate of the keyset that is current when a client connects."""

    def configuration() -> grpc.ServerCertificateConfiguration:
        keyset = service.keyring.current
        pair = (keyset.tls_key_pem, keyset.tls_certificate_pem)
        return grpc.ssl_server_certificate_configuration([pair])

    return grpc.dynamic_ssl_server_credentials(
        configuration(), configuration, require_client_authentication=False
    )
