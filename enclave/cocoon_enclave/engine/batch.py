"""Continuous batching over a Hugging Face decoder: a pure scheduler and the passes it asks for.

One call of `prefill` computes a piece of one prompt; one call of `decode` adds a token to every running
sequence. Between calls requests come and go. Only CPU: a GPU may be used only once its own evidence is part
of the appraisal, and this engine's is not.
"""

from __future__ import annotations

import secrets
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from cocoon_attestation.errors import EngineError
from cocoon_enclave.engine.kernels import (
    ATTENTION,
    attention_works,
    pack_linears,
    register_attention,
)
from cocoon_enclave.engine.protocol import FinishReason, Sampling
from cocoon_enclave.engine.sampling import next_tokens
from cocoon_enclave.engine.slots import SlotCache


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What a pass brought to one request."""

    id: int
    tokens: tuple[int, ...] = ()
    finish: FinishReason | None = None
    started: bool = False


@dataclass(slots=True, kw_only=True, repr=False)
class Sequence:
    """A request on its way through the engine."""

    id: int
    prompt: list[int]
    max_tokens: int
    sampling: Sampling
    stop: frozenset[int]
    generator: torch.Generator | None = None
    computed: int = 0
    """Prompt tokens whose keys and values are stored."""
    length: int = 0
    """Stored entries in total."""
    last: int = -1
    """The newest token, not stored yet."""
    generated: int = 0


@dataclass(slots=True, kw_only=True)
class BatchEngine:
    """A loaded model with its slots. Not thread-safe: one owner calls it."""

    model: Any
    cache: SlotCache
    slots: int
    context_length: int
    prefill_chunk: int
    end_tokens: frozenset[int]
    detail: dict[str, str]
    _waiting: deque[Sequence] = field(default_factory=deque)
    _prefilling: Sequence | None = None
    _running: list[Sequence] = field(default_factory=list)

    @property
    def has_work(self) -> bool:
        """True if a pass would do something."""
        return bool(self._running or self._waiting or self._prefilling)

    def add(self, sequence: Sequence) -> None:
        """Queue a request."""
        how = sequence.sampling
        if how.temperature > 0:
            seed = how.seed if how.seed is not None else secrets.randbits(63)
            sequence.generator = torch.Generator().manual_seed(seed & (2**63 - 1))
        self._waiting.append(sequence)

    def abort(self, id: int) -> list[Event]:
        """Forget a request at once; empty if it is not known (any more)."""
        for sequence in self._waiting:
            if sequence.id == id:
                self._waiting.remove(sequence)
                return [Event(id=id, finish=FinishReason.ABORT)]
        if self._prefilling is not None and self._prefilling.id == id:
            self._prefilling = None
            return [Event(id=id, finish=FinishReason.ABORT)]
        for slot, sequence in enumerate(self._running):
            if sequence.id == id:
                self._remove([slot])
                return [Event(id=id, finish=FinishReason.ABORT)]
        return []

    @torch.inference_mode()
    def prefill(self) -> list[Event]:
        """Compute the next piece of the oldest prompt; on its end, its first token."""
        started = False
        if self._prefilling is None:
            if not self._waiting or len(self._running) >= self.slots:
                return []
            self._prefilling, started = self._waiting.popleft(), True
        sequence, slot = self._prefilling, len(self._running)
        begin = sequence.computed
        end = min(begin + self.prefill_chunk, len(sequence.prompt))
        self.cache.prepare_prefill(slot, begin, end)
        mask = torch.full((end - begin, end), torch.finfo(self.model.dtype).min, dtype=self.model.dtype)
        mask = mask.triu_(begin + 1)[None, None]
        logits = self._forward([sequence.prompt[begin:end]], torch.arange(begin, end)[None], mask)
        sequence.computed = sequence.length = end
        if end < len(sequence.prompt):
            return [Event(id=sequence.id, started=True)] if started else []
        self._prefilling = None
        self._running.append(sequence)
        return self._advance(logits, slot, started)

    @torch.inference_mode()
    def decode(self) -> list[Event]:
        """One more token for every running sequence."""
        if not self._running:
            return []
        lengths = torch.tensor([sequence.length for sequence in self._running])
        past = min(-(-(int(lengths.max()) + 1) // 32) * 32, self.context_length)
        self.cache.prepare_decode(lengths, past)
        mask = torch.zeros((len(self._running), 1, 1, past))
        mask.masked_fill_(torch.arange(past) > lengths[:, None, None, None], torch.finfo(torch.float32).min)
        tokens = [[sequence.last] for sequence in self._running]
        logits = self._forward(tokens, lengths[:, None], mask)
        for sequence in self._running:
            sequence.length += 1
        return self._advance(logits, 0, False)

    def _forward(
        self, tokens: list[list[int]], positions: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        result = self.model(
            input_ids=torch.tensor(tokens),
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = result.logits[:, -1]
        return logits

    def _advance(self, logits: torch.Tensor, first: int, started: bool) -> list[Event]:
        """Draw a token for the sequences in slots `first` and up, and let go those that end."""
        members = self._running[first:]
        chosen = next_tokens(logits, [s.sampling for s in members], [s.generator for s in members])
        events, ended = [], []
        for slot, (sequence, token) in enumerate(zip(members, chosen, strict=True), start=first):
            finish = None
            tokens: tuple[int, ...] = ()
            if token in self.end_tokens or token in sequence.stop:
                finish = FinishReason.STOP
            else:
                tokens = (token,)
                sequence.last = token
                sequence.generated += 1
                if sequence.generated >= sequence.max_tokens or sequence.length + 1 >= self.context_length:
                    finish = FinishReason.LENGTH
            if finish is not None:
                ended.append(slot)
            events.append(Event(id=sequence.id, tokens=tokens, finish=finish, started=started))
        self._remove(ended)
        return events

    def _remove(self, slots: list[int]) -> None:
        """Free `slots`, closing each gap with the last sequence; the prompt in work moves along."""
        before = len(self._running)
        for slot in sorted(slots, reverse=True):
            last = len(self._running) - 1
            if slot != last:
                self.cache.move(last, slot, self._running[last].length)
                self._running[slot] = self._running[last]
            self._running.pop()
        if self._prefilling is not None and len(self._running) != before:
            self.cache.move(before, len(self._running), self._prefilling.computed)


def load(
    directory: Path, *, dtype: str, slots: int, context_length: int, prefill_chunk: int
) -> BatchEngine:
    """Load a model directory that was verified before.

    Raises:
        EngineError: the model cannot be loaded, or needs something this engine does not have.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    quiet: Any = logging
    quiet.disable_progress_bar()
    quiet.set_verbosity_error()
    kind = _choose_dtype(dtype)
    register_attention()
    try:
        loader: Any = AutoModelForCausalLM
        model = loader.from_pretrained(
            str(directory),
            dtype=kind,
            attn_implementation="sdpa",
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
        ).eval()
    except (OSError, ValueError, RuntimeError) as error:  # transformers' ways to say no
        raise EngineError("the model cannot be loaded", details={"reason": type(error).__name__}) from error
    config = model.config
    _check_supported(config, context_length)
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    with torch.inference_mode():
        packed = pack_linears(model, slots)
        batched = attention_works(heads, kv_heads, size, kind)
    if batched:
        model.set_attn_implementation(ATTENTION)
    cache = SlotCache(
        layers=config.num_hidden_layers,
        slots=slots,
        kv_heads=kv_heads,
        length=context_length,
        size=size,
        dtype=kind,
    )
    return BatchEngine(
        model=model,
        cache=cache,
        slots=slots,
        context_length=context_length,
        prefill_chunk=prefill_chunk,
        end_tokens=_end_tokens(model),
        detail={
            "dtype": str(kind).removeprefix("torch."),
            "attention": "batched" if batched else "sdpa",
            "packed_linears": str(packed),
            "threads": str(torch.get_num_threads()),
        },
    )


def _choose_dtype(name: str) -> torch.dtype:
    if name == "auto":
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def _check_supported(config: Any, context_length: int) -> None:
    """One mask serves every layer, and every layer keeps keys and values: refuse models that differ."""
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None)
    if kinds != {"full_attention"} or (window and window < context_length):
        raise EngineError("the model's attention is not supported: full attention in every layer is needed")
    if context_length > config.max_position_embeddings:
        raise EngineError(
            f"context_length {context_length} is above the model's {config.max_position_embeddings}"
        )


def _end_tokens(model: Any) -> frozenset[int]:
    found = model.generation_config.eos_token_id
    if found is None:
        found = model.config.eos_token_id
    if found is None:
        return frozenset()
    return frozenset(found if isinstance(found, list) else [found])
