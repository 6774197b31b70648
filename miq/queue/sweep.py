"""What becomes of the messages of a worker that died. One transaction, run by the supervisor; no flow's code runs here.

Messages that were only held go back free. The one in hand goes back with an attempt counted if its method is
idempotent and has attempts left; else it ends as `error`, its task is told, and its callback becomes a message of its
own. A commanded stop, a memory stop and the server's own death are not attempts.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import Any

import psycopg

from miq.channel import InHand
from miq.queue.statements import statement

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
#: seconds before the second, third attempt after a death
BACK_OFF = (0.0, 5.0)

Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True)
class Death:
    """A handler that is gone. `in_hand` None: nobody knows what it was doing, so all it held counts as started."""

    handler_type: str
    handler_id: int
    in_hand: InHand | None
    reason: str
    counts: bool = True


@dataclass(frozen=True)
class Swept:
    """What the sweep did: ids given back, and ids that ended as error."""

    returned: list[int]
    failed: list[int]


def sweep(connection: Connection, death: Death) -> Swept:
    """Give back or fail everything that the handler held, within the caller's transaction."""
    held = connection.execute(
        statement("held_by"), {"handler_type": death.handler_type, "handler_id": death.handler_id}
    ).fetchall()
    free = [row[0] for row in held if not _was_started(row[0], death)]
    swept = Swept(list(free), [])
    _give_back(connection, free, attempt=0, delay=0.0)
    for row in held:
        if row[0] not in free:
            _settle(connection, row, death, swept)
    for queue_name in {row[6] for row in held if row[6]}:
        connection.execute(statement("wake"), {"queue_name": queue_name})
    return swept


def _was_started(message_id: int, death: Death) -> bool:
    return death.in_hand is None or death.in_hand.message_id == message_id


def _settle(connection: Connection, row: tuple[Any, ...], death: Death, swept: Swept) -> None:
    message_id, attempts = row[0], row[5] or 0
    again = death.in_hand is not None and death.in_hand.idempotent
    if again and not death.counts:
        _give_back(connection, [message_id], attempt=0, delay=0.0)
        swept.returned.append(message_id)
    elif again and attempts + 1 < MAX_ATTEMPTS:
        _give_back(connection, [message_id], attempt=1, delay=BACK_OFF[min(attempts, len(BACK_OFF) - 1)])
        swept.returned.append(message_id)
    else:
        _fail(connection, row, death, attempts + 1)
        swept.failed.append(message_id)


def _give_back(connection: Connection, ids: list[int], *, attempt: int, delay: float) -> None:
    if not ids:
        return
    due = connection.execute("SELECT utc_now() + make_interval(secs => %s)", (delay,)).fetchone() if delay else None
    parameters = {"ids": ids, "deliver_on": due[0] if due else None, "attempt": attempt}
    returned = connection.execute(statement("give_back"), parameters).fetchall()
    if len(returned) < len(ids):
        connection.execute(statement("merge_into_twin"), {"ids": ids})


def _fail(connection: Connection, row: tuple[Any, ...], death: Death, attempts: int) -> None:
    message_id, class_name, method_name, callback, task_id = row[:5]
    text = f"{death.reason} while it ran {class_name}.{method_name} (attempt {attempts})"
    log.error("MIQ(MiqQueue.sweep) Message id: [%s], State: [error], %s", message_id, text)
    connection.execute(
        "UPDATE miq_queue SET state = 'error', last_error = %s, attempts = %s, updated_on = utc_now(),"
        " handler_type = NULL, handler_id = NULL WHERE id = %s",
        (text, attempts, message_id),
    )
    if callback:
        _call_back_later(connection, callback, text)
    elif task_id is not None:
        connection.execute(
            "UPDATE miq_tasks SET state = 'Finished', status = 'Error', message = %s, updated_on = utc_now()"
            " WHERE id = %s AND state <> 'Finished'",
            (text, task_id),
        )


def _call_back_later(connection: Connection, callback: str, text: str) -> None:
    """The callback's own code is a flow's, so it becomes a message."""
    try:
        call = json.loads(callback)
        args = json.dumps([*(call.get("args") or ()), "error", text, None])
    except (ValueError, AttributeError) as error:
        log.error("MIQ(MiqQueue.sweep) a callback that cannot be read is dropped: %s", error)
        return
    connection.execute(
        "INSERT INTO miq_queue (class_name, method_name, instance_id, args, queue_name, priority)"
        " VALUES (%s, %s, %s, %s, 'generic', 20)",
        (call.get("class_name"), call.get("method_name"), call.get("instance_id"), args),
    )
