"""A bundle brings a run to another machine as it was, and a damaged one changes nothing there."""

import errno
import gzip
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoestring.errors import BadRunError, DiskFullError, MissingError
from shoestring.measure.bundles import Keeper, pack_run
from shoestring.measure.cli import bundle as bundle_command
from shoestring.measure.lease import Lease
from shoestring.measure.progress import RunProgress
from shoestring.measure.records import read_run
from shoestring.measure.restoring import find_bundles, restore_bundle, restore_bundles
from shoestring.measure.resuming import find_cut_runs
from shoestring.measure.writer import RunWriter
from shoestring.testing.engines import REQUIRE
from shoestring.testing.faults import NotAllowedError, ballast, small_disk
from shoestring.testing.synthetic import write_synthetic_run

RUN_ID = "20260101T000000Z-chat-00000a"
RECORD = ("config.json", "requests.jsonl", "telemetry.jsonl", "environment.json", "manifest.json")


def write_run(out: Path, run_id: str = RUN_ID, *, rows: int | None = None, seed: int = 1) -> Path:
    """Write a whole run of two blocks, or a cut one of so many rows."""
    folder = write_synthetic_run(out / run_id, seed=seed, blocks=2)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "run_id": run_id}))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["config.json"] = digest((folder / "config.json").read_bytes())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "run_id": run_id}))
    if rows is not None:
        (folder / "manifest.json").unlink()
        lines = (folder / "requests.jsonl").read_bytes().splitlines(keepends=True)
        (folder / "requests.jsonl").write_bytes(b"".join(lines[:rows]))
    return folder


def digest(data: bytes) -> str:
    """The SHA-256 of bytes."""
    return hashlib.sha256(data).hexdigest()


def state(run: Path) -> dict[str, bytes]:
    """The files of a run's record."""
    return {path.name: path.read_bytes() for path in run.iterdir()}


def repack(bundle: Path, change) -> Path:
    """Write a bundle anew after ``change`` had its members: names, or headers, and contents."""
    with tarfile.open(bundle) as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar.getmembers()]
    members = change(members)
    with tarfile.open(bundle, "w:gz", format=tarfile.USTAR_FORMAT) as tar:
        for member, data in members:
            tar.addfile(member, io.BytesIO(data))
    return bundle


def relist(members, **changes):
    """Change what bundle.json says."""
    (member, listing), *others = members
    data = json.dumps({**json.loads(listing), **changes}).encode()
    member.size = len(data)
    return [(member, data), *others]


@pytest.mark.parametrize("rows", [None, 0, 5])
def test_a_restored_run_is_the_same_run(tmp_path, rows):
    """Whole, just begun or cut: each file has its bytes again, whatever the umask there."""
    run = write_run(tmp_path / "here", rows=rows)
    bundle = pack_run(run, tmp_path / "bundles")
    before = os.umask(0o077)
    try:
        restored = restore_bundle(bundle, tmp_path / "there")
    finally:
        os.umask(before)

    assert tmp_path / "there" / RUN_ID == restored
    assert state(run) == state(restored)
    assert [restored] == list((tmp_path / "there").iterdir())


def test_only_whole_lines_and_files_of_the_record_travel(tmp_path):
    """A line that is torn, the engine's log and strangers stay; owner and time are nobody's."""
    run = write_run(tmp_path, rows=4)
    whole = state(run)
    for name, torn in (("requests.jsonl", b'{"id": "b1-'), ("telemetry.jsonl", b'{"t')):
        with (run / name).open("ab") as file:
            file.write(torn)
    for name in ("engine.log", ".env", "config.json.partial"):
        (run / name).write_text("a secret in /h/somebody")
    bundle = pack_run(run, tmp_path / "bundles")

    with tarfile.open(bundle) as tar:
        members = tar.getmembers()
    assert ["bundle.json", *(n for n in RECORD if n in whole)] == [m.name for m in members]
    assert {(0, 0, "", "", 0, 0o644)} == {
        (m.uid, m.gid, m.uname, m.gname, m.mtime, m.mode) for m in members
    }
    assert whole == state(restore_bundle(bundle, tmp_path / "there"))
    assert b"somebody" not in gzip.decompress(bundle.read_bytes())


def test_the_same_state_is_the_same_bundle(tmp_path):
    """Packed at the same moment in two places, a run gives the same bytes."""
    run = write_run(tmp_path)
    one, two = (pack_run(run, tmp_path / n, made_utc="2026-01-01T00:00:00Z") for n in "ab")

    assert one.read_bytes() == two.read_bytes()


