"""Real llama-quantize on a small shape: what it makes, and what is refused before it works."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from shoestring.digests import file_sha256
from shoestring.errors import BadModelError, BadValueError, MissingError, ShoestringError
from shoestring.models.header import read_header
from shoestring.models.shapes import SHAPES
from shoestring.models.synthesis import lay_out
from shoestring.models.vocabulary import SMALLEST
from shoestring.quality.quantise import quantise
from shoestring.testing.faults import NotAllowedError, small_disk

PLENTY = 1 << 40


def plenty(_folder: Path) -> int:
    """Say that the disk is endless."""
    return PLENTY


@pytest.fixture
def call(quantiser):
    """Quantise with the real tool, on two threads, where the disk is endless."""

    def run(source, kind, out, **settings):
        return quantise(
            source, quantiser.kind(kind), out,
            **{"program": quantiser.program, "threads": 2, "free_bytes": plenty} | settings,
        )  # fmt: skip

    return run


@pytest.mark.parametrize("kind", ["q8_0", "Q4_K_M", "q5_k_s", "q2_k", "bf16", "f32"])
def test_each_tensor_has_the_type_that_the_planner_says(kind, call, tiny, tiny_f16, tmp_path):
    """The real file has the types, the size and the figures that were said of it beforehand."""
    made = call(tiny_f16, kind, tmp_path / "made.gguf")

    header = read_header(made.path)
    if kind == "bf16":  # no type of the shapes'
        expected = {t.name: "F32" if len(t.shape) == 1 else "BF16" for t in header.tensors}
    else:
        expected = {t.name: t.type_name for t in lay_out(tiny, kind.lower()).header.tensors}
    assert {t.name: t.type_name for t in header.tensors} == expected
    assert made.kind == kind.upper()
    assert (made.source_kind, made.source_bytes) == ("F16", tiny_f16.stat().st_size)
    assert made.file_bytes == made.path.stat().st_size
    assert made.sha256 == file_sha256(made.path)
    assert made.bits_per_weight == 8 * sum(t.data_bytes for t in header.tensors) / made.parameters
    assert made.source_bits_per_weight == pytest.approx(16, abs=0.1)  # norms are F32
    assert sum(made.tensors.values()) == len(header.tensors)
    assert sum(made.tensor_bytes.values()) == sum(t.data_bytes for t in header.tensors)


def test_columns_that_do_not_fill_a_block_fall_back(call, write, tmp_path):
    """The note's model, 640 wide, gets Q5_0 where Q4_K does not go, as its shape says."""
    shape = replace(SHAPES["tipo-100m"], layers=2, vocabulary=SMALLEST)
    made = call(write(shape, "f16", tmp_path / "f16.gguf"), "q4_k_m", tmp_path / "made.gguf")

    ours = lay_out(shape, "q4_k_m").header.tensors
    theirs = read_header(made.path).tensors
    assert {t.name: t.type_name for t in theirs} == {t.name: t.type_name for t in ours}
    assert "Q5_0" in made.tensors


def test_progress_ends_at_all_bytes(call, tiny_f16, tmp_path):
    """Each finished tensor is told, and the last one makes the whole."""
    seen = []

    call(tiny_f16, "q8_0", tmp_path / "made.gguf", progress=lambda *both: seen.append(both))

    total = sum(t.data_bytes for t in read_header(tiny_f16).tensors)
    assert seen[-1] == (total, total)
    assert seen == sorted(seen)
    assert len(seen) == len(read_header(tiny_f16).tensors)


def test_a_quantised_source_is_refused_by_name(call, tiny, write, tmp_path):
    """Nothing is quantised twice unawares; the line says what to give, and what it would cost."""
    source = write(tiny, "q4_k_m", tmp_path / "source.gguf")

    with pytest.raises(BadModelError, match=r"quantised already \(Q4_K, Q6_K\).*--allow-requant"):
        call(source, "q8_0", tmp_path / "made.gguf")

    assert sorted(tmp_path.iterdir()) == [source]


def test_a_quantised_source_is_taken_when_asked_for(call, tiny, write, tmp_path):
    """The flag goes through to llama-quantize, which then takes it."""
    source = write(tiny, "q8_0", tmp_path / "source.gguf")

    made = call(source, "q4_0", tmp_path / "made.gguf", requantise=True)

    assert (made.source_kind, made.kind) == ("Q8_0", "Q4_0")


def test_a_copy_keeps_the_types(call, tiny, write, tmp_path):
    """COPY changes nothing, so that it also takes what is quantised."""
    source = write(tiny, "q8_0", tmp_path / "source.gguf")

    made = call(source, "copy", tmp_path / "made.gguf")

    assert made.kind == made.source_kind == "Q8_0"
    assert made.bits_per_weight == made.source_bits_per_weight


def test_a_type_that_needs_an_importance_matrix_is_refused(call, tiny_f16, tmp_path):
    """It is found by the dry run, before any work."""
    with pytest.raises(BadValueError, match="IQ1_S needs an importance matrix"):
        call(tiny_f16, "iq1_s", tmp_path / "made.gguf")


