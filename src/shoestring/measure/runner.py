"""Run a suite and keep a record of it; go on where a cut run stopped."""

from __future__ import annotations

import resource
import secrets
import threading
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoestring.engines.discovery import check_installed
from shoestring.engines.opening import OLLAMA_SCHEME, choose_engine, find_subject
from shoestring.errors import BadValueError
from shoestring.measure import records
from shoestring.measure.lease import Lease, take_lease
from shoestring.measure.progress import RunProgress
from shoestring.measure.records import Run, read_run
from shoestring.measure.restoring import restore_bundles
from shoestring.measure.resuming import find_cut_runs, is_complete
from shoestring.measure.schedule import plan_batches
from shoestring.measure.suite import Suite, load_suite
from shoestring.measure.together import Part, engine_for, run_parts
from shoestring.measure.writer import RunWriter, utc_now

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoestring.engines.opening import Subject
    from shoestring.measure.schedule import Batch

DEFAULT_OUT = Path("results/local")
SPARE_FILES = 64
"""Files that are open beside the sockets of the requests in flight."""


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
    context: int | None = None,
    lease: Lease | None = None,
    progress: RunProgress | None = None,
) -> Run:
    """Measure a model with a suite and return the run that was recorded.

    Args:
        suite: a built-in suite's name, or the path of a TOML file.
        model: ``pypi:NAME``, ``file:PATH``, ``hf:…``, ``shape:…`` or ``ollama:NAME``; with
            ``base_url`` the server's own id.
        engine: ``auto``, ``embedded``, ``ollama``, ``llama-server``, ``koboldcpp`` or ``openai``.
        base_url: of a server that runs already.
        out: the folder that gets the run's folder; with ``resume`` it may be the run itself.
        resume: go on with the newest cut run of the same suite, model and engine in ``out``; a new
            run is begun where there is none. Several engines go on together (``measure.resuming``).
        concurrency: use this one in every case instead of the suite's.
        requests: send so many in all, dealt evenly over blocks and cases.
        deadline_s: end the run so many seconds after its first measured request, incomplete, to
            be resumed.
        context: tokens that the engine has room for in each slot; default: what the suite needs.
            A server that runs already has its own, but for Ollama, which takes one with each model.
        lease: until when the session may be used, and where bundles of the run are kept and
            looked for; default what the platform says, which is neither on a machine of one's own.
        progress: where to show how far it is.

    Raises:
        UserError: something cannot be used; nothing was written.
        InterruptedRunError: a signal ended it; the rows are safe and it can be resumed.
    """
    (run,) = run_engines(
        suite,
        [engine],
        model=model,
        base_url=base_url,
        out=out,
        resume=resume,
        concurrency=concurrency,
        requests=requests,
        deadline_s=deadline_s,
        context=context,
        lease=lease,
        progress=progress,
    )
    return run


def run_engines(
    suite: str,
    engines: Sequence[str],
    *,
    model: str,
    base_url: str | None = None,
    out: Path | str = DEFAULT_OUT,
    resume: bool = False,
    concurrency: int | None = None,
    requests: int | None = None,
    deadline_s: float | None = None,
    context: int | None = None,
    lease: Lease | None = None,
    progress: RunProgress | None = None,
) -> list[Run]:
    """Measure one model in several engines, block by block in turn; one run each.

    Arguments and errors are those of :func:`run_suite`.
    """
    progress = progress or RunProgress()
    chosen = _adapted(load_suite(suite), concurrency, deadline_s)
    lease = lease or take_lease()
    lease.check(chosen)
    if context is not None and context < chosen.max_context:
        raise BadValueError(
            f"a context of {context} tokens is too small: suite {chosen.name} needs "
            f"{chosen.max_context}"
        )
    if chosen.fresh_engine and base_url:
        raise BadValueError(f"suite {chosen.name} starts the engine itself: leave --base-url out")
    decided = [choose_engine(engine, model, base_url) for engine in engines]
    if context is not None and base_url and {*decided} != {"ollama"}:
        raise BadValueError(
            f"--context {context}: the server at {base_url} runs already, with a context of its "
            "own: start it with that one, and leave --context out"
        )
    if len(set(decided)) < len(decided):
        raise BadValueError(
            f"an engine stands twice in {','.join(engines)} ({', '.join(decided)}): give each once"
        )
    for engine in decided:
        # Before a model is fetched or a folder written. A server that runs already, and one that
        # knows its own library, are asked when the model is looked for.
        if not base_url and not model.startswith(OLLAMA_SCHEME):
            check_installed(engine)
    batches = plan_batches(chosen, requests)
    subjects = [
        replace(_find_subject(model, engine, base_url), context=context) for engine in decided
    ]
    salt = secrets.token_hex(4)
    configs = [_config(chosen, subject, batches, salt) for subject in subjects]
    _check_file_limit(chosen)
    if lease.unkept is not None:
        progress.step(f"no bundle is kept for another session: {lease.unkept}, or give --bundles")
    if resume and not (Path(out) / records.CONFIG).is_file():
        restore_bundles(Path(out), lease.sources, progress.step)
    found = find_cut_runs(Path(out), configs, progress) if resume else None
    paths = found or _new_runs(Path(out), configs)
    with ExitStack() as stack:
        parts = [
            Part(stack.enter_context(_open_writer(path, config, progress)), subject, batches)
            for path, config, subject in zip(paths, configs, subjects, strict=True)
            if found is None or not is_complete(path)
        ]
        if parts:
            run_parts(parts, chosen, progress, lease)
        return [read_run(path) for path in paths]


