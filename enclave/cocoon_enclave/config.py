"""The enclave's configuration: one TOML file, part of which is measured.

Everything that decides what the enclave does with a client's data or money is *measured*: its canonical
form is hashed into `config_hash`, which is extended into the runtime register and stands in the key
binding. Addresses to listen on, paths, and the prices at start are the host's business and not measured.
Unknown keys are errors. See docs/spec/inference.md, section 2.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Final

from cocoon_attestation.errors import ConfigError, MalformedError
from cocoon_attestation.reference import AnyRelease, SnpRelease, parse_release
from cocoon_attestation.types import Digest32
from cocoon_enclave.gpu_config import GpuConfig, read_gpu
from cocoon_enclave.toml_table import Table

CONFIG_TAG: Final = b"cocoon/v1/config"
TEE_KINDS: Final = ("tdx", "snp", "simulated", "simulated-snp")
_SNP: Final = frozenset({"snp", "simulated-snp"})
_SIMULATED: Final = frozenset({"simulated", "simulated-snp"})
DTYPES: Final = ("auto", "float32", "bfloat16")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """A model to serve. Measured, except `path`."""

    name: str
    """Name that requests use, for example ``smollm2-135m-instruct``."""
    digest: Digest32
    """Digest of the canonical manifest; the files must match it before anything is read from them."""
    path: Path
    """Directory with the files. Not measured: the digest says what must be in it."""
    context_length: int = 2048
    """Longest prompt plus answer, in tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one enclave accepts. Measured."""

    sessions: int = 1024
    """Open sessions."""
    requests: int = 64
    """Requests in flight, over all sessions."""
    requests_per_session: int = 32
    """Requests in flight in one session."""
    sealed_bytes: int = 1 << 20
    """Longest sealed request, in bytes."""
    max_tokens: int = 4096
    """Most tokens in one answer."""
    default_max_tokens: int = 1024
    """Used where a request does not say."""
    deadline_s: int = 3600
    """Latest deadline of a request, in seconds from now; request ids are remembered at least that long."""
    refusals_per_minute: int = 600
    """Receipts of amount 0 that are written before further bad requests get a bare error."""
    channel_wait_s: float = 5.0
    """How long a request waits for the host to look up its channel."""
    claim_time_s: int = 300
    """Seconds that an authorization must outlast the request's deadline: the host's time to settle."""
    anchor_within_s: int = 3600
    """Seconds from a receipt to the latest time of its anchor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """How the model is run. Measured."""

    dtype: str = "auto"
    """``float32``, ``bfloat16``, or ``auto``: bfloat16 where the CPU multiplies it in hardware."""
    slots: int = 16
    """Sequences that are decoded together."""
    prefill_chunk: int = 64
    """Prompt tokens that are computed between two decode steps."""
    queue: int = 64
    """Requests that may wait for a slot."""
    stall_s: float = 120.0
    """Seconds without a sign of life, while there is work, after which the engine is started again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Nanoton per million tokens at start; the host changes them at run time. Not measured."""

    prompt: int = 0
    cached: int = 0
    completion: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Where to listen: ``host:port``, port 0 for any. Not measured."""

    public: str = "127.0.0.1:0"
    """AttestationService and InferenceService, TLS."""
    host: str = "127.0.0.1:0"
    """HostService, without TLS: loopback or vsock only."""
    health: str = "127.0.0.1:0"
    """``/livez``, ``/readyz`` and ``/metrics`` over HTTP: loopback only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EnclaveConfig:
    """The whole configuration."""

    node: Digest32
    """Account id of the node contract that is paid. Measured."""
    registry: str
    """Address of the registry contract. Measured."""
    global_id: int
    """TON network. Measured."""
    release: AnyRelease
    """Release that this image is. Not measured here: an appraiser compares it with the evidence itself."""
    tee: str
    """One of `TEE_KINDS`. Not measured: the evidence says it."""
    platform: Path | None = None
    """Directory of the simulated platform's keys (development only)."""
    collateral: Path | None = None
    """File with Intel's collateral that the host refreshes (TDX only)."""
    endorsements: Path | None = None
    """File with AMD's endorsements that the host refreshes (SEV-SNP only); None: the certificate table of
    the report has everything."""
    state: Path
    """Directory of the store."""
    models: tuple[ModelConfig, ...]
    gpu: GpuConfig | None = None
    """GPUs that the node must have; None on a node without. Measured where there are some."""
    limits: Limits = Limits()
    engine: EngineConfig = EngineConfig()
    prices: Prices = Prices()
    server: ServerConfig = ServerConfig()
    key_lifetime_s: int = 24 * 3600
    """Lifetime of a keyset, at most 24 h. Measured."""
    key_overlap_s: int = 2 * 3600
    """How long before its end a keyset is replaced. Measured."""
    coalesce_ms: int = 0
    """Longest time for which text after the first piece is held back to fill a frame. Measured."""

    @property
    def simulated(self) -> bool:
        """True if no hardware stands behind the evidence."""
        return self.tee in _SIMULATED

    @property
    def measured(self) -> dict[str, object]:
        """The measured part, JSON-ready. ``gpu`` is a member only on a node with GPUs."""
        return {
            **({} if self.gpu is None else {"gpu": self.gpu.measured}),
            "coalesce_ms": self.coalesce_ms,
            "engine": {f.name: getattr(self.engine, f.name) for f in fields(EngineConfig)},
            "global_id": self.global_id,
            "keys": {"lifetime_s": self.key_lifetime_s, "overlap_s": self.key_overlap_s},
            "limits": {f.name: getattr(self.limits, f.name) for f in fields(Limits)},
            "models": [
                {"context_length": m.context_length, "digest": m.digest.hex(), "name": m.name}
                for m in self.models
            ],
            "node": self.node.hex(),
            "registry": self.registry,
            "version": 1,
        }

    @property
    def config_hash(self) -> Digest32:
        """H("cocoon/v1/config" ‖ canonical JSON of the measured part)."""
        text = json.dumps(self.measured, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return Digest32(hashlib.sha256(CONFIG_TAG + text.encode("ascii")).digest())

    def to_toml(self) -> str:
        """The file that `load_config` reads back as this configuration."""
        sections: list[tuple[str, dict[str, object]]] = [
            ("", {"state": str(self.state), "coalesce_ms": self.coalesce_ms}),
            (
                "[node]",
                {
                    "id": self.node.hex(),
                    "registry": self.registry,
                    "global_id": self.global_id,
                    "release": self.release.to_boc().hex(),
                },
            ),
            (
                "[tee]",
                {
                    "kind": self.tee,
                    "platform": self.platform,
                    "collateral": self.collateral,
                    "endorsements": self.endorsements,
                },
            ),
            *([] if self.gpu is None else [("[gpu]", self.gpu.table)]),
            ("[keys]", {"lifetime_s": self.key_lifetime_s, "overlap_s": self.key_overlap_s}),
            ("[limits]", asdict(self.limits)),
            ("[engine]", asdict(self.engine)),
            ("[prices]", asdict(self.prices)),
            ("[server]", asdict(self.server)),
        ]
        for model in self.models:
            entry = {"name": model.name, "digest": model.digest.hex(), "path": model.path}
            sections.append(("[[models]]", {**entry, "context_length": model.context_length}))
        return "\n".join(_section(title, values) for title, values in sections)


def _section(title: str, values: Mapping[str, object]) -> str:
    # A JSON string is a TOML string; paths become texts, None is left out.
    lines = [
        f"{key} = {json.dumps(str(value) if isinstance(value, Path) else value)}"
        for key, value in values.items()
        if value is not None
    ]
    return "\n".join([*([title] if title else []), *lines]) + "\n"


def load_config(path: Path) -> EnclaveConfig:
    """Read the configuration from a TOML file. Relative paths are relative to the file.

    Raises:
        ConfigError: unreadable, not TOML, an unknown or missing key, or a value out of range.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"cannot read the configuration: {error}") from error
    return parse_config(document, base=path.parent)


def parse_config(document: Mapping[str, object], *, base: Path) -> EnclaveConfig:
    """Build the configuration from a parsed TOML document.

    Raises:
        ConfigError: an unknown or missing key, or a value out of range.
    """
    root = Table(document, "", base)
    node, tee, keys = root.table("node"), root.table("tee"), root.table("keys")
    kind = tee.choice("kind", TEE_KINDS)
    gpu = read_gpu(root.table("gpu"), simulated=kind in _SIMULATED) if root.has("gpu") else None
    config = EnclaveConfig(
        node=node.digest("id"),
        registry=node.text("registry"),
        global_id=node.integer("global_id", low=-(2**31), high=2**31 - 1),
        release=_release(node.text("release")),
        tee=kind,
        platform=tee.path_or_none("platform"),
        collateral=tee.path_or_none("collateral"),
        endorsements=tee.path_or_none("endorsements"),
        gpu=gpu,
        state=root.path("state"),
        models=tuple(_model(table) for table in root.tables("models")),
        limits=root.table("limits").fill(Limits()),
        engine=root.table("engine").fill(EngineConfig()),
        prices=root.table("prices").fill(Prices()),
        server=root.table("server").fill(ServerConfig()),
        key_lifetime_s=keys.integer("lifetime_s", 24 * 3600, low=60, high=24 * 3600),
        key_overlap_s=keys.integer("overlap_s", 2 * 3600, low=0, high=12 * 3600),
        coalesce_ms=root.integer("coalesce_ms", 0, high=1000),
    )
    for table in (root, node, tee, keys):
        table.end()
    _check(config)
    return config


def _release(text: str) -> AnyRelease:
    try:
        return parse_release(bytes.fromhex(text))
    except (ValueError, MalformedError) as error:
        raise ConfigError("node.release: a release cell as hex expected") from error


def _model(table: Table) -> ModelConfig:
    model = ModelConfig(
        name=table.text("name"),
        digest=table.digest("digest"),
        path=table.path("path"),
        context_length=table.integer("context_length", 2048, low=16, high=1 << 20),
    )
    table.end()
    return model


def _check(config: EnclaveConfig) -> None:
    if not config.models:
        raise ConfigError("models: at least one is needed")
    if len({model.name for model in config.models}) != len(config.models):
        raise ConfigError("models: names must differ")
    if config.engine.dtype not in DTYPES:
        raise ConfigError(f"engine.dtype: one of {', '.join(DTYPES)} expected")
    if config.engine.slots < 1 or config.engine.prefill_chunk < 1:
        raise ConfigError("engine: slots and prefill_chunk must be at least 1")
    if config.key_overlap_s >= config.key_lifetime_s:
        raise ConfigError("keys: overlap_s must be shorter than lifetime_s")
    _check_tee(config)
    _check_release(config)


def _check_tee(config: EnclaveConfig) -> None:
    """Every kind of TEE has its own file or directory, and no other's."""
    if config.simulated and config.platform is None:
        raise ConfigError("tee.platform: the simulated TEE needs its platform directory")
    if config.tee == "tdx" and config.collateral is None:
        raise ConfigError("tee.collateral: TDX evidence needs Intel's collateral")
    owners = {"platform": _SIMULATED, "collateral": {"tdx"}, "endorsements": {"snp"}}
    for key, kinds in owners.items():
        if getattr(config, key) is not None and config.tee not in kinds:
            raise ConfigError(f"tee.{key}: not a setting of tee.kind {config.tee}")


def _check_release(config: EnclaveConfig) -> None:
    """What a SEV-SNP image was measured with at launch must be what it is told to do now."""
    release = config.release
    if isinstance(release, SnpRelease) is not (config.tee in _SNP):
        raise ConfigError(f"node.release: a release of another kind of TEE than {config.tee}")
    if isinstance(release, SnpRelease):
        if release.models != tuple(model.digest for model in config.models):
            raise ConfigError("models: not those that the SEV-SNP release names, in its order")
        count = 0 if config.gpu is None else config.gpu.count
        if release.gpus != count:
            raise ConfigError(f"gpu.count: the SEV-SNP release demands {release.gpus} GPUs, not {count}")
