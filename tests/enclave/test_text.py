"""Incremental decoding and stop strings."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cocoon_enclave.errors import InvalidRequestError, ModelRejectedError
from cocoon_enclave.text import FILES, StopMatcher, TextModel


@pytest.fixture(scope="module")
def text(tiny_model: Path) -> TextModel:
    """The tiny model's tokenizer: one token per byte."""
    files = {name: (tiny_model / name).read_bytes() for name in FILES}
    return TextModel.from_files(files)


@given(st.text(max_size=30))
def test_decoding_piece_by_piece_gives_the_text_back(text: TextModel, value: str) -> None:
    decoder = text.decoder()
    pieces = [decoder.push(id) for id in text.encode_prompt(value)]
    assert "".join(pieces) == value
    assert not any("\ufffd" in piece for piece in pieces if "\ufffd" not in value)


def test_special_tokens_are_never_text(text: TextModel) -> None:
    (special,) = text.special_ids
    decoder = text.decoder()
    assert decoder.push(special) == ""


def test_templates_and_ids(text: TextModel) -> None:
    assert text.encode_chat([{"role": "user", "content": "ab"}]) == list(text.encode_prompt("ab"))
    assert text.encode_prompt([1, 2]) == (1, 2)
    with pytest.raises(InvalidRequestError):
        text.encode_prompt([1, 100_000])
    bare = TextModel.from_files(
        {"tokenizer.json": text._tokenizer.to_str().encode(), "tokenizer_config.json": b"{}"}
    )
    with pytest.raises(InvalidRequestError):
        bare.encode_chat([{"role": "user", "content": "ab"}])


def test_a_template_that_refuses_does_not_quote(text: TextModel) -> None:
    files = {
        "tokenizer.json": text._tokenizer.to_str().encode(),
        "tokenizer_config.json": b"{}",
        "chat_template.jinja": b"{{ raise_exception('no: ' + messages[0].content) }}",
    }
    with pytest.raises(InvalidRequestError) as caught:
        TextModel.from_files(files).encode_chat([{"role": "user", "content": "secret"}])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("missing", ["tokenizer.json", "tokenizer_config.json"])
def test_missing_files(tiny_model: Path, missing: str) -> None:
    files = {name: (tiny_model / name).read_bytes() for name in FILES if name != missing}
    with pytest.raises(ModelRejectedError):
        TextModel.from_files(files)
    with pytest.raises(ModelRejectedError):
        TextModel.from_files({**files, missing: b"\xff"})


PIECES = st.lists(st.text("abc", max_size=3), max_size=20)


@given(PIECES, st.lists(st.text("abc", min_size=1, max_size=4), max_size=3))
def test_stop_matcher_agrees_with_searching_the_whole_text(pieces: list[str], stops: list[str]) -> None:
    matcher = StopMatcher(stops)
    sent = ""
    for piece in pieces:
        out = matcher.push(piece)
        sent += out
        assert not any(stop in sent for stop in stops)
        if matcher.stopped:
            break
    sent += matcher.flush()
    whole = "".join(pieces)
    cut = min((at for stop in stops if (at := whole.find(stop)) >= 0), default=len(whole))
    assert sent == whole[:cut]
    assert matcher.stopped == (cut < len(whole))


@given(PIECES, st.lists(st.text("abc", min_size=1, max_size=4), max_size=3))
def test_visible_tokens_are_those_that_the_text_is_of(pieces: list[str], stops: list[str]) -> None:
    """A client pays for no token behind the last one that put text into the answer."""
    matcher = StopMatcher(stops)
    sent = "".join(matcher.push(piece) for piece in pieces) + matcher.flush()
    reached, needed = 0, 0
    for index, piece in enumerate(pieces, start=1):
        if reached < len(sent) and piece:
            needed = index
        reached += len(piece)
    assert matcher.visible == needed


def test_text_that_might_be_a_stop_is_held_and_then_released() -> None:
    matcher = StopMatcher(["<end>"])
    assert [matcher.push(part) for part in ("a<", "en", "x")] == ["a", "", "<enx"]
    assert matcher.visible == 3
    assert matcher.push("<e") == ""
    assert matcher.visible == 3
    assert matcher.flush() == "<e"
    assert matcher.visible == 4
