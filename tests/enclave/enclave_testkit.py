"""Everything to run a node without a chain, and a client that seals, pays and checks. Tests only.

Simulated platform, a tiny model, and an engine that answers a prompt with its own tokens again. Run as a
program (``python enclave_testkit.py CONFIG``) it is a whole enclave on that engine, for tests that kill it.
Fixtures are at the end; a test module outside this directory imports those it needs.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import secrets
import ssl
import sys
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pytoniq_core import Address
from tokenizers import Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from cocoon.v1 import (
    attestation_service_pb2,
    attestation_service_pb2_grpc,
    host_service_pb2,
    host_service_pb2_grpc,
    inference_service_pb2_grpc,
    payment_pb2,
    sealed_pb2,
)
from cocoon.v1 import inference_service_pb2 as wire
from cocoon_attestation.appraisal import appraise
from cocoon_attestation.dev_roots import read_dev_roots
from cocoon_attestation.errors import EngineError
from cocoon_attestation.payment import Authorization, sign_authorization
from cocoon_attestation.policy import Policy
from cocoon_attestation.receipt import Receipt, commit_response, verify_receipt
from cocoon_attestation.sealing import ResponseOpener, seal_request
from cocoon_attestation.types import Digest32
from cocoon_attestation.verified import VerifiedEnclave
from cocoon_enclave.attestation.simulated import EVALUATION_NUMBER, DevPlatform
from cocoon_enclave.config import EnclaveConfig, Limits, ModelConfig, Prices, load_config
from cocoon_enclave.engine.protocol import (
    Delta,
    Engine,
    EngineInfo,
    FinishReason,
    GenerationRequest,
)
from cocoon_enclave.errors import ContextLengthError, EngineCrashedError
from cocoon_enclave.keys import TLS_NAME
from cocoon_enclave.models import measure
from cocoon_enclave.runtime import Enclave, Ready
from cocoon_ton.channel import ChannelIdentity

NODE = Digest32(b"\x11" * 32)
GLOBAL_ID = -777


class ScriptedGeneration:
    """Echoes the prompt's tokens."""

    def __init__(self, engine: ScriptedEngine, request: GenerationRequest) -> None:
        self._engine = engine
        self._request = request
        self._aborted = False
        self.steps = 0

    def abort(self) -> None:
        """Stop within one step."""
        self._aborted = True

    async def __aiter__(self) -> AsyncIterator[Delta]:
        """One token a step."""
        engine, request = self._engine, self._request
        try:
            for step in range(request.max_tokens):
                await engine.gate.wait()
                await asyncio.sleep(engine.step_s)
                if self._aborted:
                    yield Delta(finish=FinishReason.ABORT, started=step == 0)
                    return
                if engine.crash_after is not None and step >= engine.crash_after:
                    raise EngineCrashedError("the engine process ended")
                self.steps += 1
                done = step + 1 == len(request.prompt) * engine.repeat
                token = request.prompt[step % len(request.prompt)]
                finish = FinishReason.STOP if done else None
                if step + 1 == request.max_tokens and not done:
                    finish = FinishReason.LENGTH
                yield Delta(tokens=(token,), finish=finish, started=step == 0)
                if finish is not None:
                    return
        finally:
            engine.running.remove(self)


class ScriptedEngine:
    """An `Engine` in this process. Faults are switched on by attributes."""

    def __init__(self, *, context_length: int = 512, step_s: float = 0.0) -> None:
        self.step_s = step_s
        self.repeat = 1
        self.crash_after: int | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.running: list[ScriptedGeneration] = []
        self.started: list[ScriptedGeneration] = []
        self.ready = False
        self._info = EngineInfo(name="scripted", context_length=context_length, slots=8)

    @property
    def info(self) -> EngineInfo:
        """What it is."""
        return self._info

    @property
    def active(self) -> int:
        """Requests that run."""
        return len(self.running)

    async def start(self) -> None:
        """Nothing to load."""
        self.ready = True

    async def close(self) -> None:
        """Stop everything."""
        self.ready = False
        for generation in self.running:
            generation.abort()

    def submit(self, request: GenerationRequest) -> ScriptedGeneration:
        """Start a request."""
        if not self.ready:
            raise EngineError("the engine is not running")
        if len(request.prompt) + request.max_tokens > self._info.context_length:
            raise ContextLengthError("too long")
        generation = ScriptedGeneration(self, request)
        self.running.append(generation)
        self.started.append(generation)
        return generation


