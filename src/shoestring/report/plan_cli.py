"""The command ``plan``: what fits, where each layer goes, how fast, and how to start it."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
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
USUAL_CONTEXT = 4096
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
@click.option("--prompt-tokens", type=int, default=512, show_default=True, help="For TTFT.")
@click.option("--gpu-layers", type=int, help="So many on cards and peers, the output counts.")
@click.option("--tensor-split", metavar="A,B,...", help="Your own shares of them, to be judged.")
@click.option("--explain", is_flag=True, help="Draw the memory, and say why not otherwise.")
@click.option("--picture", type=FILE, help="Draw the memory into FILE.svg and FILE.pdf.")
@click.option("--calibrate", is_flag=True, help="First measure this processor, about a minute.")
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
    prompt_tokens: int,
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

    _check_words(model, choosing=choosing, calibrate=calibrate, prompt_tokens=prompt_tokens)
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
        _calibrate(engine)
        if model is None and not choosing:
            return
    found, constants = _devices(devices)
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


def _check_words(model: str | None, *, choosing: bool, calibrate: bool, prompt_tokens: int) -> None:
    from shoestring.errors import BadValueError

    if model is not None and choosing:
        raise BadValueError(f"--choose finds a model: leave {model} out, or leave --choose out")
    if model is None and not choosing and not calibrate:
        raise BadValueError(
            "no model was named: give one (llama-3.1-8b:q4_k_m), or --choose, or --calibrate"
        )
    if not 1 <= prompt_tokens <= 1 << 20:
        raise BadValueError(f"--prompt-tokens {prompt_tokens}: give 1 to {1 << 20}")


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


def _devices(texts: tuple[str, ...]) -> tuple[tuple[Device, ...], SpeedConstants]:
    """Return the devices, and the constants that hold for them: a calibration only for these."""
    from shoestring.plan.speed_constants import load_constants

    if texts:
        from shoestring.hardware.device_words import parse_devices

        return parse_devices(texts), load_constants()
    from shoestring.hardware.devices import detect_devices
    from shoestring.hardware.memory_speed import measure_memory_speed

    constants = load_constants(_calibration_path())
    if constants.here is not None and constants.here.machine != _machine_title():
        _say(f"the calibration is of another machine, {constants.here.machine}: it is left aside")
        constants = load_constants()
    if constants.here is not None:
        return detect_devices(say=_say), constants
    _say("measuring how fast memory is read, a second; for better figures: plan --calibrate")
    speed = measure_memory_speed()
    return detect_devices(say=_say, ram_bytes_per_s=speed.read_bytes_per_s), constants


def _plan(
    found: Found,
    settings: Settings,
    devices: tuple[Device, ...],
    constants: SpeedConstants,
    *,
    context: int | None,
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
    asked = Ask(
        model=found.name, outline=found.outline, settings=settings, devices=devices, **by_hand
    )
    return make_plan(asked, constants)


def _show(made: Plan, found: Found, *, explain: bool, picture: Path | None, as_json: bool) -> None:
    from shoestring.errors import BadValueError
    from shoestring.report.planning import plan_json, plan_text

    if as_json:
        click.echo(json.dumps(plan_json(made, found.path)))
    if not made.fits:
        raise BadValueError(f"{found.name} {made.rejected[0]}")
    if picture is not None:
        from shoestring.report.plan_figure import memory_figure
        from shoestring.report.style import save_figure

        for path in save_figure(memory_figure(made), picture):
            _say(f"wrote {path}")
    if not as_json:
        click.echo(plan_text(made, found.path, explain=explain))


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


def _calibrate(engine: str) -> None:
    """Run the calibration's models one after the other, and keep what was fitted."""
    from shoestring.engines.discovery import find_program
    from shoestring.measure.speed_trials import CALIBRATION, measure_speed
    from shoestring.models.outline import outline_of_shape
    from shoestring.plan.memory import Settings
    from shoestring.plan.speed_constants import load_constants, save_calibration
    from shoestring.plan.speed_here import Measured, fit_here

    if engine == "auto":
        engine = "embedded" if find_program("llama-server") is None else "llama-server"
    trials = [measure_speed(shape, engine=engine, say=_say) for shape in CALIBRATION]
    rows = [
        Measured(
            trial.shape, outline_of_shape(trial.shape), Settings(context=trial.prompt_tokens + 64),
            trial.prompt_tokens, trial.decode_tokens_per_s, trial.prefill_tokens_per_s,
        )
        for trial in trials
    ]  # fmt: skip
    for trial in trials:
        _say(
            f"{trial.shape:26} decode {trial.decode_tokens_per_s:7.1f} tokens/s   "
            f"prefill {trial.prefill_tokens_per_s:7.1f} tokens/s"
        )
    today = f"{datetime.now(UTC):%Y-%m-%d}"
    fit = fit_here(rows, load_constants().processor, _machine_title(), today)
    save_calibration(fit, _calibration_path())
    _say(f"kept in {_calibration_path()}")


def _calibration_path() -> Path:
    from shoestring.paths import cache_dir
    from shoestring.plan.speed_constants import HERE_NAME

    return cache_dir() / HERE_NAME


def _machine_title() -> str:
    from shoestring.hardware.machine import describe_machine
    from shoestring.plan.machines import machine_of

    machine = machine_of(describe_machine())
    return "an unknown machine" if machine is None else machine.title


def _say(line: str) -> None:
    click.echo(line, err=True)
