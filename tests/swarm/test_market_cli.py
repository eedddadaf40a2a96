"""Selling and routing as users type it: quotes made, imported, listed; a route and its reasons."""

from __future__ import annotations

import json
import time

import pytest
from click.testing import CliRunner

from shoestring.errors import BadValueError
from shoestring.hardware.devices import Device
from shoestring.plan.speed_constants import load_constants
from shoestring.swarm.audit.standing import STANDING_FILE, Standing
from shoestring.swarm.cli_market import market
from shoestring.swarm.home import Home
from shoestring.swarm.identity import load_identity
from shoestring.swarm.ledger.owning import Ownership
from shoestring.swarm.ledger.places import devices_of
from shoestring.swarm.market import kept_quotes
from shoestring.swarm.market.measured import Measured
from shoestring.swarm.market.quotes import LARGEST_BYTES, Quote, sign_quote

MODEL = "shape:llama-3.2-1b:q4_k_m"
LAYERS = 16


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Give this node a folder of its own, and a processor whose speed is known."""
    monkeypatch.setenv("SHOESTRING_STATE", str(tmp_path))
    here = Device(
        name="ram", kind="cpu", title="a processor", memory_bytes=1 << 34,
        bandwidth_bytes_per_s=2e10, compute_flops=1e11, generation="x86-avx2",
        link_latency_s=0.0, link_bytes_per_s=None, source="said by a test", total_bytes=None,
    )  # fmt: skip
    monkeypatch.setattr(
        "shoestring.report.plan_machine.find_devices", lambda *_: ((here,), load_constants())
    )
    return Home().folder


def typed(*words, stdin=""):
    """Return what a command of the group did."""
    return CliRunner().invoke(market, list(words), input=stdin)


def seller(folder, name, **changes):
    """Return another node's id and quote."""
    identity = load_identity(folder / "others" / name)
    now_s = int(time.time())
    whole = {
        "node": identity.id, "number": 1, "model": MODEL, "first": 0, "end": LAYERS,
        "most_layers": 10, "price_in": 10_000, "price_out": 30_000, "layer_s": 1e-3,
        "prompt_layer_s": 1e-4, "made_s": now_s, "until_s": now_s + 3600,
    }  # fmt: skip
    return identity.id, sign_quote(identity, Quote(**{**whole, **changes}))


@pytest.fixture
def three(folder):
    """Let three sellers be known: a cheap, a fast, and one that nobody measured."""
    made = [
        seller(folder, "cheap", price_in=1_000, price_out=2_000),
        seller(folder, "fast", layer_s=1e-4),
        seller(folder, "far"),
    ]
    done = typed("import", stdin="".join(text for _, text in made))
    assert done.exit_code == 0, done.output
    measured = Measured(folder / "measured.json")
    ids = [one for one, _ in made]
    measured.saw(ids[0], times=[("rtt_s", 0.05)])
    measured.saw(ids[1], times=[("rtt_s", 0.002)])
    return ids


@pytest.mark.usefixtures("folder")
def test_a_quote_is_signed_printed_kept_and_replaced():
    """What is printed can be imported elsewhere; a second one has a higher number."""
    price = ("--price-in", "0.002", "--price-out", "0.006")
    made = [
        typed("quote", MODEL, *price, "--layers", "4:16", "--most", "6", "--layer-ms", "1.5"),
        typed("quote", MODEL, *price),
    ]
    assert [one.exit_code for one in made] == [0, 0]
    said = [json.loads(one.stdout)["quote"] for one in made]
    assert (said[0]["first"], said[0]["end"], said[0]["most_layers"]) == (4, 16, 6)
    assert (said[0]["price_in"], said[0]["price_out"], said[0]["layer_s"]) == (2000, 6000, 0.0015)
    assert (said[1]["first"], said[1]["end"], said[1]["most_layers"]) == (0, 16, 16)
    assert said[1]["number"] > said[0]["number"]
    held = json.loads(typed("list", "--json").stdout)["quotes"]
    assert [one["number"] for one in held] == [said[1]["number"]]
    assert "this node" in typed("list").stdout


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--price-in", "cheap", "--price-out", "1"), "'cheap' is no amount"),
        (("--price-in", "0.0000001", "--price-out", "1"), "is no amount"),
        (("--price-in", "101", "--price-out", "1"), "price_in: 101000000"),
        (("--price-in", "1", "--price-out", "1", "--layers", "9"), "--layers 9: give FIRST:END"),
        (("--price-in", "1", "--price-out", "1", "--layers", "0:17"), "at most 0:16"),
        (("--price-in", "1", "--price-out", "1", "--owner", "me"), "no peer id"),
    ],
)
def test_a_quote_that_cannot_be_is_refused_in_one_line(words, why):
    """The message names the value; nothing is kept."""
    done = typed("quote", MODEL, *words)
    assert isinstance(done.exception, BadValueError)
    assert why in str(done.exception)
    assert "\n" not in str(done.exception)
    assert json.loads(typed("list", "--json").stdout) == {"quotes": []}


def test_good_lines_are_kept_and_bad_ones_named(folder):
    """One bad line loses no other."""
    _, text = seller(folder, "a")
    done = typed("import", stdin=f"{text}nonsense\n")
    assert "1 quotes are kept" in done.stderr
    assert "line 2: this is no signed quote" in done.stderr
    assert isinstance(done.exception, BadValueError)
    assert len(json.loads(typed("list", "--json").stdout)["quotes"]) == 1


