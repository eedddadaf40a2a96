"""A real gateway before the known-truth server, for all tests that only ask it."""

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from shoestring.testing.gateway import RunningGateway, running_gateway

FAST = "truth-ttft5-itl2-n8"
SCHEDULES = {
    "fast": FAST,
    "slow": "truth-ttft20-itl50-n400",
    "long": "truth-ttft5-itl0.2-n20000",
    "cut": f"{FAST}+nofinal",
    "error": f"{FAST}+error3",
    "bad-json": f"{FAST}+badjson0",
    "reset": f"{FAST}+reset3",
    "reset-at-once": f"{FAST}+reset0",
    "http-400": f"{FAST}+http400",
    "http-500": f"{FAST}+http500",
    "utf8": f"{FAST}+utf8",
    "reasoning": f"{FAST}+role+reasoning3",
    "coalesced": f"{FAST}+coalesce3",
}


def truth_settings(truth_url: str, **more: Any) -> dict[str, Any]:
    """Settings with one alias for each schedule of the known-truth server."""
    aliases = {
        name: {"targets": [{"engine": "truth", "model": model, "variant": "only"}]}
        for name, model in SCHEDULES.items()
    }
    engines = [{"name": "truth", "url": truth_url, "slots": 64, "digest": "truth"}]
    return {"engines": engines, "aliases": aliases, **more}


@pytest.fixture(scope="session")
def gateway(truth_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """One gateway for the whole session; tests must leave it as it was."""
    settings = truth_settings(
        truth_url,
        cache={"enabled": True},
        server={"body_timeout_s": 2.0, "head_timeout_s": 2.0, "stall_s": 2.0},
    )
    with running_gateway(tmp_path_factory.mktemp("gateway"), settings) as running:
        yield running


@pytest.fixture
def web() -> Iterator[requests.Session]:
    """A session of HTTP that no proxy of the environment gets to see."""
    with requests.Session() as session:
        session.trust_env = False
        yield session
