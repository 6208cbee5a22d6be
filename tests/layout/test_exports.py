"""The public names of every package are what `__all__` says: each exists, and importing costs nothing heavy."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys

import pytest

PACKAGES = ("cocoon_attestation", "cocoon_ton", "cocoon_proxy", "cocoon_enclave", "cocoon_cli")


@pytest.mark.parametrize("name", PACKAGES)
def test_every_public_name_exists_and_is_documented(name: str) -> None:
    package = importlib.import_module(name)
    assert package.__doc__
    assert list(package.__all__) == sorted(package.__all__)
    for public in package.__all__:
        assert (getattr(package, public).__doc__ or "").strip(), f"{name}.{public} has no docstring"


@pytest.mark.parametrize("name", PACKAGES[:3])
def test_an_unknown_name_is_an_attribute_error(name: str) -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = importlib.import_module(name).nothing


@pytest.mark.parametrize(
    "statement",
    [
        "import cocoon_proxy",
        "from cocoon_proxy import AsyncClient",
        "from cocoon_attestation import appraise",
    ],
)
def test_the_client_side_never_pulls_heavy_packages(statement: str) -> None:
    """In a fresh interpreter: no torch, no transformers, no web server, no command-line packages."""
    heavy = ["torch", "transformers", "starlette", "uvicorn", "click", "rich", "wasmtime"]
    code = f"{statement}\nimport sys, json\nprint(json.dumps([m for m in {heavy!r} if m in sys.modules]))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60)
    assert json.loads(result.stdout) == []


def test_command_help_imports_no_command() -> None:
    code = (
        "import sys, contextlib\nfrom cocoon_cli.__main__ import main\n"
        "with contextlib.suppress(SystemExit): main(['--help'])\n"
        "print('LOADED', [m for m in ('torch', 'pytoniq', 'grpc') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60)
    assert result.stdout.decode().rstrip().endswith("LOADED []")
