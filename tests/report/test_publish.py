import json
import re

import pytest

from shoestring.digests import file_sha256
from shoestring.errors import BadValueError
from shoestring.report.publish import publish_runs, read_listing, write_artifacts
from shoestring.testing.synthetic import write_synthetic_run


def _no_page(*_):
    raise AssertionError("nothing of this kind is listed")


def _bytes(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*")) if path.is_file()
    }  # fmt: skip


def test_artifacts_are_the_same_bytes_twice(run, tmp_path):
    """Figures, tables and numbers of one run are byte for byte the same when made again."""
    for name in ("first", "second"):
        write_artifacts(run, tmp_path / name)

    assert _bytes(tmp_path / "first") == _bytes(tmp_path / "second")


def test_what_is_returned_is_what_was_written(run, tmp_path):
    """The list of files is whole, and each figure stands in the index with its hash."""
    paths = write_artifacts(run, tmp_path)
    index = json.loads((tmp_path / "figures" / "figures.json").read_text())

    assert {str(path.relative_to(tmp_path)) for path in paths} == set(_bytes(tmp_path))
    for entry in index.values():
        for name, digest in entry["sha256"].items():
            assert digest == file_sha256(tmp_path / "figures" / name)


def test_no_artifact_names_a_folder_of_this_machine(run, tmp_path):
    """Nothing that is published holds an absolute path."""
    for name, data in _bytes_of(write_artifacts(run, tmp_path)):
        assert str(tmp_path).encode() not in data, name
        assert str(run.path.parent).encode() not in data, name


def _bytes_of(paths):
    return [(path.name, path.read_bytes()) for path in paths]


def test_published_runs_are_listed_by_name(tmp_path):
    """The figures are made from the runs that are named, beside the listing, twice the same."""
    listing = tmp_path / "results" / "published.json"
    write_synthetic_run(tmp_path / "results" / "runs" / "one")
    listing.write_text(json.dumps({"runs": ["results/runs/one"]}))

    def render(folder, report):
        report.write_text(folder.name)

    first = {path: path.read_bytes() for path in publish_runs(listing, render, _no_page)}
    second = {path: path.read_bytes() for path in publish_runs(listing, render, _no_page)}

    assert first == second
    run_id = "20260101T000000Z-synthetic-000000"
    names = {str(path.relative_to(listing.parent)) for path in first}
    assert f"reports/{run_id}.html" in names
    assert f"figures/{run_id}/cold_start.pdf" in names
    assert f"tables/{run_id}/numbers.tex" in names


def test_what_is_no_more_made_is_removed(tmp_path):
    """A figure of an earlier publication does not stay behind as one of this run."""
    listing = tmp_path / "results" / "published.json"
    write_synthetic_run(tmp_path / "results" / "runs" / "one")
    listing.write_text(json.dumps({"runs": ["results/runs/one"]}))
    old = tmp_path / "results" / "figures" / "20260101T000000Z-synthetic-000000" / "old.svg"
    old.parent.mkdir(parents=True)
    old.write_text("<svg/>")

    publish_runs(listing, lambda _, report: report.touch(), _no_page)

    assert not old.exists()
    assert (old.parent / "cold_start.svg").is_file()


@pytest.mark.parametrize("text", ["", "[]", '{"runs": "x"}', '{"runs": [1]}'])
def test_a_wrong_listing_is_one_clear_line(text, tmp_path):
    """A listing that cannot be used is refused with what it must look like."""
    (tmp_path / "published.json").write_text(text)

    with pytest.raises(BadValueError, match=re.escape('{"runs": ["results/runs/RUN_ID"')) as error:
        read_listing(tmp_path / "published.json")

    assert "\n" not in str(error.value)


@pytest.mark.parametrize("comparisons", [
    "x", ["x"], [{"name": "a"}], [{"runs": ["a", "b"]}], [{"name": ["a"], "runs": ["a", "b"]}],
    [{"name": "a", "runs": ["one"]}], [{"name": "a", "runs": ["one", "one"]}],
    [{"name": "../a", "runs": []}], [{"name": "RUN", "runs": []}],
    [{"name": "a", "runs": []}, {"name": "a", "runs": []}],
])  # fmt: skip
def test_a_wrong_comparison_is_one_clear_line(comparisons, tmp_path):
    """A group without runs, and a name that leads elsewhere, is a run's or is used twice."""
    value = {"runs": ["results/runs/RUN"], "comparisons": comparisons}
    (tmp_path / "published.json").write_text(json.dumps(value))

    with pytest.raises(BadValueError, match=r"published\.json") as error:
        read_listing(tmp_path / "published.json")

    assert "\n" not in str(error.value)


def test_a_comparison_is_published_by_its_name(tmp_path):
    """Its page, figures and tables stand beside those of its runs, the same bytes twice."""
    results = tmp_path / "results"
    for engine in ("embedded", "ollama"):
        write_synthetic_run(results / "runs" / engine, engine=engine)
    group = {"name": "engines", "runs": ["results/runs/embedded", "results/runs/ollama"]}
    (results / "published.json").write_text(json.dumps({"runs": [], "comparisons": [group]}))
    old = results / "figures" / "engines" / "old.svg"
    old.parent.mkdir(parents=True)
    old.write_text("<svg/>")

    def page(comparison, path):
        path.write_text(" ".join(member.label for member in comparison.members))

    def publish():
        paths = publish_runs(results / "published.json", _no_page, page)
        return {str(path.relative_to(results)): path.read_bytes() for path in paths}

    made = publish()
    assert made == publish()
    assert made["reports/engines.html"] == b"embedded ollama"
    assert {"figures/engines/speed.svg", "tables/engines/ratios.tex"} <= set(made)
    assert json.loads(made["figures/engines/figures.json"])["speed"]["sha256"]
    assert not old.exists()
