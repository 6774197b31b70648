"""What becomes of the messages of a worker that died. One transaction, run by the supervisor; no flow's code runs here.

Messages that were only held go back free. The one in hand goes back with an attempt counted if its method is
idempotent and has attempts left; else it ends as `error`, or as `timeout` if it had run past its time, its task is
told, and its callback becomes a message of its own. A commanded stop, a memory stop and the server's own death are not
attempts. Of a handler whose slot is lost nobody knows what it had started, so all that it held ends as `error`.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import Any

import psycopg

from miq.channel import InHand
from miq.models import MessageState, TaskStatus
from miq.queue.claim import Handler
from miq.queue.give_back import Connection, give_back
from miq.queue.statements import statement

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
#: what JSON that is no callback raises
_UNREADABLE = (ValueError, AttributeError, TypeError, RecursionError)
#: seconds before the second, third attempt after a death
BACK_OFF = (0.0, 15.0)


@dataclass(frozen=True)
class Death:
    """A handler that is gone. `in_hand` None: nobody knows what it was doing, so all it held counts as started.

    `counts`: whether this death is an attempt of the message in hand; `timed_out`: whether it ran past its time.
    """

    handler_type: str
    handler_id: int
    in_hand: InHand | None
    reason: str
    counts: bool = True
    timed_out: bool = False

    @property
    def handler(self) -> Handler:
        return Handler(self.handler_type, self.handler_id)

    def had_started(self, message_id: int) -> bool:
        """Whether the code of this message had begun, as far as anybody knows."""
        return self.in_hand is None or self.in_hand.message_id == message_id


@dataclass(frozen=True)
class Swept:
    """What the sweep did: ids given back, and ids that ended badly."""

    returned: list[int]
    failed: list[int]


@dataclass(frozen=True)
class Held:
    """A message of the dead handler."""

    id: int
    class_name: str | None
    method_name: str | None
    callback: str | None
    task_id: int | None
    attempts: int

    @property
    def command(self) -> str:
        return f"{self.class_name}.{self.method_name}"


def sweep(connection: Connection, death: Death) -> Swept:
    """Give back or fail everything that the handler held, within the caller's transaction."""
    held = [Held(*row) for row in connection.execute(statement("held_by"), death.handler.columns)]
    started = [message for message in held if death.had_started(message.id)]
    free = [message.id for message in held if not death.had_started(message.id)]
    swept = Swept(list(free), [])
    give_back(connection, death.handler, free)
    for message in started:
        _settle(connection, message, death, swept)
    return swept


def _settle(connection: Connection, message: Held, death: Death, swept: Swept) -> None:
    again = death.in_hand is not None and death.in_hand.idempotent and not death.timed_out
    if again and not death.counts:
        give_back(connection, death.handler, [message.id])
        swept.returned.append(message.id)
    elif again and message.attempts + 1 < MAX_ATTEMPTS:
        delay = BACK_OFF[min(message.attempts, len(BACK_OFF) - 1)]
        give_back(connection, death.handler, [message.id], delay=delay, attempt=1)
        swept.returned.append(message.id)
    else:
        state = MessageState.TIMEOUT if death.timed_out else MessageState.ERROR
        fail(connection, message, state, _why(message, death))
        swept.failed.append(message.id)


def _why(message: Held, death: Death) -> str:
    if death.in_hand is None:
        return f"{death.reason}; whether {message.command} had started, nobody knows"
    if death.in_hand.over:
        return f"{death.reason} after {message.command} had run, before its end was written"
    return f"{death.reason} while it ran {message.command} (attempt {message.attempts + 1})"


def fail(connection: Connection, message: Held, state: MessageState, text: str, *, attempt: int = 1) -> None:
    """End a message that no worker will end: the row stays, its task is told, its callback becomes a message.

    `attempt` is 0 for one that has never started.
    """
    log.error("MIQ(MiqQueue.sweep) Message id: [%s], State: [%s], %s", message.id, state, text)
    connection.execute(
        statement("fail_unheld"),
        {"id": message.id, "state": state, "error": text, "attempts": message.attempts + attempt},
    )
    told = bool(message.callback) and _call_back_later(connection, message.callback or "", state, text)
    if not told and message.task_id is not None:
        ended = {"id": message.task_id, "status": TaskStatus.of(state), "error": text}
        connection.execute(statement("fail_task"), ended)


def _call_back_later(connection: Connection, callback: str, state: MessageState, text: str) -> bool:
    """The callback's own code is a flow's, so it becomes a message; False for one that cannot be read."""
    try:
        call: dict[str, Any] = json.loads(callback)
        values = {
            "class_name": call.get("class_name"),
            "method_name": call.get("method_name"),
            "instance_id": call.get("instance_id"),
            "args": json.dumps([*(call.get("args") or ()), state, text, None]),
        }
        with connection.transaction():
            connection.execute(statement("put_callback"), values)
    except (*_UNREADABLE, psycopg.DataError, psycopg.ProgrammingError) as error:
        log.error("MIQ(MiqQueue.sweep) a callback that cannot be read is dropped: %s", error)
        return False
    return True
