"""Reading the help of llama-quantize, of any version."""

from hypothesis import given
from hypothesis import strategies as st

from shoestring.quality.tool import Kind, read_kinds

HELP = """
usage: llama-quantize [--help] model-f32.gguf [model-quant.gguf] type [nthreads]
  --pure
                                      WARNING: this can reduce quality
 allowed quantization types
   2  or  Q4_0    :  4.34G, +0.4685 ppl @ Llama-3-8B
  15  or  Q4_K    : alias for Q4_K_M
  15  or  Q4_K_M  :  4.58G, +0.1754 ppl @ Llama-3-8B
  38  or  MXFP4_MOE :  MXFP4 MoE
   1  or  F16     : 14.00G, +0.0020 ppl @ Mistral-7B
          COPY    : only copy tensors, no quantizing
"""


def test_the_table_of_types_is_read():
    """Numbers, aliases and the type without a number; nothing else of the help."""
    assert read_kinds(HELP.splitlines()) == {
        "q4_0": Kind("Q4_0", 2),
        "q4_k": Kind("Q4_K_M", 15),
        "q4_k_m": Kind("Q4_K_M", 15),
        "mxfp4_moe": Kind("MXFP4_MOE", 38),
        "f16": Kind("F16", 1),
        "copy": Kind("COPY", None),
    }


@given(st.lists(st.text()))
def test_any_text_is_read(lines):
    """Whatever a program prints, names are lower case and no line stops the reading."""
    assert all(name == name.lower() for name in read_kinds(lines))
