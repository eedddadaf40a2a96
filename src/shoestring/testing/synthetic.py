"""A run made by formula, for tests of what reads runs. Nothing in it was measured."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

from shoestring.digests import file_sha256
from shoestring.measure.records import HASHED, SCHEMA_VERSION

if TYPE_CHECKING:
    from pathlib import Path

MS = 1_000_000
ENERGY = {
    "energy_j": 4500.0, "source": "energy counter", "seconds": 100.0, "baseline_power_w": 10.0,
    "gpus": [{"index": 0, "energy_j": 4500.0}],
}  # fmt: skip
"""Of the whole session."""


def write_synthetic_run(
    path: Path,
    *,
    seed: int = 1,
    blocks: int = 5,
    failures: int = 0,
    killed: bool = False,
    engine: str = "synthetic",
    slowdown: float = 1.0,
    gpu: bool = False,
    wide: bool = False,
) -> Path:
    """Write a run record into ``path``.

    Three cases: 128 prompt tokens at concurrency 1, the same at 4, 1024 prompt tokens at 1.
    TTFT is 4 ms a prompt token, ITL 20 ms times the square root of the concurrency, ±5 % noise.

    Args:
        path: the folder, created here.
        seed: of the noise.
        blocks: how many.
        failures: how many of the last requests stalled after their third token.
        killed: leave the manifest out and tear the last line, as SIGKILL does.
        engine: its name, also in the id of the run; ``ollama`` tells load and total times.
        slowdown: factor of every latency.
        gpu: a GPU of 16 GB with its power, and the energy of the session.
        wide: three cases more: ``thinking`` (the first half of the text is reasoning),
            ``structured`` (one answer of five is no JSON), ``open-2`` (an open loop, 2 a second).
    """
    noise = random.Random(seed)
    path.mkdir(parents=True)
    cases: list[dict[str, Any]] = [
        _case("chat-128", 128, 1, 4),
        _case("chat-128-c4", 128, 4, 8),
        _case("context-1024", 1024, 1, 2),
    ]
    if wide:
        cases += [
            _case("thinking", 64, 1, 2, prompt="reasoning", thinking=True, fixed_length=False),
            _case("structured", 96, 1, 2, prompt="structured", fixed_length=False),
            _case("open-2", 64, 8, 6, arrival="constant", rate_per_s=2.0),
        ]
    planned = [
        {
            "id": f"b{b}-{c['name']}-{i:04d}",
            "block": b,
            "case": c["name"],
            "concurrency": c["concurrency"],
        }
        for b in range(1, blocks + 1)
        for c in cases
        for i in range(c["requests_per_block"])
    ]
    rows = [_row("w1-0001", cases[0], 0, 0, noise, slowdown, phase="warmup")]
    clock_ns = 10_000 * MS
    for number, plan in enumerate(planned):
        case = next(c for c in cases if c["name"] == plan["case"])
        fails = number >= len(planned) - failures
        rows.append(_row(plan["id"], case, plan["block"], clock_ns, noise, slowdown, fails=fails))
        clock_ns += int(1_500 * MS * slowdown) // int(case["concurrency"])
        if case["rate_per_s"]:
            clock_ns = rows[-1]["intended_ns"] + int(1000 * MS / case["rate_per_s"])
    if engine == "ollama":
        for row in filter(lambda row: row["native"], rows):
            total_s = (row["end_ns"] - row["intended_ns"]) / 1e9
            prompt_s = 0.9 * row["native"]["prompt_s"]
            row["native"] |= {"load_s": 0.02, "prompt_s": prompt_s, "total_s": total_s}
    config = _config(cases, blocks, seed, planned, engine)
    telemetry = [_sample(t * 100 * MS, gpu=gpu) for t in range(clock_ns // (100 * MS) + 20)]
    (path / "config.json").write_text(json.dumps(config))
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (path / "requests.jsonl").write_text(text[:-20] if killed else text)
    (path / "telemetry.jsonl").write_text("".join(json.dumps(s) + "\n" for s in telemetry))
    (path / "environment.json").write_text(json.dumps(_environment(engine, gpu=gpu)))
    if not killed:
        manifest = {
            "schema_version": SCHEMA_VERSION, "run_id": config["run_id"],
            "status": "complete", "reason": None,
            "finished_utc": "2026-01-01T00:10:00Z", "sessions": 1,
            "requests": {"ok": len(planned) - failures, "failed": failures, "warmup": 1,
                         "planned": len(planned)},
            "files": {name: file_sha256(path / name) for name in HASHED},
        }  # fmt: skip
        (path / "manifest.json").write_text(json.dumps(manifest))
    return path


def _case(
    name: str, prompt_tokens: int, concurrency: int, requests: int, **more: Any
) -> dict[str, Any]:
    return {
        "name": name, "prompt": "chat", "prompt_tokens": prompt_tokens, "output_tokens": 32,
        "concurrency": concurrency, "requests_per_block": requests, "arrival": "closed",
        "rate_per_s": None, "turns": None, "thinking": None, "fixed_length": True, **more,
    }  # fmt: skip


def _row(
    row_id: str,
    case: dict[str, Any],
    block: int,
    start_ns: int,
    noise: random.Random,
    slowdown: float,
    *,
    phase: str = "measure",
    fails: bool = False,
) -> dict[str, Any]:
    tokens, prompt_tokens = int(case["output_tokens"]), int(case["prompt_tokens"])
    at_ns = start_ns + int(prompt_tokens * 4 * MS * slowdown * noise.uniform(0.95, 1.05))
    headers_ns = at_ns - MS
    thoughts = tokens // 2 if case["thinking"] else 0
    kinds = ["reasoning"] * thoughts + ["answer"] * (tokens - thoughts)
    events: list[list[Any]] = [[at_ns - MS // 2, "role", 0], [at_ns, kinds[0], 4]]
    in_flight = 1 if case["rate_per_s"] else case["concurrency"]
    gap_ns = 20 * MS * slowdown * in_flight**0.5
    for kind in kinds[1 : 3 if fails else tokens]:
        at_ns += int(gap_ns * noise.uniform(0.95, 1.05))
        events.append([at_ns, kind, 5])
    decode_s = (at_ns - events[1][0]) / 1e9
    if not fails:
        events += [
            [at_ns + 1000, "finish", 0],
            [at_ns + 2000, "usage", 0],
            [at_ns + 3000, "done", 0],
        ]
    return {
        "id": row_id, "session": 1, "phase": phase, "block": block, "case": case["name"],
        "concurrency": case["concurrency"], "prompt_sha256": "0" * 64, "max_tokens": tokens,
        "intended_ns": start_ns, "sent_ns": start_ns + MS // 5, "headers_ns": headers_ns,
        "end_ns": at_ns + 4000, "connect_s": 0.0001,
        "status": "failed" if fails else "ok",
        "failure": {"reason": "stall", "detail": "no byte for 30 s"} if fails else None,
        "http_status": 200, "events": events, "finish_reason": None if fails else "length",
        "usage": None if fails else {
            "prompt_tokens": prompt_tokens, "completion_tokens": tokens, "cached_tokens": 1},
        "native": None if fails else {
            "prompt_tokens": prompt_tokens - 1, "prompt_s": prompt_tokens * 0.0039 * slowdown,
            "decode_tokens": tokens, "decode_s": decode_s, "cached_tokens": 1},
        "answer": _answer(row_id, case), "reasoning": "think " * thoughts,
    }  # fmt: skip


def _answer(row_id: str, case: dict[str, Any]) -> str:
    if case["prompt"] != "structured":
        return "word " * int(case["output_tokens"])
    return '{"town": "Nome", "people": 3699' + ("" if row_id.startswith("b3-") else "}")


def _config(
    cases: list[dict[str, Any]],
    blocks: int,
    seed: int,
    planned: list[dict[str, Any]],
    engine: str,
) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION, "run_id": f"20260101T000000Z-{engine}-000000",
        "created_utc": "2026-01-01T00:00:00Z",
        "suite": {
            "name": "synthetic", "description": "Made by formula; nothing was measured.",
            "sha256": "0" * 64, "blocks": blocks, "seed": seed, "cases": cases,
            "deadlines": {"request_s": 120.0, "stall_s": 30.0, "suite_s": 3600.0},
            "warmup": {"minimum": 1, "maximum": 12, "tolerance": 0.1},
            "limits": {"ttft_s": 2.0, "tpot_s": 0.03},
        },
        "model": {
            "name": "file:synthetic.gguf", "sha256": "0" * 64, "file_bytes": 253_000_000,
            "architecture": "gemma3", "parameters": 268_000_000, "quantisation": "Q4_K_M",
            "context_length": 32768, "layers": 18,
        },
        "engine": {"name": engine, "base_url": None, "options": {}},
        "seed": seed, "requests": planned,
    }  # fmt: skip


def _sample(t_ns: int, *, gpu: bool) -> dict[str, Any]:
    busy = 1 + t_ns // (5000 * MS) % 2
    reading = {
        "index": 0, "vram_used_bytes": 900_000_000 + t_ns // 1000,
        "utilisation_percent": 45.0 * busy, "power_w": 30.0 * busy, "temperature_c": 61.0,
        "sm_clock_hz": 1_590_000_000,
        "memory_clock_hz": 5_000_000_000, "throttle": [],
    }  # fmt: skip
    return {
        "session": 1, "t_ns": t_ns, "cpu_percent": 95.0, "engine_cpu_percent": 185.0,
        "engine_rss_bytes": 600_000_000 + t_ns // 1000, "engine_processes": 1,
        "available_memory_bytes": 20_000_000_000, "temperature_c": None,
        "frequency_hz": 2_300_000_000, "steal_percent": 0.0, "swap_used_bytes": 0,
        "engine_major_faults_per_s": 0.0, "engine_swap_bytes": 0,
        "engine_vram_bytes": reading["vram_used_bytes"] if gpu else None,
        "gpus": [reading] if gpu else None,
    }  # fmt: skip


def _environment(engine: str, *, gpu: bool) -> dict[str, Any]:
    calibration = {"concurrency": 1, "requests": 48, "ttft_error_s": 0.0001,
                   "ttft_error_p99_s": None, "gap_error_p99_s": 0.0004}  # fmt: skip
    return {
        "schema_version": SCHEMA_VERSION,
        "sessions": [{
            "session": 1,
            "started_utc": "2026-01-01T00:00:00Z", "ended_utc": "2026-01-01T00:10:00Z",
            "machine": {
                "platform": "local", "os": "Linux", "memory_bytes": 25_000_000_000,
                "gpus": [{"name": "synthetic T4"}] if gpu else [],
                "cpu": {"model": "synthetic", "cores_physical": 2, "cores_logical": 2,
                        "flags": ["avx2"]},
            },
            "versions": {"shoestring": "0.1.0", "python": "3.11.7", "engine": f"{engine} 1"},
            "commit": {"sha": None, "dirty": False},
            "cold_start": [
                {"name": "spawn", "start_s": 0.0, "end_s": 0.4},
                {"name": "load", "start_s": 0.4, "end_s": 1.9},
                {"name": "first token", "start_s": 1.9, "end_s": 2.4},
            ],
            "load_s": 1.5,
            "calibration": {**calibration, "by_concurrency": [calibration]},
            "memory": {"ram_peak_bytes": 700_000_000, "ram_peak_source": "VmHWM",
                       "vram_peak_bytes": 1_000_000_000 if gpu else None,
                       "vram_limit_bytes": 16_000_000_000 if gpu else None,
                       "vram_source": "per process" if gpu else None, "engine_reported": None},
            "energy": ENERGY if gpu else None, "interruptions": [],
            "telemetry": {"rate_hz": 10, "unavailable": {"temperature_c": "no sensor is readable"}},
        }],
    }  # fmt: skip
