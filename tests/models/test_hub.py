import hashlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.errors import BadModelError, BadValueError, MissingError, UserError
from shoestring.models.downloads import CHUNK_BYTES
from shoestring.models.fetch import ModelFile
from shoestring.models.hub import fetch_hub_file, parse_hub_name
from shoestring.models.hub_client import read_wait_s
from shoestring.testing.hub import LocalHub, Refusal, running_hub

TOKEN = "hf_a-secret-of-mine"
REPO, FILE = "owner/repo", "q4/model.gguf"
BELOW = Path("models/hub/owner/repo/main/q4")

# Another process that fetches; it prints what is said, when it has two chunks, and the digest.
FETCHER = """
import sys
from pathlib import Path
from shoestring.models.hub import fetch_hub_file
file = fetch_hub_file("owner/repo", "q4/model.gguf", cache=Path(sys.argv[1]),
                      progress=lambda done, total: done == 2 << 20 and print("two", flush=True),
                      say=lambda line: print(line, flush=True), free_bytes=lambda folder: 10**12)
print(file.sha256, flush=True)
"""


def make_gguf(path: Path, *, fill: float, elements: int = 1_000_000) -> bytes:
    """Make a whole GGUF file of about four bytes an element."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("t", np.full(elements, fill, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


@pytest.fixture(scope="module")
def contents(tmp_path_factory) -> tuple[bytes, bytes]:
    """Two models of equal size, the second of them a later version."""
    folder = tmp_path_factory.mktemp("gguf")
    first, second = (make_gguf(folder / f"{fill}.gguf", fill=fill) for fill in (1.0, 2.0))
    assert len(first) == len(second) > 3 * CHUNK_BYTES
    return first, second


@dataclass
class User:
    """Somebody with a cache: what was said, shown and waited for."""

    cache: Path
    said: list[str] = field(default_factory=list)
    shown: list[tuple[int, int]] = field(default_factory=list)
    waited_s: list[float] = field(default_factory=list)

    def fetch(self, repo: str = REPO, file: str = FILE, **options) -> ModelFile:
        """Fetch a file of the hub."""
        given_options = {
            "progress": lambda done, total: self.shown.append((done, total)),
            "free_bytes": lambda _folder: 10**12,
        } | options
        return fetch_hub_file(
            repo, file, cache=self.cache, say=self.said.append, wait=self.waited_s.append,
            **given_options,
        )  # fmt: skip

    def left(self) -> set[str]:
        """Name what lies beside the model."""
        folder = self.cache / BELOW
        return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


@pytest.fixture(autouse=True)
def no_hub_settings(monkeypatch, tmp_path) -> None:
    """No test sees the user's token, mirror, proxy or netrc."""
    for name in os.environ:
        if name.startswith("HF_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def hub(contents, monkeypatch) -> Iterator[LocalHub]:
    """Run a hub with one repository."""
    files = {FILE: contents[0], "README.md": b"hello"}
    with running_hub({REPO: files}, small=frozenset({"small.gguf"})) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        yield running


@pytest.fixture
def user(tmp_path) -> User:
    """Give an empty cache."""
    return User(tmp_path / "c")


def refused(user: User, error: type[UserError], match: str, **options) -> str:
    """Fetch, and return the one line of the refusal."""
    with pytest.raises(error, match=match) as caught:
        user.fetch(**options)
    line = str(caught.value)
    assert "\n" not in line
    assert TOKEN not in line
    assert "signature" not in line
    return line


def test_a_file_comes_whole_with_its_sha256_beside_it(hub, user, contents):
    """The bytes are those of the hub; the digest lies beside as sha256sum writes it."""
    file = user.fetch()
    digest = hashlib.sha256(contents[0]).hexdigest()
    assert file == ModelFile(f"hf:{REPO}/{FILE}", user.cache / BELOW / "model.gguf", digest,
                             len(contents[0]))  # fmt: skip
    assert file.path.read_bytes() == contents[0]
    beside = file.path.with_name("model.gguf.sha256").read_text()
    assert beside == f"{digest}  model.gguf\n"
    assert user.left() == {"model.gguf", "model.gguf.lock", "model.gguf.sha256"}
    assert user.shown[0] == (0, len(contents[0]))
    assert user.shown[-1] == (len(contents[0]), len(contents[0]))
    assert user.shown == sorted(user.shown)
    assert [(s.server, s.method) for s in hub.seen] == [("hub", "HEAD"), ("hub", "GET"),
                                                        ("cdn", "GET")]  # fmt: skip
    assert hub.seen[1].path == f"/{REPO}/resolve/{hub.commit(REPO)}/{FILE}"


def test_a_cached_file_costs_one_question(hub, user):
    """A second use asks whether main has moved, and downloads and writes nothing."""
    first = user.fetch()
    first.path.with_name("model.gguf.lock").unlink()
    hub.seen.clear()
    assert user.fetch() == first
    assert [(s.server, s.method) for s in hub.seen] == [("hub", "HEAD")]
    assert user.said == []
    assert "model.gguf.lock" not in user.left()


def test_a_cached_file_of_a_commit_needs_nobody(hub, user, monkeypatch):
    """A commit cannot move, so the hub is not asked again."""
    pinned = f"{REPO}@{hub.commit(REPO)}"
    first = user.fetch(pinned)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert user.fetch(pinned) == first
    assert user.said == []


def test_a_branch_that_moved_is_fetched_again_in_place(hub, user, contents):
    """The new version replaces the old one; a pinned commit or tag has its own place."""
    tagged = user.fetch(f"{REPO}@v1")
    user.fetch()
    hub.repos[REPO][FILE] = contents[1]
    assert user.fetch().path.read_bytes() == contents[1]
    assert tagged.path.read_bytes() == contents[0]


def test_a_rotten_cached_file_is_fetched_again(hub, user, contents):
    """A cached file whose bytes changed is replaced; nobody takes it when offline."""
    file = user.fetch()
    file.path.write_bytes(bytes(len(contents[0])))
    assert user.fetch().path.read_bytes() == contents[0]
    assert len(hub.bodies()) == 2


def test_a_cut_download_goes_on_where_it_was(hub, user, contents):
    """After a cut only the rest is asked for, with the validator of the server that cut it."""
    hub.faults.cut_after = [2_500_000]
    assert user.fetch().path.read_bytes() == contents[0]
    first, second = hub.bodies()
    assert "range" not in first.headers
    assert second.headers["range"] == f"bytes={2 * CHUNK_BYTES}-"
    assert second.headers["if-range"] == '"cdn-1"'
    assert "if-range" not in hub.seen[3].headers  # of the hub, which redirects
    assert user.said == ["the download broke at 2.1 of 4.0 MB: going on"]
    assert user.waited_s == [1.0]


@pytest.mark.parametrize("etag", [None, 'W/"weak"'])
def test_a_cdn_without_a_strong_validator_is_resumed_by_range_alone(hub, user, contents, etag):
    """What the hub names by its digest needs no If-Range: the digest decides at the end."""
    hub.faults.cdn_etag = etag
    hub.faults.cut_after = [2_500_000]
    assert user.fetch().path.read_bytes() == contents[0]
    assert hub.bodies()[1].headers["range"] == f"bytes={2 * CHUNK_BYTES}-"
    assert "if-range" not in hub.bodies()[1].headers


@settings(max_examples=12, deadline=None)
@given(cuts=st.lists(st.integers(0, 4_000_000), max_size=4), ignore_range=st.booleans())
def test_wherever_it_is_cut_the_file_comes_whole(contents, cuts, ignore_range):
    """Up to four cuts anywhere, with and without Range, never leave wrong bytes."""
    with (
        running_hub({REPO: {FILE: contents[0]}}) as hub,
        pytest.MonkeyPatch.context() as patch,
        tempfile.TemporaryDirectory() as folder,
    ):
        patch.setenv("HF_ENDPOINT", hub.endpoint)
        hub.faults.cut_after, hub.faults.ignore_range = list(cuts), ignore_range
        assert User(Path(folder)).fetch().path.read_bytes() == contents[0]


def start_fetcher(cache: Path) -> subprocess.Popen:
    """Start a process that fetches the file."""
    return subprocess.Popen(
        [sys.executable, "-c", FETCHER, str(cache)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_killed_download_is_gone_on_with_by_the_next_process(hub, user, contents):
    """After SIGKILL in the middle the file is absent, and its bytes are not fetched again."""
    hub.faults.hold_after = 2_500_000
    killed = start_fetcher(user.cache)
    assert killed.stdout.readline() == "two\n"
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    hub.faults.go_on.set()
    assert killed.returncode == -signal.SIGKILL
    assert user.left() == {f"model.gguf.{end}" for end in ("lock", "partial", "partial.etag")}
    assert user.fetch().path.read_bytes() == contents[0]
    assert hub.bodies()[1].headers["range"] == f"bytes={2 * CHUNK_BYTES}-"
    assert user.shown[0] == (2 * CHUNK_BYTES, len(contents[0]))
    assert user.said == []


def test_two_processes_fetch_once(hub, user):
    """The second process says that it waits, then uses what the first has fetched."""
    hub.faults.hold_after = 1_500_000
    first = start_fetcher(user.cache)
    assert hub.faults.reached.wait(60)
    second = start_fetcher(user.cache)
    assert second.stdout.readline() == "waiting: another process is fetching model.gguf\n"
    hub.faults.go_on.set()
    ends = [process.communicate(timeout=60) for process in (first, second)]
    digest = hashlib.sha256((user.cache / BELOW / "model.gguf").read_bytes()).hexdigest()
    assert ends == [(f"two\n{digest}\n", ""), (f"{digest}\n", "")]
    assert len(hub.bodies()) == 1


def interrupt(hub: LocalHub, user: User) -> None:
    """Leave a partial file of two chunks, as somebody does who loses patience."""

    def stop(done: int, _total: int) -> None:
        if done >= 2 * CHUNK_BYTES:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        user.fetch(progress=stop)
    assert (user.cache / BELOW / "model.gguf.partial").stat().st_size == 2 * CHUNK_BYTES
    hub.seen.clear()


def test_a_server_that_ignores_range_is_read_from_the_start(hub, user, contents):
    """A 200 instead of a 206 starts anew, and the user is told."""
    interrupt(hub, user)
    hub.faults.ignore_range = True
    assert user.fetch().path.read_bytes() == contents[0]
    assert user.said == [f"{hub.cdn} sends the whole file again: starting anew"]


def test_a_file_that_changed_meanwhile_is_started_anew(hub, user, contents):
    """Bytes of the old version are not mixed with those of the new one."""
    interrupt(hub, user)
    hub.repos[REPO][FILE] = contents[1]
    assert user.fetch().path.read_bytes() == contents[1]
    assert "range" not in hub.bodies()[0].headers
    assert user.said == [f"the hub has another {FILE} by now: starting anew"]


def test_a_validator_is_shown_to_the_server_that_gave_it_only(hub, user, contents):
    """Another CDN would not know it, and would send everything again."""
    interrupt(hub, user)
    beside = user.cache / BELOW / "model.gguf.partial.etag"
    beside.write_text(beside.read_text().replace(hub.cdn, "http://127.0.0.1:9"))
    hub.faults.cdn_etag = '"of another server"'
    assert user.fetch().path.read_bytes() == contents[0]
    assert hub.bodies()[0].headers["range"] == f"bytes={2 * CHUNK_BYTES}-"
    assert "if-range" not in hub.bodies()[0].headers


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"digest": 1, "more": 2}'])
def test_bytes_of_unknown_origin_are_not_used(hub, user, contents, text):
    """Without a readable note of whose bytes they are, a partial file is thrown away."""
    interrupt(hub, user)
    beside = user.cache / BELOW / "model.gguf.partial.etag"
    beside.unlink() if text is None else beside.write_text(text)
    assert user.fetch().path.read_bytes() == contents[0]
    assert "range" not in hub.bodies()[0].headers


def test_a_cdn_that_has_something_else_now_sends_it_whole(hub, user, contents):
    """A validator that no longer holds gives the whole file, in the same request."""
    interrupt(hub, user)
    hub.faults.cdn_etag = '"cdn-2"'
    assert user.fetch().path.read_bytes() == contents[0]
    assert len(hub.bodies()) == 1


def test_a_partial_file_that_is_whole_is_only_checked(hub, user, contents):
    """Killed between the last byte and the move, the next run asks for no byte."""
    interrupt(hub, user)
    (user.cache / BELOW / "model.gguf.partial").write_bytes(contents[0])
    assert user.fetch().path.read_bytes() == contents[0]
    assert hub.bodies() == []


def test_a_cdn_that_lacks_the_rest_is_read_from_the_start(hub, user, contents):
    """A 416 drops what is there."""
    interrupt(hub, user)
    hub.faults.refusals = [Refusal("cdn", 416)]
    assert user.fetch().path.read_bytes() == contents[0]
    assert user.said[0] == f"{hub.cdn} has no bytes from {2 * CHUNK_BYTES} on: starting anew"


def test_a_signed_address_that_expired_is_asked_for_again(hub, user, contents):
    """A 403 of the CDN is no refusal of the hub."""
    hub.faults.refusals = [Refusal("cdn", 403)]
    assert user.fetch().path.read_bytes() == contents[0]
    assert user.waited_s == [2.0]


def test_the_token_goes_to_the_hub_only(hub, user, contents, monkeypatch):
    """The endpoint gets the token of the environment, also after a rename; the CDN none."""
    monkeypatch.setenv("HF_TOKEN", f"{TOKEN}\n")
    hub.faults.token = TOKEN
    hub.renamed["old/name"] = REPO
    hub.faults.cut_after = [2_500_000]
    assert user.fetch("old/name").path.read_bytes() == contents[0]
    assert {s.headers.get("authorization") for s in hub.seen if s.server == "hub"} == {
        f"Bearer {TOKEN}"
    }
    cdn = [s for s in hub.seen if s.server == "cdn"]
    assert len(cdn) == 2
    assert not [s for s in cdn if "authorization" in s.headers]
    assert TOKEN not in repr(user)
    stored = [p.read_bytes() for p in user.cache.rglob("*") if p.is_file()]
    assert not [b for b in stored if TOKEN.encode() in b]


@pytest.mark.parametrize("token", [None, TOKEN])
def test_a_netrc_file_is_not_looked_at(hub, user, monkeypatch, tmp_path, token):
    """Passwords of ~/.netrc neither replace the token nor go to anybody."""
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine 127.0.0.1 login me password mine\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    user.fetch()
    sent = {(s.server, s.headers.get("authorization")) for s in hub.seen}
    assert sent == {("hub", f"Bearer {token}" if token else None), ("cdn", None)}


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [({"Retry-After": "7"}, 7.0), ({"RateLimit": '"api";r=0;t=55'}, 55.0), ({}, 1.0)],
)
@pytest.mark.parametrize("server", ["hub", "cdn"])
def test_a_busy_server_is_given_the_rest_it_asks_for(hub, user, contents, server, headers, wait_s):
    """After a 429 the wait is the server's, and the user is told."""
    hub.faults.refusals = [Refusal(server, 429, headers)]
    assert user.fetch().path.read_bytes() == contents[0]
    assert user.waited_s == [wait_s]
    origin = hub.endpoint if server == "hub" else hub.cdn
    assert user.said == [f"{origin} answers 429: trying again in {wait_s:.0f} s"]


@pytest.mark.parametrize("server", ["hub", "cdn"])
def test_retries_are_bounded(hub, user, server):
    """Five times 503 are enough, with growing waits."""
    hub.faults.refusals = [Refusal(server, 503) for _ in range(9)]
    refused(user, MissingError, r"answered 503 5 times: try again later")
    assert user.waited_s == [1.0, 2.0, 4.0, 8.0]
    assert len(hub.faults.refusals) == 4


def test_a_server_that_wants_an_hour_is_not_waited_for(hub, user):
    """The user is told how long, at once."""
    hub.faults.refusals = [Refusal("hub", 429, {"Retry-After": "3600"})]
    refused(user, MissingError, "answers 429 and wants 3600 s of rest")
    assert user.waited_s == []


@given(st.dictionaries(st.sampled_from(["Retry-After", "RateLimit"]), st.text(max_size=30)))
def test_whatever_a_server_says_about_waiting_is_a_time(headers):
    """No header makes the wait negative, endless or an error."""
    assert 0 <= read_wait_s(headers, 1) < float("inf")


@pytest.mark.parametrize("token", [None, TOKEN])
def test_a_gated_model_says_what_to_accept_and_set(hub, user, monkeypatch, token):
    """The line names the page with the terms and HF_TOKEN, with and without a token."""
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    hub.faults.gated.add(REPO)
    line = refused(user, MissingError, "is gated: accept the terms")
    assert f"{hub.endpoint}/{REPO}" in line
    assert "set HF_TOKEN" in line


def test_a_token_that_the_hub_does_not_take_is_named_but_not_shown(hub, user, monkeypatch):
    """An expired token has another mend than a private repository."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.faults.token = "another"
    refused(user, MissingError, "does not take the token in HF_TOKEN")


def test_a_private_or_missing_repository_is_one_line(hub, user, monkeypatch):
    """The hub does not tell them apart without a token, so neither does the line."""
    line = refused(user, BadModelError, "no repository owner/none, or it is", repo="owner/none")
    assert line.endswith("(none is set)")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    refused(user, BadModelError, "no repository owner/none.*may read it$", repo="owner/none")
    monkeypatch.delenv("HF_TOKEN")
    hub.faults.token = "wanted"
    refused(user, BadModelError, "or it is private.*none is set")


def test_a_missing_file_is_answered_with_those_that_are_there(hub, user):
    """The five nearest GGUF files are named, and how many more there are."""
    hub.repos[REPO] |= {f"m-Q{n}_0.gguf": b"" for n in range(2, 9)}
    line = refused(user, BadModelError, "has no file m-Q4_K.gguf in main", file="m-Q4_K.gguf")
    assert "it has m-Q4_0.gguf, " in line
    assert line.endswith("and 3 more GGUF files")
    assert line.count(".gguf") == 6


def test_a_repository_without_gguf_files_says_so(hub, user):
    """Where there is nothing to offer, the mend is another repository."""
    hub.repos["owner/bare"] = {"README.md": b""}
    refused(user, BadModelError, "no GGUF file at all", repo="owner/bare")


def test_a_listing_that_fails_does_not_hide_the_error(hub, user):
    """The missing file is still what the line is about."""
    hub.faults.refusals = [Refusal("hub", 404, {"X-Error-Code": "EntryNotFound"}),
                           Refusal("hub", 500)]  # fmt: skip
    refused(user, BadModelError, r"no file q4/model.gguf in main: check the spelling .*500 once")


@pytest.mark.usefixtures("hub")
def test_a_missing_revision_is_named(user):
    """A branch that is not there is told from a file that is not there."""
    refused(user, BadModelError, "owner/repo has no revision v9", repo=f"{REPO}@v9")


def test_other_refusals_show_what_the_hub_said_without_the_token(hub, user, monkeypatch):
    """The hub's own words are shown, bounded, on one line, with the token taken out."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.faults.refusals = [Refusal("hub", 403, {"X-Error-Message": f"disabled {TOKEN} " * 40})]
    line = refused(user, MissingError, r"refuses .* with 403 \(disabled \(token\) ")
    assert len(line) < 500


def closed_port() -> int:
    """Return a port where nobody listens."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return int(closed.getsockname()[1])


def test_no_network_is_one_clear_line(user, monkeypatch):
    """The line names the endpoint, the cause, and the mend; nothing is made."""
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed_port()}")
    refused(user, MissingError, "no answer from http://127.0.0.1:.*ConnectionError.*network")
    assert not user.cache.exists()


def test_without_a_network_the_cached_file_is_used(hub, user, monkeypatch):
    """The user is told why; a hub that is out of order counts as none, and is not waited for."""
    first = user.fetch()
    hub.faults.refusals = [Refusal("hub", 503)]
    assert user.fetch() == first
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{closed_port()}")
    assert user.fetch() == first
    assert user.waited_s == []
    assert [line.split(":")[0] for line in user.said] == [f"using the cached {FILE}"] * 2


def test_offline_nobody_is_asked(hub, user, monkeypatch, contents):
    """HF_HUB_OFFLINE takes the cached file, and says so if there is none or it has rotted."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "true")
    refused(user, MissingError, "not in the cache, or not whole, and HF_HUB_OFFLINE is set")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    first = user.fetch()
    hub.seen.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert user.fetch() == first
    first.path.write_bytes(bytes(len(contents[0])))
    refused(user, MissingError, "not whole")
    assert hub.seen == []


def test_other_bytes_than_the_hub_names_are_removed(hub, user, contents):
    """A wrong digest leaves no file, and the next fetch starts from nothing."""
    hub.faults.cdn_content = contents[1]
    digest = hashlib.sha256(contents[0]).hexdigest()
    refused(user, MissingError, f"not the content that the hub names .{digest}.: it was removed")
    assert user.left() == {"model.gguf.lock"}
    hub.faults.cdn_content = None
    assert user.fetch().path.read_bytes() == contents[0]


@pytest.mark.parametrize("difference", [-1000, 1000])
def test_a_body_of_another_declared_length_is_refused(hub, user, contents, difference):
    """Nothing is read of it."""
    hub.faults.cdn_content = bytes(len(contents[0]) + difference)
    refused(user, MissingError, f"offers a file of {len(contents[0]) + difference} bytes where")
    assert user.shown == []


def test_a_rest_of_another_file_is_refused(hub, user, contents):
    """A range of a file with another size is not appended."""
    interrupt(hub, user)
    hub.faults.cdn_content = contents[0] + b"more"
    refused(user, MissingError, "sends the range .* were asked for")
    assert (user.cache / BELOW / "model.gguf.partial").stat().st_size == 2 * CHUNK_BYTES


def test_a_body_without_end_is_left_at_the_declared_size(hub, user, contents):
    """No more than the declared bytes are ever written."""
    hub.faults.cdn_content, hub.faults.undeclared = bytes(3 * len(contents[0])), True
    refused(user, MissingError, f"sends more than the declared {len(contents[0])} bytes")
    assert (user.cache / BELOW / "model.gguf.partial").stat().st_size <= len(contents[0])


def test_a_body_that_always_ends_early_is_given_up(hub, user, contents):
    """Without progress the tries are bounded, and what is there is kept."""
    short = contents[0][: 2 * CHUNK_BYTES]
    hub.faults.cdn_content, hub.faults.undeclared = short, True
    refused(user, MissingError, "broke 5 times at .*what is there is kept")
    hub.faults.cdn_content = None
    assert user.fetch().path.read_bytes() == contents[0]


def test_too_little_space_is_found_before_the_download(hub, user, contents):
    """What is there already is not asked for; only the rest must fit."""
    interrupt(hub, user)
    rest = len(contents[0]) - 2 * CHUNK_BYTES
    refused(user, MissingError, r"not enough space in .*q4 for hf:owner/repo/q4/model.gguf: 1.9 MB",
            free_bytes=lambda _folder: rest - 1)  # fmt: skip
    assert hub.bodies() == []
    assert user.fetch(free_bytes=lambda _folder: rest).path.read_bytes() == contents[0]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.usefixtures("hub")
def test_a_full_disk_is_one_clear_line(user):
    """A write that finds no space is reported as a full disk, and is not tried again."""

    def fill_up(_done: int, _total: int) -> None:
        partial = user.cache / BELOW / "model.gguf.partial"
        partial.unlink()
        partial.symlink_to("/dev/full")

    refused(user, MissingError, "the disk of .* is full", progress=fill_up)
    assert user.waited_s == []


@pytest.mark.usefixtures("hub")
def test_a_cache_that_cannot_be_made_says_which_variable_to_set(user):
    """Where the cache folder is a file, the error names SHOESTRING_CACHE."""
    user.cache.touch()
    refused(user, MissingError, "SHOESTRING_CACHE")


def test_a_file_that_is_no_model_is_not_kept(hub, user):
    """What the hub has under that name need not be a GGUF."""
    hub.repos[REPO]["text.gguf"] = b"hello" * 100
    refused(user, BadModelError, r"text.gguf came as the hub has it, but it is no GGUF",
            file="text.gguf")  # fmt: skip
    folder = user.cache / "models/hub/owner/repo/main"
    assert {path.name for path in folder.iterdir()} == {"text.gguf.lock"}


def test_a_small_file_is_checked_by_the_name_that_git_gives_it(hub, user, tmp_path):
    """Files that the hub sends itself have git's SHA-1; damage on the way is found."""
    content = make_gguf(tmp_path / "small.gguf", fill=1.0, elements=100)
    hub.repos[REPO]["small.gguf"] = content
    assert user.fetch(file="small.gguf").path.read_bytes() == content
    assert user.fetch(file="small.gguf").sha256 == hashlib.sha256(content).hexdigest()
    assert len(hub.bodies()) == 1


def test_a_hub_that_names_no_digest_is_refused(hub, user):
    """What cannot be checked is not taken."""
    hub.faults.bare = True
    refused(user, MissingError, "does not say the digest and size")


def test_a_redirect_without_end_is_left(hub, user):
    """A hub that redirects to itself is given up after some hops."""
    hub.renamed[REPO] = REPO
    refused(user, MissingError, "redirects without end")
    assert len(hub.seen) == 6


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_a_redirect_away_from_http_is_not_followed(hub, user, location):
    """The hub cannot make us read anything but HTTP."""
    hub.faults.refusals = [Refusal("hub", 302, {"Location": location})]
    refused(user, MissingError, "to nowhere")


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    "value", ["hub", "ftp://host", "http://", "http://h:port", "//x", "http://me:secret@h"]
)
def test_an_endpoint_that_is_no_address_is_refused(user, monkeypatch, value):
    """The mirror's variable is named; its value may hold a password and is not."""
    monkeypatch.setenv("HF_ENDPOINT", value)
    assert value not in refused(user, BadValueError, "HF_ENDPOINT is no address")


