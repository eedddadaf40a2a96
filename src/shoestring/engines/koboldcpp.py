"""KoboldCpp: a running one is adopted, or one of our own serves a file on a loopback port.

The timed request goes to its OpenAI endpoints, for chat and for completions alike. Both of them
and its own ``/api/extra/generate/stream`` are one loop in KoboldCpp, fed by one generator with the
same fields; but only the OpenAI stream tells the usage of *this* request, and only the chat
endpoint applies the model's template. Its own API gives what OpenAI's lacks: the version, counts
of tokens, and the engine's clock.

What a stamp means here: KoboldCpp waits 0.35 s before it looks for the first token, and then looks
every 20 ms, so a TTFT is no less than that and a chunk may hold several tokens. Its own clock is
free of both, and is asked for after each request.

Sources: ``koboldcpp.py`` and ``gpttype_adapter.cpp`` of LostRuins/koboldcpp, 1.76 and a state of
2026 (``transform_genparams``, ``handle_sse_stream``, ``do_GET``, the arguments at the end).
1.76 calls ``--usecuda`` ``--usecublas``, and lacks ``--moecpu`` and ``--device``.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, ClassVar

from shoestring.engines.events import DONE, read_stream
from shoestring.engines.http_engine import API_KEY_VARIABLE, HEALTH_TIMEOUT_S
from shoestring.engines.launch import NOBODYS_URL
from shoestring.engines.offload import check_split, flag_words
from shoestring.engines.protocol import Failure, NativeTimings
from shoestring.engines.served import ServedEngine
from shoestring.errors import BadValueError, MissingError, ShoestringError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from shoestring.engines.events import Reading
    from shoestring.engines.http_engine import HttpRecording, Reader
    from shoestring.engines.offload import Offload
    from shoestring.engines.protocol import Prompt

DEFAULT_URL = "http://127.0.0.1:5001"
SMALLEST_CONTEXT = 256
BATCHES = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
CACHES = {"f16": None, "q8_0": "1", "q4_0": "2", "q5_1": "q5_1", "bf16": "bf16"}
"""What ``--quantkv`` is called for a type; the numbers are known to old and new versions."""
BACKENDS = {"cuda": "--usecuda", "vulkan": "--usevulkan", "metal": None}
"""Flags of what computes on GPUs; a KoboldCpp on an Apple has Metal and needs none."""
TAIL_ARRIVALS = 4


class KoboldCppEngine(ServedEngine):
    """A model in KoboldCpp.

    It decodes one request at a time; ``parallel`` is how many our own server takes at once, and
    all but one of them wait.

    Args:
        model_id: how the model is named in requests and records; KoboldCpp answers to any name.
        path: the GGUF file that a server of our own shall serve; None adopts a running one.
        base_url: of the running one; default: KoboldCpp's own port on this machine.
        context: tokens of context of our own server.
        settings: the others of :class:`ServedEngine`.
    """

    name = "koboldcpp"
    health_path: ClassVar[str] = "/api/extra/version"
    key_variable = "KCPP_PASSWORD"

    def __init__(
        self,
        model_id: str,
        *,
        path: Path | None = None,
        base_url: str | None = None,
        context: int = 2048,
        **settings: Any,
    ) -> None:
        super().__init__(
            path,
            model_id,
            base_url=base_url or (DEFAULT_URL if path is None else NOBODYS_URL),
            # The logit of the end is pushed down, as llama.cpp's ignore_eos does. `bypass_eos`
            # would sample the end and go on after it, with a text that no other engine writes.
            fixed_length_field="ban_eos_token",
            context=max(context, SMALLEST_CONTEXT),
            **settings,
        )
        self._perf = LastGeneration()

    def command(self, program: Path, port: int) -> list[str]:
        """Return the command line that starts a server; the key goes by the environment.

        Raises:
            BadValueError: KoboldCpp cannot be told what the offload says.
        """
        words = kobold_words(
            str(program),
            str(self._path),
            port,
            context=self._context,
            parallel=self._parallel,
            offload=self._offload,
        )
        return [*words, "--skiplauncher", "--quiet"]

    def start(self) -> None:
        """Find the program, or check that the adopted server is a KoboldCpp that takes the key.

        Raises:
            MissingError: it is not installed; nobody answers, or somebody else; the key is refused.
        """
        if self._path is not None:
            super().start()
            return
        if self.version() is None:
            raise MissingError(
                f"{self._address.url} is no KoboldCpp: mend --base-url, or use --engine openai"
            )
        self.count_tokens("")  # needs the key, where one is asked for
        self._look()

    def load(self) -> None:
        """Start our own server and wait until it answers, which it does when it has the model.

        Raises:
            EngineLostError: it died or did not load in time; says where its log is.
        """
        if self._path is not None:
            super().load()
            self._look()

    def version(self) -> str | None:
        """Return the version that KoboldCpp tells, or None where another server answers."""
        said = self._ask("GET", "/api/extra/version").parsed()
        if not isinstance(said, dict) or said.get("result") != "KoboldCpp":
            return None
        return f"koboldcpp {said.get('version')}"

    def count_tokens(self, text: str) -> int:
        """Count by the model's tokenizer, the token that begins every prompt among them.

        Raises:
            MissingError: the server does not count; says why.
        """
        reply = self._ask("POST", "/api/extra/tokencount", json={"prompt": text})
        if reply.status == HTTPStatus.UNAUTHORIZED:
            raise MissingError(f"{self._address.url} refused the key: set {API_KEY_VARIABLE}")
        said = reply.parsed()
        count = _count(said.get("value")) if isinstance(said, dict) else None
        if reply.status != HTTPStatus.OK or count is None:
            raise MissingError(
                f"{self._address.url}/api/extra/tokencount answered HTTP {reply.status} and no "
                "count: look at the server, then go on with --resume"
            )
        return count

    def record(self, prompt: Prompt, **options: Any) -> HttpRecording:
        """Send one prompt and take the stream down; see :class:`Engine`.

        KoboldCpp's stream has no length and ends with the connection (HTTP/1.0), so to the
        transport a cut one looks whole: here it is known by its last bytes.
        """
        recording = super().record(prompt, **options)
        raw = recording.raw
        tail = b"".join(data for _, data in raw.arrivals[-TAIL_ARRIVALS:])
        if raw.failure is None and not tail.rstrip().endswith(DONE.encode()):
            cut = Failure("reset", "the connection was closed in the middle of the answer")
            recording = replace(recording, raw=replace(raw, failure=cut))
        return recording

    def _reader(self, _prompt: Prompt) -> Reader:
        # Called when the exchange is over: the connection ends after the model is free again, so
        # a server that is still busy then is busy with another request.
        return partial(read_kobold_stream, perf=self._look())

    def _look(self) -> dict[str, Any] | None:
        """Return what the server says of its last generation, if that is one since the last look.

        None where it may be another request's: one is decoded or waits now, or more than one has
        ended since; this engine's own or another client's.
        """
        with self._perf.lock:
            try:
                said = self._ask("GET", "/api/extra/perf", timeout_s=HEALTH_TIMEOUT_S).parsed()
            except ShoestringError:
                # The exchange that it would tell of has most likely failed, too, and says why.
                said = None
            return self._perf.take(said if isinstance(said, dict) else {})


def kobold_words(
    program: str, path: str, port: int, *, context: int, parallel: int, offload: Offload
) -> list[str]:
    """Return the words that start KoboldCpp on loopback.

    Args:
        program: its path or name.
        path: of the GGUF file.
        port: where it shall listen.
        context: tokens of context; the one request that is decoded has all of them.
        parallel: how many requests it takes at once; all but one of them wait.
        offload: where the model's parts go.

    Raises:
        BadValueError: KoboldCpp cannot be told what the offload says.
    """
    if offload.rpc:
        raise BadValueError("koboldcpp has no RPC: leave rpc out, or use llama-server")
    if offload.output_in_ram:
        raise BadValueError("koboldcpp takes no output_in_ram here: use llama-server")
    check_split(offload)
    if context < SMALLEST_CONTEXT:
        raise BadValueError(f"koboldcpp has no context of {context}: give {SMALLEST_CONTEXT}")
    layers, keys = offload.gpu_layers, offload.cache_type_k
    if keys != offload.cache_type_v or keys not in CACHES:
        raise BadValueError(
            f"koboldcpp has no KV cache of {keys} and {offload.cache_type_v}: give one of "
            f"{', '.join(CACHES)} for both"
        )
    if offload.ubatch not in (None, *BATCHES):
        known = ", ".join(map(str, BATCHES))
        raise BadValueError(f"koboldcpp has no ubatch {offload.ubatch}: give one of {known}")
    backend = _backend(offload)
    flags = flag_words(
        ("--model", path),
        ("--host", "127.0.0.1"),
        ("--port", port),
        ("--contextsize", context),
        # Requests that wait, beside the one that is decoded; 1 stands for KoboldCpp's default.
        ("--multiuser", parallel),
        ("--threads", offload.threads),
        # It computes as many tokens at once as it takes from a prompt.
        ("--blasbatchsize", offload.ubatch),
        (str(backend), backend is not None),
        ("--device", layers != 0 and ",".join(offload.devices)),
        ("--gpulayers", layers),
        ("--tensor_split", offload.shares),
        ("--moecpu", offload.experts_in_ram or None),
        # On by default in versions that hide this flag, off in those that show it.
        ("--flashattention", offload.flash_attention),
        ("--noflashattention", offload.flash_attention is False),
        ("--quantkv", CACHES[keys]),
    )
    return [program, *flags]


def _backend(offload: Offload) -> str | None:
    """Return the flag of what computes: as decided, else by the devices' names, else CUDA."""
    if offload.gpu_layers == 0:
        return "--usecpu"
    if offload.backend is not None:
        return BACKENDS[offload.backend]
    if offload.gpu_layers is None:
        return None
    return BACKENDS["vulkan" if "".join(offload.devices).startswith("Vulkan") else "cuda"]


