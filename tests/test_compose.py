"""compose.yaml and Dockerfile, read as Docker would read them: no container engine is needed."""

from __future__ import annotations

import ast
import importlib.util
import itertools
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from feast_repo.settings import StreamSettings
from serving.settings import ServingSettings

ROOT = Path(__file__).resolve().parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
VARIABLE = re.compile(r"(?<!\$)\$\{(?P<name>\w+)(?::(?P<kind>[-?])(?P<text>[^}]*))?\}")
PASSWORDS = {"REDIS_PASSWORD": "redis-secret", "POSTGRES_PASSWORD": "postgres-secret"}
PINNED = re.compile(r"([\w./-]+:\d+\.\d+\.\d+|postgres:\d+\.\d+)(-[\w.-]+)?")  # PostgreSQL has two numbers

OWN = {name for name, service in SERVICES.items() if "build" in service}
STORES = OWN - {"prefect-server", "prefect-deploy"}
ONE_SHOTS = {
    dependency
    for service in SERVICES.values()
    for dependency, wait in service.get("depends_on", {}).items()
    if wait["condition"] == "service_completed_successfully"
}
LONG_RUNNING = SERVICES.keys() - ONE_SHOTS


def interpolated(value: Any, variables: dict[str, str]) -> Any:
    """The value with `${NAME:-default}` and `${NAME:?message}` filled in, as Compose does it."""
    if isinstance(value, dict):
        return {key: interpolated(one, variables) for key, one in value.items()}
    if isinstance(value, list):
        return [interpolated(one, variables) for one in value]
    if not isinstance(value, str):
        return value

    def fill(match: re.Match[str]) -> str:
        given = variables.get(match["name"], "")
        if not given and match["kind"] == "?":
            raise KeyError(match["name"])
        return given or match["text"] or ""

    return VARIABLE.sub(fill, value).replace("$$", "$")


def strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [one for inner in value.values() for one in strings(inner)]
    if isinstance(value, list):
        return [one for inner in value for one in strings(inner)]
    return [value] if isinstance(value, str) else []


def seconds(duration: str) -> int:
    match = re.fullmatch(r"(\d+)(s|m)", duration)
    assert match is not None, duration
    return int(match[1]) * {"s": 1, "m": 60}[match[2]]


def words(command: list[str]) -> list[str]:
    return " ".join(command).split()


@pytest.mark.parametrize("name", sorted(LONG_RUNNING))
class TestLongRunning:
    def test_has_a_health_check(self, name: str) -> None:
        check = SERVICES[name]["healthcheck"]
        assert check["test"][0] in {"CMD", "CMD-SHELL"}
        assert {"interval", "timeout", "retries"} <= check.keys()

    def test_restarts_and_gets_time_to_stop(self, name: str) -> None:
        assert SERVICES[name]["restart"] == "unless-stopped"
        assert seconds(SERVICES[name]["stop_grace_period"]) >= 30

    def test_has_a_memory_limit_and_bounded_logs(self, name: str) -> None:
        assert re.fullmatch(r"\d+[mg]", SERVICES[name]["mem_limit"])
        assert SERVICES[name]["logging"] == {"driver": "local"}


def test_one_shots_end_and_are_waited_for() -> None:
    assert {"kafka-init", "registry", "prefect-deploy"} == ONE_SHOTS
    for name in ONE_SHOTS:
        assert SERVICES[name]["restart"].startswith("on-failure")
        assert "healthcheck" not in SERVICES[name]


def test_dependencies_exist_and_can_be_waited_for() -> None:
    for service in SERVICES.values():
        for dependency, wait in service.get("depends_on", {}).items():
            assert dependency in SERVICES
            if wait["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[dependency]
            else:
                assert wait["condition"] == "service_completed_successfully"


def test_stream_starts_after_topic_registry_and_redis() -> None:
    assert SERVICES["stream"]["depends_on"].keys() == {"kafka-init", "registry", "redis"}


def test_volumes_exist_and_all_are_used() -> None:
    mounted = [volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])]
    assert set(mounted) == COMPOSE["volumes"].keys()


def test_ports_are_open_to_this_machine_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(ports) == 5
    assert [port for port in ports if not re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port)] == []
    assert [name for name, service in SERVICES.items() if service.get("network_mode") == "host"] == []


