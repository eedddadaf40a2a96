"""A node's key: made once, kept from others, and one certificate that nothing else looks like."""

import os
import subprocess
import sys
from datetime import UTC, datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from shoestring.errors import BadValueError
from shoestring.swarm.certificates import (
    make_certificate,
    peer_id_of,
    public_key_of,
    read_certificate,
    read_certificate_text,
)
from shoestring.swarm.identity import is_signed_by, load_identity

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
LOAD = """
import sys
from pathlib import Path
from shoestring.swarm.identity import load_identity
sys.stdin.read(1)
print(load_identity(Path(sys.argv[1])).id)
"""


@pytest.fixture
def path(tmp_path):
    """Where the key is."""
    return tmp_path / "swarm" / "identity.key"


@pytest.fixture(params=[0o000, 0o022, 0o277], ids=["loose", "usual", "strict"])
def umask(request):
    """A umask for the test alone."""
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def named(key, name, extensions=(), issuer=None, signer=None):
    """Return a certificate of a key as somebody else would make it."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, issuer or name)]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(1970, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(signer or key, None).public_bytes(Encoding.DER)


def test_the_key_is_made_once_and_is_its_owners_alone(path):
    """A second start is the same peer with the same certificate."""
    first, second = load_identity(path), load_identity(path)

    assert (first.id, first.certificate) == (second.id, second.certificate)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o077 == 0
    assert [entry.name for entry in path.parent.iterdir()] == ["identity.key"]


@pytest.mark.usefixtures("umask")
def test_the_key_is_its_owners_alone_whatever_the_umask(tmp_path):
    """Also where it forbids more than usual."""
    load_identity(tmp_path / "identity.key")

    assert (tmp_path / "identity.key").stat().st_mode & 0o077 == 0


def test_processes_that_start_at_once_are_one_peer(path):
    """Whichever made the key."""
    starts = [
        subprocess.Popen(
            [sys.executable, "-c", LOAD, path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(4)
    ]  # fmt: skip
    for start in starts:
        start.stdin.write("x")
        start.stdin.flush()
    said = {start.communicate(timeout=120)[0] for start in starts}

    assert said == {f"{load_identity(path).id}\n"}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o610, 0o602])
def test_a_key_that_others_can_use_is_refused(path, mode):
    """In one line that names the file and the mend."""
    load_identity(path)
    path.chmod(mode)

    with pytest.raises(BadValueError, match=r"identity\.key is open to others.*chmod 600") as said:
        load_identity(path)
    assert len(str(said.value).splitlines()) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no key",
        KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")),
        generate_private_key(65537, 2048).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        ),
    ],
    ids=["empty", "text", "encrypted", "RSA"],
)
def test_what_is_no_key_of_ours_is_refused_and_left_as_it_is(path, content):
    """It may be what the owner wants to mend."""
    load_identity(path)
    path.write_bytes(content)

    with pytest.raises(BadValueError, match="is no ed25519 key"):
        load_identity(path)
    assert path.read_bytes() == content


def test_an_identity_does_not_show_its_key(path):
    """Neither printed nor in an error's frame."""
    identity = load_identity(path)

    assert "key" not in repr(identity).lower().replace("certificate", "")


@given(st.binary(min_size=32, max_size=32))
def test_a_peer_id_is_its_key(key):
    """52 characters, and back."""
    peer_id = peer_id_of(key)

    assert len(peer_id) == 52
    assert public_key_of(peer_id) == key


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz234567018ABZ= é", min_size=50, max_size=54))
def test_a_text_is_the_peer_id_of_one_key_or_none(text):
    """No two texts are one peer: the last character's spare bits, too, are looked at."""
    try:
        key = public_key_of(text)
    except BadValueError as error:
        said = str(error)
        assert len(said.splitlines()) == 1
        return
    assert peer_id_of(key) == text


def test_the_spare_bits_of_a_peer_id_are_none():
    """Its last character has one bit of the key and four that mean nothing."""
    assert public_key_of("a" * 52) == bytes(32)
    for last in "bcdefghijklmnop":
        with pytest.raises(BadValueError, match="no peer id"):
            public_key_of("a" * 51 + last)


def test_a_certificate_says_its_key_and_nothing_else():
    """Neither a name, a machine, a date, nor anything by chance."""
    certificate = x509.load_der_x509_certificate(make_certificate(KEY))
    peer_id = peer_id_of(KEY.public_key().public_bytes_raw())

    assert certificate.subject.rfc4514_string() == certificate.issuer.rfc4514_string()
    assert certificate.subject.rfc4514_string() == f"CN={peer_id}"
    assert make_certificate(KEY) == make_certificate(KEY)
    assert read_certificate(make_certificate(KEY)) == peer_id


@given(st.binary(min_size=32, max_size=32))
def test_every_key_has_a_certificate_that_is_read_back(seed):
    """Whatever bytes the key has, those that look like ASN.1 too."""
    key = Ed25519PrivateKey.from_private_bytes(seed)

    assert read_certificate(make_certificate(key)) == peer_id_of(
        key.public_key().public_bytes_raw()
    )


def test_no_other_certificate_of_the_same_key_is_taken():
    """Of another subject, an authority's, another's signature, with a tail."""
    ours, peer_id = make_certificate(KEY), peer_id_of(KEY.public_key().public_bytes_raw())
    leaf = x509.BasicConstraints(ca=False, path_length=None)
    other = Ed25519PrivateKey.generate()
    assert named(KEY, peer_id, [leaf]) == ours  # the attacks below begin from the form itself

    for attack in (
        named(KEY, "somebody", [leaf]),
        named(KEY, peer_id),
        named(KEY, peer_id, [x509.BasicConstraints(ca=True, path_length=None)]),
        named(KEY, peer_id, [leaf], signer=other),
        named(KEY, peer_id, [leaf], issuer="somebody"),
        ours + b"\0",
        ours[:-1],
        ours[:40],
        b"",
    ):
        with pytest.raises(BadValueError, match="has not the form"):
            read_certificate(attack)


@given(at=st.integers(0, 10_000), to=st.integers(1, 255))
def test_a_certificate_with_one_byte_changed_is_none(at, to):
    """Wherever it is."""
    changed = bytearray(make_certificate(KEY))
    changed[at % len(changed)] ^= to

    with pytest.raises(BadValueError, match="has not the form"):
        read_certificate(bytes(changed))


@given(st.text(max_size=300))
def test_a_text_that_is_no_certificate_is_refused(text):
    """As words and files may hold anything."""
    with pytest.raises(BadValueError):
        read_certificate_text(text)


def test_a_signature_is_good_for_its_message_purpose_and_peer_only(tmp_path):
    """What was signed to join is no receipt."""
    one, other = load_identity(tmp_path / "1.key"), load_identity(tmp_path / "2.key")
    signature = one.sign("join", b"message")

    assert is_signed_by(one.id, "join", b"message", signature)
    assert not is_signed_by(one.id, "receipt", b"message", signature)
    assert not is_signed_by(one.id, "join", b"message2", signature)
    assert not is_signed_by(other.id, "join", b"message", signature)
    assert not is_signed_by(one.id, "join", b"message", b"")
