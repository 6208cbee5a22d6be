"""Ask TON's official client library about a chain. Run as a process; see ``test_devnet_tonlib.py``.

Standard input: one JSON object with `config` (global configuration), `library` (path of
libtonlibjson) and `queries` (name to tonlib query; ``{last}`` stands for the newest masterchain
block). Standard output: one JSON object of answers by name. The library is C++ with threads of its
own, so it must not run inside the test process.
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
    for name, query in job["queries"].items():
        filled = {k: answers["head"].get("last") if v == "{last}" else v for k, v in query.items()}
        answers[name] = tonlib.request(filled)
    sys.stdout.write(json.dumps(answers))
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
