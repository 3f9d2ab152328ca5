"""The project's own files agree with each other: settings, locks, Makefile, documents."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic_settings import BaseSettings

from feast_repo.features import user_click_features
from stream.windows import WindowEngine

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
LOCKS = ("core", "worker", "dev", "all")
MAKE = shutil.which("make") or "make"


def lock_text(name: str) -> str:
    return (ROOT / "requirements" / f"{name}.lock").read_text()


def pins(name: str) -> dict[str, set[str]]:
    """Versions by package; a package may have one version for each Python."""
    found: dict[str, set[str]] = {}
    for line in lock_text(name).splitlines():
        if match := re.match(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^ ;\\]+)", line):
            found.setdefault(canonicalize_name(match[1]), set()).add(match[2])
    return found


class TestLocks:
    @pytest.mark.parametrize("name", LOCKS)
    def test_names_no_place_to_download_from(self, name: str) -> None:
        requirements = [line.split("#")[0] for line in lock_text(name).splitlines()]
        assert not [line for line in requirements if re.search(r"://| @ |^\s*(-i|-f|--(?!hash=))", line)]

    @pytest.mark.parametrize("name", LOCKS)
    def test_every_requirement_is_pinned_and_hashed(self, name: str) -> None:
        text = re.sub(r"\\\n", " ", re.sub(r"^\s*#.*\n", "", lock_text(name), flags=re.MULTILINE))
        lines = text.splitlines()
        assert len(lines) > 50
        assert not [line for line in lines if "==" not in line or "--hash=sha256:" not in line]

    @pytest.mark.parametrize(
        ("name", "wanted"),
        [
            ("core", PROJECT["dependencies"]),
            (
                "dev",
                [
                    *PROJECT["dependencies"],
                    *EXTRAS["sandbox"],
                    *EXTRAS["dev"],
                    *PYPROJECT["build-system"]["requires"],
                ],
            ),
            (
                "worker",
                [*PROJECT["dependencies"], *EXTRAS["quality"], *EXTRAS["train"], *EXTRAS["flows"]],
            ),
            ("all", [*PROJECT["dependencies"], *(one for extra in EXTRAS.values() for one in extra)]),
        ],
    )
    def test_satisfies_pyproject(self, name: str, wanted: list[str]) -> None:
        locked = pins(name)
        for requirement in map(Requirement, wanted):
            versions = locked.get(canonicalize_name(requirement.name))
            assert versions, f"{requirement} is not in {name}.lock: run `make lock`"
            unfit = [version for version in versions if not requirement.specifier.contains(version)]
            assert not unfit, f"{name}.lock has {unfit} for {requirement}: run `make lock`"

    @pytest.mark.parametrize("name", ["core", "worker", "dev"])
    def test_is_a_part_of_the_one_resolution(self, name: str) -> None:
        everything = pins("all")
        assert {
            package: versions for package, versions in pins(name).items() if everything.get(package) != versions
        } == {}

    def test_the_image_gets_no_tests_and_no_sandbox(self) -> None:
        only_dev = {canonicalize_name(Requirement(one).name) for extra in ("sandbox", "dev") for one in EXTRAS[extra]}
        shared = {"mypy", "psutil", "pyyaml"}  # Feast depends on them
        for image in ("core", "worker"):
            assert pins(image).keys() & only_dev <= shared


def settings_fields() -> dict[str, type[BaseSettings]]:
    """Every setting of every package, by the name of its environment variable."""
    modules = [importlib.import_module(f"{path.parent.name}.settings") for path in sorted(ROOT.glob("*/settings.py"))]
    classes = {
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, BaseSettings) and value is not BaseSettings
    }
    return {name.upper(): cls for cls in classes for name in cls.model_fields}


def compose_variables() -> set[str]:
    return set(re.findall(r"(?<!\$)\$\{(\w+)", (ROOT / "compose.yaml").read_text()))


def example_lines() -> dict[str, str]:
    """The example's settings, whether commented out or not."""
    lines = (ROOT / ".env.example").read_text().splitlines()
    return {match[1]: match[2] for line in lines if (match := re.fullmatch(r"(?:# )?([A-Z][A-Z0-9_]+)=(.*)", line))}


