"""What the notebook on the swarm shows. All figures here are made up."""

import json
import os
import re
import select
from pathlib import Path

import pytest

from shoestring.errors import BadRunError, BadValueError, MissingError, ShoestringError
from shoestring.report import swarm_live
from shoestring.report.html import render_html
from shoestring.report.notebook import execute_notebook, find_notebook
from shoestring.report.swarm_claims import swarm_claims
from shoestring.report.swarm_examples import (
    beside_note,
    choice_facts,
    devices_table,
    hops_table,
    ways_table,
)
from shoestring.report.swarm_figures import (
    hops_figure,
    processor_figure,
    round_trip_figure,
    timeline_figure,
)
from shoestring.report.swarm_law import fit_lines, law_round_trips
from shoestring.report.swarm_page import SwarmPage
from shoestring.report.swarm_tables import (
    BENCHMARKS,
    frames_table,
    gaps_table,
    loads_table,
    overhead_table,
    predicted_table,
    processor_table,
    rounds_table,
    scaling_table,
    text_facts,
    work_table,
)
from shoestring.report.tabular import html_text

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
BLOCKS = 5
BASE_S = 0.06
DELAYS_S = (0.0, 0.02, 0.05)


def _result(name, **figures):
    cpu = {"model": "A Processor", "cores_usable": 2.0, "cores_logical": 2}
    machine = {"platform": "local", "os": "Linux", "cpu": cpu, "memory_bytes": 8 * 2**30}
    return {
        "schema_version": 1, "benchmark": name, "measured_utc": "2026-05-06T07:08:09Z",
        "machine": machine | {"gpus": []}, "load_average_1min": 0.5,
        "versions": {"shoestring": "0.1.0", "python": "3.11.7"}, **figures,
    }  # fmt: skip


def _row(peers, rtt_s, predicted):
    """Times that follow the law, block by block a little slower."""
    arms = ("raw", "star", "chain") if peers > 1 else ("raw", "star")
    times = {
        arm: [BASE_S * (1 + block / 10) + law_round_trips(arm, peers) * rtt_s
              for block in range(BLOCKS)]
        for arm in arms
    }  # fmt: skip
    return {"peers": peers, "rtt_s": rtt_s, "greeted_rtt_s": rtt_s + 5e-4, "same_text": True,
            "token_s": times, "predicted": predicted}  # fmt: skip


@pytest.fixture
def scaling():
    """Figures that follow the law; the planner says 0.1 s of one peer and nothing of four."""
    said = {"token_s": 0.1, "low_s": 0.05, "high_s": 0.2}
    silent = {"token_s": None, "why": "nobody told how fast its memory is"}
    rows = [_row(1, at, said) for at in DELAYS_S] + [_row(4, at, silent) for at in DELAYS_S]
    return _result("swarm-scaling", rows=rows, same_text=True)


@pytest.fixture
def parts():
    """Figures of a token: a narrow model whose hop has 2,560 bytes."""
    one = {"frames": 1, "data_bytes": 2560, "wording_bytes": 300}
    stage = {"activation in": one, "graph": {"frames": 1, "data_bytes": 0, "wording_bytes": 13}}
    logits = {"frames": 1, "data_bytes": MIB, "wording_bytes": 329}
    return _result(
        "swarm-parts",
        frames=[{"model": "narrow", "layers": 18, "width": 640, "vocabulary": 262144,
                 "first": stage | {"activation out": one}, "last": stage | {"logits": logits}}],
        work={"firewall": {"s": 5e-5}, "hashing": {"s": 0.003}},
        processor={"raw": {"llama-server": [0.002] * BLOCKS, "worker": [0.04] * BLOCKS},
                   "ours": {"llama-server": [0.002] * BLOCKS, "proxy": [0.007] * BLOCKS,
                            "agent": [0.003] * BLOCKS, "worker": [0.04] * BLOCKS}},
        link={"raw": {"bytes": 1024.0}, "ours": {"bytes": 2048.0}},
    )  # fmt: skip


