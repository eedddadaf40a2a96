"""The note's claims, one by one: what is true of each, and where it is tested.

A test is named by its file and function; ``tests/report/test_service_page.py`` holds that each is
there. What slowapi does by default is from its own source (laurentS/slowapi, ``extension.py``,
``util.py``): storage ``memory://``, strategy ``fixed-window``, errors of the storage not caught,
and a function for addresses that believes any ``X_FORWARDED_FOR``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from shoestring.analysis.stats import wilson_interval
from shoestring.report.tabular import Column, Table
from shoestring.report.units import number

if TYPE_CHECKING:
    from collections.abc import Sequence

Verdict = Literal["holds", "in part", "wrong", "cannot be judged"]
_LLAMA: Final = "gateway/test_real_llama_server.py"
_REPLICAS: Final = "gateway/test_limiting_replicas.py"


@dataclass(frozen=True)
class Claim:
    """One claim of the note.

    Attributes:
        text: what it says, in few words.
        verdict: on the claim, not on the gateway.
        why: what is true.
        tests: ``FILE::FUNCTION`` below ``tests/``; or a page below ``docs/``.
    """

    text: str
    verdict: Verdict
    why: str
    tests: tuple[str, ...]


def _five_of_five() -> str:
    interval = wilson_interval(5, 5)
    assert interval is not None
    return number(interval[0] * 100)


CLAIMS: Final = (
    Claim(
        "Input validation with Pydantic prevents prompt injection",
        "wrong",
        "Validation sees lengths and types. An engine reads <|im_start|> in a user's words as one "
        "control token. The gateway breaks such marks so that they stay plain text; what a text "
        "says in plain words no filter can judge.",
        (
            f"{_LLAMA}::test_a_users_control_tokens_reach_a_model_that_is_asked_directly",
            f"{_LLAMA}::test_they_are_plain_text_to_a_model_behind_the_gateway",
            "gateway/test_plain_text.py::test_no_mark_is_left_and_no_word_is_lost",
            "docs/gateway.md",
        ),
    ),
    Claim(
        "Validation ensures data integrity",
        "in part",
        "A field is refused by its name, and so is one in other letters, which an engine might "
        "read differently. What was checked is what is sent on, never the client's own bytes.",
        (
            "gateway/test_api_openai.py::test_a_wrong_field_is_named",
            "gateway/test_attacks.py::test_a_field_in_other_letters_is_refused",
            "gateway/test_attacks.py::test_a_body_that_is_no_question_is_refused",
        ),
    ),
    Claim(
        "HTTPBearer implements the authentication by key",
        "in part",
        "It takes the key out of the header. Comparing in constant time, keeping only hashes, "
        "revoking, scopes and counting failed sign-ins are left to the service.",
        (
            "gateway/test_keys.py::test_hashes_are_compared_in_constant_time_for_unknown_ids_too",
            "gateway/test_attacks.py::test_without_a_good_key_nothing_opens",
            "gateway/test_limiting.py::test_failed_sign_ins_count_with_the_address",
        ),
    ),
    Claim(
        "slowapi's requests a minute for each address protect against abuse, fairly",
        "in part",
        "One customer has 2^64 addresses of IPv6; behind a proxy all clients are one address, or "
        "any that they write. Requests are not tokens: one can cost a thousand others. And its "
        "fixed window lets twice the limit pass around its border. Here: keys and addresses, "
        "requests, tokens and concurrency, moving windows, and turns between keys that wait.",
        (
            "gateway/test_limiting.py::test_an_ipv6_customer_is_one_address",
            "gateway/test_addresses.py::test_what_a_client_forges_never_hides_its_address",
            "gateway/test_attacks.py::test_a_forged_address_is_not_believed",
            "gateway/test_queueing.py::test_a_single_request_waits_one_turn_behind_a_hundred",
        ),
    ),
    Claim(
        "Redis makes the limits hold across instances",
        "in part",
        "Only where it is configured: by default each instance counts for itself, and N of them "
        "let N times the limit through. Once Redis is lost slowapi's default is an error for each "
        "request. Here: one script a request, each replica's share while Redis is lost, and its "
        "return told to Redis.",
        (
            f"{_REPLICAS}::test_no_limit_is_exceeded_by_two_replicas",
            f"{_REPLICAS}::test_no_limit_is_exceeded_while_redis_is_killed_and_restarted_empty",
            "gateway/test_replicas.py::test_without_redis_requests_go_on",
        ),
    ),
    Claim(
        "A cache of answers reduces latency for repeated queries",
        "holds",
        "For the same deterministic request of the same key; a question with chance in it is asked "
        "anew, and a changed model forgets. How much faster is measured above.",
        (
            "gateway/test_cache.py::test_an_answer_with_chance_in_it",
            "gateway/test_attacks.py::test_one_keys_answers_are_not_anothers",
            "gateway/test_attacks.py::test_an_answer_that_broke_off_is_not_kept",
        ),
    ),
    Claim(
        "The dashboard fetches /metrics",
        "in part",
        "A page in a browser can do so only where metrics are open to all or the page holds a key "
        "for them. Here metrics have a scope of their own, and the page a session.",
        (
            "gateway/test_attacks.py::test_a_key_opens_only_its_scope",
            "gateway/test_attacks.py::test_the_dashboard_needs_a_session_and_its_own_header",
            "gateway/test_dashboard_page.py::test_the_five_figures_are_shown_with_their_units",
        ),
    ),
    Claim(
        "Structured logs track requests and responses in detail",
        "in part",
        "Structured they must be, or a client forges lines. Texts of requests and answers are "
        "somebody's words: none is written unless asked for.",
        (
            "gateway/test_logs.py::test_a_client_forges_no_line",
            "gateway/test_attacks.py::test_prompts_and_answers_are_not_logged",
            "gateway/test_logs.py::test_no_secret_is_written",
        ),
    ),
    Claim(
        "Without CUDA there is no quantisation: full precision is the way on a CPU",
        "wrong",
        "That is bitsandbytes, not CPUs: llama.cpp's types need no GPU. q8_0 and q4_k_m stand "
        "beside f32 in the note's table above.",
        (
            "models/test_shape_engine.py::test_greedy_decoding_wanders",
            "quality/test_quantise.py::test_each_tensor_has_the_type_that_the_planner_says",
        ),
    ),
    Claim(
        "TIPO-100M has about 200M parameters and 191.46 MB in full precision",
        "wrong",
        "Counted above: 191.46 MiB are 100 M weights of two bytes each.",
        ("models/test_shapes.py::test_a_shape_has_as_many_parameters_as_the_model",),
    ),
    Claim(
        "7.89 s for an answer are acceptable",
        "cannot be judged",
        "It does not say of how many tokens. The model publishes use_cache false, so that each "
        "token computes all before it again: its stack is measured with the cache off and on.",
        ("docs/cpu-service.md",),
    ),
    Claim(
        "5 of 5 successful: production-ready",
        "cannot be judged",
        f"Five successes of five leave {_five_of_five()} to 100 % (Wilson, 95 %), of one client "
        "that waits for each answer. What load and faults do is measured above.",
        (
            "analysis/test_stats.py::test_wilson_holds_the_share_and_stays_a_proportion",
            "gateway/test_leaving.py::test_who_leaves_ends_the_work",
            "gateway/test_queueing.py::test_a_full_queue_refuses",
        ),
    ),
)


def claims_table(claims: Sequence[Claim] = CLAIMS) -> Table:
    """Return each claim with its verdict, the reason, and where it is tested."""
    columns = (
        Column("verdict", "Verdict"),
        Column("claim", "The note"),
        Column("why", "Because"),
        Column("tests", "Tested in"),
    )
    rows = tuple(
        (one.verdict, one.text, one.why, "; ".join(map(_in_words, one.tests))) for one in claims
    )
    return Table("note_claims", "The note's claims", columns, rows)


def _in_words(test: str) -> str:
    """Return a test's file and what it says; a function's name is too long a word for a cell."""
    path, _, function = test.partition("::")
    return f"{path}: {function.removeprefix('test_').replace('_', ' ')}" if function else path
