"""``shoestring plan``, as a user types it."""

import json
from typing import get_args

import pytest
from click.testing import CliRunner

from shoestring.errors import UserError
from shoestring.models.shape_names import parse_shape_name
from shoestring.models.synthesis import lay_out, write_model
from shoestring.plan.choosing import LEAST_TOKENS_PER_S
from shoestring.plan.pareto import Wish
from shoestring.report.plan_cli import plan

MODEL = "llama-3.2-1b:q4_k_m"


def run(*words):
    """Return what is printed, or the line of a mistake."""
    made = CliRunner().invoke(plan, words, catch_exceptions=True)
    if isinstance(made.exception, UserError):
        assert made.exception.exit_status == 2
        return str(made.exception)
    assert made.exception is None, made.exception
    return made.stdout


def test_json_is_one_object():
    """And nothing else on stdout."""
    said = json.loads(run(MODEL, "--device", "t4", "--device", "ram:8GiB:20GB/s", "--json"))

    assert said["model"] == f"shape:{MODEL}"
    assert said["fits"]


def test_the_machine_at_hand_is_planned_without_a_device():
    """Its RAM is found, its bandwidth is measured, and a speed is said."""
    said = json.loads(run(MODEL, "--json"))

    assert said["placements"][-1]["free_bytes"] > 0
    assert said["predicted"]["decode_tokens_per_s"]["value"] > 0


def test_a_file_is_planned_like_its_shape(tmp_path):
    """The header of a real GGUF says the same as the name of its shape."""
    from shoestring.models.shape_names import load_shape

    name = parse_shape_name("smollm2-135m/2:q8_0")
    path = tmp_path / "my model.gguf"
    with path.open("wb") as file:
        write_model(lay_out(load_shape(name), name.quant), file)
    devices = ("--device", "ram:8GiB:20GB/s", "--json")

    file, shape = (
        json.loads(run(model, *devices)) for model in (f"file:{path}", "smollm2-135m/2:q8_0")
    )

    assert file["placements"] == shape["placements"]
    assert f"'{path}'" in file["commands"]["llama-server"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "no model was named"),
        ((MODEL, "--choose"), "leave"),
        (("llama-9:q4_k_m",), "unknown model"),
        ((MODEL, "--device", "tee4"), "did you mean Tesla T4|bandwidth"),
        ((MODEL, "--device", "t4:-8GiB"), "t4:-8GiB"),
        ((MODEL, "--device", "t4", "--context", "0"), "context 0"),
        ((MODEL, "--device", "t4", "--context", "999999"), "trained for 131072"),
        ((MODEL, "--device", "t4", "--parallel", "-1"), "parallel -1"),
        ((MODEL, "--device", "t4", "--cache-type-k", "q9"), "q9"),
        ((MODEL, "--device", "t4", "--tensor-split", "a,b"), "'a,b'"),
        ((MODEL, "--device", "t4", "--tensor-split", "1,1"), "2 shares for 1"),
        ((MODEL, "--device", "t4", "--prompt-tokens", "0"), "--prompt-tokens 0"),
        ((MODEL, "--device", "t4", "--prompt-tokens", "9999"), "1 to 4096"),
        ((MODEL, "--device", "t4", "--gpu-layers", "-1"), "--gpu-layers -1"),
        ((MODEL, "--device", "t4", "--least-speed", "nan"), "--least-speed nan"),
        ((MODEL, "--device", "t4", "--picture", "/dev/null/x"), "--picture /dev/null/x"),
        (("--choose", "--gpu-layers", "3"), "--gpu-layers is for the plan of a model"),
        (("--choose", "--explain"), "--explain is for"),
        (("llama-3.1-70b:q4_k_m", "--device", "t4"), "at least 40"),
        (("hf:a/b/c.gguf", "--device", "t4"), "models get hf:a/b/c.gguf"),
        (("file:/nowhere/x.gguf", "--device", "t4"), "x.gguf"),
        (("--calibrate", "--device", "t4"), "leave --device out"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(words, said):
    """What was wrong stands in it, without a line break."""
    import re

    line = run(*words)
    assert re.search(said, line), line
    assert "\n" not in line.strip()


def test_a_cut_file_is_refused(tmp_path):
    """A GGUF that ends too early is named, not guessed at."""
    path = tmp_path / "cut.gguf"
    path.write_bytes(b"GGUF\x03\x00\x00\x00" + b"\x00" * 8)

    assert "cut.gguf" in run(f"file:{path}", "--device", "t4")


def test_the_commands_wishes_and_least_speed_are_the_plans():
    """The literals in the command line, which imports nothing of the plan, are its constants."""
    options = {one.name: one for one in plan.params}

    assert tuple(options["wish"].type.choices) == get_args(Wish)
    assert options["least_speed"].default == LEAST_TOKENS_PER_S


def test_choosing_lists_what_no_other_beats():
    """By the wish, with intervals, in JSON."""
    said = json.loads(
        run(
            "--choose",
            "--wish",
            "speed",
            "--device",
            "ram:4GiB:20GB/s",
            "--context",
            "2048",
            "--json",
        )
    )

    assert said["wish"] == "speed"
    speeds = [one["decode_filled_tokens_per_s"]["value"] for one in said["choices"]]
    assert len(speeds) > 1
    assert speeds == sorted(speeds, reverse=True)
