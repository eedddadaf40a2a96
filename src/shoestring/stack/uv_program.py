"""Where uv is, which makes Open WebUI's environment and builds our wheel."""

from __future__ import annotations

from shoestring.errors import MissingError


def find_uv() -> str:
    """Return the path of the program.

    Raises:
        MissingError: it is not installed.
    """
    try:
        import uv

        return uv.find_uv_bin()
    except (ImportError, FileNotFoundError) as error:
        raise MissingError("uv is missing: python -m pip install uv") from error
