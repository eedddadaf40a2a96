import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.errors import BadValueError
from shoestring.testing.lab_file import _from_toml
from shoestring.testing.lab_plan import HostPlan, LabPlan, LinkPlan
from shoestring.testing.lab_router import Way

EXAMPLE = """
mtu = 1500
seed = 7
[hosts.home]
[hosts.slow]
memory = "2GiB"
cpu_share = 0.25
delay = "10ms"
jitter = "2ms"
loss = 0.5
rate = "100Mbit/s"
[hosts.far]
delay = "30ms"
loss = 0.5
[[links]]
from = "home"
to = "far"
delay = "1ms"
"""


def read(tmp_path, text):
    """The plan of a file with this text."""
    file = tmp_path / "lab.toml"
    file.write_text(text)
    return LabPlan.read(file)


def test_a_file_says_all_of_a_lab(tmp_path):
    """Units become seconds, bytes and bytes a second."""
    plan = read(tmp_path, EXAMPLE)
    slow = HostPlan(2 << 30, 0.25, delay_s=0.01, jitter_s=0.002, loss=0.5, rate_bytes_per_s=12.5e6)
    assert plan.hosts == {"home": HostPlan(), "slow": slow, "far": HostPlan(delay_s=0.03, loss=0.5)}
    assert plan.links == (LinkPlan("home", "far", 0.001),)
    assert (plan.mtu, plan.seed, plan.address("far")) == (1500, 7, "10.77.0.3")


def test_a_pairs_figures_add_up_unless_it_has_its_own(tmp_path):
    """Delay and jitter are sums, a packet survives both losses, a link is for one direction."""
    plan = read(tmp_path, EXAMPLE)
    assert plan.way("slow", "far") == LinkPlan("slow", "far", 0.04, 0.002, 0.75)
    assert plan.way("home", "far").delay_s == 0.001
    assert plan.way("far", "home").delay_s == 0.03


@pytest.mark.parametrize(("text", "said"), [
    ("hosts = 3", "names no host"),
    ("[hosts.a]\nspeed = 3", "hosts.a: 'speed' is unknown"),
    ("[hosts.a]\ndelay = 10", "hosts.a: delay: 10: write it with its unit"),
    ("[hosts.a]\ndelay = '10'", "hosts.a: delay: 10 is no time"),
    ("[hosts.a]\nrate = '10Mb/s'", "bits or bytes"),
    ("[hosts.a]\nloss = 2", "hosts.a: loss 2: it is from 0 to 1"),
    ("[hosts.a]\ncpu_share = true", "hosts.a: cpu_share: True is no number"),
    ("[hosts.a]\ncpu_share = nan", "hosts.a: cpu_share nan"),
    ("[hosts.a]\nmemory = '1KiB'", "hosts.a: memory 1024"),
    ("[hosts.A]", "host 'A': a name is"),
    ("[hosts.a]\n[[links]]\nfrom = 'a'", "link 1: it needs from and to"),
    ("[hosts.a]\n[[links]]\nfrom = 'a'\nto = 'b'", "host 'b': there is a"),
    ("[hosts.a]\n[[links]]\nfrom = 'a'\nto = 'a'", "two hosts"),
    ("[hosts.a]\n[links]", "links are tables"),
    ("mtu = 9\n[hosts.a]", "mtu 9"),
    ("mtu = 9.5\n[hosts.a]", "no whole number"),
    ("host = 1", "'host': unknown"),
    ("[hosts", "is no TOML file"),
])  # fmt: skip
def test_a_wrong_file_is_one_clear_line(tmp_path, text, said):
    """It names the file, the place, the value and what would do."""
    with pytest.raises(BadValueError) as caught:
        read(tmp_path, text)
    assert str(tmp_path / "lab.toml") in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    """With the system's reason."""
    with pytest.raises(BadValueError, match=r"no\.toml: No such file"):
        LabPlan.read(tmp_path / "no.toml")


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
KEYS = st.sampled_from(["delay", "jitter", "loss", "rate", "memory", "cpu_share", "from", "to"])


@given(st.dictionaries(KEYS, VALUES))
def test_any_value_makes_a_host_or_a_clear_error(table):
    """Nothing else is raised, and what is made lies within the bounds."""
    try:
        loss = _from_toml({"hosts": {"a": table}}).hosts["a"].loss
    except BadValueError as error:
        loss, said = None, str(error)
    assert said.startswith("hosts.a: ") if loss is None else 0 <= loss <= 1


DELAYS = st.floats(0, 60)
HOSTS = st.builds(HostPlan, delay_s=DELAYS, jitter_s=DELAYS, loss=st.floats(0, 1),
                  cpu_share=st.none() | st.floats(0.001, 64),
                  rate_bytes_per_s=st.none() | st.floats(1000, 1e12),
                  memory_bytes=st.none() | st.integers(1 << 20, 1 << 50))  # fmt: skip


@given(st.dictionaries(st.from_regex(r"\A[a-z][a-z0-9-]{0,9}\Z"), HOSTS, min_size=1, max_size=9))
def test_a_plan_comes_back_from_json(hosts):
    """The same plan, whatever its figures."""
    plan = LabPlan(hosts)
    assert LabPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


@given(st.lists(st.tuples(DELAYS, DELAYS, st.integers(0, 10**9)), min_size=1), st.integers())
def test_packets_of_a_pair_keep_their_order_and_come_no_sooner(steps, seed):
    """Whatever the jitter, and however the figures change between them."""
    way = Way(str(seed))
    left_ns, last_ns = 0, 0
    for delay_s, jitter_s, pause_ns in steps:
        way.take(LinkPlan("a", "b", delay_s, jitter_s))
        left_ns += pause_ns
        due_ns = way.arrival_ns(left_ns)
        assert due_ns >= last_ns
        assert due_ns >= left_ns + round(delay_s * 1e9)
        last_ns = due_ns


def test_loss_and_jitter_are_the_seeds():
    """The same seed loses the same packets."""

    def fates(seed):
        way = Way(seed)
        way.take(LinkPlan("a", "b", jitter_s=0.001, loss=0.3))
        return [way.arrival_ns(n * 10**9) for n in range(500)]

    assert fates("x") == fates("x") != fates("y")
    assert 90 < sum(one is None for one in fates("x")) < 210
