"""What the notebook on the CPU service shows. All figures here are made up."""

import copy
import json
import re
from pathlib import Path

import pytest

from shoestring.errors import BadRunError, BadValueError
from shoestring.report.html import render_html
from shoestring.report.notebook import execute_notebook, find_notebook
from shoestring.report.service_claims import CLAIMS, claims_table
from shoestring.report.service_curves import load_curves, ttft_by_concurrency
from shoestring.report.service_figures import campaign_timeline, overhead_figure
from shoestring.report.service_page import ServicePage
from shoestring.report.service_tables import (
    BENCHMARKS,
    OVERHEAD,
    arithmetic_table,
    bars_table,
    memory_table,
    note_table,
    pace_table,
    rates_table,
    size_table,
    ttft_table,
)
from shoestring.report.service_trials import (
    campaign_facts,
    crowd_facts,
    crowd_table,
    faults_table,
    limits_table,
    outcomes_table,
)
from shoestring.report.tabular import Estimate, html_text

ROOT = Path(__file__).parents[2]
ROUNDS = 5
MIB = 1 << 20
THEIRS, CACHED, OURS = "transformers fp32, as published", "transformers fp32, cache", "ours q8_0"


def _result(name, **figures):
    cpu = {"model": "A Processor", "cores_usable": 2.0, "cores_logical": 2}
    machine = {"platform": "local", "os": "Linux", "cpu": cpu, "memory_bytes": 8 * 2**30}
    return {
        "schema_version": 1, "benchmark": name, "measured_utc": "2026-05-06T07:08:09Z",
        "machine": machine | {"gpus": []}, "load_average_1min": 0.5,
        "versions": {"shoestring": "0.1.0", "python": "3.11.7"}, **figures,
    }  # fmt: skip


def _stack(name, seconds, imported_bytes):
    return name, {
        "load_s": 0.5, "ready_s": 1.5, "rss_bytes": 300 * MIB, "imported_rss_bytes": imported_bytes,
        "peak_rss_bytes": 310 * MIB, "weights_bytes": 200 * MIB, "mean_request_s": seconds,
        "median_request_s": {"value": seconds, "ci95": [seconds * 0.9, seconds * 1.1]},
        "successful": {"ok": 10, "of": 10, "ci95": [0.7, 1.0]},
    }  # fmt: skip


def _blocks(name, seconds, service):
    """Times grow from round to round, for all stacks alike: a ratio by rounds does not see it."""
    return [
        {"stack": name, "block": number, "service": service, "requests": [
            {"request_s": seconds * (number + 1), "tokens": 8, "ok": True, "failure": None},
            {"request_s": 1e-6, "tokens": 0, "ok": False, "failure": "refused"},
        ]}
        for number in range(ROUNDS)
    ]  # fmt: skip


@pytest.fixture
def note():
    """Figures of the note's table: its stacks take 8 s and 2 s, ours 0.5 s."""
    stacks = [
        _stack(THEIRS, 8.0, 100 * MIB),
        _stack(CACHED, 2.0, 100 * MIB),
        _stack(OURS, 0.5, None),
    ]
    blocks = [*_blocks(THEIRS, 8.0, {}), *_blocks(CACHED, 2.0, {}), *_blocks(OURS, 0.5, None)]
    claims = [{"claim": "it is so", "holds": True, "why": "counted"},
              {"claim": "it is large", "holds": False, "why": "weighed"}]  # fmt: skip
    return _result(
        "note-table", summary=dict(stacks), blocks=blocks, prompt_tokens=32, answer_tokens=100,
        arithmetic={"claims": claims}, llama_server="version: 1",
        note={"load_s": 3.59, "rss_mb": 700.83, "size_mb": 191.46, "mean_inference_s": 7.89,
              "successful": "5/5"},
    )  # fmt: skip


def _arm(median_s, p99_s=None):
    interval = [median_s / 2, median_s * 2]
    added = {
        "median": median_s,
        "p99": p99_s,
        "max": 0.2,
        "median_ci95": interval,
    }
    ttft = {"median": 0.05 + median_s, "p99": p99_s and 0.05 + p99_s, "max": 0.3}
    return {"failed": 0, "failures": [], "requests": 720, "ttft_s": ttft, "added_s": added}


