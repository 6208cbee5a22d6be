"""The official OpenAI client, unchanged, through `cocoon serve`; versions 3 and 2."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest

if TYPE_CHECKING:
    from tests.network.netkit import MODEL, Running, Served, ledger_rows, until
else:
    from netkit import MODEL, ledger_rows, until

pytestmark = [pytest.mark.network, pytest.mark.model]
SCRIPT = Path(__file__).with_name("openai_script.py")
OLD_VENV = "COCOON_OPENAI2_VENV"


def _script(served: Served, python: str, path: str = "") -> dict[str, Any]:
    env = dict(os.environ)
    if path:
        env["PYTHONPATH"] = path
    found = subprocess.run(
        [python, str(SCRIPT), served.base_url, MODEL],
        env=env,
        capture_output=True,
        timeout=200,
        check=False,
    )
    assert found.returncode == 0, found.stderr.decode()[-3000:]
    document = json.loads(found.stdout)
    assert isinstance(document, dict)
    return document


def _old_client(directory: Path) -> tuple[str, str]:
    """A Python with openai 2: that of a virtual environment, or this one with an extra path."""
    if venv := os.environ.get(OLD_VENV):
        return str(Path(venv) / "bin" / "python"), ""
    argv = [
        sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
        "--retries", "1", "--timeout", "15", "--target", str(directory), "openai>=2,<3",
    ]  # fmt: skip
    try:
        found = subprocess.run(argv, capture_output=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"openai 2 could not be installed in time; set {OLD_VENV}")
    if found.returncode:
        pytest.skip(f"openai 2 cannot be installed here; set {OLD_VENV}: {found.stderr.decode()[-200:]}")
    return sys.executable, str(directory)


@pytest.fixture(scope="module", params=["3", "2"])
def seen(
    request: pytest.FixtureRequest, net: Running, served: Served, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What the script saw, with each version."""
    if request.param == "3":
        document = _script(served, sys.executable)
    else:
        document = _script(served, *_old_client(tmp_path_factory.mktemp("openai2")))
    assert document["version"].split(".")[0] == request.param
    return document


def test_streamed_chat(seen: dict[str, Any], net: Running) -> None:
    stream = seen["stream"]
    assert stream["text"].strip()
    assert stream["pieces"] > 3
    assert stream["finish"] in (["stop"], ["length"])
    assert stream["role"] == "assistant"
    assert stream["ids"] == 1
    ((prompt, completion, choices),) = stream["usage"]
    assert prompt > 5
    assert 1 <= completion <= 24
    assert choices == 0
    (receipt,) = stream["receipts"]
    assert receipt["simulated"] is True
    assert receipt["node"] == net.node_id
    assert receipt["amount_nanoton"] == 1000 * prompt + 4000 * completion


def test_chat_in_one_piece(seen: dict[str, Any]) -> None:
    chat = seen["chat"]
    assert chat["object"] == "chat.completion"
    assert chat["text"]
    assert chat["finish"] in ("stop", "length")
    assert (
        chat["usage"]["total_tokens"] == chat["usage"]["prompt_tokens"] + chat["usage"]["completion_tokens"]
    )
    assert chat["receipt"]["receipt_id"] == chat["header"]
    assert chat["request_id"].startswith("req_")


def test_text_completion(seen: dict[str, Any]) -> None:
    assert seen["completion"]["object"] == "text_completion"
    assert "six" not in seen["completion"]["text"]
    assert seen["completion"]["finish"] in ("stop", "length")


def test_models(seen: dict[str, Any], net: Running) -> None:
    (model,) = seen["models"]
    assert model == seen["model"]
    assert model["id"] == MODEL
    assert net.dev.model is not None
    assert model["cocoon"]["digest"] == net.dev.model.digest.hex()
    assert model["cocoon"]["nodes"] == [net.node_id]


@pytest.mark.parametrize("call", ["unknown", "unknown_stream", "unknown_retrieve"])
def test_an_unknown_model_is_not_found(seen: dict[str, Any], call: str) -> None:
    assert seen[call]["class"] == "NotFoundError"
    assert seen[call]["status"] == 404
    assert seen[call]["code"] == "model_not_found"
    assert seen[call]["param"] == "model"
    assert seen[call]["type"] == "invalid_request_error"
    assert "gpt-5" in seen[call]["message"]


def test_errors_have_the_classes_that_apps_catch(seen: dict[str, Any]) -> None:
    assert seen["unsupported"]["class"] == "BadRequestError"
    assert "n: not supported" in seen["unsupported"]["message"]
    assert seen["too_long"]["class"] == "BadRequestError"
    assert seen["too_long"]["code"] == "context_length_exceeded"
    assert seen["embeddings"]["class"] == "NotFoundError"


def test_concurrent_requests_have_their_own_receipts(seen: dict[str, Any], net: Running) -> None:
    assert len(set(seen["concurrent"])) == 3
    kept = {row["id"].hex() for row in ledger_rows(net.home, "receipts", ["id"])}
    assert {*seen["concurrent"], seen["chat"]["header"]} <= kept


def test_done_comes_after_the_receipt_and_only_then(served: Served) -> None:
    """On the wire: the finish chunk names the receipt, usage follows, ``[DONE]`` ends the stream."""
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 4,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    with (
        httpx.Client(timeout=120, trust_env=False) as client,
        client.stream("POST", f"{served.base_url}/chat/completions", json=body) as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        text = response.read().decode()
    assert text.endswith("data: [DONE]\n\n")
    events = [event.removeprefix("data: ") for event in text.strip().split("\n\n")]
    assert events.count("[DONE]") == 1
    chunks = [json.loads(event) for event in events[:-1]]
    finished = [
        n for n, chunk in enumerate(chunks) if chunk["choices"] and chunk["choices"][0]["finish_reason"]
    ]
    receipts = [n for n, chunk in enumerate(chunks) if "cocoon" in chunk]
    usages = [n for n, chunk in enumerate(chunks) if chunk.get("usage")]
    assert finished == receipts == [len(chunks) - 2]
    assert usages == [len(chunks) - 1]


def test_without_include_usage_there_is_none(served: Served) -> None:
    with openai.OpenAI(base_url=served.base_url, api_key="cocoon", max_retries=0, timeout=120) as client:
        stream = client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "Hello"}], max_tokens=3, stream=True
        )
        chunks = list(stream)
    assert all(chunk.usage is None for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "length"


def test_an_answer_that_is_not_wanted_any_more_is_paid_only_as_far_as_it_came(
    served: Served, net: Running
) -> None:
    """The app closes the stream early: the receipt for the part that was sent is still collected."""
    before = {row["id"] for row in ledger_rows(net.home, "receipts", ["id"])}
    with openai.OpenAI(base_url=served.base_url, api_key="cocoon", max_retries=0, timeout=120) as client:
        stream = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Tell me a very long story."}],
            max_tokens=400,
            stream=True,
        )
        for count, _ in enumerate(stream):
            if count == 5:
                break
        stream.close()

    def collected() -> list[dict[str, Any]]:
        rows = ledger_rows(net.home, "receipts", ["id", "amount", "status"])
        return [row for row in rows if row["id"] not in before]

    (row,) = until(collected, within=20, what="receipt of a cancelled answer")
    assert row["status"] == 499
    assert 0 < int(row["amount"]) < 4000 * 100
