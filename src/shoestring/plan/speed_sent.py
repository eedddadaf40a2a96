"""Prompts of layers that lie in RAM: a card computes them, with weights that are copied to it.

From 32 tokens in a batch on llama.cpp hands every matrix whose weights lie in RAM to the first card
of the engine, be that faster or not; for each batch the weights come over anew::

    seconds a token = the card's own + bytes / (line rate of its slot * COPIED) / batch

Experts that stay in RAM are sent likewise. Single tokens, shorter batches and, in this plan, cards
whose slot nobody knows leave the work to the processor; a peer takes none.

Sources: ``--op-offload`` of llama.cpp; ggml-org/llama.cpp#6083 (what it does), #18530 (from 32
tokens on, in each backend), #17026 (also where the processor would have been faster).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shoestring.hardware.devices import Device
    from shoestring.plan.speed import Part, Rates
    from shoestring.plan.speed_terms import Work

SENT_BATCH = 32
"""Tokens."""
COPIED = 0.5
"""Share of a slot's line rate at which mapped weights come over. Published prompts show 0.46 or
more twice (RTX 3090, 28 GiB and 1,024 tokens in 2.06 s: ollama/ollama#16221, its slot taken for
PCIe 4.0 x16; RTX 3090 at PCIe 3.0 x16, 24 of 57 layers of an 8x22B and 512 tokens in 5.12 s:
ggml-org/llama.cpp#11397), and 0.18 under WSL (RTX 3090 Ti, likewise: #6083)."""
COPIED_SPREAD = 1.0
"""Half-width of it, as a logarithm: as far as the slowest of the three is off."""


def copy_times(works: Sequence[Work], device: Device, batch: int) -> tuple[float, ...]:
    """Return the seconds a token of a prompt in which weights come from RAM to a device.

    Args:
        works: of a token, for each layer.
        device: that computes them.
        batch: tokens that are computed at once.

    Returns:
        For each of the works; empty: nothing is sent there.
    """
    if device.kind != "gpu" or device.link_bytes_per_s is None or batch < SENT_BATCH:
        return ()
    rate = COPIED * device.link_bytes_per_s * batch
    return tuple(work.held_bytes / rate for work in works)


def send(parts: Sequence[Part]) -> list[Part]:
    """Return the parts as they are at prompts: what lies in RAM is the first card's to compute."""
    card = next((part.rates for part in parts if part.rates.copy_layer_s_per_token), None)
    if card is None:
        return [*parts]
    return [_send_to(card, part) if part.rates.in_ram else part for part in parts]


def _send_to(card: Rates, part: Part) -> Part:
    sent = replace(
        part.rates,
        prefill_layer_s_per_token=_add(card.prefill_layer_s_per_token, card.copy_layer_s_per_token),
        prefill_expert_s_per_token=_add(
            card.prefill_expert_s_per_token, card.copy_expert_s_per_token
        ),
        prefill_spread=max(card.prefill_spread, COPIED_SPREAD),
    )
    return replace(part, rates=sent)


def _add(own_s: Sequence[float], copy_s: Sequence[float]) -> tuple[float, ...]:
    return tuple(own + copy for own, copy in zip(own_s, copy_s, strict=True))
