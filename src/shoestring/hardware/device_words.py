"""A device as people write it: one text each (``docs/devices.md``).

::

    NAME[:MEMORY[:BANDWIDTH]]        t4    gtx-1080    t4:8GiB    old card:8GiB:256GB/s
    ram:MEMORY[:BANDWIDTH]           ram:32GiB    cpu:32GiB:40GB/s
    peer:DEVICE:ROUND_TRIP[:LINK]    peer:rtx 3060:20ms    peer:8GiB:40GB/s:5ms:1Gbit/s
    COUNTx...                        2xT4    2xpeer:t4:20ms

A size is that of the whole device; what drivers and systems keep of it is taken off
(:mod:`shoestring.hardware.devices`). Known names bring their facts from
:mod:`shoestring.hardware.cards`; of others a bandwidth is asked for, and none is invented.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, TypeAlias

from shoestring.errors import BadValueError
from shoestring.hardware.cards import GIBIBYTE, cards, find_card, named_bytes
from shoestring.hardware.devices import Device, usable_bytes, whole_bytes
from shoestring.hardware.quantities import (
    kind_of,
    parse_rate,
    parse_size,
    parse_time,
    shown,
    spell_rate,
    spell_size,
    spell_time,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from shoestring.hardware.cards import Card

    Find: TypeAlias = Callable[[str], Card | None]

MOST = 64
"""Devices of one kind that one text may ask for."""
RAM_NAMES = ("ram", "cpu")
SHARING = frozenset({"apple", "igpu"})
"""Kinds of cards that compute in the machine's own RAM."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+()-]{0,59}")
GIGABYTE = 10**9
COUNT = re.compile(r"(\d+)x(.+)", re.IGNORECASE | re.ASCII | re.DOTALL)


def parse_devices(texts: Iterable[str], *, find: Find = find_card) -> tuple[Device, ...]:
    """Return the devices of several texts, in their order, with names of their own (``T4#2``).

    RAM is among them only where a text says so.

    Args:
        texts: each as after ``--device``.
        find: looks a name up in the catalogue.

    Raises:
        BadValueError: one is not understood, cannot be, or RAM stands there twice, be it as the
            memory of a chip that computes in it.
    """
    parsed = [(text, device) for text in texts for device in _parse_counted(text, find)]
    _check_ram(parsed, find)
    seen: Counter[str] = Counter()
    named = []
    for _, device in parsed:
        seen[device.name] += 1
        number = seen[device.name]
        named.append(device if number == 1 else replace(device, name=f"{device.name}#{number}"))
    return tuple(named)


def parse_device(text: str, *, find: Find = find_card) -> Device:
    """Return the device of a text without a count; else as :func:`parse_devices`."""
    try:
        return _parse([part.strip() for part in text.split(":")], find)
    except BadValueError as error:
        raise BadValueError(f"--device {shown(text)}: {error}") from error


def spell(device: Device) -> str:
    """Write a device so that :func:`parse_device` reads the same, but for a number like ``#2``."""
    assert device.total_bytes is not None, "only what was parsed or detected can be spelled"
    parts = [device.name.partition("#")[0], spell_size(device.total_bytes)]
    if device.bandwidth_bytes_per_s is not None:
        parts.append(spell_rate(device.bandwidth_bytes_per_s))
    if device.kind == "peer":
        parts.append(spell_time(device.link_latency_s))
        if device.link_bytes_per_s is not None:
            parts.append(spell_rate(device.link_bytes_per_s))
    return ":".join(parts)


def _check_ram(parsed: Iterable[tuple[str, Device]], find: Find) -> None:
    """Refuse devices that count this machine's RAM twice."""
    rams = [text for text, device in parsed if device.kind == "cpu"]
    if len(rams) > 1:
        raise BadValueError("--device: RAM is given twice; give this machine's as one ram:32GiB")
    for _, device in parsed:
        card = find(device.name) if rams and device.kind == "gpu" else None
        if card is not None and card.kind in SHARING:
            raise BadValueError(
                f"--device {shown(rams[0])}: {card.name} computes in the machine's own RAM; "
                "leave ram out"
            )


