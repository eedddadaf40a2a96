"""Proof by pictures: of a real node in a real browser, and no picture where something is wrong."""

import asyncio
import hashlib
import json
import struct
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from shoestring.errors import BadModelError, BadValueError, MissingError, ShoestringError
from shoestring.hardware.machine import describe_machine
from shoestring.stack.browser import opened_browser
from shoestring.stack.chat_page import ChatPage
from shoestring.stack.credentials import Credentials
from shoestring.stack.open_webui.client import OpenWebUi
from shoestring.stack.printed_pages import hardware_page, ollama_page, page_html
from shoestring.stack.screenshots import PROMPT, Pictured, take_screenshots
from shoestring.testing.faulty_page import running_faulty_page

SILENT = lambda _line: None  # noqa: E731 - what the user is told is not the matter here
SECRETS = Credentials("admin@localhost", "a-password", "a-key")
MODEL = "small:latest"
GPU = {"name": "Tesla T4", "vram_bytes": 15 << 30, "driver": "570.124.06"}

pytestmark = pytest.mark.usefixtures("chromium")


def machine(*gpus):
    """Describe this machine with other GPUs."""
    return {**describe_machine(), "gpus": list(gpus), "gpus_unavailable": None}


def program(folder, script):
    """Write a program called nvidia-smi; returns what finds it."""
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return {"nvidia-smi": str(path)}.get


def ask_and_check(chat):
    """Ask, and see that the answer was stored."""
    chat.ask("What is it?", limit_s=1.0)
    chat.check_stored(chat.shown_answer())


def index_of(out):
    """Read the index."""
    return json.loads((out / "index.json").read_text())


@pytest.fixture(scope="module")
def taken(node, tmp_path_factory):
    """The pictures of a real node, and the command lines of all processes meanwhile."""
    out = tmp_path_factory.mktemp("pictures")
    pictured = Pictured(node.ollama_url, node.webui_url, node.model, node.credentials)
    lines = []

    def look(_line):
        for process in psutil.process_iter(["cmdline"]):
            lines.extend(process.info["cmdline"] or [])

    pictures = take_screenshots(
        out, pictured, run="a-run", machine=lambda: {**machine(), "gpus_unavailable": "none here"},
        say=look,
    )  # fmt: skip
    return out, pictures, lines


@pytest.fixture(scope="module")
def browser():
    """One Chromium for all faults."""
    with opened_browser() as opened:
        yield opened


@pytest.fixture
def faulty():
    """A page with faults."""
    with running_faulty_page() as page:
        yield page


@pytest.fixture
def chat(browser, faulty):
    """The faulty page in a browser; not yet signed in."""
    page = browser.open_page(faulty.url, limit_s=5.0)
    yield ChatPage(page, faulty.url, SECRETS)
    page.context.close()


def test_the_four_pictures_are_whole(taken):
    """Each file is the PNG that the index names, as large as the page, and small enough to keep."""
    out, pictures, _ = taken

    assert [picture.file for picture in pictures] == [
        "host-hardware.png", "ollama-running.png", "open-webui-ui.png", "model-response.png",
    ]  # fmt: skip
    for picture in pictures:
        png = (out / picture.file).read_bytes()
        size = struct.unpack(">II", png[16:24])
        assert hashlib.sha256(png).hexdigest() == picture.sha256
        assert size == (picture.width, picture.height)
        assert size[0] == 1280
        assert size[1] >= 800
        assert len(png) < 300_000
    assert {path.name for path in out.iterdir()} == {"index.json", *(p.file for p in pictures)}


def test_the_index_says_what_each_picture_is(taken):
    """Machine, versions, run, time and source stand beside each file."""
    out, pictures, _ = taken
    kept = index_of(out)["screenshots"]

    assert [one["sha256"] for one in kept] == [picture.sha256 for picture in pictures]
    for one in kept:
        assert one["run"] == "a-run"
        assert one["machine"]["gpus_unavailable"] == "none here"
        assert set(one["versions"]) == {"chromium", "ollama", "open-webui"}
    assert kept[-1]["source"].startswith("page /c/")