def scripted_engine(config: EnclaveConfig, model: ModelConfig) -> Engine:
    """An engine for `Enclave`, slow enough to be killed in the middle of an answer."""
    engine = ScriptedEngine(context_length=model.context_length, step_s=0.02)
    engine.repeat = 1000
    return engine


def write_tiny_model(directory: Path) -> None:
    """A model directory with a byte-level tokenizer and a template: all that the front-end reads."""
    directory.mkdir()
    alphabet = sorted(ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE({char: index for index, char in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = ByteLevelDecoder()
    tokenizer.add_special_tokens(["<eos>"])
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text('{"eos_token": "<eos>"}')
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    (directory / "chat_template.jinja").write_text(template)


class Wallet:
    """A client's channel with a node."""

    def __init__(self, node: bytes = NODE, global_id: int = GLOBAL_ID, salt: int = 1) -> None:
        self.key = Ed25519PrivateKey.generate()
        self.identity = ChannelIdentity(
            global_id=global_id,
            client=Address((0, b"\x33" * 32)),
            client_key=self.key.public_key().public_bytes_raw(),
            node=Address((0, node)),
            salt=salt,
            close_delay=3600,
        )
        self.channel = Digest32(self.identity.address.hash_part)
        self.global_id = global_id

    def payment(
        self,
        *,
        cap: int = 10**9,
        valid_for: float = 600,
        price_limit: int = 10**9,
        key: Ed25519PrivateKey | None = None,
        channel: bytes | None = None,
    ) -> payment_pb2.Payment:
        """A payment; arguments make it a bad one."""
        authorization = Authorization(
            global_id=self.global_id,
            channel=channel or self.channel,
            cap=cap,
            valid_until=int(time.time() + valid_for),
        )
        return payment_pb2.Payment(
            channel=self.identity.to_proto(),
            authorization=sign_authorization(authorization, key or self.key),
            price_limit=payment_pb2.PriceList(
                prompt=price_limit, cached=price_limit, completion=price_limit
            ),
        )


@dataclass(slots=True, kw_only=True)
class Reply:
    """What came back for one request."""

    status: int = 0
    content_type: str = ""
    body: bytes = b""
    frames: int = 0
    usage: sealed_pb2.Usage | None = None
    receipt: Receipt | None = None
    error: str = ""
    """Code of a bare error."""

    @property
    def texts(self) -> list[str]:
        """Contents of the events of a streamed chat answer."""
        return [
            choice["delta"].get("content", "")
            for event in self.events
            for choice in event.get("choices", [])
        ]

    @property
    def events(self) -> list[dict[str, Any]]:
        """Server-sent events."""
        return [json.loads(part[6:]) for part in self.body.decode().split("\n\n") if part]

    @property
    def document(self) -> Any:
        """A JSON body."""
        return json.loads(self.body)


@dataclass(slots=True, kw_only=True)
class Pending:
    """A request that was sent."""

    opener: ResponseOpener
    plain: sealed_pb2.PlainRequest
    sealed: bytes


@dataclass(slots=True, kw_only=True)
class Client:
    """A client with one session: seals, sends, opens, and checks receipts as the specification demands."""

    verified: VerifiedEnclave
    stream: Any
    wallet: Wallet
    next_number: int = 1
    pending: dict[int, Pending] = field(default_factory=dict)
    replies: dict[int, Reply] = field(default_factory=dict)
    unread: deque[wire.ResponseFrame] = field(default_factory=deque)
    messages: int = 0
    """Messages received; each has frames of any requests."""

    def plain(
        self,
        text: str = "hello",
        *,
        payment: payment_pb2.Payment | None = None,
        deadline_s: float = 60,
        endpoint: str = "/v1/chat/completions",
        body: bytes | None = None,
        **fields: Any,
    ) -> sealed_pb2.PlainRequest:
        """A request in the clear."""
        document = {"model": "tiny", "messages": [{"role": "user", "content": text}], **fields}
        return sealed_pb2.PlainRequest(
            request_id=secrets.token_bytes(16),
            endpoint=endpoint,
            body=json.dumps(document).encode() if body is None else body,
            payment=payment or self.wallet.payment(),
            receipt_salt=secrets.token_bytes(32),
            deadline_ms=int((time.time() + deadline_s) * 1000),
        )

    async def send(self, plain: sealed_pb2.PlainRequest) -> int:
        """Seal and send; returns the number."""
        number = self.next_number
        await self.write(wire.RequestFrame(request_number=number, open=self.seal(plain)))
        return number

    def seal(self, plain: sealed_pb2.PlainRequest) -> bytes:
        """Seal a request under the next number, and expect its answer."""
        sealed, opener = seal_request([self.verified], plain.SerializeToString(), now=int(time.time()))
        number = self.next_number
        self.next_number += 1
        self.pending[number] = Pending(opener=opener, plain=plain, sealed=sealed)
        self.replies[number] = Reply()
        return sealed

    async def cancel(self, number: int) -> None:
        """Send a cancel frame."""
        await self.write(wire.RequestFrame(request_number=number, cancel=True))

    async def write(self, *frames: wire.RequestFrame) -> None:
        """Send frames in one message."""
        await self.stream.write(wire.SessionRequest(frames=frames))

    async def receive(self) -> tuple[int, str | None]:
        """Take one frame; returns its number and kind."""
        if not self.unread:
            message = await asyncio.wait_for(self.stream.read(), 20)
            assert isinstance(message, wire.SessionResponse), "the session ended"
            assert message.frames
            self.messages += 1
            self.unread.extend(message.frames)
        frame = self.unread.popleft()
        number, kind = frame.request_number, frame.WhichOneof("frame")
        pending, reply = self.pending[number], self.replies[number]
        reply.frames += 1
        if kind == "error":
            reply.error = frame.error.code
        elif kind == "head":
            head = sealed_pb2.ResponseHead.FromString(pending.opener.head(frame.head))
            reply.status, reply.content_type = head.status, head.content_type
        elif kind == "data":
            reply.body += pending.opener.data(frame.data)
        else:
            final = sealed_pb2.ResponseFinal.FromString(pending.opener.final(frame.final))
            reply.body += final.tail
            reply.usage = final.usage
            binding = self.verified.binding
            reply.receipt = receipt = verify_receipt(final.receipt, binding.receipt_key)
            assert receipt.binding_hash == binding.hash
            salt = pending.plain.receipt_salt
            assert receipt.response_commitment == commit_response(salt, reply.body)
        return number, kind

    async def wait(self, number: int) -> Reply:
        """Receive until the request has ended."""
        while True:
            got, kind = await self.receive()
            if got == number and kind in ("final", "error"):
                return self.replies[number]

    async def ask(self, text: str = "hello", **arguments: Any) -> Reply:
        """Send one request and wait for the end of its answer."""
        return await self.wait(await self.send(self.plain(text, **arguments)))


class Node:
    """A running enclave and the stubs to talk to it."""

    def __init__(self, config: EnclaveConfig, ready: Ready, certificate: bytes) -> None:
        self.config = config
        self.ready = ready
        self.enclave: Enclave | None = None
        """Set where it runs in this process."""
        self.public = grpc.aio.secure_channel(
            f"127.0.0.1:{ready.public_port}",
            grpc.ssl_channel_credentials(certificate),
            (("grpc.ssl_target_name_override", TLS_NAME),),
        )
        self.private = grpc.aio.insecure_channel(f"127.0.0.1:{ready.host_port}")
        self.attestation = attestation_service_pb2_grpc.AttestationServiceStub(self.public)
        self.inference: Any = inference_service_pb2_grpc.InferenceServiceStub(self.public)
        self.host = host_service_pb2_grpc.HostServiceStub(self.private)

    @classmethod
    async def connect(cls, config: EnclaveConfig, ready: Ready) -> Node:
        """Fetch the certificate, as a client would before it checks it against the binding."""
        address = ("127.0.0.1", ready.public_port)
        certificate = await asyncio.to_thread(ssl.get_server_certificate, address)
        return cls(config, ready, certificate.encode())

    async def close(self) -> None:
        """Close the connections."""
        await self.public.close(None)
        await self.private.close(None)

    def policy(self) -> Policy:
        """A policy that accepts this node."""
        assert self.config.platform is not None
        dev_root = DevPlatform.load(self.config.platform).root_der
        vendors = read_dev_roots(dev_root)
        return Policy(
            global_id=self.config.global_id,
            releases=(self.config.release,),
            models=frozenset(model.digest for model in self.config.models),
            min_tcb_evaluation=EVALUATION_NUMBER,
            tee_kinds=frozenset({self.config.release.tee}),
            dev_root=dev_root,
            node=self.config.node,
            snp=vendors.snp,
            gpu=vendors.gpu,
        )

    async def appraise(self) -> VerifiedEnclave:
        """Fresh evidence, appraised."""
        challenge = secrets.token_bytes(32)
        request = attestation_service_pb2.GetEvidenceRequest(challenge=challenge)
        response = await self.attestation.GetEvidence(request)
        return appraise(response.evidence, policy=self.policy(), challenge=challenge, now=int(time.time()))

    async def fund(self, wallet: Wallet, balance: int = 10**9, paid: int = 0, close_at: int = 0) -> None:
        """Tell the enclave what the chain says about a channel."""
        facts = host_service_pb2.ChannelFacts(
            channel=wallet.channel, balance=balance, paid=paid, close_at=close_at
        )
        await self.host.SetChannels(host_service_pb2.SetChannelsRequest(channels=[facts]))

    @asynccontextmanager
    async def client(self, wallet: Wallet | None = None, *, funded: bool = True) -> AsyncIterator[Client]:
        """A client with a session; with `funded`, its channel is known to the enclave."""
        wallet = wallet or Wallet(salt=secrets.randbits(63))
        verified = await self.appraise()
        stream = self.inference.Session()
        client = Client(verified=verified, stream=stream, wallet=wallet)
        try:
            if funded:
                # A node looks up only channels that somebody wants to use.
                await self.introduce(client)
            yield client
        finally:
            stream.cancel()

    async def introduce(self, client: Client) -> None:
        """Let the enclave ask for the channel, and answer."""
        model = self.config.models[0].name
        number = await client.send(client.plain("x", max_tokens=1, model=model))
        for _ in range(200):
            status = await self.host.GetStatus(host_service_pb2.GetStatusRequest())
            if status.unknown_channels:
                break
            await asyncio.sleep(0.01)
        await self.fund(client.wallet)
        reply = await client.wait(number)
        assert reply.status == 200, reply


@pytest.fixture(scope="session")
def platform_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated platform on disk."""
    directory = tmp_path_factory.mktemp("platform") / "p"
    DevPlatform.create(int(time.time()) - 3600, secrets.token_bytes).save(directory)
    return directory


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the tiny model."""
    directory = tmp_path_factory.mktemp("model") / "tiny"
    write_tiny_model(directory)
    return directory


@pytest.fixture
def config(tmp_path: Path, platform_dir: Path, tiny_model: Path) -> EnclaveConfig:
    """A configuration for the scripted engine."""
    return EnclaveConfig(
        node=NODE,
        registry="0:" + "22" * 32,
        global_id=GLOBAL_ID,
        release=DevPlatform.load(platform_dir).release(),
        tee="simulated",
        platform=platform_dir,
        collateral=None,
        state=tmp_path / "state",
        models=(
            ModelConfig(
                name="tiny", digest=measure(tiny_model).digest, path=tiny_model, context_length=512
            ),
        ),
        limits=Limits(channel_wait_s=0.3),
        prices=Prices(prompt=1_000_000, cached=500_000, completion=2_000_000),
    )


StartNode = Callable[..., Any]


@pytest.fixture
def start_node(config: EnclaveConfig) -> StartNode:
    """Start an enclave in this process: ``async with start_node(...) as (node, engine)``."""

    @asynccontextmanager
    async def start(**changes: Any) -> AsyncIterator[tuple[Node, Any]]:
        engines: list[Any] = []
        clock = changes.pop("clock", None)

        def factory(_: EnclaveConfig, model: ModelConfig) -> Any:
            engines.append(ScriptedEngine(context_length=model.context_length))
            return engines[-1]

        used = dataclasses.replace(config, **changes)
        enclave = Enclave(used, engine_factory=factory, clock=clock)
        node: Node | None = None
        try:
            ready = await enclave.start()
            node = await Node.connect(used, ready)
            node.enclave = enclave
            yield node, engines[0]
        finally:
            if node is not None:
                await node.close()
            await enclave.close(drain_s=1)

    return start


async def _serve(path: Path) -> None:
    enclave = Enclave(load_config(path), engine_factory=scripted_engine)
    ready = await enclave.start()
    sys.stdout.write(json.dumps(ready.to_dict()) + "\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(Path(sys.argv[1])))
