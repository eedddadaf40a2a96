"""Wallets: whose device is whose needs both keys, and the commands, as their users have them."""

import base64
import json
import stat
from dataclasses import replace

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shoestring.errors import BadValueError, ShoestringError
from shoestring.swarm.cli_ledger import ledger
from shoestring.swarm.cli_wallet import wallet
from shoestring.swarm.home import Home
from shoestring.swarm.identity import load_identity
from shoestring.swarm.ledger import answers
from shoestring.swarm.ledger.owning import PREFIX, Ownership, read_ownership
from shoestring.swarm.ledger.places import book_of
from shoestring.swarm.ledger.rules import LAST_S
from shoestring.swarm.ledger.wallets import Devices
from shoestring.testing.ledger_histories import BEN, NODES, NOW_S

CALM = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
DAY_S = 86_400


@pytest.fixture
def keys(tmp_path):
    """An owner's key, a device's, and a stranger's."""
    return [load_identity(tmp_path / f"{name}.key") for name in ("owner", "device", "stranger")]


def made_by(owner, device, *, signs_owner=None, signs_device=None, days=1):
    """Return an ownership, signed by these or by others."""
    bare = Ownership(owner.id, device.id, NOW_S, NOW_S + days * DAY_S)
    return bare.signed_by_owner(signs_owner or owner).signed_by_device(signs_device or device)


def test_an_ownership_needs_both_keys(keys):
    """Neither can an owner claim another's device, nor a device another's wallet."""
    owner, device, stranger = keys
    assert made_by(owner, device).fault(NOW_S) is None
    for wrong, why in (
        (made_by(owner, device, signs_owner=stranger), "owner's key"),
        (made_by(owner, device, signs_owner=device), "owner's key"),
        (made_by(owner, device, signs_device=owner), "device's key"),
        (replace(made_by(owner, device), by_device=""), "device's key"),
        (replace(made_by(owner, device), by_owner=""), "owner's key"),
        (replace(made_by(owner, device), by_owner="zz" * 64), "owner's key"),
        (replace(made_by(owner, device), until_s=NOW_S + 2 * DAY_S), "owner's key"),
        (replace(made_by(owner, device), owner=stranger.id), "owner's key"),
        (replace(made_by(owner, device), device=stranger.id), "owner's key"),
    ):
        fault = wrong.fault(NOW_S)
        assert fault is not None
        assert why in fault


def test_an_ownership_holds_from_its_day_to_its_last(keys):
    """Neither expired nor of the future."""
    one = made_by(keys[0], keys[1])
    assert one.fault(NOW_S + DAY_S) == "it has expired"
    assert "future" in one.fault(NOW_S - 601)


@pytest.mark.parametrize("changes", [
    {"owner": "x"}, {"device": "x"}, {"until_s": NOW_S}, {"until_s": NOW_S + 20 * 366 * DAY_S},
    {"made_s": 1 << 53, "until_s": (1 << 53) + 5}, {"made_s": LAST_S, "until_s": LAST_S + 1},
    {"made_s": [1]}, {"until_s": {"x": 1}}, {"made_s": None}, {"made_s": "1"},
    {"made_s": 1.5}, {"made_s": -5, "until_s": 5}, {"until_s": True},
])  # fmt: skip
def test_values_that_cannot_be_are_refused(changes):
    """Before anything is signed."""
    fields = {"owner": BEN, "device": NODES[0], "made_s": NOW_S, "until_s": NOW_S + 5, **changes}
    with pytest.raises(BadValueError):
        Ownership(**fields)
    with pytest.raises(BadValueError, match="a key of its own"):
        Ownership(BEN, BEN, NOW_S, NOW_S + 5)


def test_an_ownership_travels_as_text(keys):
    """There and back; a cut one is none."""
    one = made_by(keys[0], keys[1])
    assert one == read_ownership(f"  {one.text()}\n")
    for cut in range(0, len(one.text()), 7):
        with pytest.raises(BadValueError):
            read_ownership(one.text()[:cut])


