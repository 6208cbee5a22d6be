"""Values that the client's users see."""

from __future__ import annotations

from dataclasses import dataclass, field

from cocoon_proxy.events import Completed


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """A model that a verified node serves."""

    name: str
    digest: bytes
    """Model digest, 32 bytes."""
    context_length: int
    """Longest prompt plus answer, tokens."""
    nodes: tuple[str, ...]
    """Account ids of the nodes, hex."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A whole answer with its verified receipt."""

    status: int
    content_type: str
    body: bytes = field(repr=False)
    completed: Completed
