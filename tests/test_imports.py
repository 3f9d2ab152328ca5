"""Who imports whom, read from the source: arrows go up the house only, and never in a circle."""

from __future__ import annotations

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS = [{"feast_repo"}, {"stream", "batch"}, {"serving", "simulation"}, {"flows"}, {"sandbox"}, {"benchmarks"}]
"""A package imports itself and those of lower floors; nobody imports `tests`."""
COMMANDS = {("batch.profiles", "simulation"), ("stream.generator", "simulation")}
"""Commands whose code has moved up and which keep their names."""
ROOMS = {
    "feast_repo.declare": {"feast_repo.declare", "feast_repo.errors"},
    "feast_repo.codec": {"feast_repo.declare", "feast_repo.codec", "feast_repo.clickstream"},
}
PURE = ["feast_repo.declare", "feast_repo.features", "feast_repo.codec", "stream.windows", "simulation.events"]
SLOW = {"bytewax", "confluent_kafka", "feast"}


def floor(package: str) -> int:
    return next(number for number, packages in enumerate(FLOORS) if package in packages)


@cache
def modules() -> dict[str, Path]:
    packages = [package for packages in FLOORS for package in packages]
    files = [file for package in packages for file in (ROOT / package).rglob("*.py")]
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


@cache
def imports(module: str, *, at_import: bool = False) -> set[str]:
    """Modules that one names in import statements; those that run when it is imported, or all."""
    body = ast.parse(modules()[module].read_text())
    nodes = body.body if at_import else list(ast.walk(body))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in modules() else node.module for name in names}
    return found - {module}


def top(module: str) -> str:
    return module.partition(".")[0]


def test_arrows_go_up_only() -> None:
    known = {package for packages in FLOORS for package in packages} | {"tests"}
    wrong = [
        f"{module} imports {name}"
        for module in modules()
        for name in imports(module)
        if top(name) in known - {top(module)}
        and (module, top(name)) not in COMMANDS
        and (top(name) == "tests" or floor(top(name)) >= floor(top(module)))
    ]
    assert not wrong


def test_there_are_no_circles() -> None:
    graph = {module: imports(module) & set(modules()) for module in modules()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_it_may(room: str) -> None:
    inside = [module for module in modules() if f"{module}.".startswith(f"{room}.")]
    assert inside
    wrong = [
        f"{module} imports {name}"
        for module in inside
        for name in imports(module)
        if top(name) == "feast_repo" and not any(f"{name}.".startswith(f"{allowed}.") for allowed in ROOMS[room])
    ]
    assert not wrong


@pytest.mark.parametrize("start", PURE)
def test_what_is_pure_reaches_no_feast_kafka_or_bytewax(start: str) -> None:
    waiting = [module for module in modules() if f"{module}.".startswith(f"{start}.")]
    assert waiting
    reached: dict[str, str] = dict.fromkeys(waiting, start)
    while waiting:
        module = waiting.pop()
        for name in imports(module, at_import=True):
            assert top(name) not in SLOW, f"{reached[module]} -> {module} -> {name}"
            if name in modules() and name not in reached:
                reached[name] = f"{reached[module]} -> {module}"
                waiting.append(name)
