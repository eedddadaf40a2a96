"""Who this node is: an ed25519 key that is made once, the peer id and the certificate of it."""

from __future__ import annotations

import os
import ssl
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from shoestring.errors import BadValueError
from shoestring.swarm.certificates import make_certificate, peer_id_of, public_key_of
from shoestring.swarm.private_files import make_once, read_private

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY_FILE: Final = "identity.key"
SIGNED: Final = b"shoestring-swarm/1 "
"""What every signature of ours begins with; no certificate and no TLS handshake begins so."""


@dataclass(frozen=True)
class Identity:
    """A node's key; it does not show itself.

    Attributes:
        id: its peer id.
        certificate: of the fixed form, in DER.
    """

    id: str
    certificate: bytes
    _key: Ed25519PrivateKey = field(repr=False)

    def sign(self, purpose: str, message: bytes) -> bytes:
        """Return the signature (64 bytes) of a message, which is good for this purpose only."""
        return self._key.sign(_worded(purpose, message))

    def show_in(self, context: ssl.SSLContext) -> None:
        """Let a TLS context prove itself by this key."""
        certificate = ssl.DER_cert_to_PEM_cert(self.certificate).encode()
        with _as_file(certificate) as shown, _as_file(_pem(self._key)) as key:
            context.load_cert_chain(shown, key)


def load_identity(path: Path) -> Identity:
    """Return the identity that a file keeps; made by whichever process comes first.

    Raises:
        BadValueError: the file is open to others, damaged, or cannot be made or read.
    """
    kept = read_private(path)
    if kept is None:
        make_once(path, _pem(Ed25519PrivateKey.generate()))
        kept = read_private(path)
    try:
        key = load_pem_private_key(kept or b"", password=None)
    except (ValueError, TypeError) as error:  # no PEM; encrypted
        raise _damaged(path) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise _damaged(path)
    return Identity(
        id=peer_id_of(key.public_key().public_bytes_raw()),
        certificate=make_certificate(key),
        _key=key,
    )


def is_signed_by(peer_id: str, purpose: str, message: bytes, signature: bytes) -> bool:
    """Tell whether a peer signed a message for this purpose."""
    key = Ed25519PublicKey.from_public_bytes(public_key_of(peer_id))
    try:
        key.verify(signature, _worded(purpose, message))
    except InvalidSignature:
        return False
    return True


def _worded(purpose: str, message: bytes) -> bytes:
    return SIGNED + purpose.encode() + b"\0" + message


def _pem(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _damaged(path: Path) -> BadValueError:
    return BadValueError(
        f"{path} is no ed25519 key: restore a copy, or remove it to become another peer, "
        "whom all others must invite anew"
    )


@contextmanager
def _as_file(content: bytes) -> Iterator[str]:
    """Offer less than a pipe holds (64 KiB) under a name: OpenSSL takes keys from files alone."""
    ours, theirs = os.pipe()
    try:
        os.write(theirs, content)
    finally:
        os.close(theirs)
    try:
        yield f"/dev/fd/{ours}"
    finally:
        os.close(ours)
