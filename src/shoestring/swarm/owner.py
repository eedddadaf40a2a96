"""The owner comes first: when a machine is its owner's alone, and how much of a model it holds.

A node pauses while its machine runs on battery, or is busy with work that is not the node's::

    others' share = (busy time of all processors - time of this process and all that it started)
                    / time of all processors

:data:`BUSY_SHARE` of it for :attr:`Patience.busy_s` pauses; less than :data:`CALM_SHARE` for
:attr:`Patience.calm_s` lets it go on. Of a served GPU the same is asked of its utilisation, but
only while no session of ours computes on it, for it is told of the whole GPU; while one does, it
is memory that others took since, :data:`CARD_BYTES` or more. What is not told pauses nothing.

A pause begins no session, and holds the workers of those that are still (SIGSTOP): their memory
stays theirs, and clients go on at another node as if the worker had died.
"""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

import psutil

from shoestring.errors import BadValueError
from shoestring.hardware.host import Host
from shoestring.hardware.nvml import GpuReader
from shoestring.hardware.probes import PROBE_ERRORS, Probes
from shoestring.hardware.processes import ProcessTree, sees_all_processes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType
    from typing import Self

    from shoestring.swarm.firewall import Rules

PAUSED: Final = "paused: the owner uses the machine"
"""All that peers are told: what its owner does is nobody's business."""
LOOK_S: Final = 1.0
BUSY_SHARE: Final = 0.5
CALM_SHARE: Final = 0.25
CARD_BYTES: Final = 512 << 20
MOST_BYTES: Final = 1 << 50


@dataclass(frozen=True)
class Reading:
    """What the machine did since the reading before; None: it does not say.

    Attributes:
        on_battery: it runs on one.
        others_share: of the time of all processors, used by others than us; 0 to 1.
        card_share: of the time in which the served GPU computed, for whomever; 0 to 1.
        card_others_bytes: of its memory, held by others than us.
    """

    on_battery: bool | None = None
    others_share: float | None = None
    card_share: float | None = None
    card_others_bytes: int | None = None


@dataclass(frozen=True)
class Patience:
    """How long a machine is busy before a node pauses, and calm before it goes on."""

    busy_s: float = 5.0
    calm_s: float = 30.0


class Held(Protocol):
    """What is held still while the node pauses; a :class:`~shoestring.swarm.worker.Worker` is."""

    def pause(self) -> None:
        """Hold it still."""

    def resume(self) -> None:
        """Let it go on."""


class Machine:
    """Reads this machine; this process and all that it started are no others.

    Args:
        card: which of the GPUs that CUDA shows is served; None: none.
    """

    def __init__(self, card: int | None = None) -> None:
        self._probes = Probes()
        self._host = Host(self._probes)
        self._ours = ProcessTree(os.getpid())
        self._read_s = time.monotonic()
        self._card = card
        self._cards = None if card is None else GpuReader()

    def close(self) -> None:
        """Let the GPU's library go."""
        if self._cards is not None:
            self._cards.close()

    def read(self) -> Reading:
        """Return what happened since the call before; takes some milliseconds."""
        share, taken = self._card_use()
        return Reading(
            on_battery=self._probes.read(_on_battery, "on_battery"),
            others_share=self._others_share(),
            card_share=share,
            card_others_bytes=taken,
        )

    def _others_share(self) -> float | None:
        now_s = time.monotonic()
        passed_s, self._read_s = now_s - self._read_s, now_s
        host = self._host.read()
        self._ours.rescan()
        ours = self._ours.read()
        busy: float | None = host["cpu_percent"]
        stolen: float | None = host["steal_percent"]
        if busy is None or ours is None or passed_s <= 0:
            return None
        own_share = ours.cpu_s / passed_s / (psutil.cpu_count() or 1)
        return max(0.0, (busy - (stolen or 0.0)) / 100 - own_share)

    def _card_use(self) -> tuple[float | None, int | None]:
        if self._cards is None or self._card is None or self._card >= len(self._cards.indices):
            return None, None
        index = self._cards.indices[self._card]
        rows = self._cards.read(slow=False) or ()
        told = next((row for row in rows if row["index"] == index), None)
        if told is None:
            return None, None
        percent, used_bytes = told["utilisation_percent"], told["vram_used_bytes"]
        ours, _ = self._cards.process_bytes(self._ours.pids, sees_all=sees_all_processes())
        known = used_bytes is not None and ours is not None
        return None if percent is None else percent / 100, used_bytes - ours if known else None


