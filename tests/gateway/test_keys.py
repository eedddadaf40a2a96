"""Keys: who is let in, with what, until when; and the ring that follows its file."""

import hmac
import json
import logging
import os
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoestring.errors import BadValueError
from shoestring.gateway import keys as keys_module
from shoestring.gateway.keys import Key, KeyLimits, KeyRing, read_keys, sha256, utc_text
from shoestring.gateway.keys_file import create_key, revoke_key, rotate_key

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECRET_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
IN_ONE_FOLDER = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Clock:
    """A wall clock that the test moves."""

    def __init__(self):
        self.now = NOW

    def __call__(self):
        """Tell the time."""
        return self.now


@pytest.fixture
def path(tmp_path):
    """Where the keys are."""
    return tmp_path / "gateway" / "keys.json"


def make_key(**changes):
    """Make a key without a file."""
    values = {
        "id": "abcdefghij", "name": "ana", "scopes": frozenset({"inference"}), "models": (),
        "limits": KeyLimits(), "created_utc": "2026-01-01T00:00:00Z", "expires_utc": None,
        "revoked_utc": None, "secret_sha256": sha256("s"),
    }  # fmt: skip
    return Key(**(values | changes))


def ring_of(path, clock=lambda: NOW):
    """Read the keys; complaints are on ``ring.said``."""
    said = []
    ring = KeyRing(path, say=said.append, now=clock)
    ring.said = said
    return ring


def test_a_key_is_found_by_what_its_user_holds(path):
    """And by nothing else: not its id alone, not another key's secret, not with blanks."""
    ana, held = create_key(path, "ana", now=lambda: NOW)
    _, other = create_key(path, "bo", now=lambda: NOW)
    ring = ring_of(path)

    assert ring.find(held) == ana
    assert ring.keys() == read_keys(path)
    assert len(ring.keys()) == 2
    for wrong in ("", ana.id, f"shoe_{ana.id}_", f" {held}", f"{held}\n", held[:-1], f"{held}A",
                  held.upper(), f"shoe_{ana.id}_{other[16:]}", held.replace("shoe_", "shoe-"),
                  ana.secret_sha256, f"shoe_{ana.id}_{ana.secret_sha256}"):  # fmt: skip
        assert ring.find(wrong) is None, wrong


@IN_ONE_FOLDER
@given(data=st.data())
def test_no_other_text_opens_anything(path, data):
    """Whatever is presented, near the truth or far from it, gives None and raises nothing."""
    if not path.exists():
        create_key(path, "ana", now=lambda: NOW)
    ring = ring_of(path)
    (known,) = ring.keys()
    secret = st.text(SECRET_CHARACTERS, min_size=43, max_size=43)
    ids = st.sampled_from([known.id]) | st.text("abcdefgh234567", min_size=10, max_size=10)
    near = st.builds("shoe_{}_{}".format, ids, secret)
    presented = data.draw(
        near | st.text(max_size=100) | st.builds("{}{}".format, near, st.text(min_size=1))
    )

    assert ring.find(presented) is None


@IN_ONE_FOLDER
@given(place=st.integers(0, 58), character=st.characters())
def test_one_changed_character_closes_the_door(tmp_path_factory, place, character):
    """Wherever it stands and whatever it is."""
    path = tmp_path_factory.getbasetemp() / "one-changed" / "keys.json"
    key, held = create_key(path, "ana", now=lambda: NOW)
    ring = ring_of(path)
    changed = held[:place] + character + held[place + 1 :]

    assert ring.find(changed) == (key if changed == held else None)
    path.unlink()


def test_hashes_are_compared_in_constant_time_for_unknown_ids_too(path, monkeypatch):
    """As many comparisons, of hashes as long, for a right key, a wrong secret and no such id."""
    key, held = create_key(path, "ana", now=lambda: NOW)
    ring = ring_of(path)
    lengths = []
    for presented in (held, f"shoe_{key.id}_{'A' * 43}", f"shoe_{'b' * 10}_{'A' * 43}"):
        monkeypatch.setattr(keys_module, "hmac", _Comparer(compared := []))
        ring.find(presented)
        lengths.append([(len(given), len(kept)) for given, kept in compared])
        assert not any(presented[16:] in pair for pair in compared)

    assert lengths == [[(64, 64), (64, 64)]] * 3


class _Comparer:
    """Stands in for hmac, and remembers."""

    def __init__(self, compared):
        self._compared = compared

    def compare_digest(self, given, kept):
        self._compared.append((given, kept))
        return hmac.compare_digest(given, kept)


def test_an_expired_key_opens_nothing_from_that_second_on(path):
    """One second before, it does."""
    clock = Clock()
    key, held = create_key(path, "ana", expires_days=2, now=clock)
    ring = ring_of(path, clock)

    assert key.expires_utc == "2026-03-03T12:00:00Z"
    clock.now = NOW + timedelta(days=2, seconds=-1)
    assert ring.find(held) == key
    clock.now = NOW + timedelta(days=2)
    assert ring.find(held) is None
    assert key.state(utc_text(clock.now)) == "expired"


