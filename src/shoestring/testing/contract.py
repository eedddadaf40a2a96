"""What every engine must do, whatever it is: one suite for all of them.

Each check takes an engine that was started and loaded, uses nothing but the protocol, and raises
AssertionError with what was broken. :data:`CHECKS` holds them all; a test runs each against each
engine. What only an engine of ours can do (:data:`OWN_CHECKS`: its process, its memory) stands
apart.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from shoestring.engines.protocol import Patience, Prompt
from shoestring.engines.transport import Cancellation

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoestring.engines.protocol import Engine, Generation

TOKENS = 12
QUESTION = "The quick brown fox tells a long story about the sea, and it begins like this:"


def ask(engine: Engine, *, tokens: int = TOKENS, nonce: str = "a") -> Generation:
    """Send one short greedy prompt."""
    return engine.generate(Prompt(f"[{nonce}] {QUESTION}", tokens, fixed_length=True))


def answers_with_stamps_in_order(engine: Engine) -> None:
    """A good answer has text, and its stamps follow each other on one clock."""
    made = ask(engine)
    assert made.failure is None, made.failure
    assert made.text, "a good answer has text"
    assert made.sent_ns is not None, "a good answer was sent"
    assert made.headers_ns is not None, "a good answer has a head"
    stamps = [made.intended_ns, made.sent_ns, made.headers_ns, *(e.t_ns for e in made.events)]
    assert stamps == sorted(stamps), "stamps go backwards"
    assert made.end_ns >= stamps[-1], "the end comes before the last event"


def streams_its_text(engine: Engine) -> None:
    """Text comes in several chunks, whose sizes add up to the text."""
    made = ask(engine)
    chunks = [event for event in made.events if event.kind == "answer"]
    assert len(chunks) > 1, "the answer came in one piece: it is not streamed"
    assert sum(chunk.size_bytes for chunk in chunks) == len(made.text.encode())


def says_why_it_ended(engine: Engine) -> None:
    """A limit of tokens is kept, counted by the engine, and named as the reason of the end."""
    made = ask(engine)
    assert made.usage is not None, "the engine counts no tokens"
    assert made.usage.completion_tokens is not None, "the engine counts no output tokens"
    assert made.usage.completion_tokens <= TOKENS, "more tokens than were allowed"
    assert made.usage.prompt_tokens, "the engine counts no prompt tokens"
    wanted = "length" if made.usage.completion_tokens == TOKENS else "stop"
    assert made.finish_reason == wanted, f"{made.finish_reason} is not {wanted}"


def takes_a_dialogue(engine: Engine) -> None:
    """Earlier turns of a dialogue are part of the prompt."""
    alone = engine.generate(Prompt("And what then?", 4))
    turns = ("Tell me of the harbour.", "The harbour lies below the hill.")
    after = engine.generate(Prompt("And what then?", 4, turns=turns))
    assert after.failure is None, after.failure
    short, long = (
        made.usage.prompt_tokens if made.usage is not None else None for made in (alone, after)
    )
    assert short is not None, "the engine counts no prompt tokens"
    assert long is not None, "the engine counts no prompt tokens of a dialogue"
    assert long > short + 5


def answers_two_at_once(engine: Engine) -> None:
    """Two requests at the same time both end well."""
    made: list[Generation] = []
    threads = [
        threading.Thread(target=lambda n=number: made.append(ask(engine, nonce=f"two{n}")))
        for number in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [generation.failure for generation in made] == [None, None]


def survives_a_cancelled_answer(engine: Engine) -> None:
    """An answer that is broken off is no success, and the next one is not disturbed."""
    cancellation = Cancellation()
    recording = engine.record(
        Prompt(f"[cut] {QUESTION}", 400, fixed_length=True),
        cancellation=cancellation,
        on_sent=cancellation.cancel,
    )
    assert recording.broken, "a cancelled exchange must say that it is broken"
    assert recording.read().failure is not None, "a cut answer was called a success"
    assert ask(engine).failure is None, "the next answer suffered"


def keeps_the_deadline(engine: Engine) -> None:
    """A request that takes too long ends as a failure with its reason."""
    made = engine.generate(
        Prompt(f"[late] {QUESTION}", 400, fixed_length=True), patience=Patience(request_s=0.02)
    )
    assert made.failure is not None, "a request outlasted its deadline"
    assert made.failure.reason in ("deadline", "headers_timeout"), made.failure
    assert ask(engine).failure is None, "the next answer suffered"


def counts_tokens_or_says_that_it_cannot(engine: Engine) -> None:
    """A count of tokens grows with the text, or is None."""
    short, long = engine.count_tokens("one"), engine.count_tokens("one two three four five")
    assert (short is None) == (long is None)
    if short is not None:
        assert long is not None
        assert 0 < short < long


def says_that_it_is_healthy(engine: Engine) -> None:
    """A loaded engine is healthy and not lost."""
    assert engine.healthy()
    assert engine.lost() is None


def loads_again_after_unloading(engine: Engine) -> None:
    """An engine that was unloaded answers once it is loaded again."""
    engine.unload()
    engine.load()
    assert ask(engine).failure is None


def is_gone_after_stopping(engine: Engine) -> None:
    """A stopped engine of ours has no process, is not healthy, and may be stopped twice."""
    engine.stop()
    engine.stop()
    assert engine.pid is None
    assert not engine.healthy()


CHECKS: tuple[Callable[[Engine], None], ...] = (
    answers_with_stamps_in_order,
    streams_its_text,
    says_why_it_ended,
    takes_a_dialogue,
    answers_two_at_once,
    survives_a_cancelled_answer,
    keeps_the_deadline,
    counts_tokens_or_says_that_it_cannot,
    says_that_it_is_healthy,
    loads_again_after_unloading,
)
OWN_CHECKS: tuple[Callable[[Engine], None], ...] = (is_gone_after_stopping,)
"""The last thing that is done with an engine."""
