"""A run is recorded whole, goes on where it was cut, and its failures are rows."""

import io
import json
import signal
import threading
from collections import Counter

import psutil
import pytest

from shoestring.errors import (
    BadModelError,
    BadRunError,
    BadValueError,
    MissingError,
)
from shoestring.measure.progress import RunProgress
from shoestring.measure.records import read_run
from shoestring.measure.runner import run_engines, run_suite
from shoestring.testing.engines import need_program
from shoestring.testing.kobold_server import running_koboldcpp

FAST = "truth-ttft2-itl1-n8"
SLOW = "truth-ttft20-itl10-n8"
CUT = "truth-ttft200-itl10-n8"
"""So slow that a busy machine cuts it in the middle."""
LATE = "truth-ttft3000-itl1-n8"


def run_tiny(tiny, url, out, model=FAST, **options):
    """Run the tiny suite in this process."""
    return run_suite(
        tiny, model=model, base_url=url, out=out, progress=RunProgress(io.StringIO()), **options
    )


def measured_ids(run) -> list[str]:
    """The ids of the rows that count."""
    return [row["id"] for row in run.measured]


def asked(run) -> dict[str, str]:
    """The hash of each prompt that counts."""
    return {row["id"]: row["prompt_sha256"] for row in run.measured}


def test_every_planned_request_has_one_row(tiny, truth_url, tmp_path):
    """A run ends complete, with each request once, warm-ups beside, and hashes that hold."""
    run = run_tiny(tiny, truth_url, tmp_path)

    assert run.complete
    assert sorted(measured_ids(run)) == sorted(r["id"] for r in run.config["requests"])
    assert {"ok"} == {row["status"] for row in run.rows}
    assert "warmup" in {row["phase"] for row in run.rows}
    assert all(row["intended_ns"] < row["sent_ns"] < row["end_ns"] for row in run.rows)


def test_concurrency_is_what_the_case_says(tiny, truth_url, tmp_path):
    """Requests of a case overlap by its concurrency, and never more."""
    run = run_tiny(tiny, truth_url, tmp_path, model=SLOW)

    for case, concurrency in (("short", 1), ("pair", 2)):
        rows = [r for r in run.measured if r["case"] == case]
        overlaps = [
            sum(o["intended_ns"] <= row["intended_ns"] < o["end_ns"] for o in rows) for row in rows
        ]
        assert concurrency == max(overlaps)


def test_the_session_knows_its_floor(tiny, truth_url, tmp_path):
    """Calibration, machine, versions and warm-up are in the environment."""
    session = run_tiny(tiny, truth_url, tmp_path).sessions[0]

    assert [1, 2] == [c["concurrency"] for c in session["calibration"]["by_concurrency"]]
    assert session["calibration"]["ttft_error_s"] > 0
    assert session["machine"]["cpu"]["cores_logical"] >= 1
    assert session["ended_utc"] is not None


def test_failures_are_rows_and_the_run_is_complete(tiny, truth_url, tmp_path):
    """A server that breaks each answer gives failed rows with their reason, no error."""
    run = run_tiny(tiny, truth_url, tmp_path, model=f"{FAST}+reset3")

    assert run.complete
    assert {"reset": 20} == Counter(row["failure"]["reason"] for row in run.measured)
    assert {"ok": 0, "failed": 20, "warmup": 2, "planned": 20} == run.manifest["requests"]


