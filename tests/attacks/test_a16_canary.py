"""A16: prompts and answers leave no trace outside the TEE and the client that asked.

Canaries go through the whole network in every place that a request has: message, user field, stop string,
refused and broken requests, a cancelled stream. When everything is anchored and settled, all that the
network wrote or said is searched: every file of every process, databases row by row, the chain's database,
``/metrics``, status pages, traffic on both ports of the enclave, command lines, environments, and the memory
of the processes outside the TEE. The searcher itself is tested first: it must find what was hidden for it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import secrets
import shutil
import sqlite3
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "network"))

if TYPE_CHECKING:
    from tests.network.netkit import (
        MODEL,
        Running,
        Served,
        children,
        cocoon_process,
        ledger_rows,
        shared,
        until,
    )
else:
    from netkit import MODEL, children, cocoon_process, ledger_rows, shared, until

pytestmark = [pytest.mark.network, pytest.mark.model]
SHORTEST = 12
"""Needles shorter than this could turn up by chance."""


# ---- needles


def shapes(secret: bytes) -> Iterator[bytes]:
    """What `secret` looks like in files: plain, UTF-16, hex, base64 at any offset, cells at any bit."""
    text = secret.decode()
    yield secret
    yield text.encode("utf-16-le")
    yield text.encode("utf-16-be")
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    for offset in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            whole = encode(bytes(offset) + secret).rstrip(b"=")
            yield whole[(0, 2, 3)[offset] : (offset + len(secret)) * 8 // 6]
    number = int.from_bytes(secret)
    for shift in range(1, 8):  # a cell's data may begin at any bit
        yield (number << shift).to_bytes(len(secret) + 1)[1:-1]


def token_shapes(ids: list[int]) -> Iterator[bytes]:
    """What token ids look like: lists of numbers as text, and arrays of 16, 32 or 64 bits."""
    for separator in (", ", ",", " "):
        yield separator.join(str(id) for id in ids).encode()
    for size in (2, 4, 8):
        yield b"".join(id.to_bytes(size, "little") for id in ids)


def found_in(data: bytes, needles: Iterable[bytes]) -> bool:
    """True if any needle occurs."""
    return any(needle in data for needle in needles)


class Search:
    """Looks for needles and remembers where they were."""

    def __init__(self, needles: Iterable[bytes]) -> None:
        self.needles = sorted(set(needles))
        assert min(len(needle) for needle in self.needles) >= SHORTEST
        self.places: list[str] = []
        self.bytes = 0

    def look(self, place: str, data: bytes) -> None:
        """Search one piece of data."""
        self.bytes += len(data)
        if found_in(data, self.needles):
            self.places.append(place)

    def files(self, directory: Path) -> int:
        """Search every file below a directory, its name included; returns how many there were."""
        count = 0
        for path in sorted(directory.rglob("*")):
            self.look(f"name of {path}", str(path).encode())
            if path.is_file():
                count += 1
                self.look(str(path), path.read_bytes())
        return count

    def database(self, path: Path, scratch: Path) -> int:
        """Search a copy of an SQLite database value by value; returns the number of rows."""
        copy = scratch / f"{secrets.token_hex(4)}-{path.name}"
        for suffix in ("", "-wal"):
            if path.with_name(path.name + suffix).exists():
                shutil.copy(path.with_name(path.name + suffix), copy.with_name(copy.name + suffix))
        rows = 0
        with contextlib.closing(sqlite3.connect(copy)) as db:
            db.text_factory = bytes
            names = db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (name,) in names:
                for row in db.execute(f'SELECT * FROM "{name.decode()}"'):
                    rows += 1
                    for value in row:
                        data = value if isinstance(value, bytes) else str(value).encode()
                        self.look(f"{path.name}: {name.decode()}", data)
        return rows

    def memory(self, pid: int) -> int:
        """Search the writable memory of a process; returns how much was read. 0 where that is forbidden."""
        before = self.bytes
        try:
            maps = Path(f"/proc/{pid}/maps").read_text()
            with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
                for match in re.finditer(r"^([0-9a-f]+)-([0-9a-f]+) rw", maps, re.MULTILINE):
                    start, end = (int(bound, 16) for bound in match.groups())
                    if end - start > 1 << 28:
                        continue  # reserved address space, nothing in it
                    with contextlib.suppress(OSError, OverflowError):
                        memory.seek(start)
                        self.look(f"memory of {pid}", memory.read(end - start))
        except OSError:
            return 0
        return self.bytes - before


@pytest.mark.parametrize("bits", range(8))
def test_the_search_finds_what_is_hidden(tmp_path: Path, bits: int) -> None:
    secret = secrets.token_hex(12).encode()
    noise = secrets.token_bytes(100 + bits)
    hidden = {
        "plain": noise + secret + noise,
        "utf-16": noise + secret.decode().encode("utf-16-le") + noise,
        "hex": (noise + secret + noise).hex().encode(),
        "base64": base64.b64encode(noise[: 50 + bits] + secret + noise),
        "urlsafe": base64.urlsafe_b64encode(noise[: 50 + bits] + secret + noise),
        "bits": (int.from_bytes(noise + secret + noise) << bits).to_bytes(300 + len(secret)),
        "json": json.dumps({"prompt": f"say {secret.decode()}!"}).encode(),
    }
    for name, data in hidden.items():
        directory = tmp_path / name
        directory.mkdir()
        (directory / "file").write_bytes(data)
        search = Search(shapes(secret))
        assert search.files(directory) == 1
        assert search.places == [str(directory / "file")], name
    with contextlib.closing(sqlite3.connect(tmp_path / "db.sqlite3")) as db:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("CREATE TABLE t (a, b)")
        db.execute("INSERT INTO t VALUES (1, ?)", (hidden["json"].decode(),))
        db.commit()
        search = Search(shapes(secret))
        assert search.database(tmp_path / "db.sqlite3", tmp_path) == 1  # from the journal alone
        assert search.places == ["db.sqlite3: t"]
    search = Search(shapes(secrets.token_hex(12).encode()))
    search.files(tmp_path)
    assert search.places == []


# ---- the run


@pytest.fixture(scope="module")
def net(request: pytest.FixtureRequest) -> Running:
    """The shared network, with relays that keep everything on both ports of the enclave."""
    return shared(request.config)


class Canaries:
    """One random word for each place, so that a find names its source."""

    def __init__(self) -> None:
        self.words = {
            place: f"zq{secrets.token_hex(14)}"
            for place in (
                "message",
                "system",
                "user",
                "stop",
                "refused",
                "broken",
                "cancelled",
                "completion",
            )
        }
        self.answers: list[str] = []

    def __getitem__(self, place: str) -> str:
        return self.words[place]

    def needles(self) -> Iterator[bytes]:
        """Everything that must not be found."""
        for word in self.words.values():
            yield from shapes(word.encode())
            yield from token_shapes(_tokens(word))
        for answer in self.answers:
            for start in range(0, max(1, len(answer) - 24), 16):
                piece = answer[start : start + 24].encode()
                if len(piece) >= SHORTEST and piece.strip().isascii():
                    yield from shapes(piece)


def _tokens(word: str) -> list[int]:
    """Some tokens from the middle of a word, as the model's own tokenizer splits it."""
    from tokenizers import Tokenizer

    from cocoon_enclave.models.demo import demo_model

    model = demo_model()
    assert model is not None
    ids = Tokenizer.from_file(str(model.path / "tokenizer.json")).encode(word).ids
    assert len(ids) > 14
    return [int(id) for id in ids[3:15]]