@CALM
@given(st.binary() | st.text().map(lambda text: PREFIX.encode() + text.encode()))
def test_no_text_breaks_the_reader(text):
    """One line, whatever was pasted."""
    with pytest.raises(BadValueError) as refused:
        read_ownership(text.decode("utf-8", "replace"))
    assert "\n" not in str(refused.value)


def test_devices_are_kept_by_their_newest_ownership_and_one_owner(keys, tmp_path):
    """An older one does not replace it; another owner waits until it is unlinked or expired."""
    owner, device, stranger = keys
    now = [NOW_S]
    devices = Devices(tmp_path / "devices.json", now=lambda: now[0])
    newer = Ownership(owner.id, device.id, NOW_S + 5, NOW_S + DAY_S)
    devices.keep(newer.signed_by_owner(owner).signed_by_device(device))
    with pytest.raises(BadValueError, match="newer"):
        devices.keep(made_by(owner, device))
    with pytest.raises(BadValueError, match=f"linked to {owner.id} already"):
        devices.keep(made_by(stranger, device))
    with pytest.raises(BadValueError, match="not linked: the device's key"):
        devices.keep(replace(made_by(owner, stranger), by_device=""))
    assert [device.id] == devices.of(owner.id)
    now[0] += DAY_S
    assert [] == devices.of(owner.id)
    devices.keep(made_by(stranger, device, days=3))
    assert ([], [device.id]) == (devices.of(owner.id), devices.of(stranger.id))
    devices.drop(device.id)
    assert [] == devices.all()
    with pytest.raises(BadValueError, match="wallet devices"):
        devices.drop(device.id)


def test_a_damaged_file_of_devices_is_said_to_be(tmp_path):
    """And not written over."""
    path = tmp_path / "devices.json"
    for content in (b"{", b'{"version": 1, "records": [{"owner": 5}]}', b'{"version": 9}'):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(BadValueError, match="is damaged"):
            Devices(path).all()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=60) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner,
                                                                max_size=3),
    max_leaves=5,
)  # fmt: skip
TIMES = st.integers(0, 1 << 63) | JSON


@CALM
@given(
    owner=st.just(BEN) | JSON, device=st.just(NODES[0]) | JSON, made_s=TIMES,
    lasts_s=st.integers(1, 1 << 54), until_s=st.none() | TIMES, by_owner=JSON, by_device=JSON,
)  # fmt: skip
def test_no_values_break_the_reader(*, made_s, lasts_s, until_s, **said):
    """Of whatever sort: they are refused, or what is wrong with them is told."""
    if until_s is None:
        until_s = made_s + lasts_s if type(made_s) is int else lasts_s
    record = {**said, "made_s": made_s, "until_s": until_s}
    text = PREFIX + base64.urlsafe_b64encode(json.dumps(record).encode()).decode()
    try:
        found = read_ownership(text)
    except BadValueError:
        return
    assert found.fault(NOW_S) is not None


class Person:
    """Somebody with a state folder, who types commands."""

    def __init__(self, folder, monkeypatch):
        """Nothing is there yet."""
        self.folder, self.monkeypatch = folder, monkeypatch

    def type(self, group, *words, stdin=""):
        """Return what a command printed and said."""
        self.monkeypatch.setenv("SHOESTRING_STATE", str(self.folder))
        done = CliRunner().invoke(group, words, input=stdin)
        if done.exception is not None:
            raise done.exception
        return done.stdout, done.stderr


@pytest.fixture
def ana(tmp_path, monkeypatch):
    """Has a wallet."""
    person = Person(tmp_path / "ana", monkeypatch)
    person.id = person.type(wallet, "create")[0].strip()
    return person


def test_a_wallet_is_made_once_and_is_for_its_owner_alone(ana):
    """The second time prints the same."""
    printed, said = ana.type(wallet, "create")
    assert (printed.strip(), "was there" in said) == (ana.id, True)
    path = ana.folder / "swarm" / "wallet.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Home().identity().id != ana.id


