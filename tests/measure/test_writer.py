"""Rows are on the disk when the writer returns, and stay whole when the disk is full."""

import errno
import json
import os
import subprocess
import sys
import textwrap
import threading
from contextlib import suppress

import pytest

from shoestring.errors import BadRunError
from shoestring.measure.records import read_run
from shoestring.measure.writer import RunWriter
from shoestring.testing.synthetic import write_synthetic_run

SLOW = "truth-ttft40-itl10-n8"
CONFIG = {
    "schema_version": 1, "run_id": "r", "suite": {}, "model": {}, "engine": {},
    "requests": [{"id": "a"}, {"id": "b"}],
}  # fmt: skip


def row(row_id: str, **more) -> dict:
    """A row with what the reader needs."""
    return {
        "id": row_id, "session": 1, "phase": "measure", "status": "ok", "events": [], **more
    }  # fmt: skip


def test_rows_and_manifest(tmp_path):
    """Rows are read back as written, and the manifest counts them."""
    with RunWriter.create(tmp_path / "r", CONFIG) as writer:
        writer.append_row(row("a", answer="sal é \ud800"))
        writer.append_row(row("b", status="failed"))
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
        import resource, signal, sys
        from pathlib import Path
        from shoestring.errors import MissingError
        from shoestring.measure.writer import RunWriter
        config = {"schema_version": 1, "run_id": "r", "suite": {}, "model": {}, "engine": {},
                  "requests": []}
        writer = RunWriter.create(Path(sys.argv[1]) / "r", config)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        try:
            for number in range(1000):
                writer.append_row({"id": str(number), "session": 1, "phase": "measure",
                                   "status": "ok", "events": [], "answer": "x" * 300})
        except MissingError as error:
            print(error)
            print(number)
    """)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )

    message, number = done.stdout.splitlines()
    assert "is full" in message
    assert f"{number} rows are safe" in message
    assert len(read_run(tmp_path / "r").rows) == int(number) > 5


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_run_on_a_disk_that_fills_up_and_is_freed(tmp_path, truth_url, harness):
    """A really full disk ends the run with exit 2 and one line; with space again it goes on."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], check=False
    )
    if mounted.returncode:
        pytest.skip("this container may not mount")
    try:
        cut = harness(disk / "runs", truth_url, SLOW)
        cut.wait_for_rows(3)
        with (disk / "ballast").open("wb", buffering=0) as ballast, suppress(OSError):
            while True:
                ballast.write(b"\0" * 512)
        status, _, said = cut.end()
        rows = len(read_run(next((disk / "runs").iterdir())).rows)
        (disk / "ballast").unlink()
        again, answer, _ = harness(disk / "runs", truth_url, SLOW, "--resume").end()
        run = read_run(next((disk / "runs").iterdir()))
    finally:
        subprocess.run(["umount", str(disk)], check=True)

    assert (status, again) == (2, 0)
    assert said.strip().splitlines()[-1].startswith("Error: the disk of ")
    assert "Traceback" not in said
    assert json.loads(answer)["status"] == "complete"
    assert 0 < rows < len(run.rows)
    assert len(run.measured) == 20


@pytest.mark.parametrize(
    ("file", "damage", "words"),
    [
        ("config.json", "{", "config.json is damaged"),
        ("config.json", '{"schema_version": 2}', "schema version 2, this shoestring reads up to 1"),
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
        ("requests.jsonl", '{"id": "a"}\n', "line 1 is damaged: no events, phase, session, status"),
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
