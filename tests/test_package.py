"""The package holds together: dependencies, locks, public names, and what the README promises."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import shoestring
from shoestring.stack.open_webui.environment import pinned_version

ROOT = Path(__file__).parents[1]
OPEN_WEBUI = ROOT / "src/shoestring/stack/open_webui"
EXPECTED = ("ollama", "jupyter", "papermill", "pandas", "matplotlib", "nvidia-ml-py", "requests",
            "nbconvert")  # fmt: skip
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def name_of(requirement: str) -> str:
    """The name in a requirement, as indexes spell it."""
    return re.match(r"[A-Za-z0-9._-]+", requirement)[0].lower().replace("_", "-")


def conda_names() -> set[str]:
    """The names in environment.yml, conda's and pip's."""
    lines = (ROOT / "environment.yml").read_text().splitlines()
    items = [line.strip()[2:] for line in lines if line.strip().startswith("- ")]
    return {name_of(item) for item in items if re.match(r"[A-Za-z]", item)}


@pytest.mark.parametrize("package", EXPECTED)
def test_expected_packages_are_everywhere(package):
    """Each expected package is in pyproject, environment.yml and the lock."""
    locked = re.findall(
        r"^([a-z0-9._-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE
    )

    assert package in {name_of(item) for item in PROJECT["dependencies"]}
    assert package in conda_names()
    assert package in locked


def test_open_webui_is_pinned_for_an_environment_of_its_own():
    """The ninth expected package is pinned, and kept out of this environment."""
    asked = (OPEN_WEBUI / "requirements.in").read_text()

    assert asked == f"open-webui=={pinned_version()}\n"
    assert re.fullmatch(r"\d+\.\d+\.\d+", pinned_version())
    assert "open-webui" not in {name_of(item) for item in PROJECT["dependencies"]}


def test_environment_and_project_agree():
    """What pyproject needs, environment.yml brings, with the engines on top."""
    assert {name_of(item) for item in PROJECT["dependencies"]} <= conda_names()
    assert {"ollama", "llama.cpp"} <= conda_names()


def test_locks_pin_by_hash_and_name_no_registry():
    """Every locked package has a hash, and no lock holds an address."""
    for lock in (
        ROOT / "requirements.lock",
        ROOT / "requirements-uv.lock",
        OPEN_WEBUI / "requirements.lock",
    ):
        text = lock.read_text()
        pins = re.findall(r"^[a-z0-9._-]+==.*?(?=^[a-z0-9]|\Z)", text, re.MULTILINE | re.DOTALL)
        assert pins
        assert all("--hash=sha256:" in pin for pin in pins)
        assert "://" not in text
        assert "index-url" not in text


def test_public_names_are_there():
    """Every name in __all__ can be imported, and the package lists nothing else."""
    assert sorted(shoestring.__all__) == dir(shoestring)
    for name in shoestring.__all__:
        assert getattr(shoestring, name).__doc__, name
    with pytest.raises(AttributeError, match="nothing"):
        shoestring.nothing  # noqa: B018


def test_import_is_light():
    """Importing the package brings none of its heavy dependencies."""
    code = "import sys, shoestring; print(len({'numpy', 'pandas', 'requests'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "0"


def test_the_readme_names_what_exists():
    """Every make target, shoestring command and link of the README is there."""
    readme = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    from shoestring.cli import COMMANDS

    for target in set(re.findall(r"^make (\w+)|`make (\w+)", readme, re.MULTILINE)):
        assert f"\n{target[0] or target[1]}:" in makefile
    assert set(re.findall(r"^shoestring (\w+)", readme, re.MULTILINE)) <= set(COMMANDS)
    for link in re.findall(r"\]\(([^)#:]+)\)", readme):
        assert (ROOT / link).exists(), link


def test_make_help_shows_every_target():
    """The list comes from the comments, and no target is without one."""
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[1].split()

    # As a user calls it, even where these tests were started by make.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    said = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True, env=environment
    )

    assert phony == [line.split()[1] for line in said.stdout.splitlines()]


def test_committed_files_name_no_machine():
    """No tracked text holds an absolute path of a machine or the host of a package registry."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    hosts = "|".join(
        ("py" + "pi" + r"\.org", "python" + "hosted", "npm" + "js", "crates" + r"\.io")
    )
    bad = re.compile(rf"(?<![\w.])/(root|home/\w+|Users/\w+|work)/|{hosts}")
    found = []
    for name in listed.stdout.split("\0"):
        path = ROOT / name
        if path.is_file() and path.suffix in {
            ".py", ".md", ".toml", ".yml", ".json", ".jsonl", ".ipynb", ".html", ".svg", ".lock", ""
        }:  # fmt: skip
            found += [name] if bad.search(path.read_text("utf-8", "replace")) else []

    assert found == []