def _parse_counted(text: str, find: Find) -> list[Device]:
    """Parse a text that may begin with a count: ``2xT4``; a card may be called so (7900xtx)."""
    counted = COUNT.fullmatch(text.strip())
    if counted is None or find(text.partition(":")[0].strip()) is not None:
        return [parse_device(text, find=find)]
    digits, rest = counted.groups()
    if not 1 <= int(digits[:9]) <= MOST:
        raise BadValueError(
            f"--device {shown(text)}: {digits[:20]} devices are not between 1 and {MOST}; "
            "write a card's own name with a dash: 7900-xtx:24GiB:960GB/s"
        )
    return [parse_device(rest, find=find)] * int(digits)


def _parse(parts: list[str], find: Find) -> Device:
    if not all(parts):
        raise BadValueError("a part is empty; the order is NAME:MEMORY:BANDWIDTH, as t4:8GiB")
    return _peer(parts[1:], find) if parts[0].lower() == "peer" else _local(parts, find)


def _peer(parts: list[str], find: Find) -> Device:
    """Read what follows ``peer``: a device, its round trip and perhaps its link."""
    times = [n for n, part in enumerate(parts) if n > 0 and kind_of(part) == "time"]
    if len(times) != 1:
        raise BadValueError(
            "a peer needs one round trip, as ping shows it, after the device: peer:t4:20ms"
        )
    (at,) = times
    if len(parts) > at + 2:
        raise BadValueError(f"{shown(parts[at + 2])} is too much; after the round trip comes LINK")
    inner = parts[:at]
    if kind_of(inner[0]) == "size" and find(inner[0]) is None:
        device = _unknown("peer", *_memory_and_bandwidth(inner))
    else:
        device = _local(inner, find)
        device = replace(device, name=f"peer:{device.name}")
    if device.bandwidth_bytes_per_s is None:
        raise BadValueError(
            f"nothing here can measure it; give its bandwidth: "
            f"peer:{':'.join(inner[:2])}:40GB/s:{parts[at]}"
        )
    latency_s = parse_time(parts[at])
    return replace(
        device,
        kind="peer",
        title=f"{device.title} behind {spell_time(latency_s)}",
        link_latency_s=latency_s,
        link_bytes_per_s=parse_rate(parts[at + 1]) if len(parts) > at + 1 else None,
    )


def _local(parts: list[str], find: Find) -> Device:
    name, *rest = parts
    card = find(name)
    if card is None:
        _check_name(name)
    size_bytes, rate = _memory_and_bandwidth(rest) if rest else (None, None)
    if card is not None:
        sized = None if size_bytes is None else _sized(name, size_bytes, find)
        return _known(name, sized or card, size_bytes, rate)
    if name.lower() in RAM_NAMES:
        if size_bytes is None:
            raise BadValueError(f"how much of it? Write {name}:32GiB")
        return _ram(size_bytes, rate)
    if size_bytes is None or rate is None:
        raise BadValueError(f"unknown; {_hint(name)}give its bandwidth as {name}:8GiB:256GB/s")
    return _unknown(name, size_bytes, rate)


def _check_name(name: str) -> None:
    """Refuse what is no name: of a device that only its text describes."""
    if kind_of(name) is not None:
        raise BadValueError(f"it begins with {shown(name)}; the order is NAME:MEMORY:BANDWIDTH")
    if name.lower() == "peer":
        raise BadValueError("a peer of a peer; give the round trip to it from here: peer:t4:20ms")
    if COUNT.fullmatch(name) is not None:
        raise BadValueError("a count stands in front of all, as in 2xpeer:t4:20ms")
    if NAME.fullmatch(name) is None:
        raise BadValueError(
            f"{shown(name)} is no name: at most 60 letters, digits, spaces and ._+-() of ASCII"
        )


