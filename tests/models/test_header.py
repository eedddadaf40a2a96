import math
import struct
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.errors import BadModelError
from shoestring.models.facts import read_facts
from shoestring.models.header import KEPT_ELEMENTS, read_header

keys = st.text("abc.", min_size=1, max_size=8).map(lambda text: f"x.{text}")
values = st.one_of(
    st.integers(0, 2**32 - 1),
    st.booleans(),
    st.text(min_size=1, max_size=20),  # the writer leaves empty strings out
    st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=5),
    st.lists(st.text(max_size=5), min_size=1, max_size=5),
)
shapes = st.lists(st.integers(1, 6), min_size=1, max_size=4)


def write_gguf(path: Path, pairs: dict, tensors: list[np.ndarray], arch: str = "llama") -> Path:
    """Write a file with the gguf package's own writer."""
    writer = gguf.GGUFWriter(path, arch)
    for key, value in pairs.items():
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_array(key, value)
    for number, tensor in enumerate(tensors):
        writer.add_tensor(f"t{number}", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def small_gguf(path: Path) -> Path:
    """Write a file with every kind of field and two tensors."""
    pairs = {
        "llama.block_count": 2,
        "tokenizer.ggml.tokens": ["a", "b", "c"],
        "llama.attention.head_count": [4, 4],
        "general.name": "small",
    }
    return write_gguf(path, pairs, [np.ones((3, 32), np.float32), np.ones(5, np.float16)])


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(keys, values, max_size=6), st.lists(shapes, max_size=4))
def test_what_the_gguf_package_writes_is_read_back(pairs, tensor_shapes):
    """Values, array lengths, shapes and sizes are those that the writer was given."""
    tensors = [np.zeros(shape, np.float32) for shape in tensor_shapes]
    with TemporaryDirectory() as folder:
        header = read_header(write_gguf(Path(folder) / "m.gguf", pairs, tensors))
    for key, value in pairs.items():
        if not isinstance(value, list):
            assert header.values[key] == value
        else:
            assert header.lengths[key] == len(value)
            kept = None if isinstance(value[0], str) else tuple(value)
            assert header.values.get(key) == kept
    assert [t.shape for t in header.tensors] == [tuple(reversed(s)) for s in tensor_shapes]
    assert [t.data_bytes for t in header.tensors] == [4 * math.prod(s) for s in tensor_shapes]


def test_sizes_of_quantised_tensors_are_those_of_the_reader(tmp_path: Path):
    """Block types count whole blocks, as the gguf package's own reader does."""
    writer = gguf.GGUFWriter(tmp_path / "q.gguf", "llama")
    kind = gguf.GGMLQuantizationType.Q4_0
    data = gguf.quants.quantize(np.ones((4, 64), np.float32), kind)
    writer.add_tensor("q", data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (ours,) = read_header(tmp_path / "q.gguf").tensors
    (theirs,) = gguf.GGUFReader(tmp_path / "q.gguf").tensors
    assert (ours.type_name, ours.data_bytes) == ("Q4_0", int(theirs.n_bytes))
    assert ours.shape == (64, 4)


def test_a_file_cut_at_any_byte_is_called_cut(tmp_path: Path):
    """Every proper beginning of a file is refused; the end of the last tensor is enough."""
    path = small_gguf(tmp_path / "whole.gguf")
    data, end = path.read_bytes(), read_header(path).end_bytes
    cut = tmp_path / "cut.gguf"
    for size in [*range(4, end, 7), end - 1]:
        cut.write_bytes(data[:size])
        with pytest.raises(BadModelError, match="is cut"):
            read_header(cut)
    cut.write_bytes(data[:end])
    assert read_header(cut).end_bytes == end


def test_a_cut_file_names_both_sizes(tmp_path: Path):
    """The error of a file that lacks data says how long it should be and how long it is."""
    path = small_gguf(tmp_path / "cut.gguf")
    end = read_header(path).end_bytes
    path.write_bytes(path.read_bytes()[: end - 3])
    with pytest.raises(BadModelError, match=f"should have {end} bytes, has {end - 3}; fetch it"):
        read_header(path)


@pytest.mark.parametrize("parts", [0, 1, 2, 9])
def test_a_part_of_a_split_model_is_refused(tmp_path: Path, parts):
    """A file that counts itself among several parts is not whole; the error says how to merge."""
    path = write_gguf(tmp_path / "m.gguf", {"split.count": parts}, [np.ones(32, np.float32)])
    if parts < 2:
        assert read_header(path).values["split.count"] == parts
        return
    with pytest.raises(BadModelError, match=rf"m\.gguf is one of {parts} parts .*split --merge"):
        read_header(path)


@pytest.mark.parametrize("content", [b"", b"GGU", b"not a model at all, whatever it is called"])
def test_what_does_not_begin_with_gguf_is_no_gguf(tmp_path: Path, content):
    """Other files are refused by their first letters."""
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    with pytest.raises(BadModelError, match="is no GGUF"):
        read_header(path)


@pytest.mark.parametrize("version", [0, 1, 4, 3 << 24])
def test_other_versions_are_named(tmp_path: Path, version):
    """Old, future and big-endian files are refused with their version."""
    path = tmp_path / "v.gguf"
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", version, 0, 0))
    with pytest.raises(BadModelError, match=f"GGUF version {version};"):
        read_header(path)


@pytest.mark.parametrize(("tensors", "pairs"), [(2**60, 0), (0, 2**60), (2**21, 2**21)])
def test_an_absurd_count_is_refused_at_once(tmp_path: Path, tensors, pairs):
    """Counts that no model has are refused before anything is read or made."""
    path = tmp_path / "huge.gguf"
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, tensors, pairs) + bytes(100))
    with pytest.raises(BadModelError, match="damaged GGUF: it counts"):
        read_header(path)


