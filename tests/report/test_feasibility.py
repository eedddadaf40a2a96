"""What a run says of a cell, and the tables, figure and JSON of the matrix."""

import csv
import io
import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from shoestring.errors import BadRunError, BadValueError
from shoestring.models.synthesis import describe_shape
from shoestring.plan.candidates import CANDIDATES, CONTEXTS, QUANTISATIONS
from shoestring.plan.machines import CATALOGUE, T4_FREE_BYTES
from shoestring.report.cli import feasibility as command
from shoestring.report.feasibility import cells_json, make_cells
from shoestring.report.feasibility_figure import feasibility
from shoestring.report.feasibility_query import ask, write_matrix
from shoestring.report.feasibility_runs import find_runs, machines_of
from shoestring.report.feasibility_tables import cells_table, matrix_table
from shoestring.report.tabular import csv_text
from shoestring.testing.synthetic import write_synthetic_run

GIBIBYTE = 1 << 30
T4 = {"index": 0, "name": "Tesla T4", "vram_bytes": 15 * GIBIBYTE}


@pytest.fixture(scope="module")
def of_cell(run, changed):
    """Return a function that makes a run of a cell from the synthetic one."""

    def make(
        shape="qwen3-8b:q4_k_m", context=2048, gpus=(), platform="local", memory=None, reason=None,
        name=None,
    ):  # fmt: skip
        facts = describe_shape(shape).facts

        def of_shape(config):
            config["suite"]["name"] = "feasibility"
            config["engine"]["options"] = {"context": context}
            config["model"] = {
                "name": name or f"shape:{shape}", "sha256": "0", "file_bytes": facts.file_bytes,
                "architecture": facts.architecture, "parameters": facts.parameters,
                "quantisation": facts.quantisation, "layers": facts.layers,
                "context_length": facts.context_length,
            }  # fmt: skip

        made = changed(run, change_config=of_shape)
        session = {**made.sessions[0]}
        session["machine"] = {
            **session["machine"], "gpus": list(gpus), "platform": platform,
            "memory_bytes": (12 if gpus else 24) * GIBIBYTE,
        }  # fmt: skip
        session["memory"] = {"ram_peak_bytes": 9_000_000_000, **(memory or {})}
        if reason is None:
            return replace(made, environment={"sessions": [session]})
        manifest = {"status": "incomplete", "reason": reason}
        return replace(made, environment={"sessions": [session]}, manifest=manifest, rows=())

    return make


def cells_of(*runs, models=CANDIDATES, quantisations=("q4_k_m",), contexts=(2048,)):
    """Return the cells of some models."""
    return make_cells(runs, machines_of(runs), models, quantisations, contexts)


def measured(cells):
    """Return which cells are measured, as model and machine."""
    return {(c.model.title, c.machine.name) for c in cells if c.standing == "measured"}


def test_nothing_is_measured_without_a_run():
    """Every cell of the whole matrix is predicted or open, with the numbers behind it."""
    cells = cells_of(quantisations=QUANTISATIONS, contexts=CONTEXTS)

    assert len(CANDIDATES) * 4 * 3 * len(CATALOGUE) == len(cells)
    assert {c.standing for c in cells} == {"predicted", "not yet run"}
    assert all((c.verdict is None) == (c.standing == "not yet run") for c in cells)
    assert {"runs", "runs with offload", "does not run"} <= {c.verdict for c in cells}


def test_a_run_measures_the_models_of_its_shape_on_its_machine(of_cell):
    """Two models share the shape of Qwen3-8B; no other cell has been measured by it."""
    cells = cells_of(of_cell())

    here = cells[-1].machine.name
    assert here not in {machine.name for machine in CATALOGUE}
    assert measured(cells) == {("Qwen3-8B", here), ("DeepSeek-R1-0528-Qwen3-8B", here)}
    (one, _) = [c.measured for c in cells if c.measured]
    assert (one.verdict, one.ram_peak_bytes, one.random_weights) == ("runs", 9_000_000_000, True)
    assert one.decode_tokens_per_s > 0


@pytest.mark.parametrize(
    "other", [{"context": 8192}, {"shape": "qwen3-8b:q8_0"}, {"shape": "qwen3-4b:q4_k_m"}]
)
def test_a_run_of_something_else_measures_nothing(of_cell, other):
    """Context, quantisation and shape must all be the cell's."""
    assert not measured(cells_of(of_cell(**other)))


def test_real_weights_are_known_by_their_facts(of_cell):
    """A model of Ollama's library has the shape that its file says, and no random weights."""
    cells = cells_of(of_cell(name="ollama:qwen3:8b"))

    (one, _) = [c.measured for c in cells if c.measured]
    assert (one.model, one.random_weights) == ("ollama:qwen3:8b", False)


