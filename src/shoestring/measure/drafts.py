"""What is asked: one draft for each kind of prompt, which filling brings to a wanted length.

The texts are our own and lie in ``measure/prompts/``. What a prompt cannot do without (a puzzle,
a function, the source that holds the answer) is never cut; the filling around it is, between two
words.
"""

from __future__ import annotations

import json
import random
import re
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shoestring.measure.suite import Case

TASKS = {
    "chat": "Answer in a few clear sentences.",
    "document": "Summarise the text above and name its three most surprising facts.",
    "rag": "Answer in one or two sentences from the sources above, and name the number of the one "
    "that you used.",
    "reasoning": "Work it out step by step, and end with the answer in one sentence.",
    "structured": "Answer with the JSON alone.",
}


@dataclass(frozen=True)
class Draft:
    """A prompt that can still be made longer.

    Attributes:
        texts: of a dialogue, user and assistant in turn, the asked user's last; else one text.
            They hold no filling.
        filling: pieces that may follow, each a word with the space before it.
        tail: what stands behind the filling, where there is one text.
        asked: how many of the texts this request sends; the rest of a dialogue comes later.
        schema: that the answer has to fit.
    """

    texts: tuple[str, ...]
    filling: tuple[str, ...]
    tail: str = ""
    asked: int = 1
    schema: dict[str, Any] | None = None

    def compose(self, length: int) -> tuple[str, ...]:
        """Return all texts with ``length`` words of filling."""
        if len(self.texts) == 1:
            return (self.texts[0] + "".join(self.filling[:length]) + self.tail,)
        answers = len(self.texts) // 2
        texts = list(self.texts)
        for number in range(answers):  # the assistant's texts grow, all alike
            start, end = (length * part // answers for part in (number, number + 1))
            texts[2 * number + 1] += "".join(self.filling[start:end])
        return tuple(texts)


def make_draft(case: Case, request_id: str, seed: int, salt: str | None) -> Draft:
    """Draft the prompt of one request; its nonce stands in front of all.

    The nonce comes from salt and id, all else from seed and id. In a dialogue the conversation
    takes the id's place. Its requests are consecutive: request ``n`` is turn ``(n - 1) % turns``
    of its conversation, so that each begins with what the one before it sent.
    """
    if case.turns is not None:
        stem, _, number = request_id.rpartition("-")
        conversation, turn = divmod(int(number) - 1, case.turns)
        nonce, rng = _begin(f"{stem}/conversation {conversation}", seed, salt)
        draft = _dialogue(nonce, rng, case.prompt_tokens, case.turns)
        return replace(draft, asked=2 * turn + 1)
    nonce, rng = _begin(request_id, seed, salt)
    return KINDS[case.prompt](nonce, rng, case.prompt_tokens)


def _begin(name: str, seed: int, salt: str | None) -> tuple[str, random.Random]:
    """Return the nonce of a prompt, and what draws the rest: the same text in every run."""
    rng = random.Random(f"{seed}/{name}")
    bits = rng.getrandbits(48)
    if salt is not None:  # older runs have none, and go on with the nonces that they began with
        bits = random.Random(f"{salt}/{name}").getrandbits(48)
    return f"[{bits:012x}]", rng


def _chat(nonce: str, rng: random.Random, words: int) -> Draft:
    question = rng.choice(_lines("questions.txt"))
    return Draft((f"{nonce} ",), _sentences(rng, words, question), f"\n{TASKS['chat']}")


def _document(nonce: str, rng: random.Random, words: int) -> Draft:
    return Draft((f"{nonce} ",), _sentences(rng, words), f"\n{TASKS['document']}")


def _code(nonce: str, rng: random.Random, words: int) -> Draft:
    """Ask about the first of several fragments; the last of them may be cut."""
    fragments = list(_fragments())
    task, code = fragments.pop(rng.randrange(len(fragments)))
    others = _filling(rng, [f"\n\n{other}" for _, other in fragments], "", words)
    return Draft((f"{nonce}\n{code}",), others, f"\n\n{task}")


def _structured(nonce: str, rng: random.Random, words: int) -> Draft:
    item = rng.choice(_json("structured.json"))
    tail = f"\n{item['task']} {TASKS['structured']}"
    head = f"{nonce} {item['text']}\nOther notes of the day: "
    return Draft((head,), _sentences(rng, words), tail, schema=item["schema"])


def _rag(nonce: str, rng: random.Random, words: int) -> Draft:
    """Give sources with their numbers, of which the first or the last answers the question."""
    items = list(enumerate(_json("rag.json"), start=1))
    number, item = items.pop(rng.randrange(len(items)))
    source = f"\nSource {number}: {item['source']}"
    others = _filling(rng, [f"\nSource {n}: {other['source']}" for n, other in items], "", words)
    task = f"\nQuestion: {item['question']}\n{TASKS['rag']}"
    if rng.random() < 0.5:  # noqa: PLR2004 - one or the other
        return Draft((f"{nonce}{source}",), others, task)
    return Draft((nonce,), others, source + task)


def _reasoning(nonce: str, rng: random.Random, words: int) -> Draft:
    tail = f"\nThe puzzle: {rng.choice(_lines('reasoning.txt'))}\n{TASKS['reasoning']}"
    return Draft((f"{nonce} Before the puzzle, some lines to pass over: ",),
                 _sentences(rng, words), tail)  # fmt: skip


def _dialogue(nonce: str, rng: random.Random, words: int, turns: int) -> Draft:
    """Chain scripted dialogues until there are ``turns`` questions; the last has no answer yet."""
    scripts = list(_json("dialogues.json"))
    rng.shuffle(scripts)
    exchanges = [exchange for script in scripts for exchange in script][:turns]
    texts = [text for exchange in exchanges for text in exchange][:-1]
    texts[0] = f"{nonce} {texts[0]}"
    return Draft(tuple(texts), tuple(f" {word.strip()}" for word in _sentences(rng, words)))


KINDS: dict[str, Callable[[str, random.Random, int], Draft]] = {
    "chat": _chat,
    "document": _document,
    "code": _code,
    "structured": _structured,
    "rag": _rag,
    "reasoning": _reasoning,
}


def _sentences(rng: random.Random, words: int, first: str = "") -> tuple[str, ...]:
    return _filling(rng, _lines("sentences.txt"), " ", words, first)


def _filling(
    rng: random.Random, items: Sequence[str], separator: str, words: int, first: str = ""
) -> tuple[str, ...]:
    """Return so many words of shuffled items, each with the space before it.

    As many words as tokens are wanted are enough: a token is rarely longer than a word.
    """
    order = list(items)
    parts = [first] if first else []
    while sum(len(part.split()) for part in parts) < words:
        rng.shuffle(order)
        parts += order
    return tuple(re.findall(r"\s*\S+", separator.join(parts))[:words])


@cache
def _fragments() -> tuple[tuple[str, str], ...]:
    """Return task and code of each fragment."""
    parts = _read("code.txt").strip().split("\n----\n")
    return tuple((task, code) for task, _, code in (part.partition("\n") for part in parts))


@cache
def _lines(name: str) -> tuple[str, ...]:
    return tuple(_read(name).splitlines())


@cache
def _json(name: str) -> tuple[Any, ...]:
    return tuple(json.loads(_read(name)))


def _read(name: str) -> str:
    return (files("shoestring.measure") / "prompts" / name).read_text(encoding="utf-8")
