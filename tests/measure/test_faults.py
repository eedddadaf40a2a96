"""What goes wrong around a run costs no row and doubles none, and the run goes on.

A few faults of each kind; ``benchmarks/faults.py`` makes them by the dozen, at random moments.
Kills of the harness and of the embedded engine are in ``test_runner.py``.
"""

import io
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from contextlib import ExitStack
from datetime import datetime
from itertools import pairwise
from pathlib import Path

import psutil
import pytest

from shoestring.engines.transport import Cancellation
from shoestring.errors import (
    EngineLostError,
    InterruptedRunError,
    MissingError,
    ShoestringError,
)
from shoestring.measure.lease import Lease
from shoestring.measure.loop import Stop
from shoestring.measure.progress import RunProgress
from shoestring.measure.records import read_run
from shoestring.measure.recovery import Recovery
from shoestring.measure.runner import run_suite
from shoestring.testing.engines import REQUIRE, need_program
from shoestring.testing.faults import (
    NotAllowedError,
    ballast,
    far_network,
    far_truth_server,
    small_disk,
    stepping_clock,
)

SLOW = "truth-ttft40-itl10-n8"
CUT = "truth-ttft200-itl10-n8"
"""So slow that a busy machine meets it in the middle."""
TTFT_S, WHOLE_S = 0.04, 0.11
SUITE = """
name = "faults"
description = "One slot, two blocks."
blocks = 2
seed = 1
[deadlines]
request_s = 60
stall_s = {stall_s}
[warmup]
minimum = 1
maximum = 1
[[case]]
name = "one"
prompt = "chat"
prompt_tokens = 32
output_tokens = 8
concurrency = 1
requests_per_block = 6
"""


@pytest.fixture
def suite(tmp_path) -> str:
    """The path of a suite with one slot: after row n, request n + 1 is in flight."""
    return write_suite(tmp_path, stall_s=5)


@pytest.fixture
def patient_suite(tmp_path) -> str:
    """The same, for engines that compute on a machine that may be busy."""
    return write_suite(tmp_path, stall_s=60)


def write_suite(folder, *, stall_s: int) -> str:
    """Write the suite and return its path."""
    path = folder / "faults.toml"
    path.write_text(SUITE.format(stall_s=stall_s))
    return str(path)


@pytest.fixture
def fault():
    """Enter the context managers of faults; what is not possible here skips the test."""
    with ExitStack() as stack:

        def enter(make, *arguments):
            try:
                made = make(*arguments)
                return stack.enter_context(made) if hasattr(made, "__enter__") else made
            except NotAllowedError as error:
                pytest.skip(f"not allowed here: {error}")
            except MissingError as error:
                if os.environ.get(REQUIRE) == "1":
                    pytest.fail(f"{error}, and {REQUIRE}=1", pytrace=False)
                pytest.skip(str(error))

        yield enter


