import fcntl
import hashlib
import json
import os
import random
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
import requests

from shoestring.engines.discovery import find_program
from shoestring.errors import BadValueError, MissingError, ShoestringError
from shoestring.testing.faults import NotAllowedError
from shoestring.testing.lab import PREFIX, HostPlan, LabPlan, LinkPlan, lab
from shoestring.testing.lab_groups import find_places
from shoestring.testing.lab_workers import start_workers

PYTHON = (sys.executable, "-I", "-c")
PLAN = LabPlan({
    "home": HostPlan(),
    "near": HostPlan(delay_s=0.003),
    "far": HostPlan(delay_s=0.005, jitter_s=0.001),
    "busy": HostPlan(),
})  # fmt: skip
LIMIT_S = 60.0


@pytest.fixture(scope="module")
def running():
    """A lab that most tests share; each leaves it as it was."""
    try:
        with lab(PLAN) as one:
            yield one
    except (NotAllowedError, MissingError) as error:
        pytest.skip(str(error))


def tcp_pair(source, to):
    """A connection from one host to another: both ends."""
    with to.socket() as listener:
        listener.bind((to.address, 0))
        listener.listen(1)
        one = source.connect(listener.getsockname()[1], to.address)
        other, _ = listener.accept()
    for end in (one, other):
        end.settimeout(LIMIT_S)
    return one, other


def udp_pair(source, to):
    """A socket that sends to the other, on another host."""
    one, other = source.socket(socket.SOCK_DGRAM), to.socket(socket.SOCK_DGRAM)
    other.bind((to.address, 0))
    one.bind((source.address, 0))
    one.connect(other.getsockname())
    other.connect(one.getsockname())
    for end in (one, other):
        end.settimeout(LIMIT_S)
    return one, other


def receive_all(end, size):
    """Bytes up to this many."""
    data = bytearray()
    while len(data) < size:
        came = end.recv(1 << 20)
        assert came
        data += came
    return bytes(data)


def sent_while(end, data):
    """A thread that sends."""
    thread = threading.Thread(target=end.sendall, args=(data,))
    thread.start()
    return thread


def test_a_round_trip_takes_at_least_the_delays_of_both_hosts(running):
    """Twice the sum, never less, for every one of 50."""
    one, other = udp_pair(running.hosts["near"], running.hosts["far"])
    with one, other:
        for _ in range(50):
            begun_ns = time.monotonic_ns()
            one.send(b"x")
            other.send(other.recv(9))
            one.recv(9)
            assert time.monotonic_ns() - begun_ns >= 2 * (3_000_000 + 5_000_000)


def test_a_link_of_its_own_holds_for_its_direction_only(running):
    """And is dropped again by another one."""
    near, far = running.hosts["near"], running.hosts["far"]
    one, other = udp_pair(near, far)
    with one, other:
        running.set_link(LinkPlan("near", "far", delay_s=0.05))
        begun_ns = time.monotonic_ns()
        one.send(b"x")
        other.recv(9)
        assert time.monotonic_ns() - begun_ns >= 50_000_000
        assert running.status()["plan"]["links"][0]["delay_s"] == 0.05
        running.set_link(LinkPlan("near", "far", delay_s=0.008, jitter_s=0.001))


def test_bytes_arrive_intact_both_ways_at_once(running):
    """3 MB each way, over delay and jitter."""
    seeded = random.Random(1)
    there, back = (seeded.randbytes(3_000_000) for _ in range(2))
    one, other = tcp_pair(running.hosts["near"], running.hosts["far"])
    with one, other:
        threads = [sent_while(one, there), sent_while(other, back)]
        got = {}
        reader = threading.Thread(target=lambda: got.update(back=receive_all(one, len(back))))
        reader.start()
        got["there"] = receive_all(other, len(there))
        for thread in (*threads, reader):
            thread.join()
    assert got == {"there": there, "back": back}


@pytest.mark.parametrize("way", [("home", "busy"), ("busy", "home")])
def test_a_rate_holds_in_each_direction(running, way):
    """2 MB at 20 MB/s take no less than a tenth of a second, up and down."""
    source, to = (running.hosts[name] for name in way)
    running.change("busy", rate_bytes_per_s=20e6)
    try:
        one, other = tcp_pair(source, to)
        with one, other:
            begun_ns = time.monotonic_ns()
            thread = sent_while(one, bytes(2_000_000))
            receive_all(other, 2_000_000)
            took_ns = time.monotonic_ns() - begun_ns
            thread.join()
    finally:
        running.change("busy", rate_bytes_per_s=None)
    assert took_ns >= 100_000_000