class LastGeneration:
    """Tells from ``/api/extra/perf`` whether the generation that it is about can be named."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._generations: int | None = None
        self._clock: tuple[Any, ...] = ()

    def take(self, perf: dict[str, Any]) -> dict[str, Any] | None:
        """Return ``perf`` if exactly one generation was made since the last call, else None."""
        before, self._generations = self._generations, _count(perf.get("total_gens"))
        names = ("last_process", "last_eval", "last_token_count", "last_input_count")
        # Batched requests (a hidden flag) are counted; whether they are timed is not told.
        clock, self._clock = self._clock, tuple(perf.get(name) for name in names)
        one = before is not None and self._generations == before + 1
        quiet = perf.get("idle") == 1 and perf.get("queue") == 0
        return perf if one and quiet and clock != self._clock else None


def read_kobold_stream(
    arrivals: Iterable[tuple[int, bytes]], *, perf: dict[str, Any] | None
) -> Reading:
    """Read KoboldCpp's OpenAI stream, and add the engine's clock where it is this request's.

    Older versions give the *text* ``null`` as the reason of an end that has not come, and end with
    a ``[DONE]`` that no blank line follows, which is no event.

    Args:
        arrivals: stamped bytes.
        perf: from ``/api/extra/perf``, taken after the stream; None: of another request, perhaps.
    """
    reading = read_stream(arrivals)
    if reading.finish_reason == "null":
        reading.finish_reason = None
    elif reading.finish_reason == "error":
        detail = "finish_reason is error: KoboldCpp's log says why"
        reading.failure = reading.failure or Failure("stream_error", detail)
    counted = reading.usage.prompt_tokens if reading.usage is not None else None
    if perf is not None and counted is not None and perf.get("last_input_count") == counted:
        reading.native = _native(perf)
    return reading


def _native(perf: dict[str, Any]) -> NativeTimings | None:
    """Return the decode time: ``last_eval`` is milliseconds a token, the first one's gap included.

    The prefill stays unknown. ``last_process`` is milliseconds for a token that was *not* in the
    cache, and ``last_input_count`` counts all of them; how many were processed is not told, and
    KoboldCpp's own ``last_process_time`` is the product of the two.
    """
    tokens, token_ms = _count(perf.get("last_token_count")), perf.get("last_eval")
    if not tokens or not isinstance(token_ms, int | float) or token_ms <= 0:
        return None
    return NativeTimings(decode_tokens=tokens, decode_s=token_ms * tokens / 1000)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
