"""Our queue as one of the peers of another harness: what `EXTRA_PEERS="miq_py=PYTHON .../peer_adapter.py"` names.

    setup | enqueue single|batch N B | lat N GAP | work CONFIG | crash SECS

In: the verb, and the database in BENCH_DSN. Out: what the harness's own module `stats`, which lies in its working
directory, reports. MIQ_HOME is `$BENCH_HOME/miq`, one for all databases, which are copies of one that `setup` made. A
worker is `miq-worker MiqGenericWorker`, this process; in the test of crashes (CRASHLOG) it is a whole `miq-server` with
one generic worker, because what brings a message back is the server.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from pathlib import Path
from typing import Any

from miq import log
from miq.db import Database
from miq.paths import Home
from miq.queue.message import Message
from miq.queue.methods import queue_method
from miq.queue.put import put, put_many
from miq.schema import migrate
from miq.secrets import Key
from miq.server import seeding
from miq.workers.bin import worker

CHECKOUT = Path(__file__).resolve().parent.parent
SETTINGS = """
server: {mold: {preload: [benchmarks.peer_adapter]}}
workers: {worker_base: {queue_worker_base: {generic_worker: {count: 1}}}}
"""


def harness() -> Any:  # noqa: ANN401 - a module that is not ours
    """Its `stats`."""
    sys.path.append(str(Path.cwd()))
    return importlib.import_module("stats")


stats = harness()


@queue_method("Bench", "job", idempotent=True)
def job(session: object, record: None, payload: dict[str, Any]) -> None:
    """The job that all peers run."""
    stats.run_job(payload)


def message(payload: dict[str, Any]) -> Message:
    return Message("Bench", "job", [payload])


def setup(database: Database, home: Home) -> None:
    """The schema, zones and roles, and the row of the one appliance."""
    migrate(database, progress=lambda text: None)
    with database.session() as session:
        seeding.seed(session, Key.load_or_create(home.key_file))
        seeding.own_server(session, seeding.own_guid(home.guid_file))


def put_one(database: Database, payload: dict[str, Any]) -> None:
    """In a transaction of its own."""
    with database.session() as session:
        session.info["zone"] = "default"
        put(session, message(payload))


def enqueue(database: Database, mode: str, count: int, batch: int) -> None:
    """So many, one by one or in batches."""
    began = time.monotonic()
    if mode == "single":
        for number in range(count):
            put_one(database, {"id": number})
    else:
        for start in range(0, count, batch):
            with database.session() as session:
                session.info["zone"] = "default"
                put_many(session, [message({"id": number}) for number in range(start, min(count, start + batch))])
    stats.report(count, began)


def work(home: Home) -> int:
    """Until killed."""
    if os.environ.get("CRASHLOG"):
        home.local_settings.write_text(SETTINGS)
        paths = [str(CHECKOUT), str(Path.cwd())]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        os.execve(sys.executable, [sys.executable, "-m", "miq.workers.bin.server"], environment)
    stats.start()
    return worker.main(["MiqGenericWorker"])


def main(verb: str, *arguments: str) -> int:
    """One verb of the harness."""
    dsn = os.environ["BENCH_DSN"]
    home = Home(Path(os.environ.get("BENCH_HOME", Path.home() / ".cache" / "miq-bench")) / "miq").make()
    os.environ.update(MIQ_HOME=str(home.path), DATABASE_URL=dsn)
    log.configure(home.log_file)
    database = Database(dsn, "MIQ bench")
    match verb, *arguments:
        case "setup", *_:
            setup(database, home)
        case "enqueue", mode, count, batch:
            enqueue(database, mode, int(count), int(batch))
        case "lat", count, gap:
            for pause in stats.gaps(int(count), float(gap)):
                time.sleep(pause)
                put_one(database, {"t": stats.now()})
        case "crash", seconds:
            put_one(database, {"id": 1, "s": float(seconds)})
        case "work", *_:
            return work(home)
        case _:
            print(
                f"peer_adapter: {verb} {' '.join(arguments)} is none of its verbs; its docstring has them",
                file=sys.stderr,
            )
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