@pytest.mark.parametrize("value", [f"{TOKEN}\nX: y", f"{TOKEN} more", f"{TOKEN}é", f"{TOKEN}\0"])
def test_a_token_that_cannot_be_sent_is_refused(hub, user, monkeypatch, value):
    """A token with a line end or a blank is a mistake; it is not shown and goes nowhere."""
    if "\0" in value:
        value = value.replace("\0", "\x01")  # no variable can hold a zero byte
    monkeypatch.setenv("HF_TOKEN", value)
    refused(user, BadValueError, "HF_TOKEN holds characters")
    assert hub.seen == []


@pytest.mark.parametrize("file", ["m-00001-of-00003.gguf", "d/m-00002-of-00002.GGUF"])
def test_a_part_of_a_split_model_is_refused_before_it_is_fetched(hub, user, file):
    """The line says how to get a whole one."""
    refused(user, BadModelError, "parts of a split model.*llama-gguf-split --merge", file=file)
    assert hub.seen == []


def test_a_model_in_one_part_is_no_split_model():
    """A file that counts to one is whole."""
    assert parse_hub_name(REPO, "m-00001-of-00001.gguf").revision == "main"


def test_a_revision_with_a_slash_is_written_with_its_code():
    """A pull request's revision has slashes, which would end the name."""
    assert parse_hub_name(f"{REPO}@refs%2Fpr%2F1", FILE).revision == "refs%2Fpr%2F1"


