"""Where things are kept outside the working folder: the user's cache, and the node's state.

What lies in the cache can be fetched or built again; the state (a password, chats) cannot.
"""

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
    named = _named("SHOESTRING_CACHE")
    if named is not None:
        return named
    from platformdirs import user_cache_path

    return user_cache_path("shoestring")


def state_dir() -> Path:
    """Return the folder for what the node keeps (``shoestring up``).

    ``SHOESTRING_STATE`` wins; else the platform's user state folder. It is not created here.

    Raises:
        BadValueError: ``SHOESTRING_STATE`` begins with the home of a user who does not exist.
    """
    named = _named("SHOESTRING_STATE")
    if named is not None:
        return named
    from platformdirs import user_state_path

    return user_state_path("shoestring")


def _named(variable: str) -> Path | None:
    """Return the folder that a variable of the user's names, or None where it names none."""
    named = os.environ.get(variable)
    if not named:
        return None
    try:
        return Path(named).expanduser().absolute()
    except RuntimeError as error:
        raise BadValueError(
            f"{variable} is {named[:80]!a}: no such home folder; give the path in full"
        ) from error