@pytest.mark.usefixtures("folder")
def test_nothing_known_teaches_what_to_do():
    """Each command names the next."""
    assert "shoestring swarm market import" in typed("list").stdout
    assert "market import" in str(typed("route", MODEL, "--offline").exception)
    assert "swarm market quote" in str(typed("import").exception)


def test_the_cheapest_and_the_fastest_route_are_found_and_explained(three):
    """As JSON: who computes what, the front, and each other node's reason."""
    cheap, fast, far = three
    done = typed("route", MODEL, "--offline", "--why", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    taken = {hop["id"]: hop["end"] - hop["first"] for hop in found["route"]["hops"]}
    assert taken == {cheap: 10, fast: 6}
    assert found["route"]["above"] < 1e-6
    assert found["route"]["price"] == sum(hop["price"] for hop in found["route"]["hops"])
    assert found["why_not"][far].startswith("unknown distance")
    faster = json.loads(typed("route", MODEL, "--offline", "--prefer", "latency", "--json").stdout)
    assert {h["id"]: h["end"] - h["first"] for h in faster["route"]["hops"]} == {fast: 10, cheap: 6}
    assert len(found["front"]) >= 2


@pytest.mark.usefixtures("three")
def test_layers_at_home_are_not_bought():
    """Twelve of sixteen stay here: four are sold, by one node, and home takes its time."""
    few = json.loads(typed("route", MODEL, "--offline", "--json", "--home-layers", "12").stdout)
    assert [(hop["first"], hop["end"]) for hop in few["route"]["hops"]] == [(12, 16)]
    done = typed("route", MODEL, "--offline", "--home-layers", "16")
    assert "--home-layers 16" in str(done.exception)


@pytest.mark.usefixtures("three")
def test_a_limit_that_cannot_be_kept_says_what_would_do():
    """And what it says does."""
    done = typed("route", MODEL, "--offline", "--max-price", "0.000001")
    assert isinstance(done.exception, BadValueError)
    said = str(done.exception)
    assert "the cheapest route costs" in said
    enough = said.split("raise --max-price to ")[1].split(maxsplit=1)[0]
    assert typed("route", MODEL, "--offline", "--max-price", enough).exit_code == 0


def test_trust_and_owners_are_reasons(three):
    """Strangers have half; nobody here names an owner."""
    done = typed("route", MODEL, "--offline", "--trust", "0.9", "--why")
    assert done.stdout.count("no trust: 0.50, and 0.9 is asked for") == 2
    assert "nobody sells layers" in str(done.exception)
    owned = typed("route", MODEL, "--offline", "--owner", three[0], "--why")
    assert owned.stdout.count("wrong owner") == 2


def test_an_owners_nodes_are_those_that_are_linked_to_it(folder):
    """To say so in a quote is not enough; both have to have signed, and it has to be kept here."""
    owner, node = load_identity(folder / "wallet"), load_identity(folder / "others" / "a")
    _, text = seller(folder, "a", owner=owner.id, most_layers=LAYERS)
    assert typed("import", stdin=text).exit_code == 0
    Measured(folder / "measured.json").saw(node.id, times=[("rtt_s", 0.05)])
    asked = ("route", MODEL, "--offline", "--json", "--why", "--owner", owner.id)
    assert json.loads(typed(*asked).stdout)["why_not"][node.id].startswith("wrong owner")
    now_s = int(time.time())
    linked = Ownership(owner.id, node.id, now_s, now_s + 3600)
    devices_of(Home()).keep(linked.signed_by_owner(owner).signed_by_device(node))
    found = json.loads(typed(*asked).stdout)
    assert [hop["id"] for hop in found["route"]["hops"]] == [node.id]


def test_who_was_found_to_cheat_is_not_routed_over(folder, three):
    """Until its owner forgives it; the other takes all layers that it can."""
    standing = Standing(folder / STANDING_FILE)
    standing.exclude(three[0], "cheap", "a wrong window")
    asked = ("route", MODEL, "--offline", "--why", "--json", "--home-layers", "6")
    found = json.loads(typed(*asked).stdout)
    assert found["why_not"][three[0]] == "excluded: found to cheat"
    assert [hop["id"] for hop in found["route"]["hops"]] == [three[1]]
    standing.forgive(three[0])
    assert three[0] in {hop["id"] for hop in json.loads(typed(*asked).stdout)["route"]["hops"]}


@pytest.mark.usefixtures("folder")
def test_more_than_can_be_kept_is_refused_whole(monkeypatch):
    """Rather than cut somewhere in a line."""
    monkeypatch.setattr(kept_quotes, "MOST_QUOTES", 2)
    done = typed("import", stdin="x" * (2 * LARGEST_BYTES + 1))
    assert "more than 8192 bytes: give fewer quotes" in str(done.exception)
    assert json.loads(typed("list", "--json").stdout) == {"quotes": []}


@pytest.mark.usefixtures("three")
def test_who_does_not_answer_is_not_routed_over():
    """No peer is known here, so nobody is greeted."""
    done = typed("route", MODEL, "--why")
    assert done.stdout.count("silent: it is no peer that serves us") == 3
