"""GuideLLM and AIPerf: installed as pinned, run from the outside, their own records read.

Each lives in an environment of its own below the cache (``peers/NAME``), made by uv from
``benchmarks/NAME.lock``. Neither reaches a hub here, and both want a tokenizer to start with: they
get a folder with a word-level one. Tokens are counted by the server, so it has no bearing on what
they measure. Affinity is inherited: they run on the cores of whoever calls :func:`measure`.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from samples import Sample

from shoestring.errors import ShoestringError
from shoestring.paths import cache_dir

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
RUN_LIMIT_S = 600.0
INSTALL_LIMIT_S = 1800.0
OUTPUT_LINES = 3
_TOKENIZER = """
import json, pathlib, sys
from tokenizers import Tokenizer, models, pre_tokenizers
folder = pathlib.Path(sys.argv[1]); folder.mkdir(exist_ok=True)
made = Tokenizer(models.WordLevel({"[UNK]": 0, "now": 1}, unk_token="[UNK]"))
made.pre_tokenizer = pre_tokenizers.Whitespace()
made.save(str(folder / "tokenizer.json"))
facts = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]"}
(folder / "tokenizer_config.json").write_text(json.dumps(facts))
"""


class PeerError(ShoestringError):
    """A peer could not be installed, or did not run to its end."""


@dataclass(frozen=True)
class Load:
    """What a peer is asked to do."""

    base_url: str
    model: str
    requests: int
    concurrency: int


@dataclass(frozen=True)
class Peer:
    """A tool that measures what we measure.

    Attributes:
        name: of its package, its program and its environment.
        arguments: its command line for a load, with its files in a folder.
        read: its records in that folder.
        no_chunks: why it has no errors of single chunks; None where it has them.
    """

    name: str
    arguments: Callable[[Load, Path], list[str]]
    read: Callable[[Path], list[Sample]]
    no_chunks: str | None

    @property
    def environment(self) -> Path:
        """The folder of its environment."""
        return cache_dir() / "peers" / self.name

    def install(self) -> str:
        """Make its environment unless it is there as pinned, and return its version.

        Raises:
            PeerError: it cannot be had.
        """
        lock = HERE / f"{self.name}.lock"
        digest = hashlib.sha256(lock.read_bytes()).hexdigest()
        mark = self.environment / "lock.sha256"
        python = str(self.environment / "bin" / "python")
        if not mark.is_file() or mark.read_text() != digest:
            uv = str(Path(sys.executable).parent / "uv")
            make = [uv, "venv", "--quiet", "--clear", "--python", sys.executable]
            _run([*make, str(self.environment)], INSTALL_LIMIT_S)
            pip = [uv, "pip", "install", "--quiet", "--python", python, "--require-hashes"]
            _run([*pip, "--requirements", str(lock)], INSTALL_LIMIT_S)
            _run([python, "-c", _TOKENIZER, str(self.environment / "tokenizer")], RUN_LIMIT_S)
            mark.write_text(digest)
        ask = f"from importlib.metadata import version; print(version({self.name!r}))"
        return _run([python, "-c", ask], RUN_LIMIT_S).strip()

    def measure(self, load: Load, folder: Path) -> list[Sample]:
        """Let it send a load, and return what it says of each request.

        Raises:
            PeerError: it failed, or left no record that can be read.
        """
        program = str(self.environment / "bin" / self.name)
        _run([program, *self.arguments(load, folder)], RUN_LIMIT_S, home=self.environment)
        try:
            return self.read(folder)
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise PeerError(
                f"the records of {self.name} cannot be read: {type(error).__name__} {error}"
            ) from error


def _guidellm_arguments(load: Load, folder: Path) -> list[str]:
    prompts = folder / "prompts.jsonl"
    prompts.write_text('{"prompt": "now"}\n' * load.requests)
    tokenizer = PEERS[0].environment / "tokenizer"
    return [
        "run", "--disable-console",
        "--backend", f"kind=openai_http,target={load.base_url},model={load.model}",
        "--profile", f"kind=concurrent,streams={load.concurrency}",
        "--constraint", f"kind=max_requests,count={load.requests}",
        "--data", f"kind=json_file,path={prompts}",
        "--tokenizer", f"kind=hf_auto,model={tokenizer}",
        "--output", f"kind=json,path={folder / 'guidellm.json'}",
    ]  # fmt: skip


def _read_guidellm(folder: Path) -> list[Sample]:
    """Read its JSON; the server's stamp of a request is the number in the answer's id."""
    report = json.loads((folder / "guidellm.json").read_text(encoding="utf-8"))
    groups = report["benchmarks"][0]["requests"]
    return [
        Sample(
            received_ns=_number_in_id(row.get("response_id")),
            failure=None if group == "successful" else group,
            ttft_s=_seconds(row.get("time_to_first_token_ms")),
            mean_itl_s=_seconds(row.get("inter_token_latency_ms")),
        )
        for group in ("successful", "errored", "incomplete")
        for row in groups.get(group) or []
    ]


def _aiperf_arguments(load: Load, folder: Path) -> list[str]:
    prompts = folder / "prompts.jsonl"
    prompts.write_text('{"text": "now"}\n')
    return [
        "profile", "--model", load.model, "--url", load.base_url, "--endpoint-type", "chat",
        "--streaming", "--use-server-token-count", "--export-level", "raw", "--ui", "none",
        "--tokenizer", str(PEERS[1].environment / "tokenizer"),
        "--input-file", str(prompts), "--custom-dataset-type", "single_turn",
        "--concurrency", str(load.concurrency), "--request-count", str(load.requests),
        "--artifact-dir", str(folder / "aiperf"),
    ]  # fmt: skip


def _read_aiperf(folder: Path) -> list[Sample]:
    """Read its records (metrics) and its raw records (arrivals), joined by the request's id."""
    records = _lines(folder / "aiperf" / "profile_export.jsonl")
    raw = {
        row["metadata"]["x_request_id"]: _aiperf_arrivals(row)
        for row in _lines(folder / "aiperf" / "profile_export_raw.jsonl")
    }
    samples = []
    for row in records:
        metrics, error = row.get("metrics") or {}, row.get("error")
        received_ns, arrivals_ns = raw[row["metadata"]["x_request_id"]]
        chunk_gaps_ms = (metrics.get("inter_chunk_latency") or {}).get("value")
        mean_ms = (metrics.get("inter_token_latency") or {}).get("value")
        if mean_ms is None and chunk_gaps_ms:  # without usage it has no ITL, only chunks
            mean_ms = sum(chunk_gaps_ms) / len(chunk_gaps_ms)
        samples.append(
            Sample(
                received_ns=received_ns,
                failure=str(error.get("type")) if error else None,
                ttft_s=_seconds((metrics.get("time_to_first_token") or {}).get("value")),
                mean_itl_s=_seconds(mean_ms),
                arrivals_ns=arrivals_ns,
            )
        )
    return samples


