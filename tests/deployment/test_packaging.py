"""What is built for Kaggle and Colab: whole, the same each time, and nothing in it of ours."""

import base64
import hashlib
import io
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.errors import BadValueError, MissingError
from shoestring.report.parameters import notebook_parameters
from shoestring.stack import packaging
from shoestring.stack.packaging import Payload, build_payload, fill_launcher, needed_lock

ROOT = Path(__file__).parents[2]
MEASURING = ROOT / "notebooks" / "01_measure.ipynb"
VALIDATING = ROOT / "notebooks" / "kaggle_inference_validation.ipynb"
LARGEST_BYTES = 1_000_000
"""Kaggle's limit for a notebook's source, as far as it is known."""
LOCK = """# a comment
a==1 \\
    --hash=sha256:00
    # via shoestring (pyproject.toml)
b-c==2 ; sys_platform == 'linux' \\
    --hash=sha256:01 \\
    --hash=sha256:02
    # via
    #   a
    #   z
b-c==3 ; sys_platform != 'linux' \\
    --hash=sha256:03
    # via a
d==4 \\
    --hash=sha256:04
    # via b-c
z==5 \\
    --hash=sha256:05
    # via shoestring (pyproject.toml)
"""


def launcher(platform):
    """Return a launcher as it stands in the tree."""
    path = ROOT / "deployment" / platform / "launcher.ipynb"
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(params=[MEASURING, VALIDATING], ids=["measuring", "validating"])
def carried(request):
    """Each notebook that is built."""
    return request.param


@pytest.fixture(params=["kaggle", "colab"])
def built(request, carried, payload, tmp_path):
    """Return each notebook, built for each platform."""
    return packaging.build_notebook(ROOT, request.param, carried, payload, tmp_path, {})


def test_a_lock_is_cut_to_what_is_needed():
    """What is wanted and what that needs, in every fork; without comments, with all hashes."""
    cut = needed_lock(LOCK, ["A>=1"])
    assert re.findall(r"^\S+", cut, re.MULTILINE) == ["a==1", "b-c==2", "b-c==3", "d==4"]
    assert cut.count("--hash=") == 5
    assert "#" not in cut


def test_a_lock_that_lacks_a_package_is_not_packed():
    """One line names it, and the command that mends it."""
    with pytest.raises(MissingError, match=r"requirements.lock lacks new-one: run make lock"):
        needed_lock(LOCK, ["a", "new_one[extra]>=2; python_version < '3.13'"])


@given(st.data())
def test_a_cut_lock_is_closed(data):
    """In any graph each kept package is wanted or used by a kept one, and none of those lacks."""
    names = [f"p{number}" for number in range(data.draw(st.integers(1, 8)))]
    users = {name: data.draw(st.lists(st.sampled_from(names), unique=True)) for name in names}
    wanted = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    lock = "".join(
        f"{name}==1 \\\n    --hash=sha256:00\n    # via\n"
        + "".join(f"    #   {user}\n" for user in ["shoestring (pyproject.toml)", *used])
        for name, used in users.items()
    )
    kept = set(re.findall(r"^(\S+)==", needed_lock(lock, wanted), re.MULTILINE))
    assert set(wanted) <= kept
    for name, used in users.items():
        assert (name in kept) == (name in wanted or bool(kept & (set(used) - {name})))


def test_the_same_tree_gives_the_same_bytes(payload):
    """Built again, wheel and all, by another process at another time."""
    code = (
        "import sys; from pathlib import Path; from shoestring.stack.packaging import *; "
        "print(build_payload(Path(sys.argv[1])).sha256)"
    )
    done = subprocess.run([sys.executable, "-c", code, ROOT], capture_output=True, check=True)
    assert done.stdout.decode().strip() == payload.sha256