def _talk(served: Served, canaries: Canaries) -> bytes:
    """Put every canary through the gateway; returns the id of the first answer's receipt."""
    chat, plain = f"{served.base_url}/chat/completions", f"{served.base_url}/completions"

    def body(content: str, **more: object) -> dict[str, object]:
        return {
            "model": MODEL,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": 24,
            **more,
        }

    with httpx.Client(timeout=120, trust_env=False) as client:
        question = body(
            f"Repeat this word: {canaries['message']}", temperature=0, user=canaries["user"],
            stop=[canaries["stop"]],
        )  # fmt: skip
        question["messages"] = [
            {"role": "system", "content": f"You know the word {canaries['system']}."},
            {"role": "user", "content": f"Repeat this word: {canaries['message']} and tell a story."},
        ]
        answer = client.post(chat, json=question)
        assert answer.status_code == 200, answer.text
        canaries.answers.append(answer.json()["choices"][0]["message"]["content"])
        text = client.post(plain, json={"model": MODEL, "prompt": canaries["completion"], "max_tokens": 16})
        assert text.status_code == 200, text.text
        canaries.answers.append(text.json()["choices"][0]["text"])
        refused = client.post(chat, json=body(canaries["refused"], tools=[{"type": canaries["refused"]}]))
        assert refused.status_code == 400, refused.text
        broken = client.post(
            chat, content=b'{"model": "' + canaries["broken"].encode() + b'", "messages": ['
        )
        assert broken.status_code == 400, broken.text
        unknown = client.post(chat, json={**body(canaries["broken"]), "model": canaries["broken"]})
        assert unknown.status_code == 404, unknown.text
        with client.stream("POST", chat, json=body(canaries["cancelled"], stream=True)) as stream:
            for number, _ in enumerate(stream.iter_lines()):
                if number == 6:
                    break
    receipt = answer.headers["x-cocoon-receipt"]
    return bytes.fromhex(receipt)


