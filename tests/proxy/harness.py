"""A whole network in one process: a chain without consensus, a wallet without signatures, and enclaves.

The enclaves are fakes of the service only: TLS, evidence, sealing, receipts, claims and the log are made
with the project's own code, so the client under test does everything that it does in production. What an
enclave does with a request is a script that a test can change or break.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID
from pytoniq_core import Address, Builder, Cell, Slice, StateInit

from cocoon.v1 import attestation_service_pb2 as info
from cocoon.v1 import attestation_service_pb2_grpc as info_rpc
from cocoon.v1 import inference_service_pb2 as wire
from cocoon.v1 import inference_service_pb2_grpc as wire_rpc
from cocoon.v1 import record_pb2, sealed_pb2
from cocoon_attestation.binding import KeyBinding
from cocoon_attestation.errors import SealingError
from cocoon_attestation.merkle import MerkleTree
from cocoon_attestation.payment import PriceList, TokenUsage, amount, verify_authorization
from cocoon_attestation.receipt import Receipt, commit_request, commit_response, sign_receipt
from cocoon_attestation.reference import TeeKind
from cocoon_attestation.sealing import ResponseSealer, SealKeyPair, generate_seal_keypair, open_request
from cocoon_enclave.attestation.attester import make_evidence, measure
from cocoon_enclave.attestation.simulated import EVALUATION_NUMBER, DevPlatform, SimulatedAttester
from cocoon_proxy.client import AsyncClient
from cocoon_proxy.config import ClientConfig, PaymentConfig, SessionConfig
from cocoon_proxy.events import ClientEvent
from cocoon_ton.cells import finish, write_dict
from cocoon_ton.channel import ChannelIdentity, ChannelState
from cocoon_ton.errors import InsufficientFundsError
from cocoon_ton.network import NetworkConfig
from cocoon_ton.node import NodeIdentity, RegistryParameters
from cocoon_ton.registry import RegistryPolicy
from cocoon_ton.registry_messages import RegistryGenesis
from cocoon_ton.values import AccountState, BlockRef, TransactionInfo

TON = 10**9
GLOBAL_ID = -3
MODEL = hashlib.sha256(b"model").digest()
MODEL_NAME = "tiny"
CONTEXT = 2048
PRICES = PriceList(prompt=100_000_000, cached=10_000_000, completion=400_000_000)
PARAMETERS = RegistryParameters(
    min_stake=10 * TON,
    anchor_within=3600,
    challenge_window=7200,
    response_window=1800,
    close_delay=600,
    price_delay=300,
    max_nodes=16,
    timelock=120,
    penalty=2 * TON,
    bounty_permille=500,
    treasury=Address((0, b"\x77" * 32)),
)
_INIT_BLOCK = {
    "workchain": -1,
    "shard": -(1 << 63),
    "seqno": 1,
    "root_hash": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
    "file_hash": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
}
_LITESERVER = {
    "ip": 2130706433,
    "port": 1,
    "id": {"@type": "pub.ed25519", "key": "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="},
}


# ---- chain


@dataclass
class Account:
    """One account of the fake chain."""

    balance: int
    code: Cell | None = None
    data: Cell | None = None


class FakeChain:
    """Implements `ChainReader` and `ChainWriter` over a dictionary."""

    def __init__(self) -> None:
        self.accounts: dict[bytes, Account] = {}
        self.seqno = 100
        self.fail: Exception | None = None
        self.reads = 0
        self.clock_offset = 0
        """Seconds by which the chain is ahead."""

    async def head(self) -> BlockRef:
        """The newest block."""
        if self.fail is not None:
            raise self.fail
        self.seqno += 1
        return self._block()

    async def account(self, addr: Address, at: BlockRef | None = None) -> AccountState:
        """An account, whatever block is asked for."""
        if self.fail is not None:
            raise self.fail
        self.reads += 1
        found = self.accounts.get(addr.hash_part)
        active = found is not None and found.data is not None
        return AccountState(
            address=addr,
            status="active" if active else "nonexist" if found is None else "uninit",
            balance=found.balance if found is not None else 0,
            code=found.code if found is not None else None,
            data=found.data if found is not None else None,
            last_tx_lt=1,
            last_tx_hash=bytes(32),
            block=at or self._block(),
            shard_utime=int(time.time()) + self.clock_offset,
        )

    async def transactions(
        self, addr: Address, *, after_lt: int = 0, limit: int = 100, at: BlockRef | None = None
    ) -> list[TransactionInfo]:
        """None are kept."""
        return []

    async def export_proof(
        self, addresses: Sequence[Address], at: BlockRef | None = None
    ) -> dict[str, Any]:
        """A stand-in: what matters to the client is that it asks for the right accounts."""
        return {"format": "test", "accounts": [f"0:{a.hash_part.hex()}" for a in addresses]}

    async def send(self, boc: bytes) -> None:
        """Not used: the fake wallet moves money itself."""
        raise AssertionError("nothing sends external messages here")

    def _block(self) -> BlockRef:
        return BlockRef(seqno=self.seqno, root_hash=bytes(32), file_hash=bytes(32), utime=int(time.time()))


class FakeTreasury:
    """Implements `Treasury`: executes each key once, on a `FakeChain`."""

    def __init__(self, chain: FakeChain, funds: int = 100 * TON) -> None:
        self.chain = chain
        self.funds = funds
        self.address = Address((0, hashlib.sha256(b"wallet").digest()))
        self.done: dict[str, int] = {}
        self.crash_after: str = ""
        self.closing: set[bytes] = set()

    async def balance(self) -> int:
        """What is left."""
        return self.funds

    async def resume(self) -> None:
        """Nothing is ever half done here."""

    async def pay(
        self, *, key: str, to: Address, value: int, body: Cell, state_init: StateInit | None = None
    ) -> None:
        """Move money once per key."""
        await asyncio.sleep(0)
        if key not in self.done:
            if value > self.funds:
                raise InsufficientFundsError("not enough")
            self.funds -= value
            self.done[key] = value
            account = self.chain.accounts.setdefault(to.hash_part, Account(balance=0))
            account.balance += value
            if state_init is not None:
                account.code, account.data = state_init.code, state_init.data
        if self.crash_after and key.startswith(self.crash_after):
            raise RuntimeError("the process died here")


def channel_data(state: ChannelState, *, close_at: int) -> Cell:
    """Data of a channel with another close time."""
    data = state.identity.initial_data
    slice_: Any = Slice.from_cell(data)
    builder = Builder().store_uint(slice_.load_uint(32), 32).store_coins(slice_.load_coins())
    slice_.load_uint(32)
    return finish(builder.store_uint(close_at, 32).store_slice(slice_))


# ---- registry


@dataclass(kw_only=True)
class Listing:
    """A node as the registry will list it."""

    identity: NodeIdentity
    endpoint: str
    binding: KeyBinding
    evidence_digest: bytes
    prices: PriceList = PRICES
    models: tuple[bytes, ...] = (MODEL,)
    attested_until: int = 0

    def key_cell(self) -> Cell:
        """``KeyRecord``."""
        b = self.binding
        builder = Builder().store_bytes(b.hash).store_bytes(b.receipt_key).store_bytes(self.evidence_digest)
        builder.store_uint(b.not_before, 32).store_uint(b.not_after, 32)
        return finish(builder.store_uint(self.attested_until or b.not_after, 32).store_bits("0"))

    def terms_cell(self) -> Cell:
        """``NodeTerms``."""
        builder = Builder().store_uint(1, 8)
        for _ in range(2):
            for price in (self.prices.prompt, self.prices.cached, self.prices.completion):
                builder.store_uint(price, 64)
        builder.store_uint(0, 32)
        builder.store_ref(Builder().store_bytes(self.endpoint.encode()).end_cell())
        return finish(builder.store_ref(Builder().store_bytes(b"".join(self.models)).end_cell()))

    def cell(self, now: int) -> Cell:
        """``NodeListing``."""
        entry = Builder().store_ref(self.identity.cell).store_coins(10 * TON).store_ref(self.terms_cell())
        claim = (
            Builder().store_bytes(self.binding.release_id).store_bytes(bytes(64)).store_ref(self.key_cell())
        )
        listing = Builder().store_uint(now, 32).store_uint(now, 32).store_ref(entry.end_cell())
        return finish(listing.store_maybe_ref(claim.end_cell()))

    def contract_cell(self, log: MerkleTree, anchored: int, now: int) -> Cell:
        """``NodeStorage`` with the first `anchored` leaves of `log` anchored."""
        root = log.root(anchored) if anchored else bytes(32)
        builder = Builder().store_uint(0xC0C00011, 32).store_ref(self.identity.cell)
        builder.store_uint(2, 8).store_uint(0, 32).store_coins(10 * TON)
        builder.store_coins(0).store_uint(0, 8)  # no open challenge
        builder.store_uint(anchored, 64).store_bytes(root).store_uint(now if anchored else 0, 32)
        builder.store_bits("1").store_ref(self.key_cell()).store_bits("0")
        rest = Builder().store_bits("1").store_ref(self.terms_cell()).store_bits("000").end_cell()
        return finish(builder.store_bits("1").store_ref(rest))


def registry_cell(genesis: RegistryGenesis, listings: Sequence[Listing], now: int) -> Cell:
    """The genesis data with nodes in its list."""
    start = genesis.initial_data
    nodes = write_dict(
        {int.from_bytes(item.identity.account_id): item.cell(now) for item in listings}, 256, lambda c: c
    )
    return finish(
        Builder()
        .store_uint(0xC0C00010, 32)
        .store_int(genesis.global_id, 32)
        .store_uint(0, 32)
        .store_address(genesis.governance)
        .store_address(None)
        .store_uint(len(listings), 16)
        .store_uint(0, 8)
        .store_ref(start.refs[0])
        .store_ref(start.refs[1])
        .store_dict(nodes)
        .store_bits("0")
    )


# ---- enclave


def tls_identity(name: str = "cocoon-enclave") -> tuple[bytes, bytes, bytes]:
    """Key PEM, certificate PEM and SPKI hash of a new TLS identity."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    spki = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return (
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        certificate.public_bytes(serialization.Encoding.PEM),
        hashlib.sha256(spki).digest(),
    )


