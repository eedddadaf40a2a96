"""A quote is believed if its node signed it, it holds now, and no newer one is known."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.errors import BadValueError
from shoestring.swarm.identity import load_identity
from shoestring.swarm.market import kept_quotes
from shoestring.swarm.market.kept_quotes import MOST_MODELS, Quotes
from shoestring.swarm.market.quotes import (
    CLOCKS_DIFFER_S,
    LONGEST_S,
    PURPOSE,
    Quote,
    read_quote,
    sign_quote,
)

NOW = 1_800_000_000


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """Make a node's key."""
    return load_identity(tmp_path_factory.mktemp("node") / "identity.key")


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Make another node's key."""
    return load_identity(tmp_path_factory.mktemp("other") / "identity.key")


def quote_of(node, **changes):
    """Return a quote of a node."""
    whole = {
        "node": node.id, "number": 7, "model": "shape:a:q4", "first": 0, "end": 32,
        "most_layers": 8, "price_in": 2000, "price_out": 6000, "layer_s": 0.001,
        "prompt_layer_s": None, "made_s": NOW, "until_s": NOW + 3600,
        "numerics": "ab" * 32 + " x86-avx2", "owner": node.id,
    }  # fmt: skip
    return Quote(**{**whole, **changes})


def text_of(node, **changes):
    """Return it signed, as it travels."""
    return sign_quote(node, quote_of(node, **changes)).encode()


def signed_anyway(identity, **changes):
    """Sign what no quote of ours would say."""
    content = json.loads(text_of(identity))["quote"]
    content |= changes
    signature = identity.sign(PURPOSE, rfc8785.dumps(content)).hex()
    return json.dumps({"quote": content, "signature": signature}).encode()


@given(
    first=st.integers(0, 50), size=st.integers(1, 50), price=st.integers(0, 10**8),
    layer_s=st.none() | st.floats(1e-9, 1000), lasts_s=st.integers(1, LONGEST_S),
)  # fmt: skip
@settings(deadline=None)
def test_what_a_node_signs_is_what_others_read(node, first, size, price, layer_s, lasts_s):
    """Nothing is lost or changed on the way, whatever the values."""
    made = quote_of(
        node, first=first, end=first + size, most_layers=size, price_in=price,
        layer_s=layer_s, until_s=NOW + lasts_s,
    )  # fmt: skip
    assert read_quote(sign_quote(node, made).encode(), now_s=NOW, node=node.id).quote == made


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"v": 2}, "another version"),
        ({"extra": 1}, "another version"),
        ({"price_in": -1}, "price_in"),
        ({"price_in": 1.5}, "price_in"),
        ({"price_in": True}, "price_in"),
        ({"price_out": 10**9}, "price_out"),
        ({"end": 0}, "end of the layers"),
        ({"end": 5000}, "end of the layers"),
        ({"most_layers": 33}, "most layers"),
        ({"layer_s": 0}, "layer_s"),
        ({"layer_s": "1"}, "layer_s"),
        ({"layer_s": 1e-300}, "layer_s"),
        ({"until_s": NOW + LONGEST_S + 1}, "until_s"),
        ({"number": 0}, "number"),
        ({"model": ""}, "model"),
        ({"model": "a\nb"}, "model"),
        ({"model": 3}, "model"),
        ({"node": "me"}, "no peer id"),
        ({"numerics": "x"}, "numerics"),
        ({"numerics": 3}, "wrong value"),
    ],
)
def test_a_quote_with_a_value_that_cannot_be_is_refused(node, changes, why):
    """Although it is signed well; the message names the value."""
    with pytest.raises(BadValueError, match=why):
        read_quote(signed_anyway(node, **changes), now_s=NOW)


def test_what_others_signed_or_changed_is_refused(node, other):
    """A quote is its node's, as that node said it, and the one that was asked for."""
    whole = json.loads(text_of(node))
    with pytest.raises(BadValueError, match="not signed by"):
        read_quote(signed_anyway(other, node=node.id), now_s=NOW)
    whole["quote"]["price_in"] = 1
    with pytest.raises(BadValueError, match="not signed by"):
        read_quote(json.dumps(whole).encode(), now_s=NOW)
    with pytest.raises(BadValueError, match="not of"):
        read_quote(text_of(node), now_s=NOW, node=other.id)
    with pytest.raises(BadValueError, match="that node alone"):
        sign_quote(other, quote_of(node))


def test_a_quote_holds_from_when_it_was_made_until_it_runs_out(node):
    """Later it is expired; long before it, some clock is wrong."""
    with pytest.raises(BadValueError, match="run out"):
        read_quote(text_of(node), now_s=NOW + 3600)
    with pytest.raises(BadValueError, match="future"):
        read_quote(text_of(node), now_s=NOW - 3600)
    assert read_quote(text_of(node), now_s=NOW + 3599).quote.number == 7


@given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
def test_no_bytes_are_a_quote_by_chance(text):
    """Whatever comes is refused in words, never by another error."""
    with pytest.raises(BadValueError):
        read_quote(text, now_s=NOW)


@given(st.data())
@settings(deadline=None)
def test_a_quote_with_any_byte_changed_is_refused(node, data):
    """Every byte that matters is under the signature; blanks between are not."""
    text = text_of(node)
    place = data.draw(st.integers(0, len(text) - 2))
    changed = bytearray(text)
    changed[place] ^= data.draw(st.integers(1, 255))
    try:
        found = read_quote(bytes(changed), now_s=NOW)
    except BadValueError:
        return
    assert found.quote == quote_of(node)


