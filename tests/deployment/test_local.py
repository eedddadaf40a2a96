"""The systemd unit and the compose file: accepted by their own tools, and as safe as ``up``."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from shoestring.engines.install.pins import load_pins
from shoestring.stack import cli
from shoestring.stack.credentials import Credentials
from shoestring.stack.ollama_settings import ollama_environment
from shoestring.stack.open_webui.environment import pinned_version
from shoestring.stack.open_webui.settings import QUIET, SAFE, open_webui_environment

LOCAL = Path(__file__).parents[2] / "deployment" / "local"
UNIT = LOCAL / "shoestring-node.service"
NO_SECRET = Credentials("admin@localhost", "", "")
SECRETS = {"WEBUI_ADMIN_PASSWORD", "WEBUI_SECRET_KEY"}


@pytest.fixture
def services():
    """The services of the compose file."""
    return yaml.safe_load((LOCAL / "compose.yaml").read_text())["services"]


def verify(folder: Path, unit: Path) -> str:
    """Return what systemd says of a user's unit; nothing, if all is well."""
    program = folder / ".local" / "bin" / "shoestring"
    program.parent.mkdir(parents=True)
    program.symlink_to("/bin/true")
    done = subprocess.run(
        ["systemd-analyze", "verify", "--user", str(unit)], capture_output=True, text=True,
        check=False, env={**os.environ, "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder)},
    )  # fmt: skip
    return done.stdout + done.stderr


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is missing")
def test_systemd_accepts_the_unit(tmp_path):
    """Every key is known to it; a misspelt one it would ignore, and it says so."""
    assert verify(tmp_path / "home", UNIT) == ""
    wrong = tmp_path / UNIT.name
    wrong.write_text(UNIT.read_text().replace("ProtectSystem=", "ProtectSytem="))
    assert "Unknown key 'ProtectSytem'" in verify(tmp_path / "other", wrong)


def test_the_unit_calls_what_the_command_line_has():
    """Every option of its command exists, and it stays in the foreground."""
    command = re.search(r"^ExecStart=(.*)$", UNIT.read_text(), re.MULTILINE)[1]
    known = {
        word for option in cli.up.params for word in (*option.opts, *option.secondary_opts)
    }  # fmt: skip
    given = set(re.findall(r"--[\w-]+", command))
    assert "--foreground" in given
    assert given <= known


def test_the_unit_is_confined():
    """It may write to its own folders only, and gains no rights."""
    lines = set(UNIT.read_text().splitlines())
    assert {"NoNewPrivileges=yes", "ProtectSystem=strict", "ProtectHome=read-only",
            "PrivateTmp=yes", "UMask=0077"} <= lines  # fmt: skip


def test_the_containers_get_what_up_gives(services):
    """The same variables with the same values, but for the addresses between containers."""
    ours = open_webui_environment(
        folder=Path("/d"), ollama_url="http://ollama:11434", port=8080, credentials=NO_SECRET
    )
    theirs = services["open-webui"]["environment"]
    inherited = {"PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH"}
    of_the_image = {"HOME", "DATA_DIR"}
    expected = {
        name: value for name, value in ours.items()
        if name not in SECRETS | inherited | of_the_image
    }  # fmt: skip
    assert theirs == expected
    assert (SAFE | QUIET).items() <= theirs.items()
    ollama = ollama_environment("", store=None)
    del ollama["OLLAMA_HOST"]  # the image listens to the other container
    assert services["ollama"]["environment"] == ollama


def test_the_containers_are_on_loopback_and_pinned(services):
    """No port is open to others, and the versions are those of the pins."""
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service["cap_drop"] == ["ALL"]
        assert service["healthcheck"]["test"][0] == "CMD"
    assert services["ollama"]["image"] == f"ollama/ollama:{load_pins()['ollama'].version}"
    assert services["open-webui"]["image"].endswith(f":v{pinned_version()}")


def test_secrets_come_from_a_file_that_is_not_here(services):
    """They stand in no committed file, and the command that makes them lets nobody else read."""
    assert services["open-webui"]["env_file"] == ["secrets.env"]
    assert not SECRETS & set(services["open-webui"]["environment"])
    assert not (LOCAL / "secrets.env").exists()


def test_the_command_that_makes_the_secrets(tmp_path):
    """As the README has it: both, long, and mode 0600."""
    readme = (LOCAL / "README.md").read_text()
    command = re.search(r"^\(umask 077.*?secrets\.env\)$", readme, re.MULTILINE | re.DOTALL)[0]
    subprocess.run(["bash", "-euc", command], cwd=tmp_path, check=True)
    made = tmp_path / "secrets.env"
    values = dict(line.split("=", 1) for line in made.read_text().splitlines())
    assert set(values) == SECRETS
    assert all(len(value) >= 32 for value in values.values())
    assert made.stat().st_mode & 0o777 == 0o600


def test_the_gpu_file_adds_to_the_same_service(services):
    """On top of compose.yaml, it reserves the GPUs for Ollama and changes nothing else."""
    added = yaml.safe_load((LOCAL / "compose.gpu.yaml").read_text())["services"]
    assert list(added) == ["ollama"]
    assert set(added["ollama"]) == {"deploy"}
    assert "ollama" in services
