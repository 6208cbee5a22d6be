"""Two replacements that make a Hugging Face decoder fast on a CPU: packed linears and batched attention.

Both compute what the originals compute. They use operators of torch that are not public, so each is probed
when the model is loaded, compared with the original, and left out where it is missing or differs.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import nn
from torch.nn import functional

ATTENTION: Final = "cocoon_bmm"
"""Name under which the attention is registered with transformers."""
_TOLERANCE: Final = {torch.float32: 1e-4, torch.bfloat16: 3e-2}


class PackedLinear(nn.Module):
    """A linear layer whose weight was laid out once for oneDNN, instead of at every call."""

    def __init__(self, linear: nn.Linear, rows: int) -> None:
        super().__init__()
        self.out_features = linear.out_features
        self.in_features = linear.in_features
        self.bias = linear.bias
        # A copy in another order: the original can be freed (or stays, where it is tied to the embedding).
        self.packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), rows)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """hidden @ weight.T + bias."""
        result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            hidden, self.packed, self.bias, "none", [], ""
        )
        return result


def pack_linears(model: nn.Module, rows: int) -> int:
    """Replace every linear layer of `model` by a packed one; returns how many, 0 where it is no use.

    rows: typical number of rows per call, a hint for the layout.
    """
    linears = [(name, module) for name, module in model.named_modules() if type(module) is nn.Linear]
    if not linears or not _packing_works(linears[0][1], rows):
        return 0
    for name, linear in linears:
        parent_name, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent_name), leaf, PackedLinear(linear, rows))
    return len(linears)


def _packing_works(linear: nn.Linear, rows: int) -> bool:
    """Compare a packed layer with the original on the shapes that come up."""
    tolerance = _TOLERANCE.get(linear.weight.dtype)
    if tolerance is None:
        return False
    generator = torch.Generator().manual_seed(1)
    try:
        packed = PackedLinear(linear, rows)
        for shape in (
            (1, 1, linear.in_features),
            (rows, 1, linear.in_features),
            (1, 64, linear.in_features),
        ):
            hidden = torch.randn(shape, generator=generator).to(linear.weight.dtype)
            expected, found = linear(hidden).float(), packed(hidden).float()
            if found.shape != expected.shape:
                return False
            if float((expected - found).abs().max()) > tolerance * float(expected.abs().max()):
                return False
    except (AttributeError, RuntimeError):  # the operators are private: any failure means "not here"
        return False
    return True


def batched_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attention in the calling convention of transformers: two batched products for single-token queries.

    query: [batch, heads, length, size]; key, value: [batch, kv heads, past, size], a view of the slots;
    attention_mask: additive, [batch, 1, length, past]. Returns [batch, length, heads, size].
    """
    batch, heads, length, size = query.shape
    if length > 1:
        output = functional.scaled_dot_product_attention(
            query, key, value, attn_mask=attention_mask, scale=scaling, enable_gqa=heads != key.shape[1]
        )
        return output.transpose(1, 2), None
    kv_heads, past = key.shape[1], key.shape[2]
    groups = heads // kv_heads
    # Slots are one block of memory, so these reshapes are views: nothing of the cache is copied.
    keys = key.reshape(batch * kv_heads, past, size)
    values = value.reshape(batch * kv_heads, past, size)
    scores = torch.bmm(query.reshape(batch * kv_heads, groups, size), keys.transpose(1, 2))
    scores = scores.view(batch, kv_heads, groups, past).float().mul_(scaling)
    if attention_mask is not None:
        scores += attention_mask
    weights = torch.softmax(scores, dim=-1).to(value.dtype)
    output = torch.bmm(weights.view(batch * kv_heads, groups, past), values)
    return output.view(batch, 1, heads, size), None


def register_attention() -> None:
    """Make `ATTENTION` known to transformers. Idempotent."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, batched_attention)


def attention_works(heads: int, kv_heads: int, size: int, dtype: torch.dtype) -> bool:
    """Compare the batched attention with torch's own on a strided view like that of the slots."""
    generator = torch.Generator().manual_seed(1)
    store = torch.randn((2, 4, kv_heads, 64, size), generator=generator).to(dtype)
    key, value = store[0, :3, :, :40], store[1, :3, :, :40]
    query = torch.randn((3, heads, 1, size), generator=generator).to(dtype)
    mask = torch.zeros((3, 1, 1, 40))
    mask[1, :, :, 20:] = torch.finfo(torch.float32).min
    scaling = size**-0.5
    try:
        found, _ = batched_attention(nn.Identity(), query, key, value, mask, scaling)
    except RuntimeError:
        return False
    keys, values = (part.repeat_interleave(heads // kv_heads, dim=1).float() for part in (key, value))
    expected = functional.scaled_dot_product_attention(
        query.float(), keys, values, attn_mask=mask, scale=scaling
    )
    difference = (found.float() - expected.transpose(1, 2)).abs().max()
    return float(difference) <= _TOLERANCE.get(dtype, 0.0)
