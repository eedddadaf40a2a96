"""What llama-server holds in one case, and what two programs of others say that it will.

The server's own buffer report is read at verbosity 4; its memory out of ``/proc/PID/status``, once
when the model is loaded and once when one request has been answered. The request has so many
tokens of random numbers that a whole batch is computed, and no prefix is kept of it.
"""

from __future__ import annotations

import json
import random
import re
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from planner_cases import ANSWER_TOKENS

from shoestring.engines.llama_log import buffer_report
from shoestring.errors import MissingError
from shoestring.hardware.cores import usable_cores
from shoestring.testing.live_server import live_server

if TYPE_CHECKING:
    from planner_cases import Case

WORDS = range(300, 30_000)
"""Tokens that are ordinary ones in every vocabulary of the list."""
SEED = 6
SERVER_FLAGS = ("--no-webui", "--cache-ram", "0", "--verbosity", "4")
ENVIRONMENT = {"OMP_WAIT_POLICY": "passive"}
"""Threads that wait sleep, and a busy machine gets on; no memory depends on it."""
HOST = re.compile(r"^Host (\d+) (\d+) (\d+)\s*$", re.MULTILINE)
"""Of model, context and compute buffers, in MiB, as llama-fit-params prints them."""


def list_flags(case: Case) -> list[str]:
    """Return the flags that decide memory, as llama-server and llama-fit-params take them."""
    return [
        # One context is shared out among the slots.
        "--ctx-size", str(case.context * case.parallel), "--parallel", str(case.parallel),
        "--cache-type-k", case.cache_type_k, "--cache-type-v", case.cache_type_v,
        "--flash-attn", "on" if case.flash_attention else "off",
        "--batch-size", "2048", "--ubatch-size", "512", "--threads", str(usable_cores()),
        "--offline",
    ]  # fmt: skip


def measure(case: Case, program: Path, model: Path) -> dict[str, Any]:
    """Serve a model, ask once, and tell what the server reserved and held.

    Args:
        case: how it is served.
        program: of llama-server.
        model: the GGUF file.

    Raises:
        EngineLostError: the server did not take the model.
        MissingError: its log names no buffer.
        requests.RequestException: it did not answer.
    """

    def command(port: int) -> list[str]:
        return [
            str(program), "--model", str(model), "--host", "127.0.0.1", "--port", str(port),
            *list_flags(case), *SERVER_FLAGS,
        ]  # fmt: skip

    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with live_server(command, environment=ENVIRONMENT, log_path=log) as server:
            loaded = read_memory(server.pid)
            said = server.complete(request(case))
            held = read_memory(server.pid)
        buffers = buffer_report(log.read_text(encoding="utf-8", errors="replace"))
    if not buffers:
        raise MissingError(f"no line of {program}'s log names a buffer: see engines/llama_log.py")
    return {
        "reserved_bytes": sum(buffers.values()),
        "resident_bytes": held["VmHWM"],
        "buffers": buffers,
        "status_loaded": loaded,
        "status_answered": held,
        "prompt_tokens": said["timings"]["prompt_n"],
        "answer_tokens": said["timings"]["predicted_n"],
    }


def request(case: Case) -> dict[str, Any]:
    """Return what a case asks of ``/completion``."""
    numbers = random.Random(SEED)
    return {
        "prompt": [numbers.choice(WORDS) for _ in range(case.prompt_tokens)],
        "n_predict": ANSWER_TOKENS,
        "ignore_eos": True,
        "cache_prompt": False,
    }


def read_memory(pid: int) -> dict[str, int]:
    """Return the peak of a process's resident set, and of what it is made now, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    found = re.findall(r"^(VmHWM|RssAnon|RssFile|RssShmem):\s+(\d+) kB$", status, re.MULTILINE)
    return {name: int(kibibytes) << 10 for name, kibibytes in found}


def taken_back_bytes(truth: dict[str, Any]) -> int:
    """Return how much of the mapped weights the system had taken back when the answer was there.

    A system that is short of memory, or that clears out what lies idle, spoils the peak.
    """
    mapped: int = sum(size for name, size in truth["buffers"].items() if "_Mapped " in name)
    still_there: int = truth["status_answered"]["RssFile"]
    return max(0, mapped - still_there)


def ask_fit_params(program: Path | None, case: Case, model: Path) -> dict[str, Any]:
    """Return what llama-fit-params says that the host needs: one size, held against both truths."""
    if program is None:
        return {"reason": "llama-fit-params is missing"}
    command = [str(program), "--model", str(model), *list_flags(case), "--fit-print", "on"]
    done = _run(command)
    found = HOST.search(done.stdout)
    if done.returncode or found is None:
        return {"reason": _last_line(done)}
    parts = [int(mebibytes) << 20 for mebibytes in found.groups()]
    return {
        "reserved_bytes": sum(parts),
        "resident_bytes": sum(parts),
        **dict(zip(("model", "context", "compute"), parts, strict=True)),
    }


def build_parser(folder: Path) -> tuple[Path | None, str | None]:
    """Build ``gguf_parser/``; return the program, or None and why there is none.

    Args:
        folder: where the program is put.
    """
    program = folder / "gguf_parser"
    try:
        done = _run(["go", "build", "-o", str(program), "."], Path(__file__).parent / "gguf_parser")
    except FileNotFoundError:
        return None, "Go is missing"
    return (None, f"go build: {_last_line(done)}") if done.returncode else (program, None)


def ask_parser(program: Path, case: Case, model: Path) -> dict[str, Any]:
    """Return what gguf-parser-go estimates of RAM, mapped weights counted.

    Its weights, cache and compute buffers are held against what is reserved; with what it adds for
    the program, against what is resident.
    """
    done = _run([
        str(program), "-path", str(model), "-context", str(case.context * case.parallel),
        "-parallel", str(case.parallel), "-type-k", case.cache_type_k,
        "-type-v", case.cache_type_v, f"-flash-attention={case.flash_attention}",
    ])  # fmt: skip
    if done.returncode:
        return {"reason": _last_line(done)}
    said = json.loads(done.stdout)
    reserved = said["weights"] + said["kv_cache"] + said["compute"]
    return {"reserved_bytes": reserved, "resident_bytes": said["ram"], **said}


def _run(command: list[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    said = (done.stderr or done.stdout).strip().splitlines()
    return said[-1] if said else f"exit status {done.returncode}"