def test_wanted_totals_and_concurrency(tiny, truth_url, tmp_path):
    """--requests and --concurrency override the suite."""
    run = run_tiny(tiny, truth_url, tmp_path, requests=7, concurrency=3)

    assert 7 == len(run.measured)
    assert {1} == {row["concurrency"] for row in run.measured}  # one request a batch, at the most


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_in_order(harness, truth_url, tmp_path, number):
    """The first signal keeps the rows, writes an incomplete manifest, exits 130; resume ends it."""
    cut = harness(tmp_path, truth_url, CUT)
    cut.wait_for_rows(3)
    status, _, said = cut.end(number)
    partial = read_run(next(tmp_path.iterdir()))
    status_after, answer, _ = harness(tmp_path, truth_url, CUT, "--resume").end()
    whole = read_run(next(tmp_path.iterdir()))

    assert (130, 0) == (status, status_after)
    assert "--resume" in said
    assert "Traceback" not in said
    assert "interrupted" == partial.incomplete_reason
    assert "complete" == json.loads(answer)["status"]
    assert 20 == len(whole.measured)
    assert measured_ids(partial) == measured_ids(whole)[: len(partial.measured)]
    assert [1, 2] == [session["session"] for session in whole.sessions]


def test_a_second_signal_breaks_off_what_hangs(harness, truth_url, tmp_path):
    """A request that never ends does not hold the harness: the second signal cuts it."""
    stuck = harness(tmp_path, truth_url, f"{FAST}+stall4")
    while "warming up" not in stuck.process.stderr.readline():
        assert stuck.process.poll() is None
    threading.Timer(0.5, stuck.process.send_signal, [signal.SIGINT]).start()
    threading.Timer(1.0, stuck.process.send_signal, [signal.SIGINT]).start()
    status, _, _ = stuck.end()

    assert 130 == status
    assert not read_run(next(tmp_path.iterdir())).complete


def test_kills_lose_and_double_nothing(harness, truth_url, tmp_path):
    """SIGKILL three times, resume, and the rows are exactly the planned ones."""
    for rows in (2, 7, 12):
        cut = harness(tmp_path, truth_url, CUT, "--resume")
        cut.wait_for_rows(rows)
        cut.kill()
        assert not read_run(next(tmp_path.iterdir())).complete
    status, answer, _ = harness(tmp_path, truth_url, CUT, "--resume").end()
    run = read_run(next(tmp_path.iterdir()))

    assert 0 == status
    assert run.run_id == json.loads(answer)["run_id"]
    assert sorted(measured_ids(run)) == sorted(r["id"] for r in run.config["requests"])
    assert 4 == len(run.sessions)


def test_what_a_killed_session_does_not_know_is_null(harness, truth_url, tmp_path):
    """Before the engine is there nobody can say that it was never away, or warm."""
    cut = harness(tmp_path, truth_url, SLOW)
    while "calibrating" not in cut.process.stderr.readline():
        assert cut.process.poll() is None
    cut.kill()
    (session,) = read_run(next(tmp_path.iterdir())).sessions

    assert (None, None) == (session["interruptions"], session["warmup"])


def test_a_torn_line_is_dropped_and_asked_again(tiny, truth_url, tmp_path):
    """A line that a kill cut in two is no row; the rest stays."""
    run = run_tiny(tiny, truth_url, tmp_path)
    rows = run.path / "requests.jsonl"
    (run.path / "manifest.json").unlink()
    lost = run.measured[-1]["id"]
    rows.write_bytes(rows.read_bytes()[:-30])
    assert lost not in measured_ids(read_run(run.path))

    again = run_tiny(tiny, truth_url, tmp_path, resume=True)

    assert again.path == run.path
    assert again.complete
    assert asked(again) == asked(run)


def test_a_second_run_asks_with_other_nonces(tiny, truth_url, tmp_path):
    """A server that stays up has no prompt of an earlier run in its prefix cache."""
    first, second = (run_tiny(tiny, truth_url, tmp_path, requests=2) for _ in range(2))

    assert asked(first).keys() == asked(second).keys()
    assert not {*asked(first).values()} & {*asked(second).values()}


def test_a_run_that_lacks_only_its_manifest_needs_no_engine(tiny, truth_url, tmp_path):
    """With all rows there nothing is started: the manifest is written, and that is all."""
    run = run_tiny(tiny, truth_url, tmp_path, requests=2)
    (run.path / "manifest.json").unlink()

    again = run_tiny(tiny, truth_url, tmp_path, requests=2, resume=True)

    assert again.run_id == run.run_id
    assert again.complete
    assert 1 == len(again.sessions)


