"""Rows are on the disk when the writer returns, and stay whole when the disk is full."""

import errno
import json
import os
import subprocess
import sys
import textwrap
import threading

import pytest

from shoestring.errors import BadRunError
from shoestring.measure.records import read_run
from shoestring.measure.writer import RunWriter
from shoestring.testing.synthetic import write_synthetic_run

CONFIG = {
    "schema_version": 1, "run_id": "r", "seed": 1, "suite": {"name": "s", "cases": []},
    "model": {"name": "m"}, "engine": {"name": "e"}, "requests": [{"id": "a"}, {"id": "b"}],
}  # fmt: skip


def row(row_id: str, **more) -> dict:
    """A row with what the reader needs."""
    return {
        "id": row_id, "session": 1, "phase": "measure", "block": 1, "case": "c", "concurrency": 1,
        "intended_ns": 0, "end_ns": 1, "status": "ok", "failure": None, "events": [], **more,
    }  # fmt: skip


def change(path, file: str, place: str, value: object) -> None:
    """Set what stands at a place of a file (the first line of several), or drop it for ``...``."""
    first, *others = (path / file).read_text().splitlines(keepends=True)
    whole = part = json.loads(first)
    *way, last = [int(key) if key.isdigit() else key for key in place.split(".")]
    for key in way:
        part = part[key]
    if value is ...:
        del part[last]
    else:
        part[last] = value
    (path / file).write_text("".join([json.dumps(whole) + "\n", *others]))


def test_rows_and_manifest(tmp_path):
    """Rows are read back as written, and the manifest counts them."""
    with RunWriter.create(tmp_path / "r", CONFIG) as writer:
        writer.append_row(row("a", answer="sal é \ud800"))
        writer.append_row(row("b", status="failed", failure={"reason": "reset", "detail": ""}))
        writer.write_session({"session": 1})
        assert writer.finish(None) == "complete"

    run = read_run(tmp_path / "r")
    assert run.rows[0]["answer"] == "sal é \ud800"
    assert run.manifest["requests"] == {"ok": 1, "failed": 1, "warmup": 0, "planned": 2}


def test_a_run_without_all_rows_is_never_complete(tmp_path):
    """The manifest says how many requests were not sent."""
    with RunWriter.create(tmp_path / "r", CONFIG) as writer:
        writer.append_row(row("a"))
        writer.write_session({"session": 1})
        assert writer.finish(None) == "incomplete"

    assert read_run(tmp_path / "r").incomplete_reason == "1 requests were not sent"


def test_a_full_disk_leaves_whole_rows(tmp_path):
    """A write that does not fit is cut off again; the rows before it are whole and can be read."""
    code = textwrap.dedent("""
        import json, resource, signal, sys
        from pathlib import Path
        from shoestring.errors import MissingError
        from shoestring.measure.writer import RunWriter
        config, row = json.loads(sys.argv[2])
        writer = RunWriter.create(Path(sys.argv[1]) / "r", config)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        try:
            for number in range(1000):
                writer.append_row({**row, "id": str(number), "answer": "x" * 300})
        except MissingError as error:
            print(error)
            print(number)
    """)
    parts = json.dumps([{**CONFIG, "requests": []}, row("0")])
    command = [sys.executable, "-c", code, str(tmp_path), parts]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    message, number = done.stdout.splitlines()
    assert "is full" in message
    assert f"{number} rows are safe" in message
    assert len(read_run(tmp_path / "r").rows) == int(number) > 5


