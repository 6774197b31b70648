"""QueueWorkerBase: a worker that takes messages from one queue, as many at once as fit a fraction of a second.

What ended is recorded before anything new is taken, also across an outage of the database: what is in hand then is
written first (`miq.queue.batch`).
"""

from __future__ import annotations

import time

from miq.channel import Channel
from miq.launch import Launch
from miq.queue.appetite import Appetite
from miq.queue.batch import Batch
from miq.queue.claim import Claimer, Handler, Route, seconds_until_due
from miq.queue.deliver import Delivery
from miq.queue.methods import load_methods
from miq.queue.statements import statement
from miq.workers.worker_base import WorkerBase


class QueueWorkerBase(WorkerBase):
    """A worker with a queue."""

    def __init__(self, launch: Launch, channel: Channel | None = None) -> None:
        super().__init__(launch, channel)
        self.queue_name = launch.queue_name or self.worker_type.queue_name or "generic"
        self.delivery = Delivery(self.database, Handler("MiqWorker", 0), self.slot, stop_requested=self.stop_requested)
        self.batch = Batch(self.delivery, lambda: self.wires.stop_reason is not None)
        self._announced = True
        self._idle_polls = 0

    def config_loaded(self) -> None:
        roles = self.worker_type.required_roles or self.launch.roles or self.place.active_roles
        route = Route(self.queue_name, self.place.zone, roles, self.place.server_guid, self.worker_type.max_priority)
        self.delivery.handler = Handler("MiqWorker", self.place.worker_id)
        self.claimer = Claimer(self.database, self.delivery.handler, route)
        self.appetite = Appetite(int(self.number("prefetch_max_per_worker")), self.number("prefetch_seconds"))
        self.delivery.server_id = self.place.server_id
        self.delivery.info.update(worker_guid=self.launch.guid, settings=self.settings, zone=self.place.zone)
        self.delivery.renew()

    def after_initialize(self) -> None:
        load_methods()
        self.database.listen(f"miq_queue:{self.queue_name[:50]}", self._announce)

    def _announce(self, payload: str) -> None:
        self._announced = True
        self.claimer.heard(payload)

    def _woken(self) -> bool:
        return self._announced

    def do_work(self) -> bool:
        self._announced = False
        began = time.monotonic()
        taken = self.claimer.take(1 if self.launch.once else self.appetite.limit)
        self.batch.work(taken, self.appetite.brief)
        self.appetite.learn(len(taken), time.monotonic() - began)
        if any(message.task_id is not None for message in taken):
            self.claimer.forget()  # the next one of its kind may come before what was taken last
        self._idle_polls = 0 if taken else self._idle_polls + 1
        return bool(taken)

    def idle_seconds(self) -> float:
        """The safety net under NOTIFY: escalating polls, sooner when a deferred message falls due."""
        poll = min(self.number("poll_escalate_max"), self.number("poll") * 2.0 ** min(self._idle_polls, 10))
        due = seconds_until_due(self.database, self.queue_name)
        return poll if due is None else max(0.0, min(poll, due))

    def _reconnected(self) -> None:
        super()._reconnected()
        self._announced = True
        self.claimer.forget()
        self.batch.recover()

    def leaving(self) -> None:
        """Whoever else serves this queue looks at once for what was left to us."""
        self.database.run(statement("wake"), {"queue_name": self.queue_name})
