import re

import pytest

from shoestring.errors import ShoestringError
from shoestring.truth.process import running_server


@pytest.mark.parametrize("module", ["json", "psutil", "asyncio"])
def test_files_of_the_current_folder_do_not_reach_the_server(tmp_path, monkeypatch, module):
    """A file called like a module, where the user stands, does not take its place in the child."""
    (tmp_path / f"{module}.py").write_text("raise RuntimeError('shadowed')\n")
    monkeypatch.chdir(tmp_path)
    with running_server() as server:
        assert server.base_url.startswith("http://127.0.0.1:")


def test_a_server_that_does_not_start_says_why_and_how_to_see_more(tmp_path):
    """One line holds the reason and the command that shows the server alone."""
    with (
        pytest.raises(ShoestringError, match="cannot write --log") as caught,
        running_server(log=tmp_path),
    ):
        pass
    message = str(caught.value)
    assert "\n" not in message
    assert re.search(r"; to see it alone, run: \S+ -P -m shoestring.truth$", message)


def test_a_long_reason_is_cut(tmp_path):
    """However much the server says, the line stays short."""
    with (
        pytest.raises(ShoestringError) as caught,
        running_server(log=tmp_path.joinpath(*["y" * 200] * 10)),
    ):
        pass
    assert len(str(caught.value)) < 600
