"""What Prometheus is told: well-formed, named by the conventions, and bounded whatever is asked."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from shoestring.gateway import metrics
from shoestring.gateway.activity import Outcome
from shoestring.gateway.metrics import CONTENT_TYPE, Metrics
from shoestring.gateway.readings import LABEL_LENGTH, EngineReading, Readings

GOOD = Outcome(
    request_id="r1", t_utc="2026-11-22T00:00:00Z", key_id="KEYID", key_name="KEYNAME",
    address="10.1.2.3", operation="chat", model="qwen3:8b", variant="q4", engine="local",
    provider="ollama", status=200, failure=None, stream=True, cache="miss", queue_s=0.5,
    ttft_s=1.0, duration_s=3.0, input_tokens=10, output_tokens=21, answered_by="qwen3:8b-q4_K_M",
)  # fmt: skip
DOCS = Path(__file__).parents[2] / "docs" / "gateway-metrics.md"
QUIET = Readings((), "none", 1, None, None, 0, draining=False)
BUSY = Readings((EngineReading("a", True, 1, 2, 4, 5),), "ok", 2, 3, 300, 1, draining=False)
LABELS = {
    "gen_ai_operation_name": "chat",
    "gen_ai_provider_name": "ollama",
    "gen_ai_request_model": "qwen3:8b",
    "gen_ai_response_model": "qwen3:8b-q4_K_M",
    "variant": "q4",
}


class Told:
    """Metrics, and what they say."""

    def __init__(self, readings=QUIET, **more) -> None:
        self.readings = readings
        self.metrics = Metrics(CollectorRegistry(), lambda: self.readings, version="1.2", **more)

    def samples(self):
        """Return all, as Prometheus' own parser reads them."""
        text = self.metrics.render().decode()
        return [
            sample for family in text_string_to_metric_families(text) for sample in family.samples
        ]

    def value(self, name, **labels):
        """Return the value of one; None: not told."""
        found = [s.value for s in self.samples() if s.name == name and s.labels == labels]
        return found[0] if found else None

    def end(self, outcome):
        """Let a request begin and end."""
        self.metrics.began(outcome.model)
        self.metrics.ended(outcome)


@pytest.fixture
def told():
    """Metrics of a gateway without engines."""
    return Told()


def test_an_answer_is_told_under_the_names_of_the_conventions(told):
    """Duration, time to first token, time per token after it, tokens of both kinds."""
    told.end(GOOD)
    assert told.value("gen_ai_server_request_duration_seconds_sum", **LABELS, error_type="") == 3
    assert told.value("gen_ai_server_time_to_first_token_seconds_sum", **LABELS) == 1
    assert told.value("gen_ai_server_time_per_output_token_seconds_sum", **LABELS) == pytest.approx(
        (3 - 1) / 20
    )
    for kind, tokens in (("input", 10), ("output", 21)):
        usage = told.value("gen_ai_client_token_usage_sum", **LABELS, gen_ai_token_type=kind)
        assert usage == tokens


def test_an_answer_is_told_under_our_names_too(told):
    """With our word for the operation, and the status."""
    told.end(GOOD)
    assert told.value(
        "shoestring_gateway_requests_total",
        operation="chat", model="qwen3:8b", variant="q4", status="200",
    ) == 1  # fmt: skip
    assert told.value(
        "shoestring_gateway_tokens_total", type="output", model="qwen3:8b", variant="q4"
    ) == 21  # fmt: skip
    assert told.value("shoestring_gateway_cache_requests_total", result="miss") == 1
    assert told.value("shoestring_gateway_queue_seconds_sum", engine="local") == 0.5


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("chat", "chat"), ("completion", "text_completion"), ("generate", "text_completion"),
     ("embeddings", "embeddings")],
)  # fmt: skip
def test_operations_have_the_conventions_words(told, ours, theirs):
    """Where a predefined value applies it must be used."""
    told.end(replace(GOOD, operation=ours))
    labels = LABELS | {"gen_ai_operation_name": theirs}
    assert told.value("gen_ai_server_time_to_first_token_seconds_count", **labels) == 1


def test_a_failure_has_its_type_and_no_first_token(told):
    """Time to first token is of successful answers only."""
    told.end(replace(GOOD, status=502, failure="engine_lost"))
    told.end(replace(GOOD, status=500))
    for kind in ("engine_lost", "500"):
        count = told.value(
            "gen_ai_server_request_duration_seconds_count", **LABELS, error_type=kind
        )
        assert count == 1
    assert not [s for s in told.samples() if "time_to_first_token_seconds_" in s.name]