@pytest.fixture
def overhead():
    """Figures of one case, and a bar that is met."""
    case = {"remotes": 1, "rtt_s": 0.02, "raw_token_s": 0.1, "ours_token_s": 0.101,
            "added_s_a_remote": {"median": 0.001, "ci95": [0.0005, 0.0015]},
            "ratio": {"median": 0.99, "ci95": None}}  # fmt: skip
    bar = {"bar": "added, s", "value": 0.001, "sense": "at most", "limit": 0.0015, "met": True}
    return _result("swarm-overhead", cases=[case], bars=[bar])


@pytest.fixture
def timeline():
    """Figures of two rounds: a loss that nobody notices, and one that costs 2 s."""
    calm_s = [0.1 * token for token in range(10)]
    late_s = calm_s[:5] + [at + 2.0 for at in calm_s[5:]]
    lost = {"at_s": 0.47, "what": "lost", "who": "node1", "why": "hung up"}
    rounds = [
        {"mode": "mirrored", "fault": "killed", "calm_s": calm_s, "hit_s": calm_s,
         "struck_s": 0.45, "events": [lost], "wrong": []},
        {"mode": "replayed", "fault": "cut", "calm_s": calm_s, "hit_s": late_s,
         "struck_s": 0.45, "events": [], "wrong": ["the text is not the undisturbed one"]},
    ]  # fmt: skip
    return _result("swarm-timeline", rounds=rounds, wrong=[], bars={"mirrored": 0.5,
                                                                     "replayed": 3.0})  # fmt: skip


@pytest.fixture
def faults():
    """Figures of a campaign with one kind of loss."""
    gap = {"mode": "mirrored", "fault": "worker", "cold": True, "rounds": 2, "median_s": 0.1,
           "max_s": 0.2, "calm_median_s": 0.09, "calm_max_s": 0.1}  # fmt: skip
    return _result("swarm-faults", gaps=[gap], rounds=[{}, {}], wrong=[], bars=[])


def _device(name, rtt_s, layers):
    first, end = layers
    held = (end - first) * MIB or None
    return {"name": name, "greeted_rtt_s": rtt_s, "offered_bytes": 20 * MIB, "layers": layers,
            "weights_bytes": held or 0, "planned_bytes": held or 0,
            "resident_bytes": held}  # fmt: skip


@pytest.fixture
def examples():
    """Figures of an example with a near device that is taken and a far one that is not."""
    way = {"token_s": 0.1, "planned_token_s": 0.09, "interval_s": None, "events": [],
           "devices": [_device("near", 0.001, [0, 60]),
                       _device("far", 0.05, [60, 60])]}  # fmt: skip
    example = {"model": "60 layers of width 1024", "layers": 60, "width": 1024,
               "file_bytes": 400 * MIB, "rtt_s": [0.001, 0.05],
               "ways": {"all are offered": way}}  # fmt: skip
    return _result("swarm-examples", examples={"five of ten": example})


@pytest.fixture
def loads():
    """Figures of a model that went over the wire once."""
    model = {"model": "m", "file_bytes": 1000, "loads": [{"wire_bytes": 1000}, {"wire_bytes": 5}]}
    return _result("swarm-loads", models=[model], bars=[])


@pytest.fixture
def all_figures(scaling, parts, overhead, timeline, faults, examples, loads):
    """Return all files but that of the chain, which was not measured."""
    return (scaling, parts, overhead, timeline, faults, examples, loads)


@pytest.fixture
def folder(all_figures, tmp_path):
    """A folder with them."""
    for figures in all_figures:
        path = tmp_path / "measured" / f"{figures['benchmark']}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(figures))
    return tmp_path / "measured"


def _run_notebook(folder, tmp_path):
    executed, page = tmp_path / "x.ipynb", tmp_path / "x.html"
    execute_notebook(find_notebook("05_swarm"), executed, {"measured": str(folder)}, progress=False)
    render_html(executed, page)
    return page.read_text()


