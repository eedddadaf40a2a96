"""The small parts of the node: ports, logs, secrets, names, GPU use, settings, state files."""

import fcntl
import json
import os
import socket
import subprocess
import sys
import threading

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from shoestring.errors import BadValueError, EngineLostError, MissingError, ShoestringError
from shoestring.models.names import OLLAMA_NAME
from shoestring.stack import node as node_files
from shoestring.stack.asked import Asked, check_same
from shoestring.stack.cli import status, up
from shoestring.stack.credentials import Credentials, ensure_credentials, read_credentials
from shoestring.stack.gpu_use import judge_gpu_use, require_gpu
from shoestring.stack.logs import rotate
from shoestring.stack.node import Node, Service, Wanted
from shoestring.stack.ollama_settings import CONTEXT_TOKENS, ollama_environment
from shoestring.stack.open_webui import environment as webui_files
from shoestring.stack.open_webui.settings import open_webui_environment
from shoestring.stack.ports import choose_port
from shoestring.stack.readiness import name_in_ollama
from shoestring.stack.remains import end_remains
from shoestring.stack.services import make_services

T4 = {"index": 0, "name": "Tesla T4"}
GIB = 2**30


@pytest.fixture
def taken_port():
    """A port on which somebody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock.getsockname()[1]


def test_a_taken_usual_port_gives_the_next_free_one(taken_port):
    """Nobody asked for that very port."""
    assert taken_port < choose_port(None, taken_port, "--x") <= taken_port + 50


def test_a_taken_port_that_was_asked_for_is_refused(taken_port):
    """The line names the option and the port."""
    with pytest.raises(BadValueError, match=f"--webui-port {taken_port}: another program"):
        choose_port(taken_port, 8080, "--webui-port")


def test_a_long_log_is_rotated_while_it_is_written(tmp_path):
    """The writer goes on in the emptied file; two old ones are kept."""
    path = tmp_path / "x.log"
    with path.open("ab", buffering=0) as log:
        for number in range(4):
            log.write(b"%d" % number * 100)
            assert rotate(path, limit_bytes=50)
        log.write(b"end")
    kept = {p.name: p.read_bytes()[:1] for p in tmp_path.iterdir()}

    assert kept == {"x.log": b"e", "x.log.1": b"3", "x.log.2": b"2"}
    assert not rotate(path, limit_bytes=50)


def test_credentials_are_made_once_for_the_owner_alone(tmp_path):
    """The same come back, and the secrets do not show themselves."""
    made = ensure_credentials(tmp_path)

    assert ensure_credentials(tmp_path) == made
    assert (tmp_path / "credentials.json").stat().st_mode & 0o777 == 0o600
    assert made.password not in repr(made)
    assert made.secret_key not in repr(made)
    assert len(made.secret_key) >= 32


@pytest.mark.parametrize("text", ["", "{", "[]", '{"user": "x"}'])
def test_damaged_credentials_are_named(tmp_path, text):
    """One line says which file and what to do."""
    path = tmp_path / "credentials.json"
    path.write_text(text)
    path.chmod(0o600)

    with pytest.raises(BadValueError, match=r"credentials\.json is damaged"):
        read_credentials(tmp_path)


def test_credentials_that_others_can_read_are_refused(tmp_path):
    """A secret that was open to others is not used in silence."""
    ensure_credentials(tmp_path)
    (tmp_path / "credentials.json").chmod(0o644)

    with pytest.raises(BadValueError, match="chmod 600"):
        read_credentials(tmp_path)


def test_open_webui_gets_nothing_of_the_users_environment(tmp_path, monkeypatch):
    """A key or a setting of the user's would change what runs, or leak."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("ENABLE_SIGNUP", "True")
    monkeypatch.setenv("DATABASE_URL", "postgres://elsewhere")
    given_ = open_webui_environment(
        folder=tmp_path,
        ollama_url="http://127.0.0.1:1",
        port=2,
        credentials=Credentials("u", "p", "k"),
        origins=("https://frame.example",),
    )

    assert "sk-secret" not in given_.values()
    assert "DATABASE_URL" not in given_
    assert given_["ENABLE_SIGNUP"] == "False"
    assert given_["CORS_ALLOW_ORIGIN"].split(";") == [
        "http://127.0.0.1:2", "http://localhost:2", "https://frame.example",
    ]  # fmt: skip


def test_spread_is_only_asked_for_where_it_is_wanted():
    """A model that fits on one GPU stays there."""
    assert "OLLAMA_SCHED_SPREAD" not in ollama_environment("http://127.0.0.1:1", store=None)
    spread = ollama_environment("http://127.0.0.1:1", store=None, spread=True)
    assert spread["OLLAMA_SCHED_SPREAD"] == "1"


