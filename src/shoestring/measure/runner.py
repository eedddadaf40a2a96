"""Run a suite and keep a record of it; go on where a cut run stopped."""

from __future__ import annotations

import resource
import secrets
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoestring.engines.opening import check_engine, make_engine
from shoestring.engines.transport import Cancellation
from shoestring.errors import (
    BadRunError,
    BadValueError,
    DiskFullError,
    EngineLostError,
    InterruptedRunError,
    ShoestringError,
)
from shoestring.measure import records
from shoestring.measure.interrupts import REASON as INTERRUPTED
from shoestring.measure.interrupts import orderly_interrupts
from shoestring.measure.loop import Stop
from shoestring.measure.progress import RunProgress
from shoestring.measure.records import Run, read_object, read_run
from shoestring.measure.schedule import plan_batches
from shoestring.measure.session import Session
from shoestring.measure.suite import Suite, load_suite
from shoestring.measure.writer import RunWriter, utc_now

if TYPE_CHECKING:
    from shoestring.engines.protocol import Engine
    from shoestring.models.facts import ModelFacts
    from shoestring.models.fetch import ModelFile

DEFAULT_OUT = Path("results/local")
LOG = "engine.log"
SPARE_FILES = 64
"""Files that are open beside the sockets of the requests in flight."""


@dataclass(frozen=True)
class Subject:
    """What is measured: a model, and the engine that answers for it."""

    model: str
    engine: str
    base_url: str | None
    file: ModelFile | None
    facts: ModelFacts | None

    def model_json(self) -> dict[str, Any]:
        """Return the model as ``config.json`` holds it; null where the server does not tell."""
        facts, file = self.facts, self.file
        return {
            "name": self.model,
            "sha256": file.sha256 if file else None,
            "file_bytes": file.file_bytes if file else None,
            "architecture": facts.architecture if facts else None,
            "parameters": facts.parameters if facts else None,
            "quantisation": facts.quantisation if facts else None,
            "context_length": facts.context_length if facts else None,
            "layers": facts.layers if facts else None,
        }

    def make_engine(self, suite: Suite, log_path: Path | None) -> Engine:
        """Make the engine with room for the suite's longest and most parallel requests."""
        return make_engine(
            self.model,
            base_url=self.base_url,
            file=self.file,
            facts=self.facts,
            context=suite.max_context,
            parallel=suite.max_concurrency,
            log_path=log_path,
        )


def run_suite(
    suite: str,
    *,
    model: str,
    engine: str = "auto",
    base_url: str | None = None,
    out: Path | str = DEFAULT_OUT,
    resume: bool = False,
    concurrency: int | None = None,
    requests: int | None = None,
    deadline_s: float | None = None,
    progress: RunProgress | None = None,
) -> Run:
    """Measure a model with a suite and return the run that was recorded.

    Args:
        suite: a built-in suite's name, or the path of a TOML file.
        model: ``pypi:NAME`` or ``file:PATH``; with ``base_url`` the server's own id.
        engine: ``auto``, ``embedded`` or ``openai``.
        base_url: of a server that speaks the OpenAI protocol.
        out: the folder that gets the run's folder; with ``resume`` it may be the run itself.
        resume: go on with the newest cut run of the same suite, model and engine in ``out``; a new
            run is begun where there is none.
        concurrency: use this one in every case instead of the suite's.
        requests: send so many in all, dealt evenly over blocks and cases.
        deadline_s: end the session after so many seconds, incomplete, to be resumed.
        progress: where to show how far it is.

    Raises:
        UserError: something cannot be used; nothing was written.
        InterruptedRunError: a signal ended it; the rows are safe and it can be resumed.
    """
    progress = progress or RunProgress()
    chosen = _adapted(load_suite(suite), concurrency, deadline_s)
    subject = _find_subject(model, check_engine(engine, base_url), base_url)
    config = _config(chosen, subject, requests)
    found = _find_cut_run(Path(out), config, progress) if resume else None
    if found is not None and _is_complete(found):
        progress.step(f"{found} is complete: nothing is left to do")
        return read_run(found)
    _check_file_limit(chosen)
    with _open_writer(found, Path(out), config, progress) as writer:
        _run_session(writer, chosen, subject, progress, requests)
        return read_run(writer.path)