@pytest.fixture
def overhead():
    """Figures of the gateways: ours adds 2 ms, LiteLLM 60 ms."""
    arms = {"direct": _arm(0.0, 0.0), "shoestring": _arm(0.002, 0.008), "litellm": _arm(0.06)}
    ratio = {"median": 0.99, "min": 0.98, "max": 1.0, "ci95": [0.98, 1.0]}
    rates = {"shoestring": [900.0] * ROUNDS, "litellm": [100.0] * ROUNDS}
    return _result(
        OVERHEAD, how={"arms": list(arms)}, peers={"litellm": "1.2.3"},
        peak_memory_bytes={"ttft": {"shoestring": 90 * MIB, "litellm": 400 * MIB},
                           "cached": {"shoestring": 95 * MIB, "litellm": None}},
        ttft=[{"concurrency": c, "model": "truth", "arms": copy.deepcopy(arms)} for c in (1, 8)],
        throughput={"model": "pypi:m", "slots": 4, "output_tokens": 96,
                    "output_tokens_per_s": {"direct": [50.0] * ROUNDS,
                                            "shoestring": [49.5] * ROUNDS},
                    "ratio_to_direct": {"shoestring": ratio}},
        cached={"concurrency": 8, "answers_per_s": {"answers": rates, "streams": rates},
                "ratio_to_litellm": {"answers": ratio | {"median": 9.0}, "streams": None}},
        bars=[{"bar": "added TTFT median at c=8, s", "value": 0.002, "sense": "at most",
               "limit": 0.003, "met": True},
              {"bar": "throughput / direct, median", "value": 0.97, "sense": "at least",
               "limit": 0.98, "met": False},
              {"bar": "peak memory of a worker, bytes", "value": None, "sense": "at most",
               "limit": 150 * MIB, "met": None}],
    )  # fmt: skip


@pytest.fixture
def crowd():
    """Figures of a crowd that cost 9 MiB."""
    ttft = {"median": 0.051, "p99": None, "max": 0.09}
    phase = {
        "requests": 80,
        "failed": 1,
        "failures": ["x"],
        "ttft_s": ttft,
        "resident_bytes": 90 * MIB,
    }
    return _result(
        "gateway-crowd", connections=2000, unread=200, unread_begun=200,
        unread_taken_bytes={"median": 5 * MIB, "max": 6 * MIB}, stall_s=3600,
        connection_bound_bytes=32 * 2**10, unread_bound_bytes=256 * 2**10, growth_bytes=9 * MIB,
        phases={"without": phase, "with": phase, "after": phase}, bars=[],
    )  # fmt: skip


def _fault(kind, at_s, answered_after_s, seen=None):
    return {"kind": kind, "at_s": at_s, "down_s": 2.0, "end_s": 1.5 if "ended" in kind else None,
            "answered_after_s": answered_after_s, "seen_in_metrics": seen}  # fmt: skip


@pytest.fixture
def campaign():
    """Figures of a campaign with a limit exceeded and a fault after which nothing was answered."""
    limit = {"limit": 40, "most": 41, "most_from_s": 20.0, "most_redis_up": 40, "allowed_above": 1}
    return _result(
        "gateway-campaign", seconds=120.0, seed=1, clients=16, wrong=["one limit"], requests=30,
        outcomes={"stream": {"answered": 20, "cut": 1}, "bad": {"refused": 9}},
        refusals={"bad: 400 bad_json": 9}, cache_hits=4, reset={"replica killed: cut": 1},
        limits={"requests a minute": limit | {"kept": True},
                "at once": limit | {"limit": 3, "most": 5, "kept": False}},
        faults=[_fault("redis killed", 10.0, 0.1, seen=True), _fault("replica ended", 40.0, None),
                _fault("redis killed", 80.0, 0.3, seen=False)],
        peak_memory_bytes={"a": 90 * MIB, "b": None}, left_over={},
    )  # fmt: skip


@pytest.fixture
def folder(note, overhead, crowd, campaign, tmp_path):
    """A folder with all files."""
    for figures in (note, overhead, crowd, campaign):
        path = tmp_path / "measured" / f"{figures['benchmark']}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(figures))
    return tmp_path / "measured"


def _run_notebook(folder, tmp_path):
    executed, page = tmp_path / "x.ipynb", tmp_path / "x.html"
    execute_notebook(
        find_notebook("03_cpu_service"), executed, {"measured": str(folder)}, progress=False
    )
    render_html(executed, page)
    return page.read_text()


def _column(table, key):
    place = [column.key for column in table.columns].index(key)
    return [row[place] for row in table.rows]


