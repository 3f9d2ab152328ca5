"""What is built in names nothing of the shop's: it works over the catalog of any feature repository."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from feast_repo.declare.rows import ROW_COLUMNS
from feast_repo.features import catalog
from tests.test_imports import imports, modules

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("batch", "flows", "serving")
DECLARATIONS = {"feast_repo.features", "feast_repo.clickstream", "feast_repo.profiles"}
MEANT_OTHERWISE = {
    # The function's name and its default are what notebooks call it by.
    ("batch.drift.two_frames", "click_count"),
    # The name of an entity in requests and answers, whatever its join key is called.
    ("serving.messages", "user_id"),
    ("serving.openapi", "user_id"),
}


def names_of_the_shop() -> set[str]:
    """Of streams and their fields and kinds, of entities and join keys, of views, features, services and labels."""
    found = {stream.name for stream in catalog.streams} | {name for one in catalog.streams for name in one.by_name}
    found |= {name for view in catalog.views for name in (view.name, view.entity.name, *view.join_keys, *view.features)}
    found |= {view.push_source for view in catalog.windowed}
    found |= {service.name for service in catalog.services}
    found |= {service.label.name for service in catalog.services if service.label is not None}
    return found - set(ROW_COLUMNS)


def built_in() -> list[str]:
    return sorted(module for module in modules() if module.partition(".")[0] in PACKAGES)


def said(module: str) -> Iterator[tuple[str, int]]:
    """Texts and keyword arguments of a module, but not its docstrings, with their lines."""
    tree = ast.parse(modules()[module].read_text())
    documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
            yield node.value, node.lineno
        elif isinstance(node, ast.keyword) and node.arg is not None:
            yield node.arg, node.value.lineno


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_imports_declarations(package: str) -> None:
    inside = [module for module in built_in() if module.partition(".")[0] == package]
    assert inside
    assert not [f"{module} imports {name}" for module in inside for name in imports(module) & DECLARATIONS]


def test_no_text_is_a_name_of_the_shop() -> None:
    shop = names_of_the_shop()
    assert {"user_id", "price_cents", "click_count", "country", "purchased", "user_clicks_push"} < shop
    wrong = [
        f"{module}, line {line}: {name}"
        for module in built_in()
        for text, line in said(module)
        for name in shop & set(re.findall(r"\w+", text))
        if (text == name or "_" in name) and (module, name) not in MEANT_OTHERWISE
    ]
    assert not wrong


@pytest.mark.parametrize("page", sorted(file for one in PACKAGES for file in (ROOT / one).rglob("*.html")), ids=str)
def test_no_page_has_a_column_of_the_shop(page: Path) -> None:
    assert not {name for name in names_of_the_shop() if "_" in name} & set(re.findall(r"\w+", page.read_text()))
