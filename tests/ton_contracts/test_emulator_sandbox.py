"""Finding, checking and compiling the npm package; where files go."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import wasmtime

from cocoon_attestation.errors import UnsupportedError
from cocoon_ton import paths
from cocoon_ton.emulator import find_sandbox, modules, sandbox
from cocoon_ton.emulator.host import Host
from cocoon_ton.emulator.modules import compile_modules
from cocoon_ton.emulator.sandbox import Sandbox, load_sandbox

FILES = (
    "package.json",
    "dist/executor/emulator-emscripten.js",
    "dist/executor/emulator-emscripten.wasm.js",
    "dist/config/slimConfig.js",
    "dist/config/defaultConfig.js",
)


@pytest.fixture(scope="module")
def installed() -> Path:
    try:
        return find_sandbox()
    except UnsupportedError as error:
        pytest.skip(str(error))


@pytest.fixture
def copy(installed: Path, tmp_path: Path) -> Path:
    """A private copy of the files that are read."""
    for name in FILES:
        target = tmp_path / "sandbox" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(installed / name, target)
    return tmp_path / "sandbox"


class TestPaths:
    def test_environment(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("COCOON_HOME", str(tmp_path / "home"))
        monkeypatch.setenv("COCOON_CACHE", str(tmp_path / "cache"))
        assert paths.home_dir() == tmp_path / "home"
        assert paths.cache_dir() == tmp_path / "cache"

    @pytest.mark.parametrize("value", [None, ""])
    def test_defaults(self, monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
        for name in ("COCOON_HOME", "COCOON_CACHE"):
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        assert paths.home_dir() == Path.home() / ".local/share/cocoon"
        assert paths.cache_dir() == Path.home() / ".cache/cocoon"

    def test_relative_becomes_absolute(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("COCOON_HOME", "here")
        assert paths.home_dir() == tmp_path / "here"


class TestSandbox:
    def test_contents(self, installed: Path) -> None:
        found = load_sandbox(installed)
        assert found.version == sandbox.PINNED_VERSION
        assert found.wasm.startswith(b"\0asm")
        assert found.wasm_sha256 == sandbox.PINNED_WASM_SHA256
        assert {"_malloc", "_emulate_with_emulator", "_run_get_method", "memory"} <= set(found.exports)
        assert len(found.config("slim")) < len(found.config("default"))

    def test_absent(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(sandbox, "sandbox_locations", lambda: (tmp_path / "a", tmp_path / "b"))
        with pytest.raises(UnsupportedError) as caught:
            find_sandbox()
        assert "make setup" in caught.value.hint
        assert caught.value.exit_code == 20

    def test_cache_is_the_second_place(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, copy: Path
    ) -> None:
        monkeypatch.setenv("COCOON_CACHE", str(copy.parent))
        assert sandbox.sandbox_locations()[1] == copy
        assert load_sandbox(copy).wasm_sha256 == sandbox.PINNED_WASM_SHA256

    def test_changed_wasm_is_refused(self, copy: Path) -> None:
        path = copy / FILES[2]
        text = path.read_text("ascii")
        path.write_text(text[:200] + ("A" if text[200] != "A" else "B") + text[201:], "ascii")
        with pytest.raises(UnsupportedError, match="unknown emulator"):
            load_sandbox(copy)

    @pytest.mark.parametrize("name", FILES)
    def test_damaged_files(self, copy: Path, name: str) -> None:
        (copy / name).write_text("nothing of use", "ascii")
        with pytest.raises(UnsupportedError):
            load_sandbox(copy)
        (copy / name).unlink()
        with pytest.raises(UnsupportedError):
            load_sandbox(copy)


def _with_imports(found: Sandbox, imports: dict[str, str]) -> Sandbox:
    return Sandbox(
        version=found.version,
        wasm=found.wasm,
        wasm_sha256=found.wasm_sha256,
        imports=imports,
        exports=found.exports,
        init=found.init,
        configs=found.configs,
    )


class TestModules:
    def test_cached_files(self, installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        compiled: list[int] = []
        real = wasmtime.Module

        class Counting(real):  # type: ignore[misc, valid-type]
            def __init__(self, engine: object, source: object) -> None:
                compiled.append(1)
                super().__init__(engine, source)

        # only the two small modules: the emulator itself takes seconds
        small = [b'(module (func (export "a")))', b'(module (func (export "b")))']
        monkeypatch.setattr(wasmtime, "Module", Counting)
        engine = modules._engine()
        for source in small * 2:
            modules._cached(engine, tmp_path / "wasm", source)
        assert len(compiled) == 2
        files = sorted((tmp_path / "wasm").iterdir())
        assert len(files) == 2
        assert all(file.suffix == ".cwasm" and file.stat().st_mode & 0o77 == 0 for file in files)

    @pytest.mark.skipif(sys.platform == "win32", reason="POSIX file modes")
    @pytest.mark.parametrize("fault", ["file", "directory", "content"])
    def test_untrusted_cache_is_not_run(self, tmp_path: Path, fault: str) -> None:
        engine, source, cache = modules._engine(), b'(module (func (export "a")))', tmp_path / "wasm"
        modules._cached(engine, cache, source)
        (file,) = cache.iterdir()
        if fault == "content":
            file.write_bytes(b"not machine code")
        elif fault == "file":
            file.chmod(0o666)
        else:
            cache.chmod(0o777)
        assert modules._is_private(file) is (fault == "content")
        module = modules._cached(engine, cache, source)
        assert [export.name for export in module.exports] == ["a"]

    def test_read_only_cache_is_no_obstacle(self, tmp_path: Path) -> None:
        (tmp_path / "wasm").write_text("a file where the directory should be")
        module = modules._cached(modules._engine(), tmp_path / "wasm", b"(module)")
        assert list(module.exports) == []

    def test_unknown_import_is_refused(self, installed: Path) -> None:
        found = load_sandbox(installed)
        compiled = compile_modules(found)
        renamed = dict(found.imports)
        victim = next(short for short, name in renamed.items() if name == "_fd_close")
        renamed[victim] = "_launch_missiles"
        with pytest.raises(UnsupportedError, match="_launch_missiles"):
            Host(_with_imports(found, renamed), compiled)
        del renamed[victim]
        with pytest.raises(UnsupportedError, match="does not name"):
            modules._invoke_signatures(compiled.main, _with_imports(found, renamed))
