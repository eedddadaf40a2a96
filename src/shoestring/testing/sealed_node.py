"""The whole thread of a node, as a user goes it: up, chat, run, report, down.

::

    python -m shoestring.testing.sealed_node SUITE [--page] [--requests N] [--out DIR]

To be run by :mod:`shoestring.testing.sealed`, which counts what it attempts to reach outside. What
it needs (engines, Open WebUI, model) is installed before. Prints one JSON object::

    {"answer": TEXT, "page": {"answer": TEXT, "requests_refused": {ORIGIN: N}} | null,
     "report": ..., "steps_s": {STEP: SECONDS}}

``answer`` came through Open WebUI's API; ``page`` was typed into its page in Chromium, whose
requests to other origins are what a user's own browser would do: they are counted there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoestring.engines.ollama_api import shown_name
from shoestring.errors import ShoestringError
from shoestring.stack.browser import opened_browser
from shoestring.stack.chat_page import ChatPage
from shoestring.stack.credentials import read_credentials
from shoestring.stack.node import node_folder
from shoestring.stack.open_webui.client import OpenWebUi
from shoestring.stack.readiness import ANSWER_TOKENS
from shoestring.stack.screenshots import ANSWER_LIMIT_S, PAGE_LIMIT_S, PROMPT

if TYPE_CHECKING:
    from collections.abc import Iterator

SHOESTRING = str(Path(sys.executable).with_name("shoestring"))


def main() -> int:
    """Go the thread and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suite", help="name or TOML file, as `shoestring run` takes it")
    parser.add_argument("--page", action="store_true", help="ask in the page, too")
    parser.add_argument("--requests", type=int, help="of the run; the suite's if left out")
    parser.add_argument("--out", type=Path, help="folder for the run; a temporary one if left out")
    options = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            os.environ.update(_own_folders(Path(folder)))
            said = _go(_run_words(options), options.out or Path(folder), page=options.page)
    except ShoestringError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_status
    print(json.dumps(said))
    return 0


def _own_folders(folder: Path) -> dict[str, str]:
    """Return the variables that keep the node apart from the user's, and from another one's."""
    return {"SHOESTRING_STATE": str(folder / "state"), "OLLAMA_MODELS": str(folder / "models")}


def _run_words(options: argparse.Namespace) -> list[str]:
    """Return what of the command line is for ``shoestring run``."""
    more = [] if options.requests is None else ["--requests", str(options.requests)]
    return [options.suite, *more]


def _go(run_words: list[str], out: Path, *, page: bool) -> dict[str, Any]:
    steps_s: dict[str, float] = {}
    try:
        with _timed(steps_s, "up"):
            up = _told("up")
        with _timed(steps_s, "chat"):
            model, answer = _chat(up)
        shown = None
        if page:
            with _timed(steps_s, "page"):
                shown = _chat_in_page(up, model)
        with _timed(steps_s, "run"):
            run = _told(
                "run", *run_words, "--model", f"ollama:{model}", "--base-url", up["ollama"]["url"],
                "--out", str(out),
            )  # fmt: skip
        with _timed(steps_s, "report"):
            report = _told("report", run["path"], "--html", str(out / "report.html"))
    finally:
        with _timed(steps_s, "down"):
            _shoestring("down")
    return {"answer": answer, "page": shown, "report": report, "steps_s": steps_s}


@contextmanager
def _timed(steps_s: dict[str, float], step: str) -> Iterator[None]:
    begun_s = time.monotonic()
    yield
    steps_s[step] = round(time.monotonic() - begun_s, 2)


def _told(*words: str) -> dict[str, Any]:
    """Run a command of ours and return the object that it prints."""
    said: dict[str, Any] = json.loads(_shoestring(*words, "--json"))
    return said


def _shoestring(*words: str) -> str:
    done = subprocess.run([SHOESTRING, *words], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise ShoestringError(f"shoestring {words[0]} ended with status {done.returncode}")
    return done.stdout


def _chat(up: dict[str, Any]) -> tuple[str, str]:
    """Ask through the API; return the model's name in Open WebUI, and its answer."""
    wanted = shown_name(up["model"]["name"])
    with OpenWebUi(up["open_webui"]["url"]) as client:
        client.sign_in(read_credentials(node_folder()))
        [model] = [name for name in client.models() if shown_name(name) == wanted]
        return model, client.ask(model, PROMPT, max_tokens=ANSWER_TOKENS).text


def _chat_in_page(up: dict[str, Any], model: str) -> dict[str, Any]:
    url = up["open_webui"]["url"]
    with opened_browser() as browser:
        page = browser.open_page(url, limit_s=PAGE_LIMIT_S)
        chat = ChatPage(page, url, read_credentials(node_folder()))
        chat.sign_in()
        chat.choose_model(model)
        answer = chat.ask(PROMPT, limit_s=ANSWER_LIMIT_S)
        return {"answer": answer, "requests_refused": dict(browser.refused)}


if __name__ == "__main__":
    sys.exit(main())
