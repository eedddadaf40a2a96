"""Proof by pictures: the node's hardware, its Ollama, its page, and an answer in that page.

All are taken by a real Chromium in one go, of one machine; only when the last one is there are
they written, and ``index.json`` last. It names each file's sha256, so what it does not name, or
names otherwise, is no proof. Pictures of ours from an earlier machine are removed.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import struct
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from shoestring.engines.ollama_api import OllamaApi
from shoestring.errors import BadModelError, BadValueError, ShoestringError
from shoestring.hardware.machine import describe_machine
from shoestring.measure.writer import utc_now
from shoestring.models.downloads import sync, write_whole
from shoestring.stack.browser import opened_browser
from shoestring.stack.chat_page import ChatPage
from shoestring.stack.open_webui.client import OpenWebUi
from shoestring.stack.printed_pages import (
    HOST,
    NVIDIA_SMI,
    OLLAMA,
    PrintedPage,
    hardware_page,
    ollama_page,
    page_html,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from shoestring.stack.browser import SealedBrowser
    from shoestring.stack.credentials import Credentials

T = TypeVar("T")
SCHEMA_VERSION = 1
INDEX = "index.json"
PAGE, RESPONSE = "open-webui-ui.png", "model-response.png"
FILES = (NVIDIA_SMI, HOST, OLLAMA, PAGE, RESPONSE)
PROMPT = "A graphics card is useful for language models because"
"""Base models go on with it, instructed ones answer it."""
PAGE_LIMIT_S, ANSWER_LIMIT_S = 60.0, 300.0
MOST_BYTES = 300_000
PNG_SIZE = slice(16, 24)  # of the IHDR chunk, which comes first


@dataclass(frozen=True)
class Pictured:
    """The node whose pictures are taken.

    Attributes:
        ollama_url: ``http://HOST:PORT``.
        open_webui_url: likewise; None: the node has none, and the two pictures of it are missing.
        model: as Ollama knows it.
        credentials: of Open WebUI's administrator.
    """

    ollama_url: str
    open_webui_url: str | None
    model: str
    credentials: Credentials


@dataclass(frozen=True)
class Screenshot:
    """One picture, as ``index.json`` keeps it.

    Attributes:
        file: its name.
        sha256: of the file.
        width, height: in pixels.
        what: it shows, one line.
        command: that took it.
        source: ``page PATH`` of Open WebUI, or the commands and URLs whose answers it shows.
        run: the run that was measured on the node, or None.
        taken_utc: when.
        machine: platform, processor, memory and GPUs.
        versions: of chromium, ollama and open-webui.
        model: that answered; None where none did.
        prompt: that was typed.
        answer: as Open WebUI stored it.
    """

    file: str
    sha256: str
    width: int
    height: int
    what: str
    command: str
    source: str
    run: str | None
    taken_utc: str
    machine: Mapping[str, Any]
    versions: Mapping[str, str | None]
    model: str | None = None
    prompt: str | None = None
    answer: str | None = None


def take_screenshots(
    out: Path,
    node: Pictured,
    *,
    prompt: str = PROMPT,
    command: str = "shoestring screenshots",
    run: str | None = None,
    machine: Callable[[], Mapping[str, Any]] = describe_machine,
    page_limit_s: float = PAGE_LIMIT_S,
    answer_limit_s: float = ANSWER_LIMIT_S,
    say: Callable[[str], None],
) -> list[Screenshot]:
    """Take all pictures of a node that is up, then write them.

    Args:
        out: folder for the pictures and ``index.json``.
        node: what to look at.
        prompt: one line, typed into the page.
        command: as it will stand in the index; without secrets.
        run: id of the run that was measured on this node.
        machine: describes this machine.
        page_limit_s: how long the page may take for anything but the answer.
        answer_limit_s: how long the answer may take.
        say: given a line for each picture.

    Raises:
        MissingError: Chromium, Playwright, Ollama or Open WebUI does not answer.
        BadModelError: Ollama does not have the model.
        BadValueError: the prompt, the sign-in or the folder is refused.
        ShoestringError: the page shows an error; nothing was written.
    """
    if not prompt.strip() or not prompt.isprintable():
        raise BadValueError(f"the prompt {prompt[:80]!a} cannot be typed: give one line of text")
    session = _Session(node, command, run, machine(), page_limit_s, answer_limit_s, say)
    taken = _outside_event_loop(lambda: session.take(prompt))
    _write(out, taken, session.refused, say)
    return [picture for picture, _ in taken]


@dataclass
class _Session:
    """One browser, one machine, one node."""

    node: Pictured
    command: str
    run: str | None
    machine: Mapping[str, Any]
    page_limit_s: float
    answer_limit_s: float
    say: Callable[[str], None]
    refused: Mapping[str, int] = field(default_factory=dict)
    versions: dict[str, str | None] = field(default_factory=dict)

    def take(self, prompt: str) -> list[tuple[Screenshot, bytes]]:
        """Take all pictures; the page first, for then the model is loaded for the others."""
        name = self._listed_model()
        with opened_browser() as browser:
            self.refused = browser.refused
            self.versions["chromium"] = browser.version
            taken = self._take_page(browser, name, prompt)
            printed = (hardware_page(self.machine), ollama_page(self.node.ollama_url, name))
            return [self._take_printed(browser, page) for page in printed] + taken

    def _listed_model(self) -> str:
        """Return the model's name as Ollama lists it, which is the one that the page shows."""
        with OllamaApi(self.node.ollama_url) as api:
            self.versions["ollama"] = api.version()
            listed = api.listed(self.node.model)
        if listed is None:
            raise BadModelError(
                f"Ollama at {self.node.ollama_url} has no model {self.node.model}: "
                "shoestring up brings it"
            )
        return str(listed["name"])

    def _take_page(
        self, browser: SealedBrowser, model: str, prompt: str
    ) -> list[tuple[Screenshot, bytes]]:
        url = self.node.open_webui_url
        if url is None:
            self.say(f"the node has no Open WebUI: {PAGE} and {RESPONSE} are not taken")
            return []
        chat = ChatPage(
            browser.open_page(url, limit_s=self.page_limit_s), url, self.node.credentials
        )
        chat.sign_in()
        with OpenWebUi(url) as client:
            self.versions["open-webui"] = client.version()
        chat.choose_model(model)
        page = chat.picture()
        taken = self._picture(
            PAGE, page.png, what=f"Open WebUI, signed in, {model} chosen",
            source=f"page {page.path}", taken_utc=page.taken_utc,
        )  # fmt: skip
        answer = chat.ask(prompt, limit_s=self.answer_limit_s)
        shown = chat.shown_answer()
        response = chat.picture()
        chat.check_stored(shown)
        answered = self._picture(
            RESPONSE, response.png, what=f"{model} answers in Open WebUI",
            source=f"page {response.path}", taken_utc=response.taken_utc,
            model=model, prompt=prompt, answer=answer,
        )  # fmt: skip
        return [taken, answered]

    def _take_printed(self, browser: SealedBrowser, page: PrintedPage) -> tuple[Screenshot, bytes]:
        tab = browser.open_page(None, limit_s=self.page_limit_s)
        taken_utc = utc_now()
        tab.set_content(page_html(page, self.machine, taken_utc))
        png = tab.screenshot(full_page=True)
        tab.context.close()
        source = "; ".join(one.asked for one in page.printed)
        return self._picture(page.file, png, what=page.what, source=source, taken_utc=taken_utc)

    def _picture(self, file: str, png: bytes, **facts: Any) -> tuple[Screenshot, bytes]:
        if len(png) > MOST_BYTES:
            raise ShoestringError(
                f"{file} would have {len(png)} bytes, more than {MOST_BYTES}: ask for a shorter "
                "answer, or give the node's Ollama fewer models"
            )
        self.say(f"{file}: {facts['what']}")
        width, height = struct.unpack(">II", png[PNG_SIZE])
        picture = Screenshot(
            file=file, sha256=hashlib.sha256(png).hexdigest(), width=width, height=height,
            command=self.command, run=self.run, machine=_brief(self.machine),
            versions=dict(self.versions), **facts,
        )  # fmt: skip
        return picture, png