def _aiperf_arrivals(row: dict[str, Any]) -> tuple[int | None, tuple[int, ...]]:
    """Return the server's stamp of the request, and when each chunk with a token arrived."""
    received_ns, arrivals_ns = None, []
    for response in row.get("responses") or []:
        for packet in response.get("packets") or []:
            if not packet["value"].startswith("{"):
                continue
            truth = json.loads(packet["value"])["truth"]
            received_ns = int(truth["received_ns"])
            if truth["tokens"]:
                # perf_counter is CLOCK_MONOTONIC on Linux, as is the server's clock.
                arrivals_ns.append(int(response["perf_ns"]))
    return received_ns, tuple(arrivals_ns)


PEERS = (
    Peer(
        "guidellm", _guidellm_arguments, _read_guidellm,
        "it keeps the first and the last arrival of a request, on the wall clock",
    ),
    Peer("aiperf", _aiperf_arguments, _read_aiperf, None),
)  # fmt: skip


def _run(command: list[str], limit_s: float, *, home: Path | None = None) -> str:
    """Run a program in a process group of its own and return what it printed."""
    environ = {**os.environ, "NO_COLOR": "1"}
    if home is not None:
        environ["HF_HOME"] = str(home / "huggingface")
    # Their workers are processes too: when time is up the whole group has to go.
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, env=environ, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            said, _ = process.communicate(timeout=limit_s)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise PeerError(f"{command[0]} was not done after {limit_s:g} s") from error
            raise
    if process.returncode:
        last = " / ".join(said.strip().splitlines()[-OUTPUT_LINES:])
        raise PeerError(f"{command[0]} ended with status {process.returncode}: {last[:300]}")
    return said


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _number_in_id(text: str | None) -> int | None:
    return int(text.removeprefix("truth-")) if text else None


def _seconds(value_ms: float | None) -> float | None:
    return None if value_ms is None else value_ms / 1e3