def _column(table, key):
    place = [column.key for column in table.columns].index(key)
    return [row[place] for row in table.rows]


def test_the_notebook_shows_all_figures_and_needs_nothing_from_elsewhere(folder, tmp_path):
    """Executed and rendered: whole, our title, every figure drawn, no link to another place."""
    text = _run_notebook(folder, tmp_path)

    assert "INCOMPLETE" not in text
    assert "A model over peers" in text
    for name in ("round_trips", "processor", "timeline", "hops"):
        assert f'<figure id="swarm_{name}">' in text
    assert not re.search(r"(?:src|href)=[\"'](?:https?:)?//", text)
    assert "benchmarks/swarm_chain.py was not run" in text


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
        SwarmPage("/nowhere")
    (folder / "swarm-parts.json").write_text('{"benchmark": "clock"}')
    with pytest.raises(BadRunError, match="no result of swarm-parts"):
        SwarmPage(str(folder))


def test_the_law_is_found_in_what_follows_it(scaling):
    """N round trips of a star, (N + 1) / 2 of a chain; the base is that of the middle block."""
    lines = {(line.peers, line.arm): line for line in fit_lines(scaling["rows"])}

    assert set(lines) == {(1, "raw"), (1, "star"), (4, "raw"), (4, "star"), (4, "chain")}
    for (peers, arm), trips in (((1, "raw"), 1), ((4, "star"), 4), ((4, "chain"), 2.5)):
        line = lines[peers, arm]
        assert line.ought == trips
        assert line.round_trips.median == pytest.approx(trips)
        assert line.base_s.median == pytest.approx(1.2 * BASE_S)
        assert line.base_s.low < line.base_s.median < line.base_s.high


def test_what_departs_from_the_law_shows_it(scaling):
    """A star that waits twice for each peer is fitted so, beside the law."""
    for row in scaling["rows"]:
        row["token_s"]["star"] = [at + row["peers"] * row["rtt_s"] for at in row["token_s"]["star"]]

    table = scaling_table(scaling)

    star = next(row for row in table.rows if row[:2] == (4, "ours, star"))
    assert star[-3].median == pytest.approx(8)
    assert star[-2] == 4
    drawing = round_trip_figure(scaling)
    assert "8 round trips a token, 4 by the law" in drawing.text
    _, top = drawing.figure.axes[0].get_ylim()
    slowest_s = max(max(row["token_s"]["star"]) for row in scaling["rows"])
    assert top > 1e3 * slowest_s - 1e3 * BASE_S


def test_one_round_trip_is_no_line(scaling):
    """Nothing is fitted through one point, and the figure says why there is none."""
    scaling["rows"] = scaling["rows"][:1]

    assert fit_lines(scaling["rows"]) == []
    assert round_trip_figure(scaling).figure is None


def test_the_planner_stands_beside_the_star(scaling):
    """Its error where it predicted; nothing, and no zero, where it did not."""
    table = predicted_table(scaling)

    errors = _column(table, "error")
    assert errors[0] == pytest.approx(0.1 / (1.2 * BASE_S) - 1)
    assert errors[-1] is None
    assert _column(table, "predicted_s")[-1].median is None


def test_each_table_names_its_file_day_and_machine(
    scaling, parts, overhead, timeline, faults, examples, loads
):
    """In its title, so that none stands without."""
    tables = [
        scaling_table(scaling), predicted_table(scaling), overhead_table(overhead),
        processor_table(parts), work_table(parts), frames_table(parts), hops_table(parts),
        rounds_table(timeline), gaps_table(faults), loads_table(loads), ways_table(examples),
        devices_table(examples, "five of ten"),
    ]  # fmt: skip
    for table in tables:
        assert re.search(r"\(swarm-\w+\.json, 2026-05-06, A Processor, 2 cores\)$", table.title)
        assert table.rows
        assert html_text(table)


