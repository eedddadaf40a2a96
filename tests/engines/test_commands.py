"""What a plan decides becomes launch lines, and real engines start by them and answer."""

import json
import os
import re
import shlex
import subprocess
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import requests
import xllamacpp
from hypothesis import given
from hypothesis import strategies as st

from shoestring.engines import embedded_server
from shoestring.engines.embedded import EmbeddedEngine
from shoestring.engines.koboldcpp import KoboldCppEngine
from shoestring.engines.launch import Launched, free_port
from shoestring.engines.launch_lines import LaunchModel, launch_lines
from shoestring.engines.llama_server import LlamaServerEngine
from shoestring.engines.offload import Offload
from shoestring.engines.ollama_api import OllamaApi
from shoestring.engines.ollama_modelfile import PLANNED_NAME, modelfile, server_variables
from shoestring.engines.opening import Subject, find_subject, make_engine
from shoestring.engines.protocol import Prompt
from shoestring.errors import BadValueError, MissingError
from shoestring.models.fetch import ModelFile
from shoestring.models.shapes import SHAPES
from shoestring.models.synthesis import lay_out, write_model
from shoestring.testing.engines import need_program

MODEL = LaunchModel("m.gguf", 8192, 2)
LLAMA = "llama-server --model m.gguf --host 127.0.0.1 --port 8080 -c 16384 --parallel 2"
KOBOLD = "koboldcpp --model m.gguf --host 127.0.0.1 --port 5001 --contextsize 8192 --multiuser 2"
TWO_CARDS = Offload(
    gpu_layers=33, tensor_split=(20, 13), experts_in_ram=10, cache_type_k="q8_0",
    cache_type_v="q8_0", flash_attention=True, devices=("CUDA1", "CUDA0"), threads=8, batch=2048,
    ubatch=512, fit=False, backend="cuda",
)  # fmt: skip
THIRD_NOTE = Offload(tensor_split=(1.5, 4.5, 3), rpc=("10.0.0.2:50052", "[::1]:50053"))
REAL = Offload(
    gpu_layers=9, tensor_split=(6, 3), experts_in_ram=2, cache_type_k="q8_0", cache_type_v="q4_0",
    flash_attention=True, threads=1, batch=256, ubatch=128, fit=False,
)  # fmt: skip
TINY_MOE = replace(
    SHAPES["mixtral-8x7b"], layers=3, width=256, feed_forward=512, heads=4, kv_heads=2, head_dim=64,
    vocabulary=2000, context=512,
)  # fmt: skip
OUTPUT_HERE = Offload(gpu_layers=33, output_in_ram=True)
TOO_MANY = Offload(tensor_split=(1,) * 16)
QUESTION = "The capital of France is"
NAME = 'it\'s a "small" $model.gguf'


@pytest.mark.parametrize(
    ("offload", "llama", "kobold"),
    [
        (Offload(), "", ""),
        (Offload(gpu_layers=0), " -ngl 0", " --usecpu --gpulayers 0"),
        (Offload(devices=("none",), gpu_layers=0), " --device none -ngl 0",
         " --usecpu --gpulayers 0"),
        (Offload(devices=("Vulkan0",), gpu_layers=9), " --device Vulkan0 -ngl 9",
         " --usevulkan --device Vulkan0 --gpulayers 9"),
        (Offload(backend="vulkan", gpu_layers=9), " -ngl 9", " --usevulkan --gpulayers 9"),
        (Offload(backend="metal", gpu_layers=9), " -ngl 9", " --gpulayers 9"),
        (Offload(backend="cuda"), "", " --usecuda"),
        (Offload(backend="vulkan", gpu_layers=0), " -ngl 0", " --usecpu --gpulayers 0"),
        (Offload(prompt_cache_bytes=1 << 30), " --cache-ram 1024", ""),
        (Offload(flash_attention=False), " -fa off", " --noflashattention"),
        (
            TWO_CARDS,
            (" --threads 8 -b 2048 -ub 512 --device CUDA1,CUDA0 -ngl 33 --tensor-split 20,13"
            " --n-cpu-moe 10 -fa on --cache-type-k q8_0 --cache-type-v q8_0 --fit off"),
            (" --threads 8 --blasbatchsize 512 --usecuda --device CUDA1,CUDA0 --gpulayers 33"
            " --tensor_split 20 13 --moecpu 10 --flashattention --quantkv 1"),
        ),
        (
            Offload(cache_type_k="q4_0", cache_type_v="q4_0"),
            " --cache-type-k q4_0 --cache-type-v q4_0",
            " --quantkv 2",
        ),
    ],
)  # fmt: skip
def test_lines_of_llama_server_and_koboldcpp(offload, llama, kobold):
    """Every decision is a flag; what was left open has none."""
    lines = launch_lines(MODEL, offload)
    assert lines["llama-server"] == LLAMA + llama
    assert lines["koboldcpp"] == KOBOLD + kobold