def test_too_long_a_text_is_not_read(node):
    """Its size alone is looked at."""
    with pytest.raises(BadValueError, match="at most 4096"):
        read_quote(text_of(node) + b" " * 5000, now_s=NOW)


def test_the_newest_quote_of_each_node_and_model_is_kept(node, other, tmp_path):
    """An older one is refused and changes nothing; another model or node has its own."""
    quotes = Quotes(tmp_path / "quotes.json", now=lambda: NOW)
    lines = [
        text_of(node), text_of(node, number=8, price_in=1), text_of(node, number=7),
        text_of(node, number=8, price_in=2), text_of(node, model="shape:b:q4"),
        text_of(other), b"{}", text_of(node, number=8, price_in=1),
    ]  # fmt: skip
    taken, refused = quotes.take(lines)
    assert len(taken) == 5
    assert {place: str(error).split(":")[0] for place, error in refused.items()} == {
        2: f"quote 7 of {node.id} is older than number 8, which is known here",
        3: f"{node.id} signed two quotes of number 8",
        6: "this is no signed quote (KeyError)",
    }
    kept = Quotes(tmp_path / "quotes.json", now=lambda: NOW).all()
    assert {(one.node, one.model, one.number) for one in kept} == {
        (node.id, "shape:a:q4", 8), (node.id, "shape:b:q4", 7), (other.id, "shape:a:q4", 7),
    }  # fmt: skip


def test_an_older_quote_does_not_come_back_when_the_newer_one_ran_out(node, tmp_path):
    """Dearer now for an hour, after cheap for a day: the cheap one holds no more, nor is kept."""
    now = [NOW]
    quotes = Quotes(tmp_path / "quotes.json", now=lambda: now[0])
    cheap = text_of(node, price_in=1, until_s=NOW + LONGEST_S)
    quotes.take([cheap])
    quotes.take([text_of(node, number=8, made_s=NOW + 60, until_s=NOW + 3660)])
    now[0] += 7200
    taken, refused = quotes.take([cheap])
    assert not taken
    assert "older than number 8" in str(refused[0])
    assert [one.number for one in quotes.all()] == [8]
    assert quotes.take([text_of(node, number=9, made_s=now[0], until_s=now[0] + 60)])[0]


def test_a_nodes_own_and_its_peers_quotes_find_room_among_strangers(tmp_path, monkeypatch):
    """Made-up keys fill the file: strangers then wait, peers take their places, we take any."""
    monkeypatch.setattr(kept_quotes, "MOST_QUOTES", 3)
    keys = [load_identity(tmp_path / name) for name in ("own", "a peer", "b peer", *"vwxyz")]
    own, peer, other, *strangers = keys
    quotes = Quotes(tmp_path / "quotes.json", now=lambda: NOW)
    whose = {"own": own.id, "peers": {peer.id, other.id}}
    texts = [text_of(one, until_s=NOW + 60 + place) for place, one in enumerate(strangers)]
    taken, refused = quotes.take(texts, **whose)
    assert len(taken) == 3
    assert {str(one).partition(":")[0] for one in refused.values()} == {"3 quotes are kept"}

    def kept():
        return {one.node for one in quotes.all()}

    quotes.take([text_of(peer)], **whose)
    assert kept() == {peer.id, strangers[1].id, strangers[2].id}
    mine = [text_of(own, model=f"shape:{number}:q4") for number in range(2)]
    assert not quotes.take([text_of(other), mine[0]], **whose)[1]
    assert kept() == {own.id, peer.id, other.id}
    assert quotes.take(texts, **whose)[0] == []
    assert not quotes.take(mine, **whose)[1]
    assert len(quotes.all()) == 3
    assert sum(one.node == own.id for one in quotes.all()) == 2


def test_one_node_fills_no_file(node, other, tmp_path):
    """It sells so many models at most; another still has room."""
    quotes = Quotes(tmp_path / "quotes.json", now=lambda: NOW)
    many = [text_of(node, model=f"shape:{number}:q4") for number in range(MOST_MODELS + 2)]
    taken, refused = quotes.take([*many, text_of(other)])
    assert len(taken) == MOST_MODELS + 1
    assert sorted(refused) == [MOST_MODELS, MOST_MODELS + 1]


def test_what_ran_out_makes_room_and_a_new_number_is_above_all(node, tmp_path):
    """The file does not grow with time, and a lost file does not set a node back to 1."""
    now = [NOW]
    quotes = Quotes(tmp_path / "quotes.json", now=lambda: now[0])
    assert quotes.next_number(node.id) == NOW
    quotes.take([text_of(node, number=NOW + 50)])
    assert quotes.next_number(node.id) == NOW + 51
    now[0] += LONGEST_S + CLOCKS_DIFFER_S
    quotes.take([text_of(node, model="shape:b:q4", made_s=now[0], until_s=now[0] + 60)])
    assert [one.model for one in quotes.all()] == ["shape:b:q4"]


def test_a_damaged_file_of_quotes_is_named_with_its_mend(node, tmp_path):
    """Nothing of it is believed."""
    path = tmp_path / "quotes.json"
    Quotes(path, now=lambda: NOW).take([text_of(node)])
    path.write_bytes(path.read_bytes().replace(b"shape", b"\\n"))
    with pytest.raises(BadValueError, match=r"quotes\.json is damaged .*: remove it"):
        Quotes(path).all()


def test_a_number_in_a_quote_is_kept_as_it_was_said(node):
    """Seconds that happen to be whole stay seconds."""
    made = quote_of(node, layer_s=1.0)
    assert read_quote(sign_quote(node, made).encode(), now_s=NOW).quote == made
    assert replace(made, layer_s=2.0) != made