def test_a_revoked_key_opens_nothing_after_the_next_look(path):
    """It stays in the list."""
    _, held = create_key(path, "ana", now=lambda: NOW)
    ring = ring_of(path)
    revoke_key(path, "ana", now=lambda: NOW)

    assert ring.find(held) is not None
    assert ring.reload()
    assert ring.find(held) is None
    (kept,) = ring.keys()
    assert kept.state(utc_text(NOW)) == "revoked"


def test_after_a_rotation_both_secrets_open_until_the_grace_ends(path):
    """Then only the new one; the key is the same."""
    clock = Clock()
    key, old = create_key(path, "ana", now=clock)
    rotated, new = rotate_key(path, "ana", grace_s=3600, now=clock)
    ring = ring_of(path, clock)

    assert (rotated.id, rotated.created_utc) == (key.id, key.created_utc)
    assert ring.find(old) == ring.find(new) == rotated
    clock.now = NOW + timedelta(hours=1)
    assert ring.find(old) is None
    assert ring.find(new) == rotated


def test_an_expired_or_revoked_key_has_no_grace(path):
    """The old secret of a rotated key ends with the key."""
    clock = Clock()
    _, old = create_key(path, "ana", expires_days=1, now=clock)
    _, new = rotate_key(path, "ana", grace_s=7 * 86_400, now=clock)
    ring = ring_of(path, clock)

    clock.now = NOW + timedelta(days=1)
    assert ring.find(old) is ring.find(new) is None
    clock.now = NOW
    revoke_key(path, "ana", now=clock)
    ring.reload()
    assert ring.find(old) is ring.find(new) is None


def test_an_unchanged_file_is_not_read_again(path):
    """A changed one is, once; one that comes later, too."""
    ring = ring_of(path)
    assert not ring.reload()
    assert ring.keys() == ()

    _, held = create_key(path, "ana", now=lambda: NOW)

    assert ring.reload()
    assert ring.find(held) is not None
    assert not ring.reload()
    assert (ring.said, ring.problem) == ([], None)


def test_a_damaged_file_leaves_the_keys_as_they_were_and_is_complained_of_once(path):
    """Mended, it counts again."""
    _, held = create_key(path, "ana", now=lambda: NOW)
    whole = path.read_bytes()
    ring = ring_of(path)
    path.write_bytes(whole[:-30])

    assert [ring.reload(), ring.reload(), ring.reload()] == [False] * 3
    assert ring.find(held) is not None
    assert len(ring.said) == 1
    assert len(ring.said[0].splitlines()) == 1
    assert f"{path} is damaged" in ring.problem

    path.write_bytes(whole)
    assert ring.reload()
    assert ring.problem is None


def test_a_file_that_others_can_read_is_not_taken_until_it_is_closed_to_them(path):
    """A change of mode alone is noticed."""
    _, held = create_key(path, "ana", now=lambda: NOW)
    ring = ring_of(path)
    path.chmod(0o644)

    assert not ring.reload()
    assert ring.find(held) is not None
    assert f"chmod 600 {path}" in ring.problem
    path.chmod(0o400)
    assert ring.reload()
    assert ring.problem is None


def test_a_file_that_is_gone_leaves_no_key(path):
    """Who removes it means it; it is said, and a file that comes back counts."""
    _, held = create_key(path, "ana", now=lambda: NOW)
    ring = ring_of(path)
    kept = path.rename(path.with_name("kept"))

    assert ring.reload()
    assert ring.find(held) is None
    assert len(ring.said) == 1
    assert "is gone" in ring.problem
    kept.rename(path)
    assert ring.reload()
    assert ring.find(held) is not None


def test_a_ring_does_not_begin_with_a_damaged_file(path):
    """A gateway that would let nobody in says so at its start."""
    path.parent.mkdir()
    path.write_text("{}")
    path.chmod(0o600)

    with pytest.raises(BadValueError, match="is damaged"):
        ring_of(path)


def test_nothing_that_is_shown_has_a_secret_or_a_hash(path, caplog):
    """Not repr, not str, not the public form, not the file, not a message."""
    caplog.set_level(logging.DEBUG)
    _, old = create_key(path, "ana", now=lambda: NOW)
    key, held = rotate_key(path, "ana", grace_s=60, now=lambda: NOW)
    ring = ring_of(path)
    ring.find(held)
    secrets = (held[16:], old[16:])
    hashes = (key.secret_sha256, key.previous_sha256)
    shown = [repr(key), str(key), json.dumps(key.to_public()), repr(ring), caplog.text]
    for identity in (held, old.replace(key.id, "a" * 10)):
        with pytest.raises(BadValueError) as refusal:
            rotate_key(path.with_name("empty.json"), identity, grace_s=0)
        shown.append(str(refusal.value))

    assert not [text for text in shown for hidden in (*secrets, *hashes) if hidden in text]
    assert not [hidden for hidden in secrets if hidden in path.read_text()]
    assert set(hashes) == {sha256(secret) for secret in secrets}