def _memory_and_bandwidth(parts: list[str]) -> tuple[int, float | None]:
    """Read ``MEMORY[:BANDWIDTH]``; what else stands there is named in the error."""
    if kind_of(parts[0]) == "rate":
        raise BadValueError(f"{shown(parts[0])} comes after the memory: NAME:8GiB:256GB/s")
    for part in parts:
        if kind_of(part) == "time":
            raise BadValueError(f"{shown(part)} is a peer's; write peer:NAME:8GiB:256GB/s:20ms")
    if len(parts) > 2:  # noqa: PLR2004 - memory and bandwidth
        raise BadValueError(f"{shown(parts[2])} is too much; the order is NAME:MEMORY:BANDWIDTH")
    return parse_size(parts[0]), parse_rate(parts[1]) if len(parts) > 1 else None


def _sized(name: str, size_bytes: int, find: Find) -> Card | None:
    """Return the card of a name with that memory; None where the catalogue has none.

    Boxes say GB and mean GiB: 12 GB are taken as given, but are those of a card with 12 GiB.
    """
    card = find(f"{name} {round(size_bytes / GIBIBYTE)}GB")
    if card is None and size_bytes % GIGABYTE == 0:
        card = find(f"{name} {size_bytes // GIGABYTE}GB")
    return card


def _known(name: str, card: Card, size_bytes: int | None, rate: float | None) -> Device:
    """Take a card of the catalogue, with what was given by hand in place of its own."""
    own_bytes = whole_bytes(card)
    if own_bytes is None:
        size_bytes = _told_bytes(name, size_bytes)
    # The size on the box means the card as it is, with its error correction.
    total_bytes = own_bytes if size_bytes in {None, card.memory_bytes} else size_bytes
    assert total_bytes is not None
    given = [
        word
        for word, own, here in (
            ("memory", own_bytes, total_bytes),
            ("bandwidth", card.bandwidth_bytes_per_s, rate or card.bandwidth_bytes_per_s),
        )
        if own != here
    ]
    return Device(
        name=card.name,
        kind="cpu" if card.kind == "cpu" else "gpu",
        title=card.name,
        memory_bytes=usable_bytes(card.kind, total_bytes),
        bandwidth_bytes_per_s=rate or card.bandwidth_bytes_per_s,
        compute_flops=card.compute_flops or card.fp32_flops,
        generation=card.generation,
        link_latency_s=0.0,
        link_bytes_per_s=None,
        source=" and ".join(given) + f" as given; else {card.source}" if given else card.source,
        total_bytes=total_bytes,
    )


def _told_bytes(name: str, size_bytes: int | None) -> int:
    """Return the memory of what has no size of its own: as given, or as its name says."""
    in_name = named_bytes(name)
    if in_name is None:
        if size_bytes is None:
            known = name if name.isprintable() else "NAME"
            raise BadValueError(f"the catalogue has no size of its memory; write {known}:16GiB")
        return size_bytes
    if size_bytes in {None, in_name}:
        return parse_size(spell_size(in_name))  # which refuses what no device has
    raise BadValueError(
        f"{shown(name)} says {spell_size(in_name)}, and {spell_size(size_bytes)} is given; "
        "leave one of them out"
    )


def _ram(size_bytes: int, rate: float | None) -> Device:
    return replace(
        _unknown("cpu", size_bytes, rate, kind="cpu"),
        title="RAM",
        source="as given"
        if rate is not None
        else "as given; no bandwidth: calibrate, or give it as ram:32GiB:40GB/s",
    )


def _unknown(
    name: str, size_bytes: int, rate: float | None, *, kind: Literal["gpu", "cpu"] = "gpu"
) -> Device:
    """Make a device of which only that is known what its text says."""
    return Device(
        name=name,
        kind=kind,
        title=name,
        memory_bytes=usable_bytes(kind, size_bytes),
        bandwidth_bytes_per_s=rate,
        compute_flops=None,
        generation=None,
        link_latency_s=0.0,
        link_bytes_per_s=None,
        source="as given",
        total_bytes=size_bytes,
    )


def _hint(name: str) -> str:
    """Name the card of the catalogue that somebody may have meant."""
    names = {card.name.lower(): card.name for card in cards()}
    near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.75)
    return f"did you mean {names[near[0]]}? Else " if near else ""