class TestSecrets:
    def test_come_from_the_environment_and_must_be_set(self) -> None:
        for text in strings(COMPOSE):
            for password in re.findall(r"://[^/\s]*:([^/\s]*|\$\{[^}]*\})@", text):
                assert re.fullmatch(r"\$\{\w+_PASSWORD:\?.+\}", password), text
        for service in SERVICES.values():
            for name, value in service.get("environment", {}).items():
                if re.search(r"PASSWORD|AUTH|SECRET|TOKEN", name):
                    assert re.fullmatch(r"\$\{\w+_PASSWORD:\?.+\}", value), name
        command = SERVICES["redis"]["command"]
        assert command[command.index("--requirepass") + 1].startswith("${REDIS_PASSWORD:?")

    @pytest.mark.parametrize("name", PASSWORDS)
    def test_without_one_nothing_starts(self, name: str) -> None:
        with pytest.raises(KeyError, match=name):
            interpolated(COMPOSE, {**PASSWORDS, name: ""})

    def test_no_service_gets_one_that_it_does_not_need(self) -> None:
        services = interpolated(SERVICES, PASSWORDS)
        holders = {
            secret: {name for name, service in services.items() if any(secret in text for text in strings(service))}
            for secret in PASSWORDS.values()
        }
        # The services that work with the stores share one set of settings.
        assert holders == {
            "redis-secret": {"redis", *STORES},
            "postgres-secret": {"postgres", "prefect-db", "prefect-server", *STORES},
        }


def test_images_are_pinned() -> None:
    stages = set(re.findall(r"^FROM \S+ AS (\S+)", DOCKERFILE, flags=re.MULTILINE))
    bases = [one for one in re.findall(r"^FROM (\S+)", DOCKERFILE, flags=re.MULTILINE) if one not in stages]
    images = [service["image"] for service in SERVICES.values()] + bases
    assert len(set(bases)) == 1
    assert [image for image in images if not PINNED.fullmatch(image)] == []


def test_kafka_is_the_version_that_the_sandbox_runs() -> None:
    tested = re.search(r"<kafka.version>(.*)</kafka.version>", (ROOT / "sandbox" / "kafka" / "pom.xml").read_text())
    assert tested is not None
    assert {SERVICES[name]["image"] for name in ("kafka", "kafka-init")} == {f"apache/kafka:{tested[1]}"}


