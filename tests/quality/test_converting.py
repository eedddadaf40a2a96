"""Safetensors: what is refused at a look, and a tiny LLaMA that llama.cpp's converter takes."""

import json
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.errors import BadModelError
from shoestring.models.facts import read_facts
from shoestring.models.fetch import ignore_progress
from shoestring.models.header import read_header
from shoestring.models.progress import ProgressBar
from shoestring.paths import cache_dir
from shoestring.quality.converting import (
    convert,
    converter_folder,
    install_converter,
    is_installed,
    read_checkpoint,
)
from shoestring.quality.making import Wish, make

MAKE_LLAMAS = """
import sys, torch, sentencepiece as spm
from transformers import LlamaConfig, LlamaForCausalLM
config = LlamaConfig(
    hidden_size=256, intermediate_size=512, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, vocab_size=300, max_position_embeddings=128)
words = ["the quick brown fox jumps over the lazy dog", "pack my box with five dozen jugs"] * 50
for dtype in ("float32", "bfloat16", "float16"):
    folder = f"{sys.argv[1]}/{dtype}"
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).to(getattr(torch, dtype))
    model.save_pretrained(folder, safe_serialization=True)
    spm.SentencePieceTrainer.train(
        sentence_iterator=iter(words), model_prefix=f"{folder}/tokenizer", vocab_size=300,
        model_type="bpe", byte_fallback=True, minloglevel=2, hard_vocab_limit=False)
"""


def write_tensors(path: Path, dtypes: dict[str, str], *, shape=(2, 2), cut: int = 0) -> None:
    """Write a safetensors file of so many tensors."""
    sizes = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "I8": 1}
    header, data = {"__metadata__": {"format": "pt"}}, 0
    for name, dtype in dtypes.items():
        end = data + sizes[dtype] * shape[0] * shape[-1]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [data, end]}
        data = end
    head = json.dumps(header).encode()
    whole = struct.pack("<Q", len(head)) + head + bytes(data)
    path.write_bytes(whole[: len(whole) - cut])


@pytest.fixture
def folder(tmp_path):
    """A folder that looks like a model in F16."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    write_tensors(folder / "model.safetensors", {"a": "F16"})
    return folder


@pytest.mark.parametrize(
    ("stored", "outtype"),
    [
        ({"a": "F16"}, "f16"),
        ({"a": "BF16"}, "bf16"),
        ({"a": "F16", "b": "F32"}, "f32"),
        ({"a": "F16", "b": "BF16"}, "f32"),
        ({"a": "BF16", "b": "I8"}, "bf16"),
    ],
)
def test_no_bit_is_lost(stored, outtype, folder):
    """The file between has the type that holds every weight exactly."""
    write_tensors(folder / "model.safetensors", stored)

    assert read_checkpoint(folder).outtype == outtype


def test_norms_do_not_decide(folder):
    """Vectors are kept in F32 whatever the matrices are, and make no file twice as large."""
    write_tensors(folder / "norms.safetensors", {"n": "F32"}, shape=(4,))

    checkpoint = read_checkpoint(folder)

    assert checkpoint.outtype == "f16"
    assert checkpoint.weights_bytes == sum(f.stat().st_size for f in folder.glob("*.safetensors"))


def test_a_folder_without_a_model_is_refused(tmp_path):
    """The line says which files make a model."""
    with pytest.raises(BadModelError, match=r"config.json and \*.safetensors are needed"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_a_model_with_code_of_its_own_is_refused(name, folder):
    """The converter would run Python out of the folder; it is not asked to."""
    (folder / name).write_text('{"auto_map": {"AutoTokenizer": ["evil.Tokenizer", null]}}')

    with pytest.raises(BadModelError, match=r"auto_map.*not run here"):
        read_checkpoint(folder)


def test_weights_that_no_file_can_hold_are_refused(folder):
    """Eight-bit integers are some other tool's quantisation."""
    write_tensors(folder / "model.safetensors", {"a": "I8"})

    with pytest.raises(BadModelError, match="as I8: give the model in F32, BF16 or F16"):
        read_checkpoint(folder)