def test_processes_that_raw_rpc_has_not_are_missing_there(parts):
    """A dash, and no zero; the figure has a bar for each that there is."""
    rows = {row[0]: row for row in processor_table(parts).rows}

    assert rows["processor time, proxy (ms)"][1] is None
    assert rows["processor time, proxy (ms)"][2].median == pytest.approx(7)
    assert rows["bytes on the link, both ways (KiB)"][2].median == 2
    drawing = processor_figure(parts)
    assert "raw RPC, proxy" not in drawing.text
    assert len(drawing.figure.axes[0].patches) == 6


def test_the_dearest_part_of_the_work_comes_first(parts):
    """Sorted by time."""
    assert _column(work_table(parts), "part") == ["hashing", "firewall"]


def test_a_hops_bytes_stand_beside_the_notes(parts):
    """Counted where a model was run, computed elsewhere; below, within and above the range."""
    rows = {row[0]: row for row in hops_table(parts).rows}

    assert rows["narrow"][3:5] == (2560, 2560)
    assert rows["narrow"][5] == 2560 + 300 + 13 + 2560 + 300
    assert rows["narrow"][-1] == "below"
    assert rows["phi-3-mini"][3:6] == (12_288, None, None)
    assert rows["yi-34b"][1:3] == (60, 7168)
    assert rows["yi-34b"][-1] == "within"
    assert beside_note(50_001) == "above"
    assert "narrow: 2.50 KiB, counted" in hops_figure(parts).text
    assert "narrow" not in hops_figure(None).text


def test_a_counted_shape_is_not_computed_too(parts):
    """One row a model."""
    parts["frames"][0]["model"] = "phi-3-mini"

    names = _column(hops_table(parts), "model")

    assert names.count("phi-3-mini") == 1


def test_waits_are_told_beside_their_bar(timeline):
    """The longest with the fault and without, when it was noticed, and what was wrong."""
    rows = rounds_table(timeline).rows

    assert rows[0][:2] == ("mirrored", "node killed")
    assert rows[0][2:6] == pytest.approx((0.1, 0.1, 0.5, 0.02))
    assert rows[1][3] == pytest.approx(2.1)
    assert rows[1][5] is None
    assert rows[1][6] == "the text is not the undisturbed one"
    assert "longest wait 2.10" in " ".join(timeline_figure(timeline).text.split())


def test_a_fault_that_never_struck_has_no_mark(timeline):
    """The tokens are drawn all the same."""
    for one in timeline["rounds"]:
        one["struck_s"] = None

    crosses = [
        line for axes in timeline_figure(timeline).figure.axes for line in axes.lines
        if line.get_marker() == "x"
    ]  # fmt: skip
    assert crosses == []
    assert _column(rounds_table(timeline), "noticed_s") == [None, None]


def test_each_device_of_an_example_has_a_row(examples):
    """With its layers in words; one without any holds nothing."""
    rows = devices_table(examples, "five of ten").rows

    assert rows[0][1:] == ("near", 0.001, 20 * MIB, "0 to 59", 60, 60 * MIB, 60 * MIB)
    assert rows[1][4:] == ("none", 0, 0, None)
    assert "was left out" in html_text(devices_table(examples, "Phi-3"))
    assert _column(ways_table(examples), "devices") == [1]


def test_who_was_chosen_is_told_with_the_reason(examples):
    """The near one by name, the far one as left out, and what the round trips add."""
    facts = dict(choice_facts(examples, "five of ten"))

    assert facts["all are offered: chosen"].startswith("near (")
    assert facts["all are offered: left out"].startswith("far (")
    assert (
        "add about 1\u00a0ms to a token in a chain, of 100\u00a0ms"
        in facts["all are offered: because"]
    )
    assert choice_facts({"examples": {}}, "five of ten") == [("five of ten", "not run")]
    assert "swarm_examples.py was not run" in dict(choice_facts(None, "five of ten"))["five of ten"]


def test_every_claim_names_tests_that_exist():
    """Each is a function of a test file or a page, and each claim has at least one."""
    for claim in swarm_claims({}):
        assert claim.tests
        for named in claim.tests:
            path, _, function = named.partition("::")
            if path.startswith("docs/"):
                assert (ROOT / path).is_file(), named
            else:
                assert f"def {function}(" in (ROOT / "tests" / path).read_text(), named