@pytest.mark.parametrize("name", ["", "missing.gguf"])
def test_what_cannot_be_opened_says_why(tmp_path: Path, name):
    """A folder or an absent file gives the reason of the system."""
    with pytest.raises(BadModelError, match="cannot read the model file"):
        read_header(tmp_path / name)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_no_changed_byte_breaks_the_reader(data):
    """A file with changed bytes is read or refused; nothing else is raised, nothing hangs."""
    with TemporaryDirectory() as folder:
        path = small_gguf(Path(folder) / "m.gguf")
        content = bytearray(path.read_bytes())
        places = st.integers(8, len(content) - 1)
        for place in data.draw(st.lists(places, min_size=1, max_size=8)):
            content[place] = data.draw(st.integers(0, 255))
        path.write_bytes(content)
        with suppress(BadModelError):
            read_facts(path)


def test_long_arrays_keep_their_length_only(tmp_path: Path):
    """A long array of numbers is stepped over, and what follows is still read."""
    pairs = {"a.long": list(range(KEPT_ELEMENTS + 1)), "a.after": 7}
    header = read_header(write_gguf(tmp_path / "m.gguf", pairs, []))
    assert header.lengths["a.long"] == KEPT_ELEMENTS + 1
    assert "a.long" not in header.values
    assert header.values["a.after"] == 7


def test_facts_come_from_the_header(tmp_path: Path):
    """Facts are what the file says; layers that agree are one number; absent is None."""
    facts = read_facts(small_gguf(tmp_path / "m.gguf"))
    assert (facts.architecture, facts.name, facts.layers) == ("llama", "small", 2)
    assert (facts.heads, facts.kv_heads) == (4, 4)
    assert facts.vocabulary_size == 3
    assert facts.parameters == 3 * 32 + 5
    assert facts.tensor_bytes_by_type == {"F32": 384, "F16": 10}
    assert facts.tensor_bytes == 394
    assert facts.file_bytes == (tmp_path / "m.gguf").stat().st_size
    assert facts.quantisation is None
    assert facts.context_length is None
    assert facts.chat_template is False


def test_layers_that_differ_keep_their_own_heads(tmp_path: Path):
    """Where layers have unlike numbers of heads, each is given."""
    pairs = {"llama.attention.head_count": 8, "llama.attention.head_count_kv": [1, 2]}
    facts = read_facts(write_gguf(tmp_path / "m.gguf", pairs, []))
    assert (facts.heads, facts.kv_heads) == (8, (1, 2))


@pytest.mark.parametrize(
    ("file_type", "name"), [(0, "F32"), (15, "Q4_K_M"), (15 + 1024, "Q4_K_M"), (999, None)]
)
def test_the_quantisation_is_named_as_people_name_it(tmp_path: Path, file_type, name):
    """File types lose llama.cpp's prefixes and its guessed flag; unknown ones are None."""
    path = write_gguf(tmp_path / "m.gguf", {"general.file_type": file_type}, [])
    assert read_facts(path).quantisation == name


def test_head_width_is_given_or_derived(tmp_path: Path):
    """The key length wins; else the embedding is divided among the heads."""
    pairs = {"llama.embedding_length": 64, "llama.attention.head_count": 4}
    assert read_facts(write_gguf(tmp_path / "a.gguf", pairs, [])).head_dim == 16
    pairs["llama.attention.key_length"] = 32
    assert read_facts(write_gguf(tmp_path / "b.gguf", pairs, [])).head_dim == 32


def test_a_chat_template_is_noticed(tmp_path: Path):
    """A file with a chat template says so."""
    path = write_gguf(tmp_path / "m.gguf", {"tokenizer.chat_template": "{{ x }}"}, [])
    assert read_facts(path).chat_template is True