@pytest.mark.parametrize(
    ("loaded", "before", "after", "verdict"),
    [
        ({"size": 6 * GIB, "size_vram": 6 * GIB}, {0: 0}, {0: 6 * GIB}, "gpu"),
        ({"size": 6 * GIB, "size_vram": 4 * GIB}, {0: 0}, {0: 4 * GIB}, "offload"),
        ({"size": 6 * GIB, "size_vram": 0}, {0: 0}, {0: 0}, "cpu"),
        # Ollama believes it, the driver does not.
        ({"size": 6 * GIB, "size_vram": 6 * GIB}, {0: GIB}, {0: GIB}, "cpu"),
        # The driver does not tell: Ollama's word stands alone.
        ({"size": 6 * GIB, "size_vram": 6 * GIB}, {0: None}, {0: None}, "gpu"),
        # Over two cards.
        (
            {"size": 20 * GIB, "size_vram": 20 * GIB},
            {0: 0, 1: 0},
            {0: 10 * GIB, 1: 10 * GIB},
            "gpu",
        ),
        # A model was in VRAM before: what is used at all speaks, not what came.
        ({"size": 6 * GIB, "size_vram": 6 * GIB}, None, {0: 6 * GIB}, "gpu"),
        ({"size": 6 * GIB, "size_vram": 6 * GIB}, None, {0: GIB}, "cpu"),
        ({"size": 0}, {0: 0}, {0: 0}, "unknown"),
        (None, {0: 0}, {0: 0}, "unknown"),
    ],
)
def test_two_witnesses_say_where_the_model_is(loaded, before, after, verdict):
    """Ollama's figure and the driver's must agree before the GPU is believed."""
    assert judge_gpu_use([T4], loaded, before, after).verdict == verdict


def test_a_model_on_the_cpu_beside_a_gpu_is_refused():
    """The line names the GPU and what to look at; without a GPU there is nothing to refuse."""
    on_cpu = judge_gpu_use([T4], {"size": GIB, "size_vram": 0}, {0: 0}, {0: 0})

    with pytest.raises(ShoestringError, match=r"Tesla T4.*--allow-cpu"):
        require_gpu(on_cpu)
    with pytest.raises(ShoestringError, match="does not say how much"):
        require_gpu(judge_gpu_use([T4], None, {0: 0}, {0: 0}))
    require_gpu(judge_gpu_use([], None, {}, {}))


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("ollama:qwen3:8b", "qwen3:8b"),
        ("pypi:gemma3-270m", "gemma3-270m"),
        ("shape:llama-3.1-8b:Q4_K_M", "shape-llama-3.1-8b:q4_k_m"),
        ("shape:llama-3.1-8b/4:q8_0", "shape-llama-3.1-8b-4:q8_0"),
        ("hf:Owner/Repo-GGUF/My Model.Q4_K_M.gguf", "my-model.q4_k_m"),
        ("file:/models/Größe 7B.gguf", "gr--e-7b"),
    ],
)
def test_models_have_readable_names_in_ollama(model, name):
    """What people choose in Open WebUI says what it is."""
    assert name_in_ollama(model) == name


@given(
    st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=40).filter(
        str.isprintable
    )
)
def test_every_file_name_becomes_a_name_that_ollama_takes(stem):
    """Whatever a file is called."""
    assert OLLAMA_NAME.fullmatch(name_in_ollama(f"file:/x/{stem.replace('/', '-')}.gguf"))


def test_a_node_file_without_a_living_supervisor_is_no_node(tmp_path):
    """A stale file, whatever number stands in it, says nothing."""
    service = Service("ollama", "http://127.0.0.1:1", adopted=False, pid=1, created_s=0.0)
    stale = Node(os.getpid(), "2026-01-01T00:00:00+00:00", (service,))
    node_files.write_node(tmp_path, stale)

    assert node_files.read_node(tmp_path) is None
    assert node_files.read_last_node(tmp_path) == stale
    end_remains(tmp_path, pytest.fail)  # process 1 is not ours to end


@pytest.mark.parametrize("text", ["", "{", "[]", '{"services": 3}', '{"services": [{}]}'])
def test_damaged_state_files_say_nothing(tmp_path, text):
    """Then nothing is known, and up starts anew."""
    for name in (node_files.NODE, node_files.WANTED):
        (tmp_path / name).write_text(text)

    assert node_files.read_last_node(tmp_path) is None
    assert node_files.read_wanted(tmp_path) is None


def test_what_is_wanted_is_read_as_it_was_written(tmp_path):
    """Every field comes back."""
    wanted = Wanted("http://127.0.0.1:1", ollama_adopted=True, ollama_environment={"A": "1"},
                    open_webui_port=2, origins=("x",), model="m", given=("m",))  # fmt: skip
    node_files.write_wanted(tmp_path, wanted)

    assert node_files.read_wanted(tmp_path) == wanted


