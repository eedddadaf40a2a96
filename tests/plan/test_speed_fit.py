"""The fit of speeds: it finds what is there, judges what it has not seen, and meets its bars."""

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.errors import BadValueError
from shoestring.hardware.device_words import parse_device
from shoestring.measure.speed_trials import CALIBRATION
from shoestring.models.outline import outline_of_shape
from shoestring.plan.memory import Settings
from shoestring.plan.published_speeds import judged_rows, published_rows, samples_of
from shoestring.plan.speed_chips import chip_of
from shoestring.plan.speed_constants import PUBLISHED_PATH, load_constants
from shoestring.plan.speed_fit import (
    DECODE_NOISE,
    PREFILL_NOISE,
    PRIORS,
    Noise,
    Timed,
    error_of,
    fit_constants,
    half_width,
    leave_out,
)
from shoestring.plan.speed_here import REFERENCE, Measured, fit_here
from shoestring.plan.speed_published import (
    decode_times,
    describe_errors,
    fit_published,
    judge_baseline,
    prefill_times,
)
from shoestring.plan.speed_terms import Term, add_up, decode_terms, prefill_terms, works_of

LOOSE = {"a": (0.0, 100.0), "b": (0.0, 100.0)}
SHARP = Noise(0.01, 0.1)


def timed(group, a, b, seconds) -> Timed:
    """Return a row of two terms."""
    return Timed(group, (Term(a, {"a": 1.0}), Term(b, {"b": 1.0})), seconds)


@settings(deadline=None)
@given(
    st.floats(-3, 3),
    st.floats(-3, 3),
    st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)), min_size=4, max_size=12),
)
def test_constants_are_found_again(a, b, bases):
    """Times that obey the law are predicted by it, whatever its constants are."""
    truth = {"a": a, "b": b}
    rows = [timed(n, x, y, 1.0) for n, (x, y) in enumerate(bases)]
    rows = [replace(row, seconds=add_up(row.terms, truth)) for row in rows]
    found = fit_constants(rows, LOOSE, SHARP)

    assert all(abs(error_of(row, found)) < 0.02 for row in rows)


def test_a_row_that_disagrees_with_all_others_counts_little():
    """One in twenty that is ten times too slow moves the constant by less than 3 %."""
    rows = [timed(n, 1.0, 1e-9, 2.0) for n in range(19)]
    found = fit_constants([*rows, timed(19, 1.0, 1e-9, 20.0)], LOOSE, SHARP)

    assert math.exp(found["a"]) == pytest.approx(2.0, rel=0.03)


def test_a_constant_that_rows_say_little_of_stays_near_its_spring():
    """One of a single row is held, and one that no row has stays out."""
    rows = [
        Timed(n, (Term(1.0, {"a": 1.0, f"a/kind/{n}": 1.0}),), 3.0 if n == 0 else 1.0)
        for n in range(9)
    ]
    held = fit_constants(rows, {"a": (0.0, 1.0), "a/kind": (0.0, 0.01)}, Noise(0.1, 10.0))

    assert abs(held["a/kind/0"]) < 0.02
    assert set(held) == {"a", *(f"a/kind/{n}" for n in range(9))}


def test_what_is_left_out_is_not_looked_at():
    """However slow a device was, its own prediction does not move."""
    samples = samples_of(judged_rows())
    rows = decode_times(samples)[:40]
    left = rows[0].group
    changed = [replace(row, seconds=row.seconds * 5) if row.group == left else row for row in rows]
    before, after = (leave_out(one, PRIORS, DECODE_NOISE) for one in (rows, changed))

    for row, one, other in zip(rows, before, after, strict=True):
        if row.group == left:
            assert (other + 1) == pytest.approx(5 * (one + 1), rel=1e-6)


def test_a_half_width_covers_four_of_five_and_one_more():
    """Split conformal: of ten errors the ninth, of three the largest."""
    assert half_width([0.01 * n for n in range(1, 11)]) == pytest.approx(math.log1p(0.09))
    assert half_width([0.1, -0.5, 0.2]) == pytest.approx(math.log(2))


def test_the_judged_rows_are_those_of_the_bar():
    """111 rows under 57 labels; five devices have two labels."""
    rows = judged_rows()
    samples = samples_of(rows)

    assert (len(rows), len({row["device"] for row in rows})) == (111, 57)
    assert (len(samples), len({one.device for one in samples})) == (111, 52)
    assert {one.label for one in samples if one.device == "RTX 4090"} == {"NVIDIA RTX 4090"}
    assert {one.label for one in samples if one.device == "RX 7900 XTX"} == {
        "RX 7900 XTX",
        "AMD RX 7900 XTX",
    }


def test_every_published_row_has_a_source_and_a_speed():
    """And bandwidths of known cards are those of the catalogue, within 1 %."""
    for row in published_rows():
        assert row["source"], row
        assert row["tg128"] or row["pp512"], row
    for row, one in zip(judged_rows(), samples_of(judged_rows()), strict=True):
        stated = float(row["mem_bandwidth_gbs"]) * 1e9
        assert one.chip.bandwidth_bytes_per_s == pytest.approx(stated, rel=0.01), row