@pytest.mark.parametrize("way", [("home", "busy"), ("busy", "home")])
def test_a_single_packet_takes_its_time_on_a_link(running, way):
    """60,000 bytes at 1 MB/s: 60 ms, though nothing is before it."""
    one, other = udp_pair(*(running.hosts[name] for name in way))
    running.change("busy", rate_bytes_per_s=1e6)
    try:
        with one, other:
            begun_ns = time.monotonic_ns()
            one.send(bytes(60_000))
            other.recv(65_536)
            assert time.monotonic_ns() - begun_ns >= 60_000_000
    finally:
        running.change("busy", rate_bytes_per_s=None)


def test_a_slower_way_becoming_a_faster_one_keeps_the_order(running):
    """What is sent after the change does not overtake."""
    one, other = udp_pair(running.hosts["home"], running.hosts["busy"])
    with one, other:
        running.change("busy", delay_s=0.2)
        for n in range(20):
            one.send(bytes([n]))
        running.change("busy", delay_s=0.0)
        for n in range(20, 40):
            one.send(bytes([n]))
        assert [other.recv(9)[0] for _ in range(40)] == list(range(40))


def test_a_cut_cable_lets_nothing_through_and_tcp_goes_on_when_it_is_mended(running):
    """No byte and no reset arrives; afterwards all of them, in order."""
    one, other = tcp_pair(running.hosts["home"], running.hosts["near"])
    with one, other:
        running.cut("near")
        assert running.status()["router"]["cut"] == ["near"]
        one.sendall(b"while cut")
        other.settimeout(0.3)
        with pytest.raises(TimeoutError):
            other.recv(9)
        running.mend("near")
        other.settimeout(LIMIT_S)
        assert receive_all(other, 9) == b"while cut"
        other.sendall(b"back")
        assert receive_all(one, 4) == b"back"


def test_what_is_under_way_to_a_cut_host_vanishes(running):
    """It was sent before the cable was pulled, and would have come after."""
    one, other = udp_pair(running.hosts["home"], running.hosts["busy"])
    with one, other:
        running.change("busy", delay_s=3.0)
        lost = running.status()["router"]["hosts"]["busy"].get("lost_packets", 0)
        one.send(b"x")
        while running.status()["router"]["under_way"] == 0:
            pass
        running.cut("busy")
        while running.status()["router"]["under_way"]:
            pass
        running.mend("busy")
        running.change("busy", delay_s=0.0)
        assert running.status()["router"]["hosts"]["busy"]["lost_packets"] == lost + 1
        one.send(b"y")
        assert other.recv(9) == b"y"


def test_two_hosts_can_be_cut_off_from_each_other_only(running):
    """A third still reaches both."""
    hosts = running.hosts
    running.cut("home", "near")
    try:
        one, other = udp_pair(hosts["home"], hosts["near"])
        third, fourth = udp_pair(hosts["busy"], hosts["near"])
        with one, other, third, fourth:
            one.send(b"x")
            third.send(b"y")
            assert fourth.recv(9) == b"y"
            other.settimeout(0.1)
            with pytest.raises(TimeoutError):
                other.recv(9)
    finally:
        running.mend("home", "near")


def test_multicast_reaches_every_other_host(running):
    """So that machines find each other as on one LAN."""
    group = "224.0.0.251"
    receivers = [running.hosts[name].socket(socket.SOCK_DGRAM) for name in ("near", "far")]
    for receiver, name in zip(receivers, ("near", "far"), strict=True):
        own = socket.inet_aton(running.hosts[name].address)
        receiver.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP,
                            socket.inet_aton(group) + own)  # fmt: skip
        receiver.bind((group, 5353))
        receiver.settimeout(LIMIT_S)
    with running.hosts["home"].socket(socket.SOCK_DGRAM) as sender:
        sender.sendto(b"who is there", (group, 5353))
        for receiver in receivers:
            with receiver:
                assert receiver.recv(99) == b"who is there"


