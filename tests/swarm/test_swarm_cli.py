"""The swarm as its users have it: invited, joined, listed, a model over two nodes, and mistakes."""

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager

import pytest
import requests

from shoestring.engines.launch import free_port
from shoestring.testing.engines import need_program

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(sys.platform != "linux", reason="rooms are made by Linux"),
]
MUST_END_S = 240.0
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
        """Let a command run; ended as by Ctrl-C, after which its status must be 0."""
        with subprocess.Popen(
            [*SHOESTRING, *words], env=self.environment, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as running:  # fmt: skip
            try:
                yield running
                running.send_signal(signal.SIGINT)
                assert running.wait(MUST_END_S) == 0, running.stderr.read()
            finally:
                running.kill()


@contextmanager
def serving(owner, port):
    """Run an owner's node on loopback."""
    words = ("--host", "127.0.0.1", "--port", str(port), "--memory", "1GiB", "--threads", "1")
    with owner.runs("swarm", "node", *words) as running:
        said = []
        for line in running.stderr:
            said.append(line)
            if line.startswith("serving "):
                break
        assert said[-1].startswith("serving "), said
        yield running


@pytest.mark.usefixtures("small_model")
def test_a_model_answers_over_two_invited_nodes(tmp_path):
    """From the invitation to the answer, by nothing but commands."""
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
        assert {peer["memory_bytes"] for peer in peers} == {1 << 30}
        words = ("pypi:gemma3-270m", "--context", "512", "--peer-layers", "19", "--json")
        with friend.runs("swarm", "up", *words) as running:
            told = json.loads(running.stdout.readline())
            answer = requests.post(
                f"{told['base_url']}/completions",
                json={"prompt": "The sea is", "max_tokens": 8, "temperature": 0},
                headers={"Authorization": f"Bearer {told['api_key']}"},
                timeout=MUST_END_S,
            ).json()
            assert answer["usage"]["completion_tokens"] == 8
        _, said, _ = friend.type("swarm", "remove", "one")
        assert "is removed" in said


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("join", "--name", "x"), "no invitation"),
        (("remove", "nobody"), "nobody"),
        (("node", "--device", "gpu99"), "--device gpu99"),
        (("node", "--memory", "many"), "many"),
        (("node", "--memory", "90TiB"), "--memory 90TiB"),
        (("invite", "--name", "x", "--address", "nowhere:port"), "nowhere:port"),
        (("up", "no-such-model"), "no-such-model"),
    ],
)
def test_a_mistake_gets_one_line(tmp_path, words, names):
    """It names the value, and the status is 2."""
    _, said, status = Person(tmp_path).type("swarm", *words, stdin="nonsense\n")
    last = said.strip().splitlines()[-1]
    assert (status, last[:7], "Traceback" in said) == (2, "Error: ", False)
    assert names in last
