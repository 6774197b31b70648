"""`miq-worker CLASS [EMS_ID]`: runs one worker by hand, in the foreground, with the server up or down.

Its row says `unsupervised`: a running server counts it as present, stops its own twin first, and never times it out
or kills it. The row goes when the worker ends; `miq_worker_exits` keeps how it ended.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from miq import log, names, paths, plugins, process, settings_loader
from miq.database_address import database_address
from miq.db import Database
from miq.errors import MiqError, UnknownManager, UsageError
from miq.launch import Launch
from miq.models import AssignedServerRole, ExtManagementSystem, MiqServer, MiqWorker, ServerRole, WorkerStatus
from miq.models.miq_server import SERVER_ACTIVE
from miq.models.worker_types import WorkerType, find_worker_type, worker_types
from miq.paths import Home
from miq.schema import check_schema
from miq.server import rows, seeding
from miq.server.children import Exit
from miq.server.leftovers import close_row
from miq.settings import Settings
from miq.workers.bin.arguments import Arguments
from miq.workers.bin.beside import watch_beside

logger = logging.getLogger("miq.workers.bin.worker")

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2


def _parser() -> argparse.ArgumentParser:
    parser = Arguments("miq-worker", "Runs one worker by hand; Ctrl-C ends it after the message in hand.")
    parser.add_argument("worker_class", nargs="?", metavar="CLASS", help="full or short name; -l lists them")
    parser.add_argument("ems", nargs="?", type=int, metavar="EMS_ID", help="id of the manager, for per-manager classes")
    parser.add_argument("-l", "--list", action="store_true", help="list the worker classes and leave")
    parser.add_argument("--json", action="store_true", help="with --list or --dry-run: as JSON")
    parser.add_argument("-g", "--guid", help="use the row with this guid, or make it")
    parser.add_argument("-e", "--ems-id", type=int, help="same as EMS_ID", default=_environment_ems_id())
    parser.add_argument("-b", "--heartbeat", action="store_true", help="beat by sd_notify and a liveness file")
    parser.add_argument("-d", "--dry-run", action="store_true", help="say what it would take, and leave")
    parser.add_argument("--once", action="store_true", help="deliver one message (or run one pass), and leave")
    parser.add_argument("--beside", action="store_true", help="only watch the server's worker of this class")
    return parser


def _environment_ems_id() -> int | None:
    value = os.environ.get("EMS_ID", "")
    return int(value) if value.isdigit() else None


def main(argv: list[str] | None = None) -> int:
    """Run it; 0 after a clean end, 1 when it failed, 2 for input that cannot be used."""
    options = _parser().parse_args(argv)
    log.hold_back()
    try:
        if options.list:
            _list(options.json)
            return EXIT_OK
        if options.worker_class is None:
            raise UsageError("which worker class? `miq-worker -l` lists them")
        kind = find_worker_type(options.worker_class)
        return _with_database(kind, options)
    except UsageError as error:
        print(f"miq-worker: {error}", file=sys.stderr)
        return EXIT_USAGE
    except MiqError as error:
        print(f"miq-worker: {error}", file=sys.stderr)
        return EXIT_FAILED


def _list(as_json: bool) -> None:
    listed = [
        {"class": names.short(name), "name": name, "per": kind.per, "queue": kind.queue_name, "runner": kind.runner}
        for name, kind in worker_types().items()
    ]
    for name, why in plugins.broken().items():
        print(f"provider {name} does not load: {why}", file=sys.stderr)
    if as_json:
        print(json.dumps(listed, indent=2))
        return
    for each in listed:
        print(f"{each['class']:<45} {'EMS_ID' if each['per'] == 'manager' else ''}")


def _with_database(kind: type[WorkerType], options: argparse.Namespace) -> int:
    home = paths.home().make()
    settings = settings_loader.check(settings_loader.local(home))
    log.configure(home.log_file, settings.get("log.level"), terminal=not options.dry_run)
    with database_address(home) as dsn:
        database = Database(dsn, "MIQ miq-worker")
        check_schema(database)
        ems_id = options.ems if options.ems is not None else options.ems_id
        queue_name = _queue(database, kind, ems_id)
        try:
            if options.dry_run:
                return _dry_run(database, kind, queue_name, options.json)
            if options.beside:
                return watch_beside(database, home, kind, queue_name)
            return _run(database, home, kind, queue_name, options)
        finally:
            database.close()


def _queue(database: Database, kind: type[WorkerType], ems_id: int | None) -> str | None:
    """The queue of this worker. Raises UsageError when a manager is missing, unknown or of another class."""
    if kind.per != "manager":
        if ems_id is not None:
            raise UsageError(f"{names.short(kind.name)} belongs to no manager: leave the id {ems_id} out")
        return kind.queue_name
    if ems_id is None:
        raise UsageError(f"{names.short(kind.name)} works for one manager: give its id; `miq ems list` shows them")
    with database.session() as session:
        ems = session.get(ExtManagementSystem, ems_id)
    if ems is None:
        raise UnknownManager(f"no manager has the id {ems_id}: `miq ems list` shows them")
    if ems.type != kind.manager:
        raise UsageError(f"manager {ems.name!r} is a {names.short(ems.type or '?')}, not a {names.short(kind.manager)}")
    return names.queue_of(ems_id)


def _dry_run(database: Database, kind: type[WorkerType], queue_name: str | None, as_json: bool) -> int:
    waiting = database.run(
        "SELECT id, class_name, method_name, priority, zone, role FROM miq_queue WHERE state = 'ready'"
        " AND queue_name = %(queue)s ORDER BY priority, id LIMIT 20",
        {"queue": queue_name},
    ).fetchall()
    messages = [
        f"{row[0]} {row[1]}.{row[2]} priority {row[3]} zone {row[4] or 'any'} role {row[5] or 'none'}"
        for row in waiting
    ]
    facts = {
        "class": kind.name,
        "runner": kind.runner,
        "queue": queue_name,
        "required_roles": list(kind.required_roles),
        "would_take": messages,
    }
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        print(f"{kind.name} runs {kind.runner}, queue {queue_name}, roles {', '.join(kind.required_roles) or 'none'}")
        print("\n".join(f"would take {message}" for message in messages) or "nothing waits for it")
    return EXIT_OK


def _run(
    database: Database, home: Home, kind: type[WorkerType], queue_name: str | None, options: argparse.Namespace
) -> int:
    runner = _runner_class(kind)
    server, settings = _own_server(database, home)
    roles = _roles(database, server, kind)
    row = _own_row(database, server.id, kind, queue_name, options.guid)
    launch = Launch(
        row.guid or "", kind.name, queue_name, database.dsn, str(home.path),
        once=options.once, heartbeat=options.heartbeat, roles=roles, settings=settings.values,
    )  # fmt: skip
    code = EXIT_FAILED
    try:
        _wait_for_twin(database, row, kind)
        code = runner(launch).start()
        return int(code)
    finally:
        _leave(database, home, server.id, row, code)


def _runner_class(kind: type[WorkerType]) -> Any:  # noqa: ANN401 - a runner
    """The class that runs the worker, before anything is written. Raises UsageError when it does not import."""
    try:
        return kind.runner_class()
    except Exception as error:  # a plug-in's code: whatever it raises is its own
        raise UsageError(
            f"{names.short(kind.name)}: {kind.runner} does not import ({type(error).__name__}: {error}):"
            " install what its provider needs"
        ) from None


def _own_server(database: Database, home: Home) -> tuple[MiqServer, Settings]:
    with database.session() as session:
        seeding.seed(session, seeding.check_key(session, home.key_file))
        server = seeding.own_server(session, seeding.own_guid(home.guid_file))
        return server, seeding.settings_of(session, home, server)


def _roles(database: Database, server: MiqServer, kind: type[WorkerType]) -> Sequence[str] | None:
    """None when the server's active roles count.

    The assigned ones when it is down. Raises MiqError when one is missing.
    """
    with database.session() as session:
        found = session.execute(
            select(ServerRole.name, AssignedServerRole.active)
            .join(AssignedServerRole, AssignedServerRole.server_role_id == ServerRole.id)
            .where(AssignedServerRole.miq_server_id == server.id)
        ).all()
    if server.status not in SERVER_ACTIVE:
        return sorted(name or "" for name, _ in found)
    active = [name for name, is_active in found if is_active]
    missing = [role for role in kind.required_roles if role not in active]
    if missing:
        raise MiqError(
            f"{names.short(kind.name)} needs the role {', '.join(missing)}, which is not active on this server"
        )
    return None


def _own_row(
    database: Database, server_id: int, kind: type[WorkerType], queue_name: str | None, guid: str | None
) -> MiqWorker:
    with database.session() as session:
        row = session.scalars(select(MiqWorker).where(MiqWorker.guid == guid)).first() if guid else None
        if row is None:
            row_id, new_guid = rows.create_worker(database, server_id, (kind.name, queue_name))
            row = session.get_one(MiqWorker, row_id)
            row.guid = guid or new_guid
        row.unsupervised = True
        row.pid = os.getpid()
        row.pid_start = process.start_time(os.getpid())
        row.status = WorkerStatus.CREATING
        session.flush()
        database.run("NOTIFY miq_sync")
        return row


def _wait_for_twin(database: Database, row: MiqWorker, kind: type[WorkerType]) -> None:
    """Two workers of one manager never run at once: the server stops its own for us."""
    if kind.per == "pool":
        return
    told = False
    while _twin(database, row) is not None:
        if not told:
            logger.info("MIQ(Worker.wait) waiting for the server's own %s to end", names.short(kind.name))
            told = True
        time.sleep(0.1)


def _twin(database: Database, row: MiqWorker) -> rows.WorkerRow | None:
    for other in rows.worker_rows(database, row.miq_server_id or 0):
        same = (other.type_name, other.queue_name) == (row.type, row.queue_name) and other.id != row.id
        if same and (other.pid is None or other.runs()):
            return other
    return None


def _leave(database: Database, home: Home, server_id: int, row: MiqWorker, code: int) -> None:
    """Our row, our messages, our exit: what the server does for its own workers."""
    ours = rows.WorkerRow(
        row.id, row.guid or "", row.type or "", row.queue_name, row.status or "", row.pid, row.pid_start, True
    )
    close_row(database, home, server_id, ours, Exit(code, None), "run by hand")
    database.run("NOTIFY miq_sync")


if __name__ == "__main__":
    sys.exit(main())
