"""Settings with their rows: the pure merge of `settings`, fed with what the database changes for one server.

Later wins: the shipped file and the providers' defaults, region, zone and server rows, MIQ_HOME/settings.local.yml.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import yaml

from miq import paths, plugins, settings
from miq.db import Database
from miq.errors import SettingsError
from miq.models.worker_types import worker_types
from miq.settings import Settings

_LEVELS = {"MiqRegion": 0, "Zone": 1, "MiqServer": 2}


@cache
def shipped() -> list[settings.Layer]:
    """The layers below the database's.

    They do not change while the program runs, and the mold has read them for its workers.
    """
    return [
        settings.read_file(paths.shipped("etc") / "miq.yml"),
        *(record.settings for record in plugins.providers().values()),
    ]


@cache
def defaults() -> Settings:
    """What is in force before the database and the appliance's own file are read."""
    return Settings(settings.merge(shipped()))


def local(home: paths.Home) -> Settings:
    """The settings of an appliance whose database is not read (yet)."""
    return Settings(settings.merge([*shipped(), settings.read_file(home.local_settings)]))


def load(
    database: Database, home: paths.Home, *, region_id: int | None, zone_id: int | None, server_id: int
) -> Settings:
    """The settings of one server. Raises SettingsError that names the file, the row or the setting."""
    rows = database.run(
        "SELECT resource_type, key, value FROM settings_changes WHERE (resource_type, resource_id) IN"
        " (('MiqRegion', %(region)s), ('Zone', %(zone)s), ('MiqServer', %(server)s))",
        {"region": region_id, "zone": zone_id, "server": server_id},
    ).fetchall()
    layers = [*shipped(), *_layers(rows), settings.read_file(home.local_settings)]
    return check(Settings(settings.merge(layers)))


def check(merged: Settings) -> Settings:
    """The same settings, if each is of the kind that is shipped. Raises SettingsError that names one that is not."""
    settings.check(merged.values, defaults().values)
    for kind in worker_types().values():
        path = kind.settings_path
        settings.check(merged.worker(path), defaults().worker(path), f"workers.{'.'.join(path)}")
    return merged


def _layers(rows: Iterable[tuple[Any, ...]]) -> Iterable[settings.Layer]:
    for _, key, value in sorted(rows, key=lambda row: _LEVELS.get(row[0], 0)):
        parts = [part for part in str(key).split("/") if part]
        if not parts or not str(key).startswith("/"):
            raise SettingsError(f"settings_changes: key {key!r} is not of the form /a/b/c")
        try:
            layer: Any = yaml.safe_load(value) if value is not None else None
        except yaml.YAMLError:
            raise SettingsError(f"settings_changes: the value of {key} is not YAML") from None
        for part in reversed(parts):
            layer = {part: layer}
        yield layer
