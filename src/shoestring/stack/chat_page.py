"""Open WebUI's page, used as a person does: signed in, a model chosen, a prompt typed.

Waiting is for what the page shows, never for time. An answer counts once the page offers to
regenerate it, Open WebUI has stored it as done and without an error, and the page, loaded anew
from what is stored, shows the same text.
The elements are those of the pinned version of Open WebUI (``stack/open_webui/requirements.in``).
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from shoestring.errors import BadValueError, MissingError, ShoestringError
from shoestring.measure.writer import utc_now
from shoestring.stack.browser import SHOWN, page_step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Locator, Page, Response

    from shoestring.stack.credentials import Credentials

SIGN_IN = "/api/v1/auths/signin"
PROMPT_FIELD = "#chat-input"
DIALOG = "[role=dialog][aria-modal=true]"
DISMISSALS = ("Okay, Let's Go!", "Close")  # the first one is remembered by Open WebUI
ERROR_TOAST = "[data-sonner-toast][data-type=error]"
MOST_DIALOGS = 5
STORED_CHAT = """id => fetch(`/api/v1/chats/${id}`, {
    headers: {authorization: `Bearer ${localStorage.token}`}
}).then(answer => answer.json())"""


@dataclass(frozen=True)
class Picture:
    """What a page showed.

    Attributes:
        png: the picture.
        path: of the page's URL.
        taken_utc: when.
    """

    png: bytes
    path: str
    taken_utc: str


class ChatPage:
    """Open WebUI in a page of the browser.

    Args:
        page: opened for Open WebUI's origin.
        url: ``http://HOST:PORT``.
        credentials: who signs in.

    Every method raises ShoestringError where the page does not do what it should.
    """

    def __init__(self, page: Page, url: str, credentials: Credentials) -> None:
        self._page = page
        self._url = url
        self._credentials = credentials

    def sign_in(self) -> None:
        """Sign in by the form.

        Raises:
            MissingError: nobody answers.
            BadValueError: the user or the password is refused.
        """
        page = self._page
        self._open("/auth")
        with self._step("sign-in"):
            page.locator("input[type=email]").fill(self._credentials.user)
            page.locator("input[type=password]").focus()
            # Not by fill(): Playwright repeats what it fills in its errors.
            page.keyboard.insert_text(self._credentials.password)
            with page.expect_response(_is_sign_in) as answered:
                page.locator("button[type=submit]").click()
            answer = answered.value
            if answer.status != HTTPStatus.OK:
                raise BadValueError(
                    f"Open WebUI at {self._url} refuses the sign-in of {self._credentials.user} "
                    f"(HTTP {answer.status}): its database has another password than the node"
                )
            page.locator(PROMPT_FIELD).wait_for()
        self._dismiss_dialogs()

    def choose_model(self, model: str) -> None:
        """Begin a new chat with a model.

        Args:
            model: the name under which Ollama lists it.
        """
        self._open(f"/?model={quote(model)}")
        with self._step(f"choosing the model {model}"):
            self._page.locator(PROMPT_FIELD).wait_for()
            self._page.get_by_role("button", name=f"Selected model: {model}", exact=True).wait_for()

    def ask(self, prompt: str, *, limit_s: float) -> str:
        """Type a prompt, send it, and wait for the end of the answer.

        Args:
            prompt: one line.
            limit_s: how long the answer may take.

        Returns:
            The answer as Open WebUI stored it: Markdown.
        """
        page = self._page
        with self._step("typing the prompt"):
            page.locator(PROMPT_FIELD).press_sequentially(prompt)
            page.locator("#send-message-button").click()
            page.wait_for_url("**/c/*")
        with self._step(f"the answer within {limit_s:g} s (a shorter one: another --prompt)"):
            self._regenerate_button().wait_for(timeout=limit_s * 1000)
        answer = self._stored_answer(prompt)
        with self._step("scrolling back to the prompt"):
            page.locator(".chat-user").last.scroll_into_view_if_needed()
        return answer

    def check_stored(self, shown: str) -> None:
        """See that the page loaded anew shows the same answer.

        Args:
            shown: what :meth:`shown_answer` returned before.
        """
        with self._step("loading the chat anew"):
            self._page.reload()
            self._regenerate_button().wait_for()
        stored = self.shown_answer()
        if stored != shown:
            raise ShoestringError(
                f"the page at {self._page.url} showed {shown[:SHOWN]!a}, but Open WebUI stored "
                f"{stored[:SHOWN]!a}"
            )

    def shown_answer(self) -> str:
        """Return the text of the answer as the page shows it."""
        with self._step("reading the answer"):
            return self._page.locator(".chat-assistant").last.inner_text()

    def picture(self) -> Picture:
        """Take a picture without dialogs, errors or secrets in it."""
        for _ in range(MOST_DIALOGS):
            self._dismiss_dialogs()
            self._refuse_unfit()
            with self._step("taking the picture"):
                png = self._page.screenshot(animations="disabled", caret="hide")
                if not self._page.locator(DIALOG).count():
                    return Picture(png, urlsplit(self._page.url).path, utc_now())
        raise ShoestringError(f"the page at {self._page.url} keeps opening dialogs")

    def _open(self, path: str) -> None:
        from playwright.sync_api import Error

        try:
            self._page.goto(self._url + path)
        except Error as error:
            raise MissingError(
                f"Open WebUI does not answer at {self._url}: shoestring status, shoestring up"
            ) from error

    def _dismiss_dialogs(self) -> None:
        """Close what opens by itself, such as the release notes after the first sign-in."""
        dialogs = self._page.locator(DIALOG)
        for _ in range(MOST_DIALOGS):
            with self._step("closing a dialog"):
                if not dialogs.count():
                    return
                dialog = dialogs.last
                self._dismissal(dialog).click()
                dialog.wait_for(state="detached")
        raise ShoestringError(f"the page at {self._page.url} keeps opening dialogs")

    @staticmethod
    def _dismissal(dialog: Locator) -> Locator:
        named = [dialog.get_by_role("button", name=name, exact=True) for name in DISMISSALS]
        return next((button for button in named if button.count()), named[-1]).first

    def _refuse_unfit(self) -> None:
        """Refuse a picture in which an error or a secret stands."""
        with self._step("looking at the page"):
            errors = self._page.locator(ERROR_TOAST).all_inner_texts()
            text = self._page.locator("body").inner_text()
            token = self._page.evaluate("localStorage.token")
        if errors:
            raise ShoestringError(f"the page at {self._page.url} shows: {_in_line(errors[0])}")
        if any(secret and secret in text for secret in (self._credentials.password, token)):
            raise ShoestringError(f"a secret stands in the page at {self._page.url}: no picture")

    def _regenerate_button(self) -> Locator:
        """Find what the page offers below the last answer once that has ended."""
        answer = self._page.locator("[id^=message-]", has=self._page.locator(".chat-assistant"))
        return answer.last.get_by_role("button", name="Regenerate", exact=True)

    def _stored_answer(self, prompt: str) -> str:
        """Return the answer that Open WebUI stored for this prompt."""
        with self._step("reading the stored chat"):
            chat = self._page.evaluate(STORED_CHAT, urlsplit(self._page.url).path.split("/")[-1])
        try:
            history = chat["chat"]["history"]
            answer = history["messages"][history["currentId"]]
            question = history["messages"][answer["parentId"]]["content"]
        except (KeyError, TypeError) as error:
            raise ShoestringError(
                f"Open WebUI did not store the chat at {self._page.url}: {_in_line(chat)}"
            ) from error
        if answer.get("error"):
            raise ShoestringError(f"Open WebUI answered with an error: {_why(answer['error'])}")
        content = str(answer.get("content") or "")
        if not answer.get("done") or not content.strip() or question != prompt:
            raise ShoestringError(
                f"Open WebUI stored no whole answer to {prompt[:SHOWN]!a} at {self._page.url}"
            )
        return content

    @contextmanager
    def _step(self, doing: str) -> Iterator[None]:
        with page_step(self._page, f"Open WebUI: {doing}"):
            yield


def _is_sign_in(response: Response) -> bool:
    return response.request.method == "POST" and urlsplit(response.url).path == SIGN_IN


def _why(error: Any) -> str:
    """Pick the words of an error that Open WebUI stored."""
    return _in_line(error.get("content") if isinstance(error, dict) else error)


def _in_line(text: Any) -> str:
    return " ".join(str(text).split())[:SHOWN]
