"""Look up the project's dependencies in the databases of known vulnerabilities.

    python scripts/audit.py

Exit 1: one is known. Where a database cannot be reached that is said, and is no failure: a check
that could not be made must not look like one that was passed.
"""  # noqa: INP001 - a script

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "src/shoestring/gateway/dashboard"
TIMEOUT_S = 300


def main() -> int:
    """Audit both locks."""
    found = audit_python() + audit_npm()
    for line in found:
        print(line, file=sys.stderr)
    return 1 if found else 0


def audit_python() -> list[str]:
    """Return a line for each known vulnerability of a Python package."""
    said = _ask([sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes",
                 "--requirement", str(ROOT / "requirements.lock"), "--format", "json"])  # fmt: skip
    packages = said.get("dependencies") or []
    looked_up = [one for one in packages if "skip_reason" not in one]
    _say("Python packages", len(looked_up), len(packages))
    return [
        f"{one['name']} {one['version']}: {vulnerability['id']}"
        for one in looked_up
        for vulnerability in one["vulns"]
    ]


def audit_npm() -> list[str]:
    """Return a line for each package of the dashboard with a known vulnerability."""
    npm = shutil.which("npm")
    if npm is None:
        print("npm audit: not made, npm is not here")
        return []
    said = _ask([npm, "audit", "--json", "--prefix", str(PAGE)])
    if "vulnerabilities" not in said:
        _say("packages of the dashboard", 0, 0)
        return []
    count = said["metadata"]["dependencies"]["total"]
    _say("packages of the dashboard", count, count)
    return [f"{name}: {one['severity']}" for name, one in said["vulnerabilities"].items()]


def _ask(command: list[str]) -> dict[str, Any]:
    """Return what a tool said as JSON; empty: it said nothing that can be read."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, cwd=ROOT
    )
    try:
        said = json.loads(done.stdout)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _say(what: str, looked_up: int, count: int) -> None:
    if not looked_up:
        print(f"{what}: not audited, the database of vulnerabilities cannot be reached")
    elif looked_up < count:
        print(f"{what}: {looked_up} of {count} audited, the others are not in the database")
    else:
        print(f"{what}: {count} audited")


if __name__ == "__main__":
    sys.exit(main())
