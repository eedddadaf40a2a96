"""A tiny catalogue model: real wheels in a folder, fetched by the real pip without a network."""

import hashlib
import json
import os
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest

from shoestring.models.catalogue import PypiModel, Wheel

PARTS = (b"GGUF" + b"first part " * 1000, b"second part " * 2000, b"third")


@dataclass(frozen=True)
class TinyIndex:
    """A folder of wheels that pip can search, and the model that they make."""

    folder: Path
    model: PypiModel
    content: bytes

    @property
    def catalogue(self) -> dict[str, PypiModel]:
        """What a test passes instead of the real catalogue."""
        return {self.model.name: self.model}

    def wheel_path(self, wheel: Wheel) -> Path:
        """Return where a wheel lies in the folder."""
        return self.folder / f"{wheel.package.replace('-', '_')}-{wheel.version}-py3-none-any.whl"

    def write_catalogue(self, path: Path) -> Path:
        """Write the model for another process to read."""
        path.write_text(json.dumps(asdict(self.model)))
        return path


def build_wheel(folder: Path, package: str, member_name: str, content: bytes) -> Wheel:
    """Write a wheel with one member of interest."""
    module = package.replace("-", "_")
    path = folder / f"{module}-1.0.0-py3-none-any.whl"
    member = f"{module}/data/{member_name}"
    info = f"{module}-1.0.0.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, content)
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0.0\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return Wheel(package, "1.0.0", sha256, path.stat().st_size, member)


@pytest.fixture
def tiny(tmp_path: Path) -> TinyIndex:
    """Build the wheels of a tiny model."""
    folder = tmp_path / "index"
    folder.mkdir()
    parts = tuple(
        build_wheel(folder, f"tiny-part{n}", f"tiny.gguf.part{n:02}", part)
        for n, part in enumerate(PARTS, start=1)
    )
    terms = build_wheel(folder, "tiny", "TERMS.html", b"<p>terms</p>")
    content = b"".join(PARTS)
    model = PypiModel(
        name="tiny",
        file_name="tiny.gguf",
        sha256=hashlib.sha256(content).hexdigest(),
        file_bytes=len(content),
        parts=parts,
        terms=terms,
        licence="Tiny Terms",
        description="tiny",
    )
    return TinyIndex(folder, model, content)


@pytest.fixture
def offline_pip(tiny: TinyIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pip see the folder of wheels and nothing else."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tiny.folder))