def test_there_is_no_way_out(running):
    """Neither to another net nor to this machine's loopback."""
    with socket.create_server(("127.0.0.1", 0)) as outside, pytest.raises(ConnectionRefusedError):
        running.hosts["home"].connect(outside.getsockname()[1])
    with pytest.raises(OSError, match="unreachable"):
        running.hosts["home"].connect(80, "192.0.2.1")


def test_a_process_says_its_status_and_output(running, tmp_path, monkeypatch):
    """It is in its host's network and in our folder, with the variables that were given."""
    monkeypatch.chdir(tmp_path)
    log = tmp_path / "log"
    code = "import os; print(os.environ['WORD'], os.getcwd(), flush=True); os.system('ip address')"
    process = running.hosts["near"].start(
        [*PYTHON, code + "; raise SystemExit(3)"], environment={"WORD": "hi"}, log_path=log
    )
    assert process.wait() == 3
    assert process.wait(0) == 3
    said = log.read_text()
    assert said.startswith(f"hi {tmp_path}\n")
    assert "inet 10.77.0.2/24" in said


def process_state(process):
    """The letter that the kernel gives."""
    stat = Path(f"/proc/{process.pid}/stat").read_text()
    return stat.rpartition(")")[2].split()[0]


def test_a_process_can_be_frozen_thawed_and_killed(running):
    """By its id here; all of its group."""
    process = running.hosts["near"].start(["sleep", "1000"])
    assert process.wait(0) is None
    process.freeze()
    assert process_state(process) == "T"
    process.thaw()
    assert process_state(process) in "SR"
    process.kill()
    assert process.wait() == -signal.SIGKILL
    process.kill()  # to a dead one nothing happens
    assert not Path(f"/proc/{process.pid}").exists()


def test_what_cannot_be_is_one_line(running):
    """A program, a host, a figure."""
    with pytest.raises(MissingError, match="no-such-program cannot be started: No such file"):
        running.hosts["home"].start(["no-such-program"])
    for wrong in (lambda: running.cut("nobody"), lambda: running.cut("home", "nobody"),
                  lambda: running.forward("nobody", 80)):  # fmt: skip
        with pytest.raises(BadValueError, match="host 'nobody': there is home, near"):
            wrong()
    with pytest.raises(BadValueError, match="loss 2"):
        running.change("near", loss=2)
    with pytest.raises(BadValueError, match="speed"):
        running.change("near", speed=2)
    with pytest.raises(BadValueError, match="memory_bytes is set when a process starts"):
        running.change("near", memory_bytes=1 << 30)
    assert running.status()["plan"]["hosts"]["near"]["loss"] == 0


HOG = "held = [bytearray(1 << 20) for _ in range(400)]"


def test_a_hog_is_stopped_by_its_cap_and_the_lab_lives(running):
    """400 MB under a cap of 100 MB; without the cap it goes well."""
    home = running.hosts["home"]
    status = home.start([*PYTHON, HOG], memory_bytes=100 << 20).wait()
    group = running.status()["caps_by"]["memory"]
    assert status == (1 if group == "RLIMIT_DATA" else -signal.SIGKILL)
    assert home.start([*PYTHON, HOG]).wait() == 0


BURN = """
import time
begun = time.monotonic()
while time.process_time() < 0.3:
    pass
print(time.monotonic() - begun)
"""


def test_a_share_of_the_processor_slows_a_process(running, tmp_path):
    """0.3 s of a quarter of a core take more than a second."""
    log = tmp_path / "log"
    try:
        process = running.hosts["home"].start([*PYTHON, BURN], cpu_share=0.25, log_path=log)
    except NotAllowedError as error:
        pytest.skip(str(error))
    assert process.wait() == 0
    assert float(log.read_text()) > 1.0


def test_caps_of_a_host_hold_for_all_its_processes_together():
    """Two that would fit alone do not fit together."""
    with lab(LabPlan({"home": HostPlan(memory_bytes=150 << 20)})) as one:
        if one.status()["caps_by"]["memory"] == "RLIMIT_DATA":
            pytest.skip("no control group")
        code = "held = bytearray(100 << 20)\nimport sys; sys.stdin.read()"
        ours, theirs = socket.socketpair()
        with ours, theirs:
            files = (theirs.fileno(), 1, 2)
            pair = [one.hosts["home"].start_on([*PYTHON, code], files, environment=os.environ)
                    for _ in range(2)]  # fmt: skip
            while not (ended := [s for process in pair if (s := process.wait(0.05)) is not None]):
                pass
            assert ended == [-signal.SIGKILL]


