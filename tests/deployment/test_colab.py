"""The Colab launcher, cell by cell, with a Colab, a tunnel and a package that play their parts."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from shoestring.stack import bootstrap

LAUNCHER = Path(__file__).parents[2] / "deployment" / "colab" / "launcher.ipynb"
CELLS = {cell["id"]: cell for cell in json.loads(LAUNCHER.read_text())["cells"]}
NODE = {"open_webui": {"user": "admin@localhost", "password_file": "/f"}}
CLOUDFLARED = """
print("INF | https://some-words.trycloudflare.com |", file=sys.stderr, flush=True)
import time
time.sleep(60)
"""


@pytest.fixture
def colab(monkeypatch):
    """What was asked of Colab."""
    asked = []
    output = SimpleNamespace(
        eval_js=lambda code: asked.append(code) or "https://8765-frame.example/",
        serve_kernel_port_as_iframe=lambda port, **_size: asked.append(("frame", port)),
    )
    drive = SimpleNamespace(mount=lambda path: asked.append(("drive", path)))
    google, package = ModuleType("google"), ModuleType("google.colab")
    package.output, package.drive = output, drive
    monkeypatch.setitem(sys.modules, "google", google)
    monkeypatch.setitem(sys.modules, "google.colab", package)
    monkeypatch.setattr("builtins.input", lambda text: asked.append(("wait", text)))
    return asked


def run(names, scope=None, **given):
    """Run some cells as one kernel does, after a parameters cell with other values."""
    scope = {} if scope is None else scope
    scope |= {"shoestring_bootstrap": bootstrap, "model": "pypi:gemma3-270m"}
    exec("".join(CELLS["parameters"]["source"]), scope)
    scope |= given
    for name in names:
        exec("".join(CELLS[name]["source"]), scope)
    return scope


PAGE = ("tunnel-open", "webui-up", "webui-frame")


def test_by_default_nothing_but_measuring(colab, play):
    """No Drive, no page, no tunnel: Colab's terms for the free tier."""
    notes = play("shoestring")
    run(("drive-mount", *PAGE))
    assert colab == []
    assert notes.read_text() == ""


def test_the_page_is_a_frame_for_the_user_alone(colab, play):
    """Through Colab's own proxy, whose address is the one more that may speak to the page."""
    notes = play("shoestring", f"print({json.dumps(NODE)!r})")
    run(PAGE, webui=True)
    assert colab[0] == "google.colab.kernel.proxyPort(8765)"
    assert colab[1] == ("frame", 8765)
    assert colab[2][0] == "wait"
    up, down = notes.read_text().splitlines()
    assert up.endswith("--webui-port 8765 --origin https://8765-frame.example --json")
    assert down == "shoestring down"


def test_a_tunnel_is_asked_for_and_leads_to_the_page_only(colab, play):
    """To Open WebUI's port, never to Ollama's; it is ended with the page."""
    notes = play("cloudflared", CLOUDFLARED)
    play("shoestring", f"print({json.dumps(NODE)!r})")
    scope = run(PAGE, tunnel="cloudflared")
    assert scope["opened"].wait(20) != 0
    tunnelled, up, down = notes.read_text().splitlines()
    assert tunnelled.endswith("--url http://127.0.0.1:8765")
    assert "11434" not in tunnelled
    assert "--origin https://some-words.trycloudflare.com" in up
    assert down == "shoestring down"
    assert [word for word, *_ in colab] == ["wait"]
    scope["opened"].stderr.close()


@pytest.mark.usefixtures("colab")
@pytest.mark.parametrize("fault", [OSError("no frame"), KeyboardInterrupt()])
@pytest.mark.parametrize("place", ["up", "frame", "input"])
def test_no_tunnel_stays_open_behind_a_failure(play, monkeypatch, place, fault):
    """Whatever fails or is interrupted once it is open; a node that came up goes down."""
    notes = play("cloudflared", CLOUDFLARED)
    play("shoestring", f"print({json.dumps(NODE)!r})")

    def fail(*_given, **_named):
        raise fault

    if place == "up":
        monkeypatch.setattr("json.loads", fail)
    elif place == "frame":
        monkeypatch.setattr(sys.modules["google.colab"].output, "serve_kernel_port_as_iframe", fail)
    else:
        monkeypatch.setattr("builtins.input", fail)
    scope = {}
    with pytest.raises(type(fault)):
        run(PAGE, scope, tunnel="cloudflared", webui=True)
    assert scope["opened"].wait(20) != 0
    scope["opened"].stderr.close()
    assert (notes.read_text().splitlines()[-1] == "shoestring down") == (place != "up")


@pytest.mark.usefixtures("colab")
def test_a_node_that_does_not_come_up_has_no_tunnel(play):
    """The command's failure is the cell's."""
    play("cloudflared", CLOUDFLARED)
    play("shoestring", "sys.exit(2)")
    scope = {}
    with pytest.raises(subprocess.CalledProcessError):
        run(PAGE, scope, tunnel="cloudflared")
    assert scope["opened"].wait(20) != 0
    scope["opened"].stderr.close()


@pytest.mark.usefixtures("colab")
def test_a_port_that_is_taken_is_not_put_on_the_internet(play):
    """Another program listens there: the tunnel would lead to it."""
    notes = play("cloudflared", CLOUDFLARED)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 8765))
        other.listen()
        with pytest.raises(RuntimeError, match="port 8765 is taken"):
            run(PAGE, tunnel="cloudflared")
    assert notes.read_text() == ""


@pytest.mark.usefixtures("colab")
def test_a_tunnel_without_an_address_is_one_line(play):
    """It ended, or the service refused it."""
    play("cloudflared")
    scope = {}
    with pytest.raises(RuntimeError, match="cloudflared ended without an address"):
        run(PAGE, scope, tunnel="cloudflared")
    scope["opened"].wait(20)
    scope["opened"].stderr.close()


def test_another_tunnel_is_refused(colab):
    """Before anything is started."""
    with pytest.raises(ValueError, match="tunnel = 'ngrok' is unknown"):
        run(PAGE, tunnel="ngrok")
    assert colab == []


def test_the_warning_stands_before_the_tunnel():
    """The prose right before the cell that opens it says what it does and what it may cost."""
    names = list(CELLS)
    before = CELLS[names[names.index("tunnel-open") - 1]]
    text = "".join(before["source"])
    assert before["cell_type"] == "markdown"
    assert "**Warning.**" in text
    assert "Ollama has no password, and its port never is" in text


def test_drive_is_mounted_on_request(colab, monkeypatch):
    """And its folder is made, which the package then knows as the one that lasts."""
    made = []
    monkeypatch.setattr(Path, "mkdir", lambda path, **_given: made.append(str(path)))
    run(["drive-mount"], drive=True)
    assert colab == [("drive", "/content/drive")]
    assert made == ["/content/drive/MyDrive/shoestring"]
