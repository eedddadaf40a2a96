"""What clients may ask: read_question and the estimate of a text's length."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from shoestring.gateway.errors import Refusal
from shoestring.gateway.questions import (
    BYTES_PER_TOKEN,
    MAX_DEPTH,
    ChatQuestion,
    CompletionQuestion,
    EmbeddingsQuestion,
    NoteQuestion,
    OllamaChat,
    OllamaEmbed,
    OllamaGenerate,
    OllamaShow,
    read_question,
    text_bytes,
)

KINDS: list[type[BaseModel]] = [
    ChatQuestion, CompletionQuestion, EmbeddingsQuestion, NoteQuestion, OllamaChat, OllamaEmbed,
    OllamaGenerate, OllamaShow,
]  # fmt: skip
FIELDS = sorted({name for kind in KINDS for name in kind.model_fields})
GOOD: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def refusal_of(body: bytes, kind: type[BaseModel]) -> Refusal | None:
    """Why a body is refused; None: it is read."""
    try:
        read_question(body, kind)
    except Refusal as refusal:
        return refusal
    return None


def refused(body: bytes, kind: type[BaseModel] = ChatQuestion) -> Refusal:
    """The refusal of a body that must not pass."""
    found = refusal_of(body, kind)
    assert found is not None
    return found


@given(body=st.binary(), kind=st.sampled_from(KINDS))
def test_any_bytes_are_read_or_refused(body: bytes, kind: type[BaseModel]):
    """Never another error, and always 400."""
    refusal = refusal_of(body, kind)
    assert refusal is None or refusal.status == 400


@given(
    body=st.dictionaries(st.sampled_from(FIELDS) | st.text(), json_values),
    kind=st.sampled_from(KINDS),
)
def test_any_object_is_read_as_it_was_sent_or_refused(body: dict[str, Any], kind: type[BaseModel]):
    """What passes is passed on unchanged; a refusal is one line that can be sent."""
    written = json.dumps(body).encode()
    refusal = refusal_of(written, kind)
    if refusal is None:
        assert read_question(written, kind)[1] == body
    else:
        assert (refusal.status, refusal.message.isprintable()) == (400, True)


@pytest.mark.parametrize(
    "number", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e400", b"9" * 5000]
)
def test_a_number_that_json_has_not_is_refused(number: bytes):
    """Wherever it stands: it would be no JSON any more on its way to an engine."""
    body = json.dumps({**GOOD, "top_p": "HERE"}).encode().replace(b'"HERE"', number)
    assert refused(body).reason == "bad_json"


@pytest.mark.parametrize("half", [b"\\ud800", b"\xed\xa0\x80", b"\\udfff x", b"\xff"])
def test_half_a_character_is_refused(half: bytes):
    """Escaped or as it is: no engine can be sent it."""
    body = json.dumps(GOOD).encode().replace(b'"x"', b'"' + half + b'"')
    assert refused(body).reason == "bad_json"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32-le", "utf-8-sig"])
def test_only_utf_8_is_json(encoding: str):
    """Another encoding is refused, not guessed."""
    assert refused(json.dumps(GOOD).encode(encoding)).reason == "bad_json"


def nested(levels: int) -> bytes:
    """A question with so many levels of lists."""
    return json.dumps(GOOD)[:-1].encode() + b',"x":' + b"[" * levels + b"]" * levels + b"}"


def test_depth_is_bounded():
    """The last level that may be, and the first that may not."""
    read_question(nested(MAX_DEPTH - 1), ChatQuestion)
    assert refused(nested(MAX_DEPTH + 1)).reason == "bad_json"
    assert refused(nested(100_000)).reason == "bad_json"


@given(name=st.sampled_from(["model", "messages", "stream", "max_tokens"]), flips=st.data())
def test_a_known_field_in_other_letters_is_refused(name: str, flips: st.DataObject):
    """An engine that takes it for the known one would read what was not checked."""
    letters = [letter.upper() if flips.draw(st.booleans()) else letter for letter in name]
    written = "".join(letters)
    body = json.dumps({**GOOD, written: GOOD.get(name, 1 if name == "max_tokens" else True)})
    if written == name:
        read_question(body.encode(), ChatQuestion)
    else:
        assert name in refused(body.encode()).message


@pytest.mark.parametrize("longest", ["x", 1e9, 7.0, True, [], {}])
def test_a_length_that_is_not_counted_is_refused(longest: Any):
    """Ollama takes numbers of any kind for it, so only whole ones pass here."""
    body = json.dumps({"model": "m", "options": {"num_predict": longest}}).encode()
    for kind in (OllamaChat, OllamaGenerate):
        assert "num_predict" in refused(body, kind).message


@pytest.mark.parametrize("longest", [None, -2, -1, 0, 5])
def test_ollamas_own_lengths_pass(longest: int | None):
    """Whole numbers, those below 1 that mean no limit, and none."""
    body = json.dumps({"model": "m", "options": {"num_predict": longest}}).encode()
    question, _ = read_question(body, OllamaChat)
    assert question.options == {"num_predict": longest}


@pytest.mark.parametrize("images", [5, "abc", {"a": 1}, True])
def test_pictures_are_a_list(images: Any):
    """Anything else names no pictures."""
    body = {"model": "m", "messages": [{"role": "user", "images": images}]}
    assert "images" in refused(json.dumps(body).encode(), OllamaChat).message


@given(text=st.text())
def test_a_texts_length_is_its_bytes(text: str):
    """In UTF-8, as engines get it."""
    assert text_bytes(text) == len(text.encode())


@given(parts=st.lists(st.text()))
def test_lengths_add_up(parts: list[str]):
    """However the text is nested."""
    whole = sum(len(part.encode()) for part in parts)
    assert text_bytes(parts) == whole
    assert text_bytes([{"content": [{"text": part} for part in parts]}]) == whole


def test_tokens_count_as_tokens_and_hide_no_text():
    """A list of numbers is tokens; one number before a text makes no tokens of it."""
    assert text_bytes([1, 2, 3]) == 3 * BYTES_PER_TOKEN
    assert text_bytes([[1, 2], [3]]) == 3 * BYTES_PER_TOKEN
    assert text_bytes([0, "x" * 1000]) >= 1000


def test_a_picture_is_no_text():
    """Its bytes are no words of the prompt."""
    picture = {"type": "image_url", "image_url": {"url": "data:" + "x" * 1000}}
    assert text_bytes([picture]) < 20
