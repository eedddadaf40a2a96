"""The node's secrets: the administrator's password, and the key that signs sign-ins.

They are made once, at random, in a file that only its owner can read; they stand nowhere else:
not in logs, records, bundles, notebooks or on command lines.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from shoestring.errors import BadValueError, MissingError
from shoestring.models.downloads import sync

if TYPE_CHECKING:
    from pathlib import Path

NAME = "credentials.json"
USER = "admin@localhost"
OWNER_ONLY = 0o600
PASSWORD_BYTES, KEY_BYTES = 18, 48


@dataclass(frozen=True)
class Credentials:
    """Who may sign in; the secrets are not shown by ``repr``."""

    user: str
    password: str = field(repr=False)
    secret_key: str = field(repr=False)


def ensure_credentials(folder: Path) -> Credentials:
    """Read the node's secrets, or make them.

    Args:
        folder: the node's, which exists.

    Raises:
        BadValueError: the file is damaged, or others can read it.
    """
    path = folder / NAME
    if not path.exists():
        made = Credentials(
            USER, secrets.token_urlsafe(PASSWORD_BYTES), secrets.token_urlsafe(KEY_BYTES)
        )
        new = path.with_name(f"{NAME}.new")
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY), "w") as file:
            json.dump(asdict(made), file)
        sync(new)
        new.replace(path)
    return read_credentials(folder)


def read_credentials(folder: Path) -> Credentials:
    """Read the node's secrets.

    Raises:
        MissingError: there are none: the node was never up.
        BadValueError: the file is damaged, or others can read it.
    """
    path = folder / NAME
    try:
        if stat.S_IMODE(path.stat().st_mode) != OWNER_ONLY:
            raise BadValueError(f"{path} can be read by others: chmod 600 {path}")
        return Credentials(**json.loads(path.read_text(encoding="utf-8")))
    except PermissionError as error:
        raise BadValueError(f"{path} is not yours to read: give SHOESTRING_STATE") from error
    except FileNotFoundError as error:
        raise MissingError(f"{path} is not there: shoestring up makes it") from error
    except (ValueError, TypeError) as error:
        raise BadValueError(
            f"{path} is damaged: remove it and {folder / 'open-webui'}, whose database has the "
            "old password"
        ) from error