def test_resuming_a_complete_run_begins_a_new_one(tiny, truth_url, tmp_path):
    """A whole run is left alone in the folder of runs, and is done when it is named itself."""
    first = run_tiny(tiny, truth_url, tmp_path)

    assert first.run_id == run_tiny(tiny, truth_url, first.path, resume=True).run_id
    assert first.run_id != run_tiny(tiny, truth_url, tmp_path, resume=True).run_id


def test_resuming_with_another_model_is_refused(tiny, truth_url, tmp_path):
    """A run folder goes on only with its own suite, model and engine."""
    run = run_tiny(tiny, truth_url, tmp_path, requests=2)

    with pytest.raises(BadRunError, match="another model"):
        run_tiny(tiny, truth_url, run.path, model=SLOW, requests=2, resume=True)


def test_a_tampered_run_is_not_made_whole_by_resuming(tiny, truth_url, tmp_path):
    """A complete run whose rows were changed stays refused, and its manifest untouched."""
    run = run_tiny(tiny, truth_url, tmp_path, requests=2)
    rows, manifest = run.path / "requests.jsonl", run.path / "manifest.json"
    rows.write_text(rows.read_text().replace('"completion_tokens":8', '"completion_tokens":80'))
    before = manifest.read_bytes()

    with pytest.raises(BadRunError, match="changed or damaged"):
        run_tiny(tiny, truth_url, run.path, requests=2, resume=True)

    assert manifest.read_bytes() == before


def test_a_damaged_neighbour_does_not_hinder(tiny, truth_url, tmp_path):
    """Looking for a cut run passes over a folder that is damaged."""
    (tmp_path / "zzz").mkdir()
    (tmp_path / "zzz" / "config.json").write_text("{")

    assert run_tiny(tiny, truth_url, tmp_path, requests=2, resume=True).complete


def test_no_row_claims_a_concurrency_that_was_not(tiny, truth_url, tmp_path):
    """Ten slots for two requests a batch are two, and the rows say two."""
    run = run_tiny(tiny, truth_url, tmp_path, concurrency=10)

    assert {row["concurrency"] for row in run.measured} == {2}
    assert [2] == [c["concurrency"] for c in run.sessions[0]["calibration"]["by_concurrency"]]


def test_one_writer_a_run(harness, truth_url, tmp_path, tiny):
    """A run that is being written cannot be resumed by a second harness."""
    first = harness(tmp_path, truth_url, CUT)
    first.wait_for_rows(1)

    with pytest.raises(BadRunError, match="another process"):
        run_tiny(tiny, truth_url, tmp_path, model=CUT, resume=True)
    assert 0 == first.end()[0]


def test_a_deadline_ends_a_session_that_can_be_resumed(tmp_path, truth_url, tiny):
    """What is in flight at the deadline ends, the rest is left, and a later session does it."""
    run = run_tiny(tiny, truth_url, tmp_path, model=CUT, deadline_s=2.0)

    assert "deadline of 2 s" == run.incomplete_reason
    assert 0 < len(run.measured) < 20
    assert run_tiny(tiny, truth_url, tmp_path, model=CUT, resume=True).complete


