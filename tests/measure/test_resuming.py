"""What goes on with --resume: one run, or all runs of a comparison, and never a mixture."""

import io

import pytest

from shoestring.errors import BadRunError
from shoestring.measure.progress import RunProgress
from shoestring.measure.resuming import find_cut_runs
from shoestring.measure.runner import run_engines
from shoestring.measure.writer import RunWriter
from shoestring.testing.kobold_server import running_koboldcpp

PAIR = ("embedded", "ollama")


def config(run_id: str, engine: str, partners=()) -> dict:
    """The config of a run without requests: it is complete with its manifest."""
    return {
        "schema_version": 2, "run_id": run_id, "seed": 1, "suite": {"name": "s", "cases": []},
        "model": {"name": "m"}, "engine": {"name": engine}, "requests": [],
        "interleaved_with": list(partners) or None,
    }  # fmt: skip


def write(out, run_id: str, engine: str, partners=(), *, complete: bool = False):
    """Write a run and return its folder."""
    with RunWriter.create(out / run_id, config(run_id, engine, partners)) as writer:
        writer.write_session({"session": 1})
        if complete:
            writer.finish(None)
    return out / run_id


def find(out, *engines: str, said: io.StringIO | None = None):
    """Look for what goes on when these engines are wanted."""
    wanted = [config(f"new-{engine}", engine) for engine in engines]
    return find_cut_runs(out, wanted, RunProgress(said or io.StringIO()))


@pytest.mark.parametrize("complete", [True, False])
def test_a_comparison_goes_on_as_a_whole(tmp_path, complete):
    """Its partners come along, also one that has all its rows, in the order that is wanted."""
    one = write(tmp_path, "1", "embedded", ["2"], complete=complete)
    two = write(tmp_path, "2", "ollama", ["1"])

    assert [one, two] == find(tmp_path, "embedded", "ollama")
    assert [two, one] == find(tmp_path, "ollama", "embedded")
    assert [one, two] == find(two, "embedded", "ollama")


def test_runs_of_their_own_make_no_comparison(tmp_path):
    """Two that were made one after the other are nobody's partners, and no half is a solo run."""
    write(tmp_path, "1", "embedded")
    write(tmp_path, "2", "ollama")
    write(tmp_path / "pairs", "3", "embedded", ["4"])
    write(tmp_path / "pairs", "4", "ollama", ["3"])

    assert find(tmp_path, *PAIR) is None
    assert find(tmp_path / "pairs", "embedded") is None
    with pytest.raises(BadRunError, match="another number of engines"):
        find(tmp_path / "pairs" / "3", "embedded")


def test_a_comparison_that_lost_a_run_is_passed_over(tmp_path):
    """All or nothing, and it is said what is missing."""
    said = io.StringIO()
    half = write(tmp_path, "1", "embedded", ["2"])

    assert find(tmp_path, *PAIR, said=said) is None
    assert "made in turn with a run of ollama that does not lie beside it" in said.getvalue()
    with pytest.raises(BadRunError, match="a run of ollama"):
        find(half, *PAIR)


def test_a_whole_comparison_is_left_alone(tmp_path):
    """Nothing of it is cut; it is found where one of its runs is named itself."""
    pair = [
        write(tmp_path, "1", "embedded", ["2"], complete=True),
        write(tmp_path, "2", "ollama", ["1"], complete=True),
    ]

    assert find(tmp_path, *PAIR) is None
    assert pair == find(pair[0], *PAIR)


def test_another_model_is_not_gone_on_with(tmp_path):
    """A cut run of something else is no candidate."""
    write(tmp_path, "1", "embedded")
    wanted = {**config("new", "embedded"), "model": {"name": "other"}}

    assert find_cut_runs(tmp_path, [wanted], RunProgress(io.StringIO())) is None


def served(run_id: str, url: str | None, **options) -> dict:
    """The config of a run by a server."""
    return config(run_id, "ollama") | {
        "engine": {"name": "ollama", "base_url": url, "options": {"num_ctx": 512, **options}},
    }


@pytest.mark.parametrize(
    ("here", "there", "found"),
    [
        (served("1", None, num_thread=2), served("new", None, num_thread=8), True),
        (served("1", None, threads=2), served("new", None, threads=8), True),
        (served("1", "http://127.0.0.1:11434"), served("new", "http://localhost:41234"), True),
        (served("1", "http://127.0.0.1:1"), served("new", "http://[::1]:2/v1"), True),
        (served("1", "http://127.0.0.1:1"), served("new", "http://10.0.0.1:1"), False),
        (served("1", "http://a.example:1"), served("new", "http://a.example:2"), False),
        (served("1", "http://127.0.0.1:1"), served("new", None), False),
        (served("1", None, parallel=1), served("new", None, parallel=2), False),
    ],
)
def test_a_run_goes_on_with_other_cores_and_at_another_port(tmp_path, here, there, found):
    """What another machine has otherwise does not keep a restored run from going on."""
    with RunWriter.create(tmp_path / "1", here) as writer:
        writer.write_session({"session": 1})

    run = find_cut_runs(tmp_path, [there], RunProgress(io.StringIO()))
    assert ([tmp_path / "1"] if found else None) == run


def test_a_comparison_that_was_cut_at_its_end(tiny, tmp_path):
    """The run that is complete is not touched, the other is completed under its own name."""
    with running_koboldcpp() as server:

        def compare(**more):
            return run_engines(
                tiny, ["openai", "koboldcpp"], model=server.model_id, base_url=server.base_url,
                out=tmp_path, requests=2, progress=RunProgress(io.StringIO()), **more,
            )  # fmt: skip

        first, second = compare()
        whole = (first.path / "manifest.json").read_bytes()
        (second.path / "manifest.json").unlink()
        rows = second.path / "requests.jsonl"
        rows.write_bytes(rows.read_bytes()[:-30])
        again = compare(resume=True)

    assert [first.run_id, second.run_id] == [run.run_id for run in again]
    assert sorted([first.run_id, second.run_id]) == sorted(path.name for path in tmp_path.iterdir())
    assert whole == (first.path / "manifest.json").read_bytes()
    assert [1, 2] == [len(run.sessions) for run in again]
    assert first.config["prompt_salt"] == second.config["prompt_salt"]
    assert [row["prompt_sha256"] for row in second.measured] == [
        row["prompt_sha256"] for row in again[1].measured
    ]
