import copy
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from shoestring.errors import BadValueError
from shoestring.measure.records import read_run
from shoestring.report.comparison import comparison_tables, side_by_side
from shoestring.report.comparison_figures import COMPARISON_FIGURES
from shoestring.report.comparison_page import comparison_html
from shoestring.report.style import svg_text
from shoestring.report.words import comparison_verdict
from shoestring.testing.synthetic import write_synthetic_run


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Return three engines on one model: the second 12 % slower, the third with failures."""
    folder = tmp_path_factory.mktemp("engines")
    options = {
        "embedded": {},
        "ollama": {"slowdown": 1.12, "seed": 2, "gpu": True},
        "llama-server": {"seed": 3, "failures": 3},
    }
    return [
        read_run(write_synthetic_run(folder / engine, engine=engine, **more))
        for engine, more in options.items()
    ]


@pytest.fixture(scope="session")
def page(runs):
    """Return the page of the three."""
    return comparison_html(side_by_side(runs))


def _bare(runs):
    """Return the runs without what was measured: a page of them is quickly made."""
    return [replace(run, rows=(), telemetry=(), environment={"sessions": []}) for run in runs]


def _model(run, name):
    model = {**run.config["model"], "name": name, "sha256": "9" * 64}
    return replace(run, config={**run.config, "model": model})


def _cells(table, engine, case):
    keys = [column.key for column in table.columns]
    rows = [dict(zip(keys, row, strict=True)) for row in table.rows]
    return next(row for row in rows if (row["run"], row["case"]) == (engine, case))


def test_each_run_is_held_against_the_first(runs):
    """A factor of 1.12 in every latency is found, with its interval and its verdict."""
    ratios = comparison_tables(side_by_side(runs))["ratios"]
    found = _cells(ratios, "ollama", "chat-128")

    assert found["ttft_s_ratio"].median == pytest.approx(1.12, rel=0.03)
    assert found["ttft_s_ratio"].low < found["ttft_s_ratio"].median < found["ttft_s_ratio"].high
    assert found["ttft_s_verdict"] == "slower"
    assert found["decode_tokens_per_s_ratio"].median == pytest.approx(1 / 1.12, rel=0.02)
    assert "embedded" not in {row[2] for row in ratios.rows}


def test_a_case_that_lost_its_requests_has_no_ratio(runs):
    """Where success rates differ the verdict is withheld, and the reason is told."""
    failed = {"status": "failed", "failure": {"reason": "reset", "detail": ""}}
    rows = (row | failed if row["case"] == "context-1024" else row for row in runs[1].rows)
    comparison = side_by_side([runs[0], replace(runs[1], rows=tuple(rows))])
    found = _cells(comparison_tables(comparison)["ratios"], "ollama", "context-1024")

    assert found["ttft_s_ratio"].median is None
    assert found["ttft_s_verdict"] == "not comparable"
    assert "ollama, context-1024 at 1: the success rates differ: 10 of 10 against 0 of 10" in (
        comparison.reasons
    )


def test_runs_of_unlike_models_stand_without_ratios(runs):
    """Medians of both are there, no ratio is, and the page says why."""
    comparison = side_by_side([runs[0], _model(runs[1], "file:other.gguf")])
    tables = comparison_tables(comparison)
    page = comparison_html(side_by_side(_bare([runs[0], _model(runs[1], "file:other.gguf")])))

    assert tables["ratios"].rows == ()
    assert {row[2] for row in tables["medians"].rows} == {"embedded", "ollama"}
    reason = "ollama is not compared with embedded: the runs differ in model, model sha256"
    assert comparison.reasons == [reason]
    assert "ollama is not compared with embedded" in page
    assert "No run can be compared with the first one." in page


def test_runs_without_a_common_case_stand_beside_each_other(runs):
    """Nothing to compare is no failure of the page."""
    other = replace(runs[1], rows=tuple({**row, "case": "other"} for row in runs[1].rows))

    assert "have no case in common" in side_by_side([runs[0], other]).reasons[0]


def test_labels_tell_the_runs_apart(runs):
    """Engines where they differ, else models too, else the ids of the runs."""
    twin = replace(runs[0], config={**runs[0].config, "run_id": "20260102T000000Z-twin-000000"})

    def labels(*chosen):
        return [member.label for member in side_by_side(chosen).members]

    assert labels(*runs) == ["embedded", "ollama", "llama-server"]
    assert labels(runs[0], _model(twin, "file:b.gguf")) == [
        "embedded, file:synthetic.gguf", "embedded, file:b.gguf",
    ]  # fmt: skip
    assert labels(runs[0], twin) == [runs[0].run_id, twin.run_id]


def test_one_run_is_no_comparison(runs):
    """A single run and one that is named twice are a user's mistake."""
    for chosen in (runs[:1], [runs[0], runs[0]], []):
        with pytest.raises(BadValueError, match="needs two runs or more, each once"):
            side_by_side(chosen)


