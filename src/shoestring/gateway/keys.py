"""Who asks: the keys of clients, what each may do, and the ring that knows a key when it sees one.

A user holds ``shoe_ID_SECRET``; the file has the SHA-256 of the secret. No slow hash is needed: the
secret is 256 random bits, which cannot be guessed as a password can. Here keys are read, in
:mod:`shoestring.gateway.keys_file` they are made and changed.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, Field, PlainSerializer, TypeAdapter, ValidationError
from pydantic.config import ConfigDict

from shoestring.errors import BadValueError
from shoestring.gateway.settings import Count  # noqa: TC001 - pydantic reads the annotations

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Scope = Literal["inference", "metrics", "dashboard", "admin"]
Period = Literal["day", "month", "ever"]
State = Literal["active", "expired", "revoked"]

PREFIX: Final = "shoe_"
ID_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"
ID_CHARACTERS: Final = 10
SECRET_BYTES: Final = 32  # 43 characters in URL-safe base64
PRESENTED: Final = re.compile(r"shoe_([a-z2-7]{10})_([A-Za-z0-9_-]{43})")
OTHERS: Final = 0o077  # what the group and everybody else may do
UTC_FORMAT: Final = "%Y-%m-%dT%H:%M:%SZ"  # of one length, so that texts compare as times do


def utc_now() -> datetime:
    """Return the wall-clock time: keys expire on a day that people name."""
    return datetime.now(UTC)


def utc_text(moment: datetime) -> str:
    """Return a time of UTC as the file has it."""
    return moment.strftime(UTC_FORMAT)


def _printable(text: str) -> str:
    """Refuse what could forge a line of a log or a table."""
    if not text.isprintable() or text != text.strip():
        raise ValueError("give printable characters without blanks at the ends")
    return text


def _no_key(name: str) -> str:
    """Refuse a pasted key, which would lie in the file as it is."""
    if name.startswith(PREFIX):
        raise ValueError(f"a name does not begin with {PREFIX}, as keys do")
    return name


def _utc(text: str) -> str:
    if utc_text(datetime.strptime(text, UTC_FORMAT).replace(tzinfo=UTC)) != text:
        raise ValueError("give it as 2026-01-31T23:59:59Z")
    return text


Id = Annotated[str, Field(pattern=r"^[a-z2-7]{10}$")]
Name = Annotated[
    str, Field(min_length=1, max_length=80), AfterValidator(_printable), AfterValidator(_no_key)
]
Glob = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]
Globs = Annotated[tuple[Glob, ...], Field(max_length=64)]
Time = Annotated[str, AfterValidator(_utc)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Scopes = Annotated[frozenset[Scope], Field(min_length=1), PlainSerializer(sorted)]
CONFIG: Final = ConfigDict(extra="forbid", hide_input_in_errors=True)


@dataclass(frozen=True)
class KeyLimits:
    """How much a key may ask for; None: what the gateway's settings say.

    Attributes:
        requests_per_minute: in any 60 s.
        tokens_per_minute: read and written, in any 60 s.
        concurrent: requests at the same time.
        budget_tokens: read and written, in ``budget_period``.
        budget_period: a day or month of UTC's calendar, or for good.
    """

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG

    requests_per_minute: Count | None = None
    tokens_per_minute: Count | None = None
    concurrent: Count | None = None
    budget_tokens: Count | None = None
    budget_period: Period = "month"


@dataclass(frozen=True)
class Key:
    """A client's key without its secret; not even the hashes show themselves.

    Attributes:
        id: public; in logs, lists and the key itself.
        name: for people.
        scopes: what it opens: ``admin`` opens the dashboard, too, ``metrics`` only the scrape.
        models: shell patterns of the models that it may use; none: all.
        limits: how much.
        created_utc: like all times here ``2026-01-31T23:59:59Z``.
        expires_utc: from then on it opens nothing.
        revoked_utc: since then it opens nothing, for good.
        secret_sha256: of the secret part, hexadecimal.
        previous_sha256: of the secret before the last rotation.
        previous_until_utc: until then that one opens, too.
    """

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG

    id: Id
    name: Name
    scopes: Scopes
    models: Globs
    limits: KeyLimits
    created_utc: Time
    expires_utc: Time | None
    revoked_utc: Time | None
    secret_sha256: Sha256 = field(repr=False)
    previous_sha256: Sha256 | None = field(default=None, repr=False)
    previous_until_utc: Time | None = None

    def may_use(self, model: str) -> bool:
        """Tell whether a model, as the client names it, is one of this key's."""
        return not self.models or any(fnmatchcase(model, glob) for glob in self.models)

    def allows(self, scope: Scope) -> bool:
        """Tell whether the key opens a part of the gateway."""
        return scope in self.scopes or (scope == "dashboard" and "admin" in self.scopes)

    def state(self, now_utc: str) -> State:
        """Return whether the key opens anything."""
        if self.revoked_utc is not None:
            return "revoked"
        return (
            "expired" if self.expires_utc is not None and self.expires_utc <= now_utc else "active"
        )

    def opens_with(self, secret: str, now_utc: str) -> bool:
        """Tell whether this is the key's secret; the time taken does not depend on the secret."""
        given = sha256(secret)
        current = hmac.compare_digest(given, self.secret_sha256)
        previous = hmac.compare_digest(given, self.previous_sha256 or self.secret_sha256)
        in_grace = self.previous_until_utc is not None and now_utc < self.previous_until_utc
        return (current or (previous and in_grace)) and self.state(now_utc) == "active"

    def to_public(self) -> dict[str, Any]:
        """Return what lists and the dashboard show: everything but the hashes."""
        shown = asdict(self)
        del shown["secret_sha256"], shown["previous_sha256"]
        return {**shown, "scopes": sorted(self.scopes), "models": list(self.models)}