@pytest.mark.parametrize("cache", ["hit", "joined"])
def test_an_answer_from_memory_makes_no_engine_look_fast(told, cache):
    """It is a request and saved tokens; no engine's time."""
    told.end(replace(GOOD, cache=cache, ttft_s=0.0001))
    assert not [s for s in told.samples() if s.name.startswith("gen_ai_server_") and s.value]
    assert (
        told.value("shoestring_gateway_cached_tokens_total", type="output", model="qwen3:8b") == 21
    )
    assert told.value("shoestring_gateway_cache_requests_total", result=cache) == 1
    assert not [s for s in told.samples() if s.name == "shoestring_gateway_tokens_total"]


def test_unknown_tokens_are_not_nought(told):
    """An engine that does not count adds nothing, not even a sample of 0."""
    told.end(replace(GOOD, input_tokens=None, output_tokens=None))
    names = {sample.name for sample in told.samples()}
    assert "gen_ai_client_token_usage_count" not in names
    assert "shoestring_gateway_tokens_total" not in names
    assert "gen_ai_server_time_per_output_token_seconds_count" not in names


def test_one_token_has_no_time_per_token(told):
    """There is nothing after the first."""
    told.end(replace(GOOD, output_tokens=1))
    assert "gen_ai_server_time_per_output_token_seconds_count" not in {
        sample.name for sample in told.samples()
    }


def test_a_refusal_before_an_engine_has_no_engine_s_time(told):
    """It is counted by its reason, and as a request with its status."""
    told.metrics.rejected("rate_limit")
    told.end(replace(GOOD, status=429, failure="rate_limit", engine="", variant="", cache="bypass"))
    assert told.value("shoestring_gateway_rejections_total", reason="rate_limit") == 1
    assert not [s for s in told.samples() if s.name.startswith("gen_ai_server_") and s.value]
    assert not [s for s in told.samples() if s.name.startswith("shoestring_gateway_queue_seconds")]


def test_a_client_that_left_is_no_other_failure(told):
    """Whatever word came with it, so that alerts can leave it out."""
    told.end(replace(GOOD, status=499, failure="anything"))
    labels = LABELS | {"error_type": "client_left"}
    assert told.value("gen_ai_server_request_duration_seconds_count", **labels) == 1


def test_active_requests_go_up_and_down(told):
    """By the model that was asked for."""
    told.metrics.began("qwen3:8b")
    told.metrics.began("qwen3:8b")
    assert told.value("shoestring_gateway_active_requests", model="qwen3:8b") == 2
    told.metrics.ended(GOOD)
    assert told.value("shoestring_gateway_active_requests", model="qwen3:8b") == 1


def test_what_is_not_known_is_not_told():
    """No engine_up of an engine never asked, no memory that it does not tell, no Redis."""
    told = Told(
        Readings(
            (EngineReading("a", None, 0, 0, 1, None),), "none", 1, None, None, 0, draining=False
        )
    )
    names = {sample.name for sample in told.samples()}
    assert not names & {
        "shoestring_gateway_engine_up", "shoestring_gateway_model_memory_bytes",
        "shoestring_gateway_redis_up", "shoestring_gateway_cache_entries",
        "shoestring_gateway_cache_bytes", "shoestring_gateway_replicas",
    }  # fmt: skip


def test_readings_are_taken_at_each_scrape():
    """What changed meanwhile is told."""
    engine = EngineReading("a", True, 1, 2, 4, 5_000)
    told = Told(Readings((engine,), "ok", 2, 3, 300, 1, draining=False))
    assert told.value("shoestring_gateway_engine_up", engine="a") == 1
    assert told.value("shoestring_gateway_queue_waiting", engine="a") == 2
    assert told.value("shoestring_gateway_model_memory_bytes", engine="a") == 5_000
    assert told.value("shoestring_gateway_redis_up") == 1
    assert told.value("shoestring_gateway_replicas") == 2
    assert told.value("shoestring_gateway_key_file_errors_total") == 1
    told.readings = Readings((replace(engine, up=False),), "lost", 2, None, None, 2, draining=True)
    assert told.value("shoestring_gateway_engine_up", engine="a") == 0
    assert told.value("shoestring_gateway_redis_up") == 0
    assert told.value("shoestring_gateway_draining") == 1
    assert told.value("shoestring_gateway_cache_entries") is None