def _brief(machine: Mapping[str, Any]) -> dict[str, Any]:
    """Keep of the machine what a reader of a picture asks for."""
    return {
        "platform": machine["platform"],
        "cpu": machine["cpu"]["model"],
        "memory_bytes": machine["memory_bytes"],
        "gpus": [gpu["name"] for gpu in machine["gpus"]],
        "gpus_unavailable": machine["gpus_unavailable"],
    }


def _outside_event_loop(work: Callable[[], T]) -> T:
    """Do the work in a thread without an event loop: Playwright refuses a notebook's."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # there is none
        return work()
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()


def _write(
    out: Path,
    taken: list[tuple[Screenshot, bytes]],
    refused: Mapping[str, int],
    say: Callable[[str], None],
) -> None:
    """Write the pictures, each whole, then the index; remove ours of an earlier machine.

    Raises:
        BadValueError: the folder cannot be written.
    """
    index = {
        "schema_version": SCHEMA_VERSION,
        "outside_requests_refused": {"count": sum(refused.values()), "by_origin": dict(refused)},
        "screenshots": [asdict(picture) for picture, _ in taken],
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for picture, png in taken:
            new = out / f"{picture.file}.new"
            new.write_bytes(png)
            sync(new)
            new.replace(out / picture.file)
        write_whole(out / INDEX, json.dumps(index, indent=2, ensure_ascii=False) + "\n")
        for stale in sorted(set(FILES) - {picture.file for picture, _ in taken}):
            if (out / stale).exists():
                (out / stale).unlink()
                say(f"{stale} of an earlier machine is removed")
    except OSError as error:
        raise BadValueError(
            f"cannot write pictures into {out}: {error.strerror or error}; give another --out"
        ) from error
