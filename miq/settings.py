"""Settings: layers of nested mappings, merged; strings with units turned into numbers on use.

In: layers (the shipped `etc/miq.yml`, providers' defaults, rows of `settings_changes`, MIQ_HOME/settings.local.yml).
Out: one `Settings`, read by dotted path. Pure: this module reads files but never the database
(`settings_loader` adds its rows). Merge rules are ManageIQ's: mappings deep, lists replaced, null does not override.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from miq.errors import SettingsError

Layer = Mapping[str, Any]

_UNITS = {
    "second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800, "month": 2592000, "year": 31557600,
    "byte": 1, "kilobyte": 2**10, "megabyte": 2**20, "gigabyte": 2**30, "terabyte": 2**40, "percent": 1,
}  # fmt: skip
_WITH_UNIT = re.compile(r"(\d+(?:\.\d+)?)\.([a-z]+)")


def merge(layers: Iterable[Layer]) -> dict[str, Any]:
    """Later layers win, mapping by mapping."""
    merged: dict[str, Any] = {}
    for layer in layers:
        _merge_into(merged, layer)
    return merged


def _merge_into(base: dict[str, Any], layer: Layer) -> None:
    for key, value in layer.items():
        if isinstance(value, Mapping):
            below = base.get(key)
            base[key] = dict(below) if isinstance(below, Mapping) else {}
            _merge_into(base[key], value)
        elif value is not None or key not in base:
            base[key] = value


def number(value: object, path: str) -> float:
    """Seconds, bytes or a plain number from `10.minutes`, `1.5.gigabytes`, `"7"` or 7; none is negative or endless.

    Raises SettingsError that names `path`.
    """
    amount = _amount(value)
    if amount is None or not 0 <= amount < math.inf:
        raise SettingsError(f"setting {path}: {value!r} is not a number from 0 on; write 30, 30.seconds or 2.gigabytes")
    return amount


def _amount(value: object) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return float(value)
    text = str(value).strip().replace("_", "")
    match = _WITH_UNIT.fullmatch(text)
    unit = _UNITS.get(match[2].removesuffix("s")) if match else None
    if match and unit:
        return float(match[1]) * unit
    try:
        return float(text)
    except ValueError:
        return None


def names(value: object, path: str) -> list[str]:
    """A list of strings; a comma-separated string is one too. Raises SettingsError that names `path`."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",") if part.strip()]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise SettingsError(f"setting {path}: a list of names is expected, not {value!r}")
    return list(value)


def check(values: Layer, shape: Layer, path: str = "") -> None:
    """Raises SettingsError that names the first value of another kind than the one at its place in `shape`.

    What is expected to be a section may hold secrets: its value is not repeated.
    """
    for key, example in shape.items():
        value, here = values.get(key, example), f"{path}.{key}".removeprefix(".")
        if example is None:
            continue
        if isinstance(example, Mapping):
            if not isinstance(value, Mapping):
                raise SettingsError(f"setting {here}: a mapping is expected, not a {type(value).__name__}")
            check(value, example, here)
        elif isinstance(example, list):
            _check_list(value, example, here)
        elif isinstance(example, bool) or _amount(example) is None:
            if not isinstance(value, type(example)):
                raise SettingsError(f"setting {here}: {value!r} is of another kind than {example!r}")
        else:
            number(value, here)


def _check_list(value: object, example: list[Any], path: str) -> None:
    if all(isinstance(each, str) for each in example):
        names(value, path)
    elif not isinstance(value, list):
        raise SettingsError(f"setting {path}: a list is expected, not {value!r}")


def read_file(path: Path) -> dict[str, Any]:
    """One layer from a YAML file; {} when there is no such file. Raises SettingsError that names file and line."""
    try:
        loaded = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings file {path} cannot be read: {error}") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise SettingsError(f"settings file {path}{where}: not YAML ({_problem(error)})") from None
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise SettingsError(f"settings file {path}: a mapping is expected at the top, not a {type(loaded).__name__}")
    return loaded


def _problem(error: yaml.YAMLError) -> str:
    return str(getattr(error, "problem", None) or error).splitlines()[0]


class Settings:
    """The merged settings of one server."""

    def __init__(self, values: Layer) -> None:
        self.values = values

    def get(self, path: str, default: Any = None) -> Any:  # noqa: ANN401 - a setting may hold any YAML value
        """The value at `a.b.c`, or the default."""
        here: Any = self.values
        for key in path.split("."):
            if not isinstance(here, Mapping) or key not in here:
                return default
            here = here[key]
        return here

    def number(self, path: str, default: float | None = None) -> float:
        """The number at `a.b.c` in seconds, bytes or itself. Raises SettingsError when absent without a default."""
        value = self.get(path, default)
        return number(value, path)

    def names(self, path: str) -> list[str]:
        """The list of strings at `a.b.c`; a comma-separated string is one too."""
        return names(self.get(path, []), path)

    def worker(self, path: tuple[str, ...]) -> dict[str, Any]:
        """A worker type's own settings: `defaults` of every level above it, then its whole section (reference 10.3)."""
        here: Any = self.values.get("workers", {})
        effective: dict[str, Any] = {}
        for depth, key in enumerate(path):
            here = here.get(key) if isinstance(here, Mapping) else None
            if here is None:
                here = {}
            if not isinstance(here, Mapping):
                raise SettingsError(f"setting workers.{'.'.join(path[: depth + 1])}: a mapping is expected")
            last = depth == len(path) - 1
            _merge_into(effective, here if last else here.get("defaults") or {})
        return effective

    def worker_number(self, path: tuple[str, ...], key: str) -> float:
        """One number of a worker type. Raises SettingsError that names its path."""
        return number(self.worker(path).get(key), f"workers.{'.'.join(path)}.{key}")
