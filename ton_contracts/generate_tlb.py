"""Writes ``cocoon.tlb`` from the Tolk sources: every record, message and storage cell as TL-B.

``python generate_tlb.py`` writes the file; with ``--check`` it fails if the file is stale.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CONTRACTS = HERE / "contracts"
TARGET = HERE / "cocoon.tlb"
FILES = (
    "lib/signed.tolk",
    "lib/fees.tolk",
    "registry/parameters.tolk",
    "node/storage.tolk",
    "node/history.tolk",
    "registry/storage.tolk",
    "registry/messages.tolk",
    "node/messages.tolk",
    "channel/storage.tolk",
    "channel/messages.tolk",
    "lib/ecdsa.tolk",
    "pck/storage.tolk",
    "pck/messages.tolk",
)
_STRUCT = re.compile(
    r"^((?:/// [^\n]*\n)*)struct (?:\(0x([0-9a-f]{8})\) )?(\w+) \{\n(.*?)^\}", re.MULTILINE | re.DOTALL
)
_FIELD = re.compile(r"^ {4}(\w+): ([^=\n/]+?)(?: = (?:\w+|\[\]))?(?: +// .*)?$", re.MULTILINE)
_SIMPLE = {
    "coins": "Coins",
    "bool": "Bool",
    "cell": "^Cell",
    "address": "MsgAddressInt",
    "cell?": "(Maybe ^Cell)",
    "RemainingBitsAndRefs": "Any",
    "address?": "MsgAddress",  # addr_none or addr_std
}
_HEAD = """// TL-B of the contracts and of the records that they check.
// Generated from ton_contracts/contracts by generate_tlb.py: do not edit.
// Any is the rest of a cell. Coins, MsgAddress, HashmapE and Maybe are those of TON's block.tlb.
"""


def snake(name: str) -> str:
    """``queryId`` -> ``query_id``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def tlb_type(tolk: str) -> str:
    """The TL-B type of a Tolk field type. Raises ValueError for one that is not known."""
    if tolk in _SIMPLE:
        return _SIMPLE[tolk]
    if re.fullmatch(r"(?:u?int|bits)\d+", tolk):
        return tolk
    if match := re.fullmatch(r"Cell<(\w+)>(\??)", tolk):
        return f"(Maybe ^{match[1]})" if match[2] else f"^{match[1]}"
    if match := re.fullmatch(r"map<uint(\d+), (\w+)>", tolk):
        return f"(HashmapE {match[1]} {tlb_type(match[2])})"
    if match := re.fullmatch(r"map<address, (\w+)>", tolk):
        return f"(HashmapE 267 {tlb_type(match[1])})"
    if re.fullmatch(r"[A-Z]\w+", tolk):
        return tolk
    raise ValueError(f"no TL-B for {tolk}")


def declarations(source: str) -> list[str]:
    """All structs of one file, each with its comment."""
    found = []
    for comment, tag, name, body in _STRUCT.findall(source):
        fields = [f"{snake(field)}:{tlb_type(kind.strip())}" for field, kind in _FIELD.findall(body)]
        declared = [line for line in body.splitlines() if re.match(r" {4}\w+:", line)]
        if len(declared) != len(fields):
            raise ValueError(f"{name}: a field was not understood")
        constructor = snake(name) + (f"#{tag}" if tag else "$_")
        lines = [line.replace("///", "//") for line in comment.splitlines()]
        text = f"{constructor} {' '.join(fields)} = {name};"
        if len(text) > 108:
            text = f"{constructor}\n    " + "\n    ".join(fields) + f"\n    = {name};"
        found.append("\n".join([*lines, text]))
    return found


def render() -> str:
    """The text of ``cocoon.tlb``."""
    parts = [_HEAD]
    for file in FILES:
        found = declarations((CONTRACTS / file).read_text(encoding="utf-8"))
        parts.append(f"// ---- {file}\n\n" + "\n\n".join(found) + "\n")
    return "\n".join(parts)


def main(arguments: list[str]) -> int:
    """Write or check the file; returns the exit status."""
    text = render()
    if "--check" in arguments:
        return 0 if TARGET.exists() and TARGET.read_text(encoding="utf-8") == text else 1
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
