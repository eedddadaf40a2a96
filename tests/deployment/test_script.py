"""The deployment script: the order of its commands, and that the node never stays up."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deployment" / "kaggle_ollama_webui.py"
PLAY = """
import json
answers = {
    "up": {"ollama": {"url": "http://127.0.0.1:1"}, "model": {"name": "m:latest"}},
    "run": {"path": "runs/r"},
}
if words[0] == FAILS:
    sys.exit(2)
print(json.dumps(answers.get(words[0])))
"""


@pytest.mark.parametrize(
    ("fails", "called"),
    [
        (None, ["up", "run", "report", "down"]),
        ("up", ["up"]),
        ("run", ["up", "run", "down"]),
        ("report", ["up", "run", "report", "down"]),
    ],
)
def test_the_commands_come_in_order_and_the_node_goes_down(play, tmp_path, fails, called):
    """Whatever fails after `up`, `down` is the last; and the script fails, too."""
    notes = play("shoestring", PLAY.replace("FAILS", repr(fails)))
    done = subprocess.run(
        [sys.executable, SCRIPT], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    lines = notes.read_text().splitlines()
    assert [line.split()[1] for line in lines] == called
    assert (done.returncode == 0) == (fails is None)
    if fails is None:
        assert "--base-url http://127.0.0.1:1 --model ollama:m:latest" in lines[1]
