"""Delivering one claimed message: call its method within its time-out, then record how it ended.

In: a `Claimed` and the worker's `Delivery`. Out: an `Outcome`; `record()` writes it. The two are apart because the
database may be lost after the code ran: the worker then keeps the outcome and records it first when the database is
back. Callbacks and tasks are told in the same transaction that ends the message, so that nobody is told twice or
never. This is one of the three places that catch every exception: a message's code may raise whatever it likes.
"""

from __future__ import annotations

import json
import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from types import FrameType
from typing import Any

import psycopg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from miq.channel import Slot
from miq.db import Database
from miq.errors import BadMessage, MessageTimeout, MiqError, RetryLater, StopRequested
from miq.models import MessageState
from miq.queue.claim import Claimed
from miq.queue.methods import QueueMethod, find_method
from miq.queue.statements import statement
from miq.session import raw_connection

log = logging.getLogger(__name__)


@dataclass
class Delivery:
    """What a worker lends to the messages that it delivers; `info` becomes `session.info` of their sessions."""

    database: Database
    slot: Slot | None = None
    server_id: int | None = None
    stop_requested: Callable[[], bool] = lambda: False
    info: dict[str, Any] = field(default_factory=dict)

    def check_stop(self) -> None:
        """Long work calls this between its pages. Raises StopRequested when the worker is to stop."""
        if self.stop_requested():
            raise StopRequested("the worker was asked to stop")


@dataclass(frozen=True)
class Outcome:
    """How a message ended: ok, warn, error, timeout; retry or stopped give it back."""

    message: Claimed
    status: str
    text: str = ""
    result: Any = None
    deliver_on: datetime | None = None


class LostDatabase(MiqError):
    """The database went away before the message's code had an end: the message is held, and its fate is the sweep's."""


def deliver(message: Claimed, delivery: Delivery) -> Outcome:
    """Run the message. Raises LostDatabase when the database was lost in mid-work; everything else is an outcome."""
    began = time.monotonic()
    log.info("MIQ(MiqQueue#deliver) Message id: [%s], Delivering... %s", message.id, message.command)
    try:
        method = find_method(message.class_name, message.method_name)
        outcome = _run(message, method, delivery)
    except BadMessage as error:
        outcome = Outcome(message, "error", str(error))
    finally:
        if delivery.slot:
            delivery.slot.end()
    log.log(
        logging.INFO if outcome.status in ("ok", "retry", "stopped") else logging.ERROR,
        "MIQ(MiqQueue#deliver) Message id: [%s], State: [%s], Delivered in [%.6f] seconds%s",
        message.id,
        outcome.status,
        time.monotonic() - began,
        f", {outcome.text}" if outcome.text else "",
    )
    return outcome


def _run(message: Claimed, method: QueueMethod, delivery: Delivery) -> Outcome:
    timeout = message.msg_timeout or 600
    if delivery.slot:
        delivery.slot.begin(message.id, time.monotonic() + timeout, method.idempotent)
    try:
        with _alarm(timeout):
            return Outcome(message, "ok", result=_call(message, method, delivery))
    except RetryLater as later:
        return Outcome(message, "retry", deliver_on=later.deliver_on)
    except StopRequested as stop:
        return Outcome(message, "stopped" if method.idempotent else "error", str(stop))
    except MessageTimeout as error:
        return Outcome(message, "timeout", str(error))
    except _RecordMissing as error:
        return Outcome(message, "warn", str(error))
    except (psycopg.OperationalError, DBAPIError) as error:
        if _is_disconnect(error):
            raise LostDatabase(f"message {message.id}: {error}") from error
        return _failed(message, error)
    except Exception as error:
        return _failed(message, error)


def _is_disconnect(error: BaseException) -> bool:
    if isinstance(error, DBAPIError):
        return bool(error.connection_invalidated)
    return isinstance(error, psycopg.OperationalError) and error.sqlstate in (None, "57P01", "57P02", "57P03")


def _failed(message: Claimed, error: BaseException) -> Outcome:
    if not isinstance(error, MiqError):
        log.error("MIQ(MiqQueue#deliver) Message id: [%s], Error: [%s]", message.id, error, exc_info=True)
    return Outcome(message, "error", _told(error))


def _told(error: BaseException) -> str:
    """The error's text as a column holds it: PostgreSQL's text has no NUL."""
    return str(error).replace("\0", "").strip() or type(error).__name__


class _RecordMissing(MiqError):
    """The record that the message names is gone."""


