"""Delivering one claimed message: call its method within its time-out.

In: a `Claimed` and the worker's `Delivery`. Out: an `Outcome`. A method that used its session has its message ended in
the same transaction (`record.end_in`): what it did and that it was done are one fact. For all others the outcome is
recorded afterwards, by whoever called: the database may be lost after the code ran, and the worker then keeps the
outcome and records it first when the database is back. This is one of the three places that catch every exception: a
message's code may raise whatever it likes.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from miq.channel import Slot
from miq.db import Database, connection_lost
from miq.errors import BadMessage, ExitNow, MessageTimeout, MiqError, RetryLater, StopRequested
from miq.queue.alarm import Alarm
from miq.queue.claim import Claimed, Handler
from miq.queue.message import DEFAULT_TIMEOUT
from miq.queue.methods import QueueMethod, find_method
from miq.queue.record import Outcome, end_in
from miq.queue.statements import statement
from miq.session import LazySession

log = logging.getLogger(__name__)


@dataclass
class Delivery:
    """What a worker lends to the messages that it delivers; `info` becomes `session.info` of their sessions."""

    database: Database
    handler: Handler
    slot: Slot | None = None
    server_id: int | None = None
    stop_requested: Callable[[], bool] = lambda: False
    info: dict[str, Any] = field(default_factory=dict)
    alarm: Alarm = field(default_factory=Alarm)
    #: whether the claim of what is in hand would outlive a crash of the database (see `make_lasting`)
    lasting: bool = False
    _spare: LazySession | None = None

    def check_stop(self) -> None:
        """Long work calls this between its pages. Raises StopRequested when the worker is to stop."""
        if self.stop_requested():
            raise StopRequested("the worker was asked to stop")

    def make_lasting(self) -> None:
        """Wait until the claim is on disk. A claim is committed without waiting, for its message may run again.

        One that must not, or that keeps others of its task_id out, does not start before.
        """
        if not self.lasting:
            self.database.run(statement("flush"))
            self.lasting = True

    def lend(self) -> LazySession:
        """A session that nobody has used. One that was lent and not used is lent again: it is as good as new."""
        if self._spare is None or self._spare.used:
            self._spare = LazySession(
                expire_on_commit=False, info={"database": self.database, **self.info, "check_stop": self.check_stop}
            )
        return self._spare

    def renew(self) -> None:
        """What is lent next has the `info` of now."""
        self._spare = None


class LostDatabase(MiqError):
    """The database went away before the message's code had an end: the message is held, and its fate is the sweep's."""


class _RecordMissing(MiqError):
    """The record that the message names is gone."""


def deliver(message: Claimed, delivery: Delivery) -> Outcome:
    """Run the message. Raises LostDatabase when the database was lost in mid-work; everything else is an outcome."""
    if not delivery.alarm.is_on:
        with delivery.alarm.on(math.inf, lambda: True):
            return deliver(message, delivery)
    try:
        method = find_method(message.class_name, message.method_name)
        timeout = DEFAULT_TIMEOUT if message.msg_timeout is None else message.msg_timeout
        if timeout <= 0:
            raise BadMessage(f"msg_timeout is {timeout}: write seconds, more than 0")
    except BadMessage as error:
        return _bad(Outcome(message, "error", str(error)))
    if not method.idempotent or message.task_id is not None:
        delivery.make_lasting()
    slot = delivery.slot
    try:
        deadline = delivery.alarm.start(timeout)
        if slot:
            slot.begin(message.id, deadline, method.idempotent)
        return _run(message, method, delivery)
    except MessageTimeout as error:  # it rang between two lines of ours
        return _bad(Outcome(message, "timeout", str(error)))
    finally:
        delivery.alarm.stop()
        if slot and method.idempotent:
            slot.end()
        elif slot:
            slot.over()


def _run(message: Claimed, method: QueueMethod, delivery: Delivery) -> Outcome:
    try:
        return _call(message, method, delivery)
    except RetryLater as later:
        return Outcome(message, "retry", deliver_on=later.deliver_on)
    except StopRequested as stop:
        return Outcome(message, "stopped" if method.idempotent else "error", _told(stop))
    except _RecordMissing as error:
        return _bad(Outcome(message, "warn", str(error)))
    except (ExitNow, KeyboardInterrupt):
        raise
    except BaseException as error:  # SystemExit too: a library that gives up must not take the worker with it
        if delivery.alarm.rang:  # whatever became of it on its way here
            return _bad(Outcome(message, "timeout", delivery.alarm.complaint))
        if connection_lost(error):
            raise LostDatabase(f"message {message.id}: {error}") from error
        known = isinstance(error, MiqError)
        return _bad(Outcome(message, "error", _told(error)), None if known else error)


def _bad(outcome: Outcome, error: BaseException | None = None) -> Outcome:
    log.error(
        "MIQ(MiqQueue#deliver) Message id: [%s], %s, State: [%s], Error: [%s]",
        outcome.message.id, outcome.message.command, outcome.status, outcome.text, exc_info=error,
    )  # fmt: skip
    return outcome


def _told(error: BaseException) -> str:
    """The error's text as a column holds it: PostgreSQL's text has no NUL, and no half of a surrogate pair."""
    try:
        text = str(error)
    except Exception:  # the text of an error is code, too
        text = ""
    return text.replace("\0", "").encode(errors="replace").decode().strip() or type(error).__name__


def _call(message: Claimed, method: QueueMethod, delivery: Delivery) -> Outcome:
    arguments = _arguments(message)
    session = delivery.lend()
    session.info["message"] = message
    if message.miq_task_id is not None:
        _start_task(message, delivery, arguments)
    try:
        result = method.function(session, _record(session, message, method), *arguments)
        if not session.used:
            if _take_back_what_is_open(delivery.database):
                raise MiqError(f"{method.command} left a transaction open, it is taken back: work through the session")
            alone = method.idempotent and message.miq_callback is None
            return Outcome(message, "ok", result=result, in_a_batch=alone)
        delivery.alarm.stop()
        outcome = Outcome(message, "ok", result=result, written=True)
        end_in(session, outcome, delivery)
        session.commit()
        return outcome
    except BaseException:
        if delivery.alarm.rang:
            session.abandon()
        raise
    finally:
        if session.used:
            session.close()
        else:
            _take_back_what_is_open(delivery.database)


def _take_back_what_is_open(database: Database) -> bool:
    """Whether a method left a transaction open beside its session: what others end would be swallowed by it."""
    connection = database.current
    if connection is None or not connection.has_begun:
        return False
    connection.rollback()
    return True


def _start_task(message: Claimed, delivery: Delivery, arguments: list[Any]) -> None:
    """The task is Active before the code starts; options that the code is called with name it (reference 5.6)."""
    delivery.database.run(statement("task_active"), {"id": message.miq_task_id, "server_id": delivery.server_id})
    if arguments and isinstance(arguments[0], dict):
        arguments[0]["miq_task_id"] = message.miq_task_id


def _arguments(message: Claimed) -> list[Any]:
    if message.args in (None, "[]") and message.msg_data is None and message.target_id is None:
        return []
    arguments = _decoded(message.args, 'args are not JSON ({}); write an array such as [1, "a"]') or []
    data = [] if message.msg_data is None else [_decoded(message.msg_data, "msg_data is not JSON ({})")]
    if not isinstance(arguments, list):
        raise BadMessage(f"args are {type(arguments).__name__}, not an array: write [..]")
    target = [message.target_id] if message.target_id is not None and message.instance_id is None else []
    return [*target, *arguments, *data]


def _decoded(text: str | bytes | None, complaint: str) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError) as error:
        raise BadMessage(complaint.format(error)) from None


def _record(session: Session, message: Claimed, method: QueueMethod) -> Any:  # noqa: ANN401 - a row of any model
    if message.instance_id is None:
        return None
    if method.model is None:
        raise BadMessage(f"{method.command} is a class method, but instance_id is {message.instance_id}")
    record = session.get(method.model, message.instance_id)
    if record is None:
        raise _RecordMissing(f"{message.class_name} {message.instance_id} is gone")
    return record
