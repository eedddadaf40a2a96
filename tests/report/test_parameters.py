import pytest

from shoestring.errors import BadModelError, BadRunError, BadValueError
from shoestring.report import parameters
from shoestring.report.notebook import find_notebook
from shoestring.report.parameters import check_parameters, notebook_parameters, parse_parameters

GOOD = {
    "model": "pypi:gemma3-270m", "engine": "auto", "suite": "smoke", "base_url": "",
    "run": "", "out": "results/local",
}  # fmt: skip


def test_the_notebook_has_literal_parameters_with_help():
    """Each parameter of the notebook is a literal and says what it means."""
    known = notebook_parameters(find_notebook("01_measure"))

    assert {name: parameter.default for name, parameter in known.items()} == GOOD
    assert all(parameter.help for parameter in known.values())


@pytest.mark.parametrize("line", ["a = 1 + b", "a = [1]", "import os", "a = b = 1", "f()"])
def test_only_literals_are_parameters(line):
    """A derived value would be stale when its parameter is set, so it is refused."""
    with pytest.raises(BadValueError, match="may only hold literals"):
        parse_parameters(line, "x.ipynb")


def test_an_unknown_name_is_refused_with_the_nearest():
    """A misspelt parameter is an error that names what was meant."""
    with pytest.raises(BadValueError, match="no parameter 'modle'; did you mean 'model'"):
        check_parameters(find_notebook("01_measure"), {"modle": "x"})


def test_values_take_the_type_of_their_default(tmp_path):
    """What a user types as text becomes the number that the notebook expects, or is refused."""
    path = tmp_path / "n.ipynb"
    path.write_text(
        '{"cells": [{"cell_type": "code", "metadata": {"tags": ["parameters"]},'
        ' "source": ["n = 3  # how many\\n", "fast = False\\n", "rate = 0.5\\n"]}]}'
    )

    given = {"n": "7", "fast": "True", "rate": "2"}
    assert check_parameters(path, given) == {"n": 7, "fast": True, "rate": 2.0}
    for name, text in (("n", "x"), ("n", "True"), ("fast", "1")):
        with pytest.raises(BadValueError, match="is not of the kind of its default"):
            check_parameters(path, {name: text})


def test_a_file_that_is_no_notebook_is_one_clear_line(tmp_path):
    """A wrong file is named."""
    (tmp_path / "x.ipynb").write_text("no json")

    with pytest.raises(BadValueError, match=r"x\.ipynb is not a notebook"):
        notebook_parameters(tmp_path / "x.ipynb")


@pytest.mark.parametrize("text", ["{}", '{"cells": null}', '{"cells": [1]}', "[" * 99999])
def test_a_damaged_notebook_is_one_clear_line(text, tmp_path):
    """A file that is JSON but no notebook is named too."""
    (tmp_path / "x.ipynb").write_text(text)

    with pytest.raises(BadValueError, match=r"x\.ipynb is not a notebook") as error:
        notebook_parameters(tmp_path / "x.ipynb")

    assert "\n" not in str(error.value)


@pytest.mark.parametrize("source", ["a = (1", "a = = 1", "a = 'x", " a = 1\nb = 2", "a = '''x"])
def test_a_broken_parameters_cell_is_one_clear_line(source):
    """What is not Python is said to be so, without a traceback."""
    with pytest.raises(BadValueError, match=r"x\.ipynb: the parameters cell is not Py") as error:
        parse_parameters(source, "x.ipynb")

    assert "\n" not in str(error.value)


def test_a_password_in_an_address_is_not_repeated():
    """The address is refused as the engine refuses it, and no secret is in the message."""
    with pytest.raises(BadValueError) as error:
        parameters.check(**{**GOOD, "base_url": "http://me:secret@host:80"})

    assert "secret" not in str(error.value)


def test_an_unknown_notebook_is_refused_with_the_nearest():
    """A misspelt notebook is an error that names what was meant."""
    with pytest.raises(BadValueError, match="did you mean '01_measure'"):
        find_notebook("01_mesure")


def test_the_defaults_are_usable():
    """What stands in the notebook passes its own check."""
    parameters.check(**GOOD)


@pytest.mark.parametrize(
    ("changed", "kind"),
    [
        ({"model": 3}, BadValueError),
        ({"model": "pypi:nothing"}, BadModelError),
        ({"engine": "embeded"}, BadValueError),
        ({"suite": "smok"}, BadValueError),
        ({"base_url": "localhost:8000", "engine": "openai"}, BadValueError),
        ({"run": "/nowhere/at/all"}, BadRunError),
        ({"out": ""}, BadValueError),
    ],
)
def test_a_value_that_cannot_be_used_is_one_clear_line(changed, kind):
    """Every wrong value is refused before anything is started, in one line."""
    with pytest.raises(kind) as error:
        parameters.check(**{**GOOD, **changed})

    assert "\n" not in str(error.value)


def test_analysing_asks_nothing_of_the_rest(run):
    """With a finished run, model and engine are not looked at and out may be empty."""
    parameters.check(**{**GOOD, "run": str(run.path), "out": "", "engine": "none"})
