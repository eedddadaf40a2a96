"""The gateway's image, unit, containers, alerts and board: accepted by their own tools."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import click
import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from shoestring.cli import cli
from shoestring.engines.install.pins import load_pins
from shoestring.gateway.activity import Outcome
from shoestring.gateway.metrics import Metrics
from shoestring.gateway.readings import EngineReading, Readings
from shoestring.gateway.settings import Settings, load_settings

ROOT = Path(__file__).parents[2]
GATEWAY = ROOT / "deployment" / "gateway"
COMPOSE = ROOT / "deployment" / "compose"
UNIT = GATEWAY / "shoestring-gateway.service"
BOARD = COMPOSE / "grafana" / "dashboards" / "shoestring-gateway.json"
needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is missing")
PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)", re.MULTILINE)


@pytest.fixture
def compose():
    """The compose file."""
    return yaml.safe_load((COMPOSE / "docker-compose.yml").read_text())


@pytest.fixture
def services(compose):
    """Its services."""
    return compose["services"]


@pytest.fixture(scope="module")
def told():
    """The names of all samples that a busy gateway tells."""
    readings = Readings((EngineReading("a", True, 1, 2, 4, 5),), "ok", 2, 3, 300, 1, draining=False)
    metrics = Metrics(CollectorRegistry(), lambda: readings, version="1")
    for cache in ("miss", "hit"):
        metrics.began("m")
        metrics.ended(Outcome(
            request_id="r", t_utc="", key_id="k", key_name="k", address="", operation="chat",
            model="m", variant="v", engine="a", provider="ollama", status=200, failure=None,
            stream=True, cache=cache, queue_s=0.1, ttft_s=0.2, duration_s=1.0, input_tokens=3,
            output_tokens=5,
        ))  # fmt: skip
    metrics.rejected("queue_full")
    families = text_string_to_metric_families(metrics.render().decode())
    return {sample.name for family in families for sample in family.samples} | {"up"}


def options_of(words: list[str]) -> set[str]:
    """Return the options that the command has whose name these words begin with."""
    command: click.Command = cli
    for word in words:
        if not isinstance(command, click.Group):
            break
        found = command.get_command(click.Context(command), word)
        assert found is not None, f"there is no command {word}"
        command = found
    return {name for option in command.params for name in (*option.opts, *option.secondary_opts)}


def assert_known(words: list[str]) -> None:
    """Hold a command against the command line."""
    given = {word for word in words if word.startswith("--")}
    assert given <= options_of(words), words


def verify(unit: Path) -> str:
    """Return what systemd says of a unit; nothing, if all is well."""
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def promtool(*words: str | Path) -> str:
    """Return what it says.

    Raises:
        AssertionError: it does not accept the file.
    """
    done = subprocess.run(["promtool", *words], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


# The settings


@pytest.mark.parametrize("file", [GATEWAY / "gateway.toml", COMPOSE / "gateway.toml"])
def test_the_gateway_takes_the_settings(file):
    """As they are."""
    assert load_settings(file).engines


def test_the_example_names_every_setting(tmp_path):
    """With its default where it is commented out, and it can be taken as it stands there."""
    text = (GATEWAY / "gateway.toml").read_text()
    sections = {
        name: kind.annotation for name, kind in Settings.model_fields.items()
        if hasattr(kind.annotation, "model_fields")
    }  # fmt: skip
    for name, section in sections.items():
        part = re.search(rf"^\[{name}\](.*?)(?=^#?\[|\Z)", text, re.MULTILINE | re.DOTALL)[1]
        named = set(re.findall(r"^#?(\w+) = ", part, re.MULTILINE))
        wanted = {
            field for field, info in section.model_fields.items()
            if not hasattr(info.annotation, "model_fields")
        }  # fmt: skip
        assert named == wanted, name
        for field, value in re.findall(r"^#(\w+) = ([^#\n]+?)\s*(?:#.*)?$", part, re.MULTILINE):
            default = section.model_fields[field].get_default(call_default_factory=True)
            if default is not None and field != "file":
                other = tmp_path / "other.toml"
                other.write_text(
                    f'engines = [{{name = "a", url = "http://b"}}]\n[{name}]\n{field} = {value}'
                )
                assert getattr(getattr(load_settings(other), name), field) == default, field


def test_the_containers_settings_lead_to_the_containers(services):
    """Engines and Redis are reached under the names of their services."""
    settings = load_settings(COMPOSE / "gateway.toml")
    assert {re.fullmatch(r"http://(\w+):\d+", e.url)[1] for e in settings.engines} <= set(services)
    assert settings.redis.url_env == "SHOESTRING_REDIS_URL"
    assert settings.server.drain_s < float(services["gateway"]["stop_grace_period"].rstrip("s"))
    assert settings.limits.address.requests_per_minute is None


# The image


def test_the_image_has_what_the_gateway_imports(tmp_path):
    """Everything of the gateway and of its commands is imported with nothing else to be found."""
    pinned = {name.lower() for name, _ in PIN.findall((GATEWAY / "requirements.lock").read_text())}
    missing = sorted(
        package for package, owners in packages_distributions().items()
        if not {re.sub(r"[._-]+", "-", owner).lower() for owner in owners} & {*pinned, "shoestring"}
    )  # fmt: skip
    source = """
