"""Where things are kept: the user's cache, and nothing else outside the working folder."""

from __future__ import annotations

import os
from pathlib import Path


def cache_dir() -> Path:
    """Return the folder for what can be fetched or built again (models, engines).

    ``SHOESTRING_CACHE`` wins; else the platform's user cache folder. It is not created here.
    """
    named = os.environ.get("SHOESTRING_CACHE")
    if named:
        return Path(named).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("shoestring")
