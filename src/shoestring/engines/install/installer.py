"""One engine, brought once: found whole, adopted, from its vendor, or built.

It is made beside its final place, in ``NAME.partial-PID/``, and moved there whole; what Ctrl-C
leaves is removed at once, what a kill leaves by the next call. A file lock admits one process.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shoestring.engines.install import llama_cpp, ollama
from shoestring.engines.install.answers import why_not_pinned
from shoestring.engines.install.marker import find_damage, read_marker, write_marker
from shoestring.engines.install.pins import load_pins
from shoestring.engines.install.steps import Site
from shoestring.errors import MissingError
from shoestring.models.downloads import locked

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from shoestring.engines.install.marker import Marker
    from shoestring.engines.install.pins import Pin


@dataclass(frozen=True)
class Recipe:
    """How an engine is made; each way fills a site's folder and says what it was made of."""

    from_vendor: Callable[[Site], str]
    from_source: Callable[[Site], str]
    source_needs: tuple[str, ...] = ()  # engines that must be there before a build


RECIPES = {
    "llama.cpp": Recipe(llama_cpp.from_vendor, llama_cpp.from_source),
    "ollama": Recipe(ollama.from_vendor, ollama.from_source, ("llama.cpp",)),
}


def install_engine(
    pin: Pin, cache: Path, *, say: Callable[[str], None], from_source: bool = False
) -> Marker:
    """Bring an engine into the cache, unless it is there and whole.

    Args:
        pin: which.
        cache: the cache folder (:func:`shoestring.paths.cache_dir`).
        say: given lines for the user.
        from_source: do not ask the vendor.

    Returns:
        What is noted in its folder.

    Raises:
        MissingError: a tool, the network or space is missing.
        ShoestringError: the build failed, or made something else than the pinned engine.
    """
    folder = pin.folder(cache)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder, say):
            for leftover in folder.parent.glob(f"{folder.name}.partial-*"):
                # What cannot be removed now (a dying child may still write) goes the next time.
                shutil.rmtree(leftover, ignore_errors=True)
            marker = _accept(pin, folder, say)
            return marker or _make(pin, cache, say=say, from_source=from_source)
    except OSError as error:
        raise MissingError(
            f"cannot keep engines in {folder.parent}: {error.strerror}; "
            "free some space or set SHOESTRING_CACHE to a folder that you can write"
        ) from error


def _accept(pin: Pin, folder: Path, say: Callable[[str], None]) -> Marker | None:
    """Take what is there, if it is the pinned engine and whole."""
    label = f"{pin.name} {pin.version}"
    if not folder.exists():
        return None
    marker = read_marker(folder)
    if marker is None:
        problem = why_not_pinned(folder, pin)
        if problem is None:
            say(f"{label}: found without a note, its programs answer as they should: adopted")
            return write_marker(folder, pin, how="adopted", source=None)
    else:
        problem = find_damage(folder, marker, pin)
        if problem is None:
            say(f"{label}: there and whole ({marker.how})")
            return marker
    say(f"{label}: {problem}; making it anew")
    return None


def _make(pin: Pin, cache: Path, *, say: Callable[[str], None], from_source: bool) -> Marker:
    folder = pin.folder(cache)
    partial = folder.with_name(f"{folder.name}.partial-{os.getpid()}")
    site = Site(
        pin=pin,
        folder=partial / "made",
        scratch=partial / "scratch",
        log=folder.with_name(f"{folder.name}.log"),
        say=say,
    )
    site.log.write_text("")
    try:
        how, source = _fill(site, cache, from_source=from_source)
        marker = write_marker(site.folder, pin, how=how, source=source)
        if folder.exists():
            folder.replace(partial / "old")
        site.folder.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # likewise
    say(f"{site.label}: ready in {folder} ({how})")
    return marker


def _fill(site: Site, cache: Path, *, from_source: bool) -> tuple[str, str]:
    """Make the engine, and ask it what it is; return how it was made, and of what."""
    recipe = RECIPES[site.pin.name]
    if not from_source:
        try:
            return "vendor", _checked(site, recipe.from_vendor)
        except MissingError as error:
            site.say(f"{site.label}: {error}; building from the source instead")
    for name in recipe.source_needs:
        install_engine(load_pins()[name], cache, say=site.say, from_source=from_source)
    return "source", _checked(site, recipe.from_source)


def _checked(site: Site, recipe: Callable[[Site], str]) -> str:
    for folder in (site.folder, site.scratch):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    source = recipe(site)
    problem = why_not_pinned(site.folder, site.pin)
    if problem is None:
        return source
    raise MissingError(f"what was made is not the pinned engine: {problem}; the log is {site.log}")