@pytest.mark.parametrize(
    ("repo", "file"),
    [("owner", FILE), ("o/r/s", FILE), ("../r", FILE), ("o/..", FILE), ("o/r@", FILE),
     ("o/r@..", FILE), ("o/r@a/b", FILE), ("o/r", "m.bin"), ("o/r", "../m.gguf"),
     ("o/r", "/m.gguf"), ("o/r", "a//m.gguf"), ("o/r", "a\\m.gguf"), ("o/r", "a\nm.gguf"),
     ("o r/x", FILE), ("o/r?x", FILE)],
)  # fmt: skip
def test_a_name_that_the_hub_cannot_have_is_refused(repo, file):
    """The line shows how it is written."""
    with pytest.raises(BadModelError, match=r"write hf:OWNER/REPO/FILE\.gguf") as caught:
        parse_hub_name(repo, file)
    assert "\n" not in str(caught.value)


@given(st.text("ab./@%2F\\~-", max_size=12), st.text("ab./\\ ~", max_size=12))
def test_no_name_leads_out_of_the_cache(repo, file):
    """Whatever is asked for lies below its repository's folder, or is refused."""
    root = Path("/root-of-cache")
    try:
        name = parse_hub_name(repo, f"{file}.gguf")
    except BadModelError:
        return
    path = Path(os.path.normpath(root / name.repo / name.revision / name.file))
    assert len(path.relative_to(root).parts) >= 4
