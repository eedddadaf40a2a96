"""The command ``plan``: what fits, where each layer goes, how fast, and how to start it."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from shoestring.engines.outlines import Found
    from shoestring.hardware.devices import Device
    from shoestring.plan.memory import Settings
    from shoestring.plan.planner import Plan
    from shoestring.plan.speed_constants import SpeedConstants

FILE = click.Path(path_type=Path, dir_okay=False)
USUAL_CONTEXT, USUAL_PROMPT = 4096, 512
SHOWN = 15
"""Rows of a choice in a terminal; --json has all."""
TYPES = "f16, q8_0, q4_0 and others of llama.cpp"


@click.command()
@click.argument("model", required=False)
@click.option("--choose", "choosing", is_flag=True, help="No model: list the best that fit here.")
@click.option(
    "--wish",
    type=click.Choice(["speed", "quality", "context"]),
    default="quality",
    show_default=True,
    help="What --choose sorts by.",
)
@click.option(
    "--least-speed",
    type=float,
    default=3.0,
    show_default=True,
    help="Tokens/s of decoding below which --choose leaves a model out.",
)
@click.option(
    "--device",
    "devices",
    multiple=True,
    metavar="NAME[:MEM[:BW]]",
    help="Plan for this instead of the machine at hand: t4, 2xt4, 'rtx 3060:8GiB', "
    "card:8GiB:256GB/s, ram:32GiB:40GB/s, peer:t4:20ms. Repeatable, in the engine's order.",
)
@click.option("--context", type=int, help="Tokens of each request; default 4096.")
@click.option("--parallel", type=int, default=1, show_default=True, help="Requests at once.")
@click.option("--cache-type-k", default="f16", show_default=True, help=f"Of the keys: {TYPES}.")
@click.option("--cache-type-v", default="f16", show_default=True, help="Of the values.")
@click.option("--prompt-tokens", type=int, help="For TTFT; default 512, or the context.")
@click.option("--gpu-layers", type=int, help="So many on cards and peers, the output counts.")
@click.option("--tensor-split", metavar="A,B,...", help="Your own shares of them, to be judged.")
@click.option("--explain", is_flag=True, help="Draw the memory, and say why not otherwise.")
@click.option("--picture", type=FILE, help="Draw the memory into FILE.svg and FILE.pdf.")
@click.option("--calibrate", is_flag=True, help="First measure this processor, two minutes.")
@click.option(
    "--engine",
    type=click.Choice(["auto", "embedded", "llama-server"]),
    default="auto",
    show_default=True,
    help="That --calibrate measures with.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def plan(
    model: str | None,
    wish: Any,
    least_speed: float,
    devices: tuple[str, ...],
    context: int | None,
    parallel: int,
    cache_type_k: Any,
    cache_type_v: Any,
    prompt_tokens: int | None,
    gpu_layers: int | None,
    tensor_split: str | None,
    picture: Path | None,
    engine: str,
    *,
    choosing: bool,
    explain: bool,
    calibrate: bool,
    as_json: bool,
) -> None:
    """Say what fits, where each layer goes, how fast it will be, and the line that starts it.

    MODEL is any name of `shoestring models`; a shape may be given without its scheme
    (llama-3.1-8b:q4_k_m). Nothing is downloaded, and without --calibrate nothing is started.
    """
    from shoestring.errors import BadValueError
    from shoestring.plan.memory import Settings, check_settings
    from shoestring.report.plan_machine import calibrate_here, find_devices

    _check_words(
        model,
        choosing=choosing,
        calibrate=calibrate,
        unused={
            "--gpu-layers": gpu_layers, "--tensor-split": tensor_split,
            "--explain": explain or None, "--picture": picture,
        },
        least_speed=least_speed,
    )  # fmt: skip
    if calibrate and devices:
        raise BadValueError("--calibrate measures this machine: leave --device out")
    settings = Settings(
        context=USUAL_CONTEXT if context is None else context,
        parallel=parallel,
        cache_type_k=cache_type_k,
        cache_type_v=cache_type_v,
    )
    check_settings(settings)
    if calibrate:
        calibrate_here(engine, _say)
        if model is None and not choosing:
            return
    found, constants = find_devices(devices, _say)
    if choosing:
        _choose(
            found, settings, wish, constants, longest=context, least=least_speed, as_json=as_json
        )
        return
    assert model is not None
    from shoestring.engines.outlines import find_model

    subject = find_model(model)
    made = _plan(
        subject, settings, found, constants, context=context, prompt_tokens=prompt_tokens,
        gpu_layers=gpu_layers, shares=_shares(tensor_split),
    )  # fmt: skip
    _show(made, subject, explain=explain, picture=picture, as_json=as_json)


def _check_words(
    model: str | None,
    *,
    choosing: bool,
    calibrate: bool,
    unused: dict[str, object],
    least_speed: float,
) -> None:
    """Refuse what does not go together, before anything is measured."""
    from shoestring.errors import BadValueError

    if model is not None and choosing:
        raise BadValueError(f"--choose finds a model: leave {model} out, or leave --choose out")
    if model is None and not choosing and not calibrate:
        raise BadValueError(
            "no model was named: give one (llama-3.1-8b:q4_k_m), or --choose, or --calibrate"
        )
    for option, value in unused.items():
        if model is None and value is not None:
            raise BadValueError(f"{option} is for the plan of a model: name one, or leave it out")
    if not 0 <= least_speed < math.inf:
        raise BadValueError(f"--least-speed {least_speed}: give tokens/s from 0 on")


def _shares(text: str | None) -> tuple[float, ...] | None:
    from shoestring.engines.offload import Offload
    from shoestring.errors import BadValueError

    if text is None:
        return None
    try:
        shares = tuple(float(part) for part in text.replace(" ", ",").split(",") if part)
        Offload(tensor_split=shares)
    except ValueError as error:
        raise BadValueError(f"--tensor-split {text!r}: give shares as 1.5,4.5,3") from error
    return shares


def _plan(
    found: Found,
    settings: Settings,
    devices: tuple[Device, ...],
    constants: SpeedConstants,
    *,
    context: int | None,
    prompt_tokens: int | None,
    **by_hand: Any,
) -> Plan:
    from dataclasses import replace

    from shoestring.errors import BadValueError
    from shoestring.plan.planner import Ask, make_plan

    trained = found.outline.shape.context
    if context is None:
        settings = replace(settings, context=min(settings.context, trained))
    elif context > trained:
        raise BadValueError(
            f"--context {context}: {found.name} was trained for {trained} tokens; give at most that"
        )
    if prompt_tokens is None:
        prompt_tokens = min(USUAL_PROMPT, settings.context)
    if not 1 <= prompt_tokens <= settings.context:
        raise BadValueError(
            f"--prompt-tokens {prompt_tokens}: give 1 to {settings.context}, the context"
        )
    asked = Ask(
        model=found.name,
        outline=found.outline,
        settings=settings,
        devices=devices,
        prompt_tokens=prompt_tokens,
        **by_hand,
    )
    return make_plan(asked, constants)


def _show(made: Plan, found: Found, *, explain: bool, picture: Path | None, as_json: bool) -> None:
    from shoestring.errors import BadValueError
    from shoestring.report.plan_text import plan_text
    from shoestring.report.planning import plan_json

    if as_json:
        click.echo(json.dumps(plan_json(made, found.path)))
    if not made.fits:
        raise BadValueError(f"{found.name} {made.rejected[0]}")
    if picture is not None:
        from shoestring.report.plan_figure import memory_figure
        from shoestring.report.style import save_figure

        try:
            for path in save_figure(memory_figure(made), picture):
                _say(f"wrote {path}")
        except OSError as error:
            raise BadValueError(f"--picture {picture}: {error.strerror}; name another") from error
    if not as_json:
        click.echo(plan_text(made, found.path, explain=explain))
        if explain and found.path is not None:
            click.echo(f"\n{_loading(found.path)}")


def _loading(path: Path) -> str:
    """Say how long the file takes to be read, as fast as its disk is now."""
    from shoestring.hardware.disk_speed import measure_disk_speed

    speed = measure_disk_speed(path)
    if speed.bytes_per_s is None:
        return f"loading: {speed.missing}"
    size_bytes = path.stat().st_size
    return (
        f"loading: {size_bytes / speed.bytes_per_s:.1f} s if nothing of the file is in memory, "
        f"at {speed.bytes_per_s / 1e9:.2f} GB/s as its disk was just now"
    )


def _choose(
    devices: tuple[Device, ...],
    settings: Settings,
    wish: Any,
    constants: SpeedConstants,
    *,
    longest: int | None,
    least: float,
    as_json: bool,
) -> None:
    from shoestring.errors import BadValueError
    from shoestring.plan.choosing import CONTEXTS, choose
    from shoestring.report.planning import choices_json, choices_table
    from shoestring.report.tabular import plain_text

    contexts = CONTEXTS if longest is None else (longest,)
    with click.progressbar(length=1, label="planning", file=sys.stderr) as bar:

        def show(done: int, in_all: int) -> None:
            bar.length = in_all
            bar.update(done - bar.pos)

        choices, fitting = choose(
            devices, settings, wish, constants, contexts=contexts, least_tokens_per_s=least,
            progress=show,
        )  # fmt: skip
    if as_json:
        click.echo(json.dumps({"wish": wish, "fitting": fitting, "choices": choices_json(choices)}))
    if not choices:
        raise BadValueError(
            f"no model of the catalogue fits at a context of {contexts[0]} tokens and decodes "
            f"{least:g} tokens/s: give more memory, a smaller --context or --least-speed"
        )
    if not as_json:
        table = choices_table(choices, fitting, wish, SHOWN)
        click.echo(f"{table.title}\n\n{plain_text(table)}")


def _say(line: str) -> None:
    click.echo(line, err=True)