def test_interleaved_runs_are_said_to_be_so(runs):
    """The verdict tells whether a drift of the machine may be in the ratios."""
    ids = [run.run_id for run in runs]
    interleaved = [
        replace(run, config={**run.config, "interleaved_with": [i for i in ids if i != run.run_id]})
        for run in runs
    ]

    assert "They were made interleaved" in comparison_verdict(side_by_side(interleaved))
    assert "They were not all made interleaved" in comparison_verdict(side_by_side(runs[:2]))


def test_other_machines_are_named(runs):
    """What the machines differ in stands above the figures; the engines themselves do not."""
    first, second = runs[:2]
    environment = copy.deepcopy(second.environment)
    for session in environment["sessions"]:
        session["machine"]["cpu"]["model"] = "Large"
    here = first.sessions[0]["machine"]["cpu"]["model"]

    comparison = side_by_side([first, replace(second, environment=environment)])

    assert f"ollama: CPU Large, embedded: {here}" in comparison.differences
    assert not any("engine" in line.split(":")[1] for line in comparison.differences)
    assert "Also unlike in these runs" in comparison_html(comparison)


@pytest.mark.parametrize("name", COMPARISON_FIGURES)
def test_figures_are_the_same_bytes_twice(name, runs):
    """Drawn again, a figure is byte for byte the same, and its words name each run."""
    comparison = side_by_side(runs)
    first, second = (COMPARISON_FIGURES[name](comparison) for _ in range(2))

    assert svg_text(first.figure) == svg_text(second.figure)
    assert all(member.label in first.text for member in comparison.members)


def test_runs_without_answers_give_reasons_instead_of_figures(runs):
    """Nothing measured is said, and the page is made all the same."""
    comparison = side_by_side(_bare(runs))

    assert [draw(comparison).figure for draw in COMPARISON_FIGURES.values()] == [None, None]
    assert "No figure: no request was answered in any run." in comparison_html(comparison)


def test_the_page_is_small_whole_and_fetches_nothing(page):
    """Below a megabyte, no link outwards, no script, ids unique, and each run folded."""
    ids = re.findall(r' id="([^"]+)"', page)
    targets = re.findall(r'(?:src|href)="([^"]*)"', page) + re.findall(r"url\(([^)]*)\)", page)

    assert len(page.encode()) < 1_000_000
    assert all(target.startswith("#") for target in targets)
    assert {target[1:] for target in targets} <= set(ids)
    assert len(ids) == len(set(ids))
    assert "<script" not in page
    assert "@import" not in page
    assert page.count('<details class="run">') == 3


def test_figures_that_find_no_room_are_named(runs, monkeypatch):
    """A page with a smaller budget leaves figures out of every run and says which."""
    sessions = [replace(run, environment=runs[0].environment) for run in _bare(runs[:2])]
    monkeypatch.setattr("shoestring.report.comparison_page._RUN_FIGURES", ("cold_start",))
    with_room = comparison_html(side_by_side(sessions))
    monkeypatch.setattr("shoestring.report.comparison_page._BUDGET_BYTES", 100_000)
    without = comparison_html(side_by_side(sessions))

    assert [page.count('cold_start"') for page in (with_room, without)] == [2, 0]
    assert "these figures of each run are left out: Cold start." in without
    assert "left out" not in with_room


def test_the_page_is_the_same_bytes_and_names_no_folder(runs, page):
    """Made again it is the same; no path of this machine is in it."""
    assert comparison_html(side_by_side(runs)) == page
    assert str(runs[0].path.parent) not in page


def test_a_run_that_was_cut_is_loud(runs):
    """One run without a manifest puts INCOMPLETE on top, with its name."""
    whole, cut = _bare(runs[:2])
    page = comparison_html(side_by_side([whole, replace(cut, manifest=None)]))

    assert page.index("INCOMPLETE") < page.index('<p class="verdict">')
    assert "<p>ollama: killed before it ended" in page


def test_what_engines_are_called_cannot_break_the_page(runs):
    """Names are text, whatever a server told."""
    first, second = _bare(runs[:2])
    engine = {**second.config["engine"], "name": "<script>x</script>\x00"}
    odd = replace(second, config={**second.config, "engine": engine})
    page = comparison_html(side_by_side([first, odd]))

    assert "<script>" not in page
    assert "\x00" not in page
    _Balanced().feed(page)


class _Balanced(HTMLParser):
    """Fails where an element is closed that is not open."""

    VOID = ("meta", "br", "use", "path")

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, _attrs):
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


@pytest.mark.skipif(not shutil.which("chromium"), reason="no browser is installed")
def test_a_browser_opens_it_without_a_request(page, tmp_path):
    """A real browser shows the page at phone width without fetching or sideways scrolling."""
    sync_api = pytest.importorskip("playwright.sync_api")
    (tmp_path / "page.html").write_text(page, encoding="utf-8")
    requests = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        view = browser.new_page(viewport={"width": 390, "height": 800})
        view.on("request", lambda request: requests.append(request.url))
        view.goto((tmp_path / "page.html").as_uri())
        width = view.evaluate("document.documentElement.scrollWidth")
        browser.close()

    assert requests == [(tmp_path / "page.html").as_uri()]
    assert width == 390
