"""The firewall of one session at a node: what llama.cpp says passes, anything else ends it.

Every frame is checked whole before a byte of it goes to the worker, and in the same step the
addresses in it become the worker's: the client's ``buffer`` is a number, its ``data`` the number
and an offset (:mod:`buffers`). A frame that is refused has changed nothing.

What is closed here, all of it reported of llama.cpp's worker or found in its source: frames and
tensors of impossible sizes (it dies), data outside their buffer, or without one (written anywhere),
buffers used after they were freed, by themselves or by a stored graph, a copy into less room,
operations that call what the client points to, graphs that name a tensor twice (``use_counts`` is
written at -2), or zero, or in a circle, and operations whose shapes the worker's kernels do not
check (:mod:`firewall_shapes`).

What cannot be seen from here, and stays with the worker's sandbox: rows and experts that are
picked by *data* (GET_ROWS, SET_ROWS, ADD_ID, MUL_MAT_ID, SSM_SCAN; the first three are asserted by
the processor's kernels, all else is not), work memory of a graph beside its buffers, its time, and
flaws of kernels with right shapes. Such a frame may end the worker, and with it this session alone.
"""

from __future__ import annotations

import struct
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from shoestring.swarm.buffers import BUFFER_BITS, Buffers, ForbiddenFrameError
from shoestring.swarm.firewall_frames import (
    rewrite_copy,
    rewrite_graph,
    rewrite_new,
    rewrite_region,
    strip_places,
)
from shoestring.swarm.tensors import read_graph
from shoestring.swarm.wire import (
    ALLOC,
    GRAPH_TENSORS,
    TENSOR_BYTES,
    TWO_U64,
    U32,
    U64,
    VERSION,
    Command,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from shoestring.swarm.wire import Frame

HELLO_ANSWER = struct.Struct("<BBBB24x")
ZSTD_SLACK_BYTES = 1024
NOT_CACHED = b"\0"


class Verdict(NamedTuple):
    """Where a frame goes that passed.

    Attributes:
        to: ``worker``: its head is rewritten, pass it on. ``client``: the answer is given here, the
            worker never sees the frame. ``agent``: it is a command of ours; its tensor, if it has
            one, was checked and rewritten.
        answer: the payload for the client.
    """

    to: Literal["worker", "client", "agent"]
    answer: bytes = b""


TO_WORKER = Verdict("worker")
TO_AGENT = Verdict("agent")


@dataclass(frozen=True)
class Rules:
    """What a session may have.

    Attributes:
        memory_bytes: of all its buffers at a time.
        device_memory_bytes: what a device is said to have at most.
        buffers: how many at a time.
        devices: of the worker.
        graph_tensors: most tensors, and most nodes, of a graph.
        row_padding: numbers to which the worker pads the rows of quantised tensors: 512 for CUDA
            (``MATRIX_ROW_PADDING`` in ggml-cuda), 0 for the processor.
    """

    memory_bytes: int
    device_memory_bytes: int
    buffers: int = 64
    devices: int = 1
    graph_tensors: int = GRAPH_TENSORS
    row_padding: int = 0


class Firewall:
    """State of one session: its buffers, which graphs are stored, what the worker was asked."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._buffers = Buffers(rules.memory_bytes, rules.buffers)
        self._greeted = False
        self._stored: set[int] = set()
        """Devices whose last graph may be computed again."""
        self._making: deque[int] = deque()
        self._finding: deque[int] = deque()
        self._checks: dict[int, Callable[[Frame], Verdict]] = {
            Command.ALLOC_BUFFER: self._alloc,
            Command.GET_ALIGNMENT: self._ask_device,
            Command.GET_MAX_SIZE: self._ask_device,
            Command.BUFFER_GET_BASE: self._get_base,
            Command.FREE_BUFFER: self._free,
            Command.BUFFER_CLEAR: self._clear,
            Command.SET_TENSOR: self._set_tensor,
            Command.SET_TENSOR_HASH: self._set_hash,
            Command.GET_TENSOR: self._get_tensor,
            Command.COPY_TENSOR: self._copy,
            Command.GRAPH_COMPUTE: self._compute,
            Command.GET_DEVICE_MEMORY: self._ask_device,
            Command.INIT_TENSOR: self._init,
            Command.GET_ALLOC_SIZE: self._alloc_size,
            Command.HELLO: self._hello,
            Command.DEVICE_COUNT: lambda _frame: TO_WORKER,
            Command.GRAPH_RECOMPUTE: self._recompute,
            Command.MEMSET_TENSOR: self._get_tensor,
            Command.TAKE: self._own_region,
            Command.SET_PACKED: self._set_packed,
            Command.GET_PUSH: self._own_region,
            Command.SET_PUSHED: self._own_region,
            Command.PING: self._ping,
            Command.SETTLE: lambda _frame: TO_AGENT,
        }
        self._learn: dict[int, Callable[[bytes], bytes]] = {
            Command.ALLOC_BUFFER: self._made,
            Command.GET_MAX_SIZE: self._max_size,
            Command.BUFFER_GET_BASE: self._found,
            Command.GET_DEVICE_MEMORY: self._memory,
            Command.HELLO: _hello_answer,
            Command.DEVICE_COUNT: self._devices,
        }

    @property
    def waits(self) -> bool:
        """Whether the worker must answer before frames are asked for that use its buffers."""
        return bool(self._making or self._finding)

    def request(self, frame: Frame) -> Verdict:
        """Check a frame, and put the worker's addresses in the place of the client's.

        Raises:
            ForbiddenFrameError: it may not pass; its ``reason`` is a word to count by.
        """
        if not self._greeted and frame.command != Command.HELLO:
            raise ForbiddenFrameError("hello", f"command {frame.command} before HELLO")
        check = self._checks.get(frame.command)
        if check is None:
            raise ForbiddenFrameError("command", f"command {frame.command} is unknown")
        return check(frame)

    def answer(self, command: int, payload: bytes) -> bytes:
        """Put what the client may know in the place of what the worker says.

        Args:
            command: of the request; answers are given in the order of their requests.
            payload: as long as :data:`~shoestring.swarm.wire.ANSWER_BYTES` says; the data of
                GET_TENSOR hold no address and need not come here.

        Raises:
            ForbiddenFrameError: the worker said what cannot be, reason ``worker``.
        """
        learn = self._learn.get(command)
        return payload if learn is None else learn(payload)

    def _made(self, payload: bytes) -> bytes:
        number = self._making.popleft()
        size = self._buffers.made(number, *TWO_U64.unpack(payload))
        return TWO_U64.pack(number if size else 0, size)

    def _found(self, payload: bytes) -> bytes:
        number = self._finding.popleft()
        self._buffers.found(number, U64.unpack(payload)[0])
        return U64.pack(number << BUFFER_BITS)

    def _memory(self, payload: bytes) -> bytes:
        free_bytes, total_bytes = TWO_U64.unpack(payload)
        total_bytes = min(total_bytes, self._rules.device_memory_bytes)
        return TWO_U64.pack(min(free_bytes, total_bytes, self._buffers.free_bytes), total_bytes)

    def _max_size(self, payload: bytes) -> bytes:
        return U64.pack(min(U64.unpack(payload)[0], self._rules.memory_bytes))

    def _devices(self, payload: bytes) -> bytes:
        return U32.pack(min(U32.unpack(payload)[0], self._rules.devices))

    def _hello(self, frame: Frame) -> Verdict:
        if self._greeted:
            raise ForbiddenFrameError("hello", "HELLO twice")
        self._greeted = True
        frame.head[:] = bytes(len(frame.head))  # else RDMA would pass by the agent
        return TO_WORKER

    def _ask_device(self, frame: Frame) -> Verdict:
        self._device(U32.unpack_from(frame.head)[0])
        return TO_WORKER

    def _device(self, device: int) -> int:
        if device >= self._rules.devices:
            raise ForbiddenFrameError("device", f"device {device} of {self._rules.devices}")
        return device

    def _alloc(self, frame: Frame) -> Verdict:
        device, size = ALLOC.unpack_from(frame.head)
        self._device(device)
        self._making.append(self._buffers.ask(size))
        return TO_WORKER

    def _get_base(self, frame: Frame) -> Verdict:
        self._finding.append(self._name(frame))
        return TO_WORKER

    def _free(self, frame: Frame) -> Verdict:
        self._buffers.drop(self._name(frame))
        self._stored.clear()  # as the worker does
        return TO_WORKER

    def _clear(self, frame: Frame) -> Verdict:
        self._name(frame)
        return TO_WORKER

    def _name(self, frame: Frame) -> int:
        """Put a buffer's pointer in the place of its number; return the number."""
        number = int(U64.unpack_from(frame.head)[0])
        U64.pack_into(frame.head, 0, self._buffers.named(number).pointer)
        return number

    def _set_tensor(self, frame: Frame) -> Verdict:
        head = frame.head
        if head[TENSOR_BYTES] > 1:
            raise ForbiddenFrameError("flag", f"cache flag {head[TENSOR_BYTES]}")
        offset = U64.unpack_from(head, TENSOR_BYTES + 1)[0]
        rewrite_region(head, self._buffers, offset, frame.size - len(head))
        head[TENSOR_BYTES] = 0  # the worker writes no files
        return TO_WORKER

    def _get_tensor(self, frame: Frame) -> Verdict:
        rewrite_region(frame.head, self._buffers, *TWO_U64.unpack_from(frame.head, TENSOR_BYTES))
        return TO_WORKER

    def _own_region(self, frame: Frame) -> Verdict:
        self._get_tensor(frame)
        return TO_AGENT

    def _set_packed(self, frame: Frame) -> Verdict:
        size = U64.unpack_from(frame.head, TENSOR_BYTES + 8)[0]
        packed = frame.size - len(frame.head)
        if packed > size + ZSTD_SLACK_BYTES:
            raise ForbiddenFrameError("size", f"{size} bytes packed in {packed}")
        return self._own_region(frame)

    def _set_hash(self, frame: Frame) -> Verdict:
        """Answer that the data are not there: what a weight is, SHA-256 says (TAKE), not FNV."""
        rewrite_region(frame.head, self._buffers, U64.unpack_from(frame.head, TENSOR_BYTES)[0], 0)
        return Verdict("client", NOT_CACHED)

    def _ping(self, frame: Frame) -> Verdict:
        return Verdict("client", bytes(frame.head))

    def _init(self, frame: Frame) -> Verdict:
        rewrite_new(frame.head, self._buffers, self._rules.row_padding)
        return TO_WORKER

    def _copy(self, frame: Frame) -> Verdict:
        rewrite_copy(frame.head, self._buffers)
        return TO_WORKER

    def _alloc_size(self, frame: Frame) -> Verdict:
        self._device(U32.unpack_from(frame.head)[0])
        strip_places(frame.head)
        return TO_WORKER

    def _compute(self, frame: Frame) -> Verdict:
        graph = read_graph(frame.head)
        device = self._device(graph.device)
        rewrite_graph(graph, self._buffers, self._rules.graph_tensors)
        self._stored.add(device)
        return TO_WORKER

    def _recompute(self, frame: Frame) -> Verdict:
        device = self._device(U32.unpack_from(frame.head)[0])
        if device not in self._stored:
            raise ForbiddenFrameError("graph", f"device {device} has no graph to compute again")
        return TO_WORKER


def _hello_answer(payload: bytes) -> bytes:
    major, minor, patch, _ = HELLO_ANSWER.unpack(payload)
    if (major, minor) != VERSION:
        raise ForbiddenFrameError("version", f"the worker speaks RPC {major}.{minor}.{patch}")
    return HELLO_ANSWER.pack(major, minor, patch, 0)
