import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest

from shoestring.report.html import render_html


class _Page(HTMLParser):
    """Collects what a page would fetch, and which elements were left open."""

    VOID = ("meta", "link", "br", "img", "hr", "input", "use", "path")

    def __init__(self):
        super().__init__()
        self.fetched, self.open, self.roles = [], [], []

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.fetched += [values[k] for k in ("src", "href", "xlink:href") if k in values]
        if tag == "svg":
            self.roles.append((values.get("role"), values.get("aria-label")))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag


def _render(executed, tmp_path, **options):
    render_html(executed, tmp_path / "report.html", **options)
    return (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def page(executed, tmp_path_factory):
    """Return the report of the synthetic run."""
    return _render(executed, tmp_path_factory.mktemp("html"))


def test_the_page_fetches_nothing(page):
    """No attribute, import or url() of the page leads outside it."""
    parser = _Page()
    parser.feed(page)

    assert all(target.startswith("#") for target in parser.fetched), parser.fetched
    assert not parser.open
    assert "@import" not in page
    assert all(target.startswith("#") for target in re.findall(r"url\(['\"]?([^)]*)\)", page))
    assert "<script" not in page


def test_the_page_is_small(page):
    """A report stays below one megabyte."""
    assert len(page.encode()) < 1_000_000


def test_every_figure_has_its_words(page):
    """Each figure is an image with a label for readers who do not see it."""
    parser = _Page()
    parser.feed(page)

    assert page.count("<figure ") >= 6
    assert [role for role, _ in parser.roles] == ["img"] * page.count("<figure ")
    assert all(label for _, label in parser.roles)


def test_head_and_foot_come_from_the_record(page, run):
    """Title, verdict, warnings and parameters are on top, run and hashes at the foot."""
    head, foot = page.split("</header>")[0], page.split("<footer>")[1]

    assert "67 of 70 requests were answered" in head
    assert "3 of 70 requests failed" in head
    assert "<code>file:synthetic.gguf</code>" in head
    assert run.run_id in foot
    assert run.manifest["files"]["requests.jsonl"] in foot


def test_code_is_folded_not_removed(page):
    """The code of each shown cell is there, closed."""
    assert '<details class="code"><summary>Code</summary>' in page
    assert "shoestring.read_run" in re.sub("<[^>]*>", "", page)
    assert "<details open" not in page


def test_a_complete_run_has_no_banner(page):
    """INCOMPLETE stands on no report of a whole run."""
    assert "INCOMPLETE" not in page


def test_no_folder_of_this_machine_is_shown(page, run, executed):
    """Neither the run's folder nor the working folder is in the page."""
    assert str(run.path.parent) not in page
    assert str(executed.parent) not in page


def test_the_same_run_gives_the_same_page(run, execute, page, tmp_path):
    """Executed again in another folder, the page is byte for byte the same."""
    again = tmp_path / "again.ipynb"
    assert execute(again, run=str(run.path), out=str(tmp_path / "out")).returncode == 0

    assert _render(again, tmp_path) == page


def test_a_killed_run_is_loud(executed, killed, tmp_path):
    """A run without a manifest opens with INCOMPLETE, whatever the notebook looks like."""
    page = _render(executed, tmp_path, run_path=killed.path)

    assert page.index("INCOMPLETE") < page.index('<p class="verdict">')
    assert "killed before it ended: 69 of 70 planned requests were made" in page


def test_a_notebook_that_showed_no_run_is_loud(executed, tmp_path):
    """Without any run the page says so, and shows what cells there are."""
    notebook = nbformat.read(executed, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    nbformat.write(notebook, tmp_path / "dead.ipynb")

    page = _render(tmp_path / "dead.ipynb", tmp_path, problem="the kernel died")

    assert "INCOMPLETE" in page
    assert "the kernel died" in page
    assert "no run was recorded" in page


def test_execution_metadata_does_not_matter(executed, page, tmp_path):
    """Times, counts and ids of an execution leave no trace in the page."""
    notebook = nbformat.read(executed, as_version=4)
    notebook.metadata["papermill"] = {"start_time": "another"}
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"other-{number}"
        cell.metadata["papermill"] = {"duration": number}
        if cell.cell_type == "code":
            cell.execution_count = 99
    nbformat.write(notebook, tmp_path / "other.ipynb")

    assert _render(tmp_path / "other.ipynb", tmp_path) == page


def test_what_cells_say_cannot_break_the_page(executed, tmp_path):
    """Text of an error or a log is shown as text."""
    notebook = nbformat.read(executed, as_version=4)
    shown = next(cell for cell in notebook.cells if cell.id == "measure")
    shown.outputs = [
        nbformat.v4.new_output("stream", name="stderr", text="1 of 2"),
        nbformat.v4.new_output("stream", name="stderr", text="\r2 of 2 <b>\n"),
        nbformat.v4.new_output("error", ename="E", evalue="<script>x</script>", traceback=[]),
    ]
    nbformat.write(notebook, tmp_path / "bad.ipynb")

    page = _render(tmp_path / "bad.ipynb", tmp_path)

    assert "<script>" not in page
    assert "2 of 2 &lt;b&gt;" in page
    assert page.count('<details class="log">') == 1
    assert "1 of 2" not in page


def test_no_cell_shows_a_folder_of_this_machine(executed, run, tmp_path):
    """Where a log, an error or the failure names a folder, a sign stands for it."""
    notebook = nbformat.read(executed, as_version=4)
    shown = next(cell for cell in notebook.cells if cell.id == "measure")
    places = f"{run.path.parent}/x, {Path.cwd()}/y and {Path.home()}/z"
    shown.outputs = [
        nbformat.v4.new_output("stream", name="stderr", text=places),
        nbformat.v4.new_output("error", ename="E", evalue=places, traceback=[]),
    ]
    nbformat.write(notebook, tmp_path / "told.ipynb")

    page = _render(tmp_path / "told.ipynb", tmp_path, problem=places)

    assert page.count(".../x, ./y and ~/z") == 3
    assert str(Path.cwd()) not in page


def test_text_that_cannot_be_written_is_left_out(executed, tmp_path):
    """Half a character or a terminal's escape from a server does not break the page."""
    notebook = nbformat.read(executed, as_version=4)
    shown = next(cell for cell in notebook.cells if cell.id == "measure")
    shown.outputs = [nbformat.v4.new_output("stream", name="stdout", text="a\ud800b\x00c")]
    (tmp_path / "odd.ipynb").write_text(json.dumps(notebook))

    assert "a b c" in _render(tmp_path / "odd.ipynb", tmp_path)


@pytest.mark.skipif(not shutil.which("chromium"), reason="no browser is installed")
def test_a_browser_opens_it_without_a_request(page, tmp_path):
    """A real browser shows the page at phone width without fetching or sideways scrolling."""
    sync_api = pytest.importorskip("playwright.sync_api")
    (tmp_path / "report.html").write_text(page, encoding="utf-8")
    requests = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        view = browser.new_page(viewport={"width": 390, "height": 800})
        view.on("request", lambda request: requests.append(request.url))
        view.goto((tmp_path / "report.html").as_uri())
        width = view.evaluate("document.documentElement.scrollWidth")
        browser.close()

    assert requests == [(tmp_path / "report.html").as_uri()]
    assert width == 390