def test_an_unknown_notebook_is_one_line():
    """The builder names those that there are, and writes nothing."""
    words = [sys.executable, ROOT / "scripts" / "build_kaggle.py", "--notebook", "01_mesure"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: no notebook '01_mesure'; did you mean '01_measure'?")
    assert len(done.stderr.splitlines()) == 1


def test_a_default_without_a_value_is_one_line():
    """The builder says what it takes, and builds nothing."""
    words = [sys.executable, ROOT / "scripts" / "build_kaggle.py", "--set", "model"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "Error: --set 'model': give NAME=VALUE\n"


@pytest.mark.parametrize(("parameter", "set_for_a_t4"), [("model", True), ("place", False)])
def test_what_suits_a_t4_is_set_only_where_it_is_a_parameter(tmp_path, parameter, set_for_a_t4):
    """A notebook without a model is built as it is."""
    known = json.loads(MEASURING.read_text())
    (cell,) = [c for c in known["cells"] if "parameters" in c["metadata"].get("tags", [])]
    cell["source"] = [f'{parameter} = "x"  # what is shown\n']
    path = tmp_path / "n.ipynb"
    path.write_text(json.dumps(known))

    words = [sys.executable, ROOT / "scripts" / "build_kaggle.py", "--notebook", path,
             "--out", tmp_path / "out"]  # fmt: skip
    subprocess.run(words, capture_output=True, check=True)
    found = notebook_parameters(tmp_path / "out" / "shoestring.ipynb")[parameter].default
    assert found == ("ollama:qwen3:8b" if set_for_a_t4 else "x")


def test_a_payload_holds_the_wheel_its_locks_and_nothing_else(payload):
    """The lock has what the package needs, and neither tests' nor developers' tools."""
    content = base64.b64decode(payload.text)
    assert hashlib.sha256(content).hexdigest() == payload.sha256
    packed = zipfile.ZipFile(io.BytesIO(content))
    assert [re.sub(r"-\d.*-none", "", name) for name in packed.namelist()] == [
        "requirements-uv.lock", "requirements.lock", "shoestring-any.whl",
        "shoestring_bootstrap.py",
    ]  # fmt: skip
    locked = re.findall(r"^([^=\s]+)==", packed.read("requirements.lock").decode(), re.MULTILINE)
    assert {"papermill", "xllamacpp", "numpy"} <= set(locked)
    assert not {"pytest", "mypy", "hypothesis", "ruff"} & set(locked)
    (wheel,) = (name for name in packed.namelist() if name.endswith(".whl"))
    inside = zipfile.ZipFile(io.BytesIO(packed.read(wheel)))
    assert inside.testzip() is None
    assert "shoestring/notebooks/01_measure.ipynb" in inside.namelist()


def test_a_built_notebook_is_whole(built, carried):
    """Valid, without outputs, small enough, and with the parameters of what it runs, tagged."""
    notebook = nbformat.read(built, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.outputs for cell in notebook.cells if cell.cell_type == "code")
    assert built.stat().st_size < LARGEST_BYTES
    known = notebook_parameters(built)
    assert notebook_parameters(carried).items() <= known.items()
    assert all(parameter.help for parameter in known.values())


def test_a_built_notebook_names_no_address_of_ours(built):
    """It runs without this repository: no clone, no index, no path of this machine."""
    cells = nbformat.read(built, as_version=4).cells
    source = "\n".join(cell.source for cell in cells if cell.id != "payload")
    assert not re.search(r"git |github|git\+|index-url", source)
    assert str(ROOT) not in source


@pytest.mark.parametrize("line", ['model = ""  # twice', "import model", "for model in (): ..."])
def test_a_name_that_a_launcher_sets_is_no_parameter(payload, line):
    """It would be lost on the way: the notebook's parameter of that name is refused."""
    colab = launcher("colab")
    colab["cells"][-1]["source"].insert(0, f"{line}\n")
    with pytest.raises(BadValueError, match=r"01_measure.ipynb and the launcher both have model"):
        fill_launcher(colab, MEASURING, payload, {})


@pytest.mark.parametrize("line", ["model='x'", 'a_model = "pypi:gemma3-270m"', "model = f(1)"])
def test_a_default_that_cannot_be_set_is_refused(tmp_path, line):
    """Nothing is built that would measure another model than it was told to."""
    known = json.loads(MEASURING.read_text())
    (cell,) = [c for c in known["cells"] if "parameters" in c["metadata"].get("tags", [])]
    cell["source"] = [f"{line}  # a model\n"]
    path = tmp_path / "n.ipynb"
    path.write_text(json.dumps(known))

    with pytest.raises(BadValueError):
        fill_launcher(launcher("kaggle"), path, Payload("", "0" * 64), {"model": "ollama:x"})


@pytest.mark.parametrize("text", ["", base64.b64encode(b"another").decode()])
def test_a_damaged_payload_is_refused(text):
    """Before anything of it is unpacked."""
    cells = fill_launcher(launcher("kaggle"), MEASURING, Payload(text, "0" * 64), {})["cells"]
    sources = {cell["id"]: "".join(cell["source"]) for cell in cells}
    with pytest.raises(ValueError, match="missing or damaged"):
        exec(sources["payload"] + "\n" + sources["install"], {})


@pytest.mark.parametrize("platform", ["kaggle", "colab"])
def test_a_launcher_in_the_tree_is_plain(platform):
    """Empty of parameters' values and payload, valid, without outputs, in its own format."""
    path = ROOT / "deployment" / platform / "launcher.ipynb"
    found = launcher(platform)
    nbformat.validate(found)
    assert path.read_text() == json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    cells = {cell["id"]: cell for cell in found["cells"]}
    assert 'PAYLOAD = ""' in "".join(cells["payload"]["source"])
    assert cells["parameters"]["metadata"]["tags"] == ["parameters"]
    for cell in found["cells"]:
        assert cell["cell_type"] == "markdown" or not cell["outputs"]


def test_what_kaggle_is_told(payload, tmp_path):
    """Private, on a T4, with internet; the script as a script, and its file is a program."""
    notebook = packaging.build_notebook(ROOT, "kaggle", MEASURING, payload, tmp_path / "a", {})
    script = packaging.build_script(ROOT, payload, tmp_path / "b")
    told = [
        json.loads(packaging.write_metadata(ROOT, path, "somebody", title).read_text())
        for path, title in ((notebook, packaging.TITLE), (script, "shoestring-script"))
    ]
    assert [one["code_file"] for one in told] == ["shoestring.ipynb", "kaggle_ollama_webui.py"]
    assert [one["kernel_type"] for one in told] == ["notebook", "script"]
    for one in told:
        assert one["id"] == f"somebody/{one['title']}"
        assert (one["is_private"], one["enable_gpu"], one["enable_internet"]) == (True,) * 3
        assert one["machine_shape"] == "NvidiaTeslaT4"
    assert [one["title"] for one in told] == ["shoestring", "shoestring-script"]
    compile(script.read_text(), script.name, "exec")
    assert script.stat().st_size < LARGEST_BYTES


def test_outside_a_checkout_nothing_is_built(tmp_path):
    """One line says so."""
    with pytest.raises(MissingError, match=r"pyproject.toml is missing: this is done in a check"):
        build_payload(tmp_path)


def test_a_platform_has_defaults_of_its_own():
    """The built notebook measures another model; its help stays, and a wrong name is refused."""
    given = {"model": "ollama:qwen3:8b"}
    cells = fill_launcher(launcher("kaggle"), MEASURING, Payload("", "0" * 64), given)["cells"]
    (source,) = ["".join(cell["source"]) for cell in cells if cell["id"] == "parameters"]

    assert source.splitlines()[0].startswith('model = "ollama:qwen3:8b"  # what to measure')
    with pytest.raises(BadValueError, match="did you mean 'model'"):
        fill_launcher(launcher("kaggle"), MEASURING, Payload("", "0" * 64), {"modle": "x"})
