"""Dictionaries of ``block.tlb``: plain ``Hashmap`` and persistent ``HashmapAug``.

An `AugDict` is immutable. `set` and `delete` make a new one that shares all nodes off the path to the
key, so a block that changes a few of 10 000 accounts makes a few dozen cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, cast

from pytoniq_core import Builder, Cell, begin_cell

from cocoon_ton.devnet.cells import Path

V = TypeVar("V")
Vin = TypeVar("Vin", contravariant=True)
X = TypeVar("X")


class Augmentation(Protocol[Vin, X]):
    """How values and extras of one dictionary type are written and summed."""

    def extra_of(self, value: Vin) -> X:
        """The extra of a leaf."""

    def merge(self, left: X, right: X) -> X:
        """The extra of a fork."""

    def store_extra(self, builder: Builder, extra: X) -> None:
        """Append an extra."""

    def store_value(self, builder: Builder, value: Vin) -> None:
        """Append a value."""


def label_bits(label: str, size: int) -> str:
    """``HmLabel ~l size`` in its shortest form; of equal ones short before long before same."""
    width, length = size.bit_length(), len(label)
    count = format(length, f"0{width}b") if width else ""
    forms = [f"0{'1' * length}0{label}", f"10{count}{label}"]
    if label and label in ("0" * length, "1" * length):
        forms.append(f"11{label[0]}{count}")
    return min(forms, key=len)


def plain_dict(items: Iterable[tuple[int, Cell]], bits: int) -> Cell:
    """``Hashmap bits ^Cell`` with at least one entry."""

    def build(entries: Sequence[tuple[str, Cell]], size: int) -> Cell:
        first, last = entries[0][0], entries[-1][0]
        common = _common(first, last)
        builder = begin_cell().store_bits(label_bits(first[:common], size))
        if common == size:
            return cast(Cell, builder.store_ref(entries[0][1]).end_cell())
        split = _split(entries, common)
        for part in (entries[:split], entries[split:]):
            builder.store_ref(build([(k[common + 1 :], v) for k, v in part], size - common - 1))
        return cast(Cell, builder.end_cell())

    return build(sorted((format(key, f"0{bits}b"), value) for key, value in dict(items).items()), bits)


@dataclass(frozen=True, slots=True)
class Node(Generic[V, X]):
    """One edge and its end. `children` is empty for a leaf; `size` counts the key bits from here."""

    label: str
    size: int
    cell: Cell
    extra: X
    value: V | None
    children: tuple[Node[V, X], ...]


class AugDict(Generic[V, X]):
    """Persistent ``HashmapAug bits V X``. Keys are strings of `bits` characters 0 and 1."""

    __slots__ = ("_aug", "bits", "root")

    def __init__(self, bits: int, augmentation: Augmentation[V, X], root: Node[V, X] | None = None) -> None:
        self.bits = bits
        self._aug = augmentation
        self.root = root

    def _with(self, root: Node[V, X] | None) -> AugDict[V, X]:
        return AugDict(self.bits, self._aug, root)

    def built(self, items: Iterable[tuple[str, V]]) -> AugDict[V, X]:
        """A new dictionary of exactly these items."""
        entries = sorted(dict(items).items(), key=lambda item: item[0])
        return self._with(self._build(entries, self.bits) if entries else None)

    def get(self, key: str) -> V | None:
        """The value of a key."""
        node, rest = self.root, key
        while node is not None and rest.startswith(node.label):
            if not node.children:
                return node.value
            at = len(node.label)
            node, rest = node.children[int(rest[at])], rest[at + 1 :]
        return None

    def path(self, key: str) -> Path:
        """Reference indexes from the root cell to the leaf, or to where the key would leave the tree."""
        path: Path = ()
        node, rest = self.root, key
        while node is not None and node.children and rest.startswith(node.label):
            at = len(node.label)
            index = int(rest[at])
            path += (index,)
            node, rest = node.children[index], rest[at + 1 :]
        return path

    def set(self, key: str, value: V) -> AugDict[V, X]:
        """The dictionary with this value in place."""
        return self._with(self._set(self.root, key, value) if self.root else self._leaf(key, value))

    def delete(self, key: str) -> AugDict[V, X]:
        """The dictionary without this key."""
        return self._with(self._delete(self.root, key) if self.root else None)

    # ---- nodes

    def _leaf(self, label: str, value: V) -> Node[V, X]:
        extra = self._aug.extra_of(value)
        builder = begin_cell().store_bits(label_bits(label, len(label)))
        self._aug.store_extra(builder, extra)
        self._aug.store_value(builder, value)
        return Node(label, len(label), builder.end_cell(), extra, value, ())

    def _fork(self, label: str, left: Node[V, X], right: Node[V, X]) -> Node[V, X]:
        size = len(label) + 1 + left.size
        extra = self._aug.merge(left.extra, right.extra)
        builder = begin_cell().store_bits(label_bits(label, size))
        builder.store_ref(left.cell).store_ref(right.cell)
        self._aug.store_extra(builder, extra)
        return Node(label, size, builder.end_cell(), extra, None, (left, right))

    def _relabel(self, node: Node[V, X], label: str) -> Node[V, X]:
        if node.children:
            return self._fork(label, *node.children)
        return self._leaf(label, cast(V, node.value))

    def _build(self, entries: Sequence[tuple[str, V]], size: int) -> Node[V, X]:
        first = entries[0][0]
        common = _common(first, entries[-1][0])
        if common == size:
            return self._leaf(first, entries[0][1])
        split = _split(entries, common)
        left, right = (
            self._build([(k[common + 1 :], v) for k, v in part], size - common - 1)
            for part in (entries[:split], entries[split:])
        )
        return self._fork(first[:common], left, right)

    def _set(self, node: Node[V, X], key: str, value: V) -> Node[V, X]:
        at = _common(node.label, key)
        if at == len(node.label):
            if not node.children:
                return self._leaf(key, value)
            left, right = node.children
            if key[at] == "0":
                return self._fork(node.label, self._set(left, key[at + 1 :], value), right)
            return self._fork(node.label, left, self._set(right, key[at + 1 :], value))
        old = self._relabel(node, node.label[at + 1 :])
        new = self._leaf(key[at + 1 :], value)
        return self._fork(key[:at], *((new, old) if key[at] == "0" else (old, new)))

    def _delete(self, node: Node[V, X], key: str) -> Node[V, X] | None:
        if not key.startswith(node.label):
            return node
        if not node.children:
            return None
        at = len(node.label)
        index = int(key[at])
        child = self._delete(node.children[index], key[at + 1 :])
        if child is node.children[index]:
            return node
        if child is None:
            other = node.children[1 - index]
            return self._relabel(other, f"{node.label}{1 - index}{other.label}")
        left, right = node.children
        return self._fork(node.label, *((child, right) if index == 0 else (left, child)))


def _common(left: str, right: str) -> int:
    count = min(len(left), len(right))
    if left[:count] == right[:count]:
        return count
    return next(i for i in range(count) if left[i] != right[i])


def _split(entries: Sequence[tuple[str, object]], at: int) -> int:
    """Index of the first entry whose key has a 1 at position `at`."""
    low, high = 0, len(entries)
    while low < high:
        middle = (low + high) // 2
        if entries[middle][0][at] == "0":
            low = middle + 1
        else:
            high = middle
    return low