class Judge:
    """Decides from readings when a node pauses, with patience both ways.

    Attributes:
        why: a node pauses; None: it does not.
    """

    def __init__(self, patience: Patience | None = None) -> None:
        self.why: str | None = None
        self._patience = patience or Patience()
        self._busy_since_s: float | None = None
        self._calm_since_s: float | None = None
        self._least_card_bytes: int | None = None

    def take(self, reading: Reading, now_s: float, *, computing: bool) -> None:
        """Take one reading.

        Args:
            reading: what the machine did.
            now_s: of any clock that goes on.
            computing: a session of ours may have used the GPU meanwhile.
        """
        busy = self._busy(reading, computing=computing)
        if busy is None:
            self._busy_since_s = None
            self._calm_since_s = now_s if self._calm_since_s is None else self._calm_since_s
            if now_s - self._calm_since_s >= self._patience.calm_s:
                self.why = None
            return
        self._calm_since_s = None
        self._busy_since_s = now_s if self._busy_since_s is None else self._busy_since_s
        if reading.on_battery or now_s - self._busy_since_s >= self._patience.busy_s:
            self.why = busy

    def _busy(self, reading: Reading, *, computing: bool) -> str | None:
        """Return what the owner does, in a few words; None: nothing that we know of."""
        limit = BUSY_SHARE if self.why is None else CALM_SHARE
        if reading.on_battery:
            return "the machine is on battery"
        if (reading.others_share or 0.0) >= limit:
            return f"other work takes {reading.others_share:.0%} of the processors"
        if not computing and (reading.card_share or 0.0) >= limit:
            return f"other work keeps the GPU busy for {reading.card_share:.0%} of the time"
        if self._others_grew(reading.card_others_bytes):
            return "other work has taken memory of the GPU"
        return None

    def _others_grew(self, others_bytes: int | None) -> bool:
        if others_bytes is None:
            return False
        least = self._least_card_bytes
        self._least_card_bytes = others_bytes if least is None else min(least, others_bytes)
        return others_bytes >= self._least_card_bytes + CARD_BYTES


class Owner:
    """Watches the machine while its ``async with`` lasts; holds workers still when it is in use.

    Args:
        read: returns a reading; called in a thread.
        say: given one line when a pause begins or ends, and one if the machine cannot be read.
        patience: both ways.
        look_s: between two readings.
        now: seconds of a clock that goes on.
    """

    def __init__(
        self,
        read: Callable[[], Reading],
        *,
        say: Callable[[str], None],
        patience: Patience | None = None,
        look_s: float = LOOK_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._say = say
        self._look_s = look_s
        self._now = now
        self._judge = Judge(patience)
        self._held: set[Held] = set()
        self._callbacks: list[Callable[[bool], None]] = []
        self._watching: asyncio.Task[None] | None = None
        self._reader: ThreadPoolExecutor | None = None
        """Of one thread of its own: the others may all wait for a disk or a name."""
        self._complained: set[str] = set()

    async def __aenter__(self) -> Self:
        self._reader = ThreadPoolExecutor(1, "owner")
        self._watching = asyncio.create_task(self._watch())
        self._watching.add_done_callback(self._tell_end)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._watching is not None
        assert self._reader is not None
        self._watching.cancel()
        await asyncio.wait({self._watching})  # how it ended was told
        self._reader.shutdown(wait=False)

    @property
    def paused(self) -> bool:
        """Whether the machine is its owner's alone now."""
        return self._judge.why is not None

    def on_change(self, callback: Callable[[bool], None]) -> None:
        """Have a function called with :attr:`paused` each time that it has changed."""
        self._callbacks.append(callback)

    @contextmanager
    def holding(self, worker: Held) -> Iterator[None]:
        """Hold a session's worker still whenever the owner uses the machine, until the block ends.

        It is not resumed at the end: whoever stops it does that.
        """
        self._held.add(worker)
        try:
            if self.paused:
                worker.pause()
            yield
        finally:
            self._held.discard(worker)

    def take(self, reading: Reading) -> None:
        """Take one reading, and do what follows from it."""
        before = self.paused
        self._judge.take(reading, self._now(), computing=bool(self._held) and not before)
        if self.paused == before:
            return
        for worker in self._held:
            try:
                (worker.pause if self.paused else worker.resume)()
            except PROBE_ERRORS as error:
                self._complain("a worker cannot be held still or let go on", error)
        for callback in self._callbacks:
            callback(self.paused)
        self._say(f"paused: {self._judge.why}" if self.paused else "the pause is over")

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                reading = await loop.run_in_executor(self._reader, self._read)
            except PROBE_ERRORS as error:
                self._complain("how busy the machine is cannot be read", error)
                reading = Reading()
            self.take(reading)
            await asyncio.sleep(self._look_s)

    def _complain(self, what: str, error: Exception) -> None:
        """Say it the first time alone."""
        if what not in self._complained:
            self._complained.add(what)
            self._say(f"{what}: {type(error).__name__}: {error}")

    def _tell_end(self, watching: asyncio.Task[None]) -> None:
        error = None if watching.cancelled() else watching.exception()
        if error is not None:
            self._say(
                f"the machine's use is not watched any more: {type(error).__name__}: {error}; "
                "start the node again"
            )


def session_rules(rules: Rules, word: Mapping[str, Any], share: float | None) -> Rules:
    """Return what one session may have: at most a share of the model that it says it is for.

    A client that overstates its model gets what ``rules`` give anyway and no more.

    Args:
        rules: of every session.
        word: that asks for this one; ``model_bytes``: all that the model takes wherever it lies,
            weights, caches and work memory, as its client has planned.
        share: of these bytes; None: the rules alone count.

    Raises:
        BadValueError: the word does not say how large the model is.
    """
    if share is None:
        return rules
    size = word.get("model_bytes")
    if type(size) is not int or not 0 < size < MOST_BYTES:
        raise BadValueError(
            f"this node holds at most {share:.0%} of a model: say its bytes as model_bytes"
        )
    most = max(1, int(size * share))
    return replace(
        rules,
        memory_bytes=min(rules.memory_bytes, most),
        device_memory_bytes=min(rules.device_memory_bytes, most),
    )


def _on_battery() -> bool | None:
    read = getattr(psutil, "sensors_battery", None)  # not on every system
    battery = None if read is None else read()
    return None if battery is None or battery.power_plugged is None else not battery.power_plugged
