"""The third note's claims on splitting a model, one by one: what is true of each, where tested.

What it says of wallets, rewards and a market is no part of this page.
"""

from __future__ import annotations

from typing import Final

from shoestring.models.outline import outline_of_shape
from shoestring.models.shapes import SHAPES
from shoestring.report.service_claims import Claim
from shoestring.report.swarm_examples import FLOAT_BYTES, NOTE_BYTES
from shoestring.report.swarm_tables import KIBIBYTE
from shoestring.report.units import number

_PAGE: Final = "report/test_swarm_page.py"
_HOPS: Final = 10


def swarm_claims() -> tuple[Claim, ...]:
    """Return them, with figures that are computed from shapes alone; what is measured is above."""
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
            f"{number(high)}, as most published models have. The last device's answer, one number "
            "for each word of the vocabulary, is many times that, once a token.",
            (
                f"{_PAGE}::test_a_hops_bytes_stand_beside_the_notes",
                "docs/swarm-measured.md",
            ),
        ),
        Claim(
            "Over ten nodes that becomes bandwidth-intensive",
            "in part",
            f"Ten hops of Phi-3's {number(hop_kib)} KiB are {number(_HOPS * hop_kib)} KiB a token. "
            "What costs is to wait for each hop, whatever it carries. Weights and logits are what "
            "needs a link: weights travel once, logits each token from the last device.",
            (
                "swarm/test_store.py::test_the_second_load_of_a_model_moves_next_to_nothing",
                "docs/swarm-weights.md",
            ),
        ),
        Claim(
            "It increases latency, the more so between regions",
            "holds",
            "Each peer adds its round trip to each token: measured and fitted above. A chain from "
            "node to node takes (N + 1) / 2 of them in place of N, where all are alike.",
            (
                f"{_PAGE}::test_the_law_is_found_in_what_follows_it",
                "swarm/test_chain.py::test_activations_go_from_node_to_node",
            ),
        ),
        Claim(
            "60 layers over 4 devices, 10 to 20 on each, need less of each",
            "holds",
            "It ran, laid out by the planner: what each worker held stands above. Buffers for "
            "computing do not shrink with the layers, and the user keeps the embedding.",
            (
                f"{_PAGE}::test_each_device_of_an_example_has_a_row",
                "plan/test_split.py::test_the_best_split_is_that_of_brute_force",
            ),
        ),
        Claim(
            "Of ten devices the five on the LAN are chosen by themselves",
            "holds",
            "Because they are nearer: the planner weighs time and knows no LAN. With room for "
            "all on fewer devices fewer are taken.",
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
            "holds",
            "It ran whole over four devices, by shape: all layers at full width, random weights.",
            (f"{_PAGE}::test_each_device_of_an_example_has_a_row", "docs/models.md"),
        ),
    )