@pytest.mark.parametrize("name", ["q4_k_n", "8bit", "", "--help"])
def test_an_unknown_type_lists_the_known_ones(name, quantiser):
    """The line names what was given and all that can be."""
    with pytest.raises(BadValueError, match=r"is unknown: .*q4_k_m.*q8_0.*bf16"):
        quantiser.kind(name)


def test_a_near_type_is_proposed(quantiser):
    """A slip of a finger costs one look."""
    with pytest.raises(BadValueError, match=r"did you mean q4_k_m\? "):
        quantiser.kind("q4km")


def test_an_alias_is_what_it_stands_for(quantiser):
    """Q4_K is Q4_K_M, in capitals or not."""
    assert quantiser.kind("q4_k") == quantiser.kind("Q4_K_M")


def test_too_little_space_is_found_before_any_work(call, tiny, tiny_f16, tmp_path):
    """The size is known to a few per cent beforehand; both sizes are told."""
    whole_bytes = lay_out(tiny, "q8_0").header.file_bytes

    with pytest.raises(MissingError, match=r"not enough space .* MB needed, .* MB free; .*--out"):
        call(tiny_f16, "q8_0", tmp_path / "made.gguf", free_bytes=lambda _folder: whole_bytes - 1)
    made = call(
        tiny_f16, "q8_0", tmp_path / "made.gguf", free_bytes=lambda _f: whole_bytes + (2 << 20)
    )

    assert made.file_bytes == pytest.approx(whole_bytes, rel=0.01)


def test_a_disk_that_fills_up_meanwhile_keeps_nothing(call, tiny_f16, tmp_path):
    """The space that was there is gone when it is needed: one line, and no half file."""
    try:
        with small_disk(tmp_path / "disk", size="1m") as folder:
            real = partial(_free_after_the_first_look, iter([PLENTY]))
            with pytest.raises(MissingError, match=r"the disk of .* is full.*nothing was kept"):
                call(tiny_f16, "q8_0", folder / "made.gguf", free_bytes=real)
            assert list(folder.iterdir()) == []
    except NotAllowedError as error:
        pytest.skip(str(error))


def _free_after_the_first_look(first, folder):
    import shutil

    return next(first, shutil.disk_usage(folder).free)


def test_a_file_that_is_there_stays_whole_until_the_new_one_is(call, tiny_f16, tmp_path):
    """What fails leaves the old file; what succeeds replaces it."""
    out = tmp_path / "made.gguf"
    out.write_bytes(b"old")

    with pytest.raises(ShoestringError):
        call(tmp_path / "absent.gguf", "q8_0", out)
    assert out.read_bytes() == b"old"
    made = call(tiny_f16, "q8_0", out)

    assert read_header(out).file_bytes == made.file_bytes
    assert list(tmp_path.iterdir()) == [out]


def test_a_cut_file_is_refused(call, tiny_f16, tmp_path):
    """A download that stopped is told as such."""
    source = tmp_path / "cut.gguf"
    source.write_bytes(tiny_f16.read_bytes()[:-100])

    with pytest.raises(BadModelError, match="is cut"):
        call(source, "q8_0", tmp_path / "made.gguf")


def test_what_llama_cpp_does_not_read_is_one_line(call, tiny_f16, tmp_path):
    """A file that is whole and of an unknown architecture ends with the tool's own reason."""
    source = tmp_path / "strange.gguf"
    source.write_bytes(tiny_f16.read_bytes().replace(b"llama", b"lzama"))

    with pytest.raises(BadModelError, match=r"llama-quantize failed: .*lzama.*nothing was kept"):
        call(source, "q8_0", tmp_path / "made.gguf")

    assert list(tmp_path.iterdir()) == [source]


def test_what_is_not_as_asked_for_is_not_kept(call, quantiser, tiny_f16, tmp_path):
    """A tool that makes another type than it was told to is found out by the header."""
    lying = tmp_path / "llama-quantize"
    lying.write_text(
        f'#!/bin/sh\n[ "$1" = --dry-run ] && exec {quantiser.program} "$@"\n'
        f'exec {quantiser.program} "$1" "$2" Q4_0 "$4"\n'
    )
    lying.chmod(0o755)

    with pytest.raises(ShoestringError, match=r"did not make Q8_0: its general.file_type is 2, no"):
        call(tiny_f16, "q8_0", tmp_path / "made.gguf", program=lying)

    assert list(tmp_path.iterdir()) == [lying]


def test_a_tool_that_is_killed_is_told_by_its_signal(call, quantiser, tiny_f16, tmp_path):
    """When memory runs out the kernel kills it; the line says so."""
    dying = tmp_path / "llama-quantize"
    dying.write_text(
        f'#!/bin/sh\n[ "$1" = --dry-run ] && exec {quantiser.program} "$@"\nkill -9 $$\n'
    )
    dying.chmod(0o755)

    with pytest.raises(ShoestringError, match=r"signal 9 \(Killed\): if memory ran out"):
        call(tiny_f16, "q8_0", tmp_path / "made.gguf", program=dying)
