"""How does one file carry the package onto Kaggle or Colab, without this repository's address?

A built notebook is a small launcher (``deployment/*/launcher.ipynb``) with a payload in it: our
wheel, the lock of what it needs, and :mod:`shoestring.stack.bootstrap`, which installs both. The
same tree gives the same bytes: the wheel's builder is pinned, and no time or path is kept.
"""

from __future__ import annotations

import ast
import base64
import hashlib
import io
import json
import re
import subprocess
import tempfile
import textwrap
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shoestring.errors import BadValueError, MissingError, ShoestringError
from shoestring.report.parameters import check_parameters, notebook_parameters
from shoestring.stack import bootstrap
from shoestring.stack.uv_program import find_uv

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

BUILD_LOCK = Path("deployment/build.lock")
EXTRAS = ("screenshots",)
"""Of the package's extras, what a session in the cloud needs: pictures of Open WebUI."""
LEFT_OUT = (
    "shoestring/gateway/", "shoestring/notebooks/03_", "shoestring/notebooks/05_",
    "shoestring/notebooks/06_", "shoestring/quality/", "shoestring/report/economy_",
    "shoestring/report/service_", "shoestring/report/swarm_", "shoestring/swarm/",
    "shoestring/testing/audit_", "shoestring/testing/cheating_", "shoestring/testing/lab",
    "shoestring/testing/ledger_", "shoestring/testing/rpc_", "shoestring/testing/voucher_",
)  # fmt: skip
"""What such a session has no use for: a notebook may have 1 MB, and may not serve others."""
LINE_CHARACTERS = 1000
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The date of every member of a payload: the oldest that a zip can say."""
FILLED = ("parameters", "payload")
"""The cells of a launcher that the builder writes; all others are as they stand in it."""
SCRIPT = Path("deployment/kaggle_ollama_webui.py")
TITLE = "shoestring"


@dataclass(frozen=True)
class Payload:
    """What a built file carries: the bytes, in base64, and their SHA-256."""

    text: str
    sha256: str


def build_payload(root: Path) -> Payload:
    """Pack our wheel, its locks and the bootstrap.

    Args:
        root: the checkout.

    Raises:
        MissingError: it is no checkout, or uv is missing.
        ShoestringError: the wheel was not built.
    """
    project = tomllib.loads(_read(root, "pyproject.toml"))["project"]
    extras = project.get("optional-dependencies", {})
    wanted = [*project["dependencies"], *(name for key in EXTRAS for name in extras.get(key, ()))]
    members = {
        bootstrap.LOCK: needed_lock(_read(root, bootstrap.LOCK), wanted).encode(),
        bootstrap.UV_LOCK: _read(root, bootstrap.UV_LOCK).encode(),
        "shoestring_bootstrap.py": Path(bootstrap.__file__).read_bytes(),
    }
    with tempfile.TemporaryDirectory() as scratch:
        wheel = _build_wheel(root, Path(scratch))
        # Stored: LZMA around it halves what deflate inside it would leave.
        with zipfile.ZipFile(wheel) as packed:
            content = {name: packed.read(name) for name in packed.namelist()}
        members[wheel.name] = pack_zip(_needed_files(content), zipfile.ZIP_STORED)
    packed_members = pack_zip(members, zipfile.ZIP_LZMA)
    text = base64.b64encode(packed_members).decode()
    return Payload(text, hashlib.sha256(packed_members).hexdigest())


def needed_lock(lock: str, requirements: Iterable[str]) -> str:
    """Return the part of a lock that some requirements need, by what it says of itself.

    Args:
        lock: as ``uv pip compile`` writes it, each package with its ``# via``.
        requirements: what is wanted.

    Raises:
        MissingError: the lock lacks one.
    """
    blocks = re.findall(r"^\S.*(?:\n[ \t].*)*", lock, re.MULTILINE)
    packages = [(_name(block), _needed_by(block), block) for block in blocks if block[0] != "#"]
    wanted = {_name(requirement) for requirement in requirements}
    if lacking := wanted - {name for name, _, _ in packages}:
        raise MissingError(f"{bootstrap.LOCK} lacks {', '.join(sorted(lacking))}: run make lock")
    more: set[str] = wanted
    while more:
        more = {name for name, users, _ in packages if users & wanted} - wanted
        wanted |= more
    kept = [block for name, _, block in packages if name in wanted]
    return "".join(f"{_without_comments(block)}\n" for block in kept)


def fill_launcher(
    launcher: dict[str, Any], notebook: Path, payload: Payload, defaults: Mapping[str, str]
) -> dict[str, Any]:
    """Return a launcher with the parameters of a notebook and the payload in it.

    Args:
        launcher: as it stands in ``deployment/``; its own parameters come after the notebook's.
        notebook: what it is to execute.
        payload: what it carries.
        defaults: of parameters, other than the notebook's own.

    Raises:
        BadValueError: a parameter of the notebook is a name that the launcher sets, there is
            none of a name in ``defaults``, or its line is not as one would write it.
    """
    filled: dict[str, Any] = json.loads(json.dumps(launcher))
    cells = {cell["id"]: cell for cell in filled["cells"]}
    known = notebook_parameters(notebook)
    own = "".join(cells["parameters"]["source"])
    if both := sorted(_assigned(filled) & set(known)):
        raise BadValueError(f"{notebook.name} and the launcher both have {', '.join(both)}")
    sources = {
        "parameters": _parameters_source(notebook, defaults).rstrip() + "\n" + own,
        "payload": payload_source(payload)
        + f"NOTEBOOK = {notebook.stem!r}\nPARAMETERS = {tuple(known)!r}",
    }
    for name in FILLED:
        cells[name]["source"] = sources[name].strip().splitlines(keepends=True)
    return filled


def payload_source(payload: Payload) -> str:
    """Return the Python that holds a payload."""
    lines = textwrap.wrap(payload.text, LINE_CHARACTERS)
    return f'PAYLOAD_SHA256 = "{payload.sha256}"\nPAYLOAD = """\n{chr(10).join(lines)}\n"""\n'


def build_notebook(
    root: Path,
    platform: str,
    notebook: Path,
    payload: Payload,
    out: Path,
    defaults: Mapping[str, str],
) -> Path:
    """Write one self-contained notebook for a platform.

    Args:
        root: the checkout.
        platform: ``kaggle`` or ``colab``.
        notebook: one that the wheel carries.
        payload: of :func:`build_payload`.
        out: the folder.
        defaults: of parameters, other than the notebook's own.
    """
    launcher = json.loads(_read(root, f"deployment/{platform}/launcher.ipynb"))
    filled = fill_launcher(launcher, notebook, payload, defaults)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{TITLE}.ipynb"
    path.write_text(json.dumps(filled, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def build_script(root: Path, payload: Payload, out: Path) -> Path:
    """Write the deployment script with the payload in it, for a script kernel of Kaggle."""
    launcher = json.loads(_read(root, "deployment/kaggle/launcher.ipynb"))
    (install,) = (cell for cell in launcher["cells"] if cell["id"] == "install")
    parts = [payload_source(payload), "".join(install["source"]), _read(root, str(SCRIPT))]
    out.mkdir(parents=True, exist_ok=True)
    path = out / SCRIPT.name
    path.write_text("\n".join(part.strip() + "\n" for part in parts), encoding="utf-8")
    return path


def write_metadata(root: Path, code_file: Path, user: str, title: str = TITLE) -> Path:
    """Write what ``kaggle kernels push`` reads, beside a built notebook or script."""
    metadata = json.loads(_read(root, "deployment/kaggle/kernel-metadata.json"))
    metadata |= {
        "id": f"{user}/{title}",
        "title": title,
        "code_file": code_file.name,
        "kernel_type": "notebook" if code_file.suffix == ".ipynb" else "script",
    }
    path = code_file.with_name("kernel-metadata.json")
    path.write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
    return path


def pack_zip(members: dict[str, bytes], compression: int) -> bytes:
    """Pack files in the order of their names, with one date and one mode."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as archive:
        for name in sorted(members):
            member = zipfile.ZipInfo(name, EPOCH)
            member.external_attr = 0o644 << 16
            archive.writestr(member, members[name], compression)
    return packed.getvalue()


