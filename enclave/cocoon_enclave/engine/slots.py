"""Memory of a batch: keys and values of every layer, in slots that are allocated once.

The sequences that decode lie in slots 0 to n-1 without gaps, so a step reads one view of each layer and
copies nothing; when one ends, the last moves into its place. The slot behind them holds the one sequence
whose prompt is being computed.
"""

from __future__ import annotations

import torch


class SlotCache:
    """Keys and values for `slots` sequences, in the shape that transformers' decoders ask for (`update`).

    Before a forward pass the caller says which slots and positions it is for; `update` then stores the new
    entries and returns views over all of them up to the longest sequence.
    """

    is_compileable = False

    def __init__(
        self, *, layers: int, slots: int, kv_heads: int, length: int, size: int, dtype: torch.dtype
    ) -> None:
        # Zeros and not `empty`: a masked entry has weight 0, and 0 times a stray NaN would be NaN. The
        # pages come from the system when they are first written, so unused slots cost nothing.
        shape = (2, slots, kv_heads, length, size)
        self._store = [torch.zeros(shape, dtype=dtype) for _ in range(layers)]
        self._rows: torch.Tensor | slice = slice(0, 0)
        self._view = slice(0, 0)
        self._positions: torch.Tensor | slice = slice(0, 0)
        self._past = 0

    def prepare_decode(self, positions: torch.Tensor, past: int) -> None:
        """The next pass adds one token to slots 0..n-1, at `positions` [n]; `past` covers the longest."""
        self._rows, self._view = torch.arange(positions.shape[0]), slice(0, positions.shape[0])
        self._positions, self._past = positions, past

    def prepare_prefill(self, slot: int, start: int, end: int) -> None:
        """The next pass adds tokens `start` to `end`-1 to `slot`."""
        self._rows = self._view = slice(slot, slot + 1)
        self._positions, self._past = slice(start, end), end

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer: int, *_: object, **__: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store [rows, kv heads, tokens, size] and return views over everything up to `past`."""
        keys, values = self._store[layer]
        if isinstance(self._rows, slice):
            keys[self._rows, :, self._positions] = key
            values[self._rows, :, self._positions] = value
        else:
            keys[self._rows, :, self._positions] = key[:, :, 0]
            values[self._rows, :, self._positions] = value[:, :, 0]
        return keys[self._view, :, : self._past], values[self._view, :, : self._past]

    def get_seq_length(self, layer: int = 0) -> int:
        """Tokens in view; decoders ask for it only where no positions are given."""
        return self._past

    def move(self, source: int, target: int, length: int) -> None:
        """Copy the first `length` entries of one slot over another's."""
        for layer in self._store:
            layer[:, target, :, :length] = layer[:, source, :, :length]
