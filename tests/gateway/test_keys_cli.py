"""``shoestring keys``: the secret once and alone, lists without secrets, mistakes in one line."""

import json
import stat

import click
import pytest
from click.testing import CliRunner

from shoestring.errors import UserError
from shoestring.gateway.keys import KeyRing, read_keys
from shoestring.gateway.keys_cli import keys


@pytest.fixture
def path(tmp_path, monkeypatch):
    """The default file, in a state folder of the test's own."""
    monkeypatch.setenv("SHOESTRING_STATE", str(tmp_path))
    return tmp_path / "gateway" / "keys.json"


def call(*words):
    """Run the command; a mistake comes back as its exception."""
    return CliRunner().invoke(keys, [str(word) for word in words])


def test_the_secret_is_all_that_stdout_has(path):
    """So that a shell can take it; what it means is on stderr."""
    done = call("create", "--name", "ana")

    assert done.exit_code == 0
    held = done.stdout.removesuffix("\n")
    assert KeyRing(path, say=print).find(held) == read_keys(path)[0]
    assert "not shown again" in done.stderr
    assert held not in done.stderr
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_as_json_the_secret_stands_beside_its_key(path):
    """One object, of the form that the dashboard's interface has."""
    done = call("create", "--name", "ana", "--scope", "metrics", "--scope", "admin", "--model",
                "qwen3:*", "--requests-per-minute", 60, "--tokens-per-minute", 1000,
                "--concurrent", 2, "--budget-tokens", 5, "--budget-period", "day",
                "--expires-days", 30, "--json")  # fmt: skip
    said = json.loads(done.stdout)

    assert KeyRing(path, say=print).find(said["secret"]).id == said["key"]["id"]
    assert said["key"]["scopes"] == ["admin", "metrics"]
    assert said["key"]["models"] == ["qwen3:*"]
    assert said["key"]["limits"] == {
        "requests_per_minute": 60, "tokens_per_minute": 1000, "concurrent": 2,
        "budget_tokens": 5, "budget_period": "day",
    }  # fmt: skip
    assert said["key"]["state"] == "active"


def test_a_key_asks_for_inference_unless_told_otherwise(path):
    """All models, no limits of its own, no end."""
    call("create", "--name", "ana")
    (key,) = read_keys(path)

    assert (key.scopes, key.models, key.expires_utc) == (frozenset({"inference"}), (), None)
    assert key.limits.budget_period == "month"
    assert key.limits.requests_per_minute is None


def test_lists_have_no_secret_and_no_hash(path):
    """Neither the table nor JSON, of a list or of one key."""
    held = [call("create", "--name", "ana").stdout.strip(), call("rotate", "ana").stdout.strip()]
    (key,) = read_keys(path)
    hidden = [key.secret_sha256, key.previous_sha256, *(text[16:] for text in held)]
    for words in (("list",), ("list", "--json"), ("show", "ana"), ("show", "ana", "--json"),
                  ("revoke", "ana", "--json")):  # fmt: skip
        done = call(*words)
        assert done.exit_code == 0
        assert key.id in done.stdout
        assert not [text for text in hidden if text in done.output]


def test_the_table_says_what_each_key_may_do(path):
    """A row a key, the dead ones included."""
    call("create", "--name", "ana", "--requests-per-minute", 60, "--budget-tokens", 5000)
    call("create", "--name", "bo b", "--scope", "metrics", "--model", "gemma*", "--model", "qwen")
    call("revoke", "bo b")
    head, ana, bo = call("list").stdout.splitlines()

    assert head.split() == ["ID", "Name", "State", "Opens", "Models", "Limits", "Made", "Expires"]
    assert "ana   active   inference  all          60 requests/min, 5000 tokens/month" in ana
    assert ana.endswith("never")
    assert "bo b  revoked  metrics    gemma* qwen  as in settings" in bo
    assert [key.name for key in read_keys(path)] == ["ana", "bo b"]


def test_without_keys_the_list_says_how_to_make_one(path):
    """Nothing is made by looking."""
    done = call("list")

    assert done.stdout == f"no keys in {path}: shoestring keys create --name NAME\n"
    assert json.loads(call("list", "--json").stdout) == {"file": str(path), "keys": []}
    assert not path.parent.exists()


def test_another_file_is_used_where_it_is_named(path, tmp_path):
    """The default one is not touched."""
    other = tmp_path / "other.json"
    call("create", "--name", "ana", "--file", other)
    call("revoke", "ana", "--file", other)

    assert read_keys(other)[0].revoked_utc is not None
    assert not path.exists()


def test_a_leaked_key_is_revoked_by_itself(path):
    """Who finds one has nothing else; it is not printed again."""
    held = call("create", "--name", "ana").stdout.strip()
    done = call("revoke", held)

    assert done.exit_code == 0
    assert held[16:] not in done.output
    assert KeyRing(path, say=print).find(held) is None


def test_a_rotation_says_until_when_the_old_secret_opens(path):
    """At once, where no grace is asked for."""
    old = call("create", "--name", "ana").stdout.strip()
    done = call("rotate", "ana", "--grace-hours", 1)

    (key,) = read_keys(path)
    assert f"opens until {key.previous_until_utc}" in done.stderr
    assert f"until {key.previous_until_utc}" in call("show", "ana").stdout
    assert KeyRing(path, say=print).find(old) == key
    assert "opens nothing any more" in call("rotate", "ana", "--grace-hours", 0).stderr
    assert KeyRing(path, say=print).find(old) is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("create",), "Missing option '--name'"),
        (("create", "--name", "a\nb"), "name: give printable characters"),
        (("create", "--name", "a", "--scope", "root"), "'root' is not one of 'inference'"),
        (("create", "--name", "a", "--model", ""), "models.0: "),
        (("create", "--name", "a", "--concurrent", "0"), "'--concurrent': 0 is not in the range"),
        (("create", "--name", "a", "--budget-period", "day"), "Give --budget-tokens, too"),
        (("create", "--name", "a", "--expires-days", "0"), "'--expires-days': 0 is not in the"),
        (("revoke", "nobody"), "no key 'nobody' in "),
        (("show", "nobody"), "no key 'nobody' in "),
        (("rotate", "nobody"), "no key 'nobody' in "),
        (("rotate", "a", "--grace-hours", "721"), "'--grace-hours': 721 is not in the range"),
        (("list", "--file", "."), "'--file': File '.' is a directory"),
    ],
)
@pytest.mark.usefixtures("path")
def test_a_mistake_is_one_clear_line_of_exit_2(words, said):
    """It names what was wrong; nothing is on stdout."""
    with pytest.raises((UserError, click.UsageError)) as refusal:
        keys.main([*words], standalone_mode=False)

    line = str(refusal.value) if isinstance(refusal.value, UserError) else (
        refusal.value.format_message()
    )  # fmt: skip
    assert said in line
    assert len(line.splitlines()) == 1
    assert 2 in {getattr(refusal.value, "exit_status", None),
                 getattr(refusal.value, "exit_code", None)}  # fmt: skip


@pytest.mark.parametrize("words", [(), ("create",), ("rotate",), ("list",), ("show",), ("revoke",)])
def test_help_teaches_without_touching_anything(path, words):
    """Examples where there is more than one way."""
    done = call(*words, "--help")

    assert done.exit_code == 0
    if words in {(), ("create",)}:
        assert "Examples:\n  " in done.stdout
    assert not path.parent.exists()
