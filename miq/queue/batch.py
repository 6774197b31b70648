"""The messages that a worker holds: run one after the other, ended together.

Short messages that may run twice are deleted many at a time; any other is ended before the next one starts. What is not
started within a second goes back for others, also while the message in hand still runs; so does the rest when the
worker is to stop, or when a message ran into its time-out, which ends the worker after its callback, as in the
modelled system: nobody knows what the interrupted code left behind. Across an outage of the database the ends that
are not written are kept, and written first.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable

import psycopg

from miq.db import Database
from miq.errors import ExitNow
from miq.queue.claim import Claimed
from miq.queue.deliver import Delivery, LostDatabase, deliver
from miq.queue.give_back import give_back
from miq.queue.methods import find_method
from miq.queue.put import described
from miq.queue.record import Outcome, finish, record
from miq.queue.statements import statement
from miq.queue.sweep import MAX_ATTEMPTS

log = logging.getLogger(__name__)

#: seconds that messages are held before they are started
HOLD = 1.0
#: seconds that an end may wait for others
UNWRITTEN = 0.25


class Batch:
    """What one worker has claimed and not ended yet."""

    def __init__(self, delivery: Delivery, stop: Callable[[], bool]) -> None:
        self.delivery = delivery
        self.stop = stop
        self._waiting: deque[Claimed] = deque()
        self._finished: list[Claimed] = []
        self._outcome: Outcome | None = None
        #: one that is running and whose line is still to be written
        self._quiet: Claimed | None = None
        #: the message that ran into its time-out; the worker leaves when its end is written
        self._timed_out: int | None = None

    def work(self, taken: list[Claimed], brief: bool = False) -> None:
        """Run them. Raises OperationalError when the database went away, ExitNow after a time-out.

        `brief`: they are expected to take a moment, so what is said of one that was taken alone is said when it has
        ended, or runs on after all: a line to the log may take as long as a short message.
        """
        if not taken:
            return
        self.delivery.lasting = False
        began = flushed = time.monotonic()
        self._waiting.extend(taken)
        status = "stopped"
        self._quiet = taken[0] if len(taken) == 1 else None
        if not brief:
            self._speak()
        with self.delivery.alarm.on(HOLD, self._let_go):
            while self._waiting and not self.stop():
                status = self._run(self._waiting.popleft())
                if self._finished and (now := time.monotonic()) - flushed > UNWRITTEN:
                    self.flush()
                    flushed = now
        self.flush()
        self._give_rest_back()
        self._speak()
        _log_ended(taken, time.monotonic() - began, status)

    def _speak(self) -> None:
        if self._quiet is not None:
            _log_taken(self._quiet)
            self._quiet = None

    def _run(self, message: Claimed) -> str:
        try:
            outcome = deliver(message, self.delivery)
        except LostDatabase as lost:
            # It may be the message that ends the connection, each time: so this counts, as the death of a worker does.
            again = find_method(message.class_name, message.method_name).idempotent
            again = again and message.attempts + 1 < MAX_ATTEMPTS
            self._outcome = Outcome(message, "retry" if again else "error", str(lost), attempt=1)
            raise psycopg.OperationalError(str(lost)) from lost
        if outcome.in_a_batch:
            self._finished.append(message)
            return outcome.status
        self._outcome = outcome
        if outcome.status == "timeout":
            self._timed_out = message.id
            self.delivery.database.close()
        self._write()
        self._leave_after_a_time_out()
        return outcome.status

    def _leave_after_a_time_out(self) -> None:
        if self._timed_out is not None:
            self.flush()
            self._give_rest_back()
            message_id, self._timed_out = self._timed_out, None
            raise ExitNow(1, f"message {message_id} timed out")

    def _write(self) -> None:
        if self._outcome is None:
            return
        if not self._outcome.written:
            record(self._outcome, self.delivery)
        self._outcome = None
        if self.delivery.slot:
            self.delivery.slot.rest()

    def flush(self) -> None:
        """Write the ends that are not written."""
        self._write()
        if self._finished:
            finish(self.delivery.database, self.delivery.handler, self._finished)
            self._finished.clear()

    def _give_rest_back(self) -> None:
        if self._waiting:
            self._return(self.delivery.database, [each.id for each in self._waiting])
            self._waiting.clear()

    def _return(self, database: Database, ids: list[int]) -> None:
        with database.transaction() as connection:
            give_back(connection, self.delivery.handler, ids)

    def _let_go(self) -> bool:
        """Called from within a message that runs for long: our connection may be in use, so another one is made."""
        self._speak()
        ours = self.delivery.database
        other = Database(ours.dsn, ours.application_name, connect_timeout=2, statement_timeout=2, lock_timeout=1)
        try:
            if self._finished:
                finish(other, self.delivery.handler, self._finished)
                self._finished.clear()
            if self._waiting:
                self._return(other, [each.id for each in self._waiting])
                self._waiting.clear()
        except psycopg.Error as error:
            log.warning("MIQ(MiqQueue#give_back) what is held is not given back yet: %s", error)
            return False
        finally:
            other.close()
        return True

    def recover(self) -> None:
        """After an outage: write what was kept, and give back everything else that is ours in the database.

        A claim whose answer was lost with the connection is among it, and nothing of that was started. One that still
        runs in the database is ended first. Raises ExitNow when the worker has to leave after a time-out.
        """
        self._waiting.clear()
        self.delivery.database.run(statement("end_earlier"))
        self.flush()
        held = self.delivery.database.run(statement("held_by"), self.delivery.handler.columns).fetchall()
        if held:
            self._return(self.delivery.database, [row[0] for row in held])
        self._leave_after_a_time_out()


def _log_taken(message: Claimed) -> None:
    if log.isEnabledFor(logging.INFO):
        waited = f", Dequeued in: [{message.waited or 0.0:.6f}] seconds"
        log.info("MIQ(MiqQueue.get) %s%s", described({**message._asdict(), "state": "dequeue"}), waited)
        log.info("MIQ(MiqQueue#deliver) Message id: [%s], Delivering...", message.id)


def _log_ended(taken: list[Claimed], seconds: float, status: str) -> None:
    """One line for all: short messages come by the ten thousand. Those that failed had a line of their own."""
    if len(taken) == 1:
        log.info(
            "MIQ(MiqQueue#delivered) Message id: [%s], State: [%s], Delivered in [%.6f] seconds",
            taken[0].id, status, seconds,
        )  # fmt: skip
    else:
        commands = ", ".join(f"{command} x {count}" for command, count in Counter(m.command for m in taken).items())
        log.info(
            "MIQ(MiqQueue#delivered) Message ids: %s, Commands: [%s], Delivered in [%.6f] seconds",
            [each.id for each in taken], commands, seconds,
        )  # fmt: skip
