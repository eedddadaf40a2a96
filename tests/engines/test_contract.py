"""The contract, held by every engine that is here; CI has them all but KoboldCpp.

KoboldCpp and vLLM are held to it against servers written from their published APIs, too: that
holds our adapter to the API, and says nothing about the engines.
"""

from dataclasses import replace

import pytest

from shoestring.engines.koboldcpp import KoboldCppEngine
from shoestring.engines.openai import OpenAIEngine
from shoestring.engines.opening import find_subject, make_engine
from shoestring.engines.protocol import Prompt
from shoestring.testing.contract import CHECKS, OWN_CHECKS
from shoestring.testing.engines import need_program
from shoestring.testing.kobold_server import running_koboldcpp
from shoestring.testing.vllm_server import running_vllm

MODEL = "pypi:gemma3-270m"


@pytest.fixture(
    scope="module",
    params=[
        "embedded", "llama-server", "llama-server-chat", "ollama", "ollama-chat", "koboldcpp",
        "truth", "koboldcpp-api", "koboldcpp-api-completions", "vllm-api",
    ],
)  # fmt: skip
def engine(request, tmp_path_factory):
    """Each engine, started and loaded, with two slots."""
    name = request.param
    if name == "truth":
        url = request.getfixturevalue("truth_url")
        with OpenAIEngine(url, "truth-ttft50-itl5-n400") as opened:
            yield opened
        return
    if name.startswith("koboldcpp-api"):
        endpoint = "completions" if name.endswith("completions") else "chat"
        with (
            running_koboldcpp() as server,
            KoboldCppEngine("words", base_url=server.base_url, endpoint=endpoint) as opened,
        ):
            yield opened
        return
    if name == "vllm-api":
        with (
            running_vllm() as server,
            OpenAIEngine(server.base_url, "words") as opened,
        ):
            yield opened
        return
    program = name.removesuffix("-chat")
    if program != "embedded":
        need_program(program)
    request.getfixturevalue("small_model")
    subject = find_subject(MODEL, program)
    if name != program:  # the model is a base model, which is asked for completions else
        subject = replace(subject, facts=replace(subject.facts, chat_template=True))
    log = tmp_path_factory.mktemp(name) / "engine.log"
    with make_engine(subject, context=512, parallel=2, log_path=log) as opened:
        yield opened
        for check in OWN_CHECKS:
            check(opened)


@pytest.mark.engine
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(engine, check):
    """Every engine does what the protocol says."""
    check(engine)


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning_of_vllm_is_read_under_either_name(name):
    """The field was renamed; thinking is asked for by the template's own argument."""
    with running_vllm(reasoning_field=name) as server:
        made = OpenAIEngine(server.base_url, "words").generate(Prompt("a b c", 8, thinking=True))
    assert made.failure is None
    assert len(made.reasoning.split()) == 4
    assert len(made.text.split()) == 4


@pytest.mark.parametrize(("tells", "cached"), [(True, 32), (False, None)])
def test_cached_tokens_of_vllm_are_whole_blocks_or_unknown(tells, cached):
    """A server that does not tell of its cache gives None, not 0."""
    long = " ".join(map(str, range(40)))
    with running_vllm(tells_cached=tells) as server:
        engine = OpenAIEngine(server.base_url, "words")
        engine.generate(Prompt(long, 4))
        usage = engine.generate(Prompt(f"{long} and more", 4)).usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (47, 4)
    assert usage.cached_tokens == cached


@pytest.mark.parametrize(
    ("model", "tokens", "status", "message"),
    [("other", 4, 404, "does not exist"), ("words", 9_000, 400, "maximum context length")],
)
def test_refusals_of_vllm_are_failures_with_its_words(model, tokens, status, message):
    """What vLLM refuses is a row with the reason that it gave."""
    with running_vllm() as server:
        made = OpenAIEngine(server.base_url, model).generate(Prompt("a b", tokens))
    assert made.http_status == status
    assert made.failure is not None
    assert made.failure.reason == "http_error"
    assert message in made.failure.detail


def test_fixed_length_of_vllm_goes_past_the_end():
    """It is recognised; the field that it knows is sent where a fixed length is asked for."""
    with running_vllm() as server, OpenAIEngine(server.base_url, "words") as engine:
        assert engine.version().startswith("vllm ")
        fixed, free = (engine.generate(Prompt("a", 80, fixed_length=f)) for f in (True, False))
    assert (fixed.usage.completion_tokens, fixed.finish_reason) == (80, "length")
    assert (free.usage.completion_tokens, free.finish_reason) == (64, "stop")
