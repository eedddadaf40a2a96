"""How long do a token's frames wait for metering, and what follows? A part of swarm_receipts.py.

Both ends of a session's receipts are told the frames of a recorded token again and again, each in
a read of its own, in the order in which a replica at the client and a session at the node tell
them: what is done before a frame goes on (``waits_s``), and apart what is done while the worker
computes or once its answer has gone on. Windows are signed after an answer: they hold up the next
token's frames where these come sooner than that is done. ``waits_with_windows_s`` is the mean with
them; it is of one token in many that a window is signed: ``waits_at_window_s`` is the median there.
Between two tokens the caches of the processor are filled with other things, as a pass through a
model's weights does.
"""

from __future__ import annotations

import time
from collections import Counter
from statistics import fmean, median, quantiles
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from blake3 import blake3
from swarm_token import data_bytes, last_token

from shoestring.swarm.identity import load_identity
from shoestring.swarm.journal import Entry, Reply
from shoestring.swarm.proof.agreeing import Asked, Price, agreed_terms
from shoestring.swarm.proof.earning import Earner
from shoestring.swarm.proof.paying import Payer
from shoestring.swarm.proof.receipts import Hand
from shoestring.swarm.proof.steps import SETS
from shoestring.swarm.proof.windows import Counting
from shoestring.swarm.wire import COMPUTES, WITH_DATA

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from shoestring.swarm.wire import Frame
    from shoestring.testing.rpc_relay import Heard

CLEARED_BYTES: Final = 64 << 20
"""More than the caches of the processors that were measured hold for one core."""
ENDS: Final = ("client", "node")


class Ends:
    """Both ends, and the time that each spends: before frames go on, after that, and on windows.

    Args:
        folder: of the keys.
        window_steps: as agreed.

    Attributes:
        spent_s: of the last token, by ``(end, when)``.
    """

    def __init__(self, folder: Path, window_steps: int) -> None:
        client, node = (load_identity(folder / name / "identity.key") for name in ENDS)
        asked, disputes = Asked(window_steps=window_steps), list[str]()
        terms = agreed_terms(asked, Price(), session="0" * 16, client=client.id, node=node.id,
                             engine="0" * 64)  # fmt: skip
        self.spent_s: Counter[tuple[str, str]] = Counter()
        self._payer = Payer(terms, Hand(client, lambda _: None), disputes.append)
        self._earner = Earner(terms, Hand(node, lambda _: None))
        self._counting = Counting(window_steps // 2)
        self._disputes = disputes
        self._in_step = False

    def tell(self, frames: Iterable[Frame]) -> bool:
        """Have frames go through both ends, and their answers back.

        Returns:
            Whether a window was signed after that.

        Raises:
            ValueError: the ends do not agree.
        """
        self.spent_s.clear()
        told = [_told(frame) for frame in frames]
        for frame, body, entry in told:
            self._send(frame, body, entry)
            self._hear(frame, body)
        self._answer([entry for _, _, entry in told])
        is_signed = self._settle()
        if self._disputes:
            raise ValueError(self._disputes[0])
        return is_signed

    def _send(self, frame: Frame, body: bytes, entry: Entry) -> None:
        computes = frame.command in COMPUTES
        with self._timed("client", "before"):
            if self._counting.ends_before(frame, in_step=self._in_step):
                self._payer.cut(self._counting.steps)
                self._counting.end()
            if computes and self._payer.is_full:
                raise ValueError("a window is full: nothing goes on")
            self._payer.note(frame, body, entry)
        self._in_step = frame.command in SETS or (self._in_step and not computes)
        with self._timed("client", "after"):
            if self._payer.is_due:
                self._payer.catch_up()

    def _hear(self, frame: Frame, body: bytes) -> None:
        with self._timed("node", "before"):
            self._earner.note(frame._replace(head=frame.head[:]))
            if body:
                self._earner.hear(body)
        with self._timed("node", "after"):
            if self._earner.is_due:
                self._earner.catch_up()

    def _answer(self, entries: list[Entry]) -> None:
        for entry in entries:
            if entry.reply is None:
                continue
            data = bytes(data_bytes(entry.frame))
            with self._timed("node", "before"):
                self._earner.begin()
                self._earner.tell(data)
            with self._timed("node", "after"):
                if self._earner.is_due:
                    self._earner.catch_up()
            digest = blake3(data).digest()  # a chain compares answers by it, with receipts or not
            with self._timed("client", "before"):
                self._payer.answered(entry.reply, digest)

    def _settle(self) -> bool:
        with self._timed("client", "windows"):
            claim = self._payer.claim()
        if claim is None:
            return False
        with self._timed("node", "windows"):
            answer = self._earner.judge(claim)
        with self._timed("client", "windows"):
            self._payer.hear(answer)
        return True

    def _timed(self, end: str, when: str) -> _Timed:
        return _Timed(self.spent_s, (end, when))


class _Timed:
    """Adds the time of a block."""

    def __init__(self, spent_s: Counter[tuple[str, str]], key: tuple[str, str]) -> None:
        self._spent_s, self._key, self._begun_s = spent_s, key, 0.0

    def __enter__(self) -> None:
        self._begun_s = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._spent_s[self._key] += time.perf_counter() - self._begun_s  # type: ignore[assignment]


def held(heard: Heard, folder: Path, *, tokens: int, window_steps: int) -> dict[str, Any]:
    """Return what a token's frames wait for at both ends, and what is done after that, in seconds.

    Args:
        heard: a recorded session.
        folder: for keys.
        tokens: so many times its last one.
        window_steps: as agreed.
    """
    ends = Ends(folder, window_steps)
    step = last_token(heard.requests)
    ends.tell(heard.requests[: len(heard.requests) - len(step)])
    other = np.ones(CLEARED_BYTES, np.uint8)
    found: dict[tuple[str, str], list[float]] = {}
    signed = []
    for _ in range(tokens):
        other += 1
        signed.append(ends.tell(step))
        for key in ((end, when) for end in ENDS for when in ("before", "after", "windows")):
            found.setdefault(key, []).append(ends.spent_s[key])
    waits_s = [sum(found[end, "before"][token] for end in ENDS) for token in range(tokens)]
    at_window_s = [
        waits_s[token] + sum(found[end, "windows"][token] for end in ENDS)
        for token in range(tokens)
        if signed[token]
    ]
    # A window comes once in many tokens: its mean, the median would leave it out.
    reduced = {key: fmean(took_s) if key[1] == "windows" else median(took_s)
               for key, took_s in found.items()}  # fmt: skip
    windows_s = sum(took_s for (_, when), took_s in reduced.items() if when == "windows")
    return {
        "tokens": tokens, "frames": len(step), "cleared_bytes": CLEARED_BYTES,
        "waits_s": median(waits_s), "waits_p95_s": quantiles(waits_s, n=20)[-1],
        "waits_with_windows_s": fmean(waits_s) + windows_s,
        "windows": len(at_window_s),
        "waits_at_window_s": median(at_window_s) if at_window_s else None,
        "parts_s": {f"{end}, {when}": took_s for (end, when), took_s in reduced.items()},
    }  # fmt: skip


def _told(frame: Frame) -> tuple[Frame, bytes, Entry]:
    asks = frame.command in WITH_DATA
    body = b"" if asks else bytes(frame.size - len(frame.head))
    return frame, body, Entry(frame, body, reply=Reply(frame, 0.0) if asks else None)
