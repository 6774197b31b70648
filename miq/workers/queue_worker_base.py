"""QueueWorkerBase: a worker that takes messages from one queue, one after the other.

What ended is recorded before anything new is taken, also across an outage of the database: the outcome in hand is
written first. A message that ran into its time-out ends the worker after its callback, as in the modelled system,
because nobody knows what the interrupted code left behind.
"""

from __future__ import annotations

import psycopg

from miq.channel import Channel
from miq.errors import ExitNow
from miq.launch import Launch
from miq.queue.claim import Claimed, Handler, Route, claim, seconds_until_due
from miq.queue.deliver import Delivery, LostDatabase, Outcome, deliver, give_back, record
from miq.queue.methods import find_method, load_methods
from miq.workers.worker_base import WorkerBase


class QueueWorkerBase(WorkerBase):
    """A worker with a queue."""

    def __init__(self, launch: Launch, channel: Channel | None = None) -> None:
        super().__init__(launch, channel)
        self.queue_name = launch.queue_name or self.worker_type.queue_name or "generic"
        self.delivery = Delivery(
            self.database, self.slot, stop_requested=self.stop_requested, info={"worker_guid": launch.guid}
        )
        self._unwritten: Outcome | None = None
        self._announced = True
        self._idle_polls = 0

    def after_initialize(self) -> None:
        load_methods()
        self.handler = Handler("MiqWorker", self.place.worker_id)
        self.database.listen(f"miq_queue:{self.queue_name[:50]}", self._announce)

    def config_loaded(self) -> None:
        roles = self.worker_type.required_roles or self.launch.roles or self.place.active_roles
        self.route = Route(
            self.queue_name, self.place.zone, roles, self.place.server_guid, self.worker_type.max_priority
        )
        self.delivery.server_id = self.place.server_id
        self.delivery.info["settings"] = self.settings

    def _announce(self) -> None:
        self._announced = True

    def _woken(self) -> bool:
        return self._announced

    def do_work(self) -> bool:
        self._write_outcome()
        self._announced = False
        taken = claim(self.database, self.handler, self.route)
        for message in taken:
            self._handle(message)
        self._idle_polls = 0 if taken else self._idle_polls + 1
        return bool(taken)

    def _handle(self, message: Claimed) -> None:
        try:
            self._unwritten = deliver(message, self.delivery)
        except LostDatabase as lost:
            again = find_method(message.class_name, message.method_name).idempotent
            self._unwritten = Outcome(message, "retry" if again else "error", str(lost))
            raise psycopg.OperationalError(str(lost)) from lost
        timed_out = self._unwritten.status == "timeout"
        if timed_out:
            self.database.close()
        self._write_outcome()
        if timed_out:
            raise ExitNow(1, f"message {message.id} timed out")

    def _write_outcome(self) -> None:
        if self._unwritten is not None:
            record(self._unwritten, self.delivery)
            self._unwritten = None

    def idle_seconds(self) -> float:
        """The safety net under NOTIFY: escalating polls, sooner when a deferred message falls due."""
        poll = min(self.number("poll_escalate_max"), self.number("poll") * 2.0 ** min(self._idle_polls, 10))
        due = seconds_until_due(self.database, self.queue_name)
        return poll if due is None else max(0.0, min(poll, due))

    def _reconnected(self) -> None:
        super()._reconnected()
        self._announced = True
        self._write_outcome()
        self._give_back_unknown()

    def _give_back_unknown(self) -> None:
        """A claim whose answer was lost with the connection: the rows are ours, and nothing of them was started."""
        held = self.database.run(
            "SELECT id FROM miq_queue WHERE state = 'dequeue' AND handler_type = %(kind)s AND handler_id = %(id)s",
            {"kind": self.handler.kind, "id": self.handler.id},
        ).fetchall()
        if held:
            give_back(self.database, [row[0] for row in held])
