import json
import sys
from pathlib import Path

import pytest

from shoestring.testing.engines import need_open_webui, need_program
from shoestring.testing.sealed import run_sealed, why_not

TINY = Path(__file__).parents[1] / "data" / "tiny.toml"


@pytest.mark.engine
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("small_model")
def test_up_chat_run_report_and_down_reach_for_nothing_outside(tmp_path, capfd):
    """The real thread, where only loopback works: all of it works, and no attempt is counted."""
    need_program("ollama")
    need_open_webui()
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    thread = [sys.executable, "-P", "-m", "shoestring.testing.sealed_node", str(TINY),
              "--requests", "2", "--out", str(tmp_path)]  # fmt: skip
    assert run_sealed(thread) == {"attempts": 0, "lost_packets": 0, "status": 0, "by": []}
    said = json.loads(capfd.readouterr().out)
    assert said["answer"]
    assert said["report"]["status"] == "complete"
    assert said["report"]["requests"]["ok"] == 2
