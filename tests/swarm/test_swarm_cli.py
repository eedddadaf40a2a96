"""The swarm as its users have it: invited, joined, listed, a model over two nodes, and mistakes."""

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager

import pytest
import requests

from shoestring.engines.launch import free_port
from shoestring.testing.engines import need_program
from shoestring.testing.live_server import live_server

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(sys.platform != "linux", reason="rooms are made by Linux"),
]
MUST_END_S = 240.0
MEMORY = "90MiB"
"""For half of the layers of the small model, and not for all of them."""
ASKED = {"prompt": "The sea is", "max_tokens": 24, "temperature": 0}
SHOESTRING = (sys.executable, "-c", "from shoestring.cli import main; main()")


class Person:
    """Somebody with a state folder, who types commands."""

    def __init__(self, folder):
        """Nothing is there yet."""
        self.environment = {**os.environ, "SHOESTRING_STATE": str(folder)}

    def type(self, *words, stdin=""):
        """Return what a command printed, its messages, and its status."""
        done = subprocess.run(
            [*SHOESTRING, *words], env=self.environment, input=stdin, text=True,
            capture_output=True, timeout=MUST_END_S, check=False,
        )  # fmt: skip
        return done.stdout, done.stderr, done.returncode

    @contextmanager
    def runs(self, *words):
        """Let a command run; ended as by Ctrl-C, after which its status must be 0.

        What it said and nobody had read is then in ``said``.
        """
        with subprocess.Popen(
            [*SHOESTRING, *words], env=self.environment, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as running:  # fmt: skip
            try:
                yield running
                running.send_signal(signal.SIGINT)
                _, running.said = running.communicate(timeout=MUST_END_S)
                assert running.returncode == 0, running.said
            finally:
                running.kill()


@contextmanager
def serving(owner, port, *more):
    """Run an owner's node on loopback."""
    words = (
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--memory",
        MEMORY,
        "--threads",
        "1",
        "--always",
    )
    with owner.runs("swarm", "node", *words, *more) as running:
        said = []
        for line in running.stderr:
            said.append(line)
            if line.startswith("serving "):
                break
        assert said[-1].startswith("serving "), said
        yield running


def text_alone(model, folder):
    """Return what llama-server says without anybody's help, by the kernels that a worker has.

    It lays weights out anew for some processors, which a worker does not: sums are rounded in
    another order then, and the text may be another.
    """

    def command(port):
        return (
            str(need_program("llama-server")), "-m", str(model), "--host", "127.0.0.1", "--port",
            str(port), "-c", "512", "-np", "1", "-t", "1", "--no-warmup", "--no-repack",
        )  # fmt: skip

    with live_server(command, log_path=folder / "alone.log") as server:
        return text_of(f"{server.address}/v1")


def text_of(base_url, key="none"):
    """Return the text of one completion."""
    answer = requests.post(
        f"{base_url}/completions", json=ASKED, headers={"Authorization": f"Bearer {key}"},
        timeout=MUST_END_S,
    )  # fmt: skip
    answer.raise_for_status()
    return answer.json()["choices"][0]["text"]


def test_a_model_answers_over_two_invited_nodes_as_it_does_alone(tmp_path, small_model):
    """From the invitation to the same text, by nothing but commands; both nodes have a part."""
    need_program("ggml-rpc-server")
    friend = Person(tmp_path / "friend")
    with ExitStack() as stack:
        for name in ("one", "two"):
            owner, port = Person(tmp_path / name), free_port()
            invitation, _, status = owner.type(
                "swarm", "invite", "--name", "friend", "--address", f"127.0.0.1:{port}"
            )
            assert (status, invitation.partition(":")[0]) == (0, "shoe-invite")
            stack.enter_context(serving(owner, port))
            _, said, status = friend.type("swarm", "join", "--name", name, stdin=invitation)
            assert (status, said.split(" (")[0]) == (0, f"joined {name}")
            _, said, status = friend.type("swarm", "join", "--name", "again", stdin=invitation)
            assert (status, "Traceback" in said) == (1, False)
        listed, _, _ = friend.type("swarm", "peers", "--json")
        peers = json.loads(listed)["peers"]
        assert sorted(peer["name"] for peer in peers) == ["one", "two"]
        assert {peer["memory_bytes"] for peer in peers} == {90 << 20}
        words = ("pypi:gemma3-270m", "--context", "512", "--peer-layers", "18", "--json")
        with friend.runs("swarm", "up", *words) as running:
            told = json.loads(running.stdout.readline())
            text = text_of(told["base_url"], told["api_key"])
        parts = set(re.findall(r"^stage (\d): (\w+) takes part$", running.said, re.MULTILINE))
        assert {stage for stage, _ in parts} == {"0", "1"}, running.said
        assert sorted(name for _, name in parts) == ["one", "two"], running.said
        _, said, _ = friend.type("swarm", "remove", "one")
        assert "is removed" in said
    assert len(text) > 40
    assert text == text_alone(small_model.path, tmp_path)


def test_all_peers_are_shown_whatever_they_may_do(tmp_path):
    """Who uses us, who was removed, and who is invited and has not come."""
    owner, guest = Person(tmp_path / "owner"), Person(tmp_path / "guest")
    nobody, _, status = owner.type("swarm", "peers")
    assert (status, "shoestring swarm invite" in nobody) == (0, True)
    port = free_port()
    words = ("swarm", "invite", "--address", f"127.0.0.1:{port}", "--name")
    invitation, _, _ = owner.type(*words, "guest")
    owner.type(*words, "late", "--may", "both")
    with serving(owner, port):
        guest.type("swarm", "join", "--name", "host", stdin=invitation)
    listed, said, status = owner.type("swarm", "peers")
    assert status == 0
    assert re.search(r"guest +use +\d{4}-\d\d-\d\d \d\d:\d\d +not asked", listed)
    assert re.search(r"open invitation [0-9a-f]{16} for late: serve, use, until \d{4}", said)
    assert "for guest" not in said
    owner.type("swarm", "remove", "guest")
    whole = json.loads(owner.type("swarm", "peers", "--json")[0])
    assert [(one["name"], one["state"]) for one in whole["known"]] == [("guest", "removed")]
    assert [one["name"] for one in whole["invitations"]] == ["late"]
    assert (whole["peers"], whole["silent"]) == ([], [])


def test_an_announced_node_is_nearby(tmp_path):
    """With its address; whoever is no peer is told what to do."""
    owner, guest, port = Person(tmp_path / "owner"), Person(tmp_path / "guest"), free_port()
    own_id = owner.type("swarm", "id")[0].strip()
    with serving(owner, port, "--announce") as running:
        assert running.stderr.readline().startswith("announced on the local network")
        words = ("swarm", "nearby", "--interface", "127.0.0.1")
        found, _, status = guest.type(*words)
        told = json.loads(guest.type(*words, "--json")[0])
        own = json.loads(owner.type(*words, "--json")[0])
    line = next(line for line in found.splitlines() if line.startswith(own_id))
    assert (status, f"127.0.0.1:{port}" in line, "ask its owner" in line) == (0, True, True)
    node = {"id": own_id, "addresses": [f"127.0.0.1:{port}"], "peer": None}
    assert node in told["nodes"]
    assert own_id not in {one["id"] for one in own["nodes"]}


def test_a_node_on_loopback_announces_nothing_unasked(tmp_path):
    """Nobody else could reach it."""
    owner, port = Person(tmp_path / "owner"), free_port()
    own_id = owner.type("swarm", "id")[0].strip()
    with serving(owner, port):
        found = Person(tmp_path / "guest").type("swarm", "nearby", "--interface", "127.0.0.1")[0]
    assert own_id not in found


def test_a_signed_list_goes_from_hand_to_hand(tmp_path):
    """Its reader sees whom to ask for an invitation; nobody becomes a peer by it."""
    signer, reader = Person(tmp_path / "signer"), Person(tmp_path / "reader")
    own_id = signer.type("swarm", "id")[0].strip()
    text, said, status = signer.type("swarm", "list", "sign", "--address", "a.example:7433")
    assert (status, f"--signer {own_id}" in said) == (0, True)
    use = ("swarm", "list", "use", "--signer")
    found, _, status = reader.type(*use, own_id, stdin=text)
    assert (status, found.split("  ")[:2]) == (0, [own_id, "a.example:7433"])
    assert "ask its owner" in found
    for changed, names in ((text.replace("a.example", "b.example"), "was changed"), ("", "no sig")):
        _, said, status = reader.type(*use, own_id, stdin=changed)
        assert (status, said.startswith("Error: "), names in said) == (2, True, True)
        assert len(said.splitlines()) == 1
    assert json.loads(reader.type("swarm", "peers", "--json")[0])["known"] == []


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("join", "--name", "x"), "no invitation"),
        (("remove", "nobody"), "nobody"),
        (("node", "--device", "gpu99"), "--device gpu99"),
        (("node", "--memory", "many"), "many"),
        (("node", "--memory", "90TiB"), "--memory 90TiB"),
        (("invite", "--name", "x", "--address", "nowhere:port"), "nowhere:port"),
        (("node", "--host", "no-such-host.invalid"), "no-such-host.invalid"),
        (("up", "no-such-model"), "no-such-model"),
        (("nearby", "--interface", "nowhere"), "nowhere"),
        (("list", "sign"), "--peer"),
        (("list", "sign", "--peer", "nobody"), "--peer nobody"),
        (("list", "sign", "--address", "nowhere"), "nowhere"),
        (("list", "use", "--signer", "nobody"), "nobody"),
    ],
)
def test_a_mistake_gets_one_line(tmp_path, words, names):
    """It names the value, and the status is 2."""
    _, said, status = Person(tmp_path).type("swarm", *words, stdin="nonsense\n")
    last = said.strip().splitlines()[-1]
    assert (status, last[:7], "Traceback" in said) == (2, "Error: ", False)
    assert names in last