def test_nothing_is_found(net: Running, tmp_path: Path) -> None:
    assert net.public is not None
    assert net.private is not None
    net.public.forget()
    net.private.forget()
    canaries = Canaries()
    with net.gateway() as served:
        receipt = _talk(served, canaries)
        search = Search(canaries.needles())
        _wait_for_the_books(net)
        status = httpx.get(f"{served.base_url}/cocoon/status", trust_env=False).content
        shown = httpx.get(f"{served.base_url}/cocoon/receipts/{receipt.hex()}", trust_env=False).content
        search.look("status of the gateway", status)
        search.look("receipt", shown)
        _search_processes(net, search, canaries)
    host = cocoon_process("host", "status", "--config", net.dev.root / "host.toml", "--json", home=net.home)
    assert host.code == 0, host.out
    search.look("status of the host", host.out.encode())
    search.look("metrics", net.metrics().encode())
    for name, relay in (("public port", net.public), ("host port", net.private)):
        assert min(len(relay.sent), len(relay.received)) > 1000
        search.look(f"to the {name}", bytes(relay.sent))
        search.look(f"from the {name}", bytes(relay.received))
    assert bytes.fromhex(net.node_id) in net.private.received  # that port is not encrypted: we can read it
    assert search.files(net.home) > 20
    rows = {path: search.database(path, tmp_path) for path in _databases(net.home)}
    assert {path.name for path, count in rows.items() if count > 0} >= {
        "chain.sqlite", "enclave.sqlite3", "ledger.sqlite3", "outbox.sqlite3"
    }  # fmt: skip
    assert search.places == []


def test_content_is_in_the_export_that_was_asked_for_and_nowhere_else(net: Running, tmp_path: Path) -> None:
    canary = f"zq{secrets.token_hex(14)}"
    with net.gateway() as served:
        exchanged = served.ask(f"Remember {canary}", max_tokens=4)
    bundle = net.export(exchanged, tmp_path / "bundle.json")
    needles = [*shapes(canary.encode())]
    assert found_in(bundle, needles)
    search = Search(needles)
    search.files(net.home)
    assert search.places == []
    bare = tmp_path / "bare.json"
    found = cocoon_process(
        "receipts",
        "export",
        exchanged.receipt,
        "--output",
        bare,
        "--network",
        net.network_file,
        home=net.home,
    )
    assert found.code == 0, found.err
    assert not found_in(bare.read_bytes(), needles)


def test_the_enclave_writes_no_core_dumps(net: Running) -> None:
    pid = net.part("enclave").pid
    engines = children(pid)
    assert engines
    for each in (pid, *engines):
        limits = Path(f"/proc/{each}/limits").read_text()
        (line,) = (line for line in limits.splitlines() if line.startswith("Max core file size"))
        assert line.split()[4:6] == ["0", "0"]


def _search_processes(net: Running, search: Search, canaries: Canaries) -> None:
    """Command lines and environments of all processes; memory of those outside the TEE."""
    parts = [net.part(name).pid for name in ("devnet", "enclave", "host")]
    for pid in (*parts, *children(parts[1]), *(gateway.pid for gateway in net.gateways)):
        for name in ("cmdline", "environ"):
            search.look(f"{name} of {pid}", Path(f"/proc/{pid}/{name}").read_bytes())
    words = Search(needle for word in canaries.words.values() for needle in [*shapes(word.encode())][:2])
    control = Search([bytes.fromhex(net.node_id)])
    for pid in (parts[0], parts[2]):
        if words.memory(pid) and control.memory(pid):
            assert control.places  # what these processes do know is found in their memory
    assert words.places == []


def _databases(home: Path) -> list[Path]:
    files = (path for path in sorted(home.rglob("*")) if path.is_file())
    return [path for path in files if path.read_bytes().startswith(b"SQLite format 3")]


def _wait_for_the_books(net: Running) -> None:
    """Everything that was answered is anchored and settled: the content had every chance to get out."""

    def done() -> bool:
        highest = max(row["log_index"] for row in ledger_rows(net.home, "receipts", ["log_index"]))
        return net.node().log.tree_size > highest and all(b.paid == b.used for b in net.books().values())

    until(done, within=60, what="anchor and settlement")