def test_without_a_wallet_the_way_to_one_is_told(tmp_path, monkeypatch):
    """By each command that needs it; nothing is made."""
    nobody = Person(tmp_path / "nobody", monkeypatch)
    for words in (("balance",), ("fund", "1"), ("link",), ("collect",), ("release", "a")):
        with pytest.raises(BadValueError, match="wallet create"):
            nobody.type(wallet, *words)
    assert "wallet create" in nobody.type(ledger, "show")[0]
    assert "wallet create" in nobody.type(ledger, "verify")[1]
    said = json.loads(nobody.type(ledger, "verify", "--json")[0])
    assert (said["entries"], said["fault"], said["signed_entries"]) == (0, None, None)
    assert not (tmp_path / "nobody" / "swarm" / "ledger.db").exists()


def test_a_damaged_head_is_mended_as_its_message_says(ana):
    """A head that was kept elsewhere shows that the book is whole; then the damaged one goes."""
    ana.type(wallet, "fund", "1")
    kept, beside = ana.type(ledger, "head")[0], ana.folder / "swarm" / "ledger.head"
    ana.type(wallet, "fund", "2")
    beside.write_bytes(b"{")
    for words in (("verify",), ("head",)):
        with pytest.raises(BadValueError, match=r"ledger\.head is damaged"):
            ana.type(ledger, *words)
    (ana.folder / "head.json").write_text(kept)
    printed, said = ana.type(ledger, "verify", "--head", str(ana.folder / "head.json"))
    assert "2 entries are right" in printed
    assert "ledger.head is damaged" in said
    assert "up to entry 1 by a head" in said
    beside.unlink()
    ana.type(wallet, "fund", "3")
    assert "up to entry 3 by a head" in ana.type(ledger, "verify")[1]


def test_credits_are_funded_held_earned_collected_and_verified(ana):
    """The whole way, by commands and one answer of this node."""
    _, said = ana.type(wallet, "fund", "2.5", "--memo", 'a "gift"', "--reference", "gift")
    assert said == f"entry 1: 2.5 credits for {ana.id}\n"
    with pytest.raises(ShoestringError, match="booked before"):
        ana.type(wallet, "fund", "2.5", "--reference", "gift")
    node = Home().identity().id
    ana.type(wallet, "link")
    with book_of(Home()) as book:
        answers.hold(book, ana.id, 900_000, reference="a1")
        answers.capture(book, ana.id, {node: 250_000}, reference="a1")
        answers.hold(book, ana.id, 1, reference="a2")
    assert json.loads(ana.type(wallet, "balance", "--json")[0]) == {
        "owner": ana.id, "free_micro": 1_599_999, "held_micro": {"a1": 650_000, "a2": 1},
        "income_micro": {node: 250_000}, "owed_micro": {},
    }  # fmt: skip
    assert "0.000001 credits for a2" in ana.type(wallet, "balance")[0]
    ana.type(wallet, "release", "a1")
    with pytest.raises(BadValueError, match="nothing is held"):
        ana.type(wallet, "release", "a1")
    assert f"0.25 credits by {node}" in ana.type(wallet, "collect")[0]
    assert "               0 credits" in ana.type(wallet, "collect")[0]
    assert json.loads(ana.type(wallet, "balance", "--json")[0])["free_micro"] == 2_499_999
    printed, said = ana.type(ledger, "verify")
    assert "6 entries are right" in printed
    assert "up to entry 6" in said
    shown = ana.type(ledger, "show", "--account", f"wallet:{ana.id}", "--last", "1")[0]
    assert "collect" in shown
    assert "2.5" not in shown
    [first, *_] = json.loads(ana.type(ledger, "show", "--json")[0])["entries"]
    assert (first["memo"], first["postings"][0]) == ('a "gift"', ["world", -2_500_000])


def test_a_device_elsewhere_is_linked_in_three_steps(ana, tmp_path, monkeypatch):
    """Its user names the owner; without that nothing is signed."""
    box = Person(tmp_path / "box", monkeypatch)
    monkeypatch.setenv("SHOESTRING_STATE", str(box.folder))
    device = Home().identity().id
    half = ana.type(wallet, "link", "--device", device, "--days", "3")[0]
    with pytest.raises(BadValueError, match="device's key"):
        ana.type(wallet, "accept", stdin=half)
    with pytest.raises(BadValueError, match=f"give --owner {ana.id}"):
        box.type(wallet, "accept", stdin=half)
    whole = box.type(wallet, "accept", "--owner", ana.id, stdin=half)[0]
    ana.type(wallet, "accept", stdin=whole)
    for person in (ana, box):
        [one] = json.loads(person.type(wallet, "devices", "--json")[0])["devices"]
        assert (one["device"], one["owner"], one["why_not"]) == (device, ana.id, None)
    assert "linked" in ana.type(wallet, "devices")[0]
    ana.type(wallet, "unlink", device)
    assert "no device is linked" in ana.type(wallet, "devices")[0]


