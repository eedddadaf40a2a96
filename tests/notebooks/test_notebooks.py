import ast
import json
from pathlib import Path

import nbformat
import pytest

from shoestring.report.parameters import notebook_parameters

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
LONGEST_CELL = 16


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    """Return each notebook."""
    return request.param


def _code(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_no_outputs_are_kept(path):
    """A notebook in the repository holds no outputs, counts or execution metadata."""
    for cell in _code(path):
        assert not cell.outputs
        assert cell.execution_count is None
        assert set(cell.metadata) <= {"tags"}


def test_cells_are_calls_not_logic(path):
    """Cells are short, define nothing, and assign no name twice."""
    assigned = []
    for cell in _code(path):
        assert len(cell.source.splitlines()) <= LONGEST_CELL, cell.id
        tree = ast.parse(cell.source)
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
        assert not [node for node in ast.walk(tree) if isinstance(node, kinds)], cell.id
        names = {
            node.id for node in ast.walk(tree)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }  # fmt: skip
        assert not names & set(assigned), cell.id
        assigned += names


def test_the_file_is_in_its_own_format(path):
    """Ids are words, the kernel is python3, the notebook is valid and written with one indent."""
    text = path.read_text(encoding="utf-8")
    notebook = json.loads(text)
    nbformat.validate(notebook)

    assert text == json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    assert all(cell["id"].replace("-", "").isalnum() for cell in notebook["cells"])


def test_parameters_are_literals_with_help(path):
    """Each parameter is a literal and says what it means."""
    known = notebook_parameters(path)

    assert known
    assert all(parameter.help for parameter in known.values())


def test_no_address_is_in_a_notebook(path):
    """The prose of a notebook becomes the report, which names nothing outside itself."""
    assert "http" not in path.read_text(encoding="utf-8")


def test_the_package_is_never_asked_of_an_index(path):
    """The first code cell installs a file or a folder, never a name."""
    first = _code(path)[0].source

    assert '"install", "--quiet", str(found[0])' in first
