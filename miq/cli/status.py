"""`miq status`: the two tables of `evm:status`, how the last workers ended, and what is wrong.

Reads only; works with the server up or down.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from miq import paths, settings_loader
from miq.cli.connect import local_guid, open_database, settings_of
from miq.cli.output import AsJson, moment, print_json, print_table
from miq.cli.server import running_server
from miq.cli.status_report import Record, Report, read_report
from miq.cli.status_table import NUMBERS, SERVER_COLUMNS, WORKER_COLUMNS, ending, fold, megabytes
from miq.db import Database
from miq.errors import SettingsError
from miq.settings import Settings

LAST_EXITS = 10


def command(
    everywhere: Annotated[bool, typer.Option("--all", help="All servers, not only the one of this MIQ_HOME.")] = False,
    as_json: AsJson = False,
) -> None:
    """Servers, workers, and how the last ones ended."""
    with open_database() as database:
        settings, guids, garbage = _servers(database)
        guid = local_guid()
        chosen = guid if guid in guids and not everywhere else None
        dead = frozenset([guid]) if guid and running_server(paths.home()) is None else frozenset[str]()
        with database.session() as session:
            report = read_report(session, settings, chosen, last_exits=LAST_EXITS, gone=dead)
            report.bad_settings = garbage
    if as_json:
        print_json({"running": report.running, **asdict(report)})
    else:
        _print(report)


def _servers(database: Database) -> tuple[dict[int, Settings], set[str], list[str]]:
    """Each server's settings by its id, all their guids, and what is wrong with settings that cannot be used."""
    rows = database.run("SELECT id, guid FROM miq_servers").fetchall()
    settings: dict[int, Settings] = {}
    garbage: list[str] = []
    for server_id, _ in rows:
        try:
            settings[server_id] = settings_of(database, server_id)
        except SettingsError as error:
            settings[server_id] = settings_loader.defaults()
            garbage += [str(error)] if str(error) not in garbage else []
    return settings, {guid for _, guid in rows}, garbage


def _print(report: Report) -> None:
    print(_headline(report))
    _print_folded(SERVER_COLUMNS, [_server_cells(row, report) for row in report.servers])
    _print_folded(WORKER_COLUMNS, [_worker_cells(row, report) for row in report.workers])
    _print_exits(report)
    _print_trouble(report)


def _headline(report: Report) -> str:
    if not report.servers:
        return "No server has run on this database yet: `miq-server` starts one."
    if report.running:
        return f"{sum(row['running'] for row in report.servers)} of {len(report.servers)} servers running."
    last = max((row["last_heartbeat"] for row in report.servers if row["last_heartbeat"]), default=None)
    return f"The server is down (last heartbeat {moment(last, report.now) or 'never'}): `miq-server` starts it."


def _server_cells(row: Record, report: Report) -> list[str]:
    name = f"{row['name'] or ''}{'*' if row['is_master'] else ''}"
    values = (
        row["region"],
        row["zone"],
        name,
        row["status"],
        row["pid"],
        row["sql_spid"],
        row["workers"],
        row["version"],
    )
    times = (moment(row["started_on"], report.now), moment(row["last_heartbeat"], report.now))
    return [*map(_word, values), *times, megabytes(row["memory"]), ":".join(row["active_roles"])]


def _worker_cells(row: Record, report: Report) -> list[str]:
    status = row["shown_status"] + (" (unsupervised)" if row["unsupervised"] else "")
    values = (row["region"], row["zone"], row["brief_type"], status, row["pid"], row["sql_spid"], row["server"])
    queue = row["queue_name"] or row["uri"]
    times = (moment(row["started_on"], report.now), moment(row["last_heartbeat"], report.now))
    memory = megabytes(row["memory"], row["memory_threshold"])
    return [*map(_word, (*values, queue)), *times, _word(row["system_uid"]), memory]


def _word(value: object) -> str:
    return "" if value is None else str(value)


def _print_folded(columns: tuple[str, ...], rows: list[list[str]]) -> None:
    if not rows:
        return
    folded = fold(columns, rows)
    print()
    print_table(folded.columns, folded.rows, right=NUMBERS)
    if folded.line:
        print(folded.line)


def _print_exits(report: Report) -> None:
    if not report.exits:
        return
    print("\nLast exits:")
    rows = [
        (
            row["brief_type"],
            row["queue_name"],
            row["pid"],
            moment(row["ended_on"], report.now),
            ending(row["exit_code"], row["signal"], row["reason"]),
            moment(row["back_off_until"], report.now),
        )
        for row in report.exits
    ]
    print_table(("Type", "Queue", "PID", "Ended", "How", "Back-off until"), rows, right=("PID",))


def _print_trouble(report: Report) -> None:
    lines = [
        f"  {row['brief_type']} {row['queue_name'] or ''}: died {row['deaths_in_vain']} times in vain,"
        f" starts again at {moment(row['back_off_until'], report.now)}"
        for row in report.back_offs
    ]
    lines += [
        f"  {row['table']} {row['id']} {row['name'] or ''}: type {row['type']} is unknown here"
        for row in report.unknown_types
    ]
    lines += [f"  provider {name} does not load: {why}" for name, why in report.broken_providers.items()]
    lines += [f"  {what}" for what in report.bad_settings]
    if lines:
        print("\nNeeds attention:")
        print("\n".join(lines))
