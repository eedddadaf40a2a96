"""The file of keys, changed: keys are made, given a new secret, and revoked.

JSON that only its owner can read. A change is made under a lock and takes the file's place at
once, so that two commands at the same time lose nothing and a gateway never reads half of it.
"""

from __future__ import annotations

import os
import re
import secrets
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import TypeAdapter, ValidationError

from shoestring.errors import BadValueError
from shoestring.gateway.keys import (
    FILE,
    ID_ALPHABET,
    ID_CHARACTERS,
    PREFIX,
    SECRET_BYTES,
    Key,
    KeyFile,
    KeyLimits,
    first_mistake,
    read_keys,
    sha256,
    utc_now,
    utc_text,
)
from shoestring.models.downloads import locked, sync

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from datetime import datetime

    from shoestring.gateway.keys import Scope

OWNER_ONLY: Final = 0o600
LONGEST_DAYS: Final = 36_500
LONGEST_GRACE_S: Final = 30 * 86_400
KEY: Final = TypeAdapter(Key)
DEFAULT_SCOPES: Final[frozenset[Scope]] = frozenset({"inference"})
DEFAULT_LIMITS: Final = KeyLimits()


def create_key(
    path: Path,
    name: str,
    *,
    scopes: Collection[Scope] = DEFAULT_SCOPES,
    models: Iterable[str] = (),
    limits: KeyLimits = DEFAULT_LIMITS,
    expires_days: int | None = None,
    now: Callable[[], datetime] = utc_now,
) -> tuple[Key, str]:
    """Make a key and write it into the file, which is made where there is none.

    Args:
        path: the file.
        name: for people; several keys may have it.
        scopes: what it opens.
        models: shell patterns; none: all models.
        limits: how much it may ask for.
        expires_days: from now; None: never.
        now: of UTC.

    Returns:
        The key, and what its user shall hold: nothing else has the secret, and nothing can make
        it again.

    Raises:
        BadValueError: a value is wrong, or the file cannot be used.
    """
    if expires_days is not None and not 1 <= expires_days <= LONGEST_DAYS:
        raise BadValueError(f"expires_days: {expires_days}: give 1 to {LONGEST_DAYS}, or none")
    secret = secrets.token_urlsafe(SECRET_BYTES)
    made = now()
    key = _checked(
        Key(
            id="".join(secrets.choice(ID_ALPHABET) for _ in range(ID_CHARACTERS)),
            name=name,
            scopes=frozenset(scopes),
            models=tuple(models),
            limits=limits,
            created_utc=utc_text(made),
            expires_utc=utc_text(made + timedelta(expires_days)) if expires_days else None,
            revoked_utc=None,
            secret_sha256=sha256(secret),
        )
    )
    with _changing(path) as (real, keys):
        _write(real, (*keys, key))
    return key, f"{PREFIX}{key.id}_{secret}"


def rotate_key(
    path: Path,
    id_or_name: str,
    *,
    grace_s: int,
    now: Callable[[], datetime] = utc_now,
) -> tuple[Key, str]:
    """Give a key a new secret; the old one opens for ``grace_s`` more seconds.

    One old secret is known at a time: a second rotation ends the grace of the first.

    Returns:
        The key, and what its user shall hold from now on.

    Raises:
        BadValueError: no such key, or it opens nothing any more, or the file cannot be used.
    """
    if not 0 <= grace_s <= LONGEST_GRACE_S:
        raise BadValueError(f"grace_s: {grace_s}: give 0 to {LONGEST_GRACE_S} seconds")
    secret = secrets.token_urlsafe(SECRET_BYTES)
    moment = now()
    with _changing(path) as (real, keys):
        key = find_key(keys, id_or_name, path)
        state = key.state(utc_text(moment))
        if state != "active":
            raise BadValueError(f"key {key.id} is {state}: create another one")
        rotated = replace(
            key,
            secret_sha256=sha256(secret),
            previous_sha256=key.secret_sha256 if grace_s else None,
            previous_until_utc=utc_text(moment + timedelta(seconds=grace_s)) if grace_s else None,
        )
        _write(real, (rotated if one.id == key.id else one for one in keys))
    return rotated, f"{PREFIX}{key.id}_{secret}"


def revoke_key(path: Path, id_or_name: str, *, now: Callable[[], datetime] = utc_now) -> Key:
    """End a key for good; one that is revoked already stays as it is.

    Raises:
        BadValueError: no such key, several of that name, or the file cannot be used.
    """
    with _changing(path) as (real, keys):
        key = find_key(keys, id_or_name, path)
        if key.revoked_utc is None:
            key = replace(key, revoked_utc=utc_text(now()))
            _write(real, (key if one.id == key.id else one for one in keys))
    return key


def find_key(keys: Sequence[Key], id_or_name: str, path: Path) -> Key:
    """Return the key that is meant: by its id, by the key itself, or by a name that only it has.

    Of several with a name the one that is not revoked is meant.

    Args:
        keys: all of them.
        id_or_name: a whole key is taken, too: whoever finds a leaked one has just that.
        path: for the message.

    Raises:
        BadValueError: none, or several.
    """
    meant = _id_in(id_or_name)
    by_id = [key for key in keys if key.id == meant]
    named = by_id or [key for key in keys if key.name == meant]
    found = named if len(named) == 1 else [key for key in named if key.revoked_utc is None]
    if len(found) == 1:
        return found[0]
    shown = ascii(meant[:80])
    if named:
        ids = ", ".join(key.id for key in (found or named)[:5])
        raise BadValueError(f"several keys have the name {shown}: give one's id ({ids})")
    raise BadValueError(f"no key {shown} in {path}: shoestring keys list shows them")


def _id_in(text: str) -> str:
    """Return the id where a key is given, so that no message ever shows its secret."""
    found = re.match(rf"{PREFIX}([^_]{{0,{ID_CHARACTERS}}})", text)
    return found[1] if found else text


def _checked(key: Key) -> Key:
    """Hold a new key to what the file may have.

    Raises:
        BadValueError: in one line which field, and why.
    """
    try:
        return KEY.validate_python(asdict(key))
    except ValidationError as error:
        raise BadValueError(first_mistake(error)) from error


@contextmanager
def _changing(path: Path) -> Iterator[tuple[Path, tuple[Key, ...]]]:
    """Hold the one right to change the file; yields where it really lies, and its keys."""
    # Replacing a link would leave the file behind it, which a gateway may read, as it was.
    real = Path(os.path.realpath(path))
    try:
        real.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(real, _wait_silently):
            yield real, read_keys(real)
    except OSError as error:
        raise BadValueError(
            f"cannot change the keys in {path}: {error.strerror}; run as the file's owner, "
            "or give another file"
        ) from error


def _wait_silently(_line: str) -> None:
    """Say nothing: others hold the lock for milliseconds."""


def _write(path: Path, keys: Iterable[Key]) -> None:
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)  # of a process that died; the lock is ours
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, OWNER_ONLY)  # whatever the umask
        if path.exists():  # root changes a file of the gateway's user: it stays that user's
            before, made = path.stat(), os.fstat(descriptor)
            if (before.st_uid, before.st_gid) != (made.st_uid, made.st_gid):
                os.fchown(descriptor, before.st_uid, before.st_gid)
        file.write(FILE.dump_json(KeyFile(1, tuple(keys)), indent=1) + b"\n")
    sync(new)
    new.replace(path)
    sync(path.parent)