def test_a_plan_takes_each_judged_device_for_what_the_fit_took_it():
    """By name it takes as long as by its row's terms, within 1 %; its own correction aside."""
    constants = load_constants()
    for one in samples_of(judged_rows()):
        chip, fit, guessed = chip_of(parse_device(f"{one.device}:64GiB"), constants)
        shipped = replace(chip, driver=one.chip.driver, card="")
        assert (chip.card, guessed) == (one.device, 0.0)
        for terms, work in (
            (decode_terms, one.work),
            (partial(prefill_terms, batch=one.batch), one.fill),
        ):
            said, judged = (add_up(terms(each, work), fit.values) for each in (shipped, one.chip))
            assert said == pytest.approx(judged, rel=0.01), one.label


@pytest.mark.parametrize(
    ("text", "ratio"),
    [
        ("foo:8GiB:256GB/s", 4.0),
        ("apple m5:32GiB:100GB/s", 4.0),
        ("gtx 1080:8GiB:300GB/s", 1.0),
        ("peer:tesla p40:20ms", 1.0),
        ("rtx 2080 ti:11GiB:500GB/s", 8.0),
        ("ram:32GiB:40GB/s", 1.0),
    ],
)
def test_ordinary_units_that_no_sheet_lists_have_a_share_of_the_whole_rate(text, ratio):
    """That of the generation, a quarter where nothing is known, all of it without matrix units."""
    chip, _, _ = chip_of(parse_device(text), load_constants())

    assert chip.compute_flops / chip.fp32_flops == pytest.approx(ratio, rel=0.01)


@pytest.mark.parametrize("by", ["device", "label"])
def test_devices_that_the_fit_has_not_seen_are_predicted_within_the_bars(by):
    """Decode: median 9 %, 90th percentile 25 %, and better than a median efficiency."""
    samples = samples_of(judged_rows())
    rows = [
        replace(row, group=getattr(one, by))
        for one, row in zip(samples, decode_times(samples), strict=True)
    ]
    ours = describe_errors(leave_out(rows, PRIORS, DECODE_NOISE))
    plain = describe_errors(judge_baseline(samples, lambda one: getattr(one, by)))

    assert ours["n"] == 111
    assert ours["median"] <= 0.09
    assert ours["p90"] <= 0.25
    assert (plain["median"], plain["p90"]) > (ours["median"], ours["p90"])


def test_prompts_on_devices_that_the_fit_has_not_seen_are_within_the_bar():
    """Prefill: median 20 %."""
    rows = prefill_times(samples_of(judged_rows()))
    errors = describe_errors(leave_out(rows, PRIORS, PREFILL_NOISE))

    assert errors["n"] == 102
    assert errors["median"] <= 0.20


def test_the_constants_in_the_package_are_those_of_its_rows():
    """``scripts/fit_speeds.py`` would write them again."""
    kept, fitted = json.loads(Path(PUBLISHED_PATH).read_text()), fit_published()

    for part in ("gpu", "processor"):
        for name, values in fitted["fits"][part].items():
            known = kept["fits"][part][name]
            assert known == (
                pytest.approx(values, abs=1e-4) if isinstance(values, dict) else values
            )
    assert {name: kept[name] for name in kept if name != "fits"} == {
        name: fitted[name] for name in fitted if name != "fits"
    }


def runs(truth, names) -> list[Measured]:
    """Return models as they would run on a processor of known constants."""
    rows = []
    for name in names:
        outline = outline_of_shape(name)
        answer, prompt = works_of(outline)
        asked = Settings(context=512)
        rows.append(
            Measured(
                name,
                outline,
                asked,
                128,
                1 / add_up(decode_terms(REFERENCE, answer), truth),
                1 / add_up(prefill_terms(REFERENCE, prompt, batch=128), truth),
            )
        )
    return rows


TRUTH = {
    "memory": 0.3, "memory/type/Q4_K": -0.2, "memory/type/Q6_K": 0.5, "memory/type/F16": -0.6,
    "launch": 1.5, "fill": 0.4, "fill/type/Q4_0": -0.8, "fill/type/F16": 0.7,
}  # fmt: skip


def test_a_few_models_tell_how_fast_others_are_on_the_same_machine():
    """Sizes and mixtures of types that were not run are predicted within 8 %."""
    fit = fit_here(runs(TRUTH, CALIBRATION), load_constants().processor, "a test", "1 May")
    others = ("llama-3.1-8b:q4_k_m", "qwen2.5-3b:q4_0", "mistral-7b:q8_0", "tinyllama-1.1b:f16")
    for row in runs(TRUTH, others):
        seconds = add_up(decode_terms(REFERENCE, works_of(row.outline)[0]), fit.values)
        assert seconds * row.decode_tokens_per_s == pytest.approx(1, abs=0.08), row.name


def test_a_calibration_says_what_it_was_made_of():
    """And its interval is never narrower than a handful of models can vouch for."""
    fit = fit_here(runs(TRUTH, CALIBRATION), load_constants().processor, "a test", "1 May")

    assert (fit.about, fit.machine) == (
        f"{len(CALIBRATION)} models run on a test on 1 May",
        "a test",
    )
    assert fit.decode_spread["cpu"] >= 0.08


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (runs(TRUTH, CALIBRATION[:2]), "2 models were run; at least 3"),
        (
            [replace(row, decode_tokens_per_s=0.0) for row in runs(TRUTH, CALIBRATION)],
            "0.0 tokens/s",
        ),
        ([replace(row, prefill_tokens_per_s=math.nan) for row in runs(TRUTH, CALIBRATION)], "nan"),
    ],
)
def test_a_calibration_of_nothing_is_refused(rows, said):
    """Too few models, or a rate that is none."""
    with pytest.raises(BadValueError, match=said):
        fit_here(rows, load_constants().processor, "a test", "1 May")
