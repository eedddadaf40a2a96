import json

import pytest
from click.testing import CliRunner

from shoestring.errors import BadValueError
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
    assert "chat-128-c4   39       1" in text
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


def test_report_needs_a_run(invoke, run):
    """Without a run, and with two for one page, the mistake is named."""
    with pytest.raises(BadValueError, match="no run was named"):
        invoke(report)
    with pytest.raises(BadValueError, match="--html takes one run, not 2"):
        invoke(report, run.path, run.path, "--html", "x.html")


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