@pytest.mark.parametrize(
    ("program", "make", "said", "refused"),
    [
        ("mount", small_disk, "mount: disk: permission denied.", True),
        ("mount", small_disk, "mount: disk: must be superuser to use mount.", True),
        ("mount", small_disk, "mount: disk: bad option", False),
        ("ip", lambda _: far_network(), "RTNETLINK answers: Operation not permitted", True),
        ("ip", lambda _: far_network(), 'Error: "netn" is a garbage.', False),
        ("cc", stepping_clock, "clock_shim.c:7: error: Permission denied", False),
    ],
)
def test_only_what_the_kernel_refuses_is_not_allowed(
    tmp_path, monkeypatch, program, make, said, refused
):
    """Any other failure, of our own shim above all, fails a test and does not skip it."""
    (tmp_path / program).write_text(f"#!/bin/sh\necho '{said}' >&2\nexit 1\n")
    (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    folder = tmp_path / "made"
    if program == "cc":
        folder.mkdir()

    with pytest.raises(ShoestringError) as raised, ExitStack() as stack:
        stack.enter_context(make(folder))

    assert said in str(raised.value)
    assert isinstance(raised.value, NotAllowedError) == refused


class Watched(RunProgress):
    """Calls back after each row with how many there are, and with each line for the user."""

    def __init__(self, *, on_row=lambda _: None, on_line=lambda _: None) -> None:
        super().__init__(io.StringIO())
        self.on_row, self.on_line = on_row, on_line

    def update(self, done: int, *rest) -> None:
        """Note progress."""
        super().update(done, *rest)
        self.on_row(done)

    def step(self, text: str) -> None:
        """Note a line."""
        super().step(text)
        self.on_line(text)


def ids(run) -> list[str]:
    """The ids of the rows that count, sorted."""
    return sorted(row["id"] for row in run.measured)


def planned(run) -> list[str]:
    """The ids of what was to be asked, sorted."""
    return sorted(request["id"] for request in run.config["requests"])


def reasons(run) -> Counter:
    """The failed rows by reason."""
    return Counter(row["failure"]["reason"] for row in run.measured if row["status"] == "failed")


def kill_computing() -> None:
    """SIGKILL the process below this one that computes: llama-server, or Ollama's runner."""
    for process in psutil.Process().children(recursive=True):
        words = process.cmdline() if process.status() != psutil.STATUS_ZOMBIE else []
        if "--port" in words and Path(words[0]).name in ("llama-server", "ollama"):
            process.kill()
            psutil.wait_procs([process], timeout=10)
            return
    pytest.fail("no engine is running")


# --- engines -------------------------------------------------------------------------------------


@pytest.mark.engine
@pytest.mark.usefixtures("small_model")
def test_a_server_that_is_killed_twice_is_started_twice(patient_suite, tmp_path):
    """SIGKILL of llama-server: the request in flight fails, all others are answered."""
    need_program("llama-server")
    watched = Watched(on_row=lambda done: kill_computing() if done in (1, 4) else None)

    run = run_suite(patient_suite, model="pypi:gemma3-270m", engine="llama-server",
                    out=tmp_path / "runs", requests=6, progress=watched)  # fmt: skip

    assert run.complete
    assert ids(run) == planned(run)
    assert 1 <= sum(reasons(run).values()) <= 2
    assert reasons(run).keys() <= {"reset", "connect"}
    interruptions = run.sessions[0]["interruptions"]
    assert [(True, True)] * 2 == [(each["restarted"], each["recovered"]) for each in interruptions]


@pytest.mark.engine
@pytest.mark.usefixtures("small_model")
def test_a_runner_that_is_killed_is_replaced_by_ollama(patient_suite, tmp_path):
    """SIGKILL of Ollama's runner: the request in flight fails, Ollama starts another."""
    need_program("ollama")
    watched = Watched(on_row=lambda done: kill_computing() if done in (1, 4) else None)

    run = run_suite(patient_suite, model="pypi:gemma3-270m", engine="ollama",
                    out=tmp_path / "runs", requests=6, progress=watched)  # fmt: skip

    assert run.complete
    assert ids(run) == planned(run)
    assert 1 <= sum(reasons(run).values()) <= 3
    assert "ok" == run.measured[-1]["status"]


class Broken:
    """A recording of an exchange that went wrong."""

    broken = True


class Answered:
    """A recording of a whole exchange."""

    broken = False


class FrailEngine:
    """An engine of ours that dies as the test wants it.

    Args:
        dies: how many loads in a row end in death.
        seen_late: how often a dead one looks alive before its end is seen.
    """

    def __init__(self, dies: int = 0, seen_late: int = 0) -> None:
        self.dies, self.seen_late = dies, seen_late
        self.alive = False
        self.loads = 0

    def lost(self) -> str | None:
        """Say how it died, once that is seen."""
        if self.alive or self.seen_late > 0:
            self.seen_late -= 1
            return None
        return "the engine died by signal 9"

    def healthy(self) -> bool:
        """Whether it lives."""
        return self.alive

    def start(self) -> None:
        """Do nothing: it lives when it is loaded."""

    def stop(self) -> None:
        """Be gone."""
        self.alive = False

    def load(self) -> None:
        """Live, or die in trying."""
        self.loads += 1
        self.dies -= 1
        if self.dies >= 0:
            raise EngineLostError("the engine died by signal 9")
        self.alive = True

    def count_tokens(self, text: str) -> int:
        """Count letters."""
        if not self.alive:
            raise MissingError("no server answers")
        return len(text)


def recovery_of(engine, **options) -> tuple[Recovery, Stop]:
    """A session's recovery, with the stop that it may ask for."""
    stop = Stop(Cancellation())
    return Recovery(engine, stop, lambda _: None, origin_ns=0, **options), stop


@pytest.mark.parametrize(("dies", "loads"), [(0, 1), (2, 3)])
def test_an_engine_that_dies_while_it_starts_gets_another_chance(dies, loads):
    """Up to three starts belong to one interruption."""
    engine = FrailEngine(dies)
    recovery, stop = recovery_of(engine)

    recovery.after(Broken())

    assert (engine.loads, engine.alive, stop.asked) == (loads, True, False)
    (interruption,) = recovery.interruptions
    assert (interruption["restarted"], interruption["recovered"]) == (True, True)


def test_an_engine_that_never_answers_ends_the_session():
    """Three starts without an answer in between are enough; one answer begins the count anew."""
    engine = FrailEngine()
    recovery, stop = recovery_of(engine)
    for recording in (Broken, Broken, Answered, Broken, Broken, Broken):
        recovery.after(recording())
        engine.alive = False
    assert (engine.loads, stop.asked) == (5, False)

    recovery.after(Broken())

    assert (engine.loads, stop.reason) == (5, "engine lost")
    assert isinstance(stop.error, EngineLostError)
    assert "--resume" in str(stop.error)
    assert not recovery.interruptions[-1]["recovered"]


def test_an_end_that_is_seen_late_is_an_end():
    """A dead engine that looks only silent at first is started, not waited for."""
    engine = FrailEngine(seen_late=3)
    recovery, stop = recovery_of(engine)

    recovery.after(Broken())

    assert (engine.alive, stop.asked) == (True, False)
    assert [True] == [each["restarted"] for each in recovery.interruptions]


def test_an_engine_that_dies_between_two_batches_is_started_again():
    """Prompts are counted by the engine: one that is away then is brought back, too."""
    engine = FrailEngine()
    recovery, stop = recovery_of(engine)

    assert 5 == recovery.count_tokens("words")
    assert (engine.loads, stop.asked) == (1, False)


def test_an_engine_that_does_not_come_back_is_named():
    """Who waits for a server of somebody else's in vain says so, and how to go on."""
    engine = FrailEngine(seen_late=10**9)
    recovery, stop = recovery_of(engine, wait_s=0.0)

    with pytest.raises(EngineLostError, match=r"did not come back .* --resume"):
        recovery.count_tokens("words")
    assert (engine.loads, stop.reason) == (0, "engine lost")


# --- disk ----------------------------------------------------------------------------------------


def test_a_disk_that_fills_up_and_is_freed(fault, harness, truth_url, tmp_path):
    """A really full disk ends the run with exit 2 and one line; with space again it goes on."""
    disk = fault(small_disk, tmp_path / "disk")
    cut = harness(disk / "runs", truth_url, CUT)
    cut.wait_for_rows(3)
    with ballast(disk):
        status, _, said = cut.end()
        kept = len(read_run(next((disk / "runs").iterdir())).measured)
    again, answer, _ = harness(disk / "runs", truth_url, CUT, "--resume").end()
    run = read_run(next((disk / "runs").iterdir()))

    assert (2, 0) == (status, again)
    assert said.strip().splitlines()[-1].startswith("Error: the disk of ")
    assert "Traceback" not in said
    assert "complete" == json.loads(answer)["status"]
    assert 3 <= kept < 20
    assert ids(run) == planned(run)


def test_a_disk_that_is_full_before_the_run(fault, harness, truth_url, tmp_path):
    """A run that cannot even begin says so in one line, and hinders no later one."""
    disk = fault(small_disk, tmp_path / "disk")
    (disk / "runs").mkdir()
    with ballast(disk):
        status, _, said = harness(disk / "runs", truth_url, SLOW).end()
    again, answer, _ = harness(disk / "runs", truth_url, SLOW, "--resume").end()

    assert (2, 0) == (status, again)
    assert "No space left" in said.strip().splitlines()[-1]
    assert "Traceback" not in said
    assert "complete" == json.loads(answer)["status"]


# --- clock ---------------------------------------------------------------------------------------


def test_the_shim_steps_the_wall_clock_alone(fault, tmp_path):
    """What the tests below rest on: the wall clock jumps, the monotonic one does not."""
    clock = fault(stepping_clock, tmp_path)
    clock.step_to(86_400)
    code = "import time; print(time.time(), time.monotonic())"
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | clock.environment,
                          capture_output=True, text=True, check=True)  # fmt: skip
    now = subprocess.run([sys.executable, "-c", code],
                         capture_output=True, text=True, check=True)  # fmt: skip

    wall, steady = (
        float(a) - float(b) for a, b in zip(done.stdout.split(), now.stdout.split(), strict=True)
    )
    assert 43_200 < wall < 129_600
    assert -43_200 < steady < 43_200


