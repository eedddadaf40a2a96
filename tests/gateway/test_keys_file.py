"""The file of keys: made for its owner alone, changed without loss, refused in one line."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoestring.errors import BadValueError
from shoestring.gateway.keys import PRESENTED, KeyLimits, KeyRing, read_keys, sha256
from shoestring.gateway.keys_file import create_key, find_key, revoke_key, rotate_key

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MAKE_TWENTY = """
import sys
from pathlib import Path
from shoestring.gateway.keys_file import create_key, revoke_key
sys.stdin.read(1)
for number in range(20):
    key, _ = create_key(Path(sys.argv[1]), f"{sys.argv[2]}-{number}")
    if number % 2:
        revoke_key(Path(sys.argv[1]), key.id)
"""


@pytest.fixture
def path(tmp_path):
    """Where the keys are."""
    return tmp_path / "gateway" / "keys.json"


@pytest.fixture(params=[0o000, 0o022, 0o777], ids=["loose", "usual", "strict"])
def umask(request):
    """A umask for the test alone."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def test_the_file_is_its_owners_alone_whatever_the_umask(tmp_path, umask):
    """After making it and after each change; the folder is, too, where it is ours to make."""
    folder = tmp_path if umask == 0o777 else tmp_path / "gateway"
    path = folder / "keys.json"
    for change in (
        lambda: create_key(path, "ana"),
        lambda: rotate_key(path, "ana", grace_s=0),
        lambda: revoke_key(path, "ana"),
    ):
        change()
        assert path.stat().st_mode & 0o777 == 0o600
    if folder != tmp_path:
        assert folder.stat().st_mode & 0o077 == 0


def test_a_key_comes_back_as_it_was_made(path):
    """Whatever it may do; its user's text has the public id in it."""
    limits = KeyLimits(60, 10_000, 2, 1_000_000, "day")
    key, held = create_key(
        path,
        "ana",
        scopes={"inference", "admin"},
        models=["qwen3:*"],
        limits=limits,
        expires_days=30,
        now=lambda: NOW,
    )

    assert read_keys(path) == (key,)
    assert (key.created_utc, key.expires_utc) == ("2026-03-01T12:00:00Z", "2026-03-31T12:00:00Z")
    assert key.limits == limits
    parts = PRESENTED.fullmatch(held)
    assert (parts[1], sha256(parts[2])) == (key.id, key.secret_sha256)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(name=st.text(max_size=90), globs=st.lists(st.text(max_size=9), max_size=3))
def test_any_name_is_kept_as_it_is_or_refused(tmp_path_factory, name, globs):
    """Nothing in between: no name that breaks the file, a table or a log line."""
    path = tmp_path_factory.getbasetemp() / "names" / "keys.json"
    path.unlink(missing_ok=True)
    try:
        key, _ = create_key(path, name, models=globs)
    except BadValueError as error:
        said = str(error)
        assert len(said.splitlines()) == 1
        assert read_keys(path) == ()
        return
    assert read_keys(path) == (key,)
    assert (key.name, list(key.models)) == (name, globs)
    assert all(text.isprintable() for text in (name, *globs))


def test_two_processes_that_make_keys_at_once_lose_none(path):
    """Nor a revocation; and no file is left half-way beside the whole one."""
    makers = [
        subprocess.Popen(
            [sys.executable, "-c", MAKE_TWENTY, path, name], stdin=subprocess.PIPE, text=True
        )
        for name in ("a", "b", "c")
    ]
    for maker in makers:
        maker.stdin.write("x")
        maker.stdin.close()
    assert [maker.wait(120) for maker in makers] == [0, 0, 0]

    kept = read_keys(path)
    assert {key.name for key in kept} == {f"{n}-{i}" for n in "abc" for i in range(20)}
    assert {key.name for key in kept if key.revoked_utc} == {
        f"{n}-{i}" for n in "abc" for i in range(1, 20, 2)
    }
    assert {entry.name for entry in path.parent.iterdir()} == {"keys.json", "keys.json.lock"}


def test_a_gateway_that_reads_meanwhile_never_sees_half_a_file(path):
    """It complains of nothing, and ends with all keys."""
    said = []
    ring = KeyRing(path, say=said.append)
    with subprocess.Popen(
        [sys.executable, "-c", MAKE_TWENTY, path, "a"], stdin=subprocess.PIPE, text=True
    ) as maker:
        maker.stdin.write("x")
        maker.stdin.close()
        while maker.poll() is None:
            ring.reload()
    ring.reload()

    assert (said, maker.returncode, len(ring.keys())) == ([], 0, 20)


def test_a_change_that_was_cut_off_hinders_no_later_one(path):
    """What a killed process left beside the file is not taken for it."""
    create_key(path, "ana")
    path.with_name("keys.json.new").write_text('{"version": 1, "ke')

    create_key(path, "bo")

    assert [key.name for key in read_keys(path)] == ["ana", "bo"]


def test_a_change_that_fails_leaves_the_file_as_it_was(path, monkeypatch):
    """The disk is full: one line, and the old keys hold."""
    create_key(path, "ana")
    before = path.read_bytes()

    def full(_path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shoestring.gateway.keys_file.sync", full)
    with pytest.raises(BadValueError, match=f"cannot change the keys in {path}: No space left"):
        create_key(path, "bo")
    assert path.read_bytes() == before


def test_a_link_stays_a_link(tmp_path):
    """What it leads to is changed: that may be what a gateway reads."""
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    create_key(real, "ana")
    link.symlink_to(real)
    revoke_key(link, "ana")

    assert link.is_symlink()
    assert read_keys(real)[0].revoked_utc is not None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_root_leaves_the_file_to_its_owner(path):
    """A gateway that runs as another user can read it after ``sudo shoestring keys create``."""
    create_key(path, "ana")
    os.chown(path, 1234, 1235)
    create_key(path, "bo")

    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 1235)