def test_remote_servers_are_named_before_the_devices_that_they_have():
    """llama.cpp looks up --device among what it knows by then."""
    offload = Offload(rpc=THIRD_NOTE.rpc, devices=("RPC1", "CUDA0"), tensor_split=(4.5, 3))
    assert launch_lines(MODEL, offload)["llama-server"] == (
        f"{LLAMA} --rpc '10.0.0.2:50052,[::1]:50053' --device RPC1,CUDA0 --tensor-split 4.5,3"
    )


def test_an_output_in_ram_is_named_by_its_tensor():
    """With its bias; of a model whose output is its embedding, that is the embedding's."""
    words = shlex.split(launch_lines(MODEL, OUTPUT_HERE)["llama-server"])
    pattern = words[words.index("--override-tensor") + 1].removesuffix("=CPU")
    kept = [name for name in ("output.weight", "output.bias", "token_embd.weight",
                              "output_norm.weight", "blk.0.attn_output.weight")
            if re.search(pattern, name)]  # fmt: skip
    assert kept == ["output.weight", "output.bias", "token_embd.weight"]


def test_lines_of_ollama():
    """A Modelfile, the variables of the server, and what Ollama itself cannot be told."""
    assert launch_lines(MODEL, TWO_CARDS)["ollama"].splitlines() == [
        "cat > Modelfile <<'EOF'",
        "FROM m.gguf",
        "PARAMETER num_ctx 8192",
        "PARAMETER num_gpu 33",
        "PARAMETER num_batch 512",
        "PARAMETER num_thread 8",
        "EOF",
        "# Stop an Ollama that runs already: variables are read when its server starts.",
        (
            "# Ollama itself cannot be told LLAMA_ARG_DEVICE, LLAMA_ARG_TENSOR_SPLIT, "
            "LLAMA_ARG_N_CPU_MOE: its runner reads them, where that is llama-server (as in Ollama "
            "0.32); an older one ignores them."
        ),
        (
            "OLLAMA_CONTEXT_LENGTH=8192 OLLAMA_NUM_PARALLEL=2 OLLAMA_FLASH_ATTENTION=1 "
            "OLLAMA_KV_CACHE_TYPE=q8_0 OLLAMA_SCHED_SPREAD=1 LLAMA_ARG_FIT=off "
            "LLAMA_ARG_DEVICE=CUDA1,CUDA0 LLAMA_ARG_TENSOR_SPLIT=20,13 LLAMA_ARG_N_CPU_MOE=10 "
            "ollama serve & pid=$!"
        ),
        "while kill -0 $pid 2>/dev/null && ! ollama list >/dev/null 2>&1; do sleep 1; done",
        "ollama create shoestring-plan -f Modelfile",
        "ollama run shoestring-plan",
    ]


@pytest.mark.parametrize(
    ("offload", "variables"),
    [
        (Offload(), {}),
        (Offload(tensor_split=(33,)), {"LLAMA_ARG_TENSOR_SPLIT": "33"}),
        (Offload(flash_attention=False), {"OLLAMA_FLASH_ATTENTION": "0"}),
        (Offload(prompt_cache_bytes=0, backend="cuda"), {"LLAMA_ARG_CACHE_RAM": "0"}),
        (Offload(cache_type_k="q8_0"),
         {"LLAMA_ARG_CACHE_TYPE_K": "q8_0", "LLAMA_ARG_CACHE_TYPE_V": "f16"}),
        (Offload(cache_type_k="q4_0", cache_type_v="q4_0"),
         {"OLLAMA_KV_CACHE_TYPE": "q4_0", "OLLAMA_FLASH_ATTENTION": "1"}),
    ],
)  # fmt: skip
def test_variables_of_ollama(offload, variables):
    """Only what was decided is set; quantised values bring flash attention along."""
    always = {"OLLAMA_CONTEXT_LENGTH": "512", "OLLAMA_NUM_PARALLEL": "1"}
    assert server_variables(512, 1, offload) == always | variables


