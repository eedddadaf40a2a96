"""The one certificate that a key can have, and the peer id that it stands for.

TLS wants certificates; all that is asked of one here is its ed25519 key. So its form is fixed:
subject and issuer are the peer id, it is valid for ever, and nothing else is left to choose, not
even the signature, which ed25519 makes the same each time. A peer's certificate is compared with
that form byte by byte, and no ASN.1 of a stranger is ever parsed by us.

The peer id is the raw public key (32 bytes) in base32 of RFC 4648, in lower case, without padding:
52 characters. Each is in the subject of its own certificate because OpenSSL looks trust anchors up
by subject: with one subject for all, a peer's certificate could stand in the way of another's.
"""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from shoestring.errors import BadValueError

KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
ID: Final = re.compile(r"[a-z2-7]{52}")
ID_PADDING: Final = "===="
KEY_HEAD: Final = bytes.fromhex("06032b6570032100")  # ed25519 (1.3.101.112), then 32 bytes
ALWAYS: Final = (datetime(1970, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))


def peer_id_of(public_key: bytes) -> str:
    """Return the peer id of a raw ed25519 public key."""
    return base64.b32encode(public_key).decode().rstrip("=").lower()


def public_key_of(peer_id: str) -> bytes:
    """Return the raw public key that a peer id is.

    Raises:
        BadValueError: it is none, or not written as we write it.
    """
    if ID.fullmatch(peer_id):
        key = base64.b32decode(peer_id.upper() + ID_PADDING)
        if peer_id_of(key) == peer_id:  # else it ends with bits that mean nothing
            return key
    raise BadValueError(
        f"{peer_id[:80]!a} is no peer id: it has 52 characters of a-z and 2-7; copy it whole"
    )


def make_certificate(key: Ed25519PrivateKey) -> bytes:
    """Return the certificate of a key, in DER."""
    certificate = _signed(key.public_key(), key)
    return certificate.public_bytes(Encoding.DER)


@lru_cache(maxsize=4096)  # 0.3 ms each, and a file of peers has up to a thousand
def read_certificate(certificate: bytes) -> str:
    """Return the peer id of a certificate in DER.

    Raises:
        BadValueError: it has not the fixed form, or its key did not sign it.
    """
    _, _, rest = certificate.partition(KEY_HEAD)
    if len(rest) >= KEY_BYTES:
        key = Ed25519PublicKey.from_public_bytes(rest[:KEY_BYTES])
        form = _signed(key, _ANYBODY)
        whole = form.public_bytes(Encoding.DER)
        if certificate[:-SIGNATURE_BYTES] == whole[:-SIGNATURE_BYTES]:
            try:
                key.verify(certificate[-SIGNATURE_BYTES:], form.tbs_certificate_bytes)
            except InvalidSignature:
                pass  # said below, as of any other wrong byte
            else:
                return peer_id_of(rest[:KEY_BYTES])
    raise BadValueError(
        f"a certificate of {len(certificate)} bytes has not the form of a peer's: "
        "have it sent again by a node of this version"
    )


def certificate_text(certificate: bytes) -> str:
    """Return a certificate as files and words hold it."""
    return base64.b64encode(certificate).decode()


def read_certificate_text(text: str) -> bytes:
    """Return a certificate, in DER and of the fixed form, that a file or a word holds.

    Raises:
        BadValueError: it is none.
    """
    try:
        certificate = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadValueError(
            f"a certificate of {len(text)} characters is not base64: have it sent again"
        ) from error
    read_certificate(certificate)
    return certificate


def _signed(key: Ed25519PublicKey, signer: Ed25519PrivateKey) -> x509.Certificate:
    peer_id = peer_id_of(key.public_bytes_raw())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, peer_id)])
    begins, ends = ALWAYS
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key)
        .serial_number(1)
        .not_valid_before(begins)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(signer, None)
    )


# Signs where only the form of what is signed matters.
_ANYBODY: Final = Ed25519PrivateKey.from_private_bytes(bytes(KEY_BYTES))
