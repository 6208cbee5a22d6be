"""Values that the client's users see."""

from __future__ import annotations

import json
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

    @property
    def text(self) -> str:
        """The generated text of the first choice of a JSON answer; empty if there is none."""
        try:
            choice = json.loads(self.body)["choices"][0]
            found = choice["message"]["content"] if "message" in choice else choice["text"]
        except (ValueError, RecursionError, LookupError, TypeError):
            return ""
        return found if isinstance(found, str) else ""
