"""Who is signed in to the dashboard: a cookie that names a key and is signed by the gateway.

Nothing is kept for a session, so all replicas with the same keys know it; revoking the key ends
it. The secret lies beside the keys, readable by their owner alone.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import tempfile
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from shoestring.errors import BadValueError
from shoestring.gateway.keys import OTHERS, utc_now, utc_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from shoestring.gateway.keys import Key, KeyRing

COOKIE = "shoestring_session"
LASTS_S = 8 * 3600
SECRET_FILE = "sessions.secret"  # noqa: S105 - a file's name


class Sessions:
    """Makes and reads the cookie.

    Args:
        keys_file: beside which the secret lies.
        ring: knows the keys.
        now: seconds since 1970.

    Raises:
        BadValueError: the secret can neither be read nor made.
    """

    def __init__(
        self, keys_file: Path, ring: KeyRing, *, now: Callable[[], float] = time.time
    ) -> None:
        self._secret = _secret(keys_file.with_name(SECRET_FILE))
        self._ring = ring
        self._now = now

    def cookie_for(self, key: Key) -> str:
        """Return the cookie of a key that has just been shown."""
        return self._signed(f"{key.id}.{_mark(key)}.{round(self._now()) + LASTS_S}")

    def find(self, cookie: str) -> Key | None:
        """Return the key of a cookie that is ours, not too old, and whose key is still good."""
        named, _, _ = cookie.rpartition(".")
        if not hmac.compare_digest(self._signed(named).encode(), cookie.encode("utf-8", "replace")):
            return None
        key_id, mark, ends = named.split(".")
        if int(ends) <= self._now():
            return None
        today = utc_text(utc_now())
        known = (key for key in self._ring.keys() if (key.id, _mark(key)) == (key_id, mark))  # noqa: SIM118 - no mapping
        return next((key for key in known if key.state(today) == "active"), None)

    def _signed(self, named: str) -> str:
        signature = hmac.new(self._secret, named.encode("utf-8", "replace"), hashlib.sha256)
        return f"{named}.{signature.hexdigest()}"


def _mark(key: Key) -> str:
    """Return what changes when a key gets another secret, so that its sessions end."""
    return key.secret_sha256[:16]


def cookie_in(headers: list[tuple[bytes, bytes]]) -> str:
    """Return the session's cookie of a request; empty: it has none."""
    for name, value in headers:
        if name == b"cookie":
            for part in value.decode("latin-1").split(";"):
                key, _, said = part.strip().partition("=")
                if key == COOKIE:
                    return said
    return ""


def _secret(path: Path) -> bytes:
    """Return the secret, made by whichever replica comes first."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name) as new:  # of mode 0600
            new.write(secrets.token_bytes(hashlib.sha256().digest_size))
            new.flush()
            with suppress(FileExistsError):
                os.link(new.name, path)  # whole or not at all
        with path.open("rb") as kept:
            open_to_others = os.fstat(kept.fileno()).st_mode & OTHERS
            found = kept.read()
    except OSError as error:
        raise BadValueError(f"cannot use {path}: {error}") from error
    if open_to_others:
        raise BadValueError(f"{path} is open to others than its owner: delete it and start again")
    if len(found) < hashlib.sha256().digest_size:
        raise BadValueError(f"{path} is cut: delete it and start again")
    return found