def test_the_process_tells_its_memory_and_open_files(told):
    """As every Prometheus client names them."""
    assert told.value("process_resident_memory_bytes") > 10_000_000
    assert told.value("process_open_fds") > 0
    assert told.value("shoestring_gateway_build_info", version="1.2") == 1


def test_every_line_is_read_by_prometheus_own_parser(told):
    """Whatever a name holds: quotes, newlines, backslashes, halves of characters."""
    for name in ('a"b', "a\nb", "a\\n", "\ud800", "x" * 5_000, "", "\u202e", "ü", "名"):
        told.end(replace(GOOD, model=name, variant=name, failure=name or None))
    samples = told.samples()
    assert all(len(v) <= LABEL_LENGTH for sample in samples for v in sample.labels.values())
    assert {"other", "ü", "名", 'a"b', "a\\n", "?"} <= {s.labels.get("model") for s in samples}


names = st.text(max_size=200)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(names, names, names, names, st.integers(-5, 700)), max_size=60))
def test_any_names_make_a_bounded_number_of_series(asked):
    """At most the limit and one more for each metric, and each still parses and adds up."""
    limit = 5
    told = Told(label_sets=limit)
    for model, variant, failure, provider, status in asked:
        told.end(replace(GOOD, model=model, variant=variant, failure=failure or None, status=status,
                         provider=provider, answered_by=model, engine="e" + variant))  # fmt: skip
        told.metrics.rejected(failure)
    series = {}
    for sample in told.samples():
        labels = tuple(sorted((k, v) for k, v in sample.labels.items() if k != "le"))
        series.setdefault(sample.name, set()).add(labels)
    assert max(map(len, series.values())) <= limit + 1
    total = sum(s.value for s in told.samples() if s.name == "shoestring_gateway_requests_total")
    assert total == len(asked)
    active = [s.value for s in told.samples() if s.name == "shoestring_gateway_active_requests"]
    assert not any(active)


def test_no_label_holds_a_key_or_an_address(told):
    """Neither its id nor its name, nor where a request came from."""
    told.end(GOOD)
    text = told.metrics.render().decode()
    assert not [word for word in ("KEYID", "KEYNAME", "10.1.2.3", "r1") if word in text]


def test_names_have_their_units_and_the_conventions_bounds():
    """Times are in seconds; our bounds begin with theirs."""
    told = Told(
        Readings((EngineReading("a", True, 1, 2, 4, 5),), "ok", 2, 3, 300, 1, draining=False)
    )
    told.end(GOOD)
    families = list(text_string_to_metric_families(told.metrics.render().decode()))
    for family in families:
        assert family.documentation
        if family.type == "histogram":
            assert family.name.endswith("_seconds") or family.name == "gen_ai_client_token_usage"
    theirs = {
        metrics.DURATION_BOUNDS_S: [0.01 * 2**n for n in range(14)],
        metrics.TTFT_BOUNDS_S: [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
                                1.0, 2.5, 5.0, 7.5, 10.0],
        metrics.TPOT_BOUNDS_S: [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0,
                                2.5],
        metrics.TOKEN_BOUNDS: [1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576,
                               4194304, 16777216, 67108864],
    }  # fmt: skip
    for ours, bounds in theirs.items():
        assert list(ours[: len(bounds)]) == pytest.approx(bounds)


def test_every_metric_is_in_the_documentation():
    """And nothing else is listed there."""
    told = Told(
        Readings((EngineReading("a", True, 1, 2, 4, 5),), "ok", 2, 3, 300, 1, draining=False)
    )
    told.end(GOOD)
    told.end(replace(GOOD, cache="hit"))
    told.metrics.rejected("budget")
    names = {re.sub("_(bucket|sum|count)$", "", sample.name) for sample in told.samples()}
    listed = set(
        re.findall(r"^\| `((?:gen_ai|shoestring)_\w+)` \|", DOCS.read_text(), re.MULTILINE)
    )
    assert listed == {name for name in names if not name.startswith("process_")}


def test_the_content_type_is_what_old_and_new_prometheus_read():
    """Plain text 0.0.4."""
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")


def test_two_gateways_in_one_process_do_not_share_counts():
    """Each has a registry of its own."""
    one, other = Told(), Told()
    one.end(GOOD)
    assert not [s for s in other.samples() if s.name == "shoestring_gateway_requests_total"]
