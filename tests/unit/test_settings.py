"""Merging, units, inheritance, and what happens to garbage."""

from __future__ import annotations

from pathlib import Path

import pytest

from miq import paths, settings
from miq.errors import SettingsError
from miq.models.worker_types import worker_types
from miq.settings import Settings, merge, number, read_file


def test_mappings_merge_lists_replace_null_does_not_override() -> None:
    merged = merge([{"a": {"b": 1, "c": [1, 2]}, "d": 3}, {"a": {"c": [9], "e": 5}, "d": None}])
    assert merged == {"a": {"b": 1, "c": [9], "e": 5}, "d": 3}


def test_merging_leaves_the_layers_alone() -> None:
    below = {"a": {"b": 1}}
    merge([below, {"a": {"b": 2}}])
    assert below == {"a": {"b": 1}}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("10.minutes", 600),
        ("1.hour", 3600),
        ("2.gigabytes", 2 * 2**30),
        ("1.5.megabytes", 1.5 * 2**20),
        ("7", 7),
        (7, 7),
    ],
)
def test_units(value: object, expected: float) -> None:
    assert number(value, "x") == expected


@pytest.mark.parametrize("value", ["ten", "10.parsecs", None, True, [], "10.x"])
def test_what_is_no_number_is_named_with_its_path(value: object) -> None:
    with pytest.raises(SettingsError, match=r"setting workers\.x"):
        number(value, "workers.x")


def test_a_worker_inherits_the_defaults_of_every_level() -> None:
    values = {
        "workers": {
            "base": {
                "defaults": {"poll": 1, "memory": 1},
                "count": 99,
                "queue": {"defaults": {"memory": 2}, "leaf": {"poll": 5}},
            }
        }
    }
    assert Settings(values).worker(("base", "queue", "leaf")) == {"poll": 5, "memory": 2}


def test_raising_a_default_reaches_every_class() -> None:
    """An operator who raises "all" limits must not miss one class."""
    shipped = read_file(paths.shipped("etc") / "miq.yml")
    raised = merge([shipped, {"workers": {"worker_base": {"defaults": {"heartbeat_timeout": "9.minutes"}}}}])
    for kind in worker_types().values():
        assert Settings(raised).worker_number(kind.settings_path, "heartbeat_timeout") == 540, kind.name


@pytest.mark.parametrize(
    ("text", "said"),
    [("a: [1", "line 1"), ("- 1\n- 2\n", "mapping is expected"), ("\tx: 1\n", "not YAML"), ("\x00", "not YAML")],
)
def test_a_file_of_garbage_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "settings.local.yml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=said) as caught:
        read_file(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_file_is_no_layer(tmp_path: Path) -> None:
    assert settings.read_file(tmp_path / "absent.yml") == {}