def serve_once(host, answer):
    """A server on a host's loopback that reads to the end, answers and closes."""
    listener = host.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(1)

    def serve():
        with listener:
            connection, _ = listener.accept()
            with connection:
                data = b""
                while came := connection.recv(1 << 16):
                    data += came
                connection.sendall(answer(data))

    threading.Thread(target=serve).start()
    return listener.getsockname()[1]


def test_a_forwarded_port_leads_to_a_server_on_a_host(running):
    """Bytes are intact, an end is passed on in each direction."""
    data = random.Random(2).randbytes(2_000_000)
    port = serve_once(running.hosts["far"], lambda got: hashlib.sha256(got).digest())
    with socket.create_connection(("127.0.0.1", running.forward("far", port))) as one:
        one.settimeout(LIMIT_S)
        one.sendall(data)
        one.shutdown(socket.SHUT_WR)
        assert receive_all(one, 32) == hashlib.sha256(data).digest()
        assert one.recv(1) == b""


def test_a_forwarded_port_without_a_server_ends_the_connection(running):
    """Nobody waits for it."""
    with socket.create_connection(("127.0.0.1", running.forward("far", 9))) as one:
        one.settimeout(LIMIT_S)
        assert one.recv(1) == b""


def networks():
    """The network namespaces of all processes that we see."""
    found = set()
    for place in Path("/proc").glob("[0-9]*/ns/net"):
        try:
            found.add(place.readlink())
        except OSError:
            continue
    return found


class Remains:
    """What a lab would leave: remembered while it is up."""

    def __init__(self, one):
        code = "import os\nif os.fork() == 0: os.setsid()\nimport signal; signal.pause()"
        self.process = one.hosts["near"].start([*PYTHON, code], memory_bytes=1 << 30)
        self.folder = one.folder
        self.keeper = int((one.folder / "keeper.pid").read_text())
        self.network = Path(f"/proc/{self.process.pid}/ns/net").readlink()
        assert self.network in networks()

    def assert_none(self):
        """Process, daemon of its own session, network, folder, control group: all gone."""
        assert not Path(f"/proc/{self.process.pid}").exists()
        assert self.network not in networks()
        assert not self.folder.exists()
        for place in find_places().values():
            assert not (place.folder / f"{PREFIX}{self.keeper}").exists()


def test_nothing_is_left_after_the_block(running):
    """Nor is what was started a concern of the caller's."""
    with lab(PLAN) as one:
        remains = Remains(one)
    remains.assert_none()
    with pytest.raises(ShoestringError, match="does not answer"):
        one.status()
    assert running.status()["addresses"]["near"] == "10.77.0.2"  # another lab was not touched


def test_nothing_is_left_after_an_exception_in_the_block(running):
    """Which comes through."""
    remains = []

    def fail():
        with lab(PLAN) as one:
            remains.append(Remains(one))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    remains[0].assert_none()
    assert running.status()["processes"] is not None


def test_nothing_is_left_when_the_keeper_is_killed(running):
    """The kernel ends the processes, the block removes the rest."""
    with lab(PLAN) as one:
        remains = Remains(one)
        os.kill(remains.keeper, signal.SIGKILL)
    remains.assert_none()
    assert running.status()["processes"] is not None


OWNER = """
import sys
from pathlib import Path
from shoestring.testing.lab import HostPlan, LabPlan, lab
with lab(LabPlan({"near": HostPlan()})) as one:
    process = one.hosts["near"].start(["sleep", "1000"], memory_bytes=1 << 30)
    print(process.pid, one.folder, (one.folder / "keeper.pid").read_text(), flush=True)
    sys.stdin.read()
"""


