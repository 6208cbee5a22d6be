"""Small changes to Python functions, made on the syntax tree, and how to put one into a loaded module.

Changed are comparisons, boolean and arithmetic operators, conditions, numbers, returned values, raised errors
and calls made for their effect. Texts are not changed (messages are for people), nor what stands outside of
functions, because other modules have already copied it.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import FunctionType, ModuleType
from typing import Any, Final

_COMPARISONS: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_OPERATORS: Final[dict[type[ast.operator], type[ast.operator]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.Mult: ast.FloorDiv,
    ast.LShift: ast.RShift,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One change of one module."""

    line: int
    column: int
    function: str
    """Qualified name of the function that is changed."""
    change: str
    """What became what, for people."""
    tree: ast.Module


def mutants(source: str) -> list[Mutant]:
    """Every mutant of a module, in the order of the text."""
    tree = ast.parse(source)
    found: list[Mutant] = []
    for function, name in _functions(tree):
        for node in _nodes(function):
            for change, replacement in _changes(node):
                if replacement is not None and ast.dump(replacement) == ast.dump(node):
                    continue
                found.append(
                    Mutant(
                        line=getattr(node, "lineno", 0),
                        column=getattr(node, "col_offset", 0),
                        function=name,
                        change=change,
                        tree=_replaced(tree, node, replacement),
                    )
                )
    return _numbered(sorted(found, key=lambda mutant: (mutant.line, mutant.column)))


def _numbered(found: list[Mutant]) -> list[Mutant]:
    """The same change at several places of one function: from the second on with a number."""
    seen: Counter[tuple[str, str]] = Counter()
    result = []
    for mutant in found:
        seen[mutant.function, mutant.change] += 1
        number = seen[mutant.function, mutant.change]
        result.append(replace(mutant, change=f"{mutant.change} ({number})") if number > 1 else mutant)
    return result


def _functions(tree: ast.Module) -> Iterator[tuple[ast.FunctionDef, str]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield node, node.name
        elif isinstance(node, ast.ClassDef):
            yield from (
                (part, f"{node.name}.{part.name}")
                for part in node.body
                if isinstance(part, ast.FunctionDef)
            )


def _nodes(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """Nodes of the body; nothing inside of formatted texts, annotations or type checks of the reader."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        if _is_text(node):
            continue
        yield node
        skipped = {id(getattr(node, "annotation", None)), id(getattr(node, "returns", None))}
        waiting += [child for child in ast.iter_child_nodes(node) if id(child) not in skipped]


def _is_text(node: ast.AST) -> bool:
    """A text with values in it, or a choice between texts: what a message says is not judged here."""
    if isinstance(node, ast.IfExp):
        return _is_text(node.body) or _is_text(node.orelse)
    if isinstance(node, ast.BoolOp):
        return any(map(_is_text, node.values))
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str)
    )


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST | None]]:
    """Descriptions and replacements; None deletes a statement."""
    text = ast.unparse(node)[:60].replace("\n", " ") if isinstance(node, ast.expr | ast.stmt) else ""
    if isinstance(node, ast.Compare):
        for position, operator in enumerate(node.ops):
            other = _COMPARISONS[type(operator)]
            changed = copy.deepcopy(node)
            changed.ops[position] = other()
            yield f"{text}: {type(operator).__name__} -> {other.__name__}", changed
    elif isinstance(node, ast.BoolOp):
        changed_bool = copy.deepcopy(node)
        changed_bool.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield f"{text}: and <-> or", changed_bool
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield f"{text}: not dropped", node.operand
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        changed_bin = copy.deepcopy(node)
        changed_bin.op = _OPERATORS[type(node.op)]()
        yield f"{text}: {type(node.op).__name__} -> {type(changed_bin.op).__name__}", changed_bin
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int):
        value = not node.value if isinstance(node.value, bool) else node.value + 1
        yield f"{node.value} -> {value}", ast.Constant(value)
    elif isinstance(node, ast.If | ast.IfExp):
        changed_if = copy.deepcopy(node)
        changed_if.test = ast.UnaryOp(op=ast.Not(), operand=changed_if.test)
        yield f"if {ast.unparse(node.test)[:50]}: negated", changed_if
    elif isinstance(node, ast.Return) and node.value is not None:
        if not (
            isinstance(node.value, ast.Constant) and (node.value.value is None or node.value.value is False)
        ):
            yield f"{text}: None returned", ast.Return(ast.Constant(None))
    elif isinstance(node, ast.Raise) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)):
        yield f"{text}: deleted", None


def _replaced(tree: ast.Module, node: ast.AST, replacement: ast.AST | None) -> ast.Module:
    """A copy of `tree` in which `node` is replaced."""
    path = _path(tree, node)
    result = copy.deepcopy(tree)
    parent: Any = result
    for name, index in path[:-1]:
        parent = getattr(parent, name) if index is None else getattr(parent, name)[index]
    new = ast.Pass() if replacement is None else copy.deepcopy(replacement)
    name, index = path[-1]
    if index is None:
        setattr(parent, name, new)
    else:
        getattr(parent, name)[index] = new
    return ast.fix_missing_locations(result)


def _path(tree: ast.AST, wanted: ast.AST) -> list[tuple[str, int | None]]:
    for name, value in ast.iter_fields(tree):
        children = list(enumerate(value)) if isinstance(value, list) else [(None, value)]
        for index, child in children:
            if child is wanted:
                return [(name, index)]
            if isinstance(child, ast.AST):
                rest = _path(child, wanted)
                if rest:
                    return [(name, index), *rest]
    return []


def install(module: ModuleType, mutant: Mutant) -> None:
    """Change the mutated function of a loaded module in place, wherever it was imported to.

    Raises:
        LookupError: the module has no such function.
    """
    code = compile(mutant.tree, str(module.__file__), "exec", dont_inherit=True)
    fresh: dict[str, Any] = {"__name__": module.__name__, "__package__": module.__package__}
    exec(code, fresh)
    target, source = _lookup(vars(module), mutant.function), _lookup(fresh, mutant.function)
    target.__code__ = source.__code__


def _lookup(namespace: dict[str, Any], name: str) -> FunctionType:
    first, _, last = name.partition(".")
    found: Any = namespace[first]
    if last:
        found = vars(found)[last]
    found = getattr(found, "fget", None) or getattr(found, "__func__", None) or found
    found = getattr(found, "__wrapped__", found)
    if not isinstance(found, FunctionType):
        raise LookupError(name)
    return found
