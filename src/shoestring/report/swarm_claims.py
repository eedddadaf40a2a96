"""The third note's claims on splitting a model, one by one: what is true of each, where tested.

What was measured is judged from the files, each time anew: without a file, or where a run was lost,
a claim cannot be judged. What the note says of wallets, rewards and a market is no part of this
page.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shoestring.models.outline import outline_of_shape
from shoestring.models.shapes import SHAPES
from shoestring.report.service_claims import Claim
from shoestring.report.service_tables import not_measured
from shoestring.report.swarm_examples import FLOAT_BYTES, NOTE_BYTES
from shoestring.report.swarm_law import fit_lines
from shoestring.report.swarm_tables import EXAMPLES, KIBIBYTE, SCALING
from shoestring.report.units import number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shoestring.report.service_claims import Verdict
    from shoestring.report.service_tables import Figures

_OPEN: Final = "cannot be judged"
_LAYERS: Final = range(10, 21)
"""What the note gives each of four devices."""
_ON_LAN: Final = 5
_MIB: Final = 1 << 20
_OFFERED: Final = "all are offered"
_PAGE: Final = "report/test_swarm_page.py"
_HOPS: Final = 10


def swarm_claims(files: Mapping[str, Figures | None]) -> tuple[Claim, ...]:
    """Return them.

    Args:
        files: what each benchmark wrote; None: it was not run.
    """
    scaling, examples = files.get(SCALING), files.get(EXAMPLES)
    deepest = max(shape.layers for shape in SHAPES.values())
    eight, four = (outline_of_shape(f"llama-3.1-8b:{kind}").file_bytes / 1e9
                   for kind in ("q8_0", "q4_k_m"))  # fmt: skip
    low, high = (at // FLOAT_BYTES for at in NOTE_BYTES)
    hop_kib = SHAPES["phi-3-mini"].width * FLOAT_BYTES / KIBIBYTE
    return (
        Claim(
            "An 8B model takes about 8 GB of a device's 16",
            "holds",
            f"With 8 bits a weight: llama-3.1-8b is {number(eight)} GB as q8_0, and "
            f"{number(four)} GB as q4_k_m, counted from the tensors; caches come on top.",
            ("models/test_shapes.py::test_a_shape_has_as_many_parameters_as_the_model",),
        ),
        Claim(
            "LLMs can have hundreds of layers",
            "wrong",
            f"The deepest of the {len(SHAPES)} published shapes that are known here has {deepest}.",
            ("docs/models.md",),
        ),
        Claim(
            "Each layer transfers 10 KB to 50 KB",
            "in part",
            "Between layers of one device nothing travels; what does is one activation a hop, "
            f"width times 4 bytes. It lies in the note's range for widths of {number(low)} to "
            f"{number(high)}, as most published models have. The output's answer, one number for "
            "each word of the vocabulary, would be many times that, once a token: the output "
            "stays with the user.",
            (
                f"{_PAGE}::test_a_hops_bytes_stand_beside_the_notes",
                "docs/swarm-measured.md",
            ),
        ),
        Claim(
            "Over ten nodes that becomes bandwidth-intensive",
            "in part",
            f"Ten hops of Phi-3's {number(hop_kib)} KiB are {number(_HOPS * hop_kib)} KiB a token. "
            "What costs is to wait for each hop, whatever it carries. Weights are what needs a "
            "link, and they travel once (a second load below 1 % of the first, with all layers and "
            "the output on the node); the output's numbers never do.",
            (
                "swarm/test_store.py::test_the_second_load_of_a_model_moves_next_to_nothing",
                "docs/swarm-weights.md",
            ),
        ),
        Claim(
            "It increases latency, the more so between regions",
            *_latency(scaling),
            (
                f"{_PAGE}::test_the_law_is_found_in_what_follows_it",
                "swarm/test_chain.py::test_activations_go_from_node_to_node",
            ),
        ),
        Claim(
            "60 layers over 4 devices, 10 to 20 on each, need less of each",
            *_sixty(examples),
            (
                f"{_PAGE}::test_each_device_of_an_example_has_a_row",
                "plan/test_split.py::test_the_best_split_is_that_of_brute_force",
            ),
        ),
        Claim(
            "Of ten devices the five on the LAN are chosen by themselves",
            *_nearest(examples),
            (
                f"{_PAGE}::test_who_was_chosen_is_told_with_the_reason",
                "plan/test_planner.py::test_a_peer_far_away_is_left_out",
            ),
        ),
        Claim(
            "The shortest chain has the lowest possible latency",
            "in part",
            "The split is the best there is by the planner's own figures, which is tested by brute "
            "force. Those are predictions: a round trip just measured, a device's speed as it says "
            "so itself. Devices keep their order, and ways between them are not weighed.",
            (
                "plan/test_split.py::test_the_best_split_is_that_of_brute_force",
                "docs/planning.md",
            ),
        ),
        Claim(
            "Each device takes ideally about 10 % of a model",
            "in part",
            "An owner can say so (--share 0.1). Then ten peers are needed for any model, and a "
            "token waits for ten round trips, or 5.5 in a chain; without it as few are taken as "
            "have room.",
            (
                "swarm/test_survey.py::test_a_peer_that_pauses_or_shares_says_so",
                "docs/swarm.md",
            ),
        ),
        Claim(
            "Hashes and signatures prove who contributed",
            "in part",
            "Two signatures prove that both ends saw the same bytes. That these were computed "
            "rightly no signature proves: samples have to be computed again elsewhere.",
            ("docs/decisions/0007-receipts-of-two-hands.md",),
        ),
        Claim(
            "The closer users are, the more likely they use the same models",
            "cannot be judged",
            "Nobody was observed here. Where it is so, a node has the weights already.",
            ("docs/swarm-weights.md",),
        ),
        Claim(
            "Testing model: Phi-3 (32 layers)",
            *_whole(examples),
            (f"{_PAGE}::test_each_device_of_an_example_has_a_row", "docs/models.md"),
        ),
    )


def _latency(figures: Figures | None) -> tuple[Verdict, str]:
    """Judge by the round trips that were fitted to what was measured of our own ways."""
    if figures is None:
        return _OPEN, not_measured(SCALING)
    lines = [line for line in fit_lines(figures["rows"]) if line.arm != "raw"]
    if not lines:
        return _OPEN, "At one round trip alone nothing can be fitted."
    trips = [line.round_trips for line in lines]
    rises = [(one.median if one.low is None else one.low) or 0.0 for one in trips]
    said = ", ".join(
        f"{number(line.round_trips.median)} round trips over {line.peers} ({line.arm}; by the law "
        f"{number(line.ought)})"
        for line in lines
    )
    verdict: Verdict = "holds" if min(rises) > 0 else "in part" if max(rises) > 0 else "wrong"
    return verdict, f"A token takes, as fitted: {said}."


def _sixty(figures: Figures | None) -> tuple[Verdict, str]:
    """Judge by the layers that each device was given, and what its worker held."""
    found = _run_of(figures, "60 layers")
    if isinstance(found, str):
        return _OPEN, found
    example, way = found
    counts = [one["layers"][1] - one["layers"][0] for one in way["devices"]]
    held = [one["resident_bytes"] for one in way["devices"] if one["planned_bytes"]]
    if None in held:
        return _OPEN, "What a worker held was not seen."
    needs_less = bool(held) and max(held) < example["file_bytes"]
    is_as_said = len(counts) == 4 and all(count in _LAYERS for count in counts)  # noqa: PLR2004
    verdict: Verdict = "wrong"
    if needs_less:
        verdict = "holds" if is_as_said else "in part"
    return verdict, (
        f"The planner gave {', '.join(map(str, counts))} layers; the workers held "
        f"{', '.join(number(one / _MIB) for one in held)} MiB, of a file of "
        f"{number(example['file_bytes'] / _MIB)} MiB. Buffers for computing do not shrink with the "
        "layers, and the user keeps the embedding."
    )


def _nearest(figures: Figures | None) -> tuple[Verdict, str]:
    """Judge by whom the planner chose; that needs no answer."""
    example = figures["examples"].get("five of ten") if figures else None
    if example is None:
        return _OPEN, not_measured(EXAMPLES) if figures is None else "The example was not run."
    devices = example["ways"][_OFFERED]["devices"]
    by_distance = sorted(devices, key=lambda one: float(one["greeted_rtt_s"]))
    near = {one["name"] for one in by_distance[:_ON_LAN]}
    chosen = {one["name"] for one in devices if one["planned_bytes"]}
    if not chosen:
        return _OPEN, f"Nobody was chosen: {'; '.join(example['ways'][_OFFERED]['events'])}"
    verdict: Verdict = "holds" if chosen == near else "in part" if chosen < near else "wrong"
    lost = "" if example["ways"][_OFFERED]["token_s"] is not None else " The run was lost."
    return verdict, (
        f"Chosen: {', '.join(sorted(chosen))}; nearest: {', '.join(sorted(near))}. The "
        f"planner weighs time and knows no LAN; with room on fewer devices fewer are taken.{lost}"
    )


def _whole(figures: Figures | None) -> tuple[Verdict, str]:
    """Judge by whether it answered."""
    found = _run_of(figures, "Phi-3")
    if isinstance(found, str):
        return _OPEN, found
    example, way = found
    used = sum(1 for one in way["devices"] if one["planned_bytes"])
    return "holds", (
        f"It ran whole, {example['layers']} layers over {used} devices, by shape: all layers at "
        "full width, random weights."
    )


def _run_of(figures: Figures | None, name: str) -> tuple[Figures, Figures] | str:
    """Return an example and its way with all devices; or why there is no answer of it."""
    if figures is None:
        return not_measured(EXAMPLES)
    example = figures["examples"].get(name)
    if example is None:
        return "The example was not run."
    way = example["ways"].get(_OFFERED)
    if way is None or way["token_s"] is None:
        why = "; ".join(way["events"]) if way else "it was not offered all devices"
        return f"The run was lost: {why or 'no reason was kept'}."
    return example, way
