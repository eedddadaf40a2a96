"""A folder with a private file for each channel: what one answer changes does not read the rest."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from shoestring.errors import BadValueError
from shoestring.swarm.private_files import changing, read_records, write_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from shoestring.swarm.vouchers.channels import Channel

MOST_KEPT: Final = 4_096


class OfChannel(Protocol):
    """What is kept of a channel."""

    @property
    def channel(self) -> Channel:
        """Of which."""

    def word(self) -> dict[str, Any]:
        """Return it as it is written."""


T = TypeVar("T", bound=OfChannel)


class Kept(Generic[T]):
    """What is kept of each channel.

    Args:
        folder: of the files; made with the first.
        read: raises BadValueError of a record that is none.
        mend: what to do with a damaged file, for the message.
    """

    def __init__(self, folder: Path, read: Callable[[dict[str, Any]], T], mend: str) -> None:
        self._folder = folder
        self._read = read
        self._mend = mend

    def all(self) -> list[T]:
        """Return all that is kept, in the order of the channels' ids.

        Raises:
            BadValueError: a file is damaged, or cannot be read.
        """
        found = [self._one(path) for path in sorted(self._folder.glob("0x*.json"))]
        return [one for one in found if one is not None]

    def one(self, channel_id: str) -> T | None:
        """Return what is kept of a channel; None: nothing.

        Raises:
            BadValueError: the file is damaged, or cannot be read.
        """
        return self._one(self._path(channel_id))

    @contextmanager
    def changing(self, channel_id: str) -> Iterator[None]:
        """Hold the one right to change what is kept of a channel.

        Raises:
            BadValueError: the file cannot be changed.
        """
        with changing(self._path(channel_id)):
            yield

    def keep(self, kept: T) -> None:
        """Write, in the place of what was kept; called inside :meth:`changing`.

        Raises:
            BadValueError: it is of one channel too many.
        """
        path = self._path(kept.channel.id)
        if not path.exists() and sum(1 for _ in self._folder.glob("0x*.json")) >= MOST_KEPT:
            raise BadValueError(
                f"{self._folder} keeps {MOST_KEPT} channels: remove files of settled ones"
            )
        write_records(path, [kept.word()])

    def _one(self, path: Path) -> T | None:
        records = read_records(path, self._read, mend=self._mend)
        if not records:
            return None
        if path != self._path(records[0].channel.id):
            raise BadValueError(f"{path} is of channel {records[0].channel.id}: {self._mend}")
        return records[0]

    def _path(self, channel_id: str) -> Path:
        return self._folder / f"{channel_id}.json"
