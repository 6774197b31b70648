"""The queue against its model: whatever is put, taken, run, given back and killed in any order, nothing is lost.

Hypothesis draws the steps (those that put are in `tests/parts/queue_puts.py`); each is done to the real tables by the
real code and to `tests/parts/queue_model.py`, and the two have to agree row by row after every one. Three workers take
messages; they die while idle, in the middle of a message's code, and after it; what they write when they were long
taken for dead must change nothing. Time is a parameter. At the end everything that can still run is run, and it is
counted who was told and what was done.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule, run_state_machine_as_test

from miq.channel import InHand as SlotSays
from miq.clock import utc
from miq.db import Database
from miq.errors import ExitNow
from miq.queue import batch as batch_module
from miq.queue.batch import Batch
from miq.queue.claim import BEGINNING, Claimed, Route, claim
from miq.queue.deliver import deliver
from miq.queue.put import put
from miq.queue.record import finish, record
from miq.queue.sweep import Death, sweep
from tests.parts.queue_model import InHand, Row, Waiter, covered_by
from tests.parts.queue_puts import BASE, MATCHES, Puts, of_a_kind, waiters
from tests.parts.queue_world import Killed, Worker, World, register

#: when what asks for a retry is due
IN_TWO_HOURS = BASE + timedelta(hours=2)
EVERYTHING = [Route("generic", zone, ["event"], None) for zone in ("default", "other")]
ROUTES = [
    *EVERYTHING,
    Route("generic", "other", [], None),
    Route("generic", None, ["event", "reporting"], None, max_priority=20),
]
PLANS = ["ok", "ok in its session", "error", "retry", "stop"]
COLUMNS = "id, state, handler_id, attempts, priority, zone, role, task_id, merge_key, miq_task_id, miq_callback, args"

workers = st.integers(0, 2)


class QueueMachine(Puts):
    """Steps, and what has to hold after each."""

    def __init__(self) -> None:
        super().__init__()
        self.world.later = IN_TWO_HOURS
        self.now = BASE
        self.handler_ids = iter(range(1, 10**9))
        self.dead: list[Worker] = []
        self.workers = [self.world.worker(next(self.handler_ids)) for _ in range(3)]

    # -- taking --------------------------------------------------------------------------------------------------------

    @rule(
        number=workers,
        route=st.sampled_from(ROUTES),
        limit=st.integers(1, 10),
        after=st.sampled_from([BEGINNING, BEGINNING, (20, 10**9), (100, 0)]),
    )
    def claim(self, number: int, route: Route, limit: int, after: tuple[int, int] = BEGINNING) -> None:
        worker = self.workers[number]
        taken = claim(self.database, worker.delivery.handler, route, limit=limit, after=after, now=self.now)
        expected = self.model.claim(worker.id, _takes(route), limit, after, self.now)
        assert [message.id for message in taken] == expected
        worker.held += taken

    @rule()
    def time_passes(self) -> None:
        self.now += timedelta(hours=1)

    # -- running -------------------------------------------------------------------------------------------------------

    def _ready_to_run(self, number: int, limit: int) -> Worker:
        """A worker that has written what it ran, and holds something if there is something."""
        self.write(number)
        if not self.workers[number].held:
            self.claim(number, EVERYTHING[number % 2], limit)
        return self.workers[number]

    @rule(number=workers, plan=st.sampled_from([*PLANS, "die", "die"]), counts=st.sampled_from([True, True, False]))
    def deliver(self, number: int, plan: str, counts: bool = True) -> None:
        """Run the next message, and do not write its end yet."""
        worker = self._ready_to_run(number, 2)
        if not worker.held:
            return
        message = worker.held[0]
        self.world.plan(worker, {message.id: plan})
        try:
            outcome = deliver(message, worker.delivery)
        except Killed:
            assert self.world.died_with is not None
            self._die(number, self.world.died_with, InHand(message.id), counts=counts)
            return
        worker.held.pop(0)
        assert outcome.status == self._planned(message, plan)
        if outcome.written:
            self.model.end(message.id, outcome.status)
        elif outcome.in_a_batch:
            worker.finished.append(message)
        else:
            worker.unwritten = outcome

    @rule(number=workers)
    def write(self, number: int) -> None:
        """Write the ends of what was run."""
        worker = self.workers[number]
        if worker.unwritten is not None:
            record(worker.unwritten, worker.delivery)
            worker.slot.rest()
        if worker.finished:
            finish(self.database, worker.delivery.handler, worker.finished)
        self._expect_written(worker)

    def _expect_written(self, worker: Worker) -> None:
        if worker.unwritten is not None:
            self._ended(worker.unwritten.message.id, worker.unwritten.status)
        for message in worker.finished:
            self.model.end(message.id, "ok")
        worker.unwritten, worker.finished = None, []

    def _ended(self, message_id: int, status: str) -> None:
        if status == "lost":
            self.model.give_back([message_id], attempt=1)
        elif status in ("retry", "stopped"):
            self.model.give_back([message_id], deliver_on=IN_TWO_HOURS if status == "retry" else None)
        else:
            self.model.end(message_id, status)

    @rule(
        number=workers,
        plans=st.lists(st.sampled_from([*PLANS, "ok", "timeout", "lose the database"]), min_size=10, max_size=10),
        most=st.sampled_from([1, 3, 10, 10]),
    )
    def work(self, number: int, plans: list[str], most: int) -> None:
        """All that is held in one batch; the worker is asked to stop after `most` messages."""
        worker = self._ready_to_run(number, 10)
        taken, worker.held = worker.held, []
        by_id = {message.id: plan for message, plan in zip(taken, plans * 10, strict=False)}
        self.world.plan(worker, dict(by_id))
        before = self.world.started.total()
        batch = Batch(worker.delivery, lambda: self.world.started.total() - before >= most)
        try:
            batch.work(taken)
        except ExitNow:
            self.workers[number] = self.world.worker(next(self.handler_ids))
        except psycopg.OperationalError:
            batch.recover()
        self._expect_worked(taken, by_id, most)

    def _planned(self, message: Claimed, plan: str) -> str:
        """How a message ends: as planned, if it is one that can be planned."""
        plan = plan if message.method_name in ("again", "once") else str(message.method_name)
        row = self.model.rows[message.id]
        if plan == "stop":
            return "stopped" if row.idempotent else "error"
        if plan == "lose the database":
            return "lost" if row.idempotent and row.attempts < 2 else "error"
        return {"error": "error", "retry": "retry", "timeout": "timeout", "gone": "warn", "die": "dead"}.get(plan, "ok")

    def _expect_worked(self, taken: list[Claimed], plans: dict[int, str], most: int) -> None:
        rest, run = list(taken), 0
        while rest and run < most:
            message = rest.pop(0)
            self._ended(message.id, self._planned(message, plans[message.id]))
            if message.method_name in ("again", "once"):
                run += 1
                if plans[message.id] in ("timeout", "lose the database"):
                    break
        self.model.give_back(message.id for message in rest)

    @rule(number=workers)
    def come_back(self, number: int) -> None:
        """The database was away: what was run is written first, what was only held goes back."""
        worker = self.workers[number]
        batch = Batch(worker.delivery, lambda: False)
        batch._outcome, batch._finished = worker.unwritten, list(worker.finished)
        batch.recover()
        self._expect_written(worker)
        self.model.give_back([row.id for row in self.model.held(worker.id)])
        worker.held = []

    # -- dying ---------------------------------------------------------------------------------------------------------

    @rule(number=workers, known=st.sampled_from([True, True, False]), counts=st.booleans(), timed_out=st.booleans())
    def die(self, number: int, known: bool, counts: bool, timed_out: bool) -> None:
        """Killed between two statements: idle, or after a message's code ran and before its end was written."""
        worker = self.workers[number]
        run = worker.unwritten.message.id if worker.unwritten is not None else None
        in_hand = InHand(run) if run is not None and not self.model.rows[run].idempotent else None
        self._die(number, worker.slot.read() if known else None, in_hand, counts=counts, timed_out=timed_out)

    def _die(
        self, number: int, slot: SlotSays | None, in_hand: InHand | None, *, counts: bool, timed_out: bool = False
    ) -> None:
        worker = self.workers[number]
        with self.database.transaction() as connection:
            sweep(connection, Death("MiqWorker", worker.id, slot, "it died", counts, timed_out))
        calls = self.model.sweep(
            worker.id, in_hand, known=slot is not None, counts=counts, timed_out=timed_out,
            later=utc() + timedelta(seconds=5),
        )  # fmt: skip
        self._expect_calls(dict(calls))
        self.dead.append(worker)
        self.workers[number] = self.world.worker(next(self.handler_ids))

    def _expect_calls(self, waiting: dict[Waiter, str]) -> None:
        """Callbacks of messages that no worker ended are messages now."""
        for message_id in self._new_ids():
            ((method, instance_id, args),) = self.database.run(
                "SELECT method_name, instance_id, args FROM miq_queue WHERE id = %(id)s", {"id": message_id}
            ).fetchall()
            to_task = method == "queue_callback"
            waiter = Waiter("task", instance_id) if to_task else Waiter("callback", json.loads(args)[0])
            assert json.loads(args)[1] == waiting.pop(waiter)
            self.model.add(Row(message_id, True, [], priority=20, calls=waiter, says=json.loads(args)[1]))
        assert not waiting

    @rule(number=workers, method=st.sampled_from(["again", "once"]), waiter=waiters)
    def a_message_that_kills(self, number: int, method: str, waiter: str | None) -> None:
        """Every worker that takes it dies at it: three of them, and it is over."""
        with self.database.session() as session:
            message = self._message(
                session, {"method_name": method, "zone": None, "task_id": None, "priority": 0}, waiter, 0
            )
            message_id = put(session, message)
        assert message_id is not None
        self._expect(message_id, message)
        for attempt in (1, 2, 3):
            self.come_back(number)
            self.claim(number, EVERYTHING[0], 1)
            if [message.id for message in self.workers[number].held] != [message_id]:
                return  # it must not run twice and is over, or something more urgent waits
            self.deliver(number, "die", True)
            assert self.world.started[message_id] == attempt
            self.the_table_is_as_the_model_says()
            self.time_passes()

    @rule(number=workers, plan=st.sampled_from(PLANS), again=st.booleans())
    def die_before_it_is_written(self, number: int, plan: str, again: bool) -> None:
        """And perhaps it is written later, after others have taken what came back."""
        self.deliver(number, plan)
        self.die(number, known=True, counts=True, timed_out=False)
        if again:
            self.claim(number, EVERYTHING[number % 2], 10)
        self.the_table_is_as_the_model_says()
        self.write_from_the_grave()

    @rule(number=workers, options=of_a_kind, first=waiters, second=waiters, match=st.sampled_from(MATCHES))
    def come_back_to_a_twin(
        self, number: int, options: dict[str, Any], first: str | None, second: str | None, match: frozenset[str] | None
    ) -> None:
        """One of a kind is taken, another one is put, and the first comes back."""
        self.put_unless_exists(options, first, -1, match, False)
        self.claim(number, EVERYTHING[0], 10)
        self.put_unless_exists(options, second, -1, match, False)
        self.come_back(number)

    @precondition(lambda self: self.dead)
    @rule()
    def write_from_the_grave(self) -> None:
        """A worker that was taken for dead was only slow: what it writes now changes nothing."""
        worker = self.dead.pop()
        if worker.unwritten is not None:
            record(worker.unwritten, worker.delivery)
        if worker.finished:
            finish(self.database, worker.delivery.handler, worker.finished)

    # -- what has to hold ----------------------------------------------------------------------------------------------

    @invariant()
    def the_table_is_as_the_model_says(self) -> None:
        found = self.database.run(f"SELECT {COLUMNS} FROM miq_queue ORDER BY id").fetchall()
        expected = {}
        for row in sorted(self.model.rows.values(), key=lambda row: row.id):
            task = row.waiter.number if row.waiter and row.waiter.kind != "callback" else None
            called_back = row.waiter is not None and row.waiter.kind != "alone"
            expected[row.id] = (
                row.state, row.handler, row.attempts, row.priority, row.zone, row.role, row.task_id, row.key, task,
                called_back, None if row.calls else row.args,
            )  # fmt: skip
        calls = {row.id for row in self.model.rows.values() if row.calls}
        actual = {
            row[0]: (*row[1:10], row[10] is not None, None if row[0] in calls else json.loads(row[11])) for row in found
        }
        assert actual == expected
        held = [row[7] for row in found if row[1] == "dequeue" and row[7] is not None]
        assert len(held) == len(set(held)), "two of one task_id are out at once"
        kinds = [row[8] for row in found if row[1] == "ready" and row[8] is not None]
        assert len(kinds) == len(set(kinds)), "two of a kind wait"
        assert all(row[3] <= 3 + self.world.retries[row[0]] for row in found), "more than three attempts"

    def teardown(self) -> None:
        """Every worker dies, time passes, and all that is left is run: then accounts are settled."""
        for number in range(len(self.workers)):
            self._ready_to_run(number, 3)
            self.die(number, known=True, counts=False, timed_out=False)
        self.now += timedelta(days=1)
        for route in EVERYTHING:
            while self._run_all(route):
                self.the_table_is_as_the_model_says()
        self._nothing_is_lost()
        self._everybody_is_told_once()

    def _run_all(self, route: Route) -> int:
        self.claim(0, route, 10)
        taken = len(self.workers[0].held)
        if taken:
            self.work(0, ["ok"], 10**9)
        return taken

    def _nothing_is_lost(self) -> None:
        left = {row[0]: (row[1], row[2]) for row in self.database.run("SELECT id, state, method_name FROM miq_queue")}
        for number, message_id in self.put_ids.items():
            last = covered_by(message_id, self.model.merged)
            assert last in left or last in self.world.done or number in self.world.done_args, f"put {number} is lost"
        waiting = {each for each, (state, _) in left.items() if state in ("ready", "dequeue")}
        assert waiting <= {row.id for row in self.model.rows.values() if row.expires_on is not None}
        for message_id, (_, method) in left.items():
            once = method != "once" or self.world.started[message_id] <= 1 + self.world.retries[message_id]
            assert once, f"message {message_id} ran twice"

    def _everybody_is_told_once(self) -> None:
        told = self.model.everybody_told()
        found = Counter(self.database.run("SELECT token, status FROM told").fetchall())
        assert found == Counter((waiter.number, status) for waiter, status in told if waiter.kind == "callback")
        assert set(found.values()) <= {1}
        finished = self.database.run("SELECT id, lower(status) FROM miq_tasks WHERE state = 'Finished'").fetchall()
        tasks: dict[int, str] = dict(finished)
        assert tasks == {waiter.number: status for waiter, status in told if waiter.kind != "callback"}
        effects = Counter(row[0] for row in self.database.run("SELECT message FROM effects"))
        assert set(effects.values()) <= {1}, "what is done in a message's own transaction is done once"


def _takes(route: Route) -> Callable[[Row], bool]:
    return lambda row: (
        row.zone in (None, route.zone) and row.role in (None, *route.roles) and row.priority <= route.max_priority
    )


@pytest.fixture
def world(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> World:
    """Nothing in a batch depends on how fast this machine is."""
    caplog.set_level(logging.CRITICAL)
    monkeypatch.setattr(batch_module, "HOLD", 3600.0)
    monkeypatch.setattr(batch_module, "UNWRITTEN", 3600.0)
    world = World(database, tmp_path)
    register(world)
    return world


def test_nothing_is_lost_whatever_happens_in_whatever_order(world: World) -> None:
    run_state_machine_as_test(
        type("Machine", (QueueMachine,), {"world": world}),
        settings=settings(
            max_examples=150,
            stateful_step_count=50,
            derandomize=True,
            database=None,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
