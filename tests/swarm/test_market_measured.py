"""What was seen of a node counts, the newest most, and trust comes back to a stranger's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.errors import BadValueError
from shoestring.swarm.identity import load_identity
from shoestring.swarm.market.measured import HALF_LIFE_S, Mean, Measured, Record
from shoestring.swarm.private_files import write_records

NOW = 1_800_000_000.0
MODEL = "shape:a:q4"


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """Make a peer id."""
    return load_identity(tmp_path_factory.mktemp("node") / "identity.key").id


def test_a_measurement_counts_half_as_much_after_its_half_life():
    """One old and one new: the mean lies two thirds of the way to the new one."""
    mean = Mean(1.0, 0.0, NOW).with_one(1.0, NOW).with_one(4.0, NOW + HALF_LIFE_S)
    assert mean.value == pytest.approx((1.0 * 0.5 + 4.0) / 1.5)
    assert mean.weight == pytest.approx(1.5)


@given(
    st.lists(st.tuples(st.floats(1e-6, 1e3), st.floats(0, 1e6)), min_size=1, max_size=20),
    st.floats(-1e6, 1e6),
)
def test_a_mean_lies_among_what_was_measured(measured, back_s):
    """Whatever the times are, and if the clock is set back."""
    mean, now_s = Mean(measured[0][0], 0.0, NOW), NOW + back_s
    for value, later_s in measured:
        now_s += later_s
        mean = mean.with_one(value, now_s)
    values = [value for value, _ in measured]
    assert min(values) * (1 - 1e-9) <= mean.value <= max(values) * (1 + 1e-9)
    assert 0 < mean.weight <= len(values)


@given(st.integers(0, 50), st.integers(0, 50), st.floats(0, 100))
def test_trust_begins_at_half_follows_what_was_seen_and_fades(good, bad, lives):
    """It is the share of good answers, and never so sure that nothing could change it."""
    record = Record("x", good=good, bad=bad, judged_s=NOW)
    fresh, later = record.trust(NOW), record.trust(NOW + lives * HALF_LIFE_S)
    assert 0 < fresh < 1
    assert Record("x").trust(NOW) == 0.5
    assert abs(later - 0.5) <= abs(fresh - 0.5) + 1e-12
    assert (fresh > 0.5) == (good > bad)


def test_the_file_keeps_each_node_and_model_apart(node, tmp_path):
    """What is read back is what was seen; times of one model say nothing of another."""
    now = [NOW]
    measured = Measured(tmp_path / "measured.json", now=lambda: now[0])
    measured.saw(node, times=[("rtt_s", 0.02)])
    measured.saw(node, model=MODEL, times=[("layer_s", 0.001), ("prompt_layer_s", 1e-4)], good=3)
    measured.saw(node, bad=1)
    record = Measured(tmp_path / "measured.json", now=lambda: now[0]).all()[node]
    assert record.mean("rtt_s", "", NOW) == 0.02
    assert record.mean("layer_s", MODEL, NOW) == 0.001
    assert record.mean("layer_s", "shape:b:q4", NOW) is None
    assert record.trust(NOW) == pytest.approx(4 / 6)
    assert record.mean("layer_s", MODEL, NOW + 20 * HALF_LIFE_S) is None


def test_many_round_trips_are_one_writing_of_the_file(node, tmp_path, monkeypatch):
    """And each is added to what was known; trust stays as it was."""
    measured = Measured(tmp_path / "measured.json", now=lambda: NOW)
    other = load_identity(tmp_path / "other" / "identity.key").id
    measured.saw(node, times=[("rtt_s", 0.02)], good=1)
    written = []
    monkeypatch.setattr(
        "shoestring.swarm.market.measured.write_records",
        lambda path, records: written.append(write_records(path, records)),
    )
    measured.saw_ways({node: 0.04, other: 0.01})
    measured.saw_ways({})
    assert len(written) == 1
    found = measured.all()
    assert [found[one].mean("rtt_s", "", NOW) for one in (node, other)] == [0.03, 0.01]
    assert found[node].trust(NOW) == pytest.approx(2 / 3)
    with pytest.raises(BadValueError, match="rtt_s"):
        measured.saw_ways({node: 0.0})


def test_what_cannot_be_measured_is_refused_and_nothing_is_lost(node, tmp_path):
    """The file stays as it was."""
    measured = Measured(tmp_path / "measured.json", now=lambda: NOW)
    measured.saw(node, good=1)
    before = (tmp_path / "measured.json").read_bytes()
    for bad in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(BadValueError, match="rtt_s"):
            measured.saw(node, times=[("rtt_s", bad)])
    with pytest.raises(BadValueError, match="no peer id"):
        measured.saw("me", good=1)
    with pytest.raises(BadValueError, match="counts"):
        measured.saw(node, good=-1)
    assert (tmp_path / "measured.json").read_bytes() == before


def test_a_damaged_file_is_named_with_its_mend(node, tmp_path):
    """And nothing of it is used."""
    path = tmp_path / "measured.json"
    Measured(path, now=lambda: NOW).saw(node, good=1)
    path.write_bytes(path.read_bytes().replace(b'"good"', b'"best"'))
    with pytest.raises(BadValueError, match=r"measured\.json is damaged .*: remove it"):
        Measured(path).all()