def _call(message: Claimed, method: QueueMethod, delivery: Delivery) -> Any:  # noqa: ANN401 - what the method returns
    arguments = _arguments(message)
    with delivery.database.session() as session:
        session.info.update(delivery.info, check_stop=delivery.check_stop, message=message)
        if message.miq_task_id is not None:
            delivery.database.run(
                statement("task_active"), {"id": message.miq_task_id, "server_id": delivery.server_id}
            )
        return method.function(session, _record(session, message, method), *arguments)


def _arguments(message: Claimed) -> list[Any]:
    try:
        arguments = json.loads(message.args) if message.args else []
    except ValueError as error:
        raise BadMessage(f'args are not JSON ({error}); write an array such as [1, "a"]') from None
    if not isinstance(arguments, list):
        raise BadMessage(f"args are {type(arguments).__name__}, not an array: write [..]")
    return [message.target_id, *arguments] if message.target_id is not None else arguments


def _record(session: Session, message: Claimed, method: QueueMethod) -> Any:  # noqa: ANN401 - a row of any model
    if message.instance_id is None:
        return None
    if method.model is None:
        raise BadMessage(f"{method.command} is a class method, but instance_id is {message.instance_id}")
    record = session.get(method.model, message.instance_id)
    if record is None:
        raise _RecordMissing(f"{message.class_name} {message.instance_id} is gone")
    return record


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> None:
        raise MessageTimeout(f"timed out after {seconds:g} seconds")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# -- recording ---------------------------------------------------------------------------------------------------------


def record(outcome: Outcome, delivery: Delivery) -> None:
    """Write how the message ended.

    Raises psycopg.OperationalError when the database is away; then nothing was written.
    """
    message = outcome.message
    if outcome.status in ("retry", "stopped"):
        give_back(delivery.database, [message.id], deliver_on=outcome.deliver_on)
        return
    if message.miq_callback is None:
        _end(delivery.database, outcome)
        return
    try:
        with delivery.database.session() as session:
            session.info.update(delivery.info)
            with session.begin_nested():
                _call_back(session, outcome)
            _end_in(session, outcome)
    except DBAPIError as error:
        if error.connection_invalidated and isinstance(error.orig, psycopg.OperationalError):
            raise error.orig from error
        _callback_failed(outcome, error, delivery)
    except psycopg.OperationalError:
        raise
    except Exception as error:
        _callback_failed(outcome, error, delivery)


def _callback_failed(outcome: Outcome, error: Exception, delivery: Delivery) -> None:
    """A callback's error is logged and kept on nobody: the message still ends as it ended."""
    log.error("MIQ(MiqQueue#m_callback) Message id: [%s], callback: %s", outcome.message.id, error, exc_info=True)
    _end(delivery.database, outcome)


def _call_back(session: Session, outcome: Outcome) -> None:
    callback = json.loads(outcome.message.miq_callback or "{}")
    method = find_method(callback.get("class_name"), callback.get("method_name"))
    record_id = callback.get("instance_id")
    row = session.get(method.model, record_id) if method.model is not None and record_id is not None else None
    method.function(session, row, *(callback.get("args") or ()), outcome.status, outcome.text, outcome.result)


def _ending(outcome: Outcome) -> tuple[str, dict[str, Any]]:
    if outcome.status == "ok":
        return statement("finish"), {"ids": [outcome.message.id]}
    state = outcome.status if outcome.status in (MessageState.WARN, MessageState.TIMEOUT) else MessageState.ERROR
    return statement("fail"), {"id": outcome.message.id, "state": state, "error": outcome.text}


def _end(database: Database, outcome: Outcome) -> None:
    database.run(*_ending(outcome))


def _end_in(session: Session, outcome: Outcome) -> None:
    session.flush()
    raw_connection(session).execute(*_ending(outcome))


def give_back(database: Database, ids: list[int], *, deliver_on: datetime | None = None, attempt: int = 0) -> None:
    """Put messages that are held back to ready, or into the twin that waits already.

    Wakes the workers of their queues.
    """
    parameters = {"ids": ids, "deliver_on": deliver_on, "attempt": attempt}
    with database.transaction() as connection:
        returned = connection.execute(statement("give_back"), parameters).fetchall()
        if len(returned) < len(ids):
            connection.execute(statement("merge_into_twin"), {"ids": ids})
        for queue_name in {row[1] for row in returned}:
            connection.execute(statement("wake"), {"queue_name": queue_name})