def test_a_model_of_ollamas_library_has_no_file_for_the_others():
    """They get a placeholder; the Modelfile begins with the model's name."""
    lines = launch_lines(LaunchModel("ollama:qwen2.5:7b", 512), Offload())
    assert "FROM qwen2.5:7b\n" in lines["ollama"]
    assert shlex.split(lines["llama-server"])[:3] == ["llama-server", "--model", "MODEL.gguf"]
    assert shlex.split(lines["koboldcpp"])[:3] == ["koboldcpp", "--model", "MODEL.gguf"]


def test_open_webui_is_pointed_at_both_servers_and_takes_no_port_of_theirs():
    """Two variables; its own port would be llama-server's."""
    lines = launch_lines(MODEL, Offload())
    assert lines["open-webui"] == (
        "OLLAMA_BASE_URL=http://127.0.0.1:11434 OPENAI_API_BASE_URL=http://127.0.0.1:8080/v1 "
        "open-webui serve --host 127.0.0.1 --port 3000"
    )
    assert "--port 8080" in lines["llama-server"]


@pytest.mark.parametrize(
    ("engine", "offload", "said"),
    [
        ("ollama", THIRD_NOTE, "# ollama has no RPC: leave rpc out, or use llama-server"),
        ("koboldcpp", THIRD_NOTE, "# koboldcpp has no RPC: leave rpc out, or use llama-server"),
        ("ollama", OUTPUT_HERE, "# ollama takes no output_in_ram: use llama-server"),
        ("koboldcpp", OUTPUT_HERE, "# koboldcpp takes no output_in_ram here: use llama-server"),
        ("koboldcpp", REAL, ("# koboldcpp has no KV cache of q8_0 and q4_0: give one of f16, "
         "q8_0, q4_0, q5_1, bf16 for both")),
        ("koboldcpp", Offload(cache_type_k="q4_1", cache_type_v="q4_1"),
         ("# koboldcpp has no KV cache of q4_1 and q4_1: give one of f16, q8_0, q4_0, q5_1, bf16 "
         "for both")),
        ("koboldcpp", Offload(ubatch=500), ("# koboldcpp has no ubatch 500: give one of 16, 32, "
         "64, 128, 256, 512, 1024, 2048, 4096")),
    ],
)  # fmt: skip
def test_an_engine_that_cannot_be_told_says_what(engine, offload, said):
    """One line of comment instead of a command that would do something else."""
    lines = launch_lines(MODEL, offload)
    assert lines[engine] == said
    assert lines["llama-server"].startswith(LLAMA)


def test_a_split_over_more_devices_than_llama_cpp_takes_costs_no_plan():
    """Each engine's line says so; 15 are taken."""
    made = launch_lines(MODEL, Offload(tensor_split=(1,) * 15))
    assert made["llama-server"] == f"{LLAMA} --tensor-split {','.join('1' * 15)}"
    made = launch_lines(MODEL, TOO_MANY)
    for engine in ("llama-server", "ollama", "koboldcpp"):
        assert made[engine] == (
            "# tensor_split over 16 devices: llama.cpp takes 15 at most; give fewer devices"
        )


def test_koboldcpp_has_no_context_below_its_least():
    """A run rounds up and records it; a plan is told."""
    line = launch_lines(LaunchModel("m.gguf", 128), Offload())["koboldcpp"]
    assert line == "# koboldcpp has no context of 128: give 256"


def test_runs_start_engines_with_the_words_that_are_printed():
    """What follows them is ours alone: a name for the model, no page, no network."""
    path, settings = Path("m.gguf"), {"context": 8192, "parallel": 2, "offload": TWO_CARDS}
    lines = launch_lines(MODEL, TWO_CARDS)
    for engine, port, ours in (
        (LlamaServerEngine(path, "m", **settings), 8080,
         ["--alias", "m", "--no-webui", "--offline"]),
        (KoboldCppEngine("m", path=path, **settings), 5001, ["--skiplauncher", "--quiet"]),
    ):  # fmt: skip
        assert engine.command(Path(engine.name), port) == shlex.split(lines[engine.name]) + ours


def test_what_was_decided_stands_in_the_record():
    """As JSON reads it back, and nothing of what was left open."""
    engine = LlamaServerEngine(Path("m.gguf"), "m", offload=REAL)
    assert json.loads(json.dumps(engine.options)) == engine.options
    assert engine.options == {
        "context": 2048, "parallel": 1, "threads": 1, "gpu_layers": 9, "tensor_split": [6, 3],
        "experts_in_ram": 2, "cache_type_k": "q8_0", "cache_type_v": "q4_0",
        "flash_attention": True, "batch": 256, "ubatch": 128, "fit": False, "endpoint": "chat",
    }  # fmt: skip
    plain = LlamaServerEngine(Path("m.gguf"), "m").options
    assert set(plain) == {"context", "parallel", "threads", "gpu_layers", "endpoint"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gpu_layers": -1}, "gpu_layers -1: give 0 or more"),
        ({"experts_in_ram": -2}, "experts_in_ram -2: give 0 or more"),
        ({"threads": 0}, "threads 0: give 1 or more"),
        ({"batch": 0}, "batch 0: give 1 or more"),
        ({"batch": 64, "ubatch": 65}, "ubatch 65 is more than batch 64: give less"),
        ({"cache_type_k": "q9"}, "cache_type_k 'q9': give one of f32, f16"),
        ({"cache_type_v": "Q8_0"}, "cache_type_v 'Q8_0': give one of f32, f16"),
        ({"cache_type_v": "q4_0", "flash_attention": False}, "q4_0 needs flash attention"),
        ({"tensor_split": ()}, "tensor_split '': give layers of each GPU"),
        ({"tensor_split": (0, 0)}, "tensor_split '0,0': give layers of each GPU"),
        ({"tensor_split": (-1, 3)}, "tensor_split '-1,3': give layers of each GPU"),
        ({"tensor_split": (float("nan"), 1)}, "tensor_split 'nan,1': give layers"),
        ({"backend": "rocm"}, "backend 'rocm': give one of cuda, vulkan, metal"),
        ({"tensor_split": (1, 2), "devices": ("CUDA0",)}, "for 2 devices and 1 are named"),
        ({"devices": ("CUDA0,CUDA1",)}, "device 'CUDA0,CUDA1': give it as CUDA0"),
        ({"devices": ("--rpc",)}, "device '--rpc': give it as CUDA0"),
        ({"rpc": ("10.0.0.2",)}, "rpc '10.0.0.2': give it as 127.0.0.1:50052"),
        ({"rpc": ("a:1,b:2",)}, "rpc 'a:1,b:2': give it as 127.0.0.1:50052"),
    ],
)
def test_bad_values_are_refused_in_one_line(values, message):
    """The line names the thing, the value and the mend."""
    with pytest.raises(BadValueError, match=re.escape(message)) as told:
        Offload(**values)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("", 512), "model '' cannot stand in a command"),
        (("a\nPARAMETER num_gpu 99", 512), "model 'a\\nPARAMETER num_gpu 99' cannot stand in"),
        (("m.gguf", 0), "context 0: give 1 or more"),
        (("m.gguf", 512, 0), "parallel 0: give 1 or more"),
    ],
)
def test_bad_models_are_refused_in_one_line(given, message):
    """A name of two lines would be two instructions of a Modelfile."""
    with pytest.raises(BadValueError, match=re.escape(message)) as told:
        LaunchModel(*given)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("engine", ["ollama", "koboldcpp", "openai"])
def test_a_server_that_runs_already_refuses_an_offload(engine):
    """A run would claim what nobody was told."""
    subject = Subject("m", engine, "http://127.0.0.1:5001")
    with pytest.raises(BadValueError, match=r"the server at \S+5001 runs already"):
        make_engine(subject, offload=Offload(gpu_layers=1))