def test_the_answer_is_the_one_that_open_webui_stored(node, taken):
    """The chat in the index is found in Open WebUI, with the same prompt and answer."""
    _, pictures, _ = taken
    response = pictures[-1]
    with OpenWebUi(node.webui_url) as client:
        client.sign_in(node.credentials)
        chat = client._get(f"/api/v1/chats/{response.source.split('/')[-1]}")["chat"]
    said = chat["history"]["messages"].values()

    assert {one["role"]: one["content"] for one in said} == {
        "user": PROMPT,
        "assistant": response.answer,
    }
    assert response.answer.strip()


def test_the_real_page_asks_nobody_else(taken):
    """Not one request of the page goes to another origin than the node's."""
    out, _, _ = taken

    assert index_of(out)["outside_requests_refused"] == {"count": 0, "by_origin": {}}


def test_the_password_stands_nowhere(node, taken):
    """Neither the index nor any command line holds it."""
    out, _, command_lines = taken

    assert command_lines
    assert not any(node.credentials.password in line for line in command_lines)
    assert node.credentials.password not in (out / "index.json").read_text()


def test_an_earlier_machines_pictures_do_not_stay(node, tmp_path):
    """Without Open WebUI two pictures are taken, and a stale nvidia-smi.png is removed."""
    for name in ("nvidia-smi.png", "model-response.png", "mine.png"):
        (tmp_path / name).write_bytes(b"stale")
    told = []
    take_screenshots(
        tmp_path, Pictured(node.ollama_url, None, node.model, SECRETS), machine=machine,
        say=told.append,
    )  # fmt: skip

    assert {path.name for path in tmp_path.iterdir()} == {
        "host-hardware.png", "ollama-running.png", "index.json", "mine.png",
    }  # fmt: skip
    assert "nvidia-smi.png of an earlier machine is removed" in told


def test_a_notebooks_event_loop_is_no_hindrance(node, tmp_path):
    """Called from a thread with a running event loop the pictures are taken all the same."""
    pictured = Pictured(node.ollama_url, None, node.model, SECRETS)

    async def cell():
        return take_screenshots(tmp_path, pictured, say=SILENT)

    # In a thread of its own: this one may hold the browser of other tests, a loop as well.
    with ThreadPoolExecutor(1) as thread:
        pictures = thread.submit(lambda: asyncio.run(cell())).result()

    assert len(pictures) == 2


def test_a_model_that_ollama_lacks_is_no_picture(node, tmp_path):
    """The model is asked for first; nothing is written."""
    out = tmp_path / "out"
    with pytest.raises(BadModelError, match="has no model nope"):
        take_screenshots(
            out, Pictured(node.ollama_url, node.webui_url, "nope", SECRETS), say=SILENT
        )

    assert not out.exists()


@pytest.mark.parametrize("prompt", ["", " ", "two\nlines", "a\tb"])
def test_a_prompt_that_cannot_be_typed_is_refused(tmp_path, prompt):
    """Enter would send it, and Tab would leave the field."""
    pictured = Pictured("http://127.0.0.1:9", None, "m", SECRETS)
    with pytest.raises(BadValueError, match="cannot be typed"):
        take_screenshots(tmp_path, pictured, prompt=prompt, say=SILENT)


def test_an_ollama_that_does_not_answer_is_named(tmp_path):
    """Nobody at the address: one line, no picture."""
    pictured = Pictured("http://127.0.0.1:9", None, "m", SECRETS)
    with pytest.raises(MissingError, match=r"Ollama does not answer at http://127\.0\.0\.1:9"):
        take_screenshots(tmp_path, pictured, say=SILENT)

    assert list(tmp_path.iterdir()) == []


def test_nvidia_smi_is_what_the_program_prints(tmp_path):
    """Where there is a GPU the page holds the program's output, unchanged."""
    page = hardware_page(machine(GPU), which=program(tmp_path, "echo '| 0  Tesla T4 <1> |'"))

    assert page.file == "nvidia-smi.png"
    assert [one.answer for one in page.printed] == ["| 0  Tesla T4 <1> |"]
    assert "| 0  Tesla T4 &lt;1&gt; |" in page_html(page, machine(GPU), "2026-11-21T00:00:00Z")


