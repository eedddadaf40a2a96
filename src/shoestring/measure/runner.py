"""Run a suite and keep a record of it; go on where a cut run stopped."""

from __future__ import annotations

import resource
import secrets
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoestring.engines.opening import find_subject
from shoestring.errors import BadRunError, BadValueError
from shoestring.measure import records
from shoestring.measure.progress import RunProgress
from shoestring.measure.records import Run, read_object, read_run
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
            run is begun where there is none.
        concurrency: use this one in every case instead of the suite's.
        requests: send so many in all, dealt evenly over blocks and cases.
        deadline_s: end the session after so many seconds, incomplete, to be resumed.
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
    progress: RunProgress | None = None,
) -> list[Run]:
    """Measure one model in several engines, block by block in turn; one run each.

    Arguments and errors are those of :func:`run_suite`.
    """
    progress = progress or RunProgress()
    chosen = _adapted(load_suite(suite), concurrency, deadline_s)
    if len(set(engines)) < len(engines):
        raise BadValueError(f"an engine stands twice in {','.join(engines)}: give each once")
    batches = plan_batches(chosen, requests)
    subjects = [_find_subject(model, engine, base_url) for engine in engines]
    configs = [_config(chosen, subject, batches) for subject in subjects]
    for config in configs:
        others = [other["run_id"] for other in configs if other is not config]
        config["interleaved_with"] = others or None
    found = [_find_cut_run(Path(out), config, progress) if resume else None for config in configs]
    _check_file_limit(chosen)
    with ExitStack() as stack:
        parts = [
            Part(
                stack.enter_context(_open_writer(cut, Path(out), config, progress)),
                subject,
                batches,
            )
            for cut, config, subject in zip(found, configs, subjects, strict=True)
            if cut is None or not _is_complete(cut)
        ]
        if parts:
            run_parts(parts, chosen, progress)
        made = iter(parts)
        return [
            read_run(cut if cut is not None and _is_complete(cut) else next(made).writer.path)
            for cut in found
        ]


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
        cases = tuple(replace(case, concurrency=concurrency) for case in suite.cases)
        suite = replace(suite, cases=cases)
    if deadline_s is not None:
        suite = replace(suite, deadlines=replace(suite.deadlines, suite_s=deadline_s))
    return suite


def _config(suite: Suite, subject: Subject, batches: Sequence[Batch]) -> dict[str, Any]:
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