@pytest.mark.parametrize(
    ("memory", "verdict"),
    [
        ({"vram_peak_bytes": 5_600_000_000}, "runs"),
        ({"vram_peak_bytes": 4_400_000_000}, "runs with offload"),
        ({"engine_reported": {"total_bytes": 6, "vram_bytes": 6}}, "runs"),
        ({"engine_reported": {"total_bytes": 6, "vram_bytes": 5}}, "runs with offload"),
    ],
)
def test_on_a_gpu_vram_decides(of_cell, memory, verdict):
    """What the engine says of itself, else how much VRAM it held."""
    cells = cells_of(of_cell(gpus=[T4], memory=memory))

    assert measured(cells) == {("Qwen3-8B", "t4"), ("DeepSeek-R1-0528-Qwen3-8B", "t4")}
    assert {c.verdict for c in cells if c.measured} == {verdict}


@pytest.mark.parametrize(
    "memory",
    [{}, {"vram_peak_bytes": 0}, {"engine_reported": {"total_bytes": 6, "vram_bytes": 0}}],
)
def test_a_gpu_that_was_not_used_is_not_measured(of_cell, memory):
    """An engine that computed on the processor says nothing about the GPU beside it."""
    assert not measured(cells_of(of_cell(gpus=[T4], memory=memory)))


@pytest.mark.parametrize("peak_bytes", [4_500_000_000, 5_000_000_000, 5_500_000_000])
def test_a_layer_may_hide_behind_the_buffers(of_cell, peak_bytes):
    """Near what the whole model takes, a peak of VRAM decides nothing."""
    assert not measured(cells_of(of_cell(gpus=[T4], memory={"vram_peak_bytes": peak_bytes})))


def test_what_does_not_fit_is_never_measured_as_whole(of_cell):
    """Llama-3.1-8B in F16 with 8,192 tokens is larger than a T4, which nearly all of it fills."""
    for peak_bytes in (14_500_000_000, T4_FREE_BYTES):
        full = of_cell("llama-3.1-8b:f16", 8192, gpus=[T4], memory={"vram_peak_bytes": peak_bytes})
        assert not measured(cells_of(full, quantisations=("f16",), contexts=(8192,)))


@pytest.mark.parametrize("sign", [None, "memory", "telemetry"])
def test_a_load_that_failed_counts_on_a_gpu_only_if_it_was_used(of_cell, sign):
    """Else the engine may have tried the processor alone."""
    memory = {"vram_peak_bytes": 10**9} if sign == "memory" else {}
    run = of_cell(gpus=[T4], memory=memory, reason="engine out of memory")
    samples = [{"engine_vram_bytes": 10**9 if sign == "telemetry" else None}]
    cells = cells_of(replace(run, telemetry=tuple(samples)))

    assert {c.verdict for c in cells if c.measured} == ({"does not run"} if sign else set())


@pytest.mark.parametrize(
    ("reason", "verdict"),
    [
        ("engine out of memory", "does not run"),
        ("model refused", "does not run"),
        ("engine lost", "runs"),
        ("bad value", "runs"),
        ("interrupted", "runs"),
    ],
)
def test_an_engine_that_could_not_load_is_a_result(of_cell, reason, verdict):
    """What does not tell of memory is none, nor a run that its user cut: the prediction stands."""
    cells = cells_of(of_cell(reason=reason))

    here = cells[-1].machine.name
    found = {(c.verdict, c.standing) for c in cells if c.machine.name == here and c.model.shape ==
             "qwen3-8b"}  # fmt: skip
    assert found == {(verdict, "measured" if verdict == "does not run" else "predicted")}


def test_the_newest_run_counts(of_cell):
    """A cell that was measured again shows the later run."""
    newer = of_cell()
    newer.config["run_id"] = "29991231T000000Z-feasibility-000000"

    cells = cells_of(of_cell(reason="model refused"), newer)
    assert {c.measured.run_id for c in cells if c.measured} == {newer.run_id}
    assert {c.verdict for c in cells if c.measured} == {"runs"}


def test_a_context_that_a_model_was_not_trained_for():
    """It does not run, and the reason is not memory."""
    cells = cells_of(contexts=(65_536,))

    told = {c.model.title: c.reason for c in cells if c.machine.name == "2xt4"}
    assert told["Qwen3-8B"] == "trained for 40960 tokens"
    assert told["Llama-3.1-8B"] is None