def test_nothing_is_left_when_the_owner_is_killed(running):
    """The keeper sees to it."""
    with subprocess.Popen([sys.executable, "-c", OWNER], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as owner:  # fmt: skip
        pid, folder, keeper = owner.stdout.readline().split()
        place = os.open(folder, os.O_RDONLY)
        keeper_end = os.pidfd_open(int(keeper))
        owner.kill()
    fcntl.flock(place, fcntl.LOCK_EX)  # held until owner, keeper and process 1 have ended
    os.close(place)
    select.select([keeper_end], [], [])
    os.close(keeper_end)
    assert not Path(folder).exists()
    assert not Path(f"/proc/{pid}").exists()
    for one in find_places().values():
        assert not (one.folder / f"{PREFIX}{keeper}").exists()
    assert running.status()["processes"] is not None


ROOTLESS = """
import json
from shoestring.testing.lab import HostPlan, LabPlan, lab
with lab(LabPlan({"home": HostPlan(), "near": HostPlan(delay_s=0.001)})) as one:
    near = one.hosts["near"]
    with near.socket() as listener:
        listener.bind((near.address, 0))
        listener.listen()
        one.hosts["home"].connect(listener.getsockname()[1], near.address).close()
    hog = ["sh", "-c", "head -c 400000000 /dev/zero | tail -n 1 > /dev/null"]
    status = near.start(hog, memory_bytes=100 << 20).wait()
    print(json.dumps([one.status()["caps_by"], one.status()["router"]["priority"], status]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="shows that root is not needed")
def test_root_is_not_needed(running):
    """A user namespace does; memory is then capped by a resource limit, and that is said."""
    may_read = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]  # Python's folder
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *may_read]
    if subprocess.run([*nobody, sys.executable, "-c", "import shoestring"], cwd="/",
                      check=False, capture_output=True).returncode:  # fmt: skip
        pytest.skip("the package cannot be read by another user")
    done = subprocess.run([*nobody, sys.executable, "-c", ROOTLESS], cwd="/", text=True,
                          env={**os.environ, "HOME": "/nonexistent", "TMPDIR": "/tmp"},
                          capture_output=True, check=False)  # fmt: skip
    if done.returncode and re.search("user namespace|no tun device", done.stderr):
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.stderr == ""
    caps_by, priority, status = json.loads(done.stdout)
    assert (caps_by["memory"], priority) == ("RLIMIT_DATA", "normal")
    assert status == 1
    assert running.status()["router"]["priority"] == "real-time"


def test_folders_of_dead_labs_are_removed_by_the_next(running):
    """Where owner and keeper were killed at once."""
    dead = subprocess.Popen(["true"])
    dead.wait()
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{dead.pid}-"))
    with lab(LabPlan({"home": HostPlan()})):
        pass
    assert not folder.exists()
    assert running.folder.exists()


ASKED = {"prompt": "The quick brown fox", "n_predict": 24, "temperature": 0, "seed": 1,
         "cache_prompt": False}  # fmt: skip


def complete(running, command, log):
    """What a llama-server on home answers."""
    from shoestring.engines.launch import free_port

    port = free_port()
    server = running.hosts["home"].start([*command, "--port", str(port)], log_path=log)
    url = f"http://127.0.0.1:{running.forward('home', port)}"
    pause = threading.Event()
    with requests.Session() as session:
        session.trust_env = False
        while True:
            assert server.wait(0) is None, log.read_text()[-2000:]
            try:
                if session.get(f"{url}/health", timeout=LIMIT_S).ok:
                    break
            except requests.ConnectionError:
                pass
            pause.wait(0.05)
        answer = session.post(f"{url}/completion", json=ASKED, timeout=300).json()
    server.kill()
    server.wait()
    return answer["content"]


@pytest.mark.engine
def test_a_model_split_over_two_slow_hosts_answers_as_the_local_one(tmp_path, small_model):
    """llama-server on home, its layers on two workers with capped memory and processor."""
    program = find_program("llama-server")
    if program is None or find_program("ggml-rpc-server") is None:
        pytest.skip("llama.cpp is not installed")
    command = [str(program), "-m", str(small_model.path), "-c", "256", "-t", "1", "--no-webui"]
    plan = LabPlan({"home": HostPlan(), "one": HostPlan(delay_s=0.001),
                    "two": HostPlan(delay_s=0.002)})  # fmt: skip
    with lab(plan) as one:
        local = complete(one, command, tmp_path / "local.log")
        workers = start_workers(one, memory_bytes=2 << 30, log_folder=tmp_path)
        rpc = ",".join(worker.endpoint for worker in workers)
        split = complete(one, [*command, "--rpc", rpc, "-ngl", "99"], tmp_path / "split.log")
        carried = one.status()["router"]["hosts"]["two"]["received_bytes"]
    assert split == local
    assert carried > 10_000_000  # weights of its layers
