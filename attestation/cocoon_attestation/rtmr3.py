"""RTMR3: the runtime events of the enclave, their grammar and their replay.

The register alone is authenticated. An event counts only because its digest, recomputed here from name
and payload, leads to the quoted register. See docs/spec/appraisal.md, section 4.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cocoon_attestation.checks import CheckList
from cocoon_attestation.errors import MalformedError

REGISTER_SIZE: Final = 48
CONFIG_EVENT: Final = "cocoon.config"
MODEL_EVENT: Final = "cocoon.model"
GPU_EVENT: Final = "cocoon.gpu"
READY_EVENT: Final = "cocoon.ready"
NO_GPU: Final = b"none"
"""Payload of the GPU event on a node without GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeEvent:
    """One extension of RTMR3."""

    name: str
    """ASCII without NUL, so that name and payload cannot run into each other."""
    payload: bytes

    @property
    def preimage(self) -> bytes:
        """name ‖ 0x00 ‖ payload."""
        return self.name.encode("ascii") + b"\0" + self.payload

    @property
    def digest(self) -> bytes:
        """SHA-384(name ‖ 0x00 ‖ payload), 48 bytes."""
        return hashlib.sha384(self.preimage).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeLog:
    """What a log of the right grammar says. Meaningless unless the replay matches."""

    config_hash: bytes
    """SHA-256 of the measured configuration."""
    models: tuple[bytes, ...]
    """Model digests, 32 bytes each, in the order they were measured, all different."""
    gpu: bytes
    """Payload of the GPU event."""


def extend(register: bytes, digest: bytes) -> bytes:
    """The register after one extension: SHA-384(register ‖ digest)."""
    return hashlib.sha384(register + digest).digest()


def replay(events: Sequence[RuntimeEvent]) -> bytes:
    """The register after all `events`, starting from 48 zero bytes."""
    register = bytes(REGISTER_SIZE)
    for event in events:
        register = extend(register, event.digest)
    return register


def parse_runtime_log(events: Sequence[RuntimeEvent]) -> RuntimeLog:
    """Read a log: ``cocoon.config``, one or more ``cocoon.model``, ``cocoon.gpu``, ``cocoon.ready``.

    Raises:
        MalformedError: an event is missing, unknown, repeated, out of order, or has a payload of the
            wrong length.
    """
    names = [event.name for event in events]
    grammar = [CONFIG_EVENT, *[MODEL_EVENT] * (len(events) - 3), GPU_EVENT, READY_EVENT]
    if len(events) < 4 or names != grammar:
        raise MalformedError("runtime log: config, models, gpu, ready expected, each in its place")
    config, *models, gpu, ready = (event.payload for event in events)
    if len(config) != 32 or any(len(model) != 32 for model in models):
        raise MalformedError("runtime log: configuration and model digests have 32 bytes")
    if len(set(models)) != len(models):
        raise MalformedError("runtime log: a model is measured twice")
    if not gpu or ready:
        raise MalformedError("runtime log: the gpu event has a payload, the ready event has none")
    return RuntimeLog(config_hash=config, models=tuple(models), gpu=gpu)


def check_runtime_log(
    events: Sequence[RuntimeEvent],
    *,
    register: bytes,
    config_hash: bytes,
    allowed_models: frozenset[bytes],
    checks: CheckList,
) -> RuntimeLog | None:
    """Record the ``rtmr3.*`` checks and return the log if its grammar is right.

    Args:
        events: the log as the node sent it.
        register: RTMR3 of the authenticated quote, 48 bytes.
        config_hash: `config_hash` of the key binding.
        allowed_models: model digests of the policy; every measured model must be among them.
        checks: where the verdicts go.
    """
    replayed = replay(events)
    checks.record(
        "rtmr3.replay",
        hmac.compare_digest(replayed, register),
        f"{len(events)} events lead to {replayed.hex()[:16]}…, the quote says {register.hex()[:16]}…",
        inputs=(
            *((f"preimage {index}", event.preimage.hex()) for index, event in enumerate(events)),
            ("replayed", replayed.hex()),
            ("quoted", register.hex()),
        ),
    )
    try:
        log = parse_runtime_log(events)
    except MalformedError as error:
        checks.record("rtmr3.grammar", False, str(error))
        for id in ("rtmr3.config", "rtmr3.models"):
            checks.skip(id, "not made: the log has the wrong grammar")
        return None
    checks.record("rtmr3.grammar", True, "config, models, gpu, ready: each once and in order")
    checks.record(
        "rtmr3.config",
        hmac.compare_digest(log.config_hash, config_hash),
        f"measured configuration {log.config_hash.hex()[:16]}…, key binding says {config_hash.hex()[:16]}…",
        inputs=(("measured", log.config_hash.hex()), ("binding", config_hash.hex())),
    )
    foreign = [model.hex() for model in log.models if model not in allowed_models]
    checks.record(
        "rtmr3.models",
        not foreign,
        f"model {foreign[0]} is not allowed" if foreign else f"{len(log.models)} models, all allowed",
        inputs=tuple((f"model {index}", model.hex()) for index, model in enumerate(log.models)),
    )
    return log
