"""Text to token ids and back: the model's tokenizer and chat template, incremental decoding, stop strings.

Runs in the front-end, on files that were verified; the engine sees token ids only. No code of a model is
ever
run: templates are rendered by transformers in jinja2's sandbox.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

from jinja2 import TemplateError
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream
from transformers.utils.chat_template_utils import render_jinja_template

from cocoon_enclave.errors import InvalidRequestError, ModelRejectedError

FILES: Final = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
"""Files of a model directory that are read here."""


class TextModel:
    """Tokenizer and chat template of one model."""

    def __init__(
        self, *, tokenizer_json: str, chat_template: str | None, special: Mapping[str, str]
    ) -> None:
        """From the contents of ``tokenizer.json`` and the template.

        special: texts of ``bos_token``, ``eos_token``, ... for the template.

        Raises:
            ModelRejectedError: the tokenizer cannot be read.
        """
        try:
            self._tokenizer = Tokenizer.from_str(tokenizer_json)
        except Exception as error:  # tokenizers raises plain Exception
            raise ModelRejectedError("the model's tokenizer cannot be read") from error
        self._template = chat_template
        self._special = dict(special)
        added = self._tokenizer.get_added_tokens_decoder()
        self.special_ids = frozenset(id for id, token in added.items() if token.special)
        """Ids of tokens that are never text."""

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> TextModel:
        """From files of a model directory that were verified: see `FILES`.

        Raises:
            ModelRejectedError: a file is missing or broken.
        """
        try:
            tokenizer_json = files["tokenizer.json"].decode("utf-8")
            settings = json.loads(files["tokenizer_config.json"])
            template = (
                files["chat_template.jinja"].decode("utf-8") if "chat_template.jinja" in files else None
            )
        except (KeyError, ValueError) as error:
            raise ModelRejectedError("a file of the model's tokenizer is missing or broken") from error
        if template is None and isinstance(settings.get("chat_template"), str):
            template = settings["chat_template"]
        special = {
            key: value if isinstance(value, str) else value.get("content", "")
            for key, value in settings.items()
            if key.endswith("_token") and isinstance(value, (str, dict))
        }
        return cls(tokenizer_json=tokenizer_json, chat_template=template, special=special)

    def encode_chat(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Token ids of a conversation, up to where the assistant's answer starts.

        Raises:
            InvalidRequestError: the model has no chat template, or the template refuses the messages.
        """
        if self._template is None:
            raise InvalidRequestError("this model has no chat template: use /v1/completions")
        try:
            special: dict[str, Any] = dict(self._special)
            rendered: Any = render_jinja_template(
                [[dict(message) for message in messages]],
                chat_template=self._template,
                add_generation_prompt=True,
                **special,
            )
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            # Nothing of the error is passed on: it may quote the conversation.
            raise InvalidRequestError("the model's chat template refuses these messages") from error
        ids: list[int] = self._tokenizer.encode(rendered[0][0], add_special_tokens=False).ids
        return ids

    def encode_prompt(self, prompt: str | Sequence[int]) -> tuple[int, ...]:
        """Token ids of a bare prompt: of its text, or those given.

        Raises:
            InvalidRequestError: an id that the model does not have.
        """
        if isinstance(prompt, str):
            return tuple(self._tokenizer.encode(prompt).ids)
        size = self._tokenizer.get_vocab_size()
        if any(not 0 <= id < size for id in prompt):
            raise InvalidRequestError("prompt: a token id that the model does not have")
        return tuple(prompt)

    def decoder(self) -> Decoder:
        """An incremental decoder for one answer."""
        return Decoder(self._tokenizer, self.special_ids)


class Decoder:
    """Turns token ids into text as they come, never splitting a character."""

    def __init__(self, tokenizer: Tokenizer, special_ids: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._special = special_ids
        self._stream = DecodeStream(skip_special_tokens=True)

    def push(self, token: int) -> str:
        """Text that `token` completes; empty in the middle of a character and for special tokens."""
        if token in self._special:
            return ""
        return self._stream.step(self._tokenizer, token) or ""


class StopMatcher:
    """Cuts the answer at the first stop string, and holds back what might become one.

    `visible` counts the tokens whose text was let through, up to the last that gave any: what a client
    pays.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self._tokens = 0
        self._length = 0
        """Characters so far, held ones included."""
        self._ends: deque[tuple[int, int]] = deque()
        """Where the text of each token that is not out yet ends, and its number."""
        self._sent = 0
        self._covered = 0
        self.visible = 0
        self.stopped = False
        """True once a stop string was found; nothing more comes."""

    def push(self, text: str) -> str:
        """Take the text of the next token (perhaps empty); return what may be sent now."""
        if self.stopped:
            return ""
        self._tokens += 1
        if not text:
            return ""
        if not self._stops:
            self.visible = self._tokens
            return text
        self._length += len(text)
        self._ends.append((self._length, self._tokens))
        candidate = self._held + text
        cut = min((at for stop in self._stops if (at := candidate.find(stop)) >= 0), default=-1)
        if cut >= 0:
            self.stopped, self._held = True, ""
            return self._let_through(candidate[:cut])
        keep = self._longest_start(candidate)
        self._held = candidate[len(candidate) - keep :]
        return self._let_through(candidate[: len(candidate) - keep])

    def flush(self) -> str:
        """The end of the answer: what was held back is text after all."""
        held, self._held = self._held, ""
        return self._let_through(held)

    def _let_through(self, text: str) -> str:
        """Count the tokens that `text` is of, the last one perhaps in part."""
        self._sent += len(text)
        while self._ends and self._ends[0][0] <= self._sent:
            self._covered, self.visible = self._ends.popleft()
        if self._ends and self._sent > self._covered:
            self.visible = self._ends[0][1]
        return text

    def _longest_start(self, text: str) -> int:
        """Length of the longest end of `text` that is the start of a stop string."""
        for length in range(min(len(text), max(map(len, self._stops), default=1) - 1), 0, -1):
            if any(stop.startswith(text[-length:]) for stop in self._stops):
                return length
        return 0