import importlib, json, pkgutil, sys
missing = set(json.loads(sys.argv[1]))
class Image:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(f"not in the image: {name}", name=name)
sys.meta_path.insert(0, Image())
import shoestring.gateway
for module in pkgutil.walk_packages(shoestring.gateway.__path__, "shoestring.gateway."):
    importlib.import_module(module.name)
from shoestring.cli import cli
for words in (["keys", "create", "--name", "a"], ["keys", "list"], ["serve", "--help"]):
    try:
        cli(words, standalone_mode=False)
    except SystemExit as end:
        assert not end.code
"""
    done = subprocess.run(
        [sys.executable, "-c", source, json.dumps(missing)], capture_output=True, text=True,
        check=False, env={**os.environ, "SHOESTRING_STATE": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_the_image_has_the_versions_that_are_tested():
    """Its lock is a part of the project's: same versions, same hashes, and no registry named."""
    whole, part = (
        (ROOT / "requirements.lock").read_text(),
        (GATEWAY / "requirements.lock").read_text(),
    )
    assert set(PIN.findall(part)) <= set(PIN.findall(whole))
    hashes = re.compile(r"--hash=(\S+)")
    assert set(hashes.findall(part)) <= set(hashes.findall(whole))
    assert "://" not in part
    wanted = set(re.findall(r"^[a-z-]+$", (GATEWAY / "requirements.in").read_text(), re.MULTILINE))
    assert wanted <= {name for name, _ in PIN.findall(part)}


def test_the_image_is_small_pinned_and_not_root():
    """One base by version in both stages, a numeric user, a check that is not the whole client."""
    lines = (GATEWAY / "Dockerfile").read_text()
    bases = re.findall(r"^FROM (\S+)", lines, re.MULTILINE)
    assert len(bases) == 2
    assert len(set(bases)) == 1
    assert re.fullmatch(r"python:3\.1[1-3]\.\d+-slim-\w+", bases[0])
    last = lines.rpartition("FROM ")[2]
    assert re.search(r"^USER 10001:10001$", last, re.MULTILINE)
    assert last.index("COPY") < last.index("USER")
    assert "RUN pip" not in last
    assert "--require-hashes" in lines


def test_the_image_starts_what_the_command_line_has():
    """Every option of its command exists, and its check asks the open path."""
    text = (GATEWAY / "Dockerfile").read_text()
    assert json.loads(re.search(r"^ENTRYPOINT (.*)$", text, re.MULTILINE)[1]) == ["shoestring"]
    assert_known(json.loads(re.search(r"^CMD (.*)$", text, re.MULTILINE)[1]))
    check = json.loads(re.search(r"^  CMD (.*)$", text, re.MULTILINE)[1])
    compile(check[2], "check", "exec")
    assert "'/health'" in check[2]


