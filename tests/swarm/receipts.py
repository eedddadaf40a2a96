"""Both ends of a session's receipts, and the frames that they are told."""

import itertools

import numpy as np
from blake3 import blake3

from shoestring.swarm.identity import load_identity
from shoestring.swarm.journal import Entry, Reply
from shoestring.swarm.proof.agreeing import Asked, Price, agreed_terms
from shoestring.swarm.proof.earning import Earner
from shoestring.swarm.proof.paying import Payer
from shoestring.swarm.proof.receipts import Hand
from shoestring.swarm.splitting import Splitter
from shoestring.swarm.tensors import NUMBER_OF_OP, NUMBER_OF_TYPE, TENSOR
from shoestring.swarm.wire import (
    Command,
    get_tensor,
    graph_compute,
    request,
    set_tensor_start,
)

ENGINE = "ab" * 32
PRICE = Price(price_in=3_000, price_out=20_000)
WIDTH = 4
NOW_S = 1_800_000_000.0


def parties_in(folder):
    """Make client, node, and another."""
    return [load_identity(folder / name / "identity.key") for name in ("client", "node", "other")]


def tensor(name, *, kind="F32", ne=(1, 1, 1, 1), op="NONE", number=1, src=(), view=0, data=0):
    """Word a tensor."""
    one = np.zeros((), TENSOR)
    one["id"], one["type"], one["ne"] = number, NUMBER_OF_TYPE[kind], ne
    one["op"], one["name"] = NUMBER_OF_OP[op], name.encode()
    one["src"][: len(src)], one["view_src"], one["data"] = src, view, data
    return one.tobytes()


def frame_of(request_bytes):
    """Return a request as a frame, and its body."""
    frame, *body = Splitter().feed(request_bytes)
    return frame, b"".join(body)


def set_copy(name, data, **shape):
    """Word what the scheduler of llama.cpp sets."""
    return set_tensor_start(tensor(f"RPC0[here:1]#{name}#0", **shape), 0, len(data)) + data


def positions(count):
    """Word the positions of a step."""
    return set_copy("inp_pos", bytes(4 * count), kind="I32", ne=(count, 1, 1, 1))


def activation(layer, rows, fill):
    """Word an activation that is set."""
    return set_copy(f"l_out-{layer}", bytes([fill]) * 4 * WIDTH * rows, ne=(WIDTH, rows, 1, 1))


def graph(layers, *, rotates=None):
    """Word a graph with weights of these layers."""
    tensors = [tensor(f"blk.{layer}.attn_q.weight", kind="Q8_0") for layer in layers]
    if rotates:
        tensors.append(tensor("Qcur", op="ROPE", ne=(8, 2, rotates, 1)))
    return graph_compute(0, [1], tensors)


class Drawing:
    """A graph that is being drawn, as llama.cpp words one."""

    def __init__(self):
        """Begin with nothing."""
        self.tensors = []

    def add(self, name, **more):
        """Add a tensor, and return its id."""
        number = len(self.tensors) + 1
        self.tensors.append(tensor(name, number=number, **more))
        return number

    def multiply(self, name, at, rows, *, ne=(32, 32, 1, 1), op="MUL_MAT", out=None):
        """Multiply with a matrix that lies somewhere."""
        matrix = self.add(name, kind="Q8_0", ne=ne, data=at)
        out = out or (ne[1], rows, 1, 1)
        return self.add("product", op=op, ne=out, src=(matrix,))

    def store(self, name, at):
        """Write into a cache."""
        cache = self.add(name, kind="F16", ne=(32, 64, 1, 1), data=at)
        return self.add("stored", op="SET_ROWS", view=cache)

    def layer(self, number, rows=1, *, name="blk.{}"):
        """Draw a dense layer: 7 matrices, 2 rotations, 2 caches, and its attention."""
        at = 1_000 * (number + 1)
        for part in range(7):
            self.multiply(f"{name.format(number)}.{part}.weight", at + part, rows)
        for part in range(2):
            self.add("turned", op="ROPE", ne=(8, 4, rows, 1))
            self.store(f"cache_{part}_l{number}", at + 10 + part)
        self.add("attended", op="FLASH_ATTN_EXT", ne=(8, 4, rows, 1))
        return self

    def said(self, device=0):
        """Word it."""
        return graph_compute(device, [1], self.tensors)


def layers_of(first, last, rows=1, **more):
    """Word a graph of dense layers."""
    drawn = Drawing()
    for number in range(first, last + 1):
        drawn.layer(number, rows, **more)
    return drawn.said()


AGAIN = request(Command.GRAPH_RECOMPUTE, bytes(4))


def read(name, size):
    """Word a read of a tensor of floats."""
    return get_tensor(tensor(name), 0, size)


class Link:
    """Both ends of a session's receipts, told the same."""

    def __init__(self, client, node, *, price=PRICE, window_steps=8, **more):
        """Agree on terms."""
        self.terms = agreed_terms(
            Asked(price, window_steps), price, session="0123456789abcdef",
            client=client.id, node=node.id, engine=ENGINE, **more,
        )  # fmt: skip
        self.here, self.there, self.disputes = [], [], []
        self.node_s = NOW_S
        self.bursts, self.burst, self.told = itertools.repeat(1), 1, 0
        hand = Hand(client, self.here.append)
        self.payer = Payer(self.terms, hand, self.disputes.append, lambda: NOW_S)
        hand = Hand(node, self.there.append)
        self.earner = Earner(self.terms, hand, lambda: self.node_s)

    def tell(self, request_bytes, *, answer=None, heard=None, carried=None):
        """Tell a frame; the node hears the same, or something else. Both meter it afterwards.

        They do so after as many frames as ``bursts`` gives next.
        """
        frame, body = frame_of(request_bytes)
        reply = None if answer is None else Reply(frame, 0.0)
        self.payer.note(frame, body, Entry(frame, body, reply=reply, carried=carried))
        there, body_there = frame_of(heard or request_bytes)
        self.earner.note(there)
        if body_there:
            self.earner.hear(body_there)
        if answer is not None:
            self.earner.begin()
            self.earner.tell(answer)
            self.payer.answered(reply, blake3(answer).digest())
        self.told += 1
        if self.told >= self.burst:
            self.told, self.burst = 0, next(self.bursts)
            self.payer.catch_up()
            self.earner.catch_up()

    def step(self, fill=0, *, count=1, layer=3, **heard):
        """Have a step computed."""
        self.tell(positions(count))
        self.tell(activation(layer - 1, count, fill), **heard)
        self.tell(AGAIN)
        out = bytes([fill + 1]) * 4 * WIDTH * count
        self.tell(read(f"l_out-{layer}", len(out)), answer=out)

    def settle(self, step=0):
        """Close a window and have it signed; return the node's answer."""
        self.payer.cut(step)
        claim = self.payer.claim()
        answer = self.earner.judge(claim)
        self.payer.hear(answer)
        return answer