def _judged(text, **files):
    """Return the verdict and the reason of the claim that begins so."""
    named = {f"swarm-{name}": figures for name, figures in files.items()}
    [claim] = [one for one in swarm_claims(named) if one.text.startswith(text)]
    return claim.verdict, claim.why


MEASURED = ("It increases latency", "60 layers over 4", "Of ten devices", "Testing model")


@pytest.mark.parametrize("text", MEASURED)
def test_what_was_not_measured_cannot_be_judged(text, examples):
    """Without a file, without the example, and where its run was lost."""
    assert _judged(text)[0] == "cannot be judged"
    assert "was not run" in _judged(text)[1]
    if text != MEASURED[0]:
        empty = examples | {"examples": {}}
        assert _judged(text, examples=empty) == ("cannot be judged", "The example was not run.")


@pytest.mark.parametrize(("name", "text"), [("60 layers", MEASURED[1]), ("Phi-3", MEASURED[3])])
def test_a_run_that_was_lost_proves_nothing(examples, name, text):
    """Its event is the reason."""
    example = examples["examples"].pop("five of ten")
    way = example["ways"]["all are offered"]
    way |= {"token_s": None, "events": ["lost node1"]}
    examples["examples"][name] = example
    assert _judged(text, examples=examples) == (
        "cannot be judged",
        "The run was lost: lost node1.",
    )


def test_latency_is_judged_by_the_slope(scaling):
    """Where a token takes no longer with the round trip, the claim is wrong."""
    assert _judged(MEASURED[0], scaling=scaling)[0] == "holds"
    for row in scaling["rows"]:
        row["token_s"] = {arm: [BASE_S - row["rtt_s"] / 10] * BLOCKS for arm in row["token_s"]}
    assert _judged(MEASURED[0], scaling=scaling)[0] == "wrong"


def _sixty(examples, counts, held):
    first, devices = 0, []
    for number, (count, resident) in enumerate(zip(counts, held, strict=True)):
        device = _device(f"node{number}", 0.002, [first, first + count])
        devices.append(device | {"resident_bytes": resident})
        first += count
    example = examples["examples"]["five of ten"]
    way = example["ways"]["all are offered"] | {"devices": devices}
    return examples | {"examples": {"60 layers": example | {"ways": {"all are offered": way}}}}


@pytest.mark.parametrize(
    ("counts", "held", "verdict"),
    [
        ((10, 20, 15, 15), (100 * MIB,) * 4, "holds"),
        ((5, 25, 15, 15), (100 * MIB,) * 4, "in part"),
        ((10, 20, 15, 15), (100 * MIB, 500 * MIB, 100 * MIB, 100 * MIB), "wrong"),
        ((10, 20, 15, 15), (100 * MIB, None, 100 * MIB, 100 * MIB), "cannot be judged"),
    ],
)
def test_sixty_layers_are_judged_by_what_each_device_held(examples, counts, held, verdict):
    """Of 400 MiB in all."""
    assert _judged(MEASURED[1], examples=_sixty(examples, counts, held))[0] == verdict


@pytest.mark.parametrize(
    ("chosen", "verdict"),
    [
        (range(5), "holds"),
        (range(4), "in part"),
        (range(6), "wrong"),
        ((0, 9), "wrong"),
        ((), "cannot be judged"),
    ],
)
def test_the_choice_is_judged_by_who_was_nearest(examples, chosen, verdict):
    """Ten devices, the first the nearest."""
    devices = [_device(f"node{number}", 0.001 * (number + 1), [0, int(number in chosen)])
               for number in range(10)]  # fmt: skip
    examples["examples"]["five of ten"]["ways"]["all are offered"]["devices"] = devices
    assert _judged(MEASURED[2], examples=examples)[0] == verdict