def test_the_build_sees_no_secret():
    """All is left out but named things, which exist, and everything that is copied is named."""
    lines = [
        line for line in (GATEWAY / "Dockerfile.dockerignore").read_text().splitlines()
        if not line.startswith("#")
    ]  # fmt: skip
    assert lines[0] == "*"
    let_in = {line[1:] for line in lines if line.startswith("!")}
    assert all((ROOT / name).exists() for name in let_in)
    copied = re.findall(
        r"^COPY (?!--from)(.*) \S+$", (GATEWAY / "Dockerfile").read_text(), re.MULTILINE
    )
    assert {word for words in copied for word in words.split()} == let_in


# The unit


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is missing")
def test_systemd_accepts_the_unit(tmp_path):
    """Every key is known to it; a misspelt one it would ignore, and it says so."""
    text = UNIT.read_text().replace("/opt/shoestring/bin/shoestring", "/bin/true")
    right, wrong = tmp_path / UNIT.name, tmp_path / "wrong" / UNIT.name
    right.write_text(text)
    wrong.parent.mkdir()
    wrong.write_text(text.replace("ProtectSystem=", "ProtectSytem="))
    assert not [line for line in verify(right).splitlines() if UNIT.name in line]
    assert "Unknown key 'ProtectSytem'" in verify(wrong)


def test_the_unit_starts_what_the_command_line_has():
    """Every option of its command exists; it has longer to end than an answer may take then."""
    text = UNIT.read_text()
    _, *words = shlex.split(re.search(r"^ExecStart=(.*)$", text, re.MULTILINE)[1])
    assert words[0] == "serve"
    assert_known(words)
    stop_s = float(re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)[1])
    assert stop_s > load_settings(GATEWAY / "gateway.toml").server.drain_s


def test_the_unit_is_confined():
    """Not root, no more rights, one folder to write to, bounded memory."""
    lines = set(UNIT.read_text().splitlines())
    assert {"User=shoestring", "NoNewPrivileges=yes", "ProtectSystem=strict", "ProtectHome=yes",
            "PrivateTmp=yes", "PrivateDevices=yes", "CapabilityBoundingSet=", "MemoryMax=512M",
            "StateDirectory=shoestring", "UMask=0077"} <= lines  # fmt: skip
    assert not [line for line in lines if line.startswith("ReadWritePaths")]


# The containers


def test_only_the_gateway_is_published_and_only_here(services):
    """On loopback; all others have no port, and no network with a way out."""
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {"gateway": ["127.0.0.1:8000:8000"]}
    assert all("network_mode" not in service for service in services.values())


def test_networks_have_no_way_out(compose, services):
    """But the published one, which is not masqueraded; Redis knows the gateway only."""
    networks = compose["networks"]
    assert networks["inside"] == networks["counting"] == {"internal": True}
    masquerade = "com.docker.network.bridge.enable_ip_masquerade"
    assert networks["front"]["driver_opts"] == {masquerade: "false"}
    members = {
        net: {name for name, service in services.items() if net in service["networks"]}
        for net in networks
    }
    assert members["counting"] == {"gateway", "redis"}
    assert services["redis"]["networks"] == ["counting"]
    assert members["front"] == {"gateway"}
    assert members["outside"] == {"pull"}
    assert services["pull"]["profiles"] == ["pull"]


def test_containers_are_confined_and_pinned(services):
    """No rights, no latest, bounded logs; Ollama is the version that is tested here."""
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["pids_limit"], name
        assert service["logging"]["options"]["max-size"], name
        assert "privileged" not in service, name
        if "build" not in service:
            assert re.search(r":v?\d+\.\d+\.\d+(-\w+)?$", service["image"]), name
    ollama = f"ollama/ollama:{load_pins()['ollama'].version}"
    assert {services[name]["image"] for name in ("ollama", "pull")} == {ollama}
    assert services["gateway"]["read_only"] is True
    assert services["redis"]["user"] == "redis"


