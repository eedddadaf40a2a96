"""A wallet: an owner's key, the devices that it attested, and what the book says it holds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from shoestring.errors import BadValueError
from shoestring.swarm.identity import load_identity
from shoestring.swarm.ledger.accounts import client, held, income, wallet
from shoestring.swarm.ledger.owning import Ownership, ownership_of
from shoestring.swarm.private_files import OwnersFile, changing, read_records, write_records

if TYPE_CHECKING:
    from pathlib import Path

    from shoestring.swarm.identity import Identity
    from shoestring.swarm.ledger.book import Book
    from shoestring.swarm.ledger.entries import Entry
    from shoestring.swarm.ledger.reading import Reading

WALLET_FILE: Final = "wallet.key"
DEVICES_FILE: Final = "devices.json"
MOST_DEVICES: Final = 1_024


def load_wallet(folder: Path) -> Identity:
    """Return the owner's key, which a folder keeps.

    Raises:
        BadValueError: there is none, or it cannot be used.
    """
    path = folder / WALLET_FILE
    if not path.exists():
        raise BadValueError(
            f"no wallet in {folder}: `shoestring swarm wallet create` makes one, "
            "or copy your wallet.key there"
        )
    return load_identity(path)


class Devices(OwnersFile):
    """The file of ownerships; every call reads it anew, as each is rare.

    Args:
        path: the file; it may come later.
        now: seconds since 1970.
    """

    def all(self) -> list[Ownership]:
        """Return all that are kept, those that have expired included.

        Raises:
            BadValueError: the file cannot be used.
        """
        mend = "restore a copy, or remove it and link the devices anew"
        return read_records(self._path, ownership_of, mend=mend)

    def of(self, owner: str) -> list[str]:
        """Return the devices that are an owner's now."""
        now_s = self._now()
        return [one.device for one in self.all() if one.owner == owner and not one.fault(now_s)]

    def keep(self, ownership: Ownership) -> None:
        """Keep an ownership, in the place of an older one of the same device and owner.

        Raises:
            BadValueError: it shows nothing, is older than what is kept, or the device is another
                owner's.
        """
        now_s = self._now()
        why = ownership.fault(now_s)
        if why is not None:
            raise BadValueError(f"{ownership.device} is not linked: {why}")
        with changing(self._path):
            others = []
            for one in self.all():
                if one.device != ownership.device:
                    others.append(one)
                    continue
                if one.owner != ownership.owner and one.fault(now_s) is None:
                    raise BadValueError(
                        f"{one.device} is linked to {one.owner} already: "
                        "`shoestring swarm wallet unlink` ends that here"
                    )
                if one.owner == ownership.owner and one.made_s > ownership.made_s:
                    raise BadValueError(f"{one.device} is linked by a newer one: nothing changes")
            if len(others) >= MOST_DEVICES:
                raise BadValueError(f"{MOST_DEVICES} devices are linked: unlink some first")
            write_records(self._path, (asdict(one) for one in [*others, ownership]))

    def drop(self, device: str) -> None:
        """Forget whose a device is.

        Raises:
            BadValueError: nothing is kept about it.
        """
        with changing(self._path):
            kept = self.all()
            left = [one for one in kept if one.device != device]
            if len(left) == len(kept):
                raise BadValueError(f"no device {device[:80]!a}: `wallet devices` shows them")
            write_records(self._path, (asdict(one) for one in left))


@dataclass(frozen=True)
class Balance:
    """What an owner has by a book, in micro-credits.

    Attributes:
        free: may be spent; None: there is no wallet.
        held: set aside, by reference.
        income: of each device, not yet collected.
        owed: by each peer for whom a device of this book computed, as receipts say; nobody has
            paid it yet.
    """

    free: int | None
    held: dict[str, int]
    income: dict[str, int]
    owed: dict[str, int]


def balance_of(book: Reading | None, owner: str | None, devices: list[str]) -> Balance:
    """Return what an owner has; without a book nothing.

    Args:
        book: the book; None: nothing was booked yet.
        owner: whose; None: there is no wallet, and devices alone are shown.
        devices: whose income is shown.
    """
    if book is None:
        return Balance(0, {}, dict.fromkeys(devices, 0), {})
    beginning, client_beginning = "" if owner is None else held(owner, ""), client("")
    return Balance(
        free=None if owner is None else book.balance(wallet(owner)),
        held={} if owner is None else {
            name.removeprefix(beginning): micro for name, micro in book.balances(beginning).items()
        },
        income={device: book.balance(income(device)) for device in devices},
        owed={name.removeprefix(client_beginning): -micro
              for name, micro in book.balances(client_beginning).items() if micro < 0},
    )  # fmt: skip


def collect(book: Book, owner: str, device: str) -> Entry | None:
    """Move what a device earned into its owner's wallet; None: it has nothing.

    Args:
        book: the book.
        owner: whose wallet.
        device: one that is seen to be the owner's (:meth:`Devices.of`).
    """
    with book.writing():
        number, _ = book.end()
        micro = book.balance(income(device))
        if not micro:
            return None
        postings = ((income(device), -micro), (wallet(owner), micro))
        return book.add("collect", postings, reference=f"{device}.{number + 1}")