def test_a_run_that_was_changed_is_not_packed(tmp_path):
    """What does not fit its manifest is no state to carry on; nor is a folder that is no run."""
    run = write_run(tmp_path)
    with (run / "requests.jsonl").open("a") as file:
        file.write("{}\n")

    with pytest.raises(BadRunError, match="changed or damaged"):
        pack_run(run, tmp_path / "bundles")
    with pytest.raises(BadRunError, match="not a run folder"):
        pack_run(tmp_path, tmp_path / "bundles")
    assert not (tmp_path / "bundles").exists()


@pytest.mark.parametrize(("rows", "kept"), [(3, 5), (5, 5), (7, 7)])
def test_a_folder_with_more_rows_is_never_overwritten(tmp_path, rows, kept):
    """Fewer rows are replaced by the bundle's; as many or more stay. The engine's log stays."""
    bundle = pack_run(write_run(tmp_path / "a", rows=5), tmp_path / "bundles")
    there = write_run(tmp_path / "b", rows=rows)
    (there / "engine.log").write_text("of this machine")

    assert there == restore_bundle(bundle, tmp_path / "b")
    assert kept == len(read_run(there).rows)
    assert "of this machine" == (there / "engine.log").read_text()
    assert [there] == list((tmp_path / "b").iterdir())


def test_runs_that_went_on_apart_are_not_mixed(tmp_path):
    """Rows that the bundle lacks are not lost for its others, however many these are."""
    bundle = pack_run(write_run(tmp_path / "a", rows=9), tmp_path / "bundles")
    there = write_run(tmp_path / "b", rows=5, seed=2)
    before = state(there)

    with pytest.raises(BadRunError, match="they went on apart"):
        restore_bundle(bundle, tmp_path / "b")
    assert before == state(there)


def test_a_run_that_is_being_written_is_not_replaced(tmp_path):
    """The writer of a run keeps its folder."""
    bundle = pack_run(write_run(tmp_path / "a", rows=5), tmp_path / "bundles")
    there = write_run(tmp_path / "b", rows=3)

    with RunWriter.resume(there), pytest.raises(BadRunError, match="another process"):
        restore_bundle(bundle, tmp_path / "b")
    assert 3 == len(read_run(there).rows)


def test_something_else_of_that_name_stays(tmp_path):
    """A folder that is no run is not ours to replace."""
    bundle = pack_run(write_run(tmp_path / "a"), tmp_path / "bundles")
    (tmp_path / "b" / RUN_ID / "photos").mkdir(parents=True)

    with pytest.raises(BadRunError, match="is there and is no run"):
        restore_bundle(bundle, tmp_path / "b")
    assert (tmp_path / "b" / RUN_ID / "photos").is_dir()


def renamed(name: str, kind: bytes = tarfile.REGTYPE):
    """Give the second member another name or kind."""

    def change(members):
        member, data = members[1]
        member.name, member.type = name, kind
        if kind != tarfile.REGTYPE:
            member.linkname, member.size, data = "/etc/passwd", 0, b""
        return [members[0], (member, data), *members[2:]]

    return change


def listed_as(name: str):
    """Have bundle.json name a file that leads elsewhere."""

    def change(members):
        files = json.loads(members[0][1])["files"]
        return relist(members, files={**files, name: {"sha256": "0" * 64, "bytes": 1}})

    return change