def test_the_containers_start_what_the_command_line_has(services):
    """The image's entry point is the command line; its build file is there."""
    gateway = services["gateway"]
    assert gateway["command"][0] == "serve"
    assert_known(gateway["command"])
    build = gateway["build"]
    assert (COMPOSE / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()


def test_what_is_mounted_is_there(services):
    """And read only, if it is a file of ours."""
    for service in services.values():
        for volume in service.get("volumes", []):
            source, target, *more = volume.split(":")
            if source.startswith("./"):
                assert (COMPOSE / source).exists(), volume
                assert more == ["ro"], volume
            assert target.startswith("/")


def test_secrets_come_from_files_that_are_not_here(compose, services):
    """No password stands in a committed file; the folder is left out of the repository."""
    assert {s["file"].partition("/")[0] for s in compose["secrets"].values()} == {"secrets"}
    assert (COMPOSE / ".gitignore").read_text() == "secrets/\n"
    used = {name for service in services.values() for name in service.get("secrets", [])}
    assert used == set(compose["secrets"])
    for name, service in services.items():
        for variable, value in service.get("environment", {}).items():
            secret = re.search("PASSWORD|SECRET_KEY|TOKEN", variable)
            assert not secret or value.startswith("/run/secrets/"), (name, variable)
    assert "requirepass" not in str(services["redis"]["command"])


def test_grafana_lets_nobody_in_without_a_password(services):
    """No anonymous viewer, no sign-up, no default password, nothing sent out."""
    settings = services["grafana"]["environment"]
    assert settings["GF_SECURITY_ADMIN_PASSWORD__FILE"] == "/run/secrets/grafana_admin_password"
    assert "GF_SECURITY_ADMIN_PASSWORD" not in settings
    assert settings["GF_AUTH_ANONYMOUS_ENABLED"] == settings["GF_USERS_ALLOW_SIGN_UP"] == "false"
    assert settings["GF_ANALYTICS_REPORTING_ENABLED"] == "false"


def test_the_file_with_grafanas_port_is_on_loopback(services):
    """It adds to the same service, and changes no other."""
    more = yaml.safe_load((COMPOSE / "grafana-port.yml").read_text())["services"]
    assert list(more) == ["grafana"]
    assert more["grafana"]["ports"] == ["127.0.0.1:3000:3000"]
    assert "grafana" in services


def test_secrets_are_made_once_and_for_their_readers(tmp_path):
    """Long, random, one password for Redis and the gateway; a second call changes nothing."""
    script = tmp_path / "secrets.sh"
    shutil.copy(COMPOSE / "secrets.sh", script)
    made = tmp_path / "secrets"

    def run() -> dict[str, str]:
        subprocess.run(["sh", str(script)], check=True, cwd="/")
        return {path.name: path.read_text() for path in made.iterdir()}

    first = run()
    password = re.fullmatch(r"requirepass ([0-9a-f]{64})\n", first["redis.conf"])[1]
    assert first["gateway.env"] == f"SHOESTRING_REDIS_URL=redis://:{password}@redis:6379/0\n"
    assert re.fullmatch(r"[0-9a-f]{64}", first["grafana_admin_password"])
    assert first["grafana_admin_password"] != password
    assert made.stat().st_mode & 0o777 == 0o700
    assert (made / "gateway.env").stat().st_mode & 0o777 == 0o600
    assert run() == first


@pytest.mark.skipif(not shutil.which("redis-server"), reason="redis-server is missing")
def test_redis_takes_its_file_and_refuses_who_has_no_password(tmp_path, services):
    """With the very words of the container; its check is content with the refusal."""
    shutil.copy(COMPOSE / "secrets.sh", tmp_path)
    subprocess.run(["sh", str(tmp_path / "secrets.sh")], check=True)
    program, conf, *words = services["redis"]["command"]
    assert (program, conf) == ("redis-server", "/run/secrets/redis_conf")
    socket = tmp_path / "s"
    given = [program, str(tmp_path / "secrets" / "redis.conf"), *words, "--port", "0",
             "--unixsocket", str(socket), "--dir", str(tmp_path)]  # fmt: skip
    with subprocess.Popen(given, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert any("ready to accept connections" in line for line in server.stdout)
            check = services["redis"]["healthcheck"]["test"][1]
            asked = check.replace("redis-cli", f"redis-cli -s {socket}")
            assert subprocess.run(["sh", "-c", asked], check=False).returncode == 0
            said = subprocess.run(["redis-cli", "-s", str(socket), "get", "a"],
                                  capture_output=True, text=True, check=False)  # fmt: skip
            assert "NOAUTH" in said.stdout + said.stderr
        finally:
            server.terminate()


@pytest.mark.parametrize("folder", [GATEWAY, COMPOSE])
def test_the_commands_of_the_readme_exist(folder):
    """All that call the command line, in a container or not."""
    text = (folder / "README.md").read_text().replace("\\\n", " ")
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    found = [
        shlex.split(words)
        for block in blocks
        for words in re.findall(
            r"(?:shoestring|gateway(?: shoestring)?) ((?:keys|serve) [^|)>#\n]*)", block
        )
    ]
    assert found
    for words in found:
        assert_known(words)


# Prometheus


@needs_promtool
def test_prometheus_takes_its_configuration(tmp_path):
    """It scrapes with a key out of the file that is mounted."""
    shutil.copy(COMPOSE / "rules.yml", tmp_path)
    key = tmp_path / "metrics_key"
    key.touch()
    text = (COMPOSE / "prometheus.yml").read_text()
    assert "/run/secrets/metrics_key" in text
    config = tmp_path / "prometheus.yml"
    config.write_text(text.replace("/run/secrets/metrics_key", str(key)))
    assert "SUCCESS" in promtool("check", "config", config)


@needs_promtool
def test_prometheus_takes_the_rules():
    """All of them."""
    assert "8 rules found" in promtool("check", "rules", COMPOSE / "rules.yml")


DURATION = "gen_ai_server_request_duration_seconds_count"
TTFT = "gen_ai_server_time_to_first_token_seconds_bucket"
JOB = '{job="shoestring-gateway",instance="g"}'
WELL = {
    f"up{JOB}": "1x80",
    f'{TTFT}{{gen_ai_request_model="m",le="1.0"}}': "0+9x80",
    f'{TTFT}{{gen_ai_request_model="m",le="20.0"}}': "0+9x80",
    f'{TTFT}{{gen_ai_request_model="m",le="+Inf"}}': "0+9x80",
    f'{DURATION}{{error_type=""}}': "0+90x80",
    f'{DURATION}{{error_type="engine_error"}}': "0+1x80",
    f'{DURATION}{{error_type="client_left"}}': "0+90x80",
    f'{DURATION}{{error_type="queue_full"}}': "0+90x80",
    'shoestring_gateway_rejections_total{reason="rate_limit"}': "0+9x80",
    'shoestring_gateway_rejections_total{reason="queue_full"}': "5x80",
    'shoestring_gateway_engine_up{engine="a"}': "1x80",
    f"shoestring_gateway_redis_up{JOB}": "1x80",
    f"shoestring_gateway_key_file_errors_total{JOB}": "3x80",
    f"process_resident_memory_bytes{JOB}": "100000000x80",
}
ILL = {
    "GatewayDown": {f"up{JOB}": "0x80"},
    "TimeToFirstTokenHigh": {f'{TTFT}{{gen_ai_request_model="m",le="1.0"}}': "0+1x80"},
    "ErrorRateHigh": {f'{DURATION}{{error_type="engine_error"}}': "0+20x80"},
    "QueueFull": {'shoestring_gateway_rejections_total{reason="queue_full"}': "0+1x80"},
    "EngineDown": {'shoestring_gateway_engine_up{engine="a"}': "0x80"},
    "RedisLost": {f"shoestring_gateway_redis_up{JOB}": "0x80"},
    "KeyFileDamaged": {f"shoestring_gateway_key_file_errors_total{JOB}": "0+1x80"},
    "GatewayMemoryHigh": {f"process_resident_memory_bytes{JOB}": "400000000x80"},
}


@needs_promtool
@pytest.mark.parametrize("ill", [None, *ILL])
def test_each_alert_tells_its_own_ill_and_no_other(tmp_path, ill):
    """Twenty minutes of a gateway that is well but for one thing; a client that left is no ill."""
    series = WELL | (ILL[ill] if ill else {})
    firing = [{"labels": f'{{alertname="{ill}"}}', "value": 1}] if ill else []
    case = {
        "rule_files": [str(COMPOSE / "rules.yml")],
        "evaluation_interval": "15s",
        "tests": [{
            "interval": "15s",
            "input_series": [{"series": name, "values": v} for name, v in series.items()],
            "promql_expr_test": [{
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": "20m",
                "exp_samples": firing,
            }],
        }],
    }  # fmt: skip
    file = tmp_path / "case.yml"
    file.write_text(yaml.safe_dump(case))
    assert "SUCCESS" in promtool("test", "rules", file)


def test_every_alert_is_tested_and_says_what_to_do():
    """With a severity, a summary and a mend."""
    rules = yaml.safe_load((COMPOSE / "rules.yml").read_text())["groups"][0]["rules"]
    assert [rule["alert"] for rule in rules] == list(ILL)
    for rule in rules:
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert set(rule["annotations"]) == {"summary", "mend"}


def names_in(expression: str) -> set[str]:
    """Return the names of metrics in an expression: words that a selector or a bracket follows."""
    plain = re.sub(r'"[^"]*"|\{[^}]*\}', "", expression)
    plain = re.sub(r"\b(by|on|without|ignoring) \([^)]*\)", "", plain)
    return {
        word for word in re.findall(r"[a-z_][a-z0-9_]*(?!\s*\()\b", plain)
        if ("_" in word and not word.startswith("__")) or word == "up"
    } - {"histogram_quantile"}  # fmt: skip


def test_alerts_ask_for_metrics_that_are_told(told):
    """A misspelt one would never fire."""
    rules = yaml.safe_load((COMPOSE / "rules.yml").read_text())["groups"][0]["rules"]
    for rule in rules:
        names = names_in(rule["expr"])
        assert names, rule["alert"]
        assert names <= told, rule["alert"]


# Grafana


def expressions() -> Iterator[tuple[str, str]]:
    """Yield the title of each panel of the board, with each of its expressions."""
    for panel in json.loads(BOARD.read_text())["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def test_the_board_asks_for_metrics_that_are_told(told):
    """A misspelt one would be an empty panel; and none of ours is forgotten."""
    asked = set()
    for title, expression in expressions():
        names = names_in(expression)
        assert names, title
        assert names <= told, title
        asked |= names
    families = {re.sub("_(bucket|sum|count)$", "", name) for name in asked}
    ours = {re.sub("_(bucket|sum|count)$", "", name) for name in told if "process_" not in name}
    untold = {"shoestring_gateway_build_info", "shoestring_gateway_key_file_errors_total",
              "shoestring_gateway_replicas",
              "shoestring_gateway_cache_entries"}  # fmt: skip
    assert ours - families == untold


@needs_promtool
def test_prometheus_understands_the_board(tmp_path):
    """Every expression, with Grafana's own variables filled in."""
    rules = [
        {"record": f"panel_{number}",
         "expr": expression.replace("$__rate_interval", "1m").replace("$__range", "1h")}
        for number, (_, expression) in enumerate(expressions())
    ]  # fmt: skip
    file = tmp_path / "board.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": rules}]}))
    assert f"{len(rules)} rules found" in promtool("check", "rules", file)


def test_the_board_finds_its_source_and_its_panels_do_not_overlap():
    """It names the source that is provisioned; every panel says what it shows, and has a place."""
    source = yaml.safe_load(
        (COMPOSE / "grafana" / "provisioning" / "datasources" / "prometheus.yml").read_text()
    )["datasources"][0]
    panels = json.loads(BOARD.read_text())["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        assert panel["datasource"] == {"type": source["type"], "uid": source["uid"]}
        assert panel["description"]
        place = panel["gridPos"]
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_the_first_row_has_the_note_s_five_figures():
    """Requests, errors, mean inference time, model memory, active requests."""
    panels = [p["title"] for p in json.loads(BOARD.read_text())["panels"] if p["type"] == "stat"]
    assert panels == [
        "Requests", "Errors", "Mean inference time", "Model memory", "Active requests"
    ]  # fmt: skip