def test_who_looks_does_not_keep_a_supervisor_out(tmp_path):
    """A status that is asked at that very moment holds the lock for a moment only."""
    with (tmp_path / node_files.LOCK).open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        threading.Timer(0.2, fcntl.flock, [lock, fcntl.LOCK_UN]).start()
        with node_files.supervising(tmp_path):
            assert node_files.is_supervised(tmp_path)


def test_a_second_supervisor_is_kept_out(tmp_path, monkeypatch):
    """The first one's lock says so."""
    monkeypatch.setattr(node_files, "LOOKERS_S", 0.05)
    with (
        node_files.supervising(tmp_path),
        pytest.raises(ShoestringError, match="another node is up"),
        node_files.supervising(tmp_path),
    ):
        pass


def test_a_service_is_not_started_where_another_program_listens(tmp_path, taken_port):
    """Its answers would be taken for ours, and our password would go there."""
    wanted = Wanted(f"http://127.0.0.1:{taken_port}", ollama_adopted=False,
                    ollama_environment={}, open_webui_port=taken_port)  # fmt: skip

    for service in make_services(tmp_path, wanted):
        with pytest.raises(EngineLostError, match=f"port {taken_port}"):
            service.launch()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"context": 8192}, "--context"),
        ({"spread": True}, "--spread"),
        ({"origins": ("https://x",)}, "--origin"),
        ({"open_webui": False}, "with Open WebUI"),
        ({"ollama_port": 5}, "not on port 5"),
    ],
)
def test_a_node_with_other_settings_is_not_the_one_asked_for(tmp_path, changes, message):
    """Nothing is measured with settings that nobody asked for."""
    url = "http://127.0.0.1:4"
    environment = ollama_environment(url, store=tmp_path)
    node_files.write_wanted(tmp_path, Wanted(url, ollama_adopted=False, open_webui_port=7,
                                             ollama_environment=environment))  # fmt: skip
    services = (Service("ollama", url, adopted=False),
                Service("open-webui", "http://127.0.0.1:7", adopted=False))  # fmt: skip
    node = Node(1, "", services)

    check_same(tmp_path, node, Asked("pypi:gemma3-270m"))
    with pytest.raises(BadValueError, match=message):
        check_same(tmp_path, node, Asked("pypi:gemma3-270m", **changes))


def test_the_commands_context_is_the_rooms():
    """The literal in the command line is the constant."""
    (option,) = [one for one in up.params if one.name == "context"]

    assert option.default == CONTEXT_TOKENS


def test_a_supervisor_without_orders_ends_at_once(tmp_path):
    """It says why in its log, and holds nothing."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "shoestring.stack.supervisor", str(tmp_path)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 1
    assert not node_files.is_supervised(tmp_path)


@pytest.mark.parametrize("name", ["", "nothing", "file"])
def test_status_of_nothing_is_down(tmp_path, monkeypatch, name):
    """Also as JSON, and where the state folder is none."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("SHOESTRING_STATE", str(tmp_path / name))
    said = json.loads(CliRunner().invoke(status, ["--json"]).stdout)

    assert said["status"] == "down"
    assert said["services"] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "nonsense"], "unknown model 'nonsense'"),
        (["--model", "pypi:gemma3-270n"], "did you mean pypi:gemma3-270m"),
    ],
)
def test_a_wrong_model_is_refused_before_anything_starts(tmp_path, monkeypatch, words, message):
    """Nothing is installed, started or written."""
    monkeypatch.setenv("SHOESTRING_STATE", str(tmp_path / "state"))
    result = CliRunner().invoke(up, words)

    assert message in str(result.exception)
    assert not (tmp_path / "state").exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path, monkeypatch):
    """The line says which folder, and which variable moves it."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("SHOESTRING_STATE", str(tmp_path / "file"))
    result = CliRunner().invoke(up, [])

    assert isinstance(result.exception, MissingError)
    assert "SHOESTRING_STATE" in str(result.exception)


def test_up_without_installing_names_what_is_missing(tmp_path, monkeypatch):
    """The user said that nothing is to be installed."""
    monkeypatch.setenv("SHOESTRING_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("SHOESTRING_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    result = CliRunner().invoke(up, ["--no-install"])

    assert isinstance(result.exception, MissingError)
    assert "Ollama is not installed" in str(result.exception)


def test_an_environment_whose_python_is_gone_is_made_anew(tmp_path):
    """Its Python is a link to a version that somebody removed: nothing of it would start."""
    folder = webui_files.environment_folder(tmp_path)
    (folder / "bin").mkdir(parents=True)
    (folder / webui_files.NOTE).write_text(json.dumps(webui_files._note()))
    (folder / "bin" / "open-webui").touch()
    python = tmp_path / "python3"
    python.touch()
    (folder / "bin" / "python").symlink_to(python)

    assert webui_files.is_installed(tmp_path)
    python.unlink()
    assert not webui_files.is_installed(tmp_path)
