"""What the gateway says of itself, asked for by a machine: right questions and wrong ones."""

import json
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from shoestring.testing.gateway import RunningGateway

EXAMPLES = 12
MUST_ANSWER_S = 60.0
FROM_ENGINES = {502, 503, 504}
PATHS = {
    "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/models", "/v1/models/{name}",
    "/api/chat", "/api/generate", "/api/embed", "/api/tags", "/api/ps", "/api/show", "/api/version",
    "/generate", "/health", "/metrics", "/stats",
}  # fmt: skip
MODES = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]


@pytest.fixture(scope="module")
def document(gateway: RunningGateway) -> dict[str, Any]:
    """The gateway's OpenAPI document."""
    answer = requests.get(
        f"{gateway.url}/openapi.json", headers=gateway.headers, timeout=MUST_ANSWER_S
    )
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


def test_every_path_is_told(document: dict[str, Any]):
    """Clients find all of them, and no part of a body's description leads nowhere."""
    assert set(document["paths"]) >= PATHS
    assert '"$ref": "#/$defs' not in json.dumps(document)


def checked(response: requests.Response, asked: str) -> None:
    """An answer is one, or says what is wrong: in JSON, without a word of the inside."""
    assert response.status_code < 500 or response.status_code in FROM_ENGINES, (
        asked,
        response.text,
    )
    assert "Traceback" not in response.text, asked
    if response.status_code >= 400:
        error = response.json()["error"]
        assert isinstance(error, str) or error["message"], asked


@pytest.mark.parametrize("mode", MODES, ids=["right", "wrong"])
def test_nothing_that_the_document_allows_or_forbids_breaks_it(
    gateway: RunningGateway, web: requests.Session, document: dict[str, Any], mode: GenerationMode
):
    """Every path and method, with questions made from its description, and with spoilt ones."""
    schema = schemathesis.openapi.from_dict(document)
    schema.config.generation.update(modes=[mode])
    asked = 0
    for found in schema.get_all_operations():
        operation = found.ok()
        if mode.is_negative and not operation.body:
            continue  # nothing of it can be spoilt

        @settings(max_examples=EXAMPLES, deadline=None, database=None,
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(case=operation.as_strategy(generation_mode=mode), knows=st.booleans())
        def ask(*, case: schemathesis.Case, knows: bool) -> None:
            nonlocal asked
            if knows and isinstance(case.body, dict):
                case.body["model"] = "fast"
            case.headers.update(gateway.headers)
            response = case.call(base_url=gateway.url, session=web, timeout=MUST_ANSWER_S)
            checked(response, case.as_curl_command())
            asked += 1

        ask()
    assert asked > len(PATHS)


@settings(max_examples=60, deadline=None, database=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(
    headers=st.dictionaries(
        st.sampled_from(["X-Deadline-S", "X-Request-ID", "X-Forwarded-For", "Content-Type",
                         "Accept", "Cookie", "Expect", "X-API-Key", "Range", "Upgrade"]),
        st.text(st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="\x7f"),
                min_size=1, max_size=40),
    )
)  # fmt: skip
def test_no_header_breaks_it(
    gateway: RunningGateway, web: requests.Session, headers: dict[str, str]
):
    """Whatever stands in those that somebody reads."""
    body = {"model": "fast", "messages": [{"role": "user", "content": "x"}]}
    response = web.post(
        f"{gateway.url}/v1/chat/completions",
        data=json.dumps(body),
        headers={**{name: text.encode("latin-1") for name, text in headers.items()},
                 **gateway.headers},
        timeout=MUST_ANSWER_S,
    )  # fmt: skip
    checked(response, str(headers))
