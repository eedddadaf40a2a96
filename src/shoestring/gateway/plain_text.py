"""Words of a user that a chat template would take for its own control tokens.

Engines render a conversation into one text and read marks like ``<|im_start|>`` in it as single
control tokens, wherever they stand: a user who writes them can close their own turn and speak as
the system. No validation of lengths or types prevents that. Here such marks are found, the usual
families and those of the model's own template, and broken by a zero-width space after their first
character, so that the model reads them as plain text. A text completion has no turns and is left
as it is.

Sources of the families: the chat templates of ChatML (Qwen), Llama 2 and 3, Gemma, Mistral, Phi,
DeepSeek, Command R, GPT-OSS, Granite.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

BREAK = "\u200b"
FAMILIES = (
    r"<[|\uff5c][^<>|\uff5c\n]{1,64}[|\uff5c]>",  # <|im_start|>, <|eot_id|>, DeepSeek's wide bars
    r"</?(?:s|bos|eos|pad|unk|mask|end_of_turn|start_of_turn|end_of_text|eot|sep|cls)>",
    r"\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS|TOOL_CONTENT|THINK|IMG)\]",
    r"<<?/?SYS>?>",
    r"<(?:unused|extra_id_|reserved_)[0-9]{1,5}>",
    r"<\|[A-Za-z0-9_]{1,64}>|<[A-Za-z0-9_]{1,64}\|>",  # one bar, as some templates have
)
_MARKS = re.compile("|".join(FAMILIES))
_OPENING = re.compile(r"[<\[]")
_IN_TEMPLATE = re.compile(r"<[^\s<>{}%'\"]{1,64}>|\[/?[A-Z_]{2,32}\]")


def marks_of_template(template: str) -> frozenset[str]:
    """Return the marks that a chat template writes between the turns."""
    return frozenset(_IN_TEMPLATE.findall(template))


class PlainText:
    """Finds and breaks control tokens.

    Args:
        marks: of a model's own template, beside the usual families.
    """

    def __init__(self, marks: Iterable[str] = ()) -> None:
        own = sorted((re.escape(mark) for mark in marks), key=len, reverse=True)
        self._marks = re.compile("|".join([*own, *FAMILIES])) if own else _MARKS

    def holds_marks(self, text: str) -> bool:
        """Whether an engine might read a control token in it."""
        return ("<" in text or "[" in text) and self._marks.search(text) is not None

    def plain(self, text: str) -> str:
        """Return the text with every mark broken; a mark made by breaking another one too."""
        while self.holds_marks(text):
            text = self._marks.sub(lambda found: found[0][0] + BREAK + found[0][1:], text)
        return text

    def plain_messages(self, messages: list[Any]) -> list[Any]:
        """Return the messages of a conversation with plain texts, whoever is said to speak."""
        return [self._value(message) for message in messages]

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.plain(value)
        if isinstance(value, list):
            return self._apart([self._value(one) for one in value])
        if isinstance(value, dict):
            return {self.plain(name): self._value(inner) for name, inner in value.items()}
        return value

    def _apart(self, parts: list[Any]) -> list[Any]:
        """Return parts whose texts make no mark together.

        Templates join them, some without the blanks at their ends.
        """
        texts = [part["text"] for part in parts if _is_text(part)]
        joined = "".join(texts), "".join(map(str.strip, texts))
        if len(texts) < 2 or not any(map(self.holds_marks, joined)):  # noqa: PLR2004 - a pair
            return parts
        return [
            {**part, "text": _OPENING.sub(rf"\g<0>{BREAK}", part["text"])}
            if _is_text(part)
            else part
            for part in parts
        ]


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and isinstance(part.get("text"), str)
