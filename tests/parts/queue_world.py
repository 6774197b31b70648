"""Queue methods that do as they are planned, and workers whose death is a step of the test.

`Machine.again` may run twice, `Machine.once` may not, `Machine.gone` is an instance call whose row is gone, and
`Machine.told` is a callback that notes in its own transaction whom it has told. What was started, and what came to its
end, is counted here, in memory, where no database can forget it.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from sqlalchemy.orm import Session

from miq.channel import InHand, Slot
from miq.db import Database
from miq.errors import ExitNow, RetryLater, StopRequested
from miq.models import Zone
from miq.queue.claim import Claimed, Handler
from miq.queue.deliver import Delivery
from miq.queue.methods import queue_method
from miq.queue.record import Outcome
from miq.session import run_in

ZONES = ("default", "other", "maintenance")
EFFECT = "INSERT INTO effects (message) VALUES (%(id)s)"


class Killed(ExitNow):
    """The worker dies in the middle of a message's code: the one thing that nothing catches."""

    def __init__(self) -> None:
        super().__init__(1, "killed")


@dataclass
class Worker:
    """One that takes messages: what it holds, and what it has run and not written yet."""

    delivery: Delivery
    held: list[Claimed] = field(default_factory=list)
    unwritten: Outcome | None = None
    finished: list[Claimed] = field(default_factory=list)

    @property
    def id(self) -> int:
        return self.delivery.handler.id

    @property
    def slot(self) -> Slot:
        assert self.delivery.slot is not None
        return self.delivery.slot


class World:
    """One database for all examples of a test, emptied between them; plans and counts of the example that runs."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self._folder = folder
        database.run("CREATE TABLE told (token bigint, status text)")
        database.run("CREATE TABLE effects (message bigint)")
        with database.session() as session:
            session.add_all([Zone(name=name) for name in ZONES])
        database.run(
            "INSERT INTO miq_regions (region, maintenance_zone_id) SELECT 0, id FROM zones WHERE name = 'maintenance'"
        )
        self.begin()

    def begin(self) -> None:
        """An example begins: nothing is there."""
        for table in ("miq_queue", "miq_tasks", "told", "effects"):
            self.database.run(f"DELETE FROM {table}")
        self.later: datetime | None = None
        self.plans: dict[int, str] = {}
        self.started: Counter[int] = Counter()
        self.retries: Counter[int] = Counter()
        #: messages whose code ran to its end, and the args of those
        self.done: set[int] = set()
        self.done_args: set[int] = set()
        self._worker: Worker | None = None
        self.died_with: InHand | None = None

    def worker(self, number: int) -> Worker:
        """A new one, with a slot of its own."""
        path = self._folder / f"slot-{number}"
        path.unlink(missing_ok=True)
        return Worker(Delivery(self.database, Handler("MiqWorker", number), Slot(path)))

    def plan(self, worker: Worker, plans: dict[int, str]) -> None:
        """What the next messages do, by id; those that are not named do well."""
        self.plans, self._worker = plans, worker

    def perform(self, session: Session, *args: int) -> None:
        """The code of a message."""
        message: Claimed = session.info["message"]
        self.started[message.id] += 1
        plan = self.plans.pop(message.id, "ok")
        if plan in ("ok in its session", "error", "lose the database"):
            run_in(session, EFFECT, {"id": message.id})
        if plan == "error":
            raise ValueError("planned")
        if plan == "retry":
            self.retries[message.id] += 1
            raise RetryLater(self.later)
        if plan == "stop":
            raise StopRequested("planned")
        if plan == "timeout":
            assert self._worker is not None
            self._worker.delivery.alarm.start(0.001)
            time.sleep(30)
        if plan == "die":
            assert self._worker is not None
            self.died_with = self._worker.slot.read()
            raise Killed
        if plan == "lose the database":
            self.database.connection.close()
            run_in(session, EFFECT, {"id": message.id})
        self.done.add(message.id)
        self.done_args.update(args)


def register(world: World) -> None:
    """The methods of its messages."""

    def perform(session: Session, record: object, *args: int) -> None:
        world.perform(session, *args)

    queue_method("Machine", "again", idempotent=True)(perform)
    queue_method("Machine", "once")(perform)
    queue_method("Machine", "gone", idempotent=True, model=Zone)(perform)

    @queue_method("Machine", "told", idempotent=True)
    def told(session: Session, record: None, token: int, status: str, *rest: object) -> None:
        run_in(session, "INSERT INTO told VALUES (%(token)s, %(status)s)", {"token": token, "status": status})