def test_a_chain_waits_half_a_round_trip_more_than_between_its_nodes(examples):
    """Three of 20 ms: two round trips of them, not three; a run without a time has none."""
    way = examples["examples"]["five of ten"]["ways"]["all are offered"]
    way["devices"] = [_device(f"node{number}", 0.02, [number, number + 1]) for number in range(3)]
    assert (
        "add about 40\u00a0ms"
        in dict(choice_facts(examples, "five of ten"))["all are offered: because"]
    )
    way["token_s"] = None
    said = dict(choice_facts(examples, "five of ten"))["all are offered: because"]
    assert "which was not measured" in said


def test_texts_that_differ_are_said(scaling):
    """With the row in which they do."""
    assert text_facts(scaling) == [("texts of all ways", "the same")]
    scaling["rows"][-1]["same_text"] = False
    [(_, said)] = text_facts(scaling)
    assert said == "not the same: 4 peers at 50 ms"


def test_figures_of_claims_are_computed():
    """An 8B model at 8 bits a weight, the deepest shape, the widths of the note's range."""
    whys = " ".join(claim.why for claim in swarm_claims({}))

    assert "8.53 GB as q8_0" in whys
    assert "known here has 80" in whys
    assert "2\u202f500 to 12\u202f500" in whys


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Return a function that puts a benchmark of these lines where it is looked for."""

    def put(*lines):
        script = tmp_path / "benchmarks" / "swarm_scaling.py"
        script.parent.mkdir(exist_ok=True)
        script.write_text("\n".join(lines))
        monkeypatch.setattr(swarm_live, "_above", lambda _: ())
        monkeypatch.setattr(swarm_live, "__file__", str(tmp_path / "src/shoestring/report/x.py"))

    return put


def test_what_is_measured_live_takes_the_place_of_the_file(folder, checkout):
    """The benchmark is run, and what it wrote is shown."""
    checkout(
        "import sys, pathlib",
        'pathlib.Path(sys.argv[-1]).write_text(\'{"benchmark": "swarm-scaling", "rows": []}\')',
    )

    page = SwarmPage(str(folder), live=True)

    assert "No figure" in page.round_trips().text


def test_a_live_measurement_that_fails_says_its_last_word(folder, checkout):
    """The benchmark's own line; nothing is shown in its place."""
    checkout("raise SystemExit('there is no laboratory here')")

    with pytest.raises(ShoestringError, match=r"failed with status 1: there is no laboratory"):
        SwarmPage(str(folder), live=True)


def test_figures_of_a_live_measurement_that_failed_are_not_shown(folder, checkout):
    """A file that it wrote all the same: a text differed, or no chain pushed."""
    checkout(
        "import sys, pathlib",
        'pathlib.Path(sys.argv[-1]).write_text(\'{"benchmark": "swarm-scaling", "rows": []}\')',
        "raise SystemExit('a text differs')",
    )

    with pytest.raises(ShoestringError, match="failed with status 1: a text differs"):
        SwarmPage(str(folder), live=True)


def test_at_the_limit_all_that_was_started_ends(folder, checkout, tmp_path, monkeypatch):
    """Also what the benchmark started: hosts of a laboratory, workers."""
    monkeypatch.setattr(swarm_live, "LIMIT_S", 2.0)
    alive = tmp_path / "alive"
    os.mkfifo(alive)
    checkout(
        "import subprocess, sys, time",
        f"subprocess.Popen(['sh', '-c', 'exec 9>{alive}; sleep 600'])",
        "time.sleep(600)",
    )
    reader = os.open(alive, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(ShoestringError, match="was not done in 2 s"):
            SwarmPage(str(folder), live=True)
        # Its end comes when nobody has the other end open any more.
        assert select.select([reader], [], [], 30)[0] == [reader]
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)


def test_without_a_checkout_nothing_is_measured_live(folder, checkout, tmp_path):
    """One line that says what it needs."""
    checkout()
    (tmp_path / "benchmarks" / "swarm_scaling.py").unlink()

    with pytest.raises(MissingError, match="needs a checkout"):
        SwarmPage(str(folder), live=True)