def _new_runs(out: Path, configs: Sequence[dict[str, Any]]) -> list[Path]:
    """Return where new runs will lie, and have each name the others of its comparison."""
    for config in configs:
        others = [other["run_id"] for other in configs if other is not config]
        config["interleaved_with"] = others or None
    return [out / config["run_id"] for config in configs]


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
    from shoestring.models.progress import ProgressBar

    with ProgressBar(f"fetching {model}") as bar:
        return find_subject(model, engine, base_url, progress=bar.update)


def _model_json(subject: Subject) -> dict[str, Any]:
    """Return the model as ``config.json`` holds it; null where the server does not tell."""
    facts = subject.facts
    return {
        "name": subject.model,
        "sha256": subject.sha256,
        "file_bytes": facts.file_bytes if facts else None,
        "architecture": facts.architecture if facts else None,
        "parameters": facts.parameters if facts else None,
        "quantisation": facts.quantisation if facts else None,
        "context_length": facts.context_length if facts else None,
        "layers": facts.layers if facts else None,
    }


def _adapted(suite: Suite, concurrency: int | None, deadline_s: float | None) -> Suite:
    """Return the suite with what the caller wants otherwise."""
    if concurrency is not None:
        for case in suite.cases:
            if case.turns is not None and concurrency > 1:
                raise BadValueError(
                    f"concurrency {concurrency}: {case.name} of suite {suite.name} is a dialogue, "
                    "whose turns would overtake each other: leave --concurrency out"
                )
        cases = tuple(replace(case, concurrency=concurrency) for case in suite.cases)
        suite = replace(suite, cases=cases)
    if deadline_s is not None:
        if not 0 < deadline_s <= threading.TIMEOUT_MAX:
            raise BadValueError(
                f"deadline of {deadline_s:g} s: give more than 0 and at most "
                f"{threading.TIMEOUT_MAX:.0f} s, or leave --deadline out"
            )
        suite = replace(suite, deadlines=replace(suite.deadlines, suite_s=deadline_s))
    return suite


def _config(suite: Suite, subject: Subject, batches: Sequence[Batch], salt: str) -> dict[str, Any]:
    engine = engine_for(subject, suite, None)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    return {
        "schema_version": records.SCHEMA_VERSION,
        "run_id": f"{stamp}-{suite.name}-{secrets.token_hex(3)}",
        "created_utc": utc_now(),
        "suite": suite.to_json(),
        "model": _model_json(subject),
        "engine": {
            "name": subject.engine,
            "base_url": subject.base_url,
            "options": engine.options,
        },
        "seed": suite.seed,
        "prompt_salt": salt,
        "requests": [planned.to_json() for batch in batches for planned in batch.requests],
    }


def _open_writer(path: Path, config: dict[str, Any], progress: RunProgress) -> RunWriter:
    if path.exists():
        writer = RunWriter.resume(path)
        progress.step(f"going on with {path}: {len(writer.done)} rows are there")
        return writer
    return RunWriter.create(path, config)