def _run_session(
    writer: RunWriter, suite: Suite, subject: Subject, progress: RunProgress, requests: int | None
) -> None:
    """Run one session and write the manifest, whatever ended it.

    Raises:
        ShoestringError: what ended it early; the rows so far are safe.
    """
    cancellation = Cancellation()
    stop = Stop(cancellation)
    engine = subject.make_engine(suite, writer.path / LOG)
    batches = plan_batches(suite, requests)
    session = Session(writer, suite, batches, engine, progress, stop, cancellation)
    with orderly_interrupts(stop, progress.step):
        try:
            session.run()
        except InterruptedRunError:
            stop.ask(INTERRUPTED)
        except ShoestringError as error:
            stop.ask(_reason(error), error)
        except OSError as error:
            mend = f"cannot write or start what the run needs: {error}; go on with --resume"
            stop.ask("operating system error", ShoestringError(mend))
        stop.closing = True
        try:
            complete = writer.finish(stop.reason) == "complete"
        except DiskFullError as full:
            raise stop.error or full from full
    if stop.error is not None:
        raise stop.error
    if stop.reason == INTERRUPTED and not complete:
        raise InterruptedRunError(
            f"interrupted: {len(writer.done)} of {len(writer.config['requests'])} rows are in "
            f"{writer.path}; go on with --resume"
        )


def _reason(error: ShoestringError) -> str:
    """Name an error for the manifest: short, and without the paths of this machine."""
    if isinstance(error, DiskFullError):
        return "disk full"
    return "engine lost" if isinstance(error, EngineLostError) else "a part was missing"


def _check_file_limit(suite: Suite) -> None:
    """Refuse a concurrency for which this process may not open enough sockets."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = suite.max_concurrency + SPARE_FILES
    if allowed != resource.RLIM_INFINITY and allowed < needed:
        raise BadValueError(
            f"concurrency {suite.max_concurrency} needs {needed} open files and {allowed} are "
            f"allowed: ulimit -n {needed}, or a smaller --concurrency"
        )


def _find_subject(model: str, engine: str, base_url: str | None) -> Subject:
    if engine == "openai":
        # Before anything is written: does anybody answer there, and take the key?
        with make_engine(model, base_url=base_url):
            return Subject(model, engine, base_url, None, None)
    from shoestring.models.facts import read_facts
    from shoestring.models.fetch import resolve_model
    from shoestring.models.progress import ProgressBar
    from shoestring.paths import cache_dir

    with ProgressBar(f"fetching {model}") as bar:
        file = resolve_model(model, cache=cache_dir(), progress=bar.update)
    return Subject(model, engine, None, file, read_facts(file.path))


def _adapted(suite: Suite, concurrency: int | None, deadline_s: float | None) -> Suite:
    """Return the suite with what the caller wants otherwise."""
    if concurrency is not None:
        cases = tuple(replace(case, concurrency=concurrency) for case in suite.cases)
        suite = replace(suite, cases=cases)
    if deadline_s is not None:
        suite = replace(suite, deadlines=replace(suite.deadlines, suite_s=deadline_s))
    return suite


def _config(suite: Suite, subject: Subject, requests: int | None) -> dict[str, Any]:
    engine = subject.make_engine(suite, None)
    batches = plan_batches(suite, requests)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    return {
        "schema_version": records.SCHEMA_VERSION,
        "run_id": f"{stamp}-{suite.name}-{secrets.token_hex(3)}",
        "created_utc": utc_now(),
        "suite": suite.to_json(),
        "model": subject.model_json(),
        "engine": {
            "name": subject.engine,
            "base_url": subject.base_url,
            "options": engine.options,
        },
        "seed": suite.seed,
        "requests": [planned.to_json() for batch in batches for planned in batch.requests],
    }


def _open_writer(
    found: Path | None, out: Path, config: dict[str, Any], progress: RunProgress
) -> RunWriter:
    if found is None:
        return RunWriter.create(out / config["run_id"], config)
    writer = RunWriter.resume(found)
    progress.step(f"going on with {found}: {len(writer.done)} rows are there")
    return writer


def _find_cut_run(out: Path, config: dict[str, Any], progress: RunProgress) -> Path | None:
    """Return the run to go on with: ``out`` itself, or the newest cut one that matches in it.

    Raises:
        BadRunError: ``out`` is a run of something else.
    """
    if (out / records.CONFIG).is_file():
        differing = _differences(read_object(out / records.CONFIG), config)
        if differing:
            raise BadRunError(
                f"{out} is a run with another {', '.join(differing)}: resume it with its own"
            )
        return out
    for folder in sorted(out.iterdir(), reverse=True) if out.is_dir() else []:
        if not (folder / records.CONFIG).is_file():
            continue
        try:
            differing = _differences(read_object(folder / records.CONFIG), config)
            if not differing and not _is_complete(folder):
                return folder
        except BadRunError as error:
            progress.step(f"passed over: {error}")
    progress.step(f"no cut run of this suite, model and engine in {out}: beginning a new one")
    return None


def _is_complete(folder: Path) -> bool:
    manifest = folder / records.MANIFEST
    return manifest.is_file() and read_object(manifest)["status"] == "complete"


def _differences(theirs: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    """Name what would make rows of the two unlike; run id, date and deadlines may differ."""
    parts = ("suite", "model", "engine", "requests")

    def bearing(config: dict[str, Any], part: str) -> Any:
        value = config[part]
        return {**value, "deadlines": None} if part == "suite" else value

    return [part for part in parts if bearing(theirs, part) != bearing(ours, part)]