@pytest.mark.parametrize("hours", [(-1,), (1, -1, 2, -2)])
def test_a_clock_that_steps_moves_no_measurement(
    fault, harness, truth_url, tmp_path, monkeypatch, hours
):
    """Hours forward and back: dates jump, and neither durations nor telemetry do."""
    clock = fault(stepping_clock, tmp_path)
    with monkeypatch.context() as patched:
        for name, value in clock.environment.items():
            patched.setenv(name, value)
        stepped = harness(tmp_path / "runs", truth_url, CUT)
    for number, offset in enumerate(hours, start=1):
        stepped.wait_for_rows(3 * number)
        clock.step_to(offset * 3600)
    assert 0 == stepped.end()[0]
    run = read_run(next((tmp_path / "runs").iterdir()))

    assert run.complete
    assert ids(run) == planned(run)
    (session,) = run.sessions
    began, ended = (datetime.fromisoformat(session[key]) for key in ("started_utc", "ended_utc"))
    # Half an hour is no time of the run's, and no step is as short.
    assert 1800 < abs((ended - began).total_seconds())
    for row in run.measured:
        first_ns = next(at_ns for at_ns, kind, _ in row["events"] if kind == "answer")
        assert TTFT_S <= (first_ns - row["intended_ns"]) / 1e9 < 1800
        assert WHOLE_S <= (row["end_ns"] - row["intended_ns"]) / 1e9 < 1800
        assert all(old <= new for (old, *_), (new, *_) in pairwise(row["events"]))
    times = [sample["t_ns"] for sample in run.telemetry]
    assert all(0 < new - old < 1800e9 for old, new in pairwise(times))


