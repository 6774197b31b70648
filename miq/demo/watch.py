"""What the tables say, as lines for the terminal: workers, credentials, refreshes, and the rows behind each change.

Reads only. `Watch.news` is called every moment and tells what is new since the last call; how it is worded is pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from miq import names
from miq.db import Database
from miq.demo.changes import Change

WORKERS = "SELECT id, type, status, pid, queue_name FROM miq_workers ORDER BY id"
CREDENTIALS = """
    SELECT status, status_details FROM authentications
     WHERE resource_type = 'ExtManagementSystem' AND resource_id = %(ems)s AND authtype = 'default'"""
REFRESHES = """
    SELECT id, state, seconds, cause, collections, error FROM ems_refreshes
     WHERE ems_id = %(ems)s AND id > %(last)s AND state <> 'running' ORDER BY id"""
LAST_REFRESH = "SELECT coalesce(max(id), 0) FROM ems_refreshes WHERE ems_id = %(ems)s"
VMS = """
    SELECT vms.id, vms.name, vms.raw_power_state, vms.power_state, flavors.name, availability_zones.name,
           vms.ems_id IS NULL AS archived,
           (SELECT string_agg(name || '=' || value, ' ' ORDER BY name) FROM custom_attributes
             WHERE resource_type = 'VmOrTemplate' AND resource_id = vms.id AND section = 'labels' AND name <> 'Name')
      FROM vms LEFT JOIN flavors ON flavors.id = vms.flavor_id
      LEFT JOIN availability_zones ON availability_zones.id = vms.availability_zone_id
     WHERE coalesce(vms.ems_id, vms.former_ems_id) = %(ems)s AND NOT vms.template
       AND (vms.ems_ref = %(ref)s OR (%(ref)s::text IS NULL AND vms.ems_id IS NOT NULL))
     ORDER BY vms.id DESC LIMIT %(most)s"""

FIRST_ROWS = 5


@dataclass(frozen=True)
class Awaited:
    """A change whose row a refresh later than `refresh_id` will show."""

    change: Change
    ems_ref: str
    refresh_id: int


class Watch:
    """One manager's progress."""

    def __init__(self, database: Database, ems_id: int) -> None:
        self._database = database
        self._ems_id = ems_id
        self._workers: dict[int, tuple[Any, ...]] = {}
        self._credentials: tuple[Any, ...] | None = None
        self._awaited: list[Awaited] = []
        self._last_refresh = self._newest_refresh()
        #: whether this run has seen the end of a refresh
        self.refreshed = False

    def expect(self, change: Change, ems_ref: str) -> None:
        """Show the row of that instance after the next refresh."""
        self._awaited.append(Awaited(change, ems_ref, self._newest_refresh()))

    def news(self) -> Iterator[str]:
        """Raises psycopg.OperationalError while the database is away."""
        now = {row[0]: row for row in self._database.run(WORKERS).fetchall()}
        before, self._workers = self._workers, now
        yield from worker_lines(before, now)
        credentials = self._database.run(CREDENTIALS, {"ems": self._ems_id}).fetchone()
        if credentials and credentials[0] and credentials != self._credentials:
            yield f"credentials  {credentials[0]}" + (f": {credentials[1]}" if credentials[0] != "Valid" else "")
        self._credentials = credentials
        for row in self._database.run(REFRESHES, {"ems": self._ems_id, "last": self._last_refresh}).fetchall():
            yield from self._refresh_ended(*row)

    def _refresh_ended(
        self, refresh_id: int, state: str, seconds: float, cause: str, collections: Mapping[str, Any], error: str | None
    ) -> Iterator[str]:
        yield refresh_line(state, seconds, cause, collections, error, everything=not self.refreshed)
        if not self.refreshed and state != "error":
            yield from (f"  vms  {row_line(row)}" for row in reversed(self._rows(None, FIRST_ROWS)))
        self.refreshed, self._last_refresh = True, refresh_id
        shown = [awaited for awaited in self._awaited if awaited.refresh_id < refresh_id and state != "error"]
        self._awaited = [awaited for awaited in self._awaited if awaited not in shown]
        for awaited in shown:
            found = self._rows(awaited.ems_ref, 1)
            yield f"  vms  {row_line(found[0]) if found else f'no row for {awaited.ems_ref}'}"

    def _rows(self, ems_ref: str | None, most: int) -> list[tuple[Any, ...]]:
        return self._database.run(VMS, {"ems": self._ems_id, "ref": ems_ref, "most": most}).fetchall()

    def _newest_refresh(self) -> int:
        row = self._database.run(LAST_REFRESH, {"ems": self._ems_id}).fetchone()
        return int(row[0]) if row else 0


def worker_lines(before: Mapping[int, tuple[Any, ...]], now: Mapping[int, tuple[Any, ...]]) -> Iterator[str]:
    """A line for each worker that is new, has another status, or is gone."""
    for worker_id, row in now.items():
        if worker_id not in before or before[worker_id][2] != row[2]:
            _, type_, status, pid, queue = row
            text = f"worker {worker_id:>3}  {names.brief(type_):<24} {status:<9} pid {pid or '-'}  {queue or ''}"
            yield text.rstrip()
    for worker_id, row in before.items():
        if worker_id not in now:
            yield f"worker {worker_id:>3}  {names.brief(row[1]):<24} gone"


def refresh_line(
    state: str, seconds: float | None, cause: str | None, collections: Mapping[str, Any], error: str | None,
    *, everything: bool,
) -> str:  # fmt: skip
    """How a refresh ended: every collection, or those that have changed."""
    told = [_counts(name, counts) for name, counts in collections.items() if everything or _changed(counts)]
    text = f"refresh {state} in {seconds or 0:.1f} s ({cause or 'no cause'}): {', '.join(told) or 'nothing changed'}"
    return f"{text}; {error}" if error else text


def _changed(counts: Mapping[str, Any]) -> bool:
    return any(counts.get(what) for what in ("created", "updated", "archived"))


def _counts(name: str, counts: Mapping[str, Any]) -> str:
    """`vms 25 +1 ~2 -1`: seen, created, updated, archived."""
    signs = (("created", "+"), ("updated", "~"), ("archived", "-"))
    changes = [f"{sign}{counts[what]}" for what, sign in signs if counts.get(what)]
    return " ".join([name, str(counts.get("seen", 0)), *changes])


def row_line(row: tuple[Any, ...]) -> str:
    """A row of `vms`, with what hangs on it."""
    vm_id, name, raw_state, state, flavor, zone, archived, labels = row
    words = [
        f"id {vm_id}",
        f"{name:<11}",
        f"{raw_state}/{state}",
        flavor,
        zone,
        labels,
        "archived" if archived else None,
    ]
    return "  ".join(word for word in words if word)