def test_the_notebook_shows_all_figures_and_needs_nothing_from_elsewhere(folder, tmp_path):
    """Executed and rendered: whole, our title, every figure drawn, no link to another place."""
    text = _run_notebook(folder, tmp_path)

    assert "INCOMPLETE" not in text
    assert "A service on the CPU" in text
    for name in ("gateway_overhead", "gateway_ttft", "gateway_campaign"):
        assert f'<figure id="{name}">' in text
    assert not re.search(r"(?:src|href)=[\"'](?:https?:)?//", text)
    assert "No figure: no run of the load client was given" in text


def test_what_was_not_measured_is_said_and_the_page_is_whole(tmp_path):
    """With an empty folder each part names the benchmark that was not run."""
    (tmp_path / "nothing").mkdir()
    text = _run_notebook(tmp_path / "nothing", tmp_path)

    assert "INCOMPLETE" not in text
    for name in BENCHMARKS:
        assert f"Not measured: benchmarks/{name.replace('-', '_')}.py was not run" in text


def test_a_folder_or_file_that_is_none_is_refused(folder):
    """A path that is not there; a file of another benchmark."""
    with pytest.raises(BadValueError, match="no such folder"):
        ServicePage("/nowhere")
    (folder / "gateway-crowd.json").write_text('{"benchmark": "clock"}')
    with pytest.raises(BadRunError, match="no result of gateway-crowd"):
        ServicePage(str(folder))


def test_the_notes_figures_stand_in_a_column_of_their_own(note):
    """As printed, marked as another machine's; ours beside them; a missing one is a dash."""
    table = note_table(note)

    assert table.columns[1].heading == "The note, published on another machine"
    assert _column(table, "note")[0] == "3.59 s"
    assert [column.heading for column in table.columns[2:]] == [THEIRS, CACHED, OURS]
    less = next(row for row in table.rows if row[0] == "RSS less what imports took")
    assert less[2:] == ("200\u00a0MiB", "200\u00a0MiB", "\u2014")
    assert _column(table, "stack_2")[-1] == "10/10"


def test_a_ratio_compares_within_a_round(note):
    """Rounds grow alike, so the ratio is exact; wrong answers do not count; none with itself."""
    rows = {row[0]: row for row in pace_table(note).rows}

    assert rows[OURS][2:4] == (Estimate(16.0, 16.0, 16.0), Estimate(4.0, 4.0, 4.0))
    assert rows[THEIRS][2] is None
    assert rows[CACHED][2].median == 4.0


def test_too_few_rounds_have_no_interval(note):
    """Four rounds give a ratio and no interval."""
    note["blocks"] = [block for block in note["blocks"] if block["block"] < ROUNDS - 1]

    assert {row[0]: row for row in pace_table(note).rows}[OURS][2] == Estimate(16.0, None, None)


def test_the_notes_size_is_that_of_two_bytes():
    """Counted from the tensors, to the note's last digit; with no benchmark at all."""
    table = size_table()

    assert _column(table, "weights_mib")[:2] == ["191.46", "382.93"]
    assert set(_column(table, "parameters")) == {100_382_080}


def test_each_table_names_its_file_day_and_machine(note, overhead, crowd, campaign):
    """In its title, so that none stands without."""
    tables = [
        note_table(note), pace_table(note), arithmetic_table(note), ttft_table(overhead),
        rates_table(overhead), memory_table(overhead), bars_table(overhead, OVERHEAD),
        crowd_table(crowd), outcomes_table(campaign), limits_table(campaign),
        faults_table(campaign),
    ]  # fmt: skip
    for table in tables:
        assert re.search(
            r"\((note|gateway)-\w+\.json, 2026-05-06, A Processor, 2 cores\)$", table.title
        )
        assert html_text(table)


def test_bars_have_units_and_verdicts(overhead):
    """Met, missed, and no figure, which is neither."""
    rows = bars_table(overhead, OVERHEAD).rows

    assert [row[3] for row in rows] == ["met", "missed", "no figure"]
    assert rows[0][:3] == ("added TTFT median at c=8", "at most 3\u00a0ms", "2\u00a0ms")
    assert rows[1][0] == "throughput / direct, median"
    assert rows[2][1:3] == ("at most 150\u00a0MiB", "\u2014")
    overhead["bars"][0]["bar"] = "added TTFT, s: one, two"
    assert bars_table(overhead, OVERHEAD).rows[0][0] == "added TTFT: one, two"
    assert bars_table(overhead, OVERHEAD).rows[0][2] == "2\u00a0ms"


