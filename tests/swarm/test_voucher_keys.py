"""The key that signs vouchers, and the statement of whose it is."""

import json

import pytest
from eth_account import Account
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoestring.errors import BadValueError
from shoestring.swarm.identity import load_identity
from shoestring.swarm.vouchers.binding import bind, read_binding
from shoestring.swarm.vouchers.keys import EvmKey, load_evm_key

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
KEY = EvmKey(Account.from_key("0x" + "11" * 32))
OTHER = EvmKey(Account.from_key("0x" + "22" * 32))


@pytest.fixture(scope="module")
def owners(tmp_path_factory):
    """Two owners' ed25519 keys."""
    folder = tmp_path_factory.mktemp("owners")
    return load_identity(folder / "a.key"), load_identity(folder / "b.key")


def written(word):
    """A statement as it travels."""
    return json.dumps(word).encode()


def test_a_key_is_made_once_and_for_its_owner_alone(tmp_path):
    """The same key comes back, nobody else can read it, and it does not show itself."""
    path = tmp_path / "new" / "evm.key"
    key = load_evm_key(path)

    assert load_evm_key(path).address == key.address
    assert path.stat().st_mode & 0o077 == 0
    assert path.read_text().strip() not in repr(key)


@pytest.mark.parametrize(
    "content", ["", "00" * 32, f"{ORDER:064x}", "11" * 31, "11" * 33, "GG" * 32, "11" * 32 + "\n\n"]
)
def test_a_damaged_key_is_no_other_key(tmp_path, content):
    """It is said in one line, and the file stays as it was."""
    path = tmp_path / "evm.key"
    path.write_text(content)
    path.chmod(0o600)

    with pytest.raises(BadValueError, match="is no key for vouchers: restore a copy") as error:
        load_evm_key(path)

    assert "\n" not in str(error.value)
    assert path.read_text() == content


def test_a_key_that_others_can_read_is_refused(tmp_path):
    """Somebody may have it."""
    path = tmp_path / "evm.key"
    load_evm_key(path)
    path.chmod(0o644)

    with pytest.raises(BadValueError, match="open to others"):
        load_evm_key(path)


def test_owner_and_key_say_that_they_belong_together(owners):
    """What was made is read, and says who and when."""
    read = read_binding(written(bind(owners[0], KEY, 1_700_000_000).word()))

    assert (read.owner, read.address, read.made_s) == (owners[0].id, KEY.address, 1_700_000_000)


def test_nobody_claims_anothers_key_or_owner(owners):
    """One signature that is another's, or of another time, and the statement is none."""
    mine, theirs = owners
    good = bind(mine, KEY, 1_700_000_000).word()
    of_them = bind(theirs, KEY, 1_700_000_000).word()
    of_other = bind(mine, OTHER, 1_700_000_000).word()
    forged = [
        good | {"owner": theirs.id},
        good | {"owner": theirs.id, "owner_signature": of_them["owner_signature"]},
        good | {"address": OTHER.address},
        good | {"address": OTHER.address, "address_signature": of_other["address_signature"]},
        good | {"address": KEY.address.lower()},
        good | {"made_s": 1_700_000_001},
        good | {"owner_signature": "00" * 64},
        good | {"owner_signature": "zz" * 64},
        good | {"address_signature": "0x" + "00" * 64 + "1b"},
        good | {"address_signature": "0x" + "ff" * 32 + "01" * 32 + "1b"},
    ]

    for word in forged:
        with pytest.raises(BadValueError) as error:
            read_binding(written(word))
        assert "\n" not in str(error.value)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_statement_with_any_byte_changed_is_none(owners, data):
    """Or says the very same (JSON has more than one form)."""
    good = bind(owners[0], KEY, 1_700_000_000)
    text = bytearray(written(good.word()))
    place = data.draw(st.integers(0, len(text) - 1))
    text[place] ^= data.draw(st.integers(1, 255))

    try:
        read = read_binding(bytes(text))
    except BadValueError:
        return
    assert (read.owner, read.address, read.made_s) == (good.owner, good.address, good.made_s)
