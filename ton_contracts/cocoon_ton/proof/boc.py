"""Bags of cells from strangers: a guarded linear-time parser and a canonical writer.

pytoniq-core's own reader copies the input once per cell and does not check exotic cells; its writer takes
exponential time on cells that share children. Format: TON whitepaper "TVM", section 5.3.
"""

from __future__ import annotations

import hashlib
from collections.abc import MutableMapping, Sequence

from bitarray import bitarray
from pytoniq_core import Cell
from pytoniq_core.boc.exotic import LevelMask
from pytoniq_core.boc.tvm_bitarray import TvmBitarray

from cocoon_ton.errors import ChainProofError
from cocoon_ton.proof.seam import proof_seam

ORDINARY, PRUNED, LIBRARY, MERKLE_PROOF, MERKLE_UPDATE = -1, 1, 2, 3, 4
MAX_BYTES = 8 << 20
MAX_CELLS = 1 << 17
_MAGIC = b"\xb5\xee\x9c\x72"
_HASH_AND_DEPTH = 256 + 16
_MAX_DEPTH = 1024
_LEVEL_0 = LevelMask(0)


def parse_boc(
    data: bytes,
    *,
    roots: int | None = 1,
    max_bytes: int = MAX_BYTES,
    max_cells: int = MAX_CELLS,
    known: MutableMapping[bytes, Cell] | None = None,
) -> list[Cell]:
    """The root cells of `data`, every cell structurally valid and the roots complete (level 0).

    `roots` is the exact number of roots expected, or None for one or more. An index and a checksum are
    allowed and ignored: hashes protect the content. Ordinary cells of level 0 are taken from `known` by their hash,
    and added to it. Raises `ChainProofError`.
    """
    if len(data) > max_bytes:
        raise ChainProofError("bag of cells is too large")
    with proof_seam("bag of cells"):
        cells = _parse(data, roots, max_cells, {} if known is None else known)
    if any(cell.level_mask.mask for cell in cells):
        raise ChainProofError("bag of cells has a pruned root")
    return cells


def parse_canonical(data: bytes, *, max_bytes: int = MAX_BYTES) -> Cell:
    """The single root of `data`, which must be exactly what `write_boc` writes for it."""
    (cell,) = parse_boc(data, max_bytes=max_bytes)
    if write_boc([cell]) != data:
        raise ChainProofError("bag of cells is not in canonical form")
    return cell


def _parse(
    data: bytes, want_roots: int | None, max_cells: int, known: MutableMapping[bytes, Cell]
) -> list[Cell]:
    if data[:4] != _MAGIC:
        raise ChainProofError("not a bag of cells")
    flags, offset_size = data[4], data[5]
    has_index, has_checksum, size = flags & 128, flags & 64, flags & 7
    if flags & 0b00111000 or not 1 <= size <= 4 or not 1 <= offset_size <= 8:
        raise ChainProofError("bag of cells has an unsupported header")
    count, roots, absent = _numbers(data, 6, size, 3)
    position = 6 + 3 * size
    body_size = int.from_bytes(data[position : position + offset_size], "big")
    position += offset_size
    if not 1 <= roots <= count <= max_cells or absent or (want_roots and roots != want_roots):
        raise ChainProofError("bag of cells has an unexpected number of cells")
    root_indexes = _numbers(data, position, size, roots)
    position += roots * size + (count * offset_size if has_index else 0)
    if len(data) != position + body_size + (4 if has_checksum else 0):
        raise ChainProofError("bag of cells has a wrong length")
    raw = _split(data, position, position + body_size, count, size)
    cells = _build(raw, known)
    return [cells[index] for index in root_indexes]


def _numbers(data: bytes, start: int, size: int, count: int) -> list[int]:
    ends = range(start + size, start + size * (count + 1), size)
    return [int.from_bytes(data[end - size : end], "big") for end in ends]


_Raw = tuple[int, list[int], bool, bytes]
"""Level mask, indexes of children, whether exotic, descriptors and padded data as they are hashed."""


def _split(data: bytes, position: int, end: int, count: int, size: int) -> list[_Raw]:
    raw: list[_Raw] = []
    for index in range(count):
        first, second = data[position], data[position + 1]
        refs, exotic, level = first & 7, bool(first & 8), first >> 5
        if refs > 4 or first & 16:
            raise ChainProofError("bag of cells has an unsupported cell")
        length = (second + 1) >> 1
        content = data[position : position + 2 + length]
        position += 2
        if second & 1 and not content[-1] & 0x7F:
            raise ChainProofError("cell has a wrong padding")
        position += length
        children = _numbers(data, position, size, refs) if refs else []
        if any(not index < child < count for child in children):
            raise ChainProofError("cells are not in topological order")
        position += refs * size
        if position > end:
            raise ChainProofError("bag of cells is cut off")
        raw.append((level, children, exotic, content))
    if position != end:
        raise ChainProofError("bag of cells has spare bytes")
    return raw


