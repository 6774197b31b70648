"""`docs/walks.md` and the docs around it speak of what is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parent.parent
NAMES = sorted(set(re.findall(r"`([\w./]+\.py):([\w.]+)`", (CHECKOUT / "docs" / "walks.md").read_text())))


def defined(tree: ast.Module, dotted: str) -> bool:
    """Whether a module defines this name: a function, a class, or a method of one."""
    body: list[ast.stmt] = tree.body
    for part in dotted.split("."):
        found = [
            node
            for node in body
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef) and node.name == part
        ]
        if not found:
            return False
        body = found[0].body
    return True


def test_there_are_walks() -> None:
    assert len(NAMES) > 40


@pytest.mark.parametrize(("path", "name"), NAMES)
def test_every_name_of_the_walks_is_there(path: str, name: str) -> None:
    assert defined(ast.parse((CHECKOUT / path).read_text()), name)


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in (CHECKOUT / "docs").glob("*.md"))]
)
def test_every_link_of_a_page_leads_somewhere(page: str) -> None:
    path = CHECKOUT / page
    links = re.findall(r"\]\(([^)#:]+)\)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []
