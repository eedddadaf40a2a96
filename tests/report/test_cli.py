import json
import re

import nbformat
import pytest
from click.testing import CliRunner

from shoestring.errors import BadRunError, BadValueError, ShoestringError
from shoestring.report.cli import compare, notebook, report
from shoestring.testing.synthetic import write_synthetic_run


@pytest.fixture
def invoke():
    """Return a function that calls a command and gives its result; errors are raised."""

    def call(command, *arguments):
        return CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False)

    return call


def test_report_prints_a_table_for_people(invoke, run):
    """By default the verdict, a row a case and the warnings are printed."""
    text = invoke(report, run.path).stdout

    assert "67 of 70 requests were answered" in text
    assert re.search(r"chat-128-c4 +4 +39 +1 ", text)
    assert max(map(len, text.split("warning:")[0].splitlines()[2:])) <= 100
    assert "warning: 3 of 70 requests failed" in text


def test_report_json_is_one_object(invoke, run):
    """With --json one object is printed and nothing else."""
    summary = json.loads(invoke(report, run.path, "--json").stdout)

    assert summary["run_id"] == run.run_id
    assert summary["metrics"]["ttft_s"]["n"] == 67


def test_report_of_several_runs(invoke, run, killed):
    """Several runs give a list, each with its own status."""
    value = json.loads(invoke(report, run.path, killed.path, "--json").stdout)

    assert [item["status"] for item in value["runs"]] == ["complete", "incomplete"]


def test_a_killed_run_says_incomplete(invoke, killed):
    """The terminal is as loud as the page."""
    assert "INCOMPLETE: killed before it ended" in invoke(report, killed.path).stdout


def test_report_writes_artifacts(invoke, run, tmp_path):
    """--out writes figures, tables and numbers."""
    invoke(report, run.path, "--out", tmp_path)

    assert (tmp_path / "figures" / "cold_start.svg").is_file()
    assert (tmp_path / "numbers.tex").is_file()


def test_report_html_is_written(invoke, run, tmp_path):
    """--html executes the notebook over the run, renders it, and leaves nothing else behind."""
    result = invoke(report, run.path, "--html", tmp_path / "r.html")

    assert result.stdout.splitlines()[-1] == str(tmp_path / "r.html")
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]
    assert "67 of 70 requests were answered" in (tmp_path / "r.html").read_text()


def test_report_needs_a_run(invoke, run, tmp_path):
    """Without a run, and with one that is named twice for a comparison, the mistake is named."""
    with pytest.raises(BadValueError, match="no run was named"):
        invoke(report)
    with pytest.raises(BadValueError, match="needs two runs or more, each once"):
        invoke(report, run.path, run.path, "--html", tmp_path / "x.html")


def test_several_runs_are_compared_on_one_page(invoke, run, wide, tmp_path):
    """--html of two runs is one page; --out has a folder for each, and one for the comparison."""
    result = invoke(
        report, run.path, wide.path, "--html", tmp_path / "r.html", "--out", tmp_path / "out"
    )

    assert result.stdout.splitlines()[-1] == str(tmp_path / "r.html")
    assert "shoestring comparison" in (tmp_path / "r.html").read_text()
    assert (tmp_path / "out" / run.run_id / "numbers.json").is_file()
    assert (tmp_path / "out" / "comparison" / "tables" / "medians.csv").is_file()
    assert (tmp_path / "out" / "comparison" / "figures" / "speed.svg").is_file()


@pytest.mark.parametrize(("option", "made"), [("--out", "file"), ("--html", "folder")])
def test_a_target_that_cannot_be_written_is_one_clear_line(option, made, invoke, run, tmp_path):
    """A file in the place of a folder, or the reverse, is named with the mend."""
    target = tmp_path / "target"
    if made == "file":
        target.touch()
    else:
        target.mkdir()

    with pytest.raises(BadValueError, match=r"cannot write .*target: .*; give another path"):
        invoke(report, run.path, option, target)
    with pytest.raises(BadValueError, match=r"cannot write /proc/nope/x: .*; give another path"):
        invoke(report, run.path, option, "/proc/nope/x")


def test_published_takes_nothing_else(invoke, run):
    """A combination of which half would be ignored is refused."""
    with pytest.raises(BadValueError, match="--published writes what the listing names"):
        invoke(report, run.path, "--published", "--json")


def test_a_damaged_run_is_one_clear_line(killed, changed):
    """Whatever a reader misses in a record, the run is named instead of a traceback."""
    from shoestring.report.cli import _print_runs

    damaged = changed(killed, lambda row: row.pop("intended_ns"))

    with pytest.raises(BadRunError, match="is damaged: KeyError 'intended_ns'"):
        _print_runs([damaged], as_json=True)


def test_a_failed_notebook_still_tells_where_its_report_is(tmp_path):
    """The report of what was done before the failure is named on stderr."""
    cell = nbformat.v4.new_code_cell
    parameters = cell('out = "x"  # a folder', metadata={"tags": ["parameters"]})
    source = nbformat.v4.new_notebook(cells=[parameters, cell("raise ValueError('odd')")])
    nbformat.write(source, tmp_path / "n.ipynb")

    result = CliRunner().invoke(
        notebook, [str(tmp_path / "n.ipynb"), "--out", str(tmp_path / "c.ipynb")]
    )

    assert isinstance(result.exception, ShoestringError)
    assert result.stderr.splitlines()[-1] == str(tmp_path / "c.html")
    assert (tmp_path / "c.html").is_file()


def test_compare_says_how_many_were_answered(invoke, run, tmp_path):
    """Failures are in the comparison, since its medians are of the answered requests alone."""
    other = write_synthetic_run(tmp_path / "other", seed=2)

    text = invoke(compare, run.path, other).stdout

    assert "answered: context-1024 at concurrency 1: 8 of 10 and 10 of 10" in text


def test_compare_gives_a_verdict(invoke, run, tmp_path):
    """Two equal runs by formula: a row a case and metric, as text and as JSON."""
    other = write_synthetic_run(tmp_path / "other", seed=2)

    value = json.loads(invoke(compare, run.path, other, "--json").stdout)
    text = invoke(compare, run.path, other).stdout

    assert value["cases"][0]["metrics"]["ttft_s"]["verdict"] == "no difference shown"
    assert "no difference shown" in text


def test_notebook_refuses_unknown_parameters_first(invoke, tmp_path):
    """A misspelt parameter is refused before anything is written or started."""
    with pytest.raises(BadValueError, match="did you mean 'suite'"):
        invoke(notebook, "01_measure", "-p", "suit", "x", "--out", tmp_path / "x.ipynb")

    assert not list(tmp_path.iterdir())


def test_notebook_ends_with_the_path_of_the_report(invoke, run, tmp_path):
    """The last line of stdout is the path of the page, alone."""
    result = invoke(
        notebook, "01_measure", "-p", "run", run.path, "-p", "out", tmp_path / "results",
        "--out", tmp_path / "copy.ipynb",
    )  # fmt: skip

    assert result.stdout.splitlines()[-1] == str(tmp_path / "copy.html")
    assert (tmp_path / "copy.html").is_file()
    assert (tmp_path / "results" / f"{run.run_id}.report" / "numbers.json").is_file()