def _needed_files(wheel: dict[str, bytes]) -> dict[str, bytes]:
    """Return a wheel's files without the rooms that are left out, its own list of them mended."""
    kept = {name: data for name, data in wheel.items() if not name.startswith(LEFT_OUT)}
    (record,) = (name for name in kept if name.endswith(".dist-info/RECORD"))
    lines = kept[record].decode().splitlines(keepends=True)
    kept[record] = "".join(line for line in lines if not line.startswith(LEFT_OUT)).encode()
    return kept


def _build_wheel(root: Path, out: Path) -> Path:
    command = (
        find_uv(), "build", "--quiet", "--wheel", "--out-dir", str(out), "--require-hashes",
        "--build-constraints", str(root / BUILD_LOCK), str(root),
    )  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise ShoestringError(f"the wheel was not built: uv says {said.strip()}")
    (wheel,) = out.glob("*.whl")
    return wheel


def _parameters_source(notebook: Path, defaults: Mapping[str, str]) -> str:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    tagged = [c for c in cells if "parameters" in c.get("metadata", {}).get("tags", ())]
    source = "".join(tagged[0]["source"]) if tagged else ""
    for name, value in check_parameters(notebook, defaults).items():
        line = f"{name} = {_literal(notebook_parameters(notebook)[name].default)}"
        found = re.search(rf"^{re.escape(line)}(?=\s|$)", source, re.MULTILINE)
        if found is None:
            raise BadValueError(f"{notebook.name}: no line begins with {line}: write it so there")
        source = f"{source[: found.start()]}{name} = {_literal(value)}{source[found.end() :]}"
    return source


def _literal(value: str | float | bool) -> str:  # noqa: FBT001 - of any plain type
    return json.dumps(value) if isinstance(value, str) else repr(value)


def _assigned(launcher: dict[str, Any]) -> set[str]:
    """Return every name that the cells of a launcher set."""
    sources = ["".join(c["source"]) for c in launcher["cells"] if c["cell_type"] == "code"]
    nodes = [node for source in sources for node in ast.walk(ast.parse(source))]
    names = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return names | {n.asname or n.name for n in nodes if isinstance(n, ast.alias)}


def _needed_by(block: str) -> set[str]:
    comments = re.findall(r"^ +# +(?:via )?(\S.*)$", block, re.MULTILINE)
    return {_name(comment) for comment in comments}


def _without_comments(block: str) -> str:
    return "\n".join(line for line in block.splitlines() if not line.lstrip().startswith("#"))


def _name(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    return re.sub(r"[-_.]+", "-", found[0]).lower() if found else ""


def _read(root: Path, name: str) -> str:
    try:
        return (root / name).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise MissingError(f"{root / name} is missing: this is done in a checkout") from error
