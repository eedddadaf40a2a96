"""What a chain whose output is in the client's RAM says to the one who has all layers."""

import pytest

from shoestring.engines.llama_server import OUTPUT_IN_RAM
from shoestring.swarm.firewall import Rules
from shoestring.swarm.wire import TENSOR_BYTES, TWO_U64, Command, tensor_name
from shoestring.testing.rpc_real import record_answer

GIB = 1 << 30
RULES = Rules(memory_bytes=4 * GIB, device_memory_bytes=4 * GIB)
SENDS = {Command.SET_TENSOR, Command.SET_TENSOR_HASH}
WIDTH = 640
"""Of the small model."""
FLOAT_BYTES = 4


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