def sse(document: object) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def chunk(content: str | None = None, finish: str | None = None) -> dict[str, object]:
    """One OpenAI stream chunk."""
    delta: dict[str, object] = {} if content is None else {"content": content}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": MODEL_NAME,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }


@dataclass(kw_only=True)
class Script:
    """What an enclave answers, and what it does wrong."""

    words: tuple[str, ...] = ("Hello", " there", "!")
    usage: TokenUsage = field(
        default_factory=lambda: TokenUsage(prompt_tokens=12, cached_tokens=0, completion_tokens=3)
    )
    refuse: list[tuple[int, str]] = field(default_factory=list)
    """Sealed refusals with receipt, used up one per request: status and code."""
    error: list[str] = field(default_factory=list)
    """Refusals outside the seal, used up one per request."""
    die_after: int | None = None
    """End the session after so many data frames."""
    stall_after: int | None = None
    """Send nothing more after so many data frames, until cancelled."""
    delay_head_s: float = 0.0
    edit_receipt: Callable[[Receipt], Receipt] = lambda receipt: receipt
    edit_signed: Callable[[record_pb2.SignedReceipt], record_pb2.SignedReceipt] = lambda signed: signed
    edit_frames: Callable[[list[wire.ResponseFrame]], list[wire.ResponseFrame]] | None = None
    """Changes all frames of an answer before they are sent."""
    one_message: bool = False
    """Send all frames of an answer in one message."""


