import copy
from dataclasses import replace

import pytest
from matplotlib import rc_context

from shoestring.measure.records import Run
from shoestring.report.drawing import Drawing
from shoestring.report.figures import FIGURES, latency_by_concurrency
from shoestring.report.style import inline_svg, save_figure, svg_text


@pytest.mark.parametrize("name", FIGURES)
def test_the_same_run_gives_the_same_bytes(name, wide, tmp_path):
    """Drawn twice from one run, SVG and PDF are byte for byte the same."""
    draw = FIGURES[name].draw
    first, second = (
        [path.read_bytes() for path in save_figure(draw(wide).figure, tmp_path / stem)]
        for stem in ("first", "second")
    )

    assert first == second


@pytest.mark.parametrize("name", FIGURES)
def test_a_run_without_data_gives_a_reason(name, run, tmp_path):
    """A run that was killed before its first row has no figure but says why."""
    empty = Run(tmp_path, run.config, (), (), {"schema_version": 1, "sessions": []}, None)

    drawing = FIGURES[name].draw(empty)

    assert drawing.figure is None
    assert drawing.text


@pytest.mark.parametrize("name", FIGURES)
def test_a_killed_run_is_drawn(name, killed):
    """What a killed run has is drawn all the same; reasoning it has none."""
    drawing = FIGURES[name].draw(killed)

    assert isinstance(drawing, Drawing)
    assert (drawing.figure is None) is (name == "reasoning")


def test_medians_and_counts_are_in_the_words(run):
    """The words beside a figure carry its numbers, for readers who do not see it."""
    text = FIGURES["ttft_distribution"].draw(run).text

    assert "chat-128: median 50" in text
    assert "n = 20" in text


def test_concurrency_needs_two_of_one_prompt_length(run):
    """Points of other prompt lengths are other work and are not joined."""
    rows = tuple(row for row in run.rows if row["concurrency"] == 1)
    alone = Run(run.path, run.config, rows, run.telemetry, run.environment, run.manifest)

    assert latency_by_concurrency(alone).figure is None


def test_one_name_at_two_concurrencies_is_two_cases(uneven):
    """Requests alone and four at once are never pooled, in no figure."""
    words = FIGURES["ttft_distribution"].draw(uneven).text

    assert "chat-128-c1: median 50" in words
    assert "n = 20;" in words
    assert "chat-128-c4: median" in words
    assert "chat-128-c4: median" in FIGURES["decode_by_context"].draw(uneven).text
    assert "c = 4" in latency_by_concurrency(uneven).text


def test_only_alike_requests_are_joined(run, changed):
    """Another length of answer is other work, though the prompts are as long."""

    def longer(config):
        config["suite"]["cases"][1]["output_tokens"] = 64

    assert latency_by_concurrency(changed(run, change_config=longer)).figure is None


def test_a_curve_ends_below_the_whole_where_requests_failed(run):
    """The shares are of all requests that were asked, and the words count the failed ones."""
    drawing = FIGURES["ttft_distribution"].draw(run)
    context = next(label for label in drawing.text.split("; ") if "context-1024" in label)
    tops = [line.get_ydata()[-1] for line in drawing.figure.axes[0].lines[:3]]

    assert context.rstrip(".").endswith("n = 8, 2 failed")
    assert tops == pytest.approx([1.0, 39 / 40, 8 / 10])


def test_answers_in_one_piece_have_no_gaps_to_draw(run, changed):
    """Where every chunk came at once there is a reason instead of a figure."""

    def at_once(row):
        row["events"] = [[row["end_ns"], kind, size] for _, kind, size in row["events"]]

    drawing = FIGURES["itl_distribution"].draw(changed(run, at_once))

    assert drawing.figure is None
    assert "in one piece" in drawing.text


def test_equal_values_have_an_axis(run, changed):
    """A single time, many times over, is drawn without a warning."""

    def alike(row):
        start_ns = row["intended_ns"]
        row["events"] = [[start_ns + 10**9 + i, kind, size] for i, (_, kind, size) in
                         enumerate(row["events"])]  # fmt: skip

    assert FIGURES["ttft_distribution"].draw(changed(run, alike)).figure is not None