@dataclass(frozen=True)
class KeyFile:
    """What the file holds."""

    __pydantic_config__: ClassVar[ConfigDict] = CONFIG

    version: Literal[1]
    keys: tuple[Key, ...]


FILE: Final = TypeAdapter(KeyFile)


def sha256(secret: str) -> str:
    """Return what is kept of a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


def read_keys(path: Path) -> tuple[Key, ...]:
    """Read the file; where there is none, there are no keys.

    Raises:
        BadValueError: it is damaged, cannot be read, or others can read or change it.
    """
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & OTHERS:
                raise BadValueError(f"{path} is open to others than its owner: chmod 600 {path}")
            text = file.read()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise BadValueError(
            f"cannot read the keys in {path}: {error.strerror}; give it to the user of the gateway"
        ) from error
    try:
        keys = FILE.validate_json(text).keys
    except ValidationError as error:
        raise _damaged(path, first_mistake(error)) from error
    twice = [name for name, count in Counter(key.id for key in keys).items() if count > 1]
    if twice:
        raise _damaged(path, f"two keys have the id {twice[0]}")
    return keys


def first_mistake(error: ValidationError) -> str:
    """Say in one line which field is wrong and why, without its value: it may be a secret."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ascii(".".join(str(part) for part in first["loc"]))[1:-1]
    said = first["msg"].removeprefix("Value error, ")
    return f"{where[:120]}: {said}" if where else said


def _damaged(path: Path, why: str) -> BadValueError:
    return BadValueError(
        f"{path} is damaged: {why}; restore a copy, or remove it and create the keys anew"
    )


# Stands in for unknown ids, so that they cost the same work; no secret has this hash.
_NOBODY: Final = Key(
    id="a" * ID_CHARACTERS,
    name="nobody",
    scopes=frozenset(),
    models=(),
    limits=KeyLimits(),
    created_utc="",
    expires_utc=None,
    revoked_utc="",
    secret_sha256=secrets.token_hex(32),
)


class KeyRing:
    """The keys of a file, in memory; a changed file is noticed by :meth:`reload`.

    Args:
        path: the file; it may come later.
        say: given one line when the file cannot be used any more, or is gone.
        now: of UTC.

    Attributes:
        problem: why the file cannot be used now; None: it can.

    Raises:
        BadValueError: the file is there and cannot be used.
    """

    def __init__(
        self, path: Path, *, say: Callable[[str], None], now: Callable[[], datetime] = utc_now
    ) -> None:
        self._path = path
        self._say = say
        self._now = now
        self._seen = _signature(path)
        self._keys = {key.id: key for key in read_keys(path)}
        self.problem: str | None = None

    def find(self, presented: str) -> Key | None:
        """Return the active key that a client shows; None for anything else.

        Which ids exist, and how much of a secret is right, cannot be told from the time taken.
        """
        parts = PRESENTED.fullmatch(presented)
        if parts is None:
            return None
        key = self._keys.get(parts[1], _NOBODY)
        return key if key.opens_with(parts[2], utc_text(self._now())) else None

    def reload(self) -> bool:
        """Read the file again if it changed; return whether it was read.

        A file that cannot be used leaves the keys as they were, and is complained of once. A file
        that is gone leaves none.
        """
        seen = _signature(self._path)
        if seen == self._seen:
            return False
        self._seen = seen  # taken before reading: what is written meanwhile is read next time
        try:
            keys = read_keys(self._path)
        except BadValueError as error:
            self.problem = str(error)
            self._say(f"{error}; the keys known before hold on")
            return False
        self._keys = {key.id: key for key in keys}
        self.problem = None
        if seen is None:
            self.problem = f"{self._path} is gone: no key opens anything until it is back"
            self._say(self.problem)
        return True

    def keys(self) -> tuple[Key, ...]:
        """Return all keys in the order of their making, those that open nothing included."""
        return tuple(self._keys.values())


def _signature(path: Path) -> tuple[int, ...] | None:
    """Return what changes when a file is replaced, written to or gets another mode."""
    try:
        seen = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:  # read_keys says what it is
        return (error.errno or 0,)
    return seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns
