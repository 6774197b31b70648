"""The steps of the queue's state machine that put messages: by every verb and by plain SQL, with who waits for them.

Each is done to the real tables and told to the model. Every message has a number of its own in its args, so that it can
be followed through merges.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from sqlalchemy.orm import Session

from miq.clock import utc
from miq.queue.message import Callback, Message, Origin
from miq.queue.put import CALL_AND_ARGS, THE_CALL, Waiting, put, put_many, put_or_update, put_unless_exists
from miq.queue.tasks import create_task, task_callback
from tests.parts.queue_model import Model, Row, Waiter
from tests.parts.queue_world import World

#: the time of the machines begins when the module is read
BASE = utc()
#: when what is deferred, or expires, does
IN_AN_HOUR = BASE + timedelta(hours=1)
MATCHES = [THE_CALL, THE_CALL, CALL_AND_ARGS, None]

put_options = st.fixed_dictionaries(
    {
        "method_name": st.sampled_from(["again", "once", "once", "again", "gone"]),
        "priority": st.sampled_from([20, 100, 100, 150]),
        "zone": st.sampled_from([None, None, "default", "other", "maintenance"]),
        "role": st.sampled_from([None, None, "event"]),
        "task_id": st.sampled_from([None, None, "a", "b"]),
        "deliver_on": st.sampled_from([None, None, IN_AN_HOUR]),
        "expires_on": st.sampled_from([None, None, None, IN_AN_HOUR]),
    }
)
of_a_kind = st.fixed_dictionaries(
    {
        "method_name": st.sampled_from(["again", "again", "once"]),
        "priority": st.sampled_from([20, 100]),
        "task_id": st.sampled_from([None, None, None, "a"]),
        "zone": st.just(None),
    }
)
waiters = st.sampled_from([None, None, "callback", "task", "alone"])


class Puts(RuleBasedStateMachine):
    """What puts."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.database = self.world.database
        self.world.begin()
        self.model = Model()
        self.numbers: Iterator[int] = iter(range(1, 10**9))
        #: which message a number has gone to
        self.put_ids: dict[int, int] = {}

    def _message(self, session: Session, options: dict[str, Any], waiter: str | None, *args: int) -> Message:
        """With its args, and somebody who waits for it."""
        instance_id = -1 if options["method_name"] == "gone" else None
        message = Message("Machine", args=list(args), instance_id=instance_id, **options)
        if waiter == "callback":
            return replace(message, callback=Callback("Machine", "told", args=[next(self.numbers)]))
        if waiter is None or message.zone == "maintenance":
            return message
        task_id = create_task(session, "wait")
        return replace(message, miq_task_id=task_id, callback=task_callback(task_id) if waiter == "task" else None)

    def _expect(self, message_id: int, message: Message, key: str | None = None) -> None:
        """The message is in the table from now on."""
        waiter = None
        if message.miq_task_id is not None:
            waiter = Waiter("task" if message.callback else "alone", message.miq_task_id)
        elif message.callback is not None:
            waiter = Waiter("callback", message.callback.args[0])
        assert isinstance(message.zone, str | None) and isinstance(message.task_id, str | None)
        self.model.add(
            Row(
                message_id, message.method_name != "once", list(message.args), message.priority, message.zone,
                message.role, message.task_id, key, waiter, message.deliver_on, message.expires_on,
            )
        )  # fmt: skip

    @rule(options=put_options, waiter=waiters)
    def put(self, options: dict[str, Any], waiter: str | None) -> None:
        number = next(self.numbers)
        with self.database.session() as session:
            message = self._message(session, options, waiter, number)
            message_id = put(session, message)
        assert (message_id is None) == (message.zone == "maintenance")
        if message_id is not None:
            self.put_ids[number] = message_id
            self._expect(message_id, message)

    @rule(options=st.lists(put_options, min_size=1, max_size=6))
    def put_many(self, options: list[dict[str, Any]]) -> None:
        with self.database.session() as session:
            messages = [self._message(session, each, None, next(self.numbers)) for each in options]
            taken = [message for message in messages if message.zone != "maintenance"]
            assert put_many(session, messages) == len(taken)
        for message_id, message in zip(self._new_ids(), taken, strict=True):
            self.put_ids[message.args[0]] = message_id
            self._expect(message_id, message)

    @rule(method=st.sampled_from(["again", "once"]), priority=st.sampled_from([100, -5, 200]))
    def put_by_sql(self, method: str, priority: int) -> None:
        number = next(self.numbers)
        self.database.run(
            "INSERT INTO miq_queue (class_name, method_name, args, priority) VALUES ('Machine', %(m)s, %(a)s, %(p)s)",
            {"m": method, "a": json.dumps([number]), "p": priority},
        )
        (message_id,) = self._new_ids()
        self.put_ids[number] = message_id
        self.model.add(Row(message_id, method == "again", [number], priority))

    @rule(
        options=of_a_kind, waiter=waiters, arg=st.integers(-2, -1), match=st.sampled_from(MATCHES), busy=st.booleans()
    )
    def put_unless_exists(
        self, options: dict[str, Any], waiter: str | None, arg: int, match: frozenset[str] | None, busy: bool
    ) -> None:
        with self.database.session() as session:
            message = self._message(session, options, waiter, arg)
            key = message.key(message.given() if match is None else match, Origin())
            message_id = put_unless_exists(session, message, match=match, busy_too=busy)
        assert message_id is not None
        executed = {row.id for row in self.model.rows.values() if row.state == "dequeue" and row.key == key}
        if busy and executed:
            assert message_id in executed
        elif (waiting := self.model.ready(key)) is not None:
            assert message_id == waiting.id
        else:
            self._expect(message_id, message, key)

    @rule(options=of_a_kind, waiter=waiters)
    def put_or_update(self, options: dict[str, Any], waiter: str | None) -> None:
        """Args are merged: who asks later is served by the one that waits."""
        number = next(self.numbers)

        def merge(waiting: Waiting | None) -> dict[str, Any] | None:
            return {"args": [*waiting.args, number]} if waiting else None

        with self.database.session() as session:
            message = self._message(session, options, waiter, number)
            message_id = put_or_update(session, message, merge, match=THE_CALL)
        assert message_id is not None
        self.put_ids[number] = message_id
        key = message.key(THE_CALL, Origin())
        if (waiting := self.model.ready(key)) is not None:
            assert message_id == waiting.id
            waiting.args.append(number)
        else:
            self._expect(message_id, message, key)

    def _new_ids(self) -> list[int]:
        known = list(self.model.rows)
        found = self.database.run("SELECT id FROM miq_queue WHERE id <> ALL(%(known)s) ORDER BY id", {"known": known})
        return [row[0] for row in found]