@pytest.mark.parametrize(
    ("gpus", "script", "said"),
    [
        ((), "echo false", "NVML lists no GPU"),
        (
            (GPU,),
            "echo NVIDIA-SMI has failed; exit 9",
            "the program nvidia-smi is not here, or fails",
        ),
        ((GPU,), "exit 0", "the program nvidia-smi is not here, or fails"),
        ((GPU,), None, "the program nvidia-smi is not here, or fails"),
    ],
)
def test_there_is_never_a_false_nvidia_smi(tmp_path, gpus, script, said):
    """Without a GPU, or without the program's output, the machine is shown and the reason."""
    which = program(tmp_path, script) if script else {}.get
    page = hardware_page(machine(*gpus), which=which)

    assert page.file == "host-hardware.png"
    assert f"This is not the output of nvidia-smi: {said}." in page.printed[0].answer


def test_ollama_is_shown_by_its_own_answers(node):
    """Version, models and what is in memory, each under the URL that was asked."""
    page = ollama_page(node.ollama_url, node.model)
    asked = [one.asked for one in page.printed]

    assert asked[:3] == [
        f"GET {node.ollama_url}/api/{path}" for path in ("version", "tags", "ps")
    ]  # fmt: skip
    assert node.model in page.printed[1].answer


def test_an_answer_is_read_and_checked(chat, faulty):
    """The prompt that was typed comes to the server, and its answer back, after any dialog."""
    faulty.show(shown="<div role='dialog' aria-modal='true'><button aria-label='Close' "
                      "onclick='this.parentNode.remove()'></button></div>")  # fmt: skip
    chat.sign_in()
    faulty.show(shown="")
    chat.choose_model(MODEL)
    answer = chat.ask("What is it?", limit_s=5.0)
    shown = chat.shown_answer()
    chat.check_stored(shown)

    assert (faulty.typed, answer) == ("What is it?", "a **bold** answer")
    assert chat.picture().path == "/c/c1"


def test_a_refused_sign_in_is_the_users_to_mend(chat, faulty):
    """The status is named, the password is not."""
    faulty.show(refuses=True)
    with pytest.raises(BadValueError, match="refuses the sign-in of admin@localhost") as refused:
        chat.sign_in()

    assert SECRETS.password not in str(refused.value)


def test_a_page_that_does_not_answer_is_named(browser):
    """Nobody at the address: one line with the mend."""
    url = "http://127.0.0.1:9"
    with pytest.raises(MissingError, match=f"does not answer at {url}: shoestring status"):
        ChatPage(browser.open_page(url, limit_s=5.0), url, SECRETS).sign_in()


def test_a_model_that_the_page_does_not_offer_is_named(browser, faulty):
    """The page's own label decides whether the model is chosen."""
    chat = ChatPage(browser.open_page(faulty.url, limit_s=0.5), faulty.url, SECRETS)
    with pytest.raises(ShoestringError, match="choosing the model other:latest failed"):
        chat.choose_model("other:latest")


@pytest.mark.parametrize(
    ("faults", "said"),
    [
        ({"stored": {"error": {"content": "no tools"}}}, "answered with an error: no tools"),
        ({"stored": {"content": ""}}, "stored no whole answer"),
        ({"stored": {"done": False}}, "stored no whole answer"),
        ({"stored": {"parentId": "9"}}, "did not store the chat"),
        ({"ends": False}, "the answer within 1 s"),
        ({"later": "another answer"}, "stored 'another answer'"),
    ],
)
def test_a_faulty_answer_is_no_picture(chat, faulty, faults, said):
    """An error, an empty, unfinished, endless or otherwise stored answer is an error."""
    faulty.show(**faults)
    chat.sign_in()
    chat.choose_model(MODEL)
    with pytest.raises(ShoestringError, match=said):
        ask_and_check(chat)


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        ("<p data-sonner-toast data-type='error'>Server\nlost</p>", "shows: Server lost"),
        ("<p>a-password</p>", "a secret stands in the page"),
        ("<p>a-token</p>", "a secret stands in the page"),
        ("<p role='dialog' aria-modal='true'><button aria-label='Close'></button></p>", "dialog"),
    ],
)
def test_an_unfit_page_is_no_picture(browser, faulty, shown, said):
    """Errors, secrets and dialogs that stay open are in no picture."""
    page = browser.open_page(faulty.url, limit_s=1.0)
    chat = ChatPage(page, faulty.url, SECRETS)
    chat.sign_in()
    faulty.show(shown=shown)
    page.reload()
    with pytest.raises(ShoestringError, match=said):
        chat.picture()
