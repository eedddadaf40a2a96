"""One executed notebook as one HTML file that needs nothing else.

The page is made by our own nbconvert template (``template/``): inline style for light, dark,
phone and print; code folded, not removed; figures inline. Nothing is fetched when it is opened.

Its head and foot come from the run record, never from the notebook: a notebook whose kernel was
killed looks like one that succeeded. A notebook that is about no run says in its last cell what it
is about. Without either, or with a run that is not complete, the page says INCOMPLETE before
anything else.

The same executed cells give the same bytes: metadata of the execution (times, counts, ids) and
cells that papermill injected are left out, and folders of this machine are not shown: where a cell
or an error names the folder of the runs, the working folder or the home, a sign stands for it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from shoestring.analysis.summary import summarise
from shoestring.measure.records import read_run
from shoestring.report import words
from shoestring.report.display import PAGE_MIME, RUN_MIME
from shoestring.report.parameters import parse_parameters

if TYPE_CHECKING:
    from shoestring.measure.records import Run

# What no page can hold: what terminals obey, and halves of characters that UTF-8 cannot write.
_CONTROLS: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
NO_RUN: Final = "no run was recorded: the notebook ended before there was one."


def render_html(
    executed_notebook: Path, out: Path, *, run_path: Path | None = None, problem: str | None = None
) -> None:
    """Render an executed notebook to one offline HTML file.

    Args:
        executed_notebook: as papermill left it, whole or not.
        out: the HTML file.
        run_path: the run that it is about; None takes the one that the notebook showed.
        problem: one line that the page opens with, beside what the run's own manifest says.
    """
    import nbformat

    notebook = nbformat.read(executed_notebook, as_version=4)
    run_path = run_path or shown_run(notebook)
    run = read_run(run_path) if run_path else None
    out.parent.mkdir(parents=True, exist_ok=True)
    folders = _folders(run_path)
    said = _without_folders(problem, folders) if problem else None
    page = _page(_cleaned(notebook, folders), run, said, folders)
    out.write_text(without_controls(page), encoding="utf-8")


def without_controls(page: str) -> str:
    """Return a page with a space for each character that no page can hold."""
    return _CONTROLS.sub(" ", page)


def shown_run(notebook: Any) -> Path | None:
    """Return the folder of the run that an executed notebook showed, or None."""
    data = _told(notebook, RUN_MIME)
    return Path(data["path"]) if data else None


def _told(notebook: Any, mime: str) -> dict[str, Any] | None:
    """Return the first data of a kind that an executed notebook holds for programs."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data: dict[str, Any] | None = output.get("data", {}).get(mime)
            if data:
                return data
    return None


def _page(notebook: Any, run: Run | None, problem: str | None, folders: dict[str, str]) -> str:
    from nbconvert import HTMLExporter

    summary = summarise(run) if run else None
    about = _told(notebook, PAGE_MIME) or {}
    lacks = words.incomplete_line(run) if run else None if about else NO_RUN
    incomplete = [line for line in (problem, lacks) if line]
    report = {
        "title": words.title(run) if run else about.get("title", "Measurement without a run"),
        "verdict": words.verdict(run, summary) if run and summary else None,
        "incomplete": incomplete,
        "warnings": words.warning_lines(summary) if summary else [],
        "parameters": _parameters(notebook, run, folders),
        "provenance": words.provenance(run) if run else about.get("provenance", []),
    }
    exporter = HTMLExporter(
        template_name="template",
        extra_template_basedirs=[str(Path(__file__).parent)],
        exclude_anchor_links=True,
    )
    style = (Path(__file__).parent / "template" / "style.css").read_text(encoding="utf-8")
    body, _ = exporter.from_notebook_node(notebook, resources={"report": report, "style": style})
    return re.sub(r"[ \t]+\n", "\n", body).strip() + "\n"


def _folders(run_path: Path | None) -> dict[str, str]:
    """The folders of this machine that a text may name, the longest first, and their signs."""
    signs = {str(Path.home()): "~", str(Path.cwd()): "."}
    if run_path:
        signs |= {str(path.parent): "..." for path in (run_path.absolute(), run_path.resolve())}
    longest_first = sorted(signs, key=len, reverse=True)
    return {folder: signs[folder] for folder in longest_first if folder != Path(folder).anchor}


def _without_folders(text: str, folders: dict[str, str]) -> str:
    for folder, sign in folders.items():
        text = re.sub(rf"(?<![\w.-]){re.escape(folder)}(?![\w-])", sign, text)
    return text


def _cleaned(notebook: Any, folders: dict[str, str]) -> Any:
    """Leave the content, drop what differs from one execution to the next."""
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
        cell["metadata"] = {"tags": cell.get("metadata", {}).get("tags", [])}
        if cell.cell_type == "code":
            cell["execution_count"] = None
            cell["outputs"] = [_cleaned_output(output, folders) for output in _merged(cell.outputs)]
    notebook.cells = [
        cell for cell in notebook.cells
        if "papermill-error-cell-tag" not in cell.metadata["tags"]
    ]  # fmt: skip
    notebook.metadata = {"language_info": {"name": "python"}}
    return notebook


def _merged(outputs: list[Any]) -> list[Any]:
    """Join what a cell printed piece by piece to one output for each stretch of a stream."""
    merged: list[Any] = []
    for output in outputs:
        last = merged[-1] if merged else None
        if last and output.output_type == "stream" and last.get("name") == output.name:
            last["text"] += output.text
        else:
            merged.append(output)
    return merged


def _cleaned_output(output: Any, folders: dict[str, str]) -> Any:
    if "execution_count" in output:
        output["execution_count"] = None
    if output.output_type == "stream":
        # A progress line is rewritten in place; only its last state is worth keeping.
        last_states = re.sub(r"[^\n]*\r(?!\n)", "", output.text)
        output["text"] = _without_folders(last_states, folders)
    if output.output_type == "error":
        output["evalue"] = _without_folders(output.evalue, folders)
    return output


def _parameters(notebook: Any, run: Run | None, folders: dict[str, str]) -> list[dict[str, str]]:
    """The parameters that counted: those of the run where there is one."""
    found: dict[str, Any] = {}
    helps: dict[str, str] = {}
    for cell in notebook.cells:
        tags = cell.metadata["tags"]
        if "parameters" in tags or "injected-parameters" in tags:
            for parameter in parse_parameters(cell.source, "the notebook").values():
                found[parameter.name] = parameter.default
                helps.setdefault(parameter.name, parameter.help)
    if run:
        found |= _recorded(run, found)
    return [
        {"name": name, "value": _without_folders(str(value), folders), "help": helps.get(name, "")}
        for name, value in found.items()
    ]


def _recorded(run: Run, found: dict[str, Any]) -> dict[str, Any]:
    config = run.config
    recorded = {
        "model": words.public_name(config["model"]["name"]),
        "engine": config["engine"]["name"],
        "suite": config["suite"]["name"],
        "base_url": config["engine"].get("base_url") or "",
        "run": run.run_id if found.get("run") else "",
        "out": Path(str(found.get("out", ""))).name,
    }
    return {name: value for name, value in recorded.items() if name in found}