class TestSettings:
    def test_are_settings_that_exist(self) -> None:
        known = {name.upper() for name in ServingSettings.model_fields}
        for name in OWN:
            names = {one for one in SERVICES[name]["environment"] if not one.startswith("PREFECT_")}
            assert names <= known
            assert (names == set()) == (name not in STORES)

    def test_are_understood(self, monkeypatch: pytest.MonkeyPatch) -> None:
        environment = interpolated(SERVICES["stream"]["environment"], PASSWORDS)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setitem(StreamSettings.model_config, "env_file", None)
        settings = StreamSettings()
        assert settings.redis_url == "redis://:redis-secret@redis:6379/0"
        assert settings.registry_url == "postgresql+psycopg://feast:postgres-secret@postgres:5432/feast"
        assert settings.kafka_bootstrap_servers == "kafka:19092"
        assert str(settings.data_root) == "/data"

    def test_defaults_are_those_of_the_settings(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("KAFKA_TOPIC", "ALLOWED_LATENESS_SECONDS"):
            monkeypatch.delenv(name, raising=False)
        environment = interpolated(SERVICES["stream"]["environment"], PASSWORDS)
        monkeypatch.setitem(StreamSettings.model_config, "env_file", None)
        settings = StreamSettings()
        assert environment["KAFKA_TOPIC"] == settings.catalog.stream().topic
        assert (environment["ALLOWED_LATENESS_SECONDS"], settings.allowed_lateness_seconds) == ("", None)

    def test_addresses_are_services_of_the_stack(self) -> None:
        environment = interpolated(SERVICES["stream"]["environment"], PASSWORDS)
        hosts = {match for value in environment.values() for match in re.findall(r"(?:@|^)(\w+):\d+", value)}
        assert hosts == {"kafka", "redis", "postgres"}


def test_topic_gets_broker_time_and_is_never_made_by_accident() -> None:
    script = SERVICES["kafka-init"]["command"][-1]
    assert script.count("message.timestamp.type=LogAppendTime") == 2
    assert SERVICES["kafka"]["environment"]["KAFKA_AUTO_CREATE_TOPICS_ENABLE"] == "false"


class TestCommands:
    def test_name_modules_and_programs_that_exist(self) -> None:
        modules, programs = set(), set()
        for name in OWN:
            command = words(SERVICES[name]["command"])
            modules |= {after for word, after in itertools.pairwise(command) if word == "-m"}
            modules |= {word for word in command if re.fullmatch(r"stream\.\w+", word)}
            programs |= {command[0]} - {"python"}
        assert modules == {"bytewax.run", "stream.dataflow", "stream.heartbeat", "serving"}
        assert [module for module in modules if importlib.util.find_spec(module) is None] == []
        assert programs == {"feast", "prefect", "sh"}
        assert all((Path(sys.executable).parent / name).exists() for name in ("feast", "prefect"))

    def test_registry_is_applied_from_the_feature_repo(self) -> None:
        command = SERVICES["registry"]["command"]
        folder = command[command.index("--chdir") + 1]
        assert folder == "/app/feast_repo"
        assert (ROOT / "feast_repo" / "feature_store.yaml").exists()

    def test_stream_resumes_from_a_volume(self) -> None:
        command = SERVICES["stream"]["command"]
        directory = command[command.index("-r") + 1]
        assert Path(directory).parent == Path("/recovery"), "the dataflow makes the directory in the mounted volume"
        assert "recovery:/recovery" in SERVICES["stream"]["volumes"]

    def test_stream_is_healthy_while_its_progress_moves(self, tmp_path: Path) -> None:
        check = SERVICES["stream"]["healthcheck"]["test"][1].replace("/data", str(tmp_path))

        def healthy() -> bool:
            return subprocess.run(["sh", "-c", check], check=False, capture_output=True).returncode == 0

        assert not healthy()
        record = tmp_path / "progress" / "partition-00003.parquet"
        record.parent.mkdir()
        record.touch()
        assert healthy()
        ten_minutes_ago = time.time() - 600
        os.utime(record, (ten_minutes_ago, ten_minutes_ago))
        assert not healthy()


class TestImage:
    SOURCES = tuple(re.findall(r"^COPY (?!--from)(\S+) ", DOCKERFILE, flags=re.MULTILINE))

    def test_copies_what_exists_and_is_not_ignored(self) -> None:
        allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
        assert "*" in (ROOT / ".dockerignore").read_text().splitlines()
        assert set(self.SOURCES) == allowed
        assert [source for source in self.SOURCES if not (ROOT / source).exists()] == []

    def test_holds_every_package_that_its_code_imports(self) -> None:
        packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
        missing = {
            (str(path.relative_to(ROOT)), package)
            for source in packages & set(self.SOURCES)
            for path in (ROOT / source).rglob("*.py")
            for package in imported_packages(path) & packages - set(self.SOURCES)
        }
        assert missing == set()

    def test_installs_hashed_wheels_of_what_each_image_needs(self) -> None:
        install = re.sub(r"\\\n", " ", DOCKERFILE)
        commands = re.findall(r"pip install (.*)$", install, flags=re.MULTILINE)
        assert [Path(command.split()[-1]).name for command in commands] == ["core.lock", "worker.lock"]
        assert all("--require-hashes" in command and "--only-binary :all:" in command for command in commands)

    def test_every_service_is_built_from_a_stage_that_holds_its_code(self) -> None:
        stages = dict(re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM|\Z)", DOCKERFILE, flags=re.MULTILINE | re.DOTALL))
        for name in OWN:
            target = SERVICES[name]["build"]["target"]
            assert ("flows" in stages[target]) == name.startswith("prefect-")

    def test_runs_without_rights(self) -> None:
        users = re.findall(r"^USER (\S+)", DOCKERFILE, flags=re.MULTILINE)
        assert users[-1] not in {"root", "0"}
        for name in OWN:
            service = SERVICES[name]
            assert service["read_only"] is True
            assert service["cap_drop"] == ["ALL"]
            assert service["security_opt"] == ["no-new-privileges:true"]
            assert "privileged" not in service

    def test_the_prefect_server_writes_its_pages_where_it_can(self) -> None:
        server = SERVICES["prefect-server"]
        assert Path(server["environment"]["PREFECT_UI_STATIC_DIRECTORY"]).parent == Path(server["tmpfs"][0])

    def test_writes_only_to_volumes_that_it_owns(self) -> None:
        targets = {volume.split(":")[1] for name in OWN for volume in SERVICES[name].get("volumes", [])}
        assert f"chown app:app {' '.join(sorted(targets))}" in DOCKERFILE


def imported_packages(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_docker_agrees() -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], check=False, capture_output=True).returncode:
        pytest.skip("docker compose is not here")
    result = subprocess.run(
        [docker, "compose", "--file", str(ROOT / "compose.yaml"), "config", "--quiet"],
        env={**os.environ, **PASSWORDS},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