def _build(raw: list[_Raw], known: MutableMapping[bytes, Cell]) -> list[Cell]:
    cells: dict[int, Cell] = {}
    for index in range(len(raw) - 1, -1, -1):
        level, children, exotic, content = raw[index]
        refs = [cells[child] for child in children]
        # a child's mask was compared with what it claims when it was built
        if not exotic and not level and not any(raw[child][0] for child in children):
            cells[index] = _plain_cell(refs, content, known)
            continue
        bits = _bits(content)
        kind = int(bits[:8].to01(), 2) if exotic else ORDINARY
        if exotic:
            _check_exotic(kind, bits, refs)
        cell = Cell(bits, refs, kind)
        if cell.level_mask.mask != level:
            raise ChainProofError("cell has a wrong level")
        cells[index] = cell
    return [cells[index] for index in range(len(raw))]


def _bits(content: bytes) -> TvmBitarray:
    """The bits of a cell from its descriptors and padded data."""
    bits = bitarray()
    bits.frombytes(content[2:])
    if content[1] & 1:
        last = content[-1]
        bits = bits[: len(bits) - (last & -last).bit_length()]
    return TvmBitarray(1023, bits)


def _plain_cell(refs: list[Cell], content: bytes, known: MutableMapping[bytes, Cell]) -> Cell:
    """An ordinary cell of level 0 below cells of level 0: what ``Cell(bits, refs)`` makes, in a fifth of the time.

    Such a cell has one hash, of its descriptors and data (`content`, canonical: `_split` checked the padding),
    depths and hashes of its children.
    """
    hasher, depth = hashlib.sha256(content), 0
    for ref in refs:
        below = ref._depths[0]
        hasher.update(below.to_bytes(2))
        depth = max(depth, below + 1)
    for ref in refs:
        hasher.update(ref._hash)
    digest = hasher.digest()
    cell = known.get(digest)
    if cell is not None:
        return cell
    if depth >= _MAX_DEPTH:
        raise ChainProofError("cells are too deep")
    cell = Cell.__new__(Cell)
    cell.bits, cell.refs, cell.type_, cell.is_exotic = _bits(content), refs, ORDINARY, False
    cell.level_mask, cell._depths = _LEVEL_0, [depth]
    cell._hash, cell._hashes = digest, [digest]
    cell._descriptors, cell._data_bytes = content[:2], content[2:]
    known[digest] = cell
    return cell


def _check_exotic(kind: int, bits: TvmBitarray, refs: list[Cell]) -> None:
    data = bits.tobytes()
    if kind == PRUNED:
        mask = data[1]
        ok = not refs and 1 <= mask <= 7 and len(bits) == 16 + _HASH_AND_DEPTH * mask.bit_count()
    elif kind == LIBRARY:
        ok = not refs and len(bits) == 8 + 256
    elif kind in (MERKLE_PROOF, MERKLE_UPDATE):
        expected = 1 if kind == MERKLE_PROOF else 2
        ok = len(refs) == expected and len(bits) == 8 + _HASH_AND_DEPTH * expected
        hashes = b"".join(ref.get_hash(0) for ref in refs)
        depths = b"".join(ref.get_depth(0).to_bytes(2, "big") for ref in refs)
        ok = ok and data[1:] == hashes + depths
    else:
        ok = False
    if not ok:
        raise ChainProofError("exotic cell is malformed")


def write_boc(roots: Sequence[Cell]) -> bytes:
    """Bag of cells in canonical form: no index, no checksum, parents before children, each cell once."""
    order: list[Cell] = []
    seen: set[bytes] = set()
    for root in reversed(roots):
        _post_order(root, seen, order)
    order.reverse()
    position = {cell.hash: index for index, cell in enumerate(order)}
    size = max(1, (len(order).bit_length() + 7) // 8)
    body = bytearray()
    for cell in order:
        body += cell._descriptors
        body += cell.data
        for ref in cell.refs:
            body += position[ref.hash].to_bytes(size, "big")
    offset_size = max(1, (len(body).bit_length() + 7) // 8)
    header = bytearray(_MAGIC) + bytes([size, offset_size])
    header += len(order).to_bytes(size, "big") + len(roots).to_bytes(size, "big") + bytes(size)
    header += len(body).to_bytes(offset_size, "big")
    for root in roots:
        header += position[root.hash].to_bytes(size, "big")
    return bytes(header + body)


def _post_order(root: Cell, seen: set[bytes], order: list[Cell]) -> None:
    stack = [(root, len(root.refs))]
    while stack:
        cell, remaining = stack.pop()
        if cell.hash in seen:
            continue
        if remaining:
            stack.append((cell, remaining - 1))
            child = cell.refs[remaining - 1]
            if child.hash not in seen:
                stack.append((child, len(child.refs)))
        else:
            seen.add(cell.hash)
            order.append(cell)