# --- network -------------------------------------------------------------------------------------


def test_a_network_that_is_cut_and_mended(fault, suite, tmp_path):
    """Two cuts: what was in flight fails by its name, and the run waits and goes on."""
    network = fault(far_network)
    url = fault(far_truth_server, network)
    watched = Watched(
        on_row=lambda done: network.cut() if done in (2, 8) else None,
        on_line=lambda line: network.mend() if "waiting for it" in line else None,
    )

    run = run_suite(suite, model=SLOW, base_url=url, out=tmp_path / "runs", progress=watched)

    assert run.complete
    assert ids(run) == planned(run)
    assert {"stall", "headers_timeout", "connect"} >= reasons(run).keys()
    assert 2 == sum(reasons(run).values())
    (session,) = run.sessions
    assert [
        ("the engine does not answer", True, False),
        ("the engine does not answer", True, False),
    ] == [(each["reason"], each["recovered"], each["restarted"])
          for each in session["interruptions"]]  # fmt: skip


def test_a_signal_ends_the_wait_for_a_network(fault, suite, tmp_path):
    """Who waits for a server that is away can be stopped, and the run resumed."""
    network = fault(far_network)
    url = fault(far_truth_server, network)
    watched = Watched(
        on_row=lambda done: network.cut() if done == 2 else None,
        on_line=lambda line: (
            threading.Thread(target=os.kill, args=(os.getpid(), 2)).start()
            if "waiting for it" in line
            else None
        ),
    )
    with pytest.raises(InterruptedRunError, match="--resume"):
        run_suite(suite, model=SLOW, base_url=url, out=tmp_path / "runs", progress=watched)
    network.mend()
    run = run_suite(suite, model=SLOW, base_url=url, out=tmp_path / "runs", resume=True,
                    progress=RunProgress(io.StringIO()))  # fmt: skip

    assert run.complete
    assert ids(run) == planned(run)
    assert 2 == len(run.sessions)
    assert 1 == sum(reasons(run).values())


@pytest.mark.engine
@pytest.mark.usefixtures("small_model")
def test_an_engine_that_the_kernel_kills_as_it_loads_is_out_of_memory(tiny, tmp_path, monkeypatch):
    """The manifest tells it from an engine that is lost for another reason."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    program = tmp_path / "llama-server"
    reasons = []
    for last in ("os.kill(os.getpid(), signal.SIGKILL)", "sys.exit(1)"):
        program.write_text(f"#!{sys.executable}\nimport os, signal, sys\n{last}\n")
        program.chmod(0o700)
        with pytest.raises(EngineLostError):
            run_suite(
                tiny, model="pypi:gemma3-270m", engine="llama-server", out=tmp_path / last[:3],
                requests=1, progress=RunProgress(io.StringIO()), lease=Lease(),
            )  # fmt: skip
        (folder,) = (tmp_path / last[:3]).iterdir()
        run = read_run(folder)
        reasons.append((run.incomplete_reason, run.sessions[-1]["end_reason"]))

    assert [("engine out of memory",) * 2, ("engine lost",) * 2] == reasons
