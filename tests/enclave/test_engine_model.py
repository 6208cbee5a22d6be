"""The real model: greedy text equals `generate()`, batching and sampling behave, the whole program serves it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from enclave_testkit import Node  # type: ignore[import-not-found]

from cocoon_enclave.config import EnclaveConfig, ModelConfig
from cocoon_enclave.engine.process import EngineProcess
from cocoon_enclave.engine.protocol import FinishReason, GenerationRequest, Sampling
from cocoon_enclave.engine.wire import EngineSpec
from cocoon_enclave.errors import EngineCrashedError, ModelRejectedError
from cocoon_enclave.models import FetchedModel, demo_model
from cocoon_enclave.runtime import Ready

pytestmark = pytest.mark.model
PROMPTS = (
    "What is the capital of France?",
    "Write a haiku about rain.",
    "Explain how a bicycle stays upright, in detail, please. " * 8,
    "Count from 1 to 20.",
)
TOKENS = 24


@pytest.fixture(scope="module")
def model() -> FetchedModel:
    """The demo model."""
    found = demo_model()
    if found is None:
        pytest.skip("the demo model is not fetched: run `make model`")
    return found


@pytest.fixture(scope="module")
def batch(model: FetchedModel) -> Any:
    """The engine's core in this process, f32, with few slots so that requests have to wait."""
    from cocoon_enclave.engine.batch import load

    return load(model.path, dtype="float32", slots=3, context_length=512, prefill_chunk=32)