def test_a_deadline_after_the_last_request_costs_nothing(tmp_path, truth_url, tiny):
    """A run that has all its rows is complete, whatever came then."""
    run = run_tiny(tiny, truth_url, tmp_path, requests=1, deadline_s=2.0, model=LATE)

    assert run.complete


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"model": "gemma3-270m"}, BadModelError, "pypi:gemma3-270m"),
        ({"model": "pypi:gemma3-270m", "engine": "vroom"}, BadValueError, "vroom"),
        ({"model": "pypi:gemma3-270m", "deadline_s": 1e10}, BadValueError, "deadline of 1e.10 s"),
        (
            {"suite": "cold-start", "model": "m", "base_url": "http://127.0.0.1:9"},
            BadValueError,
            "suite cold-start starts the engine itself: leave --base-url out",
        ),
        (
            {"suite": "multi-turn", "model": "pypi:gemma3-270m", "concurrency": 2},
            BadValueError,
            "turns-4 of suite multi-turn is a dialogue",
        ),
    ],
)
def test_nothing_is_written_for_a_bad_request(tiny, tmp_path, options, error, words):
    """A request that cannot be met leaves no folder behind."""
    with pytest.raises(error, match=words):
        run_suite(**{"suite": tiny, "out": tmp_path / "out", **options})

    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("engine", ["llama-server", "ollama", "koboldcpp"])