def test_a_head_that_was_kept_elsewhere_finds_what_was_cut_off_with_its_head(ana, tmp_path):
    """Book and head are an older copy; only the head that somebody else has shows it."""
    ana.type(wallet, "fund", "1")
    place = ana.folder / "swarm"
    older = {name: (place / name).read_bytes() for name in ("ledger.db", "ledger.head")}
    ana.type(wallet, "fund", "1")
    (tmp_path / "head.json").write_text(ana.type(ledger, "head")[0])
    for name, content in older.items():
        (place / name).write_bytes(content)
    assert "1 entries are right" in ana.type(ledger, "verify")[0]
    with pytest.raises(ShoestringError, match="entry 2: it is missing") as refused:
        ana.type(ledger, "verify", "--head", str(tmp_path / "head.json"))
    assert refused.value.exit_status == 1
    (place / "ledger.db").unlink()
    with pytest.raises(ShoestringError, match="a head of 1 entries"):
        ana.type(ledger, "verify")


def test_a_head_is_not_signed_for_a_book_that_holds_less(ana):
    """The kept head shows the loss; a newer one of what is left would hide it."""
    ana.type(wallet, "fund", "1")
    place = ana.folder / "swarm"
    older = (place / "ledger.db").read_bytes()
    ana.type(wallet, "fund", "1")
    (place / "ledger.db").write_bytes(older)
    with pytest.raises(BadValueError, match="nothing is written or signed"):
        ana.type(ledger, "head")
    (place / "ledger.head").write_bytes(b"{")
    with pytest.raises(BadValueError, match=r"ledger\.head is damaged"):
        ana.type(ledger, "head")
    (place / "identity.key").unlink()
    with pytest.raises(BadValueError, match="is kept by"):
        ana.type(ledger, "head")


def test_a_mistake_is_corrected_by_a_command(ana):
    """Once, and said in one line if not."""
    ana.type(wallet, "fund", "50")
    assert "entry 2 takes entry 1 back" in ana.type(ledger, "correct", "1", "--memo", "5")[1]
    assert json.loads(ana.type(wallet, "balance", "--json")[0])["free_micro"] == 0
    with pytest.raises(ShoestringError, match="booked before"):
        ana.type(ledger, "correct", "1")
    with pytest.raises(ShoestringError, match="is a correct"):
        ana.type(ledger, "correct", "2")


def test_rewards_are_shared_out_by_a_command(ana):
    """From the pool, by what devices did."""
    ana.type(wallet, "fund", "1", "--rewards")
    services = {NODES[0]: {"uptime_s": 60, "layer_tokens": 5}}
    printed, _ = ana.type(ledger, "reward", "2026-11-22", "0.25", stdin=json.dumps(services))
    assert f"income:{NODES[0]}" in printed
    with pytest.raises(ShoestringError, match="booked before"):
        ana.type(ledger, "reward", "2026-11-22", "0.25", stdin=json.dumps(services))


@pytest.mark.parametrize("words", [
    ("fund", "--", "-1"), ("fund", "x"), ("fund", "0"), ("fund", "1", "--memo", "x" * 201),
    ("fund", "1", "--reference", "a b"), ("link", "--device", "nobody"),
])  # fmt: skip
def test_bad_input_is_one_line_and_exit_status_2(ana, words):
    """And nothing is booked."""
    with pytest.raises(ShoestringError) as refused:
        ana.type(wallet, *words)
    assert (refused.value.exit_status, "\n" in str(refused.value)) == (2, False)
    assert json.loads(ana.type(wallet, "balance", "--json")[0])["free_micro"] == 0
