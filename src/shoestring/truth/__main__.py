"""Run the known-truth server as a process: ``python -m shoestring.truth``.

One JSON line on stdout, ``{"base_url": "http://127.0.0.1:PORT"}``, says that it listens.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

from shoestring.errors import BadValueError, ShoestringError
from shoestring.truth.server import TruthServer, make_loop, open_listener


def main() -> int:
    """Serve until SIGTERM, SIGINT or, with ``--with-parent``, the end of stdin."""
    options = _parse_options()
    try:
        with asyncio.Runner(loop_factory=make_loop) as runner, suppress(asyncio.CancelledError):
            runner.run(_serve(options))
    except ShoestringError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m shoestring.truth", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--log", type=Path, help="file that gets one JSON line an answer")
    parser.add_argument("--cpu", type=int, help="run on this core only")
    parser.add_argument("--with-parent", action="store_true", help="end at the end of stdin")
    return parser.parse_args()


async def _serve(options: argparse.Namespace) -> None:
    if options.cpu is not None:
        _pin(options.cpu)
    with ExitStack() as stack:
        listener = stack.enter_context(open_listener(options.host, options.port))
        log = None
        if options.log is not None:
            try:
                log = stack.enter_context(options.log.open("a", encoding="utf-8"))
            except OSError as error:
                raise BadValueError(f"cannot write --log {options.log}: {error}") from error
        _end_on_signals(with_parent=options.with_parent)
        port = listener.getsockname()[1]
        host = f"[{options.host}]" if ":" in options.host else options.host
        print(json.dumps({"base_url": f"http://{host}:{port}"}), flush=True)
        await TruthServer(listener, log).serve()


def _pin(cpu: int) -> None:
    try:
        os.sched_setaffinity(0, {cpu})
    except (AttributeError, OSError, ValueError, OverflowError) as error:
        raise BadValueError(f"cannot run on --cpu {cpu}: {error}") from error


def _end_on_signals(*, with_parent: bool) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    if with_parent:
        stdin = sys.stdin.fileno()

        def end_at_eof() -> None:
            if not os.read(stdin, 4096):
                loop.remove_reader(stdin)
                task.cancel()

        loop.add_reader(stdin, end_at_eof)


if __name__ == "__main__":
    sys.exit(main())
