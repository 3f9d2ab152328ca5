"""Mistakes that the tests of this folder must find: each a change of the product's source, put into the running code.

A change names a text that stands exactly once in its file, so a mutant whose text is no longer there fails loudly. The
steps of the commit are not named: whichever there are, each is left out, and each pair of neighbours swapped.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import types
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stream import commit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IN_ANY_ORDER = {"self._logs.finish()", "self._online.finish()"}
"""Neighbours that wait for different stores: which of them is first decides nothing."""


@dataclass(frozen=True)
class Mutant:
    """A module, and its source as it would be with a mistake in it."""

    name: str
    module: str
    source: str

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Let all functions and methods of the module run as the mutant has them."""
        module = importlib.import_module(self.module)
        mutated = types.ModuleType(self.module)
        mutated.__dict__.update(module.__dict__)
        code = compile(self.source, str(module.__file__), "exec", dont_inherit=True)
        exec(code, mutated.__dict__)  # noqa: S102  (our own source)
        changed = [
            (function, function.__code__, other.__code__)
            for name, function in _functions(module).items()
            if (other := _functions(mutated)[name]).__code__ != function.__code__
        ]
        assert changed, f"{self.name}: nothing differs"
        for function, _, new in changed:
            function.__code__ = new
        try:
            yield
        finally:
            for function, old, _ in changed:
                function.__code__ = old


def _functions(module: types.ModuleType) -> dict[str, Any]:
    """The functions and methods that a module defines, by qualified name."""
    found: dict[str, Any] = {}
    for value in vars(module).values():
        members = vars(value).values() if inspect.isclass(value) else (value,)
        for member in members:
            function = getattr(member, "fget", None) or getattr(member, "__func__", member)
            function = inspect.unwrap(function) if callable(function) else None
            if inspect.isfunction(function) and function.__code__.co_filename == module.__file__:
                found[function.__qualname__] = function
    return found


def changed(name: str, module: str, old: str, new: str) -> Mutant:
    """A mutant with one text in the place of another."""
    source = Path(str(importlib.import_module(module).__file__)).read_text()
    assert source.count(old) == 1, f"{name}: {module} has {source.count(old)} times {old!r}; write the mutant anew"
    return Mutant(name, module, source.replace(old, new))


def commit_mutants() -> Iterator[Mutant]:
    """Each step of the commit left out, and each pair of neighbours swapped."""
    source = inspect.getsource(commit)

    def with_steps(name: str, change: Callable[[list[ast.stmt]], None]) -> Mutant:
        tree = ast.parse(source)
        function = next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "commit")
        steps: list[ast.stmt] = [
            node for node in function.body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        ]
        first = function.body.index(steps[0])
        change(steps)
        function.body[first : first + len(steps)] = steps
        return Mutant(name, commit.__name__, ast.unparse(ast.fix_missing_locations(tree)))

    names = commit_steps()
    for number, step in enumerate(names):
        yield with_steps(f"commit without {step}", partial(_leave_out, number))
    for number, pair in enumerate(pairwise(names)):
        if set(pair) != IN_ANY_ORDER:
            yield with_steps(f"commit with {pair[1]} before {pair[0]}", partial(_swap, number))


def _leave_out(number: int, steps: list[ast.stmt]) -> None:
    steps[number] = ast.Pass()


def _swap(number: int, steps: list[ast.stmt]) -> None:
    steps[number : number + 2] = steps[number + 1], steps[number]


def commit_steps() -> list[str]:
    """The steps as they stand in the source: `self._logs.finish()`."""
    function = ast.parse(inspect.getsource(commit.Commit.commit).replace("\n    ", "\n").strip()).body[0]
    assert isinstance(function, ast.FunctionDef)
    return [
        ast.unparse(node) for node in function.body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ]


MISTAKES = (
    (
        "a window after the last committed one is skipped",
        "stream.commit",
        "end_ms > closed_end_ms",
        "end_ms > closed_end_ms + 600_000",
    ),
    (
        "the last committed window is written again",
        "stream.commit",
        "end_ms > closed_end_ms",
        "end_ms >= closed_end_ms",
    ),
    (
        "the record goes before the repeated push",
        "stream.commit",
        (
            "        self._online.push_what_a_restore_missed(epoch.windows)\n"
            "        self._online.confirm(advanced)\n"
            "        self._save(advanced)\n"
        ),
        (
            "        self._save(advanced)\n"
            "        self._online.push_what_a_restore_missed(epoch.windows)\n"
            "        self._online.confirm(advanced)\n"
        ),
    ),
    (
        "the source resumes one message too late",
        "stream.source",
        "        return self._next_offset\n\n    def close",
        "        return self._next_offset + 1\n\n    def close",
    ),
    (
        "a batch ends one message too early",
        "feast_repo.codec.decoding",
        "return self.offsets[-1] + 1 if self.offsets",
        "return self.offsets[-1] if self.offsets",
    ),
    (
        "a durable log row is taken again",
        "stream.log_table",
        'pl.col("offset") > taken[partition]',
        'pl.col("offset") >= taken[partition]',
    ),
    (
        "late by one window",
        "stream.view_windows",
        "np.clip(closed_before - pane, 0",
        "np.clip(closed_before - pane - 1, 0",
    ),
    (
        "a record counts in a closed window",
        "stream.view_windows",
        "np.maximum(closed_before, pane))",
        "np.maximum(closed_before - 1, pane))",
    ),
    (
        "a copy counts",
        "stream.windows",
        "ignored[at] |= self._seen.add(",
        "ignored[at] &= self._seen.add(",
    ),
    (
        "no expiry rows",
        "stream.panes",
        "return pane + self._panes_per_window + 1",
        "return pane + self._panes_per_window",
    ),
    (
        "an older row replaces a newer one",
        "feast_repo.stores.online.view",
        "data is None or time > known[data]",
        "data is None or time < known[data]",
    ),
    (
        "a row replaces one as new",
        "feast_repo.stores.online.view",
        "data is None or time > known[data]",
        "data is None or time >= known[data]",
    ),
    (
        "the content is not synced",
        "feast_repo.stores.offline.parquet",
        "            disk.sync(file)\n",
        "            file.flush()\n",
    ),
    (
        "the rename is not synced",
        "feast_repo.stores.offline.parquet",
        "    disk.sync_folder(path.parent)\n",
        "    pass\n",
    ),
    (
        "a new folder is not synced",
        "feast_repo.stores.offline.disk",
        "        add_folder(folder)\n    if ",
        "        add_folder(folder)\n        return\n    if ",
    ),
    (
        "a folder that a killed run made is not synced",
        "feast_repo.stores.offline.disk",
        "        if folder in _durable:\n            return\n",
        "        return\n",
    ),
    (
        "what Redis has lost is not noticed",
        "stream.redis_watch",
        "        return self._behind() or self._deleted()\n",
        "        return None\n",
    ),
    (
        "what a killed run wrote is relied on before it is durable",
        "feast_repo.stores.offline.disk",
        "        make_folder(folder)\n        sync_folder(folder)\n",
        "        pass\n",
    ),
)
"""Name, module, a text that stands once in it, and what stands there instead.

`progress.next_offset > stored[...]` with `>=` is no mistake: a position that has not moved would be saved once more, as
it is.
"""
