"""SIGKILLs of a node's parts while it is measured.

One of each; ``benchmarks/node_faults.py`` makes them by the dozen, at random moments.
"""

import os
import signal
import subprocess
import sys
import threading
from collections import Counter

import psutil
import pytest
import requests

from shoestring.measure.records import REQUESTS, read_lines
from shoestring.measure.runner import run_suite
from shoestring.measure.schedule import plan_batches
from shoestring.measure.suite import load_suite
from shoestring.stack.bringing_up import bring_up
from shoestring.stack.node import OLLAMA, read_node
from shoestring.stack.taking_down import take_down
from shoestring.testing.engines import need_open_webui, need_program
from tests.stack.conftest import RunningNode, ask_for

SUITE = """
name = "node-faults"
description = "One slot, two blocks."
blocks = 2
seed = 1
[deadlines]
request_s = 240
stall_s = 120
[warmup]
minimum = 1
maximum = 1
[[case]]
name = "one"
prompt = "chat"
prompt_tokens = 32
output_tokens = 12
concurrency = 1
requests_per_block = 3
"""


@pytest.fixture(scope="module")
def own_node(tmp_path_factory):
    """A node that nobody else tests with; brought up anew by each test."""
    need_program("ollama")
    need_open_webui()
    folder, asked = tmp_path_factory.mktemp("faults") / "node", ask_for()
    try:
        yield RunningNode(folder, asked, bring_up(asked, folder, lambda _line: None))
    finally:
        take_down(folder, lambda _line: None)


@pytest.fixture
def suite(tmp_path):
    """The path of a small suite."""
    path = tmp_path / "suite.toml"
    path.write_text(SUITE)
    return str(path)


def kill_ollama(node, _harness):
    """Kill the server; its supervisor has to notice, before `up` can tell."""
    before = node.service(OLLAMA)
    os.kill(before.pid, signal.SIGKILL)
    node.wait_for(OLLAMA, lambda now: now.restarts > before.restarts and now.state == "ready")


def kill_runner(node, _harness):
    """Kill the process that computes; nobody but Ollama notices."""
    (runner,) = [
        child for child in psutil.Process(node.service(OLLAMA).pid).children(recursive=True)
        if "--port" in child.cmdline()
    ]  # fmt: skip
    runner.kill()


def kill_session(node, harness):
    """Kill supervisor, guards, services and the harness, as the end of a rented machine does."""
    supervisor = psutil.Process(read_node(node.folder).supervisor_pid)
    whole = [supervisor, *supervisor.children(recursive=True), psutil.Process(harness.pid)]
    for process in whole:
        process.kill()
    harness.wait()
    _, alive = psutil.wait_procs(whole, 30)
    assert alive == []


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kill", [kill_ollama, kill_runner, kill_session])
def test_what_is_killed_comes_back_and_the_run_lacks_nothing(kill, own_node, suite, tmp_path):
    """The node answers again, closed as before, and the resumed run has each request once."""
    own_node.up()
    model, out = f"ollama:{own_node.model}", tmp_path / "runs"
    with start_harness(suite, model, own_node.ollama_url, out) as harness:
        wait_for_row(harness, out)
        kill(own_node, harness)
        own_node.up()  # answers in Ollama and in Open WebUI, which refuses strangers, or raises
    (folder,) = out.iterdir()
    run = run_suite(suite, model=model, base_url=own_node.ollama_url, out=folder, resume=True)
    rows = [row for row in read_lines(run.path / REQUESTS)[0] if row["phase"] == "measure"]

    assert run.complete
    assert Counter(row["id"] for row in rows) == Counter(
        planned.id for batch in plan_batches(load_suite(suite)) for planned in batch.requests
    )
    assert all(row["failure"]["reason"] for row in rows if row["status"] == "failed")
    assert sign_up(own_node).status_code == 403


def start_harness(suite, model, base_url, out):
    """Measure the node in a process of its own, which its end leaves to be resumed."""
    return subprocess.Popen(
        [sys.executable, "-P", "-c", "from shoestring.cli import main; main()", "run", suite,
         "--model", model, "--base-url", base_url, "--out", str(out)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def wait_for_row(harness, out):
    """Wait until a measured row is on disk: the next request is in flight then."""
    while not any('"phase":"measure"' in path.read_text() for path in out.glob(f"*/{REQUESTS}")):
        assert harness.poll() is None, "the harness ended before its first row"
        threading.Event().wait(0.05)


def sign_up(node):
    """Try to sign up as a stranger."""
    return requests.post(
        f"{node.webui_url}/api/v1/auths/signup",
        json={"name": "x", "email": "x@example.com", "password": "long-enough-1"},
        timeout=60,
    )
