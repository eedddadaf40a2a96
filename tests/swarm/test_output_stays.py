"""Where the output of a chain is computed: in the client's RAM, or on a card that can be used."""

import pytest

from shoestring.engines.llama_server import OUTPUT_IN_RAM, LlamaServerEngine, list_devices
from shoestring.engines.offload import Offload
from shoestring.errors import EngineLostError
from shoestring.hardware.device_words import parse_devices
from shoestring.models.outline import outline_of_shape
from shoestring.plan.memory import Settings
from shoestring.plan.planner import Ask, make_plan
from shoestring.plan.speed_constants import load_constants
from shoestring.swarm.chain import offload_over
from shoestring.swarm.chains import Chains, Wanted, usable_devices
from shoestring.swarm.firewall import Rules
from shoestring.swarm.wire import TENSOR_BYTES, TWO_U64, Command, tensor_name
from shoestring.testing.engines import need_program
from shoestring.testing.rpc_real import real_worker, record_answer

GIB = 1 << 30
RULES = Rules(memory_bytes=4 * GIB, device_memory_bytes=4 * GIB)
SENDS = {Command.SET_TENSOR, Command.SET_TENSOR_HASH}
WIDTH = 640
"""Of the small model."""
FLOAT_BYTES = 4
MODEL = "llama-3.1-8b:q4_k_m"
RAM = "ram:12GiB:20GB/s"


@pytest.mark.engine
def test_no_logits_cross_the_wire_and_no_weights_of_the_output(small_model, tmp_path):
    """Of each token the last layer's activation comes back, four bytes for each of its numbers."""
    words = ("--override-tensor", OUTPUT_IN_RAM)
    text, heard = record_answer(small_model.path, RULES, tmp_path, words)
    frames = [frame for one in heard for frame in one.requests]
    sent = {tensor_name(frame.head) for frame in frames if frame.command in SENDS}
    asked = {
        (tensor_name(frame.head), TWO_U64.unpack_from(frame.head, TENSOR_BYTES)[1])
        for frame in frames
        if frame.command == Command.GET_TENSOR and tensor_name(frame.head).startswith("result_")
    }
    assert text
    assert "blk.0.attn_q.weight" in sent
    assert not {name for name in sent if name.startswith(("output.", "token_embd."))}
    assert asked == {("result_norm", WIDTH * FLOAT_BYTES)}


@pytest.mark.parametrize(
    ("given", "devices", "output_in_ram"),
    [
        (("2xpeer:4GiB:300GB/s:1ms", RAM), ("RPC0", "RPC1"), True),
        (("peer:t4:1ms", RAM), ("RPC0",), True),
        (("peer:t4:1ms", "gtx 1050 ti", RAM), ("RPC0", "CUDA1"), False),
        (("peer:t4:9s", "gtx 1050 ti:8GiB", RAM), ("CUDA1",), False),
        (("peer:t4:9s", RAM), ("none",), False),
    ],
)
def test_each_device_of_a_chain_is_named(given, devices, output_in_ram):
    """In the plan's order, so that no share goes to another; a peer without layers is none."""
    here = parse_devices(given)
    ask = Ask(model=MODEL, outline=outline_of_shape(MODEL), settings=Settings(context=512),
              devices=here, keeps_output=True)  # fmt: skip
    endpoints = tuple(f"127.0.0.1:{5000 + n}" for n in range(str(devices).count("RPC")))
    cards = {device.name: "CUDA1" for device in here if device.kind == "gpu"}
    offload = offload_over(make_plan(ask, load_constants()), endpoints, cards)

    assert (offload.devices, offload.rpc) == (devices, endpoints)
    assert offload.output_in_ram is output_in_ram
    assert len(offload.tensor_split or (1,)) == len(devices)


def test_a_card_is_used_under_the_name_that_llama_server_gives_it():
    """Whatever the order, once each; what it does not list is left out, and said."""
    said = []
    here = parse_devices(("2xt4", "gtx 1050 ti", "rtx 3060", RAM))
    first, second, other, unlisted, ram = here
    listed = [("CUDA0", other.title), ("CUDA1", first.title), ("CUDA2", second.title),
              ("Vulkan0", other.title)]  # fmt: skip
    usable, names = usable_devices(here, said.append, lambda: listed)

    assert usable == (first, second, other, ram)
    assert names == {first.name: "CUDA1", second.name: "CUDA2", other.name: "CUDA0"}
    (line,) = said
    assert line.startswith(f"{unlisted.name} ({unlisted.title}) is left out: ")


def test_without_a_card_llama_server_is_not_asked():
    """A machine that has no engine yet says so later, as it did."""
    here = parse_devices((RAM,))

    assert usable_devices(here, print, lambda: 1 / 0) == (here, {})


@pytest.mark.engine
def test_a_real_llama_server_lists_what_it_was_built_for(tmp_path, monkeypatch):
    """A worker is a device of its own."""
    need_program("llama-server")
    need_program("ggml-rpc-server")
    with real_worker(tmp_path) as port:
        monkeypatch.setenv("LLAMA_ARG_RPC", f"127.0.0.1:{port}")
        assert ("RPC0", f"127.0.0.1:{port}") in list_devices()


@pytest.mark.engine
def test_chains_leave_out_a_card_that_a_real_llama_server_does_not_know(monkeypatch):
    """Before any plan, in one line."""
    need_program("llama-server")
    said = []
    here = parse_devices(("gtx 1050 ti", RAM))
    monkeypatch.setattr("shoestring.swarm.chains.find_devices", lambda *_: (here, load_constants()))
    wanted = Wanted(f"shape:{MODEL}", 512, 1, peer_layers=None, mirrors=0, log_path=None)
    Chains(wanted, None, None, tell=None, planned=None, say=said.append)

    (line,) = said
    assert line.startswith(f"{here[0].name} ({here[0].title}) is left out: ")


@pytest.mark.engine
def test_a_real_llama_server_without_the_named_card_does_not_start(small_model, tmp_path):
    """Rather than lay the card's layers, and the output, on a peer."""
    need_program("llama-server")
    log = tmp_path / "engine.log"
    with real_worker(tmp_path) as port:
        offload = Offload(gpu_layers=19, tensor_split=(9, 10), devices=("RPC0", "CUDA99"),
                          rpc=(f"127.0.0.1:{port}",))  # fmt: skip
        engine = LlamaServerEngine(small_model.path, "m", offload=offload, context=512,
                                   log_path=log)  # fmt: skip
        engine.start()
        with pytest.raises(EngineLostError):
            engine.load()

    assert "invalid device: CUDA99" in log.read_text()