class FakeEnclave:
    """An enclave's public service on loopback."""

    def __init__(self, platform: DevPlatform, registry: Address, salt: int, **listing: Any) -> None:
        self.platform = platform
        owner = Address((0, hashlib.sha256(b"owner").digest()))
        self.identity = NodeIdentity(global_id=GLOBAL_ID, registry=registry, owner=owner, salt=salt)
        self.node = self.identity.account_id
        self.script = Script()
        self.tree = MerkleTree()
        self.receipts: list[Receipt] = []
        self.requests: list[sealed_pb2.PlainRequest] = []
        self.sealed_seen: list[bytes] = []
        self.cancelled: list[int] = []
        self.sessions = 0
        self.evidence_calls = 0
        self.used: dict[bytes, int] = {}
        self.seen_ids: set[bytes] = set()
        self.port = 0
        self.clock: Callable[[], float] = time.time
        self._listing = listing
        self._server: grpc.aio.Server | None = None
        self.new_keys()

    def new_keys(self) -> None:
        """A new keyset, as after a restart."""
        now = int(time.time())
        self.seal: SealKeyPair = generate_seal_keypair()
        self.receipt_key = Ed25519PrivateKey.generate()
        self.tls_key, self.tls_certificate, spki_hash = tls_identity()
        config_hash = hashlib.sha256(b"config").digest()
        self.attester = SimulatedAttester(self.platform, clock=time.time)
        measure(self.attester, config_hash=config_hash, models=[MODEL])
        self.binding = KeyBinding(
            node=self.node,
            seal_key_hash=self.seal.key_id,
            receipt_key=self.receipt_key.public_key().public_bytes_raw(),
            tls_spki_hash=spki_hash,
            config_hash=config_hash,
            release_id=self.platform.release().release_id,
            not_before=now - 60,
            not_after=now + 3600,
            global_id=GLOBAL_ID,
        )
        self.published = make_evidence(
            self.attester,
            binding=self.binding,
            seal_public_key=self.seal.public_key,
            beacon=(100, bytes(32)),
        )

    def make_evidence(self, challenge: bytes) -> bytes:
        """Evidence for a verifier's nonce."""
        return make_evidence(
            self.attester, binding=self.binding, seal_public_key=self.seal.public_key, challenge=challenge
        )

    @property
    def listing(self) -> Listing:
        """How the registry lists it."""
        return Listing(
            identity=self.identity,
            endpoint=f"127.0.0.1:{self.port}",
            binding=self.binding,
            evidence_digest=hashlib.sha256(self.published).digest(),
            **self._listing,
        )

    async def start(self, port: int = 0) -> None:
        """Serve on loopback."""
        server = grpc.aio.server()
        info_rpc.add_AttestationServiceServicer_to_server(_Info(self), server)
        wire_rpc.add_InferenceServiceServicer_to_server(_Inference(self), server)
        credentials = grpc.ssl_server_credentials([(self.tls_key, self.tls_certificate)])
        self.port = server.add_secure_port(f"127.0.0.1:{port}", credentials)
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """End all connections."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    def answer(self, sealed: bytes) -> list[tuple[str, bytes]]:
        """Open a request and make all frames of its answer."""
        opened = open_request([self.seal], sealed)
        plain = sealed_pb2.PlainRequest.FromString(opened.plain)
        if plain.request_id in self.seen_ids:
            raise SealingError
        self.seen_ids.add(plain.request_id)
        self.requests.append(plain)
        identity = ChannelIdentity.from_proto(plain.payment.channel)
        authorization = verify_authorization(plain.payment.authorization, identity.client_key)
        assert authorization.channel == identity.address.hash_part
        script = self.script
        channel = bytes(identity.address.hash_part)
        if script.refuse:
            status, code = script.refuse.pop(0)
            body = json.dumps({"error": {"message": code, "code": code}}).encode()
            usage = TokenUsage(prompt_tokens=0, cached_tokens=0, completion_tokens=0)
            return self._frames(opened.response_sealer, plain, channel, status, [], body, usage)
        streamed = bool(json.loads(plain.body).get("stream"))
        if streamed:
            pieces = [sse(chunk(word)) for word in script.words]
            tail = sse(chunk(finish="stop"))
        else:
            pieces = []
            message = {"role": "assistant", "content": "".join(script.words)}
            document = {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "created": 1,
                "model": MODEL_NAME,
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "unknown_member": [1, {"kept": True}],
            }
            tail = json.dumps(document).encode()
        kind = "text/event-stream" if streamed else "application/json"
        return self._frames(
            opened.response_sealer, plain, channel, 200, pieces, tail, script.usage, content_type=kind
        )

    def _frames(
        self,
        sealer: ResponseSealer,
        plain: sealed_pb2.PlainRequest,
        channel: bytes,
        status: int,
        pieces: list[bytes],
        tail: bytes,
        usage: TokenUsage,
        content_type: str = "application/json",
    ) -> list[tuple[str, bytes]]:
        head = sealed_pb2.ResponseHead(status=status, content_type=content_type)
        frames = [("head", sealer.head(head.SerializeToString()))]
        frames += [("data", sealer.data(piece)) for piece in pieces]
        prices = self._listing.get("prices", PRICES)
        cost = amount(prices, usage)
        self.used[channel] = self.used.get(channel, 0) + cost
        now = int(self.clock())
        receipt = Receipt(
            node=self.node,
            binding_hash=self.binding.hash,
            request_commitment=commit_request(plain.receipt_salt, plain.body),
            response_commitment=commit_response(plain.receipt_salt, b"".join(pieces) + tail),
            model=MODEL,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
            status=status,
            channel=channel,
            amount=cost,
            cumulative=self.used[channel],
            index=self.tree.size,
            issued_at=now,
            anchor_by=now + 3600,
        )
        receipt = self.script.edit_receipt(receipt)
        self.receipts.append(receipt)
        self.tree.append(receipt.hash)
        signed = self.script.edit_signed(sign_receipt(receipt, self.receipt_key))
        final = sealed_pb2.ResponseFinal(tail=tail, usage=usage.to_proto(), receipt=signed)
        return [*frames, ("final", sealer.final(final.SerializeToString()))]


class _Info(info_rpc.AttestationServiceServicer):
    def __init__(self, enclave: FakeEnclave) -> None:
        self._enclave = enclave

    async def GetEvidence(  # noqa: N802
        self, request: info.GetEvidenceRequest, context: Any
    ) -> info.GetEvidenceResponse:
        self._enclave.evidence_calls += 1
        return info.GetEvidenceResponse(evidence=self._enclave.make_evidence(request.challenge))

    async def GetPublishedEvidence(  # noqa: N802
        self, request: info.GetPublishedEvidenceRequest, context: Any
    ) -> info.GetPublishedEvidenceResponse:
        return info.GetPublishedEvidenceResponse(evidence=self._enclave.published)

    async def GetNodeInfo(  # noqa: N802
        self, request: info.GetNodeInfoRequest, context: Any
    ) -> info.GetNodeInfoResponse:
        model = info.ServedModel(name=MODEL_NAME, digest=MODEL, context_length=CONTEXT)
        return info.GetNodeInfoResponse(
            node=self._enclave.node,
            models=[model],
            prices=PRICES.to_proto(),
            simulated=True,
            anchor_within_s=3600,
        )

    async def GetInclusionProof(  # noqa: N802
        self, request: info.GetInclusionProofRequest, context: Any
    ) -> info.GetInclusionProofResponse:
        index = [bytes(r.hash) for r in self._enclave.receipts].index(request.receipt_hash)
        proof = record_pb2.InclusionProof(
            leaf_index=index,
            tree_size=request.tree_size,
            hashes=self._enclave.tree.inclusion_proof(index, request.tree_size),
        )
        return info.GetInclusionProofResponse(proof=proof)


class _Inference(wire_rpc.InferenceServiceServicer):
    def __init__(self, enclave: FakeEnclave) -> None:
        self._enclave = enclave

    async def Session(  # noqa: N802
        self, requests: AsyncIterator[wire.SessionRequest], context: Any
    ) -> AsyncIterator[wire.SessionResponse]:
        enclave = self._enclave
        enclave.sessions += 1
        out: asyncio.Queue[list[wire.ResponseFrame] | None] = asyncio.Queue()
        cancels: dict[int, asyncio.Event] = {}
        tasks: set[asyncio.Task[None]] = set()

        async def read() -> None:
            async for message in _frames(requests):
                number = message.request_number
                if message.WhichOneof("frame") == "cancel":
                    enclave.cancelled.append(number)
                    cancels.setdefault(number, asyncio.Event()).set()
                    continue
                enclave.sealed_seen.append(message.open)
                cancel = cancels.setdefault(number, asyncio.Event())
                task = asyncio.create_task(serve(number, message.open, cancel))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            out.put_nowait(None)

        async def serve(number: int, sealed: bytes, cancel: asyncio.Event) -> None:
            script = enclave.script
            if script.error:
                out.put_nowait([_error(number, script.error.pop(0))])
                return
            try:
                frames = enclave.answer(sealed)
            except SealingError:
                out.put_nowait([_error(number, "sealing")])
                return
            messages = [wire.ResponseFrame(request_number=number, **{k: v}) for k, v in frames]  # type: ignore[arg-type]
            if script.edit_frames is not None:
                messages = script.edit_frames(messages)
            await asyncio.sleep(script.delay_head_s)
            if script.one_message:
                out.put_nowait(messages)
                return
            sent = 0
            for message in messages:
                if message.WhichOneof("frame") in ("data", "final"):
                    if sent == script.die_after:
                        out.put_nowait(None)
                        return
                    if sent == script.stall_after:
                        await cancel.wait()
                        return
                    sent += 1
                out.put_nowait([message])
                await asyncio.sleep(0)

        reader = asyncio.create_task(read())
        try:
            while (frames := await out.get()) is not None:
                yield wire.SessionResponse(frames=frames)
        finally:
            for task in (reader, *tasks):
                task.cancel()


async def _frames(requests: AsyncIterator[wire.SessionRequest]) -> AsyncIterator[wire.RequestFrame]:
    async for message in requests:
        assert message.frames
        for frame in message.frames:
            yield frame


def _error(number: int, code: str) -> wire.ResponseFrame:
    return wire.ResponseFrame(
        request_number=number, error=wire.SessionError(code=code, message=f"refused: {code}")
    )


# ---- the network


class Network:
    """Chain, registry, enclaves and clients of one test."""

    def __init__(self, platform: DevPlatform, home: Path) -> None:
        self.platform = platform
        self.home = home
        self.chain = FakeChain()
        self.treasury = FakeTreasury(self.chain)
        self.events: list[ClientEvent] = []
        self.enclaves: list[FakeEnclave] = []
        self.clock_offset = 0.0
        self.genesis = RegistryGenesis(
            global_id=GLOBAL_ID,
            governance=Address((0, hashlib.sha256(b"governance").digest())),
            parameters=PARAMETERS,
            policy=RegistryPolicy(
                tee_kinds=frozenset({TeeKind.TDX}),
                min_tcb_evaluation=EVALUATION_NUMBER,
                dev_root_hash=hashlib.sha256(platform.root_der).digest(),
                recorded={TeeKind.TDX: 10 * TON},
            ),
            releases=(platform.release(),),
            models={MODEL: MODEL_NAME},
        )
        self.config = NetworkConfig(
            name="test",
            global_id=GLOBAL_ID,
            registry=f"0:{self.genesis.address.hash_part.hex()}",
            global_config={"validator": {"init_block": _INIT_BLOCK}, "liteservers": [_LITESERVER]},
            dev_root=platform.root_der,
            simulated=True,
        )

    def clock(self) -> float:
        """Unix time, which a test can move."""
        return time.time() + self.clock_offset

    async def add_enclave(self, **listing: Any) -> FakeEnclave:
        """Start one more enclave and list it."""
        enclave = FakeEnclave(self.platform, self.genesis.address, len(self.enclaves), **listing)
        enclave.clock = self.clock
        await enclave.start()
        self.enclaves.append(enclave)
        self.publish()
        return enclave

    def publish(self, *listings: Listing) -> None:
        """Write the registry; by default with all enclaves."""
        listed = listings or tuple(enclave.listing for enclave in self.enclaves)
        data = registry_cell(self.genesis, listed, int(time.time()))
        self.chain.accounts[self.genesis.address.hash_part] = Account(balance=TON, data=data)

    def anchor(self, enclave: FakeEnclave) -> None:
        """Anchor the enclave's whole log in its node contract."""
        now = int(time.time())
        data = enclave.listing.contract_cell(enclave.tree, enclave.tree.size, now)
        self.chain.accounts[enclave.node] = Account(balance=10 * TON, data=data)

    def client(self, config: ClientConfig | None = None, **overrides: Any) -> AsyncClient:
        """A client of this network."""
        quick = ClientConfig(
            payment=PaymentConfig(request_cap=10 * TON, daily_cap=1000 * TON, open_timeout_seconds=5),
            session=SessionConfig(connect_seconds=5, first_byte_seconds=10, stall_seconds=5),
        )
        settings: dict[str, Any] = {
            "config": config or quick,
            "on_event": self.events.append,
            "wallet": self.treasury,
            "chain": self.chain,
            "clock": self.clock,
        }
        return AsyncClient(self.config, self.home, **{**settings, **overrides})

    def of(self, kind: type[Any]) -> list[Any]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    async def stop(self) -> None:
        """Stop all enclaves."""
        for enclave in self.enclaves:
            await enclave.stop()


def body(content: str = "What is six times seven?", *, stream: bool = True, **members: Any) -> bytes:
    """A chat request."""
    document = {"model": MODEL_NAME, "messages": [{"role": "user", "content": content}], "stream": stream}
    return json.dumps({**document, "max_tokens": 16, **members}).encode()


def random_body(size: int = 64) -> tuple[bytes, bytes]:
    """A request with a random marker, and the marker."""
    marker = secrets.token_hex(size // 2)
    return body(f"canary {marker}"), marker.encode()


__all__ = ["FakeChain", "FakeEnclave", "FakeTreasury", "Network", "Script", "body", "replace"]