def test_nothing_is_added_to_nothing(overhead):
    """The arm without a gateway has its own TTFT and no added one."""
    rows = [row for row in ttft_table(overhead).rows if row[1] == "direct"]

    assert [row[6:] for row in rows] == [(None, None), (None, None)]
    assert "direct, c" not in overhead_figure(overhead).text


def test_a_part_that_was_left_out_is_said(overhead):
    """TTFT alone: the other tables say so, and the figure has no panel for them."""
    for part in ("throughput", "cached"):
        del overhead[part]

    assert "was left out" in html_text(rates_table(overhead))
    drawing = overhead_figure(overhead)
    assert len(drawing.figure.axes) == 2
    assert "cache" not in drawing.text


def test_one_concurrency_is_no_curve(overhead):
    """Two are drawn with their words; of one the reason is told."""
    assert "c = 8 52" in ttft_by_concurrency(overhead).text
    assert "litellm, p99: no figure" in ttft_by_concurrency(overhead).text
    del overhead["ttft"][1]
    assert ttft_by_concurrency(overhead).figure is None


def test_runs_of_the_load_client_become_curves(uneven):
    """A point for each concurrency; without runs the reason."""
    drawing = load_curves([uneven])

    assert drawing.figure is not None
    assert "c = 1: " in drawing.text
    assert "c = 4: " in drawing.text
    assert uneven.run_id in drawing.note
    assert load_curves([]).figure is None


def test_what_the_crowd_cost_is_told(crowd):
    """Bytes in their units, and bounds beside the growth."""
    told = dict(crowd_facts(crowd))

    assert told["the gateway grew by"] == "9\u00a0MiB"
    assert "32 KiB a connection" in told["the stated bound"]
    assert _column(crowd_table(crowd), "failed") == [1, 1, 1]


def test_outcomes_add_up(campaign):
    """A column for each outcome, and all kinds together below."""
    table = outcomes_table(campaign)

    assert table.rows[-1][:3] == ("all", 30, 20)
    assert all(row[1] == sum(row[2:]) for row in table.rows)


def test_an_outcome_of_no_name_is_not_lost(campaign):
    """A kind of end that this page does not know makes the sum wrong, so it gets a column."""
    campaign["outcomes"]["stream"]["vanished"] = 2

    table = outcomes_table(campaign)

    assert "vanished" in [column.heading for column in table.columns]
    assert table.rows[-1][1] == sum(table.rows[-1][2:]) == 32


def test_faults_without_an_answer_after_them_are_counted(campaign):
    """By kind: how often, how long, never answered, seen in the metrics."""
    rows = {row[0]: row for row in faults_table(campaign).rows}

    assert rows["redis killed"][1:] == (2, 2.0, None, 0.3, 0, "1 of 2")
    assert rows["replica ended"][1:] == (1, 2.0, 1.5, None, 1, "")
    assert [row[-1] for row in limits_table(campaign).rows] == ["kept", "exceeded"]
    assert dict(campaign_facts(campaign))["wrong"] == "one limit"


def test_the_timeline_has_a_row_for_each_fault_and_limit(campaign):
    """Without times in the file there is a reason instead of a figure."""
    drawing = campaign_timeline(campaign)

    labels = [tick.get_text() for tick in drawing.figure.axes[0].get_yticklabels()]
    assert labels == ["redis killed", "replica ended", "most requests a minute", "most at once"]
    assert "redis killed at 80 s for 2 s" in " ".join(drawing.text.split())
    for fault in campaign["faults"]:
        del fault["at_s"]
    assert "no times" in campaign_timeline(campaign).text


def test_every_claim_names_tests_that_exist():
    """Each is a function of a test file or a page, and each claim has at least one."""
    for claim in CLAIMS:
        assert claim.tests
        for named in claim.tests:
            path, _, function = named.partition("::")
            if path.startswith("docs/"):
                assert (ROOT / path).is_file(), named
            else:
                assert f"def {function}(" in (ROOT / "tests" / path).read_text(), named


def test_the_interval_of_five_of_five_is_wilsons():
    """The published value for 5 of 5 is 56.6 %."""
    whys = _column(claims_table(), "why")

    assert any("56.6 to 100 %" in why for why in whys)