@pytest.mark.parametrize(
    ("offload", "said"),
    [
        (Offload(devices=("CUDA0",)), "embedded takes no device, rpc or output_in_ram"),
        (Offload(output_in_ram=True), "embedded takes no device, rpc or output_in_ram"),
        (Offload(rpc=("a:1",)), "embedded takes no device, rpc or output_in_ram"),
        (TOO_MANY, "tensor_split over 16 devices"),
    ],
)
def test_the_embedded_engine_refuses_what_it_cannot_be_told(offload, said):
    """Its library takes neither names of devices nor more of them than llama.cpp does."""
    with pytest.raises(BadValueError, match=said):
        EmbeddedEngine(Path("m.gguf"), "m", offload=offload)


def test_the_embedded_engine_sets_what_was_decided():
    """The library's own parameters hold it; those that were left open stay as they were."""
    config = {"model_path": "m.gguf", "alias": "m", "api_key": "k", "context": 512, "parallel": 2}
    made, plain = (
        embedded_server._parameters(xllamacpp, {**config, "offload": asdict(offload)})
        for offload in (replace(REAL, prompt_cache_bytes=3 << 20), Offload(threads=1))
    )
    types, attention = xllamacpp.ggml_type, xllamacpp.llama_flash_attn_type
    assert (made.n_ctx, made.n_gpu_layers, made.n_batch, made.n_ubatch) == (1024, 9, 256, 128)
    assert (made.cache_type_k, made.cache_type_v) == (types.GGML_TYPE_Q8_0, types.GGML_TYPE_Q4_0)
    assert made.flash_attn_type == attention.LLAMA_FLASH_ATTN_TYPE_ENABLED
    assert list(made.tensor_split[:3]) == [6, 3, 0]
    assert not made.fit_params
    assert made.cache_ram_mib == 3
    assert plain.cache_type_k == plain.cache_type_v == types.GGML_TYPE_F16
    assert plain.flash_attn_type == attention.LLAMA_FLASH_ATTN_TYPE_AUTO
    assert (plain.n_gpu_layers, plain.n_batch, plain.n_ubatch) == (-1, 2048, 512)
    assert plain.fit_params
    assert plain.cache_ram_mib == xllamacpp.CommonParams().cache_ram_mib


def test_the_lines_of_ollama_end_where_its_server_dies(tmp_path):
    """They wait for an answer only while there is somebody to give it."""
    program = tmp_path / "ollama"
    program.write_text('#!/bin/sh\necho "$1" >> calls\nexit 1\n')
    program.chmod(0o755)
    text = launch_lines(MODEL, Offload())["ollama"]
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["bash", "-c", text], cwd=tmp_path, env={"PATH": path}, timeout=120, check=False)
    calls = (tmp_path / "calls").read_text().split()
    assert calls[-2:] == ["create", "run"]
    assert "serve" in calls


names = st.text(min_size=1).filter(str.isprintable)


@given(names)
def test_any_path_is_one_word_of_a_line(path):
    """Whatever stands in it, the shell gives it to the program unchanged."""
    lines = launch_lines(LaunchModel("./" + path, 512), Offload())
    assert shlex.split(lines["llama-server"])[2] == "./" + path
    assert shlex.split(lines["koboldcpp"])[2] == "./" + path


@given(names)
def test_any_path_is_read_back_from_a_modelfile(path):
    """Ollama takes blanks off at both ends, then quotes (``parser.go``)."""
    line = modelfile(path, 512, Offload()).splitlines()[0].removeprefix("FROM ").strip()
    read = line[1:-1] if len(line) > 1 and line[0] == line[-1] == '"' else line
    assert read == path


@pytest.fixture(scope="module")
def awkward(small_model, tmp_path_factory):
    """The small real model under a name with blanks and quotes."""
    path = tmp_path_factory.mktemp("with blanks") / NAME
    path.symlink_to(small_model.path)
    return path


@contextmanager
def pasted(text, folder, ready, **environment):
    """Paste a text into a shell that stays until what it started has ended; yield its log."""
    log = folder / "shell.log"
    words = ["bash", "-c", f"cd {shlex.quote(str(folder))}\ntrap : TERM\n{text}\nwait\nwait"]
    shell = Launched("bash", words, environment=environment, log_path=log)
    try:
        shell.wait_until(ready, 120.0)
        yield log
    finally:
        shell.stop()