@pytest.mark.parametrize(
    ("file", "damage", "words"),
    [
        ("config.json", "{", "config.json is damaged"),
        ("config.json", '{"schema_version": 3}', "schema version 3, this shoestring reads up to 2"),
        ("config.json", "[]", "no schema_version"),
        ("config.json", '{"schema_version": 1}', "run_id is no str"),
        ("manifest.json", "nonsense", "manifest.json is damaged"),
        ("manifest.json", '{"schema_version": 1, "status": "complete"}', "run_id is no str"),
        (
            "manifest.json",
            '{"schema_version": 1, "run_id": "", "status": "", "requests": {}, "files": {}}',
            "does not hold the hash of each file",
        ),
        ("requests.jsonl", '{"id"\n{}\n', "line 1 is damaged"),
        ("requests.jsonl", '{"id": "a"}\n', "line 1 is damaged: no block, case, concurrency, end"),
        ("environment.json", "", "environment.json is damaged"),
    ],
)
def test_damage_is_named(tmp_path, file, damage, words):
    """A damaged run folder is refused with the file and the reason."""
    path = write_synthetic_run(tmp_path / "run")
    if file != "manifest.json":
        (path / "manifest.json").unlink()
    (path / file).write_text(damage)

    with pytest.raises(BadRunError) as caught:
        read_run(path)

    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "place", "value", "words"),
    [
        ("config.json", "seed", "1", "seed is no int"),
        ("config.json", "prompt_salt", 5, "prompt_salt is no str"),
        ("config.json", "suite.name", ..., "suite.name is no str"),
        ("config.json", "suite.cases", {}, "suite.cases is no list"),
        ("config.json", "suite.cases.1.name", ..., "suite.cases.1.name is no str"),
        ("config.json", "suite.cases.0.prompt_tokens", None, "prompt_tokens is no int"),
        ("config.json", "suite.limits", [1], "suite.limits is no object"),
        ("config.json", "model.name", 5, "model.name is no str"),
        ("config.json", "engine.name", ..., "engine.name is no str"),
        ("config.json", "requests.3", None, "requests.3 is no object"),
        ("environment.json", "sessions.0", 1, "sessions.0 is no object"),
        ("environment.json", "sessions.0.session", ..., "sessions.0.session is no int"),
        ("environment.json", "sessions.0.cold_start", {}, "cold_start is no list"),
        ("environment.json", "sessions.0.cold_start.1.end_s", None, "1.end_s is no number"),
        ("environment.json", "sessions.0.warmup", [], "warmup is no object"),
        ("environment.json", "sessions.0.calibration", [], "calibration is no object"),
        ("environment.json", "sessions.0.calibration.ttft_error_s", "", "error_s is no number"),
        (
            "environment.json", "sessions.0.calibration.by_concurrency.0.concurrency", ...,
            "by_concurrency.0.concurrency is no int",
        ),
        ("environment.json", "sessions.0.machine", "x", "machine is no object"),
        ("environment.json", "sessions.0.machine.gpus", ["T4"], "gpus.0 is no object"),
        ("telemetry.jsonl", "session", ..., "line 1 is damaged: session is no int"),
        ("telemetry.jsonl", "cpu_percent", "95", "cpu_percent is no number"),
        ("requests.jsonl", "id", ["a"], "line 1 is damaged: id is no str"),
        ("requests.jsonl", "case", 3, "case is no str"),
        ("requests.jsonl", "concurrency", "4", "concurrency is no int"),
        ("requests.jsonl", "block", None, "block is no int"),
        ("requests.jsonl", "intended_ns", 1.5, "intended_ns is no int"),
        ("requests.jsonl", "end_ns", None, "end_ns is no int"),
        ("requests.jsonl", "failure", ..., "no failure"),
        ("requests.jsonl", "failure", {"detail": ""}, "failure.reason is no str"),
        ("requests.jsonl", "status", "failed", "status is 'failed' and failure is None"),
        ("requests.jsonl", "events", None, "events is no list"),
        ("requests.jsonl", "events.1", [1, "answer"], "events are no list of [t_ns, kind, bytes]"),
        ("requests.jsonl", "events.1.0", "1", "events are no list of [t_ns, kind, bytes]"),
        ("requests.jsonl", "usage", [], "usage is no object"),
        ("requests.jsonl", "usage.prompt_tokens", "9", "usage.prompt_tokens is no number"),
        ("requests.jsonl", "native.prompt_s", "9", "native.prompt_s is no number"),
        ("requests.jsonl", "sent_ns", "0", "sent_ns is no int"),
    ],
)  # fmt: skip
def test_damage_within_is_named(tmp_path, file, place, value, words):
    """What readers index and is missing or of another kind is refused with its place."""
    path = write_synthetic_run(tmp_path / "run")
    (path / "manifest.json").unlink()
    change(path, file, place, value)

    with pytest.raises(BadRunError) as caught:
        read_run(path)

    assert words in str(caught.value)
    assert file in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "place", "value"),
    [
        ("environment.json", "sessions.0.calibration", None),
        ("environment.json", "sessions.0.machine", ...),
        ("environment.json", "sessions.0.machine.gpus", None),
        ("requests.jsonl", "usage", None),
        ("requests.jsonl", "native", ...),
        ("requests.jsonl", "sent_ns", None),
        ("config.json", "suite.limits", ...),
        ("config.json", "more", {"of": "a later version"}),
    ],
)
def test_what_may_be_missing_is_no_damage(tmp_path, file, place, value):
    """Null parts and unknown ones are read, and no report breaks on them."""
    from shoestring.analysis.summary import summarise

    path = write_synthetic_run(tmp_path / "run")
    (path / "manifest.json").unlink()
    change(path, file, place, value)

    assert summarise(read_run(path))["requests"]["ok"] == 70