def test_a_file_that_is_damaged_or_open_to_others_is_not_changed(path):
    """It may be an attacker's, or the only copy of what was in it."""
    create_key(path, "ana")
    whole = path.read_bytes()
    path.chmod(0o640)
    for change in (lambda: create_key(path, "bo"), lambda: revoke_key(path, "ana")):
        with pytest.raises(BadValueError, match=f"chmod 600 {path}"):
            change()
    path.chmod(0o600)
    path.write_bytes(whole[:40])
    with pytest.raises(BadValueError, match="is damaged"):
        create_key(path, "bo")

    assert path.read_bytes() == whole[:40]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"name": ""}, "name: "),
        ({"name": "x" * 81}, "name: "),
        ({"name": "a\nb"}, "name: give printable"),
        ({"name": "a\u202eb"}, "name: give printable"),
        ({"name": "shoe_abcdefghij_x"}, "name: a name does not begin with shoe_"),
        ({"scopes": ()}, "scopes: "),
        ({"scopes": ("root",)}, "scopes"),
        ({"models": ("",)}, "models.0: "),
        ({"models": ("m",) * 65}, "models: "),
        ({"limits": KeyLimits(requests_per_minute=0)}, "limits.requests_per_minute: "),
        ({"limits": KeyLimits(budget_period="week")}, "limits.budget_period: "),
        ({"expires_days": 0}, "expires_days: 0: give 1 to 36500"),
        ({"expires_days": 10**9}, "expires_days: 1000000000: give"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(path, asked, said):
    """In one line; nothing is written."""
    with pytest.raises(BadValueError) as refusal:
        create_key(path, **({"name": "ana"} | asked))

    assert str(refusal.value).startswith(said)
    assert len(str(refusal.value).splitlines()) == 1
    assert not path.exists()


def test_a_key_is_meant_by_id_by_a_name_of_its_own_or_by_itself(path):
    """Of two with a name the one that still opens something; else the ids are listed."""
    first, held = create_key(path, "ana")
    second, _ = create_key(path, "ana")
    keys = read_keys(path)

    assert find_key(keys, first.id, path) == find_key(keys, held, path) == first
    with pytest.raises(BadValueError, match=f"'ana': give one's id \\({first.id}, {second.id}\\)"):
        find_key(keys, "ana", path)
    revoked = revoke_key(path, first.id)
    assert find_key(read_keys(path), "ana", path) == second
    assert find_key((revoked,), "ana", path) == revoked


def test_an_unknown_key_is_refused_without_its_secret(path):
    """Also where the name was pasted wrongly, or would break the line."""
    create_key(path, "ana")
    secret = "S" * 43
    for unknown in (
        f"shoe_bbbbbbbbbb_{secret}",
        f"shoe_B_{secret}",
        f"shoe_{secret}",
        "x\n\x1b[2J",
    ):
        with pytest.raises(BadValueError) as refusal:
            revoke_key(path, unknown)
        said = str(refusal.value)
        assert "shoestring keys list" in said
        assert secret not in said
        assert said.isprintable()


def test_a_revocation_keeps_its_first_time(path):
    """Revoking again changes nothing."""
    create_key(path, "ana")
    first = revoke_key(path, "ana", now=lambda: NOW)
    again = revoke_key(path, "ana", now=lambda: NOW + timedelta(days=1))

    assert first.revoked_utc == again.revoked_utc == "2026-03-01T12:00:00Z"
    assert read_keys(path) == (first,)


def test_a_key_that_opens_nothing_is_not_rotated(path):
    """It would look alive."""
    create_key(path, "old", expires_days=1, now=lambda: NOW)
    create_key(path, "gone", now=lambda: NOW)
    revoke_key(path, "gone", now=lambda: NOW)
    before = path.read_bytes()

    for name, state in (("old", "expired"), ("gone", "revoked")):
        with pytest.raises(BadValueError, match=f"is {state}: create another one"):
            rotate_key(path, name, grace_s=0, now=lambda: NOW + timedelta(days=2))
    assert path.read_bytes() == before


@pytest.mark.parametrize("grace_s", [-1, 31 * 86_400])
def test_a_grace_without_bound_is_refused(path, grace_s):
    """A secret that was rotated away shall end."""
    create_key(path, "ana")

    with pytest.raises(BadValueError, match=f"grace_s: {grace_s}: give 0 to"):
        rotate_key(path, "ana", grace_s=grace_s)


def test_a_second_rotation_ends_the_grace_of_the_first(path):
    """One old secret at a time; without grace there is none."""
    first, _ = create_key(path, "ana")
    second, _ = rotate_key(path, "ana", grace_s=60)
    third, _ = rotate_key(path, "ana", grace_s=60)
    fourth, _ = rotate_key(path, "ana", grace_s=0)

    assert second.previous_sha256 == first.secret_sha256
    assert third.previous_sha256 == second.secret_sha256
    assert (fourth.previous_sha256, fourth.previous_until_utc) == (None, None)


def test_a_change_keeps_every_other_key_and_their_order(path):
    """Nothing else moves."""
    made = [create_key(path, name)[0] for name in ("a", "b", "c")]
    rotated, _ = rotate_key(path, "b", grace_s=0)
    revoked = revoke_key(path, "c")

    assert read_keys(path) == (made[0], rotated, revoked)
    assert json.loads(path.read_text())["version"] == 1