def test_tables_and_json_say_the_same(of_cell):
    """A capital letter, a row of numbers and an object for the same measured cell."""
    cells = cells_of(of_cell())
    letters = list(csv.DictReader(io.StringIO(csv_text(matrix_table(cells)))))
    rows = list(csv.DictReader(io.StringIO(csv_text(cells_table(cells)))))
    objects = cells_json(cells)

    here = cells[-1].machine.name
    assert (letters[0]["t4"], letters[0][here]) == ("r", "R")
    assert [row["standing"] for row in rows] == [one["standing"] for one in objects["cells"]]
    assert sum(objects["standings"].values()) == len(cells)
    (row, _) = [row for row in rows if row["standing"] == "measured"]
    (one, _) = [one for one in objects["cells"] if one["measured"]]
    assert int(row["ram_peak_bytes"]) == one["measured"]["ram_peak_bytes"] == 9_000_000_000
    assert json.loads(json.dumps(objects)) == objects


def test_the_figure_frames_what_was_measured(of_cell):
    """Two cells have a frame, and the words name the count."""
    drawing = feasibility(cells_of(of_cell()))

    assert len(drawing.figure.axes[0].patches) == 2
    assert drawing.text.endswith("of 10 cells 10 runs; 2 of them measured.")


def test_the_same_cells_give_the_same_bytes(of_cell, tmp_path):
    """Tables, figure and JSON are written twice alike."""
    cells = cells_of(of_cell())
    first, second = (write_matrix(cells, tmp_path / name) for name in ("a", "b"))

    assert [path.name for path in first] == [path.name for path in second]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert {path.suffix for path in first} == {
        ".csv", ".json", ".md", ".pdf", ".svg", ".tex", ".txt",
    }  # fmt: skip


def test_a_folder_is_searched_and_a_damaged_run_in_it_is_passed_over(tmp_path):
    """Runs of other suites are left out; one that is named itself must be whole."""
    write_synthetic_run(tmp_path / "other")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text("{")
    said = []

    assert find_runs([tmp_path], said.append) == []
    assert len(said) == 1
    with pytest.raises(BadRunError):
        find_runs([tmp_path / "damaged"])


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (("qwen9", None, None), "'qwen9' is unknown"),
        ((None, "q9", None), "'q9' is unknown"),
        ((None, None, "2048,"), "has an empty part"),
        ((None, None, "-1"), "'-1': give whole numbers"),
        ((None, None, "0"), "'0': give whole numbers"),
    ],
)
def test_a_mistake_names_the_value(options, fault):
    """One line, with what is known."""
    with pytest.raises(BadValueError, match=fault):
        ask(*options)


def test_models_are_asked_for_by_shape_or_title():
    """A shape stands for all its models; one outside the list stands for itself."""
    asked = ask("qwen3-8b,Llama-3.1-8B,llama-2-7b,ollama:qwen3:8b", "Q8_0", "4096")

    assert [one.title for one in asked.models] == [
        "Qwen3-8B", "DeepSeek-R1-0528-Qwen3-8B", "DeepSeek-R1-Distill-Llama-8B", "Llama-3.1-8B",
        "llama-2-7b",
    ]  # fmt: skip
    assert (asked.quantisations, asked.contexts) == (("q8_0",), (4096,))
    assert asked.to_measure == ["ollama:qwen3:8b"]


def test_what_is_asked_twice_is_asked_once():
    """Whatever the case it is written in."""
    asked = ask("ollama:x,qwen3-8b,ollama:x,Qwen3-8B", "q8_0,Q8_0", "2048,4096,02048")

    assert (asked.library, asked.quantisations) == (("ollama:x",), ("q8_0",))
    assert asked.contexts == (2048, 4096)
    assert [one.title for one in asked.models] == ["Qwen3-8B", "DeepSeek-R1-0528-Qwen3-8B"]


def test_a_model_of_the_library_is_refused_where_nothing_is_measured(tmp_path):
    """Nothing could be shown of it: it has no shape until Ollama is asked."""
    words = ["--models", "ollama:qwen3:8b", "--runs", str(tmp_path / "none")]
    with pytest.raises(BadValueError, match=r"--models ollama:qwen3:8b: .* give --measure"):
        CliRunner().invoke(command, words, catch_exceptions=False)


def test_the_command_prints_a_table_or_json(tmp_path):
    """Without a run this machine has a column, and nothing is measured."""
    words = ["--models", "qwen3-8b", "--runs", str(tmp_path / "none")]
    table = CliRunner().invoke(command, words, catch_exceptions=False).stdout
    told = CliRunner().invoke(command, [*words, "--json"], catch_exceptions=False).stdout

    assert "R runs, O runs with offload, N does not run" in table
    objects = json.loads(told)
    assert len(objects["machines"]) >= len(CATALOGUE)
    assert objects["standings"]["measured"] == 0
