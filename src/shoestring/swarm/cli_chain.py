"""``shoestring swarm up`` and ``chat``: a model over this machine and peers."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from shoestring.errors import BadValueError
from shoestring.swarm.cli_words import JSON_OPTION, say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
    from contextlib import AbstractAsyncContextManager

    from shoestring.engines.protocol import Engine
    from shoestring.swarm.chain import Chain
    from shoestring.swarm.front import Front
    from shoestring.swarm.home import Home
    from shoestring.swarm.proof.paying import Paying
    from shoestring.swarm.stage import Event
    from shoestring.swarm.standing import Standing
    from shoestring.swarm.survey import Seen

FREE_S: Final = 10.0
"""How long nodes may take to end what was lost, before the next plan is made without them."""
AGAIN_S: Final = 0.5
GREET_AGAIN_S: Final = 3.0
"""For one whole greeting after a loss: open answers wait, and who was cut off never greets."""
SAID: Final = {
    "joined": "takes part",
    "ready": "knows all",
    "lost": "is lost",
    "silent": "does not answer",
    "unreachable": "gives no session",
    "rehearsed": "is sent the weights for later",
    "borrowed": "has weights from another peer",
    "not lent": "is sent weights that another peer has",
    "differs": "answers otherwise",
    "misspoken": "said what is not known here",
    "misread": "was given what nobody carried on",
    "pushes": "sends activations on",
    "disputes": "signs no receipts any more",
    "no way": "gets no activations from its neighbour",
}
ROUTINE: Final = {"joined", "ready", "rehearsed", "borrowed", "pushes"}
OPTIONS: Final = (
    click.argument("model"),
    click.option("--context", type=click.IntRange(256, 1_048_576), default=4096, show_default=True,
                 help="Tokens of each request."),
    click.option("--parallel", type=click.IntRange(1, 64), default=1, show_default=True,
                 help="Requests at once."),
    click.option("--peer-layers", type=click.IntRange(0, 1000), metavar="N",
                 help="So many layers on cards and peers, the output counted.  "
                      "[default: the fastest]"),
    click.option("--mirrors", type=click.IntRange(0, 8), default=0, show_default=True,
                 help="So many more peers hold each part; any may be lost at any time."),
    click.option("--log", "log_path", type=click.Path(path_type=Path, dir_okay=False),
                 help="Where llama-server writes."),
)  # fmt: skip


@dataclass(frozen=True)
class Wanted:
    """What the user asked for; see the options."""

    model: str
    context: int
    parallel: int
    peer_layers: int | None
    mirrors: int
    log_path: Path | None


def _chain_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(OPTIONS):
        command = option(command)
    return command


@click.command()
@_chain_options
@JSON_OPTION
def up(*, as_json: bool, **given: Any) -> None:
    """Lay MODEL over this machine and peers, and serve it on loopback until Ctrl-C.

    Prints the base URL (OpenAI's API) for `shoestring run --base-url`, a gateway, or any client,
    and the key that it takes, made for this time. Both stay when a peer is lost: another takes its
    place, or all is planned anew over who is left, and open answers go on.
    """
    asyncio.run(_up(Wanted(**given), as_json=as_json))


@click.command()
@_chain_options
@click.option("--system", help="What the model is told first.")
@click.option("--temperature", type=click.FloatRange(0, 5), help="0 takes the likeliest token.")
@click.option("--max-tokens", type=click.IntRange(1), help="Of an answer.  [default: no limit]")
@click.option("-m", "--message", help="Ask this alone.  [default: what is typed, or piped in]")
def chat(
    *,
    system: str | None,
    temperature: float | None,
    max_tokens: int | None,
    message: str | None,
    **given: Any,
) -> None:
    """Talk with MODEL over this machine and peers; each line of standard input is a question.

    Ctrl-C ends an answer, a second one the program.
    """
    how = {"system": system, "temperature": temperature, "max_tokens": max_tokens}
    asyncio.run(_chat(Wanted(**given), how, message))


async def _up(wanted: Wanted, *, as_json: bool) -> None:
    from shoestring.swarm.serving import until_told

    async with _served(wanted) as served:
        url, key = f"{served.front.url}/v1", served.front.key
        if as_json:
            click.echo(json.dumps({"base_url": url, "api_key": key}))
        else:
            click.echo(f"{url}\nSHOESTRING_API_KEY={key}")
        await _until(until_told(), served.standing.over())


async def _chat(wanted: Wanted, how: dict[str, Any], message: str | None) -> None:
    from shoestring.swarm.chat import Conversation, converse

    async with _served(wanted, _aside, briefly=True) as served:
        conversation = Conversation(served.front.url, served.front.key, **how)
        talk = converse(conversation, message=message, layers=served.chains.described, say=say)
        await _until(talk, served.standing.over())


def _aside(line: str) -> None:
    """Tell what happens during an answer, on a line of its own."""
    say(f"\n[{line}]" if sys.stdout.isatty() else line)


class Chains:
    """Makes one chain after another.

    Args:
        wanted: by the user.
        home: who this node is, and whom it knows.
        paying: for receipts of every session.
        tell: given what happens at stages.
        say: given a line for the user.
    """

    def __init__(
        self,
        wanted: Wanted,
        home: Home,
        paying: Paying,
        tell: Callable[[Event], None],
        say: Callable[[str], None],
    ) -> None:
        from shoestring.engines.outlines import find_model
        from shoestring.report.plan_machine import find_devices

        self._wanted, self._home, self._tell, self._say = wanted, home, tell, say
        self._paying = paying
        self._found = find_model(wanted.model)
        self._own, self._constants = find_devices((), say)
        self._chain: Chain | None = None

    async def plan_again(self) -> AbstractAsyncContextManager[Engine]:
        """Plan over the peers that answer now.

        Raises:
            BadValueError: it fits nowhere; at the first time also: not as it was asked for.
        """
        from shoestring.swarm.chain import running_chain

        seen = await self._survey(patiently=self._chain is not None)
        self._chain = await asyncio.to_thread(self._plan, seen)
        self._say(self.described())
        return running_chain(
            self._found.name, self._chain, self._home.identity(),
            tell=self._tell, log_path=self._wanted.log_path, paying=self._paying,
        )  # fmt: skip

    def described(self) -> str:
        """Return which layers are where."""
        assert self._chain is not None, "a plan was made"
        parts = [
            f"{placed.name}: layers {placed.layers[0]} to {placed.layers[1] - 1}"
            for placed in self._chain.plan.placed
            if placed.layers[1] > placed.layers[0]
        ]
        spares = ", ".join(one.remote.name for one in self._chain.spares)
        return "; ".join(parts) + (f"; in reserve: {spares}" if spares else "")

    async def _survey(self, *, patiently: bool) -> list[Seen]:
        """Return the peers that could begin a session; after a loss their last ones are ending."""
        from shoestring.swarm.bootstrap import LISTS_FILE, Lists
        from shoestring.swarm.discovery import find_again
        from shoestring.swarm.survey import survey

        loop = asyncio.get_running_loop()
        until_s = loop.time() + FREE_S
        while True:
            known = self._home.peers(self._say).active()
            if patiently:
                seen, failed = await survey(self._home.identity(), known, greet_s=GREET_AGAIN_S)
            else:
                look = partial(find_again, lists=Lists(self._home.folder / LISTS_FILE))
                seen, failed = await survey(self._home.identity(), known, look=look)
            if not patiently or all(one.free for one in seen) or loop.time() > until_s:
                break
            await asyncio.sleep(AGAIN_S)
        for name, error in failed.items():
            self._say(f"{name}: {error}")
        return [one for one in seen if one.free]

    def _plan(self, seen: Sequence[Seen]) -> Chain:
        """Plan as was asked for; once it stood so, with fewer mirrors and layers if need be."""
        wanted = self._wanted
        ways = [(wanted.peer_layers, wanted.mirrors)]
        if self._chain is not None:
            ways += [(wanted.peer_layers, count) for count in reversed(range(wanted.mirrors))]
            ways += [(None, 0)] if wanted.peer_layers is not None else []
        for way in ways[:-1]:
            try:
                return self._plan_so(seen, way)
            except BadValueError as error:
                self._say(f"not as before: {error}")
        return self._plan_so(seen, ways[-1])

    def _plan_so(self, seen: Sequence[Seen], way: tuple[int | None, int]) -> Chain:
        from shoestring.swarm.chain import plan_chain

        return plan_chain(
            self._found, self._own, seen, self._constants,
            context=self._wanted.context, parallel=self._wanted.parallel,
            peer_layers=way[0], mirrors=way[1],
        )  # fmt: skip


@dataclass(frozen=True)
class Served:
    """A model that stands, and where it is asked."""

    standing: Standing
    front: Front
    chains: Chains


@asynccontextmanager
async def _served(
    wanted: Wanted, say: Callable[[str], None] = say, *, briefly: bool = False
) -> AsyncIterator[Served]:
    """Let a chain stand behind a front while the block lasts; briefly: tell losses alone."""
    from shoestring.swarm.front import Front
    from shoestring.swarm.home import Home
    from shoestring.swarm.proof.agreeing import Asked
    from shoestring.swarm.proof.keeping import FOLDER, ReceiptFiles
    from shoestring.swarm.proof.paying import Paying
    from shoestring.swarm.proof.receipts import Hand
    from shoestring.swarm.standing import Standing

    def tell(event: Event) -> None:
        why = f": {event.why}" if event.why else ""
        if not (briefly and event.what in ROUTINE):
            say(f"stage {event.stage}: {event.who} {SAID.get(event.what, event.what)}{why}")
        if event.what == "silent":
            standing.doubt()

    home = Home()
    with closing(ReceiptFiles(home.folder / FOLDER, say)) as receipts:
        paying = Paying(Asked(), Hand(home.identity(), receipts.keep))
        chains = Chains(wanted, home, paying, tell, say)
        standing = Standing(chains.plan_again, tell=say)
        async with standing, Front(standing) as front:
            yield Served(standing, front, chains)


async def _until(*works: Coroutine[Any, Any, None]) -> None:
    """Wait for the first of them; its error is raised."""
    waits = {asyncio.create_task(work) for work in works}
    try:
        done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for one in done:
            await one
    finally:
        for one in waits:
            one.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
