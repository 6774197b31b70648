"""Rows that somebody wrote by hand, or by mistake: whatever the columns admit, a worker lives through it.

Ten thousand of them, by a seeded chance, inserted by COPY and worked off by one `Claimer` and `Batch`, as one worker
does it. Nothing may come out of the batch but the time-out that ends a worker on purpose; every row that may be taken
ends, the well-formed ones well and exactly once; all others are left as they are. What no worker can ever take is
ended by `MiqQueue.check_for_timeout`, from garbage of the same kind.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.orm import Session

from miq.channel import InHand
from miq.clock import utc
from miq.db import Database
from miq.errors import ExitNow, RetryLater
from miq.models import Zone
from miq.queue.appetite import Appetite
from miq.queue.batch import Batch
from miq.queue.claim import Claimer, Handler, Route, seconds_until_due
from miq.queue.deliver import Delivery
from miq.queue.methods import queue_method
from miq.queue.sweep import Death, sweep
from miq.queue.upkeep import check_for_timeout
from miq.session import run_in

ROWS = 10_000
ME = Handler("MiqWorker", 7)
ROUTE = Route("generic", "default", ["event"], "my-guid")
ran: Counter[int] = Counter()

INTS = [-(2**31), -1, 0, 1, 3, 2**31 - 1]
BIGS = [None, -(2**63), -1, 0, 4711, 2**63 - 1]
TEXTS = [None, "", " ", "Fuzz", "'; DROP TABLE miq_queue; --", "\\", "\x01\x1b[31m", "äöü\u202e\U0001f600", "x" * 2000]
PAST, FUTURE = ["-infinity", "4713-01-01 BC", "1969-12-31 23:59:59"], ["infinity", "294276-12-31", "2199-01-01"]
NESTED = "[" * 60_000 + "]" * 60_000
JSON = [
    None, "", " ", "[]", "null", "{}", "5", '"x"', "true", "[1,", "[1]]", "NaN", "[NaN, -Infinity]", "[1e999]",
    '["\\ud800"]', '["\\u0000"]', "[" + "9" * 5000 + "]", "[null]", '[{"a": 1, "a": 2}]', "\ufeff[]", "'1'", "x" * 500,
]  # fmt: skip
CALLBACKS = [
    *JSON, NESTED,
    '{"class_name": "Fuzz", "method_name": "told"}',
    '{"class_name": "Fuzz", "method_name": "told", "args": 5}',
    '{"class_name": "Fuzz", "method_name": "told", "args": {"a": 1}}',
    '{"class_name": "Fuzz", "method_name": "told", "args": "text", "instance_id": "text"}',
    '{"class_name": "Fuzz", "method_name": "told", "instance_id": 1180591620717411303424}',
    '{"class_name": "Fuzz", "method_name": "told", "instance_id": {"a": 1}}',
    '{"class_name": "Fuzz", "method_name": "told", "instance_id": 1.5, "args": [NaN]}',
    '{"class_name": "Fuzz", "method_name": "zone", "instance_id": "text"}',
    '{"class_name": "Fuzz", "method_name": "says", "args": ["\\ud800 \\u0000"]}',
    '{"class_name": "Fuzz", "method_name": "exits"}',
    '{"class_name": "\\u0000", "method_name": "\\ud800"}',
    '{"class_name": ["Fuzz"], "method_name": {}}',
    '{"class_name": 5}',
]  # fmt: skip
METHODS = [
    "ok", "once", "says", "unsayable", "exits", "cancelled", "later", "odd", "writes", "swallows", "zone", "forgets",
    "tall", "never",
]  # fmt: skip


@dataclass(frozen=True)
class Garbage:
    """What a column may hold, whoever wrote it."""

    values: dict[str, Sequence[Any]]

    def row(self, chance: random.Random, good: dict[str, Any], share: float) -> dict[str, Any]:
        """A good row of which some columns are anything."""
        row = dict(good)
        if chance.random() < share:
            for column in chance.sample(sorted(self.values), chance.choice([1, 1, 2, 3, 8])):
                row[column] = chance.choice(self.values[column])
        return row


ANYTHING = Garbage(
    {
        "class_name": TEXTS,
        "method_name": [*TEXTS, *METHODS],
        "args": JSON,
        "msg_data": [None, b"", b"null", b"\xff\xfe", b"\x00", b'{"a": "\x00"}', '["ä"]'.encode("utf-16"), b"9" * 5000],
        "miq_callback": CALLBACKS,
        "priority": [None, *INTS, 100, 200, 201],
        "msg_timeout": [None, *INTS],
        "instance_id": BIGS,
        "target_id": BIGS,
        "miq_task_id": BIGS,
        "user_id": BIGS,
        "handler_id": BIGS,
        "handler_type": [None, "MiqWorker", "MiqServer", "", "Nobody"],
        "queue_name": [None, "", "generic", "other", "GENERIC"],
        "zone": [None, "default", "other", "", "nowhere"],
        "role": [None, "event", "", "event,reporting", "unknown"],
        "server_guid": [None, "my-guid", "another", ""],
        "task_id": [None, "", "a", "b", "x" * 2000],
        "tracking_label": TEXTS,
        "last_error": TEXTS,
        "lock_version": [None, *INTS],
        "attempts": INTS,
        "created_on": [None, *PAST, *FUTURE],
        "updated_on": [None, *PAST, *FUTURE],
        "deliver_on": [None, *PAST, *FUTURE],
        "expires_on": [None, *PAST, *FUTURE],
        "state": ["ready", "ready", "ready", "ready", "error", "warn", "timeout", "expired", None],
    }
)
GOOD: dict[str, Any] = dict.fromkeys(ANYTHING.values) | {
    "class_name": "Fuzz",
    "method_name": "ok",
    "args": "[1]",
    "priority": 100,
    "msg_timeout": 600,
    "queue_name": "generic",
    "lock_version": 0,
    "attempts": 0,
    "created_on": "2026-01-01 00:00:00",
    "state": "ready",
}


@pytest.fixture(autouse=True)
def registered(caplog: pytest.LogCaptureFixture, registry: None) -> None:
    """Methods that misbehave in every way that does not end the process by itself."""
    caplog.set_level(logging.CRITICAL)
    ran.clear()

    def note(session: Session, record: None, *args: Any) -> None:
        ran[session.info["message"].id] += 1

    queue_method("Fuzz", "ok", idempotent=True)(note)
    queue_method("Fuzz", "once")(note)
    queue_method("Fuzz", "told", idempotent=True)(lambda session, record, *args: None)
    queue_method("Fuzz", "zone", idempotent=True, model=Zone)(lambda session, record, *args: record.name)
    for function in (says, unsayable, exits, cancelled, later, never, odd, writes, swallows, forgets, tall, slow):
        queue_method("Fuzz", function.__name__, idempotent=True)(function)


class Unsayable(Exception):
    """An error whose text cannot be had."""

    def __str__(self) -> str:
        raise ValueError("no text")


def says(session: Session, record: None, *args: Any) -> None:
    raise ValueError(*args, "\ud800\0")


def unsayable(session: Session, record: None, *args: Any) -> None:
    raise Unsayable


def exits(session: Session, record: None, *args: Any) -> None:
    sys.exit("as a library may do")


def cancelled(session: Session, record: None, *args: Any) -> None:
    raise asyncio.CancelledError


def later(session: Session, record: None, *args: Any) -> None:
    raise RetryLater(utc() + timedelta(days=1))


def never(session: Session, record: None, *args: Any) -> None:
    raise RetryLater("tomorrow")  # type: ignore[arg-type]


def odd(session: Session, record: None, *args: Any) -> Any:
    return {object(): float("nan"), "set": {1}, "text": "\ud800"}


def writes(session: Session, record: None, *args: Any) -> None:
    run_in(session, "INSERT INTO zones (name) VALUES (%(name)s)", {"name": repr(args)[:50].replace("\0", "")})


def swallows(session: Session, record: None, *args: Any) -> None:
    try:
        run_in(session, "SELECT * FROM there_is_no_such_table")
    except Exception:
        return


def forgets(session: Session, record: None, *args: Any) -> None:
    """Opens a transaction of its own, and never ends it."""
    session.info["database"].connection.execute("SELECT 1")


def tall(session: Session, record: None, *args: Any) -> None:
    return tall(session, record, *args)


def slow(session: Session, record: None, *args: Any) -> None:
    time.sleep(60)


def rows_of(chance: random.Random, count: int, share: float = 0.7) -> list[dict[str, Any]]:
    rows = [
        ANYTHING.row(chance, {**GOOD, "method_name": chance.choice(["ok", "once", *METHODS])}, share)
        for _ in range(count)
    ]
    for number, row in enumerate(rows[:60]):
        row["args"] = NESTED if number % 2 else json.dumps(["x" * 500_000])
    return rows


def insert(database: Database, rows: list[dict[str, Any]]) -> list[int]:
    """By COPY; the ids in order."""
    columns = list(GOOD)
    with database.transaction() as connection:
        with connection.cursor().copy(f"COPY miq_queue ({', '.join(columns)}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row([row[column] for column in columns])
        return [row[0] for row in connection.execute("SELECT id FROM miq_queue ORDER BY id")]


def may_take(row: dict[str, Any]) -> bool:
    """Whether our worker may take it."""
    return (
        row["state"] == "ready"
        and row["queue_name"] == "generic"
        and row["priority"] is not None
        and row["priority"] <= 200
        and row["zone"] in (None, "default")
        and row["role"] in (None, "event")
        and row["server_guid"] in (None, "my-guid")
        and row["deliver_on"] not in FUTURE
        and row["expires_on"] not in PAST
    )


def work_off(database: Database) -> int:
    """As a worker does it; how many time-outs ended it on purpose."""
    claimer, appetite, ended = Claimer(database, ME, ROUTE), Appetite(most=500, budget=0.2), 0
    batch = Batch(Delivery(database, ME), lambda: False)
    while True:
        began = time.monotonic()
        taken = claimer.take(appetite.limit)
        if not taken:
            return ended
        try:
            batch.work(taken)
        except ExitNow:
            ended += 1
            batch = Batch(Delivery(database, ME), lambda: False)
        appetite.learn(len(taken), time.monotonic() - began)


def table(database: Database) -> dict[int, tuple[str | None, str | None, int | None, str]]:
    found = database.run("SELECT id, state, last_error, handler_id, method_name FROM miq_queue").fetchall()
    return {row[0]: (row[1], row[2], row[3], row[4]) for row in found}


def test_a_worker_lives_through_ten_thousand_rows_of_anything(database: Database) -> None:
    with database.session() as session:
        session.add_all([Zone(name="default"), Zone(name="other")])
    rows = rows_of(random.Random(20), ROWS)
    rows[-3:] = [{**GOOD, "method_name": "slow", "msg_timeout": 1, "priority": 1} for _ in range(3)]
    ids = insert(database, rows)
    assert work_off(database) == 3
    assert (seconds_until_due(database, "generic") or 0) > 0, "some are for later"
    left = table(database)
    for message_id, row in zip(ids, rows, strict=True):
        about = f"{message_id}: { ({name: str(value)[:80] for name, value in row.items() if value != GOOD[name]}) }"
        if not may_take(row):
            assert left[message_id][0] == row["state"] and not ran[message_id], about
        elif row == {**GOOD, "method_name": row["method_name"]} and row["method_name"] in ("ok", "once"):
            assert message_id not in left and ran[message_id] == 1, about
        elif message_id in left:
            state, text, handler, _ = left[message_id]
            if state == "ready":
                assert row["method_name"] == "later", about
            else:
                assert state in ("error", "warn", "timeout") and text, about
            assert handler is None or state == "ready", about
        else:
            assert ran[message_id] <= 1, about
    states = Counter(state for state, *_ in left.values())
    assert states["error"] > 1000 and states["warn"] > 50, states
    assert not states["dequeue"] and len(left) < ROWS * 0.85


def test_what_no_worker_can_take_is_ended_by_the_check(database: Database) -> None:
    chance = random.Random(21)
    rows = rows_of(chance, 3000)
    for number, row in enumerate(rows):
        if number % 2:
            row.update(state="dequeue", task_id=None, updated_on=chance.choice([None, *PAST]), created_on="-infinity")
            row.update(handler_id=chance.choice(BIGS), handler_type=chance.choice([None, "MiqWorker", "Nobody", ""]))
        else:
            row.update(
                chance.choice([{"queue_name": None}, {"priority": None}, {"priority": 201}, {"expires_on": PAST[2]}])
            )
            row["state"] = "ready"
    ids = insert(database, rows)
    while True:
        with database.session() as session:
            ended = check_for_timeout(session, None)
        if not any(ended.values()):
            break
    left = table(database)
    for message_id, row in zip(ids, rows, strict=True):
        state, text, handler, _ = left[message_id]
        about = f"{message_id}: { ({name: str(value)[:80] for name, value in row.items() if value != GOOD[name]}) }"
        expected = ("expired",) if row["expires_on"] in PAST and row["state"] == "ready" else ("error",)
        assert state in (*expected, "error") and text and (handler is None or row["state"] == "ready"), about


def test_one_that_is_never_due_keeps_nobody_awake(database: Database) -> None:
    insert(database, [{**GOOD, "deliver_on": "infinity"}])
    assert seconds_until_due(database, "generic") is None


@pytest.mark.parametrize(
    ("attempts", "callback"), [*zip(INTS, [None, None, NESTED, *CALLBACKS[-3:]], strict=True)], ids=map(str, INTS)
)
def test_a_death_is_settled_whatever_the_row_says(database: Database, attempts: int, callback: str | None) -> None:
    row = {**GOOD, "state": "dequeue", "handler_type": ME.kind, "handler_id": ME.id, "queue_name": "ü" * 40}
    (message_id,) = insert(database, [{**row, "attempts": attempts, "miq_callback": callback}])
    for _ in range(4):
        with database.transaction() as connection:
            sweep(connection, Death(ME.kind, ME.id, InHand(message_id, 0.0, True, 0), "it died"))
        state, text, handler, _ = table(database)[message_id]
        if state != "ready":
            break
        database.run("UPDATE miq_queue SET state = 'dequeue', handler_type = 'MiqWorker', handler_id = 7")
    assert state == "error" and handler is None and "it died" in (text or "")


class SlowLog(logging.Handler):
    """A disk that takes its time."""

    def emit(self, record: logging.LogRecord) -> None:
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            time.sleep(0.01)


def test_a_time_out_that_rings_between_two_lines_of_ours(database: Database) -> None:
    """The code has just ended when its time is over: the message ends all the same, and nothing else is hit."""

    def late(session: Session, record: None) -> None:
        time.sleep(0.9)
        raise ValueError("late")

    queue_method("Fuzz", "fails_late", idempotent=True)(late)
    insert(database, [{**GOOD, "method_name": "fails_late", "args": "[]", "msg_timeout": 1}, {**GOOD, "priority": 200}])
    logger = logging.getLogger("miq.queue.deliver")
    logger.addHandler(handler := SlowLog())
    logger.setLevel(logging.ERROR)
    try:
        assert work_off(database) == 1
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    assert [(state, text) for state, text, *_ in table(database).values()] == [("timeout", "timed out after 1 seconds")]