def test_models_are_shell_patterns():
    """No pattern allows all; the case counts; a pattern covers the whole name."""
    key = make_key(models=("qwen3:*", "gemma"))

    assert make_key().may_use("anything")
    assert [model for model in ("qwen3:8b", "qwen3:", "gemma", "gemma3", "Qwen3:8b", "x/qwen3:8b",
                                "gemma\n", "") if key.may_use(model)] == [
        "qwen3:8b", "qwen3:", "gemma",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("scope", "opens"),
    [
        ("inference", {"inference"}),
        ("metrics", {"metrics"}),
        ("dashboard", {"dashboard"}),
        ("admin", {"admin", "dashboard"}),
    ],
)
def test_a_scope_opens_its_part_only(scope, opens):
    """But admin opens the dashboard, too."""
    key = make_key(scopes=frozenset({scope}))

    assert {s for s in ("inference", "metrics", "dashboard", "admin") if key.allows(s)} == opens


def whole_file(path):
    """Return a sound file as JSON."""
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    create_key(path, "ana", models=("a*",), now=lambda: NOW)
    return json.loads(path.read_text())


def refusal_of(path):
    """Return what is said of a file, or None where it is taken."""
    try:
        read_keys(path)
    except BadValueError as error:
        return str(error)
    return None


@IN_ONE_FOLDER
@given(cut=st.integers(0, 10_000), junk=st.binary(max_size=20))
def test_a_torn_file_is_a_refusal_of_one_line(tmp_path_factory, cut, junk):
    """Whatever stands in its place: keys or one line, never a traceback."""
    path = tmp_path_factory.getbasetemp() / "torn" / "keys.json"
    whole_file(path)
    whole = path.read_bytes()
    torn = whole[: cut % len(whole)] + junk
    path.write_bytes(torn)

    refusal = refusal_of(path)
    if torn.strip() == whole.strip():
        assert refusal is None
        return
    assert refusal.startswith(f"{path} is damaged: ")
    assert len(refusal.splitlines()) == 1


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@IN_ONE_FOLDER
@given(field=st.sampled_from(sorted(Key.__dataclass_fields__)), value=ODD)
def test_an_odd_value_is_a_refusal_that_does_not_repeat_it(tmp_path_factory, field, value):
    """The line names the field; a value may be a secret in the wrong place."""
    path = tmp_path_factory.getbasetemp() / "odd" / "keys.json"
    data = whole_file(path)
    data["keys"][0][field] = value
    path.write_text(json.dumps(data))

    refusal = refusal_of(path)
    if refusal is None:
        (key,) = read_keys(path)
        assert key.state(utc_text(NOW)) in {"active", "expired", "revoked"}
        return
    assert f"{path} is damaged: keys.0.{field}" in refusal
    assert len(refusal.splitlines()) == 1


def _put(data, **changes):
    data["keys"][0].update(changes)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data.update(version=2), "version: "),
        (lambda data: data.pop("keys"), "keys: "),
        (lambda data: data["keys"].append(data["keys"][0]), "two keys have the id "),
        (lambda data: _put(data, secret="s"), "keys.0.secret: "),
        (lambda data: _put(data, expires_utc="2026-1-1T00:00:00Z"), "keys.0.expires_utc: "),
        (lambda data: _put(data, expires_utc="2026-01-01T00:00:00+02:00"), "keys.0.expires_utc: "),
        (lambda data: _put(data, scopes=[]), "keys.0.scopes: "),
        (lambda data: _put(data, scopes=["root"]), "keys.0.scopes.0: "),
        (lambda data: _put(data, name="a\nb"), "keys.0.name: "),
        (lambda data: _put(data, limits={"concurrent": 0}), "keys.0.limits.concurrent: "),
        (lambda data: _put(data, secret_sha256="0" * 63 + "\n"), "keys.0.secret_sha256: "),
        (lambda data: _put(data, **{"x\x1b[2J\n": 1}), "keys.0.x\\x1b[2J\\n: "),
    ],
)
def test_damage_is_named(path, damage, said):
    """The field and why, in one line."""
    data = whole_file(path)
    damage(data)
    path.write_text(json.dumps(data))

    with pytest.raises(BadValueError) as refusal:
        read_keys(path)
    assert f"{path} is damaged: {said}" in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1


def test_a_folder_in_the_files_place_is_a_refusal(path):
    """And so is what its user may not read."""
    path.mkdir(parents=True)
    path.chmod(0o700)

    with pytest.raises(BadValueError, match="cannot read the keys in"):
        read_keys(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_of_another_user_is_a_refusal(path):
    """It says whose it should be."""
    create_key(path, "ana")
    path.chmod(0)

    with pytest.raises(BadValueError, match="give it to the user of the gateway"):
        read_keys(path)
