"""The documentation agrees with the code: links, command lines, generated help, snippets, named files."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest

from cocoon_cli.__main__ import cli

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
OWN_ROOTS = ("cocoon", "cocoon_attestation", "cocoon_ton", "cocoon_enclave", "cocoon_proxy", "cocoon_cli")
FOLDERS = (
    "attestation", "benchmarks", "cli", "docs", "enclave", "proto", "proxy", "tests", "ton_contracts",
)  # fmt: skip
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
SPAN = re.compile(r"`([^`\n]+)`")
REGISTRIES = re.compile(
    r"(?<![\w.-])(pypi\.org|files\.pythonhosted\.org|registry\.(npmjs|yarnpkg)\.(org|com)|npmmirror\.com"
    r"|proxy\.golang\.org|static\.crates\.io|index\.crates\.io)"
)
MACHINE_PATH = re.compile(r"(?<![\w.$}<-])(/root/|/home/\w+/|/Users/\w+/|/work/\w+|[A-Z]:\\\\?Users\\)")
PERSON = re.compile(
    r"[\w.+-]+@(?!example\.|.*\.example\b)[a-z0-9-]+\.[a-z]{2,}\b|^\W*@?authors?\s*[:=]|copyright \(c\)",
    re.IGNORECASE | re.MULTILINE,
)


def _listed(*patterns: str) -> tuple[Path, ...]:
    """Files that are tracked, or would be with the next commit."""
    result = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if result.returncode:
        pytest.skip("not a git checkout")
    names = sorted(filter(None, result.stdout.decode().split("\0")))
    return tuple(path for path in (ROOT / name for name in names) if path.is_file())


def _markdown() -> tuple[Path, ...]:
    """Every page of the repository, in a checkout or not."""
    own = [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]
    return tuple(sorted(path for path in own if path.is_file()))


PAGES = _markdown()


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _prose(path: Path) -> str:
    """The page without its code blocks."""
    return FENCE.sub("", _text(path))


# -- links ----------------------------------------------------------------------------------------


def _anchors(path: Path) -> set[str]:
    """Anchors of a page: explicit ones, and those that repository hosts make of headings."""
    text = _prose(path)
    found = set(re.findall(r'<a id="([^"]+)">', text))
    for heading in re.findall(r"^#+ +(.+)$", text, re.MULTILINE):
        words = re.sub(r"[^\w\- ]", "", re.sub(r"<[^>]+>", "", heading).strip().lower())
        found.add(words.replace(" ", "-"))
    return found


def _links(path: Path) -> Iterator[tuple[str, Path, str]]:
    for target in LINK.findall(_prose(path)):
        if "://" in target or target.startswith("mailto:"):
            continue
        file, _, anchor = target.partition("#")
        yield target, (path.parent / file).resolve() if file else path, anchor


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target, file, anchor in _links(page):
        assert file.exists(), f"{target}: no such file"
        assert file.is_relative_to(ROOT), f"{target}: leaves the repository"
        if anchor and file.suffix == ".md":
            assert anchor in _anchors(file), f"{target}: no such anchor"


def test_every_page_is_reachable_from_the_index() -> None:
    seen: set[Path] = set()
    waiting = [DOCS / "index.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md":
            continue
        seen.add(page)
        waiting += [file for _, file, _ in _links(page) if file.is_file()]
    missing = [_name(page) for page in PAGES if page.is_relative_to(DOCS) and page not in seen]
    assert missing == []


def test_the_specification_lists_its_pages() -> None:
    listed = {file.name for _, file, _ in _links(DOCS / "spec" / "index.md")}
    pages = {page.name for page in (DOCS / "spec").glob("*.md")} - {"index.md"}
    assert pages - listed == set(), "add them to docs/spec/index.md"


def test_pages_that_the_code_names_exist() -> None:
    """Docstrings, hints and `cocoon explain` send people to pages under docs/."""
    named = re.compile(r"docs/(?:spec|runbooks|adr)/[\w-]+\.md")
    missing = {
        f"{_name(path)}: {page}"
        for path in _listed("*.py", "*.tolk", "*.proto", "*.tlb", "*.toml", "*.md")
        for page in named.findall(_text(path))
        if not (ROOT / page).is_file()
    }
    assert missing == set()


# -- command lines --------------------------------------------------------------------------------


def _shell_lines(block: str) -> Iterator[str]:
    for line in block.replace("\\\n", " ").splitlines():
        for part in re.split(r"&&|\|\|?|;", re.sub(r"(^|\s)#.*", "", line)):
            yield part.strip().removeprefix("$ ").strip()


def _command_lines(page: Path) -> Iterator[str]:
    """Lines that begin with ``cocoon`` in shell blocks, and code spans that do."""
    for language, block in FENCE.findall(_text(page)):
        if language in {"sh", "console", "bash"}:
            yield from _shell_lines(block)
    for span in SPAN.findall(_prose(page)):
        yield span.removeprefix("$ ")
        yield from re.findall(r"\$\((cocoon [^)]*)\)", span)


def _cocoon_lines(page: Path) -> tuple[str, ...]:
    lines = (re.sub(r"^(?:[A-Z_]+=\S+ +)+", "", line) for line in _command_lines(page))
    return tuple(line for line in lines if line.startswith("cocoon ") and "…" not in line)


def check_command_line(line: str) -> None:
    """Parse a command line without running anything; raises `click.UsageError` or `ValueError`."""
    words = shlex.split(line)[1:]
    command: click.Command = cli
    context = click.Context(cli, info_name="cocoon", resilient_parsing=True)
    while isinstance(command, click.Group) and words:
        name, *rest = words
        if name in {"--help", "-h", "--version"}:
            return
        child = command.get_command(context, name)
        if child is None:
            raise click.UsageError(f"no command {name!r}")
        command, words = child, rest
        context = click.Context(child, info_name=name, parent=context)
    if isinstance(command, click.Group):
        return  # a group named in prose
    prose_only = not words  # `cocoon receipts export` in a sentence names the command and needs no argument
    values, left, _ = command.make_parser(context).parse_args(words)
    if left:
        raise click.UsageError(f"too many arguments: {left}")
    for parameter in command.params:
        given = values.get(parameter.name or "")
        absent = given is None or given == () or "UNSET" in repr(given)
        if absent and parameter.required and not prose_only:
            raise click.UsageError(f"{parameter.name} is missing")
        if not absent and not isinstance(parameter.type, click.Path) and not isinstance(given, bool):
            parameter.type_cast_value(context, given)


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_command_line_parses(page: Path) -> None:
    for line in _cocoon_lines(page):
        try:
            check_command_line(line)
        except (click.UsageError, ValueError) as error:
            pytest.fail(f"`{line}`: {error}")


@pytest.mark.parametrize(
    "line",
    [
        "cocoon fly",
        "cocoon verify bundle FILE --explian",
        "cocoon verify bundle FILE extra",
        "cocoon chat --max-tokens many",
        "cocoon completion csh",
        "cocoon receipts export --request FILE",
    ],
)
def test_wrong_command_lines_are_noticed(line: str) -> None:
    with pytest.raises(click.UsageError):
        check_command_line(line)


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart-app.md", "docs/quickstart-auditor.md"])
def test_there_are_command_lines_to_check(page: str) -> None:
    assert len(_cocoon_lines(ROOT / page)) >= 5


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", _text(ROOT / "Makefile"), re.MULTILINE))
    for page in PAGES:
        lines = [line for line in _command_lines(page) if line.startswith("make ")]
        for target in (line.split()[1] for line in lines if len(line.split()) > 1):
            assert target in targets, f"{_name(page)}: make {target}"


# -- generated and quoted parts -------------------------------------------------------------------


def _updater() -> ModuleType:
    spec = importlib.util.spec_from_file_location("update_readme", DOCS / "update_readme.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_command_line_in_the_readme_is_generated() -> None:
    readme = _text(ROOT / "README.md")
    assert _updater().updated(readme) == readme, "run: python docs/update_readme.py"


def test_a_readme_without_markers_is_an_error() -> None:
    with pytest.raises(ValueError, match="markers"):
        _updater().updated("# Cocoon\n")


def _python_blocks() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        for number, (language, block) in enumerate(FENCE.findall(_text(page))):
            if language == "python":
                yield f"{_name(page)}:{number}", block


PYTHON_BLOCKS = dict(_python_blocks())


@pytest.mark.parametrize("name", PYTHON_BLOCKS)
def test_python_examples_compile_and_import_what_exists(name: str) -> None:
    block = PYTHON_BLOCKS[name]
    tree = compile(block, name, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    assert isinstance(tree, ast.Module)
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or (node.module or "").split(".")[0] not in OWN_ROOTS:
            continue
        module = importlib.import_module(node.module or "")
        for alias in node.names:
            assert hasattr(module, alias.name), f"{node.module} has no {alias.name}"


def _named_paths(page: Path) -> Iterator[str]:
    for span in SPAN.findall(_prose(page)):
        if re.fullmatch(rf"(?:{'|'.join(FOLDERS)})/[\w./*-]*", span):
            yield span


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_named_file_exists(page: Path) -> None:
    missing = [path for path in _named_paths(page) if not any(ROOT.glob(path.rstrip("/")))]
    assert missing == []


def test_every_attack_names_a_test_or_says_that_there_is_none() -> None:
    rows = re.findall(r"^\| (A\d+) \|.*\| ([^|]*) \|$", _text(DOCS / "threat-model.md"), re.MULTILINE)
    assert [name for name, _ in rows] == [f"A{number}" for number in range(1, 25)]
    for name, where in rows:
        assert "`tests/" in where or "not yet" in where or "there is no" in where, name
    attacks = {path.name for path in (ROOT / "tests" / "attacks").glob("test_*.py")}
    named = set(re.findall(r"tests/attacks/(test_\w+\.py)", _text(DOCS / "threat-model.md")))
    assert attacks == named, "docs/threat-model.md names every file of tests/attacks"


# -- what must not be in the repository -----------------------------------------------------------


def _text_files() -> Iterator[tuple[Path, str]]:
    for path in _listed():
        data = path.read_bytes()
        if b"\0" in data or path.suffix in {".der", ".boc", ".png"}:
            continue
        yield path, data.decode("utf-8", errors="replace")


@pytest.mark.parametrize(
    ("what", "pattern"),
    [("machine path", MACHINE_PATH), ("registry host", REGISTRIES), ("person", PERSON)],
)
def test_no_trace_of_a_machine_a_registry_or_a_person(what: str, pattern: re.Pattern[str]) -> None:
    here = Path(__file__).resolve()
    found = [
        f"{_name(path)}: {what} {match.group()!r}"
        for path, text in _text_files()
        if path != here
        for match in pattern.finditer(text)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (MACHINE_PATH, "see /home/somebody/notes"),
        (MACHINE_PATH, "path = '/root/x'"),
        (REGISTRIES, "https://pypi.org/simple"),
        (PERSON, "mail a.person@somewhere.org"),
        (PERSON, "# Author: A Person"),
    ],
)
def test_the_patterns_find_what_they_are_for(pattern: re.Pattern[str], text: str) -> None:
    assert pattern.search(text)


def test_no_checkout_path_is_written_down() -> None:
    """The folder that this checkout lies in is not named anywhere in it."""
    if len(ROOT.parts) < 3:
        pytest.skip("the checkout lies too close to the root to tell")
    needle = os.fspath(ROOT)
    assert [_name(path) for path, text in _text_files() if needle in text] == []
