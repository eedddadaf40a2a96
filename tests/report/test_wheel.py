import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_wheel_carries_template_and_notebooks(tmp_path):
    """An installed package can render: its template, style and notebooks are in the wheel."""
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "--quiet",
         "--disable-pip-version-check", "--wheel-dir", str(tmp_path)],
        check=True,
    )  # fmt: skip
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())

    assert {
        "shoestring/report/template/index.html.j2",
        "shoestring/report/template/style.css",
        "shoestring/report/template/conf.json",
        "shoestring/notebooks/01_measure.ipynb",
    } <= names
