"""Who is signed in: only a cookie that this gateway signed, of a key that is still good."""

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoestring.errors import BadValueError
from shoestring.gateway.keys import Key, KeyRing
from shoestring.gateway.keys_file import create_key, revoke_key
from shoestring.gateway.sessions import COOKIE, LASTS_S, SECRET_FILE, Sessions, cookie_in


class Clock:
    """Seconds since 1970 that the test moves."""

    def __init__(self) -> None:
        self.now_s = 1_750_000_000.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now_s


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the keys are."""
    return tmp_path / "gateway" / "keys.json"


@pytest.fixture
def key(path: Path) -> Key:
    """A key that may see the dashboard."""
    return create_key(path, "ana", scopes=("dashboard",))[0]


def sessions_of(path: Path, clock: Clock | None = None) -> tuple[Sessions, KeyRing]:
    """Sessions over the keys of a file, and the ring that they ask."""
    ring = KeyRing(path, say=lambda _: None)
    return Sessions(path, ring, now=clock or Clock()), ring


def test_a_cookie_names_its_key(path: Path, key: Key):
    """And holds no secret of it."""
    sessions, _ = sessions_of(path)
    cookie = sessions.cookie_for(key)
    assert sessions.find(cookie) == key
    assert key.secret_sha256 not in cookie


def test_a_cookie_ends(path: Path, key: Key):
    """With its last second."""
    clock = Clock()
    sessions, _ = sessions_of(path, clock)
    cookie = sessions.cookie_for(key)
    clock.now_s += LASTS_S - 1
    assert sessions.find(cookie) == key
    clock.now_s += 1
    assert sessions.find(cookie) is None


def test_revoking_the_key_ends_the_session(path: Path, key: Key):
    """As soon as the ring has read the file."""
    sessions, ring = sessions_of(path)
    cookie = sessions.cookie_for(key)
    revoke_key(path, key.id)
    ring.reload()
    assert sessions.find(cookie) is None


def test_an_expired_key_has_no_session(path: Path):
    """Whatever the cookie's own time."""
    long_ago = datetime.now(UTC) - timedelta(days=9)
    old, _ = create_key(path, "old", scopes=("dashboard",), expires_days=1, now=lambda: long_ago)
    sessions, _ = sessions_of(path)
    assert sessions.find(sessions.cookie_for(old)) is None


def test_a_key_that_is_not_here_has_no_session(path: Path, key: Key, tmp_path: Path):
    """A cookie that is signed well names nobody."""
    sessions, _ = sessions_of(path)
    stranger, _ = create_key(tmp_path / "elsewhere.json", "bo", scopes=("dashboard",))
    assert sessions.find(sessions.cookie_for(stranger)) is None
    assert sessions.find(sessions.cookie_for(key)) == key


def test_another_gateways_cookie_is_none(path: Path, key: Key, tmp_path: Path):
    """Its secret is another, though its keys may be the same."""
    sessions, _ = sessions_of(path)
    other_path = tmp_path / "other" / "keys.json"
    other_path.parent.mkdir()
    other_path.write_bytes(path.read_bytes())
    other_path.chmod(0o600)
    other, _ = sessions_of(other_path)
    assert sessions.find(other.cookie_for(key)) is None
    assert other.find(other.cookie_for(key)) == key


def test_replicas_and_restarts_know_a_cookie(path: Path, key: Key):
    """The secret lies beside the keys."""
    first, _ = sessions_of(path)
    second, _ = sessions_of(path)
    assert second.find(first.cookie_for(key)) == key


@settings(max_examples=200, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(data=st.data())
def test_no_other_cookie_opens_anything(path: Path, key: Key, data: st.DataObject):
    """One changed, one cut, one lengthened, one of any characters: None, and no error."""
    sessions, _ = sessions_of(path)
    good = sessions.cookie_for(key)
    at = data.draw(st.integers(0, len(good) - 1))
    latin = st.text(st.characters(max_codepoint=255))
    forged = data.draw(
        st.sampled_from([good[:at], good + good[at:], good[:at] + good[at + 1 :], good[at + 1 :]])
        | latin.map(lambda text: good[:at] + text + good[at + 1 :])
        | latin
    )
    assert forged == good or sessions.find(forged) is None


def test_time_cannot_be_added(path: Path, key: Key):
    """The signature covers the end."""
    sessions, _ = sessions_of(path)
    key_id, mark, ends, signature = sessions.cookie_for(key).split(".")
    assert sessions.find(f"{key_id}.{mark}.{int(ends) + 9}.{signature}") is None


def test_the_secret_is_its_owners_alone(path: Path):
    """Nobody else may read it, whatever new files are usually given."""
    sessions_of(path)
    secret = path.with_name(SECRET_FILE)
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert len(secret.read_bytes()) == 32


def test_a_secret_that_others_may_read_is_refused(path: Path):
    """Whoever has read it can sign in as anybody."""
    sessions_of(path)
    path.with_name(SECRET_FILE).chmod(0o644)
    with pytest.raises(BadValueError, match="open to others"):
        sessions_of(path)


def test_a_cut_secret_is_refused(path: Path):
    """A short one could be guessed."""
    sessions_of(path)
    path.with_name(SECRET_FILE).write_bytes(b"short")
    with pytest.raises(BadValueError, match="cut"):
        sessions_of(path)


def test_a_secret_that_cannot_be_made_is_said(tmp_path: Path):
    """In one line with the path."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadValueError, match=SECRET_FILE):
        Sessions(
            tmp_path / "file" / "keys.json", KeyRing(tmp_path / "keys.json", say=lambda _: None)
        )


@pytest.mark.parametrize(
    ("line", "found"),
    [(b"", ""), (b"a=b", ""), (f"{COOKIE}=x".encode(), "x"), (f"a=b; {COOKIE}=x".encode(), "x"),
     (f"{COOKIE}=x=y; c".encode(), "x=y"), (f"not_{COOKIE}=x".encode(), ""), (b"\xff=\xff;", "")],
)  # fmt: skip
def test_the_cookie_is_found_among_others(line: bytes, found: str):
    """By its whole name."""
    assert cookie_in([(b"host", b"x"), (b"cookie", line)]) == found


def test_without_cookies_there_is_none():
    """Only that header is read."""
    assert cookie_in([(b"x-cookie", f"{COOKIE}=x".encode())]) == ""
