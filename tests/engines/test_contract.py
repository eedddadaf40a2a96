"""The contract, held by every engine that is here; CI has them all."""

import pytest

from shoestring.engines.openai import OpenAIEngine
from shoestring.engines.opening import open_engine
from shoestring.testing.contract import CHECKS, OWN_CHECKS
from shoestring.testing.engines import need_program

MODEL = "pypi:gemma3-270m"


@pytest.fixture(scope="module", params=["embedded", "llama-server", "ollama", "truth"])
def engine(request, tmp_path_factory):
    """Each engine, started and loaded, with two slots."""
    name = request.param
    if name == "truth":
        url = request.getfixturevalue("truth_url")
        with OpenAIEngine(url, "truth-ttft50-itl5-n400") as opened:
            yield opened
        return
    if name != "embedded":
        need_program(name)
    request.getfixturevalue("small_model")
    log = tmp_path_factory.mktemp(name) / "engine.log"
    with open_engine(MODEL, engine=name, context=512, parallel=2, log_path=log) as opened:
        yield opened
        for check in OWN_CHECKS:
            check(opened)


@pytest.mark.engine
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(engine, check):
    """Every engine does what the protocol says."""
    check(engine)
