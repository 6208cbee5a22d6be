"""One running instance of the emulator wasm, with the parts of emscripten's runtime that it needs.

Three groups of imports are implemented here: C++ exceptions (`_Exceptions`), the few system calls that
OpenSSL and libc make (`_System`), and memory growth. Every other import of the module is a file-system
or locale call that the emulator never makes; it answers ENOSYS. An import that is in none of these
lists is refused when the module loads.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable
from typing import Any, Final

import wasmtime

from cocoon_attestation.errors import UnsupportedError
from cocoon_ton.emulator.errors import EmulatorError
from cocoon_ton.emulator.modules import Modules, compile_modules
from cocoon_ton.emulator.sandbox import Sandbox, load_sandbox

_U32: Final = 0xFFFFFFFF
_ENOSYS: Final = -52
_ENOENT: Final = -44
_RANDOM_FD: Final = 7
_SHIMMED: Final = {
    "___cxa_throw": "throw",
    "___resumeException": "resume",
    "___cxa_rethrow": "rethrow",
    "_clock_time_get": "clock",
}
"""Imports that the shim serves, and the names of its exports."""
_UNUSED: Final = frozenset(
    (
        *("___syscall_fcntl64", "___syscall_getdents64", "___syscall_ioctl", "___syscall_lstat64"),
        *("___syscall_newfstatat", "___syscall_stat64"),
        *("__emscripten_log_formatted", "__gmtime_js", "__localtime_js", "__munmap_js", "__tzset_js"),
        *("_environ_get", "_fd_close", "_fd_seek"),
    )
)
# struct __cxa_exception before the thrown object: type, destructor, caught, rethrown, adjusted pointer
_HEADER, _TYPE, _DESTRUCTOR, _CAUGHT, _RETHROWN, _ADJUSTED = 24, 4, 8, 12, 13, 16


class Memory:
    """Linear memory of an instance. Addresses are unsigned 32-bit."""

    def __init__(self, store: wasmtime.Store, memory: wasmtime.Memory) -> None:
        self._store = store
        self._memory = memory

    def _at(self, address: int) -> int:
        # looked up on every access: the memory may have moved when it grew
        return ctypes.addressof(self._memory.data_ptr(self._store).contents) + (address & _U32)

    def u32(self, address: int) -> int:
        """Read 4 bytes, little-endian."""
        return ctypes.c_uint32.from_address(self._at(address)).value

    def set_u32(self, address: int, value: int) -> None:
        """Write 4 bytes, little-endian."""
        ctypes.c_uint32.from_address(self._at(address)).value = value & _U32

    def u8(self, address: int) -> int:
        """Read one byte."""
        return ctypes.c_uint8.from_address(self._at(address)).value

    def set_u8(self, address: int, value: int) -> None:
        """Write one byte."""
        ctypes.c_uint8.from_address(self._at(address)).value = value

    def string(self, address: int) -> bytes:
        """The bytes up to the next zero."""
        return ctypes.string_at(self._at(address))

    def write(self, address: int, data: bytes) -> None:
        """Copy bytes in."""
        ctypes.memmove(self._at(address), data, len(data))

    @property
    def size(self) -> int:
        """Bytes of memory."""
        return int(self._memory.data_len(self._store))

    def grow_to(self, size: int) -> bool:
        """Grow to at least `size` bytes, with a fifth (at most 96 MiB) of room to spare."""
        current = self._memory.data_len(self._store)
        wanted = max(size, min(current + current // 5, size + (96 << 20)))
        try:
            self._memory.grow(self._store, (wanted - current + 0xFFFF) >> 16)
        except wasmtime.WasmtimeError:
            return False
        return True


class Host:
    """A loaded emulator. Thread-safe: one call at a time."""

    def __init__(self, sandbox: Sandbox, modules: Modules) -> None:
        self._sandbox = sandbox
        self._store = wasmtime.Store(modules.engine)
        self._lock = threading.Lock()
        self._dead = False
        self._garbage: list[tuple[str, int]] = []
        self._last = 0
        self._caught: list[int] = []
        self._uncaught = 0
        self._exports = self._instantiate(modules)
        self.memory = Memory(self._store, self._exports[sandbox.exports["memory"]])
        function = {name: self._func(export) for name, export in sandbox.exports.items() if name[0] == "_"}
        self._malloc, self._free = function["_malloc"], function["_free"]
        self._set_threw = function["_setThrew"]
        self._set_temp = function["__emscripten_tempret_set"]
        self._increment = function["___cxa_increment_exception_refcount"]
        self._decrement = function["___cxa_decrement_exception_refcount"]
        self._can_catch = function["___cxa_can_catch"]
        self._exception_pointer = function["___cxa_get_exception_ptr"]
        self._function = function
        self._func(sandbox.init)()  # C++ constructors

    # ---- calls from outside

    def call_text(self, name: str, *arguments: str | int) -> str:
        """Call export `name`; strings are copied in, the returned C string is copied out and freed.

        Raises EmulatorError if the code trapped; the instance is of no use after that (`dead`).
        """
        with self._lock:
            pointer = self._call(name, arguments)
            text = self.memory.string(pointer)
            self._garbage.append(("_free", pointer))
        return text.decode("utf-8", "replace")

    def call_int(self, name: str, *arguments: str | int) -> int:
        """Like `call_text` for an export that returns a number."""
        with self._lock:
            return self._call(name, arguments)

    def discard(self, name: str, pointer: int) -> None:
        """Let the next call begin with ``name(pointer)``. Safe in finalizers: takes no lock."""
        self._garbage.append((name, pointer))

    @property
    def dead(self) -> bool:
        """Whether the code trapped, which leaves its memory in an unknown state."""
        return self._dead

    def _call(self, name: str, arguments: tuple[str | int, ...]) -> int:
        if self._dead:
            raise EmulatorError("the emulator instance trapped before")
        self._dead = True  # until the call has come back
        try:
            while self._garbage:
                release, pointer = self._garbage.pop()
                self._function[release](pointer)
            self._now.set_value(self._store, time.time_ns())
            values = [self._put(a) if isinstance(a, str) else a for a in arguments]
            result = int(self._function[name](*values) or 0)
            for argument, value in zip(arguments, values, strict=True):
                if isinstance(argument, str):
                    self._free(value)
        except (wasmtime.Trap, wasmtime.WasmtimeError) as error:
            raise EmulatorError(f"the emulator trapped: {str(error).splitlines()[0]}") from error
        self._dead = False
        return result

    def _put(self, text: str) -> int:
        data = text.encode() + b"\0"
        pointer = int(self._malloc(len(data)))
        self.memory.write(pointer, data)
        return pointer

    # ---- loading

    def _func(self, export: str) -> Callable[..., Any]:
        function, store = self._exports[export], self._store
        return lambda *arguments: function(store, *arguments)

    def _instantiate(self, modules: Modules) -> Any:
        store, names = self._store, self._sandbox.imports
        i32 = wasmtime.ValType.i32()
        hooks = [
            wasmtime.Func(store, wasmtime.FuncType([i32] * count, []), hook)
            for count, hook in ((3, self._on_throw), (1, self._on_resume), (0, self._on_rethrow))
        ]
        shim: Any = wasmtime.Instance(store, modules.invoke, hooks).exports(store)
        self._now: wasmtime.Global = shim["now"]
        imports = []
        for item in modules.main.imports:
            if item.name is None or not isinstance(item.type, wasmtime.FuncType):
                raise UnsupportedError("the emulator has an import that is no function")
            name = names[item.name]
            if name.startswith("invoke_"):
                imports.append(shim[f"inv_{item.name}"])
            elif name in _SHIMMED:
                imports.append(shim[_SHIMMED[name]])
            else:
                imports.append(wasmtime.Func(store, item.type, self._import(name, bool(item.type.results))))
        exports: Any = wasmtime.Instance(store, modules.main, imports).exports(store)
        get = self._sandbox.exports
        table = exports[get["__indirect_function_table"]]
        helpers = ("_emscripten_stack_get_current", "__emscripten_stack_restore", "_setThrew", "memory")
        filler = wasmtime.Instance(
            store, modules.table, [shim["T"], table, *(exports[get[name]] for name in helpers)]
        )
        fill: Any = filler.exports(store)["fill"]
        fill(store, table.size(store))
        return exports

    def _import(self, name: str, has_result: bool) -> Callable[..., Any]:
        if name.startswith("___cxa_find_matching_catch_"):
            return self._find_matching_catch
        known: dict[str, Callable[..., Any]] = {
            "___cxa_begin_catch": self._begin_catch,
            "___cxa_end_catch": self._end_catch,
            "___cxa_uncaught_exceptions": lambda: self._uncaught,
            "_llvm_eh_typeid_for": lambda type_id: type_id,
            "___syscall_openat": self._openat,
            "___syscall_fstat64": self._fstat,
            "_fd_read": self._fd_read,
            "_fd_write": self._fd_write,
            "_random_get": self._random_get,
            "_environ_sizes_get": self._environ_sizes_get,
            "_emscripten_date_now": lambda: time.time() * 1000,
            "_emscripten_asm_const_int": lambda *_: int.from_bytes(os.urandom(3), "little"),
            "_emscripten_get_heap_max": lambda: -(1 << 31),
            "_emscripten_resize_heap": lambda size: int(self.memory.grow_to(size & _U32)),
            "__abort_js": self._abort,
        }
        if name in known:
            return known[name]
        if name in _UNUSED:
            return lambda *_: _ENOSYS if has_result else None
        raise UnsupportedError(f"the emulator imports {name}, which this host does not know")

    # ---- C++ exceptions (emscripten's library_exceptions.js)

    def _on_throw(self, thrown: int, type_info: int, destructor: int) -> None:
        header = thrown - _HEADER
        self.memory.set_u32(header + _ADJUSTED, 0)
        self.memory.set_u32(header + _TYPE, type_info)
        self.memory.set_u32(header + _DESTRUCTOR, destructor)
        self._last = thrown
        self._uncaught += 1

    def _on_resume(self, thrown: int) -> None:
        self._last = self._last or thrown

    def _on_rethrow(self) -> None:
        thrown = self._caught.pop()
        header = thrown - _HEADER
        if not self.memory.u8(header + _RETHROWN):
            self._caught.append(thrown)
            self.memory.set_u8(header + _RETHROWN, 1)
            self.memory.set_u8(header + _CAUGHT, 0)
            self._uncaught += 1
        self._last = thrown

    def _begin_catch(self, thrown: int) -> int:
        header = thrown - _HEADER
        if not self.memory.u8(header + _CAUGHT):
            self.memory.set_u8(header + _CAUGHT, 1)
            self._uncaught -= 1
        self.memory.set_u8(header + _RETHROWN, 0)
        self._caught.append(thrown)
        self._increment(thrown)
        return int(self._exception_pointer(thrown))

    def _end_catch(self) -> None:
        self._set_threw(0, 0)
        self._decrement(self._caught.pop())
        self._last = 0

    def _find_matching_catch(self, *candidates: int) -> int:
        thrown = self._last
        if not thrown:
            self._set_temp(0)
            return 0
        header = thrown - _HEADER
        self.memory.set_u32(header + _ADJUSTED, thrown)
        thrown_type = self.memory.u32(header + _TYPE)
        for candidate in candidates if thrown_type else ():
            if candidate in (0, thrown_type):
                break
            if self._can_catch(candidate, thrown_type, header + _ADJUSTED):
                self._set_temp(candidate)
                return thrown
        self._set_temp(thrown_type)
        return thrown

    # ---- system

    def _openat(self, _directory: int, path: int, _flags: int, _mode: int) -> int:
        # OpenSSL reads random bytes; without them P-256 checks answer false with no message
        return _RANDOM_FD if self.memory.string(path) in (b"/dev/urandom", b"/dev/random") else _ENOENT

    def _fstat(self, _descriptor: int, target: int) -> int:
        self.memory.write(target, bytes(96))
        self.memory.set_u32(target, 1)  # st_dev
        self.memory.set_u32(target + 4, 0o020666)  # st_mode: a character device
        self.memory.set_u32(target + 88, 9)  # st_ino
        return 0

    def _fd_read(self, _descriptor: int, vectors: int, count: int, total: int) -> int:
        done = 0
        for index in range(count):
            address, length = self.memory.u32(vectors + 8 * index), self.memory.u32(vectors + 8 * index + 4)
            self.memory.write(address, os.urandom(length))
            done += length
        self.memory.set_u32(total, done)
        return 0

    def _fd_write(self, _descriptor: int, vectors: int, count: int, total: int) -> int:
        # messages of the C++ logger: dropped
        self.memory.set_u32(total, sum(self.memory.u32(vectors + 8 * i + 4) for i in range(count)))
        return 0

    def _random_get(self, target: int, length: int) -> int:
        self.memory.write(target, os.urandom(length))
        return 0

    def _environ_sizes_get(self, count: int, size: int) -> int:
        self.memory.set_u32(count, 0)
        self.memory.set_u32(size, 0)
        return 0

    def _abort(self) -> None:
        raise wasmtime.WasmtimeError("abort")


_shared: Host | None = None
_shared_lock = threading.Lock()


def shared_host() -> Host:
    """The emulator instance of this process; a new one after a trap. 0.1 s the first time."""
    global _shared
    with _shared_lock:
        if _shared is None or _shared.dead:
            sandbox = load_sandbox()
            _shared = Host(sandbox, compile_modules(sandbox))
        return _shared
