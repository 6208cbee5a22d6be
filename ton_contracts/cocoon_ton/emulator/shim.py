"""WebAssembly glue that gives the emulator C++ exceptions without JavaScript.

The emulator was built with emscripten's JavaScript exceptions: every call that may throw goes through
an imported ``invoke_*`` function, which is meant to catch a JavaScript exception. Catching in Python
would cross the language border for each such call (about 80 µs). The shim catches inside wasm
instead, with the exception-handling instructions (``try_table``/``throw``), so Python only sees real
throws. The clock is here for the same reason: TON's code asks for the time with every cell it reads.

Layout of the shim's table: slots 0-2 hold the emulator's ``stack_get_current``, ``stack_restore`` and
``setThrew``, slot 3 stores 8 bytes in the emulator's memory; slot ``i + 4`` is slot ``i`` of the emulator's
own table. It is filled after the emulator exists, by `table_wat`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

SHIM_SLOTS = 4


def invoke_wat(signatures: Mapping[str, tuple[Sequence[str], Sequence[str]]]) -> str:
    """Text of the shim module.

    `signatures` maps an import name to the types of its parameters and results. Exports: table ``T``,
    ``throw``/``resume``/``rethrow`` (call the host function of that name, then throw), ``clock`` (WASI's
    ``clock_time_get``: what the host last wrote to the global ``now``, in ns), and one ``inv_NAME`` for each
    signature.
    """
    parts = [
        "(module",
        '(import "h" "throw" (func $on_throw (param i32 i32 i32)))',
        '(import "h" "resume" (func $on_resume (param i32)))',
        '(import "h" "rethrow" (func $on_rethrow))',
        f'(table $T (export "T") {SHIM_SLOTS} funcref) (tag $thrown)',
        "(type $get (func (result i32))) (type $restore (func (param i32)))",
        "(type $threw (func (param i32 i32))) (type $store (func (param i32 i64)))",
        '(global $now (export "now") (mut i64) (i64.const 0))',
        '(func (export "clock") (param i32 i64 i32) (result i32)',
        "(call_indirect $T (type $store) (local.get 2) (global.get $now) (i32.const 3)) (i32.const 0))",
        '(func (export "throw") (param i32 i32 i32)',
        "(call $on_throw (local.get 0) (local.get 1) (local.get 2)) (throw $thrown))",
        '(func (export "resume") (param i32) (call $on_resume (local.get 0)) (throw $thrown))',
        '(func (export "rethrow") (call $on_rethrow) (throw $thrown))',
    ]
    parts += [_invoke(name, params, results) for name, (params, results) in signatures.items()]
    return "\n".join(parts) + ")"


def _invoke(name: str, params: Sequence[str], results: Sequence[str]) -> str:
    """``invoke_*``: call slot param0 with the rest; on a throw restore the stack and set the flag."""
    declared = f"(param {' '.join(params)})"
    inner = f"(param {' '.join(params[1:])})" if len(params) > 1 else ""
    result = f"(result {results[0]})" if results else ""
    default = f"({results[0]}.const 0)" if results else ""
    arguments = " ".join(f"(local.get {i})" for i in range(1, len(params)))
    slot = f"(i32.add (local.get 0) (i32.const {SHIM_SLOTS}))"
    return (
        f'(func (export "inv_{name}") {declared} {result} (local $sp i32)'
        "(local.set $sp (call_indirect $T (type $get) (i32.const 0)))"
        f"(block $h (try_table {result} (catch_all $h)"
        f"(call_indirect $T {inner} {result} {arguments} {slot})) (return))"
        "(call_indirect $T (type $restore) (local.get $sp) (i32.const 1))"
        f"(call_indirect $T (type $threw) (i32.const 1) (i32.const 0) (i32.const 2)) {default})"
    )


def table_wat() -> str:
    """Module that fills the shim's table: ``fill(n)`` with the four functions and n slots."""
    return f"""(module
      (import "shim" "T" (table $shim {SHIM_SLOTS} funcref))
      (import "main" "T" (table $main 0 funcref))
      (import "main" "get" (func $get (result i32)))
      (import "main" "restore" (func $restore (param i32)))
      (import "main" "threw" (func $threw (param i32 i32)))
      (import "main" "memory" (memory 0))
      (elem declare func $get $restore $threw $store)
      (func $store (param i32 i64) (i64.store (local.get 0) (local.get 1)))
      (func (export "fill") (param $n i32)
        (drop (table.grow $shim (ref.null func) (local.get $n)))
        (table.set $shim (i32.const 0) (ref.func $get))
        (table.set $shim (i32.const 1) (ref.func $restore))
        (table.set $shim (i32.const 2) (ref.func $threw))
        (table.set $shim (i32.const 3) (ref.func $store))
        (table.copy $shim $main (i32.const {SHIM_SLOTS}) (i32.const 0) (local.get $n))))"""
