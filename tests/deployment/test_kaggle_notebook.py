"""The built notebook, run to its end in a session laid out like Kaggle's, without this repository.

The model and the suite are attached as a read-only input, as a Kaggle user attaches a data set.
Ollama and Open WebUI are the real ones; they come from the cache, where the machine has them.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import uv

from shoestring.engines.launch import free_port
from shoestring.measure.records import read_run
from shoestring.paths import cache_dir
from shoestring.stack.bootstrap import LOCK
from shoestring.stack.packaging import build_notebook, needed_lock
from shoestring.testing.kaggle import WORKING, KaggleSession, why_no_session

ROOT = Path(__file__).parents[2]
NOTEBOOK = "kaggle_inference_validation"
SHORT = {"restarts": "1", "rounds": "0", "pictures": "False", "feasibility": ""}
BROUGHT = ("ipykernel", "papermill", "pip")
CACHE = Path("/var/cache/uv")
ATTACHED = Path("/kaggle/input/attached")
refused = why_no_session()

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(refused), reason=f"no mount namespace here: {refused}"),
]


def run_uv(*words: str) -> str:
    """Run uv to its end; return what it prints."""
    command = (uv.find_uv_bin(), *words)
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def joined(data: dict) -> dict[str, str]:
    """Return an output as one text a kind; a notebook keeps lines."""
    return {kind: "".join(text) for kind, text in data.items() if kind.startswith("text/")}


@pytest.fixture(scope="module")
def session(tmp_path_factory, payload, small_model):
    """A session with a fresh Python that has Jupyter's kernel, papermill and pip."""
    folder = tmp_path_factory.mktemp("kaggle")
    image, attached, lock = folder / "image", folder / "attached", folder / LOCK
    for made in (folder / "root", attached):
        made.mkdir()
    run_uv("venv", "--quiet", "--python", sys.executable, str(image))
    lock.write_text(needed_lock((ROOT / LOCK).read_text(), BROUGHT))
    run_uv("pip", "install", "--quiet", "--python", str(image / "bin" / "python"),
           "--require-hashes", "-r", str(lock))  # fmt: skip
    build_notebook(ROOT, "kaggle", ROOT / f"notebooks/{NOTEBOOK}.ipynb", payload, attached, {})
    (attached / "tiny.toml").write_text((ROOT / "tests" / "data" / "tiny.toml").read_text())
    (attached / "model.gguf").hardlink_to(small_model.path)
    shared = {CACHE: Path(run_uv("cache", "dir").strip()), cache_dir(): cache_dir()}
    return KaggleSession(folder / "root", image, shared, {ATTACHED.name: attached})


@pytest.fixture(scope="module")
def executed(session):
    """What papermill said of the built notebook, and what the image held before and after."""
    frozen = session.run("python", "-m", "pip", "freeze").stdout
    given = SHORT | {"suite": f"{ATTACHED}/tiny.toml", "model": f"file:{ATTACHED}/model.gguf"}
    done = session.run(
        "python", "-m", "papermill", "--log-output", f"{ATTACHED}/shoestring.ipynb", "out.ipynb",
        *(word for name, value in given.items() for word in ("-p", name, value)),
        UV_CACHE_DIR=str(CACHE), SHOESTRING_CACHE=str(cache_dir()),
        OLLAMA_HOST=f"127.0.0.1:{free_port()}",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    assert session.run("python", "-m", "pip", "freeze").stdout == frozen
    return done.stdout


def test_the_session_is_laid_out_like_kaggles(session):
    """True paths, input and system read-only, no zstd, no repository, no other process."""
    said = session.run(
        "sh", "-c", f"pwd; echo $HOME $KAGGLE_KERNEL_RUN_TYPE; command -v zstd; ls {ROOT}; "
        f"touch {ATTACHED}/new /usr/new /etc/new; ls /proc | grep -c '^[0-9]'; "
        "python -c 'import shoestring'",
    ).stdout.splitlines()  # fmt: skip
    assert said[:2] == [str(WORKING), "/root Batch"]
    assert "No such file" in said[2]
    assert all("Read-only file system" in line for line in said[3:6])
    assert int(said[6]) <= 4  # the shell, ls and grep
    assert said[-1].startswith("ModuleNotFoundError")


def test_the_notebook_runs_to_its_end(session, executed):
    """Before and after a restart each request is answered, on a machine that is Kaggle's."""
    (validation,) = session.working.glob("results/local/validation-*")
    runs = [read_run(path.parent) for path in sorted(validation.glob("runs/*/manifest.json"))]
    assert len(runs) == 2
    for run in runs:
        assert run.manifest["status"] == "complete"
        failed = [row for row in run.measured if row["status"] != "ok"]
        assert [row for row in failed if not _is_ollamas_own_cut(row)] == []
        (contributed,) = run.environment["sessions"]
        assert contributed["machine"]["platform"] == "kaggle"
    report = session.working / "report" / f"{NOTEBOOK}.html"
    assert runs[0].run_id in report.read_text()
    assert f"report/{NOTEBOOK}.html" in executed


def _is_ollamas_own_cut(row):
    """Ollama ends an answer after 30 equal tokens without its last event; random weights may."""
    repeats = re.search(r"(.+?)\1{29}\Z", row["answer"], re.DOTALL) is not None
    return row["failure"]["reason"] == "no_final_event" and repeats


def test_what_the_report_shows_is_shown_in_the_notebook(session, executed):
    """Prose, tables and figures; Kaggle's page shows no file, but the cells' outputs."""
    assert executed
    notebook = json.loads((session.working / "out.ipynb").read_text())
    cells = {cell["id"]: cell for cell in notebook["cells"]}
    shown = [output["data"] for output in cells["run-notebook"]["outputs"] if "data" in output]
    assert any("text/markdown" in data for data in shown)
    html = "".join(data.get("text/html", "") for data in map(joined, shown))
    assert "<svg" in html
    assert "<table" in html


def test_the_run_is_packed_where_it_outlives_the_session(session, executed):
    """In the working folder, for the next session to go on."""
    assert executed
    assert list(session.working.glob("shoestring-bundles/*.tar.gz"))