def test_a_prompt_of_no_tokens_is_left_out(run, changed):
    """A server that counts no prompt tokens does not break the logarithmic axis."""

    def empty(row):
        if row["usage"] and row["case"] == "chat-128":
            row["usage"]["prompt_tokens"] = 0

    assert "chat-128:" not in FIGURES["decode_by_context"].draw(changed(run, empty)).text


def test_dollar_signs_are_no_formula(run, changed):
    """A case may be named like broken mathematics, also where the user's own style allows it."""

    def rename(owner, key):
        if owner[key] == "chat-128":
            owner[key] = r"$\frac{bad$"

    odd = changed(
        run,
        lambda row: rename(row, "case"),
        lambda config: rename(config["suite"]["cases"][0], "name"),
    )
    with rc_context({"text.parse_math": True}):
        svg = svg_text(FIGURES["ttft_distribution"].draw(odd).figure)

    assert svg.startswith("<?xml")


def test_an_early_clock_is_drawn_with_its_size(run):
    """A negative error is as large as its amount."""
    environment = copy.deepcopy(run.environment)
    environment["sessions"][0]["calibration"]["ttft_error_s"] = -0.25
    drawing = FIGURES["ttft_distribution"].draw(replace(run, environment=environment))
    texts = [text.get_text() for text in drawing.figure.axes[0].texts]

    assert texts == ["clock error\n250\xa0ms"]


def test_no_figure_names_a_date_or_a_program(run):
    """An SVG carries neither the time of drawing nor the name of the program."""
    svg = svg_text(FIGURES["cold_start"].draw(run).figure)

    assert "dc:date" not in svg
    assert "Matplotlib" not in svg


def test_inline_figures_share_no_id(run):
    """Two figures on one page have no id in common, and each reference meets its id."""
    import re

    first, second = (
        inline_svg(FIGURES[name].draw(run).figure, name, "words")
        for name in ("cold_start", "ttft_distribution")
    )
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in (first, second)]

    assert not ids[0] & ids[1]
    assert set(re.findall(r'href="#([^"]+)"', first)) <= ids[0]
    assert set(re.findall(r"url\(#([^)]+)\)", second)) <= ids[1]


def test_the_words_are_escaped(run):
    """A case may be named with quotes or brackets without breaking the page."""
    svg = inline_svg(FIGURES["cold_start"].draw(run).figure, "x", 'a "b" <c> & d')

    assert 'aria-label="a &quot;b&quot; &lt;c> &amp; d"' in svg