def path_with(program):
    """Return a PATH on which a program is found first."""
    return f"{need_program(program).parent}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.engine
def test_the_line_of_llama_server_is_pasted_and_answers(awkward, tmp_path):
    """With a KV cache of two types and a split that a machine without GPUs passes over."""
    port = free_port()
    line = launch_lines(LaunchModel(str(awkward), 512), REAL)["llama-server"]
    url = f"http://127.0.0.1:{port}"

    def ready():
        try:
            return requests.get(f"{url}/health", timeout=2).ok
        except requests.ConnectionError:
            return False

    line = line.replace("--port 8080", f"--port {port}") + " --verbosity 4"
    with pasted(line, tmp_path, ready, PATH=path_with("llama-server")) as log:
        asked = {"prompt": QUESTION, "n_predict": 8, "temperature": 0}
        said = requests.post(f"{url}/completion", json=asked, timeout=60).json()
        assert said["tokens_predicted"] == 8
        assert said["content"].strip()
        told = log.read_text()
    assert re.search(r"K \(q8_0\).*V \(q4_0\)", told)
    assert re.search(r"n_ubatch +[=:] 128", told)


@pytest.mark.engine
def test_the_lines_of_ollama_are_pasted_and_answer(awkward, tmp_path):
    """All but the last, which would chat; what Ollama cannot be told reaches its runner."""
    url = f"http://127.0.0.1:{free_port()}"
    text, _, chat = launch_lines(LaunchModel(str(awkward), 512), REAL)["ollama"].rpartition("\n")
    assert chat == "ollama run shoestring-plan"

    def ready():
        with OllamaApi(url) as api:
            try:
                return api.listed(PLANNED_NAME) is not None
            except MissingError:
                return False

    environment = {
        "PATH": path_with("ollama"), "HOME": str(tmp_path), "OLLAMA_HOST": url,
        "OLLAMA_MODELS": str(tmp_path / "models"),
    }  # fmt: skip
    with pasted(text, tmp_path, ready, **environment) as log:
        with OllamaApi(url) as api:
            assert api.count_generated(PLANNED_NAME, QUESTION, 8) == 8
        told = log.read_text()
    started = re.search(r"starting llama-server.*", told)[0]
    for flags in ("-c 512 -np 1", "-ngl 9", "-b 128 -ub 128", "-t 1", "--flash-attn on"):
        assert flags in started
    assert re.search(r"K \(q8_0\).*V \(q4_0\)", told)


@pytest.mark.engine
@pytest.mark.parametrize("engine", ["embedded", "llama-server", "ollama"])
@pytest.mark.usefixtures("small_model")
def test_a_run_starts_an_engine_as_planned(engine, tmp_path):
    """The engine that a run would use takes the same decisions and answers."""
    if engine != "embedded":
        need_program(engine)
    log = tmp_path / "engine.log"
    subject = find_subject("pypi:gemma3-270m", engine)
    with make_engine(subject, context=512, offload=REAL, log_path=log) as opened:
        made = opened.generate(Prompt(QUESTION, 8, fixed_length=True, temperature=0.0))
        assert opened.options["cache_type_v"] == "q4_0"
        assert 1 in (opened.options.get("threads"), opened.options.get("num_thread"))
    assert made.failure is None
    assert made.usage.completion_tokens == 8
    assert made.text.strip()


@pytest.mark.engine
@pytest.mark.parametrize("engine", ["embedded", "llama-server"])
def test_experts_are_left_in_ram(engine, tmp_path):
    """llama.cpp says that it moved tensors, which it does where such a layer has experts."""
    if engine != "embedded":
        need_program(engine)
    path, log = tmp_path / "moe.gguf", tmp_path / "engine.log"
    with path.open("wb") as file:
        sha256 = write_model(lay_out(TINY_MOE, "f16"), file)
    given = ModelFile("file:moe.gguf", path, sha256, path.stat().st_size)
    subject = Subject("file:moe.gguf", engine, file=given)
    with make_engine(subject, context=128, offload=Offload(experts_in_ram=2), log_path=log):
        assert "tensor overrides to CPU" in log.read_text()