@pytest.fixture(scope="module")
def reference(model: FetchedModel) -> Any:
    """Transformers' own model and tokenizer, f32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loader: Any = AutoModelForCausalLM
    plain = loader.from_pretrained(str(model.path), dtype=torch.float32)
    return plain, AutoTokenizer.from_pretrained(str(model.path))


def _run(engine: Any, *sequences: Any) -> dict[int, list[int]]:
    tokens: dict[int, list[int]] = {sequence.id: [] for sequence in sequences}
    for sequence in sequences:
        engine.add(sequence)
    while engine.has_work:
        for event in engine.prefill() + engine.decode():
            tokens[event.id] += event.tokens
    return tokens


def _sequence(id: int, prompt: list[int], sampling: Sampling, max_tokens: int = TOKENS) -> Any:
    from cocoon_enclave.engine.batch import Sequence

    return Sequence(id=id, prompt=prompt, max_tokens=max_tokens, sampling=sampling, stop=frozenset())


def test_greedy_text_equals_generate(batch: Any, reference: Any) -> None:
    import torch

    plain, tokenizer = reference
    prompts = [
        tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True)[
            "input_ids"
        ]
        for text in PROMPTS
    ]
    greedy = Sampling(temperature=0)
    found = _run(batch, *[_sequence(id, prompt, greedy) for id, prompt in enumerate(prompts)])
    for id, prompt in enumerate(prompts):
        ids = torch.tensor([prompt])
        mask = torch.ones_like(ids)
        output = plain.generate(
            ids, attention_mask=mask, max_new_tokens=TOKENS, do_sample=False, pad_token_id=2
        )
        expected = output[0, len(prompt) :].tolist()
        expected = expected[: expected.index(2)] if 2 in expected else expected
        assert found[id] == expected, PROMPTS[id]


def test_front_end_tokenizes_like_the_model(model: FetchedModel, reference: Any) -> None:
    from cocoon_enclave.models.manifest import read_verified
    from cocoon_enclave.text import FILES, TextModel

    text = TextModel.from_files(read_verified(model.path, model.digest, FILES))
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Grüße 😀"}]
    expected = reference[1].apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    assert text.encode_chat(messages) == expected
    decoder = text.decoder()
    ids = text.encode_prompt("Grüße 😀, wörld!")
    assert "".join(decoder.push(id) for id in ids) == "Grüße 😀, wörld!"


def test_same_seed_same_text_other_seed_other_text(batch: Any) -> None:
    prompt = [1, 4093, 198, 520, 9531, 198]

    def draw(seed: int) -> list[int]:
        how = Sampling(temperature=1.2, top_p=0.95, seed=seed)
        return _run(batch, _sequence(1, prompt, how, 10))[1]

    assert draw(7) == draw(7)
    assert len({tuple(draw(seed)) for seed in range(3)}) > 1


def test_abort_frees_the_slot_and_the_others_go_on(batch: Any) -> None:
    greedy = Sampling(temperature=0)
    prompt = [1, 520, 9531, 198]
    alone = _run(batch, _sequence(9, prompt, greedy, 16))[9]
    for id in range(3):
        batch.add(_sequence(id, prompt, greedy, 16))
    tokens: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for step in range(200):
        if step == 8:
            assert [event.finish for event in batch.abort(0)] == [FinishReason.ABORT]
            assert batch.abort(0) == []
        for event in batch.prefill() + batch.decode():
            tokens[event.id] += event.tokens
        if not batch.has_work:
            break
    assert len(tokens[0]) < 12
    assert tokens[1] == tokens[2] == alone


def test_sampling_follows_the_distribution() -> None:
    import torch

    from cocoon_enclave.engine.sampling import next_tokens

    generator = torch.Generator().manual_seed(3)
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05])
    logits = torch.full((1, 1000), -1e9)
    logits[0, [10, 20, 30, 40]] = torch.log(probabilities)

    def share(how: Sampling) -> dict[int, float]:
        drawn = Counter(next_tokens(logits, [how], [generator])[0] for _ in range(2000))
        return {token: count / 2000 for token, count in drawn.items()}

    full = share(Sampling(temperature=1.0))
    assert set(full) == {10, 20, 30, 40}
    assert abs(full[10] - 0.5) < 0.05
    assert set(share(Sampling(temperature=1.0, top_p=0.79))) == {10, 20}
    assert set(share(Sampling(temperature=1.0, top_k=3))) == {10, 20, 30}
    assert set(share(Sampling(temperature=1.0, top_k=1))) == {10}
    assert share(Sampling(temperature=0.25))[10] > 0.85


def test_nucleus_wider_than_the_cut_is_exact() -> None:
    import torch

    from cocoon_enclave.engine.sampling import CUT, next_tokens

    generator = torch.Generator().manual_seed(3)
    logits = torch.zeros((1, 4 * CUT))  # every token equally likely
    drawn = {next_tokens(logits, [Sampling(top_p=0.9)], [generator])[0] for _ in range(3000)}
    assert 3 * CUT < len(drawn) <= int(0.9 * 4 * CUT) + 1


async def test_process_serves_aborts_and_restarts(model: FetchedModel) -> None:
    spec = EngineSpec(directory=model.path, digest=model.digest, context_length=256, slots=4)
    engine = EngineProcess(spec)
    await engine.start()
    try:
        assert dict(engine.info.detail)["attention"] == "batched"
        request = GenerationRequest(
            prompt=(1, 520, 9531, 198), max_tokens=200, sampling=Sampling(temperature=0)
        )
        generation = engine.submit(request)
        count = 0
        async for delta in generation:
            count += len(delta.tokens)
            if count >= 3:
                generation.abort()
        assert delta.finish is FinishReason.ABORT
        assert count < 20
        victim = engine.submit(request)
        await anext(aiter(victim))
        assert engine.pid is not None
        os.kill(engine.pid, signal.SIGKILL)
        with pytest.raises(EngineCrashedError):
            async for _ in victim:
                pass
        with pytest.raises(EngineCrashedError):
            engine.submit(request)
        await _back(engine)
        assert engine.restarts == 1
        again = [delta async for delta in engine.submit(dataclasses.replace(request, max_tokens=2))]
        assert again[-1].finish is FinishReason.LENGTH
    finally:
        await engine.close()


async def _back(engine: EngineProcess) -> None:
    for _ in range(600):
        if engine.ready:
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the engine did not come back")


async def test_process_refuses_other_files(model: FetchedModel) -> None:
    engine = EngineProcess(EngineSpec(directory=model.path, digest=bytes(32), context_length=256))
    try:
        with pytest.raises(ModelRejectedError):
            await engine.start()
    finally:
        await engine.close()


async def test_the_program_serves_the_model(
    model: FetchedModel, config: EnclaveConfig, tmp_path: Path
) -> None:
    served = ModelConfig(name=model.name, digest=model.digest, path=model.path, context_length=512)
    config = dataclasses.replace(config, models=(served,))
    file = tmp_path / "enclave.toml"
    file.write_text(config.to_toml())
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cocoon_enclave", "--config", str(file), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 120)
        node = await Node.connect(config, Ready(**json.loads(line)))
        async with node.client() as client:
            reply = await client.ask(
                "What is the capital of France?", model=model.name, stream=True, temperature=0
            )
        assert "Paris" in "".join(reply.texts)
        assert reply.events[-1]["choices"][0]["finish_reason"] == "stop"
        await node.close()
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 30) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
