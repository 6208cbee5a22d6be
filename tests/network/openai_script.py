"""Everything an app does with the official `openai` package, unchanged. Run as a process; see ``test_openai.py``.

Arguments: base URL and model. Prints one JSON document of what happened. Runs with versions 2 and 3.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import openai


def chat_stream(client: openai.OpenAI, model: str) -> dict[str, Any]:
    """A streamed chat with usage."""
    stream = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "Count from one to ten."}],
        max_tokens=24,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    pieces, finish, usage, receipts, ids, roles = [], [], [], [], set(), []
    with stream:
        for chunk in stream:
            ids.add(chunk.id)
            extra = (chunk.model_extra or {}).get("cocoon")
            if extra:
                receipts.append(extra)
            if chunk.usage:
                usage.append([chunk.usage.prompt_tokens, chunk.usage.completion_tokens, len(chunk.choices)])
            for choice in chunk.choices:
                pieces.append(choice.delta.content or "")
                roles.append(choice.delta.role)
                if choice.finish_reason:
                    finish.append(choice.finish_reason)
    return {
        "text": "".join(pieces),
        "pieces": len([piece for piece in pieces if piece]),
        "finish": finish,
        "usage": usage,
        "receipts": receipts,
        "ids": len(ids),
        "role": roles[0],
    }


def chat(client: openai.OpenAI, model: str) -> dict[str, Any]:
    """A chat in one piece, with the headers."""
    raw = client.chat.completions.with_raw_response.create(
        model=model,
        messages=[
            {"role": "system", "content": "You answer in one word."},
            {"role": "user", "content": "Count from one to ten."},
        ],
        max_tokens=8,
        temperature=0,
    )
    answer = raw.parse()
    return {
        "text": answer.choices[0].message.content,
        "finish": answer.choices[0].finish_reason,
        "usage": answer.usage.to_dict() if answer.usage else None,
        "receipt": (answer.model_extra or {})["cocoon"],
        "header": raw.headers["x-cocoon-receipt"],
        "request_id": raw.headers["x-request-id"],
        "object": answer.object,
    }


def completion(client: openai.OpenAI, model: str) -> dict[str, Any]:
    """The older endpoint, with a stop string."""
    answer = client.completions.create(
        model=model, prompt="one, two, three,", max_tokens=12, temperature=0, stop=["six"]
    )
    return {
        "text": answer.choices[0].text,
        "finish": answer.choices[0].finish_reason,
        "object": answer.object,
    }


def failure(call: Any) -> dict[str, Any]:
    """How a call fails."""
    try:
        call()
    except openai.APIStatusError as error:
        return {
            "class": type(error).__name__,
            "status": error.status_code,
            "code": error.code,
            "param": error.param,
            "type": error.type,
            "message": error.message,
        }
    return {"class": "nothing"}


async def concurrently(base_url: str, model: str) -> list[str]:
    """Three answers at once from the asynchronous client."""
    async with openai.AsyncOpenAI(
        base_url=base_url, api_key="cocoon", max_retries=0, timeout=120
    ) as client:

        async def one(number: int) -> str:
            answer = await client.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": f"Say the number {number}."}],
                max_tokens=6,
                temperature=0,
            )
            return str((answer.model_extra or {})["cocoon"]["receipt_id"])

        return list(await asyncio.gather(*(one(number) for number in range(3))))


def main(base_url: str, model: str) -> None:
    """Run everything and print what happened."""
    client = openai.OpenAI(base_url=base_url, api_key="cocoon", max_retries=0, timeout=120)
    hello: Any = [{"role": "user", "content": "Hello"}]
    create = client.chat.completions.create
    document = {
        "version": openai.__version__,
        "stream": chat_stream(client, model),
        "chat": chat(client, model),
        "completion": completion(client, model),
        "models": [item.to_dict() for item in client.models.list()],
        "model": client.models.retrieve(model).to_dict(),
        "unknown": failure(lambda: create(model="gpt-5", messages=hello)),
        "unknown_stream": failure(lambda: create(model="gpt-5", messages=hello, stream=True)),
        "unknown_retrieve": failure(lambda: client.models.retrieve("gpt-5")),
        "unsupported": failure(lambda: create(model=model, messages=hello, n=2, max_tokens=4)),
        "too_long": failure(lambda: create(model=model, messages=hello, max_tokens=100_000)),
        "embeddings": failure(lambda: client.embeddings.create(model=model, input="x")),
        "concurrent": asyncio.run(concurrently(base_url, model)),
    }
    client.close()
    sys.stdout.write(json.dumps(document))


if __name__ == "__main__":
    main(*sys.argv[1:])
