"""The vendor's own archive: downloaded, its SHA-256 compared with the pinned one, unpacked.

Whatever is wrong with it is a :class:`MissingError`: the caller can build from the source instead.
"""

from __future__ import annotations

import hashlib
import shutil
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from shoestring.engines.install.pins import platform_key
from shoestring.errors import MissingError, ShoestringError
from shoestring.models.downloads import CHUNK_BYTES, check_space
from shoestring.models.progress import ProgressBar

if TYPE_CHECKING:
    from pathlib import Path

    from requests import Response

    from shoestring.engines.install.pins import Release
    from shoestring.engines.install.steps import Site

CONNECT_TIMEOUT_S = 5.0
SILENCE_TIMEOUT_S = 30.0  # between two pieces
UNPACKED_FACTOR = 4  # the archive and what is in it lie side by side for a moment


def unpack_release(site: Site, folder: Path, *, strip: int) -> str:
    """Bring the vendor's archive for this platform, and unpack it.

    Args:
        site: where the engine is made.
        folder: what the archive holds goes there.
        strip: how many leading folders of the archive's paths are left out.

    Returns:
        Its SHA-256, as a marker notes it.

    Raises:
        MissingError: there is none for this platform, the vendor cannot be reached, or the archive
            is not the pinned one.
    """
    release = site.pin.releases.get(platform_key())
    if release is None:
        raise MissingError(f"no release of {site.label} is pinned for {platform_key()}")
    archive = site.scratch / release.address.rpartition("/")[2]
    _download(site, release, archive)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        site.unpack(archive, folder, strip=strip)
    except ShoestringError as error:
        raise MissingError(str(error)) from error
    archive.unlink()
    return f"sha256:{release.sha256}"


def _download(site: Site, release: Release, archive: Path) -> None:
    import requests

    host = urlsplit(release.address).netloc
    site.say(f"{site.label}: asking {host} for {archive.name}")
    try:
        with requests.get(
            release.address, stream=True, timeout=(CONNECT_TIMEOUT_S, SILENCE_TIMEOUT_S)
        ) as response:
            response.raise_for_status()
            sha256 = _keep(site, response, archive)
    except requests.HTTPError as error:
        raise MissingError(
            f"{host} does not give {archive.name} (HTTP {error.response.status_code})"
        ) from error
    except requests.RequestException as error:
        raise MissingError(f"{host} cannot be reached ({type(error).__name__})") from error
    if sha256 != release.sha256:
        raise MissingError(
            f"{archive.name} from {host} was refused: its sha256 is {sha256}, "
            f"not the pinned {release.sha256}"
        )


def _keep(site: Site, response: Response, archive: Path) -> str:
    declared = response.headers.get("Content-Length", "")
    total_bytes = int(declared) if declared.isdigit() else 0
    free = shutil.disk_usage(site.scratch).free
    check_space(site.label, site.scratch, needed=total_bytes * UNPACKED_FACTOR, free=free)
    digest, done_bytes = hashlib.sha256(), 0
    with archive.open("wb") as out, ProgressBar(site.label) as bar:
        for chunk in response.iter_content(CHUNK_BYTES):
            out.write(chunk)
            digest.update(chunk)
            done_bytes += len(chunk)
            bar.update(done_bytes, max(total_bytes, done_bytes))
    return digest.hexdigest()
