"""The conversation at a terminal: what it says, where, and how it is ended."""

import asyncio
import json
import os
import pty
import signal
import subprocess
import sys

import pytest

from shoestring.errors import EngineLostError
from shoestring.swarm.chat import Conversation, Terminal, Told
from tests.swarm.fronts import Canned, Engines

PROGRAM = """
import asyncio, sys
from shoestring.swarm.chat import Conversation, converse

def say(line):
    print(line, file=sys.stderr, flush=True)

url, key, limit, *message = sys.argv[1:]
conversation = Conversation(url, key, temperature=0, max_tokens=int(limit) or None)
message = message[0] if message else None
asyncio.run(converse(conversation, message=message, layers=lambda: "layers on: a", say=say))
"""
END_S = 120.0


async def started(front, limit, *words, stdin=subprocess.PIPE):
    """Let a conversation with a front begin in a process of its own."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, front.url, front.key, str(limit), *words,
        stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.engine
def test_each_line_of_a_file_is_a_question_and_is_remembered(small_model, tmp_path):
    """Answers alone go to standard output; each is followed by its figures on the other."""
    questions = tmp_path / "questions.txt"
    questions.write_text("Say: one.\n\nSay: two.")

    async def run():
        async with Engines(small_model).front() as (front, _):
            with questions.open() as file:
                talk = await started(front, 12, stdin=file)
                out, err = await asyncio.wait_for(talk.communicate(), END_S)
            conversation = Conversation(front.url, front.key, temperature=0, max_tokens=12)
            asked = ("Say: one.", "Say: two.")
            texts = [(await conversation.ask(one, lambda _: None)).text for one in asked]
        return talk.returncode, out.decode(), err.decode().splitlines(), texts

    status, out, err, texts = asyncio.run(run())
    assert (status, out) == (0, "".join(f"{text}\n" for text in texts))
    assert len(err) == 2
    for line in err:
        assert line.startswith("[first word after ")
        assert "12 tokens, " in line
        assert line.endswith(" tokens/s; layers on: a]")


@pytest.mark.engine
def test_ctrl_c_ends_the_answer_and_then_the_program(small_model):
    """At a terminal: the first while it answers, the second while it waits for a question."""

    async def run():
        async with Engines(small_model).front() as (front, _):
            ours, theirs = pty.openpty()
            talk = await started(front, 0, stdin=theirs)
            os.close(theirs)
            seen = [await talk.stderr.readline()]
            os.write(ours, b"Count for ever.\n")
            await talk.stdout.read(4)
            talk.send_signal(signal.SIGINT)
            seen.append(await talk.stderr.readline())
            talk.send_signal(signal.SIGINT)
            await asyncio.wait_for(talk.communicate(), END_S)
            os.close(ours)
        return talk.returncode, seen

    status, seen = asyncio.run(run())
    assert seen == [b"Ask; Ctrl-C ends an answer, Ctrl-D the conversation.\n", b"> [ended]\n"]
    assert status == 0


@pytest.mark.engine
def test_one_message_is_answered_over_a_lost_engine(small_model):
    """Nobody who reads it can tell."""

    async def run():
        engines = Engines(small_model)
        async with engines.front() as (front, kept):
            outs = []
            for _ in range(2):
                talk = await started(front, 24, "Tell me about the sea.")
                outs.append(await asyncio.wait_for(talk.communicate(), END_S))
                engines.aim(kept, 8)
        assert len(engines.made) == 2
        return [out for out, _ in outs]

    undisturbed, disturbed = asyncio.run(run())
    assert undisturbed == disturbed
    assert len(undisturbed) > 40


@pytest.mark.engine
def test_an_error_ends_it_with_what_was_said(small_model):
    """Not with a short answer."""

    async def run():
        async with Engines(small_model).front() as (front, _):
            await Conversation(front.url, "wrong").ask("Hello.", lambda _: None)

    with pytest.raises(EngineLostError, match="Invalid API Key"):
        asyncio.run(run())


def test_what_a_terminal_would_obey_is_not_written():
    """A model says what its question's documents say; joined emojis and lines stay."""
    said = "a\x1b]52;c;aGk=\x07\x9b2J\u200d\r\n\tb"
    chunks = [{"choices": [{"delta": {"content": said}}]}, {"error": {"message": said}}]
    events = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + events
    written = []

    async def run():
        async with Canned(answer).front() as (front, _):
            with pytest.raises(EngineLostError) as error:
                await Conversation(front.url, front.key).ask("?", written.append)
        return str(error.value)

    assert asyncio.run(run()) == "a]52;c;aGk=2J\u200d b"
    assert written == ["a]52;c;aGk=2J\u200d\n\tb"]


def test_figures_that_are_not_known_are_not_told():
    """None of them is guessed."""
    assert Told().figures("here") == "[no word; here]"
    one = Told("a", tokens=1, first_s=0.25)
    assert one.figures("here") == "[first word after 0.25 s, 1 tokens; here]"
    more = Told("a b", tokens=11, first_s=0.5, rest_s=2.0)
    assert more.figures("here") == "[first word after 0.50 s, 11 tokens, 5.0 tokens/s; here]"


def test_lines_come_whole_from_a_pipe_that_is_written_in_bits():
    """Also the last without an end, and characters of several bytes."""

    async def run():
        reading, writing = os.pipe()
        lines = Terminal(reading).lines()
        os.write(writing, "é one\ntwo ".encode()[:1])
        first = asyncio.ensure_future(anext(lines))
        await asyncio.sleep(0)
        os.write(writing, "é one\ntwo ".encode()[1:])
        got = [await first]
        os.close(writing)
        got += [line async for line in lines]
        os.close(reading)
        return got

    assert asyncio.run(run()) == ["é one", "two"]