def test_a_part_that_is_missing_is_named(folder):
    """A model in parts of which one was not fetched is found out before hours of work."""
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    with pytest.raises(BadModelError, match=r"lacks model-2.safetensors"):
        read_checkpoint(folder)


def test_a_cut_file_is_refused(folder):
    """The header says how long the file is."""
    write_tensors(folder / "model.safetensors", {"a": "F16"}, cut=1)

    with pytest.raises(BadModelError, match=r"model.safetensors is cut"):
        read_checkpoint(folder)


HEADERS = st.binary(max_size=64) | st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["dtype", "shape", "data_offsets", "a"]), inner, max_size=4
        )
    ),
).map(lambda value: (head := json.dumps(value).encode()) and struct.pack("<Q", len(head)) + head)


@given(HEADERS)
def test_any_bytes_are_a_model_or_a_mistake(tmp_path_factory, data):
    """A damaged or hostile header ends in one clear line."""
    folder = tmp_path_factory.mktemp("any")
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(data)

    with pytest.raises(BadModelError):
        read_checkpoint(folder)


@pytest.fixture(scope="session")
def llamas(tmp_path_factory):
    """A tiny LLaMA in three types, made in the converter's environment, which has what it takes."""
    if not is_installed(cache_dir()):
        pytest.skip(
            f"llama.cpp's converter is not in {converter_folder(cache_dir())}: it comes with "
            "`shoestring quantise FOLDER TYPE` (gigabytes, so no test brings it)"
        )
    python, _ = install_converter(cache_dir(), print)
    folder = tmp_path_factory.mktemp("llamas")
    subprocess.run([python, "-c", MAKE_LLAMAS, folder], check=True, capture_output=True)
    return folder


@pytest.mark.usefixtures("quantiser")
def test_a_real_checkpoint_becomes_a_real_quantisation(llamas, tmp_path):
    """Safetensors in, Q4_K_M out, by llama.cpp's own converter and quantiser; nothing is left."""
    folder, said = llamas / "bfloat16", []
    out = tmp_path / "made.gguf"

    made = make(Wish(str(folder), "q4_k_m", out), cache=cache_dir(), bar=ProgressBar,
                say=said.append)  # fmt: skip

    facts = read_facts(out)
    assert (made.source_kind, made.kind, facts.quantisation) == ("BF16", "Q4_K_M", "Q4_K_M")
    assert (facts.architecture, facts.layers, facts.embedding_length) == ("llama", 2, 256)
    assert (facts.heads, facts.kv_heads, facts.vocabulary_size) == (4, 2, 300)
    assert {"Q4_K", "Q6_K", "F32"} <= set(made.tensors)
    assert list(tmp_path.iterdir()) == [out]
    assert said == []


def test_a_conversion_keeps_every_bit(llamas, tmp_path):
    """F32 weights are the same numbers in the GGUF file."""
    folder, out = llamas / "float32", tmp_path / "made.gguf"

    convert(read_checkpoint(folder), out, cache=cache_dir(), say=print, progress=ignore_progress)

    stored = (folder / "model.safetensors").read_bytes()
    size = struct.unpack("<Q", stored[:8])[0]
    begin, end = json.loads(stored[8 : 8 + size])["model.embed_tokens.weight"]["data_offsets"]
    assert {t.type_name for t in read_header(out).tensors} == {"F32"}
    assert stored[8 + size + begin : 8 + size + end] in out.read_bytes()


@pytest.mark.usefixtures("quantiser")
def test_a_model_that_the_converter_does_not_know_is_one_line(llamas, tmp_path):
    """Its own last word is in the line, and nothing is left."""
    folder = shutil.copytree(llamas / "float16", tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["NoSuchModel"]}))

    with pytest.raises(BadModelError, match=r"convert_hf_to_gguf.py failed \('.*NoSuchModel"):
        make(Wish(str(folder), "q8_0", tmp_path / "made.gguf"), cache=cache_dir(),
             bar=ProgressBar, say=print)  # fmt: skip

    assert list(tmp_path.iterdir()) == [folder]
