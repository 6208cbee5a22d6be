"""Ask TON's official client library about a chain. Run as a process; see ``test_devnet_tonlib.py``.

Standard input: one JSON object with `config` (global configuration), `library` (path of
libtonlibjson) and `queries` (name to tonlib query; ``{last}`` stands for the newest masterchain
block, ``{name.field}`` for a field of an earlier answer; a query with `until` is repeated until that
field of its answer is the value given). Standard output: one JSON object of answers by name. The
library is C++ with threads of its own, so it must not run inside the test process.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from typing import Any

SECONDS = 20.0


class Tonlib:
    """The JSON interface of libtonlibjson, one request at a time."""

    def __init__(self, path: str) -> None:
        library = ctypes.CDLL(path)
        library.tonlib_client_json_create.restype = ctypes.c_void_p
        library.tonlib_client_json_send.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
        library.tonlib_client_json_receive.restype = ctypes.c_char_p
        library.tonlib_client_json_receive.argtypes = [ctypes.c_void_p, ctypes.c_double]
        self._library = library
        self._client = library.tonlib_client_json_create()
        self._count = 0
        self.request({"@type": "setLogVerbosityLevel", "new_verbosity_level": 0})

    def request(self, query: dict[str, Any]) -> dict[str, Any]:
        self._count += 1
        tag = str(self._count)
        text = json.dumps(query | {"@extra": tag}).encode()
        self._library.tonlib_client_json_send(self._client, text)
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            answer = self._library.tonlib_client_json_receive(self._client, 0.5)
            if answer:
                document: dict[str, Any] = json.loads(answer)
                if document.get("@extra") == tag:
                    return document
        return {"@type": "timeout"}


def fill(value: Any, answers: dict[str, Any]) -> Any:
    """The query with the fields of earlier answers in place."""
    if isinstance(value, dict):
        return {key: fill(item, answers) for key, item in value.items()}
    if isinstance(value, list):
        return [fill(item, answers) for item in value]
    if isinstance(value, str) and value[:1] == "{" and value[-1:] == "}":
        found: Any = answers
        for part in value[1:-1].split("."):
            found = found[part]
        return found
    return value


def main() -> None:
    """Answer the job on standard input, then leave without the library's destructors."""
    job = json.load(sys.stdin)
    tonlib = Tonlib(job["library"])
    config = {
        "@type": "config",
        "config": json.dumps(job["config"]),
        "use_callbacks_for_network": False,
        "blockchain_name": "",
        "ignore_cache": True,
    }
    options = {"@type": "options", "config": config, "keystore_type": {"@type": "keyStoreTypeInMemory"}}
    answers = {"init": tonlib.request({"@type": "init", "options": options})}
    answers["sync"] = tonlib.request({"@type": "sync"})
    answers["head"] = tonlib.request({"@type": "blocks.getMasterchainInfo"})
    answers["last"] = answers["head"].get("last", {})
    for name, query in job["queries"].items():
        wanted = query.pop("until", {})
        try:
            filled = fill(query, answers)
        except KeyError as error:  # the answer that it builds on was an error
            answers[name] = {"@type": "error", "message": f"no {error}"}
            continue
        for _ in range(100):
            answers[name] = tonlib.request(filled)
            if all(answers[name].get(field) == value for field, value in wanted.items()):
                break
            time.sleep(0.1)
    sys.stdout.write(json.dumps(answers))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