def huge(members):
    """Declare more than any run holds, in the list and in the header."""
    files = json.loads(members[0][1])["files"]
    files["requests.jsonl"]["bytes"] = 10**12
    return relist(members, files=files)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (renamed("../../outside"), "belongs in no bundle"),
        (renamed("/tmp/outside"), "belongs in no bundle"),
        (renamed("config.json", tarfile.SYMTYPE), "no plain file"),
        (renamed("config.json", tarfile.LNKTYPE), "no plain file"),
        (renamed("config.json", tarfile.DIRTYPE), "no plain file"),
        (listed_as("../outside"), "belongs in no bundle"),
        (listed_as("manifest.json"), "damaged"),
        (huge, "1000000000000 bytes, 0 to"),
        (lambda members: relist(members, run_id="../outside"), "no plain name"),
        (lambda members: relist(members, run_id="another"), "config.json is of run"),
        (lambda members: relist(members, rows=99), "bundle.json says 99"),
        (lambda members: relist(members, schema_version=2), "schema version 2.*update shoestring"),
        (lambda members: relist(members, files=[]), "files is no object"),
        (lambda members: members[1:], "does not begin with bundle.json"),
        (lambda members: members[:-1], "belongs in no bundle|damaged"),
        (lambda members: [*members[:2], members[1], *members[3:]], "stands twice"),
        (lambda members: [*members, members[1]], "more than bundle.json says"),
    ],
)
def test_a_bundle_that_is_not_ours_is_refused(tmp_path, change, words):
    """Whatever its members claim, nothing is written, within the folder or outside of it."""
    bundle = repack(pack_run(write_run(tmp_path / "a", rows=5), tmp_path / "bundles"), change)
    out = tmp_path / "deep" / "out"

    with pytest.raises(BadRunError, match=words):
        restore_bundle(bundle, out)
    assert [] == list(out.iterdir())
    assert {"a", "bundles", "deep"} == {path.name for path in tmp_path.iterdir()}


def test_a_changed_file_is_refused(tmp_path):
    """A byte that differs from its digest is found, though the archive is whole."""

    def change(members):
        member, data = members[2]
        return [*members[:2], (member, data.replace(b"ok", b"OK", 1)), *members[3:]]

    bundle = repack(pack_run(write_run(tmp_path / "a", rows=5), tmp_path / "bundles"), change)

    with pytest.raises(BadRunError, match=r"requests\.jsonl is not the file"):
        restore_bundle(bundle, tmp_path / "b")


@pytest.fixture(scope="module")
def small_bundle(tmp_path_factory) -> tuple[Path, dict[str, bytes]]:
    """A bundle of a few kilobytes, and the state in it."""
    folder = tmp_path_factory.mktemp("small")
    run = write_run(folder, rows=2)
    (run / "telemetry.jsonl").write_bytes(b"")
    return pack_run(run, folder / "bundles"), state(run)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_damage_anywhere_restores_all_or_nothing(small_bundle, data):
    """Cut or changed at any place, a bundle gives the very state, or an error and nothing."""
    path, whole = small_bundle
    raw = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(raw) - 1))
    if data.draw(st.booleans()):
        raw[place] ^= data.draw(st.integers(1, 255))
    else:
        del raw[place:]
    with TemporaryDirectory() as folder:
        damaged, out = Path(folder, "b.tar.gz"), Path(folder, "out")
        damaged.write_bytes(raw)
        try:
            restored = restore_bundle(damaged, out)
        except BadRunError:
            assert [] == list(out.iterdir())
        else:
            assert whole == state(restored)


def test_bundles_are_found_where_platforms_attach_them(tmp_path):
    """In folders of folders, by their names; other archives and what lies too deep are not."""
    run = write_run(tmp_path / "runs", rows=1)
    near = pack_run(run, tmp_path / "in" / "notebooks" / "somebody" / "slug" / "shoestring-bundles")
    pack_run(run, tmp_path / "in" / "1/2/3/4/5/6/7")
    (tmp_path / "in" / "data.tar.gz").write_bytes(b"")
    (tmp_path / "in" / "back").symlink_to(tmp_path / "in")

    found = [path for path in find_bundles([tmp_path / "in", tmp_path / "none"])
             if "back" not in path.parts]  # fmt: skip
    assert [near] == found


def test_the_bundle_with_the_most_rows_is_restored(tmp_path):
    """Of several of a run the richest counts, then the newest; a damaged one is passed over."""
    said = []
    for place, rows in (("a", 3), ("b", 6), ("c", 9)):
        pack_run(write_run(tmp_path / place, rows=rows), tmp_path / "in" / place)
    best = tmp_path / "in" / "c" / f"{RUN_ID}.tar.gz"
    best.write_bytes(best.read_bytes()[:-100])
    other = "20260102T000000Z-chat-00000b"
    pack_run(write_run(tmp_path / "a", other), tmp_path / "in" / "d")

    restore_bundles(tmp_path / "out", [tmp_path / "in"], said.append)
    again = []
    restore_bundles(tmp_path / "out", [tmp_path / "in" / "a"], again.append)

    assert 6 == len(read_run(tmp_path / "out" / RUN_ID).rows)
    assert read_run(tmp_path / "out" / other).complete
    assert 1 == sum("passed over" in line and str(best) in line for line in said)
    assert 2 == sum(line.startswith("restored ") for line in said)
    assert [] == again


