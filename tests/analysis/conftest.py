import copy

import pytest

from shoestring.measure.records import read_run
from shoestring.testing.synthetic import write_synthetic_run

S = 1_000_000_000


@pytest.fixture
def run(tmp_path):
    """Return the synthetic run: three cases, five blocks, no failure."""
    return read_run(write_synthetic_run(tmp_path / "run"))


@pytest.fixture
def make_run(tmp_path):
    """Return a builder of synthetic runs."""
    return lambda **options: read_run(
        write_synthetic_run(tmp_path / "-".join(["r", *map(str, options.values())]), **options)
    )


@pytest.fixture
def row():
    """Return a builder of a row: 4 tokens in 4 chunks, intended 0, texts at 2, 3, 4 and 5 s."""
    whole = {
        "id": "b1-x-0001", "session": 1, "phase": "measure", "block": 1, "case": "chat-128",
        "concurrency": 1, "max_tokens": 4, "intended_ns": 0, "sent_ns": S // 2,
        "headers_ns": S, "end_ns": 6 * S, "connect_s": 0.25, "status": "ok", "failure": None,
        "http_status": 200, "finish_reason": "length", "answer": "abcd", "reasoning": "",
        "events": [
            [1 * S, "role", 0], [2 * S, "answer", 1], [3 * S, "answer", 1],
            [4 * S, "answer", 1], [5 * S, "answer", 1], [5 * S + 1, "finish", 0],
            [5 * S + 2, "usage", 0], [5 * S + 3, "done", 0],
        ],
        "usage": {"prompt_tokens": 12, "completion_tokens": 4, "cached_tokens": 2},
        "native": {
            "prompt_tokens": 10, "prompt_s": 1.25, "decode_tokens": 4, "decode_s": 2.0,
            "cached_tokens": 2,
        },
    }  # fmt: skip
    return lambda **changes: {**copy.deepcopy(whole), **changes}
