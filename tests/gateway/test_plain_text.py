"""Words of a user that a chat template would take for its own: found, broken, and nothing else."""

import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shoestring.gateway.plain_text import BREAK, FAMILIES, PlainText, marks_of_template

FAMILY = re.compile("|".join(FAMILIES))
KNOWN = [
    "<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<\uff5cUser\uff5c>", "<s>",
    "</s>", "<bos>", "<start_of_turn>", "<end_of_turn>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>",
    "[SYSTEM_PROMPT]", "[TOOL_CALLS]", "<|user|>", "<|channel|>", "<|END_OF_TURN_TOKEN|>",
    "<unused5>", "<extra_id_0>", "<|tool>", "<tool|>",
]  # fmt: skip
TEMPLATE = "{{ bos }}<start_of_image>{% for m in messages %}[OWN]<turn:{{ m }}><mine>\n{% endfor %}"
scraps = st.sampled_from([
    *KNOWN, "<", "|", ">", "[", "]", "/", "<|", "|>", "im_", "start", "SYS", "INST", BREAK, " ",
    "<mine>", "<mi", "ne>", "[OWN]", "\n", "a", "x < y and y > z", "list[int]",
])  # fmt: skip
texts = st.lists(scraps).map("".join) | st.text()
plain_texts = st.sampled_from([PlainText(), PlainText(marks_of_template(TEMPLATE))])


def without_breaks(text: str) -> str:
    """What a reader sees."""
    return text.replace(BREAK, "")


@given(text=texts, finder=plain_texts)
def test_no_mark_is_left_and_no_word_is_lost(text: str, finder: PlainText):
    """Nothing that a family or the template knows; only invisible characters are added."""
    plain = finder.plain(text)
    assert FAMILY.search(plain) is None
    assert not finder.holds_marks(plain)
    assert without_breaks(plain) == without_breaks(text)
    assert finder.plain(plain) == plain


@given(text=texts, finder=plain_texts)
def test_a_text_without_marks_is_as_it_was(text: str, finder: PlainText):
    """Code, mathematics and brackets of all kinds."""
    if not finder.holds_marks(text):
        assert finder.plain(text) == text


@pytest.mark.parametrize("mark", KNOWN)
def test_the_usual_marks_are_known(mark: str):
    """With no template to learn from."""
    plain = PlainText().plain(f"a{mark}b")
    assert plain.startswith(f"a{mark[0]}{BREAK}")
    assert without_breaks(plain) == f"a{mark}b"


@pytest.mark.parametrize(
    "text",
    ["a < b > c", "x[0]", "[1, 2]", "<html><b>", "if a<b|c>d:", "List[INT]", "<||", "[ INST ]"],
)
def test_usual_writing_is_no_mark(text: str):
    """Programs and prose are let alone."""
    assert PlainText().plain(text) == text


def test_a_templates_own_marks_are_learnt():
    """What stands between the turns; what is a name for something else does not."""
    marks = marks_of_template(TEMPLATE)
    assert {"<start_of_image>", "[OWN]", "<mine>"} <= marks
    assert not PlainText(marks).holds_marks("messages and bos")
    assert PlainText(marks).holds_marks("x<mine>y")


@given(template=st.text() | st.lists(scraps).map("".join), text=texts)
def test_any_template_gives_marks_that_can_be_broken(template: str, text: str):
    """It comes from an engine: whatever it holds, a text ends up without its marks."""
    finder = PlainText(marks_of_template(template))
    assert not finder.holds_marks(finder.plain(text))


@given(
    pieces=st.lists(texts, min_size=1, max_size=4),
    padding=st.sampled_from(["", " ", "\n", " \n "]),
    finder=plain_texts,
)
@example(pieces=["<|im_", "start|>"], padding="", finder=PlainText())
@example(pieces=["<|im_", "start|>"], padding="\n", finder=PlainText())
@example(pieces=["[", "IN", "ST]"], padding=" ", finder=PlainText())
def test_no_mark_is_made_of_two_parts(pieces: list[str], padding: str, finder: PlainText):
    """Templates join the parts of a message, some without their blanks at the ends."""
    parts = [{"type": "text", "text": padding + piece + padding} for piece in pieces]
    (message,) = finder.plain_messages([{"role": "user", "content": parts}])
    told = [part["text"] for part in message["content"]]
    assert FAMILY.search("".join(told)) is None
    assert FAMILY.search("".join(text.strip() for text in told)) is None


def test_parts_that_make_no_mark_are_as_they_were():
    """No break is put where there is nothing to break."""
    parts = [{"type": "text", "text": "a <"}, {"type": "text", "text": " b"}, {"type": "x"}]
    messages = [{"role": "user", "content": parts}]
    assert PlainText().plain_messages(messages) == messages


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user<|im_end|>", "content": "x"},
        {"role": "user", "content": [{"type": "text", "text": "<|im_end|>"}]},
        {"role": "assistant", "tool_calls": [{"function": {"arguments": {"url": "<|im_end|>"}}}]},
        {"role": "assistant", "tool_calls": [{"function": {"arguments": {"data": ["<s>"]}}}]},
        {"role": "assistant", "tool_calls": [{"function": {"arguments": {"<|im_end|>": 1}}}]},
        {"role": "user", "content": [{"type": "image_url", "image_url": "<|im_end|>"}]},
        {"role": "tool", "name": "</s>", "content": None},
    ],
)
def test_no_corner_of_a_message_is_left_out(message: dict[str, Any]):
    """Roles, names, keys and arguments of tools are put into the prompt, too."""
    (told,) = PlainText().plain_messages([message])
    assert FAMILY.search(repr(told)) is None
    assert without_breaks(repr(told).replace("\\u200b", "")) == repr(message)


def test_a_picture_is_as_it_was():
    """Addresses and base64 hold no marks."""
    messages = [{"role": "user", "images": ["QUJD+/="], "content": [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD+/="}}]}]  # fmt: skip
    assert PlainText().plain_messages(messages) == messages


def test_what_is_no_message_is_as_it_was():
    """The engine says what it thinks of it."""
    assert PlainText().plain_messages([None, 5, []]) == [None, 5, []]


def test_every_known_pair_is_broken():
    """Marks next to each other do not shield one another."""
    for first, second in pairwise(KNOWN):
        assert not PlainText().holds_marks(PlainText().plain(first + second))
