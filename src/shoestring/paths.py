"""Where things are kept: the user's cache, and nothing else outside the working folder."""

from __future__ import annotations

import os
from pathlib import Path

from shoestring.errors import BadValueError


def cache_dir() -> Path:
    """Return the folder for what can be fetched or built again (models, engines).

    ``SHOESTRING_CACHE`` wins; else the platform's user cache folder. It is not created here.

    Raises:
        BadValueError: ``SHOESTRING_CACHE`` begins with the home of a user who does not exist.
    """
    named = os.environ.get("SHOESTRING_CACHE")
    if named:
        try:
            return Path(named).expanduser()
        except RuntimeError as error:
            raise BadValueError(
                f"SHOESTRING_CACHE is {named[:80]!a}: no such home folder; give the path in full"
            ) from error
    from platformdirs import user_cache_path

    return user_cache_path("shoestring")
