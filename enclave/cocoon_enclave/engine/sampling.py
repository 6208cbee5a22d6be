"""Draws the next token of every sequence of a batch.

Greedy rows cost one argmax for all. A row that samples is cut to its most likely tokens first: sorting a
whole vocabulary for every row costs more than the model. The cut is exact: where the wanted probability
mass does not lie within it, that row takes the whole vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch

from cocoon_enclave.engine.protocol import Sampling

CUT: Final = 256
"""Most likely tokens that are looked at first."""


def next_tokens(
    logits: torch.Tensor, sampling: Sequence[Sampling], generators: Sequence[torch.Generator | None]
) -> list[int]:
    """One token id per row of `logits` [rows, vocabulary]."""
    chosen: list[int] = torch.argmax(logits, dim=-1).tolist()
    for row, how in enumerate(sampling):
        if how.temperature > 0 and how.top_k != 1:
            chosen[row] = _draw(logits[row].float(), how, generators[row])
    return chosen


def _draw(logits: torch.Tensor, how: Sampling, generator: torch.Generator | None) -> int:
    scaled = logits / how.temperature
    limit = min(how.top_k or scaled.shape[0], scaled.shape[0])
    cut = min(CUT, limit)
    values, indices = torch.topk(scaled, cut)
    # Without top_k, probabilities are those of the whole vocabulary; with it, of the k best.
    whole = torch.logsumexp(scaled if limit == scaled.shape[0] else torch.topk(scaled, limit).values, dim=0)
    probabilities = torch.exp(values - whole)
    if cut < limit and float(probabilities.sum()) < how.top_p:
        values, indices = torch.topk(scaled, limit)  # the nucleus is wider than the cut
        probabilities = torch.exp(values - whole)
    cumulative = torch.cumsum(probabilities, dim=0, dtype=torch.float64)
    # The nucleus ends with the first token at which the mass reaches top_p; it has at least one token.
    last = int(torch.searchsorted(cumulative, min(how.top_p, float(cumulative[-1]))))
    last = min(last, cumulative.shape[0] - 1)
    point = float(torch.rand((), generator=generator, dtype=torch.float64)) * float(cumulative[last])
    position = min(int(torch.searchsorted(cumulative, point, right=True)), last)
    return int(indices[position])
