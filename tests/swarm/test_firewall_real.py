"""Real traffic through the firewall: a stock llama-server, a stock worker, and a relay between."""

import random

import pytest

from shoestring.swarm.firewall import Rules
from shoestring.swarm.wire import BadFrameError, Command
from shoestring.testing.rpc_frames import mutate, stray
from shoestring.testing.rpc_real import answer_over, real_worker, record_answer
from shoestring.testing.rpc_relay import Replayed, again

GIB = 1 << 30
RULES = Rules(memory_bytes=4 * GIB, device_memory_bytes=4 * GIB)
pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def real(small_model, tmp_path_factory):
    """An answer without the relay, one through it, and what went through."""
    folder = tmp_path_factory.mktemp("rpc")
    with real_worker(folder) as port:
        direct = answer_over(port, small_model.path, folder)
    return direct, *record_answer(small_model.path, RULES, folder)


def test_the_answer_is_the_same_through_the_firewall(real):
    """Every frame of llama.cpp's passed, and none was harmed."""
    direct, relayed, heard = real
    assert relayed == direct
    assert len(direct) > 10
    assert [session.refused for session in heard] == [None] * len(heard)


def test_all_that_a_model_needs_was_heard(real):
    """The test above says something only if the frames that matter went through."""
    _, _, heard = real
    commands = {frame.command for session in heard for frame in session.requests}
    needed = (
        "HELLO ALLOC_BUFFER BUFFER_GET_BASE SET_TENSOR GET_TENSOR GRAPH_COMPUTE GRAPH_RECOMPUTE "
        "GET_ALLOC_SIZE GET_DEVICE_MEMORY"
    )
    assert set(needed.split()) <= {Command(command).name for command in commands}


def test_the_client_never_hears_a_true_address(real):
    """Neither pointers nor bases of the worker's stand in what went back."""
    _, _, heard = real
    for session in heard:
        told = b"".join(answer for _, _, answer in session.answers)
        assert all(truth.to_bytes(8, "little") not in told for truth in session.truths())
    assert sum(len(session.truths()) for session in heard) >= 6


def test_what_passed_lies_in_the_sessions_buffers(real):
    """By another reckoning than the firewall's."""
    _, _, heard = real
    for session in heard:
        replayed = Replayed(session, RULES)
        for frame in session.requests:
            passed = replayed.go_on(again(frame))
            assert passed is None or stray(passed, list(replayed.places.values())) is None


def test_changed_real_frames_stay_inside_or_are_refused(real):
    """Each real frame, changed a few times, in the state of the session in which it was sent."""
    _, _, heard = real
    rng = random.Random(8)
    passed = refused = 0
    for session in heard:
        replayed = Replayed(session, RULES)
        for frame in session.requests:
            for _ in range(6):
                try:
                    copy = replayed.tried(mutate(rng, frame))
                except BadFrameError:
                    refused += 1
                    continue
                passed += 1
                assert copy is None or stray(copy, list(replayed.places.values())) is None
            replayed.go_on(again(frame))
    assert passed > 200
    assert refused > 500
