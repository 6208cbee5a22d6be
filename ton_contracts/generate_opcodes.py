"""Writes ``cocoon_ton/opcodes.py`` from the Tolk sources: opcodes, record tags and exit codes.

``python generate_opcodes.py`` writes the file; with ``--check`` it fails if the file is stale.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CONTRACTS = HERE / "contracts"
TARGET = HERE / "cocoon_ton" / "opcodes.py"
_STRUCT = re.compile(r"^struct \(0x([0-9a-f]{8})\) (\w+)", re.MULTILINE)
_ENUM = re.compile(r"^enum (\w+)Error \{(.*?)^\}", re.MULTILINE | re.DOTALL)
_MEMBER = re.compile(r"^ {4}(\w+) = (\d+) +// (.+)$", re.MULTILINE)

_HEAD = '''"""Opcodes, record tags and exit codes of the contracts.

Generated from ``ton_contracts/contracts`` by ``generate_opcodes.py``: do not edit.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class ExitCode(NamedTuple):
    """What an exit code of one of the contracts means."""

    contract: str
    name: str
    meaning: str


'''


def constant(name: str) -> str:
    """``ChannelTopUp`` -> ``CHANNEL_TOP_UP``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).upper()


def tags(sources: dict[str, str]) -> dict[str, int]:
    """Tag of every tagged struct, by constant name. Raises ValueError for a tag or name used twice."""
    found: dict[str, int] = {}
    for source in sources.values():
        for tag, name in _STRUCT.findall(source):
            if constant(name) in found or int(tag, 16) in found.values():
                raise ValueError(f"tag {tag} or name {name} is used twice")
            found[constant(name)] = int(tag, 16)
    return found


def exit_codes(sources: dict[str, str]) -> dict[int, tuple[str, str, str]]:
    """Contract, name and meaning of every error. Raises ValueError for a code used twice or below 200."""
    found: dict[int, tuple[str, str, str]] = {}
    for source in sources.values():
        for contract, members in _ENUM.findall(source):
            for name, code, meaning in _MEMBER.findall(members):
                if int(code) in found or int(code) < 200:
                    raise ValueError(f"exit code {code} is used twice or reserved")
                found[int(code)] = (contract, name, meaning)
    return found


def render(sources: dict[str, str]) -> str:
    """The text of ``opcodes.py``."""
    ordered = sorted(tags(sources).items(), key=lambda item: item[1])
    lines = [f"{name}: Final = 0x{tag:08X}" for name, tag in ordered]
    lines += ["", "EXIT_CODES: Final[dict[int, ExitCode]] = {"]
    for code, (contract, name, meaning) in sorted(exit_codes(sources).items()):
        lines.append(f'    {code}: ExitCode("{contract}", "{name}", "{meaning}"),')
    lines += ["}", '"""By exit code of the compute phase; codes below 200 belong to TVM."""']
    return _HEAD + "\n".join(lines) + "\n"


def read_sources() -> dict[str, str]:
    """All Tolk files by relative path."""
    paths = sorted(CONTRACTS.rglob("*.tolk"))
    return {str(path.relative_to(CONTRACTS)): path.read_text(encoding="utf-8") for path in paths}


def main(arguments: list[str]) -> int:
    """Write or check the file; returns the exit status."""
    text = render(read_sources())
    if "--check" in arguments:
        return 0 if TARGET.exists() and TARGET.read_text(encoding="utf-8") == text else 1
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
