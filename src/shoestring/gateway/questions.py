"""What clients may ask, checked before anything is done with it.

A question is a JSON object of bounded depth; the fields that the gateway itself uses are checked,
all others go on to the engine as they are. Numbers that JSON does not have and halves of
characters are refused here, since no engine reads them.
"""

from __future__ import annotations

import json
from math import isfinite
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from shoestring.gateway.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_DEPTH = 32
MAX_MESSAGES = 4096
LINKS = frozenset({"image_url", "audio_url", "video_url"})
BYTES_PER_TOKEN = 4
"""For estimates before the engine has counted: English text has three to five bytes a token."""

ModelName = Annotated[str, Field(min_length=1, max_length=200)]
Tokens = Annotated[int, Field(ge=1, le=10**7)]
Temperature = Annotated[float, Field(ge=0, le=5)]


class Question(BaseModel):
    """A body; what is not named here goes on unread."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: ModelName


class Generating(Question):
    """What all questions to a generating model of OpenAI's API share."""

    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    n_predict: Tokens | None = None
    temperature: Temperature | None = None
    n: Annotated[int, Field(ge=1, le=16)] | None = None


class ChatQuestion(Generating):
    """``POST /v1/chat/completions``."""

    messages: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MAX_MESSAGES)]

    @field_validator("messages")
    @classmethod
    def _nothing_fetched(cls, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Engines fetch what links name, from where they stand: data only."""
        for message in messages:
            content = message.get("content")
            for part in content if isinstance(content, list) else ():
                for name in LINKS & part.keys() if isinstance(part, dict) else ():
                    link = part[name]
                    url = link.get("url") if isinstance(link, dict) else link
                    if url is not None and not str(url).startswith("data:"):
                        raise ValueError(f"{name}: send the data (data:...), links are not fetched")
        return messages


class CompletionQuestion(Generating):
    """``POST /v1/completions``."""

    prompt: str | list[str] | list[int] | list[list[int]]


class EmbeddingsQuestion(Question):
    """``POST /v1/embeddings``."""

    input: str | list[str] | list[int] | list[list[int]]


class OllamaQuestion(Question):
    """What Ollama's questions share."""

    stream: bool | None = None
    options: dict[str, Any] | None = None

    @field_validator("options")
    @classmethod
    def _length_counted(cls, options: dict[str, Any] | None) -> dict[str, Any] | None:
        longest = (options or {}).get("num_predict")
        # Ollama takes 1e9 for a length, too, so a number of another kind would pass uncounted.
        if longest is not None and type(longest) is not int:
            raise ValueError("num_predict: give a whole number")
        return options


class OllamaChat(OllamaQuestion):
    """``POST /api/chat``."""

    messages: Annotated[list[dict[str, Any]], Field(max_length=MAX_MESSAGES)] = []

    @field_validator("messages")
    @classmethod
    def _pictures_listed(cls, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        if not all(isinstance(message.get("images") or [], list) for message in messages):
            raise ValueError("images: give a list")
        return messages


class OllamaGenerate(OllamaQuestion):
    """``POST /api/generate``."""

    prompt: str = ""
    raw: bool | None = None


class OllamaEmbed(Question):
    """``POST /api/embed``."""

    input: str | list[str]


class OllamaShow(BaseModel):
    """``POST /api/show``."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: ModelName | None = None
    name: ModelName | None = None


class NoteQuestion(BaseModel):
    """``POST /generate``: the second note's own; without a model the first alias answers."""

    model_config = ConfigDict(strict=True, extra="forbid")

    prompt: Annotated[str, Field(min_length=1)]
    model: ModelName | None = None
    max_new_tokens: Annotated[int, Field(ge=1, le=10**6)] = 50
    temperature: Temperature = 0.7
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0


Asked = TypeVar("Asked", bound=BaseModel)


def read_question(body: bytes, kind: type[Asked]) -> tuple[Asked, dict[str, Any]]:
    """Return a body as it was checked and as it was sent.

    Raises:
        Refusal: it is no JSON object, too deep, or a field cannot be used; one line says which.
    """
    sent = _parse(body)
    _check_names(sent, kind.model_fields)
    if isinstance(sent.get("options"), dict):
        _check_names(sent["options"], dict.fromkeys(map(str.casefold, sent["options"])))
    try:
        return kind.model_validate(sent), sent
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        named = ".".join(str(part) for part in first["loc"][:2])[:80] or "body"
        where = "".join(filter(str.isprintable, named))  # a client's own word may be in it
        value = first.get("input")
        given = f" (got {value!r:.60})" if isinstance(value, str | int | float) else ""
        raise Refusal(400, "bad_value", f"{where}: {first['msg']}{given}") from error


def text_bytes(value: Any) -> int:
    """Return how many bytes of text a part of a question holds, pictures left out."""
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode())
    if isinstance(value, list):
        if value and set(map(type, value)) == {int}:
            return BYTES_PER_TOKEN * len(value)  # tokens already
        return sum(map(text_bytes, value))
    if isinstance(value, dict):
        return sum(
            text_bytes(one) for name, one in value.items() if name not in {"image_url", "images"}
        )
    return 0


def _parse(body: bytes) -> dict[str, Any]:
    try:
        sent = _JSON.decode(body.decode())
        # Halves of surrogate pairs are JSON, but no text.
        json.dumps(sent, ensure_ascii=False).encode() if b"\\u" in body else None
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "bad_json", "the body is no JSON that can be read") from error
    if not isinstance(sent, dict):
        raise Refusal(400, "bad_json", "the body is no JSON object")
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _deeper(sent, MAX_DEPTH):
        raise Refusal(400, "bad_json", f"the body is nested over {MAX_DEPTH} levels")
    return sent


def _check_names(sent: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse a field that is a known one in other letters.

    Ollama reads ``MODEL`` as ``model``, and the last one counts: what was checked here would not be
    what is answered there.
    """
    plain = {name.casefold(): name for name in known}
    for name in sent:
        meant = plain.get(name.casefold(), name)
        if name != meant:
            raise Refusal(400, "bad_value", f"{name[:40]!r}: write it as {meant[:40]!r}")


def _finite(text: str) -> float:
    number = float(text)
    return number if isfinite(number) else _no_number(text)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


_JSON = json.JSONDecoder(parse_constant=_no_number, parse_float=_finite)
"""Made once: making one costs as much as reading a short question."""


def _deeper(value: Any, levels: int) -> bool:
    if isinstance(value, dict):
        inner: Any = value.values()
    elif isinstance(value, list):
        inner = value
    else:
        return False
    return levels == 0 or any(_deeper(one, levels - 1) for one in inner)