def test_what_a_killed_restore_left_is_cleared_away(tmp_path):
    """A half-restored folder is neither a run nor in the way."""
    bundle = pack_run(write_run(tmp_path / "a"), tmp_path / "bundles")
    left = tmp_path / "b" / ".restoring-x" / RUN_ID
    left.mkdir(parents=True)
    (left / "config.json").write_text("{")

    assert [restore_bundle(bundle, tmp_path / "b")] == list((tmp_path / "b").iterdir())


def test_a_restore_that_was_killed_between_two_moves_loses_no_run(tmp_path):
    """The run that it had moved away is put back before the next one begins."""
    bundle = pack_run(write_run(tmp_path / "a", rows=5), tmp_path / "bundles")
    run = write_run(tmp_path / "b", rows=7)
    before = state(run)
    (tmp_path / "b" / ".restoring-x" / "replaced").mkdir(parents=True)
    run.rename(tmp_path / "b" / ".restoring-x" / "replaced" / RUN_ID)

    assert run == restore_bundle(bundle, tmp_path / "b")
    assert before == state(run)
    assert [run] == list((tmp_path / "b").iterdir())


def test_a_move_that_fails_puts_the_run_back(tmp_path, monkeypatch):
    """What was there is there again, and nothing beside it."""
    bundle = pack_run(write_run(tmp_path / "a", rows=5), tmp_path / "bundles")
    run = write_run(tmp_path / "b", rows=3)
    before, move = state(run), Path.rename

    def fail(path, target):
        if path.parent.name.startswith(".restoring-"):
            raise OSError(errno.EIO, "the disk fails")
        return move(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(BadRunError, match="the disk fails"):
        restore_bundle(bundle, tmp_path / "b")
    assert before == state(run)
    assert [run] == list((tmp_path / "b").iterdir())


def test_a_damaged_run_is_in_nobodys_way(tmp_path):
    """It is passed over with one line, whatever bundles of it there are; others are restored."""
    other = "20260102T000000Z-chat-00000b"
    for place, rows in (("a", 3), ("b", 6)):
        pack_run(write_run(tmp_path / place, rows=rows), tmp_path / "in" / place)
    pack_run(write_run(tmp_path / "a", other), tmp_path / "in" / "a")
    damaged = write_run(tmp_path / "out", rows=5) / "requests.jsonl"
    damaged.write_bytes(b"{\n" + damaged.read_bytes())
    said = []

    restore_bundles(tmp_path / "out", [tmp_path / "in"], said.append)
    assert 1 == sum("passed over" in line for line in said)
    assert read_run(tmp_path / "out" / other).complete
    config = json.loads((damaged.parent / "config.json").read_text())
    progress = RunProgress(io.StringIO())
    assert find_cut_runs(tmp_path / "out", [config], progress) is None


@pytest.mark.parametrize("place", [0, 1])
def test_a_negative_size_is_refused_before_it_is_read(tmp_path, place):
    """A header may hold one; read(-1) would inflate all that follows."""
    bundle = pack_run(write_run(tmp_path / "a", rows=5), tmp_path / "bundles")
    with tarfile.open(bundle) as tar:
        member = tar.getmembers()[place]
    plain = bytearray(gzip.decompress(bundle.read_bytes()))
    member.size = -1
    at = member.offset
    plain[at : at + 512] = member.tobuf(tarfile.GNU_FORMAT)
    bundle.write_bytes(gzip.compress(bytes(plain)))

    with pytest.raises(BadRunError, match=f"{member.name} of -1 bytes"):
        restore_bundle(bundle, tmp_path / "b")


@pytest.fixture
def disk(tmp_path):
    """A disk of two megabytes; skips where it may not be mounted."""
    try:
        with small_disk(tmp_path / "disk") as folder:
            yield folder
    except (NotAllowedError, MissingError) as error:
        if isinstance(error, MissingError) and os.environ.get(REQUIRE) == "1":
            pytest.fail(f"{error}, and {REQUIRE}=1", pytrace=False)
        pytest.skip(str(error))


def test_a_full_disk_keeps_the_bundle_before(tmp_path, disk):
    """The old bundle is whole, nothing lies beside it, and a run that goes on is only told."""
    run = write_run(tmp_path, rows=5)
    bundle = pack_run(run, disk / "bundles")
    before = bundle.read_bytes()
    write_run(tmp_path / "more")
    said = []
    with ballast(disk):
        with pytest.raises(DiskFullError, match="is full"):
            pack_run(tmp_path / "more" / RUN_ID, disk / "bundles")
        assert Keeper(Lease(bundles=disk / "bundles"), said.append).keep(run) is None

    assert before == bundle.read_bytes()
    assert [bundle] == list((disk / "bundles").iterdir())
    assert [f"no bundle of {RUN_ID}"] == [line.split(":")[0] for line in said]


def test_a_full_disk_restores_nothing(tmp_path, disk):
    """The folder of runs is as it was."""
    bundle = pack_run(write_run(tmp_path), tmp_path / "bundles")
    with ballast(disk), pytest.raises(DiskFullError, match="is full"):
        restore_bundle(bundle, disk)

    assert [] == list(disk.iterdir())


def test_a_kill_while_packing_leaves_the_bundle_before(tmp_path):
    """SIGKILL in the midst of it costs nothing, and the next one clears what it left."""
    run = write_run(tmp_path, rows=5)
    telemetry = run / "telemetry.jsonl"
    telemetry.write_bytes(telemetry.read_bytes() * 200)
    folder = tmp_path / "bundles"
    bundle = pack_run(run, folder)
    before = bundle.read_bytes()
    code = ("import sys, pathlib; from shoestring.measure.bundles import pack_run\n"
            "pack_run(*map(pathlib.Path, sys.argv[1:]))")  # fmt: skip
    left = []
    while not left:  # it may have been done before the signal came
        with subprocess.Popen([sys.executable, "-c", code, run, folder]) as packing:
            while not list(folder.glob("*.partial")) and packing.poll() is None:
                pass
            packing.send_signal(signal.SIGKILL)
        left = list(folder.glob("*.partial"))
        before = before if left else bundle.read_bytes()

    assert before == bundle.read_bytes()
    assert state(run) == state(restore_bundle(bundle, tmp_path / "there"))
    assert bundle == pack_run(run, folder)
    assert [bundle] == list(folder.iterdir())


def test_a_bundle_is_made_when_it_is_due(tmp_path):
    """Not before the time has passed since the last one, and then anew."""
    run = write_run(tmp_path, rows=2)
    now = [0.0]
    lease = Lease(bundles=tmp_path / "b", every_s=300, clock=lambda: now[0])
    keeper = Keeper(lease, print)
    made = []
    for seconds in (0, 299, 300, 301, 599, 600):
        now[0] = seconds
        for path in (tmp_path / "b").glob("*.tar.gz"):
            path.unlink()
        keeper.keep_when_due(run)
        made.append((tmp_path / "b" / f"{RUN_ID}.tar.gz").exists())

    assert [False, False, True, False, False, True] == made


def test_bundles_by_hand(tmp_path):
    """Packed with one command, restored with another; each prints where its result lies."""
    runs = [write_run(tmp_path / "here"), write_run(tmp_path / "here", "cut", rows=3)]
    cli = CliRunner()
    packed = cli.invoke(bundle_command, ["pack", *map(str, runs), "--to", str(tmp_path / "stick")])
    paths = packed.output.splitlines()
    restored = cli.invoke(bundle_command, ["restore", *paths, "--out", str(tmp_path / "there")])

    assert [str(tmp_path / "stick" / f"{run.name}.tar.gz") for run in runs] == paths
    assert [str(tmp_path / "there" / run.name) for run in runs] == restored.output.splitlines()
    assert [state(run) for run in runs] == [
        state(Path(line)) for line in restored.output.splitlines()
    ]


def test_a_model_file_may_lie_elsewhere(tmp_path):
    """A cut run of a file goes on with the same bytes under another path, not with others."""
    ours = {
        "schema_version": 2, "run_id": "1", "seed": 1, "suite": {"name": "s", "cases": []},
        "model": {"name": "file:/h/me/m.gguf", "sha256": "a"}, "engine": {"name": "e"},
        "requests": [],
    }  # fmt: skip
    with RunWriter.create(tmp_path / "1", ours) as writer:
        writer.write_session({"session": 1})

    def find(path: str, sha256: str):
        wanted = {**ours, "model": {"name": path, "sha256": sha256}}
        return find_cut_runs(tmp_path, [wanted], RunProgress(io.StringIO()))

    assert [tmp_path / "1"] == find("file:other/m.gguf", "a")
    assert find("file:/h/me/m.gguf", "b") is None
    assert find("pypi:m", "a") is None
