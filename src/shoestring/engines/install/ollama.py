"""Ollama: the vendor's release, or a build of the pinned Go module with our llama.cpp beside it.

The module's ``h1`` hash covers its ``go.sum``, and that the hash of every other module; the build
runs in the module's own folder, where Go obeys that file. (``go install MODULE@VERSION`` would
not: it takes the checksum database's word, which a user's settings may turn off.)
Ollama starts ``llama-server`` and ``llama-quantize`` from ``../lib/ollama`` of its own folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from shoestring.engines.install.answers import ask
from shoestring.engines.install.pins import load_pins
from shoestring.engines.install.release import unpack_release
from shoestring.errors import MissingError

if TYPE_CHECKING:
    from shoestring.engines.install.steps import Site

HELPERS = ("llama-server", "llama-quantize")
GO_MEND = "get it from go.dev/dl, or conda install -c conda-forge go; Debian's may be too old"
PROXY_MEND = "check the network and `go env GOPROXY`"


def from_vendor(site: Site) -> str:
    """Unpack the vendor's release: ``bin/ollama`` and ``lib/ollama/``, with CUDA's libraries.

    Raises:
        MissingError: it cannot be had.
    """
    return unpack_release(site, site.folder, strip=0)


def from_source(site: Site) -> str:
    """Build Ollama, and link the programs that it starts; llama.cpp is there already.

    Raises:
        MissingError: Go is missing or too old, or the module is not the pinned one.
        ShoestringError: the build failed.
    """
    source = site.pin.source
    go = _find_go(source["go"])
    environ = _go_environment(site.scratch)
    site.say(f"{site.label}: getting the module and building; the log is {site.log}")
    module = _fetch_module(site, go, environ)
    stamp = f"-X {source['module']}/version.Version={site.pin.version}"
    site.run(
        (go, "build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-ldflags", stamp,
         "-o", str(site.folder / "bin" / "ollama"), "."),
        cwd=module, environ=environ, mend="it needs a C compiler: apt-get install build-essential",
    )  # fmt: skip
    _link_helpers(site)
    return source["h1"]


def _find_go(wanted: str) -> str:
    go = shutil.which("go")
    if go is None:
        raise MissingError(f"go {wanted} or newer is missing: {GO_MEND}")
    said = " ".join(ask(go, "version").lines)
    found = re.search(r"\bgo(\d+)\.(\d+)", said)
    if found is None or (int(found[1]), int(found[2])) < tuple(map(int, wanted.split("."))):
        raise MissingError(f"go {wanted} or newer is needed, {go} says {said[:80]!a}: {GO_MEND}")
    return go


def _go_environment(scratch: Path) -> dict[str, str]:
    """Keep Go's own caches out of the home folder, unless the user placed them."""
    flags = f"{os.environ.get('GOFLAGS', '')} -modcacherw".strip()  # so that it can be removed
    environ = {"GOFLAGS": flags, "GOWORK": "off"}
    if not {"GOPATH", "GOMODCACHE"} & set(os.environ):
        environ["GOPATH"] = str(scratch / "go")
    if "GOCACHE" not in os.environ:
        environ["GOCACHE"] = str(scratch / "go-build")
    return environ


def _fetch_module(site: Site, go: str, environ: dict[str, str]) -> Path:
    """Download the module, compare its hash with the pinned one, and return its folder."""
    source = site.pin.source
    wanted = f"{source['module']}@v{site.pin.version}"
    command = (go, "mod", "download", "-json", wanted)
    lines = site.run(command, environ=environ, mend=PROXY_MEND)
    try:
        # Before the object, Go may speak of a newer toolchain.
        said = json.loads("\n".join(lines[lines.index("{") :]))
        found, folder = said["Sum"], Path(said["Dir"])
    except (ValueError, KeyError) as error:
        raise MissingError(
            f"{wanted} was not downloaded: {PROXY_MEND}; the log is {site.log}"
        ) from error
    if found != source["h1"]:
        raise MissingError(
            f"{wanted} was refused: its hash is {found}, not the pinned {source['h1']}; "
            "check `go env GOPROXY`"
        )
    return folder


def _link_helpers(site: Site) -> None:
    """Link llama.cpp's programs, relative, so that the cache can be moved."""
    llama_cpp = load_pins()["llama.cpp"].folder(Path())  # engines/llama.cpp-VERSION
    library = site.folder / "lib" / "ollama"
    library.mkdir(parents=True)
    for helper in HELPERS:
        (library / helper).symlink_to(Path("../../..", llama_cpp.name, "bin", helper))