@pytest.mark.parametrize("run_id", ["../../etc", "/tmp/x", "", ".hidden", "a b", "x" * 101, "a\n"])
def test_a_run_id_that_is_no_name_is_refused(tmp_path, run_id):
    """Reports and published runs are written under it, so it may not lead anywhere else."""
    path = write_synthetic_run(tmp_path / "run", killed=True)
    change(path, "config.json", "run_id", run_id)

    with pytest.raises(BadRunError, match="is no name of a run") as caught:
        read_run(path)
    assert "\n" not in str(caught.value)


def test_a_writer_that_may_not_begin_leaves_no_lock(tmp_path):
    """After damage was refused and mended, the same process can resume the run."""
    path = write_synthetic_run(tmp_path / "run", killed=True)
    environment = path / "environment.json"
    good = environment.read_text()
    environment.write_text("{")
    with pytest.raises(BadRunError, match="damaged"):
        RunWriter.resume(path)
    environment.write_text(good)

    with RunWriter.resume(path) as writer:
        assert writer.next_session == 2


def test_refused_writers_take_no_rows_away(tmp_path):
    """While one writes, others that want to resume are refused and change nothing."""
    with RunWriter.create(tmp_path / "r", CONFIG) as writer:

        def intrude() -> None:
            for _ in range(200):
                with pytest.raises(BadRunError, match="another process"):
                    RunWriter.resume(writer.path)

        intruder = threading.Thread(target=intrude)
        intruder.start()
        for number in range(300):
            writer.append_row(row(str(number)))
        intruder.join()

        assert len(read_run(writer.path).rows) == 300


def test_a_session_number_is_never_used_twice(tmp_path):
    """Without its environment a run still counts its sessions, by its rows."""
    path = write_synthetic_run(tmp_path / "run", killed=True)
    (path / "environment.json").unlink()

    with RunWriter.resume(path) as writer:
        assert writer.next_session == 2


def test_a_changed_run_is_found_out(tmp_path):
    """A complete run whose rows were changed afterwards is refused."""
    path = write_synthetic_run(tmp_path / "run")
    rows = path / "requests.jsonl"
    rows.write_text(rows.read_text().replace('"status": "ok"', '"status": "OK"', 1))

    with pytest.raises(BadRunError, match="changed or damaged"):
        read_run(path)


def test_a_row_twice_is_found_out(tmp_path):
    """Two rows of one request are damage, not data."""
    path = write_synthetic_run(tmp_path / "run", killed=True)
    rows = path / "requests.jsonl"
    rows.write_text("".join(rows.read_text().splitlines(keepends=True)[:1] * 2))

    with pytest.raises(BadRunError, match="stands twice"):
        read_run(path)


def test_a_folder_that_is_no_run(tmp_path):
    """A folder without a config is no run."""
    with pytest.raises(BadRunError, match="is not a run folder"):
        read_run(tmp_path)


def test_other_errors_are_not_called_full(tmp_path, monkeypatch):
    """Only a lack of space is called a full disk."""

    def broken(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with RunWriter.create(tmp_path / "r", CONFIG) as writer:
        monkeypatch.setattr(os, "write", broken)
        with pytest.raises(OSError, match="Input/output error"):
            writer.append_row(row("a"))
        monkeypatch.undo()
