"""How fast this machine runs a few small models: what a calibration of the planner is fitted to.

Each model answers one short prompt at length (decoding from a nearly empty context) and one long
prompt with a single token (prefill), each some times after one warm-up. The fastest counts: what
else runs on a machine only slows, and a median of a few moves with it. Rates are by the engine's
own clock, which leaves out the way there and back::

    decode = (tokens - 1) / seconds of decoding        prefill = tokens / seconds of the prompt

The models are random weights in true shapes: speed does not depend on what the weights mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from shoestring.engines.opening import open_engine
from shoestring.engines.protocol import NativeTimings, Prompt
from shoestring.errors import EngineLostError
from shoestring.measure.prompting import make_prompt
from shoestring.measure.suite import Case

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoestring.engines.protocol import Engine

CALIBRATION = (
    "smollm2-135m:q8_0",  # thirty small layers: what a layer costs
    "gemma-3-270m:q4_k_m",  # mostly vocabulary: what an output costs
    "llama-3.2-1b:q4_k_m",  # what most people run, whole: a cut model has another mix of types
    "qwen3-0.6b:q6_k",
    "tinyllama-1.1b/8:q4_0",
    "tinyllama-1.1b/8:q8_0",
    "tinyllama-1.1b/8:f16",
)
"""Shapes of different types, 140 to 930 MB; once they are made, two minutes on two cores."""
CONTEXT = 768
ANSWER = Case("answer", "chat", 32, 48, 1, 1)
PROMPT = Case("prompt", "document", 512, 1, 1, 1)
TIMES = 4


@dataclass(frozen=True)
class SpeedTrial:
    """One model as it ran here.

    Attributes:
        shape: as after ``shape:``.
        engine: that ran it, with its version.
        prompt_tokens: of the long prompt.
        decode_tokens_per_s: after a short prompt, the best.
        prefill_tokens_per_s: of the long prompt, the best.
    """

    shape: str
    engine: str
    prompt_tokens: int
    decode_tokens_per_s: float
    prefill_tokens_per_s: float


def measure_speed(
    shape: str, *, engine: str, times: int = TIMES, say: Callable[[str], None]
) -> SpeedTrial:
    """Run one model.

    Args:
        shape: as after ``shape:``; it is made if it is not in the cache.
        engine: ``embedded`` or ``llama-server``.
        times: requests of each kind.
        say: told what is run.

    Raises:
        EngineLostError: a request was not answered.
        UserError: the model or the engine cannot be used.
    """
    say(f"running shape:{shape} in {engine}")
    with open_engine(f"shape:{shape}", engine=engine, context=CONTEXT) as opened:
        _answer(opened, "warm-up")
        answers = [_answer(opened, f"answer-{number}") for number in range(times)]
        prompts = [_prompt(opened, f"prompt-{number}") for number in range(times)]
        version = opened.version() or engine
    return SpeedTrial(
        shape=shape,
        engine=version,
        prompt_tokens=round(median(tokens for tokens, _ in prompts)),
        decode_tokens_per_s=max((tokens - 1) / took_s for tokens, took_s in answers),
        prefill_tokens_per_s=max(tokens / took_s for tokens, took_s in prompts),
    )


def _answer(engine: Engine, request: str) -> tuple[int, float]:
    """Return the tokens of an answer and the seconds of its decoding."""
    said = _ask(engine, ANSWER, request)
    return _told(engine, said.decode_tokens, said.decode_s)


def _prompt(engine: Engine, request: str) -> tuple[int, float]:
    """Return the tokens of a prompt and the seconds of its prefill."""
    said = _ask(engine, PROMPT, request)
    return _told(engine, said.prompt_tokens, said.prompt_s)


def _ask(engine: Engine, case: Case, request: str) -> NativeTimings:
    text = make_prompt(case, request, 1, engine.count_tokens).text
    made = engine.generate(Prompt(text, case.output_tokens, fixed_length=True))
    if made.failure is not None:
        raise EngineLostError(f"{engine.model_id} in {engine.name}: {made.failure.detail}")
    return made.native or NativeTimings()


def _told(engine: Engine, tokens: int | None, took_s: float | None) -> tuple[int, float]:
    if not tokens or not took_s:
        raise EngineLostError(f"{engine.name} does not say how long it took: use llama-server")
    return tokens, took_s