def test_two_sessions_stand_side_by_side(run):
    """A resumed run's second session begins where the first one ended, not at zero."""
    rows = copy.deepcopy(run.rows)
    for row in rows[len(rows) // 2 :]:
        row["session"] = 2
    samples = [*run.telemetry, *({**sample, "session": 2} for sample in run.telemetry)]
    resumed = Run(run.path, run.config, rows, tuple(samples), run.environment, run.manifest)

    drawing = FIGURES["memory_timeline"].draw(resumed)

    assert "2 session(s)" in drawing.text
    assert drawing.figure.axes[0].get_xlim()[1] > 2 * run.telemetry[-1]["t_ns"] / 1e9


def test_cases_stand_in_the_order_of_the_suite(run):
    """Blocks shuffle the cases; the figures name them as the suite does."""
    shuffled = Run(
        run.path, run.config, run.rows[::-1], run.telemetry, run.environment, run.manifest
    )
    text = FIGURES["itl_distribution"].draw(shuffled).text

    assert text.index("chat-128:") < text.index("chat-128-c4:") < text.index("context-1024:")


def _labels(figure):
    return [axes.get_ylabel().partition(" (")[0] for axes in figure.axes]


def test_power_and_vram_have_a_row_where_they_were_read(run, wide):
    """With a GPU there are five rows; without one the note below says which are not, and why."""
    drawn, without = (FIGURES["memory_timeline"].draw(one) for one in (wide, run))

    assert _labels(drawn.figure) == ["memory", "busy cores", "VRAM", "power", "requests"]
    assert "power (peak 60 W)" in drawn.text
    assert drawn.note == ""
    assert _labels(without.figure) == ["memory", "busy cores", "requests"]
    assert without.note == "Not recorded: VRAM and power."


def test_why_a_row_is_missing_is_the_sessions_own_reason(run):
    """What the driver said stands below the figure."""
    environment = copy.deepcopy(run.environment)
    environment["sessions"][0]["machine"]["gpus_unavailable"] = "NVML: not found"
    note = FIGURES["memory_timeline"].draw(replace(run, environment=environment)).note

    assert note == "Not recorded: VRAM and power (NVML: not found)."

    said = environment["sessions"][0]["telemetry"]["unavailable"]
    said["gpus.0.power_w"] = "Not Supported"
    environment["sessions"][0]["machine"]["gpus_unavailable"] = None
    note = FIGURES["memory_timeline"].draw(replace(run, environment=environment)).note
    assert note == "Not recorded: VRAM and power (Not Supported)."


def test_vram_of_the_device_stands_in_for_that_of_the_process(wide):
    """Where no process can be told apart, the row says that it is the device's."""
    samples = tuple({**sample, "engine_vram_bytes": None} for sample in wide.telemetry)
    figure = FIGURES["memory_timeline"].draw(replace(wide, telemetry=samples)).figure

    assert figure.axes[2].get_ylabel() == "VRAM,\ndevice (MB)"
    assert _labels(figure)[3] == "power"


def test_the_three_clocks_are_in_the_words(wide):
    """TTFT, what the engine tells of it, the rest, and both decode rates, for each case."""
    drawing = FIGURES["three_clocks"].draw(wide)
    words = drawing.text.replace("\xa0", " ")

    assert "chat-128: TTFT 506 ms, of which the engine tells load 20 ms and prefill 449 ms" in words
    assert "residual 36.9 ms" in words
    assert [axes.get_xlabel() for axes in drawing.figure.axes] == [
        "time to first token (ms)", "decode, a request (tokens/s)", "GPU power (W)",
    ]  # fmt: skip


def test_bars_of_the_engine_and_the_residual_end_at_the_client(wide):
    """The parts of a row are stacked up to the client's own TTFT."""
    axes = FIGURES["three_clocks"].draw(wide).figure.axes[0]
    first_row = [bar for bar in axes.patches if abs(bar.get_y() + bar.get_height() / 2) < 1e-9]

    assert [round(bar.get_x()) for bar in first_row] == [0, 20, 469]
    assert first_row[-1].get_x() + first_row[-1].get_width() == pytest.approx(506.2, abs=0.5)


def test_without_a_gpu_the_third_clock_is_the_processor(run):
    """Busy cores stand where no power is told."""
    axes = FIGURES["three_clocks"].draw(run).figure.axes

    assert axes[-1].get_xlabel() == "engine, busy cores"


def test_an_engine_without_timings_has_no_clock_to_compare(run, changed):
    """The reason is told instead of a figure of one clock."""
    drawing = FIGURES["three_clocks"].draw(changed(run, lambda row: row.update(native=None)))

    assert drawing.figure is None
    assert "the engine tells no timings of its own" in drawing.text


def test_first_reasoning_and_first_answer_are_told_apart(wide):
    """Only the case that thought is drawn, with both waits and the share."""
    words = FIGURES["reasoning"].draw(wide).text.replace("\xa0", " ")

    assert words.startswith("thinking: first reasoning 25")
    assert "first answer 57" in words
    assert "49.7 % of the text is reasoning" in words


def test_an_empty_cache_is_a_sentence_not_a_figure(run, changed):
    """0 % in every case needs no bars; an engine that does not tell is another sentence."""

    def cached(tokens):
        def change(row):
            for part in filter(None, (row["usage"], row["native"])):
                part["cached_tokens"] = tokens

        return FIGURES["cached_share"].draw(changed(run, change))

    assert cached(0).text.startswith("no prompt token came from the prefix cache: chat-128 0 %")
    assert cached(None).text == "the engine does not tell what came from its prefix cache"
    assert "chat-128 50 %" in cached(64).text
