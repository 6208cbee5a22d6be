"""`cocoon explain CODE`: what an error code or a check id means and what to do."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator

import click

from cocoon_attestation.errors import CocoonError, UnsupportedError
from cocoon_cli.check_words import CHECK_WORDS
from cocoon_cli.options import common_options

_ERROR_MODULES = ("cocoon_ton.errors", "cocoon_enclave.errors", "cocoon_proxy.errors")


def error_classes() -> dict[str, type[CocoonError]]:
    """Every error class of the installed packages, by code."""
    for module in _ERROR_MODULES:
        try:
            importlib.import_module(module)
        except (ImportError, UnsupportedError):
            continue  # an extra is not installed; its codes cannot occur here either
    return {cls.code: cls for cls in _subclasses(CocoonError)}


def _subclasses(cls: type[CocoonError]) -> Iterator[type[CocoonError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from _subclasses(child)


def explanation(code: str) -> dict[str, object] | None:
    """The document for one code, or None if nobody uses it."""
    from cocoon_attestation.rules import RULES

    if code in RULES:
        rule = RULES[code]
        return {
            "code": code,
            "kind": "check",
            "meaning": rule.rule,
            "source": rule.source,
            "spec": rule.spec,
        }
    if code in CHECK_WORDS:
        words, spec = CHECK_WORDS[code]
        return {
            "code": code,
            "kind": "check",
            "meaning": words,
            "source": "Cocoon protocol v1",
            "spec": spec,
        }
    cls = error_classes().get(code)
    if cls is None:
        return None
    return {
        "code": code,
        "kind": "error",
        "meaning": " ".join((inspect.getdoc(cls) or "").split()),
        "hint": cls.default_hint,
        "exit_code": cls.exit_code,
        "http_status": cls.http_status,
        "grpc_status": cls.grpc_status,
    }


@click.command()
@click.argument("code", required=False)
@common_options
def explain(code: str | None, as_json: bool) -> None:
    """Explain CODE: an error code (evidence_rejected) or a check id (tdx.tcb). Without CODE: list all."""
    from cocoon_attestation.rules import RULES
    from cocoon_cli.output import out, print_json, table

    if code is None:
        codes = sorted(error_classes()) + sorted(RULES.keys() | CHECK_WORDS.keys())
        if as_json:
            print_json({"codes": codes})
        else:
            table("Codes", ["code"], [(c,) for c in codes])
        return
    document = explanation(code)
    if document is None:
        raise click.UsageError(f"nothing is called {code!r}; `cocoon explain` lists all codes")
    if as_json:
        print_json(document)
        return
    for key, value in document.items():
        if value != "":
            out().print(f"[bold]{key:>12}[/]  {value}")
