"""Whose money is where: the names of accounts, and which of them may be below zero.

==============================  ===================================================
``wallet:OWNER``                free, of an owner's key
``held:OWNER:REFERENCE``        set aside for one answer
``income:PEER``                 what a device earned
``client:PEER``                 whom a device of this book computed for; below zero: owed
``pool:rewards``                what is shared out for being there
``customer:OWNER:CUSTOMER``     of somebody to whom the owner sells on; below zero: owed
``resold:OWNER``                what the owner's customers were asked for at cost
``margin:OWNER``                what they were asked for above it
``voucher:CHANNEL``             outside money that a channel's vouchers are good for
``world``                       all other outside money
==============================  ===================================================
"""

from __future__ import annotations

import re
from typing import Final

WORLD: Final = "world"
REWARDS: Final = "pool:rewards"
MOST: Final = (1 << 53) - 1
"""Micro-credits, either way: what JSON's numbers hold exactly (RFC 8785, section 3.2.2.3)."""
ID: Final = "[a-z2-7]{52}"
NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
REFERENCE: Final = re.compile(rf"{NAME}(?:\.[1-9][0-9]{{0,2}})?")
"""Of an answer, a payment, a day: what happens once; of a refund, and its node's place behind."""
ACCOUNT: Final = re.compile(
    rf"world|pool:rewards|(?:wallet|income|client|resold|margin):{ID}|(?:held|customer):{ID}:{NAME}"
    rf"|voucher:{NAME}"
)
MAY_OWE: Final = frozenset({"world", "client", "customer", "voucher"})


def wallet(owner: str) -> str:
    """Return the account of what an owner may spend."""
    return f"wallet:{owner}"


def held(owner: str, reference: str) -> str:
    """Return the account of what is set aside for one answer."""
    return f"held:{owner}:{reference}"


def income(peer: str) -> str:
    """Return the account of what a device earned."""
    return f"income:{peer}"


def client(peer: str) -> str:
    """Return the account of a peer for whom a device of this book computed."""
    return f"client:{peer}"


def customer(owner: str, name: str) -> str:
    """Return the account of one to whom an owner sells on."""
    return f"customer:{owner}:{name}"


def sort_of(account: str) -> str:
    """Return what stands before the first colon."""
    return account.partition(":")[0]
