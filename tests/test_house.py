"""The house rules that a machine can check: names, sizes, and what the project says of itself."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from miq import models, paths
from miq.models.worker_types import worker_types
from miq.queue.statements import STATEMENTS

CHECKOUT = Path(__file__).parent.parent
SOURCES = sorted((CHECKOUT / "miq").rglob("*.py"))


def tracked() -> list[Path]:
    """Every text file of the project."""
    listed = subprocess.run(["git", "ls-files"], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    return [CHECKOUT / name for name in listed.stdout.split() if (CHECKOUT / name).is_file()]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_every_module_opens_with_what_it_is(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text())), f"{path} has no prologue"


def test_no_giant_file() -> None:
    sizes = {str(path.relative_to(CHECKOUT)): len(path.read_text().splitlines()) for path in SOURCES}
    assert {name: lines for name, lines in sizes.items() if lines > 480} == {}


def test_every_public_function_and_class_says_what_it_does() -> None:
    silent = []
    for path in SOURCES:
        for node in ast.parse(path.read_text()).body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            if not ast.get_docstring(node):
                silent.append(f"{path.relative_to(CHECKOUT)}: {node.name}")
    assert silent == []


def test_no_rooms_for_odds_and_ends() -> None:
    assert [path for path in SOURCES if path.stem in ("utils", "util", "helpers", "helper", "common", "misc")] == []


def test_no_path_of_a_machine_and_no_registry_is_named() -> None:
    forbidden = re.compile(r"/(root|home)/\w+/|/work/(main|shared)|pypi\.org|proxy\.golang\.org|registry\.npmjs\.org")
    named = []
    for path in tracked():
        if path.name in ("test_house.py", "LICENSE"):
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        named += [f"{path.relative_to(CHECKOUT)}: {found[0]}" for found in forbidden.finditer(text)]
    assert named == []


def test_all_of_models_is_sorted_and_true() -> None:
    assert models.__all__ == sorted(models.__all__)
    assert all(hasattr(models, name) for name in models.__all__)


def test_every_named_statement_is_used_and_every_use_is_named() -> None:
    used = {name for path in SOURCES for name in re.findall(r'statement\("(\w+)"\)', path.read_text())}
    assert used == set(STATEMENTS)


def test_every_worker_type_finds_its_runner_and_its_settings() -> None:
    """The way from the row to the runner; `WorkerBase.worker_type` is the way back."""
    from miq.settings_loader import local
    from miq.workers.worker_base import WorkerBase

    settings = local(paths.Home(CHECKOUT / "no such home"))
    for name, kind in worker_types().items():
        assert issubclass(kind.runner_class(), WorkerBase), name
        for key in ("count", "poll", "heartbeat_freq", "heartbeat_timeout", "memory_threshold", "starting_timeout"):
            assert settings.worker_number(kind.settings_path, key) > 0, (name, key)


def test_lower_bounds_and_no_lock_file() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    assert [each for each in wanted if ">=" not in each] == []
    assert not (CHECKOUT / "uv.lock").exists()


def test_the_contracts_of_the_floors_hold() -> None:
    """What may import what stands in pyproject.toml; import-linter says whether it does."""
    linter = CHECKOUT / ".venv" / "bin" / "lint-imports"
    command = str(linter) if linter.exists() else "lint-imports"
    done = subprocess.run([command], cwd=CHECKOUT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
