"""Does the note's table add up? Its figures against the model's published files and each other.

What is published of KBlueLeaf/TIPO-100M, as the hub's pages show it (revision 371c622):

- ``model.safetensors`` 402 MB (in fp32), ``TIPO-100M-F16.gguf`` 202 MB: no other parameter count
  stands there, but each gives one, 402e6 / 4 and 202e6 / 2;
- ``generation_config.json``: bos 1, eos 2, pad 2, ``use_cache`` false;
- of its sister TIPO-200M-ft the whole ``config.json``: LLaMA, heads of 64, 32,013 tokens, as many
  heads for keys as for queries, output not tied to the embedding, epsilon 1e-5, base 10,000.

Its own ``config.json`` (734 bytes) could not be read here. With what the sister has, the size in
the note leaves one shape (:func:`find_shapes`): 10 layers, width 640, feed-forward 2,240. That is
``shape:tipo-100m``; both published sizes agree with it.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

from shoestring.models.shapes import SHAPES

if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "tipo-100m"
MEBIBYTE = 1 << 20
NOTE: Mapping[str, float | str] = {
    "model": "KBlueLeaf/TIPO-100M", "load_s": 3.59, "rss_mb": 700.83, "size_mb": 191.46,
    "mean_inference_s": 7.89, "successful": "5/5", "parameters": 200e6,
}  # fmt: skip
"""As it prints them; what MB means there is what is judged."""
PUBLISHED_FP32_BYTES, PUBLISHED_F16_BYTES = 402e6, 202e6
ROUNDING_BYTES = 0.5e6
VOCABULARY_BYTES = 1.5e6
"""At most so much of the F16 file is no weight: 32,013 tokens with scores and kinds."""
GENERATION = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, "use_cache": False}
HEAD_DIM = 64


def model_config() -> dict[str, Any]:
    """Return the configuration for transformers, out of the shape that llama-server is given."""
    shape = SHAPES[NAME]
    return {
        "hidden_size": shape.width,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.context,
        "rms_norm_eps": shape.norm_epsilon,
        "rope_theta": shape.rope_base,
        "tie_word_embeddings": shape.tied,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 2,
    }


def count_parameters(layers: int, width: int, feed_forward: int, vocabulary: int) -> int:
    """Count the weights of a LLaMA with untied output and one head of keys for one of queries.

    Embedding and output, then for each layer four matrices of attention, three of the feed-forward
    block and two norms, and the last norm.
    """
    layer = 4 * width**2 + 3 * width * feed_forward + 2 * width
    return 2 * vocabulary * width + layers * layer + width


def find_shapes() -> list[dict[str, int]]:
    """Return every shape whose weights take the note's size at two bytes each, to its last digit.

    Widths in steps of a head, feed-forward in steps of 64, up to 48 layers: 184,320 candidates.
    """
    vocabulary = SHAPES[NAME].vocabulary
    wanted, half = float(NOTE["size_mb"]), 0.005
    steps = product(range(1, 49), range(128, 2049, HEAD_DIM), range(64, 8193, 64))
    return [
        {"layers": layers, "width": width, "feed_forward": inner, "parameters": count}
        for layers, width, inner in steps
        for count in (count_parameters(layers, width, inner, vocabulary),)
        if abs(2 * count / MEBIBYTE - wanted) <= half
    ]


def judge() -> dict[str, Any]:
    """Return each of the note's claims that arithmetic alone can judge, with the numbers."""
    shape = SHAPES[NAME]
    count = count_parameters(shape.layers, shape.width, shape.feed_forward, shape.vocabulary)
    fp32, two_bytes = 4 * count, 2 * count
    claimed_fp32 = 4 * float(NOTE["parameters"])
    rss_largest = float(NOTE["rss_mb"]) * MEBIBYTE
    f16_rest = PUBLISHED_F16_BYTES - two_bytes
    f16_agrees = -ROUNDING_BYTES <= f16_rest <= VOCABULARY_BYTES + ROUNDING_BYTES
    return {
        "parameters": count,
        "config": model_config(),
        "shapes_that_fit_the_note": find_shapes(),
        "published_files_agree": {
            "fp32_bytes": {"published": PUBLISHED_FP32_BYTES, "computed": fp32,
                           "agrees": abs(PUBLISHED_FP32_BYTES - fp32) <= ROUNDING_BYTES},
            "f16_bytes": {"published": PUBLISHED_F16_BYTES, "computed_weights": two_bytes,
                          "agrees": f16_agrees},
        },
        "claims": [
            {
                "claim": "TIPO-100M has approximately 200M parameters",
                "holds": abs(count / float(NOTE["parameters"]) - 1) < 0.1,
                "why": f"{count:,}, half of that; the hub's fp32 file of 402 MB says the same",
            },
            {
                "claim": "191.46 MB is the size of the model in full precision",
                "holds": abs(fp32 / MEBIBYTE - float(NOTE["size_mb"])) <= 0.005,
                "why": f"{two_bytes / MEBIBYTE:.2f} MiB are {count:,} weights of two bytes; at the "
                       f"four bytes of fp32 they take {fp32 / MEBIBYTE:.2f} MiB",
            },
            {
                "claim": "about 200M parameters were held in fp32 in 700.83 MB",
                "holds": claimed_fp32 <= rss_largest,
                "why": f"200M weights of four bytes are {claimed_fp32 / MEBIBYTE:.1f} MiB, more "
                       f"than all of the process; {count:,} are {fp32 / MEBIBYTE:.1f} MiB of it",
            },
        ],
    }  # fmt: skip