class TestEnvExample:
    def test_names_exactly_the_settings_that_exist(self) -> None:
        assert example_lines().keys() == settings_fields().keys() | compose_variables()

    def test_shows_the_real_defaults(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fields, example = settings_fields(), example_lines()
        for name, cls in fields.items():
            monkeypatch.delenv(name, raising=False)
            monkeypatch.setitem(cls.model_config, "env_file", None)
        for name, cls in fields.items():
            default = getattr(cls(), name.lower())
            if example[name] == "":
                assert default in {None, ""}, f"{name} has the default {default}"
            else:
                monkeypatch.setenv(name, example[name])
                assert getattr(cls(), name.lower()) == default, f"{name} has the default {default}"

    def test_every_setting_is_explained(self) -> None:
        blocks = (ROOT / ".env.example").read_text().split("\n\n")
        unexplained = []
        for block in blocks:
            lines = block.splitlines()
            first = next((i for i, line in enumerate(lines) if re.match(r"(# )?[A-Z][A-Z0-9_]+=", line)), None)
            if first == 0:
                unexplained.append(block)
        assert unexplained == []

    def test_holds_no_secret(self) -> None:
        assert {name: value for name, value in example_lines().items() if "PASSWORD" in name and value} == {}

    def test_a_copy_of_it_is_ignored_by_git(self) -> None:
        assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


class TestMakefile:
    TARGETS = (
        *("help", "setup", "demo", "test", "test-full", "chaos", "check", "bench-quick", "bench", "bench-full"),
        *("up", "down", "clean", "lock"),
    )

    def test_help_is_the_default_and_lists_every_target(self) -> None:
        shown = subprocess.run([MAKE], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        listed = re.findall(r"^  make ([\w-]+) +\S", shown, flags=re.MULTILINE)
        phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        assert phony is not None
        assert tuple(listed) == tuple(phony[1].split()) == self.TARGETS

    def test_without_a_fitting_python_it_says_what_to_do(self, tmp_path: Path) -> None:
        for name in ("Makefile", "pyproject.toml", "requirements/dev.lock"):
            target = tmp_path / name
            target.parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, target)
        programs = tmp_path / "programs"
        programs.mkdir()
        shim = programs / "python3"  # there, but without an interpreter behind it
        shim.write_text("#!/bin/sh\nexit 127\n")
        shim.chmod(0o755)
        environment = {"PATH": str(programs)}
        result = subprocess.run(
            [MAKE, "setup"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert result.returncode == 2
        assert result.stderr.startswith("error: no Python 3.11 or 3.12 with venv found; install one")


def test_packages_are_complete() -> None:
    modules = [path for top in ROOT.glob("*/__init__.py") for path in top.parent.rglob("__init__.py")]
    packages = {".".join(path.parent.relative_to(ROOT).parts) for path in modules}
    installed = {name for name in packages if name.partition(".")[0] not in {"tests", "benchmarks"}}
    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == installed


def test_ci_script_is_executable_bash() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)


def test_this_python_is_a_supported_one() -> None:
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(
        ".".join(map(str, sys.version_info[:3]))
    )


DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", document.read_text())
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (document.parent / link).exists()] == []


def table_after(document: str, introduction: str) -> list[list[str]]:
    """The cells of the first table after a line of a Markdown document, without its two header lines."""
    lines = document.split(introduction, 1)[1].splitlines()
    rows = [line for line in lines if line.startswith("|")]
    end = next(i for i, line in enumerate(lines[lines.index(rows[0]) :]) if not line.startswith("|"))
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:end]]


def test_the_example_in_the_semantics_is_what_the_engine_does() -> None:
    document = (ROOT / "docs" / "semantics.md").read_text()
    log = table_after(document, "A partition with six records.")
    midnight = datetime(2026, 3, 1, tzinfo=UTC)

    def milliseconds(clock: str) -> int:
        hours, minutes, seconds = map(int, (clock + ":00").split(":")[:3])
        return int((midnight + timedelta(hours=hours, minutes=minutes, seconds=seconds)).timestamp() * 1000)

    records = pl.DataFrame(
        {
            "kafka_timestamp": [milliseconds(row[4]) for row in log],
            "event_id": [row[0] for row in log],
            "user_id": [row[1] or None for row in log],
            "event_type": [row[2] for row in log],
            "event_timestamp": [milliseconds(row[3]) for row in log],
            "price_cents": [None] * len(log),
        },
        schema_overrides={"price_cents": pl.Int64},
    )
    processed = WindowEngine(user_click_features.source, [user_click_features]).process(records)
    watermarks = [None if row[5] == "none" else milliseconds(row[5]) for row in log]
    assert processed.records["watermark"].to_list() == watermarks
    assert processed.missed[user_click_features.name].tolist() == [int(row[6]) for row in log]

    emitted = {}
    for window in processed.windows:
        rows = {row["user_id"]: row for row in window.rows.iter_rows(named=True)}
        created = next(iter(rows.values()))["created_timestamp"]
        emitted[f"{created:%H:%M:%S}", window.end_ms] = (
            str(rows["a"]["click_count"]) if "a" in rows else "-",
            str(rows["b"]["view_count"]) if "b" in rows else "-",
        )
    told = table_after(document, "It leads to these rows")
    assert emitted == {(row[1], milliseconds(row[0])): (row[2], row[3]) for row in told}