def test_a_missing_engine_is_found_at_once(tiny, tmp_path, monkeypatch, engine):
    """No model is fetched and no folder written for an engine that is not there."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("SHOESTRING_CACHE", str(tmp_path / "cache"))

    with pytest.raises(MissingError, match=f"engine {engine} is not installed: "):
        run_suite(tiny, model="pypi:gemma3-270m", engine=engine, out=tmp_path / "out")

    assert [] == list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written(tiny, truth_url, tmp_path):
    """An output folder that is a file is one clear error."""
    blocked = tmp_path / "file"
    blocked.write_text("")

    with pytest.raises(MissingError, match="cannot write a run"):
        run_tiny(tiny, truth_url, blocked)


@pytest.mark.engine
@pytest.mark.usefixtures("small_model")
def test_the_real_engine_is_measured(tiny, tmp_path):
    """The embedded engine gives whole rows with its own timings, memory and a cold start."""
    run = run_suite(
        tiny, model="pypi:gemma3-270m", out=tmp_path, progress=RunProgress(io.StringIO())
    )

    session = run.sessions[0]
    assert run.complete
    assert {("ok", 8)} == {(row["status"], row["native"]["decode_tokens"]) for row in run.measured}
    # The tokens in front of the nonce are the same in every prompt, and may come from the cache.
    assert max(row["usage"]["cached_tokens"] for row in run.measured) <= 3
    assert session["load_s"] > 0
    assert session["memory"]["ram_peak_bytes"] > 200_000_000
    assert [
        "start process, import engine",
        "load model",
        "first token",
        "warm up until stable",
    ] == [span["name"] for span in session["cold_start"]]
    assert max(s["engine_rss_bytes"] or 0 for s in run.telemetry) > 200_000_000


@pytest.mark.engine
@pytest.mark.usefixtures("small_model")
def test_an_engine_that_dies_is_started_again(tiny, tmp_path):
    """SIGKILL of the engine in mid-run: what was in flight failed, and all others are answered."""
    progress = RunProgress(io.StringIO())
    update = progress.update
    on_disk = []

    def kill_engine(done: int, *rest) -> None:
        update(done, *rest)
        if done == 12:
            on_disk.extend(read_run(next(tmp_path.iterdir())).sessions[0]["interruptions"])
        if done == 3:
            children = psutil.Process().children(recursive=True)
            children = [c for c in children if c.status() != psutil.STATUS_ZOMBIE]
            next(c for c in children if "embedded_server" in " ".join(c.cmdline())).kill()

    progress.update = kill_engine
    run = run_suite(tiny, model="pypi:gemma3-270m", out=tmp_path, progress=progress)

    failed = [row for row in run.measured if row["status"] == "failed"]
    (interruption,) = run.sessions[0]["interruptions"]
    assert run.complete
    assert len(run.measured) == 20
    assert 1 <= len(failed) <= 2
    assert {row["failure"]["reason"] for row in failed} <= {"reset", "connect"}
    assert interruption["restarted"]
    assert interruption["recovered"]
    assert interruption["reason"] == "the engine died"
    assert [interruption] == on_disk


@pytest.mark.engine
@pytest.mark.usefixtures("small_model")
def test_engines_are_measured_in_turn(tiny, tmp_path):
    """Two engines share the blocks: each has a session a block, alone, in rotating order."""
    need_program("llama-server")
    progress = RunProgress(io.StringIO())
    show = progress.step
    started, beside = [], []

    def look(line: str) -> None:
        show(line)
        if line.startswith("starting engine"):
            started.append(line.split()[2])
            beside.extend(living_engines())

    progress.step = look
    runs = run_engines(
        tiny, ["embedded", "llama-server"], model="pypi:gemma3-270m", out=tmp_path,
        requests=10, progress=progress,
    )  # fmt: skip

    first, second = runs
    order = ["embedded", "llama-server", "llama-server", "embedded"]
    assert [*order, *order, *order[:2]] == started
    assert [] == beside
    assert [run.config["engine"]["name"] for run in runs] == ["embedded", "llama-server"]
    assert first.config["interleaved_with"] == [second.run_id]
    assert first.complete
    assert second.complete
    assert [session["session"] for session in first.sessions] == [1, 2, 3, 4, 5]
    assert all(len({row["session"] for row in run.measured if row["block"] == 2}) == 1
               for run in runs)  # fmt: skip
    prompts = [{row["id"]: row["prompt_sha256"] for row in run.measured} for run in runs]
    assert prompts[0] == prompts[1]
    assert all(session["load_s"] > 0 for run in runs for session in run.sessions)
    again = run_engines(
        tiny, ["embedded", "llama-server"], model="pypi:gemma3-270m", out=tmp_path,
        requests=10, resume=True, progress=progress,
    )  # fmt: skip
    assert [run.complete for run in again] == [True, True]


def living_engines() -> list[str]:
    """The command lines of the engines that live below this process."""
    children = psutil.Process().children(recursive=True)
    lines = [" ".join(c.cmdline()) for c in children if c.status() != psutil.STATUS_ZOMBIE]
    return [line for line in lines if "embedded_server" in line or "llama-server" in line]


def test_the_failure_of_one_engine_is_not_the_others(tiny, tmp_path):
    """The manifest of the run that failed says why, that of its partner that it was another."""
    progress = RunProgress(io.StringIO())
    with running_koboldcpp() as server:

        def lock(line: str) -> None:
            if line.startswith("starting engine koboldcpp"):
                server.key = "another"

        progress.step = lock
        with pytest.raises(MissingError, match="key"):
            run_engines(tiny, ["openai", "koboldcpp"], model=server.model_id, out=tmp_path,
                        base_url=server.base_url, requests=4, progress=progress)  # fmt: skip

    runs = [read_run(folder) for folder in tmp_path.iterdir()]
    assert {
        "openai": "another run of the comparison ended: a part was missing",
        "koboldcpp": "a part was missing",
    } == {run.config["engine"]["name"]: run.incomplete_reason for run in runs}


@pytest.mark.parametrize("engines", [["embedded", "embedded"], ["auto", "embedded"]])
def test_an_engine_twice_is_refused(tiny, tmp_path, engines):
    """A comparison of an engine with itself is a mistake, and named, also by its other name."""
    with pytest.raises(BadValueError, match="stands twice"):
        run_engines(tiny, engines, model="pypi:gemma3-270m", out=tmp_path)


@pytest.mark.parametrize("engine", ["openai", "koboldcpp", "ollama,openai"])
def test_a_context_is_refused_for_a_server_that_runs_already(tiny, truth_url, tmp_path, engine):
    """Its context is its own: a run that claimed another one would be a lie."""
    with pytest.raises(BadValueError, match=f"--context 4096: the server at {truth_url} runs alre"):
        run_engines(tiny, engine.split(","), model="truth-n8", base_url=truth_url,
                    context=4096, out=tmp_path / "out")  # fmt: skip
    assert not (tmp_path / "out").exists()
