"""Messages of one `task_id` never overlap: six who take up to fifty at once, and die in the middle of what they took.

Whoever begins a message puts a marker with its chain's name into a table of the test, under a primary key, and takes it
out when its code has ended: a second marker of a chain is refused by the database, and that is an overlap. The same
check is then run on chains that have no `task_id`, to show that it finds one.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field

import psycopg

from miq.channel import InHand
from miq.db import Database
from miq.queue.claim import Claimed, Handler, Route, claim
from miq.queue.message import Message
from miq.queue.put import put_many
from miq.queue.record import finish
from miq.queue.sweep import Death, sweep

WORKERS, LONGEST = 6, 60.0
CHAINS = [f"chain {number}" for number in range(7)]
ROUTE = Route("generic", None, [], None)


@dataclass
class Book:
    """What the workers saw, all together."""

    left: int
    ended: Counter[int] = field(default_factory=Counter)
    overlaps: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    largest: int = 0
    deaths: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Worker(threading.Thread):
    """Takes and does messages until all are done; dies now and then, and comes back as another one."""

    def __init__(self, dsn: str, number: int, book: Book, deadly: float) -> None:
        super().__init__(daemon=True)
        self.dsn, self.book, self.deadly = dsn, book, deadly
        self.chance = random.Random(number)
        self.handler = Handler("MiqWorker", number)

    def run(self) -> None:
        end = time.monotonic() + LONGEST
        with closing(Database(self.dsn)) as database:
            try:
                while self.book.left > 0 and time.monotonic() < end:
                    self._take_and_do(database)
            except Exception as error:
                self.book.errors.append(f"{type(error).__name__}: {error}")

    def _take_and_do(self, database: Database) -> None:
        taken = claim(database, self.handler, ROUTE, limit=self.chance.choice([1, 3, 10, 50]))
        self.book.largest = max(self.book.largest, len(taken))
        for message in taken:
            self._do(database, message)
            if self.chance.random() < self.deadly:
                self._die(database, message)
                return
            finish(database, self.handler, [message])
            with self.book.lock:
                self.book.ended[message.id] += 1
                self.book.left -= 1
        if not taken:
            time.sleep(0.001)

    def _do(self, database: Database, message: Claimed) -> None:
        (chain,) = json.loads(message.args or "")
        marker = {"chain": chain, "message": message.id}
        try:
            if chain is not None:
                database.run("INSERT INTO at_work VALUES (%(chain)s, %(message)s)", marker)
        except psycopg.errors.UniqueViolation:
            self.book.overlaps.append(chain)
        time.sleep(self.chance.choice([0, 0, 0.001, 0.003]))
        database.run("DELETE FROM at_work WHERE chain = %(chain)s AND message = %(message)s", marker)

    def _die(self, database: Database, message: Claimed) -> None:
        """The server sweeps what we held; a new worker takes our place."""
        in_hand = InHand(message.id, 0.0, True, 0)
        with database.transaction() as connection:
            sweep(connection, Death(self.handler.kind, self.handler.id, in_hand, "it died", counts=False))
        with self.book.lock:
            self.book.deaths += 1
            self.handler = Handler("MiqWorker", WORKERS + self.book.deaths)


def work_off(dsn: str, chains: list[tuple[str | None, str | None]], deadly: float) -> Book:
    """Put a message for each (chain, task_id), and have them done."""
    with closing(Database(dsn)) as database:
        database.run("CREATE TABLE at_work (chain text PRIMARY KEY, message bigint)")
        with database.session() as session:
            put_many(session, [Message("Test", "note", [chain], task_id=task_id) for chain, task_id in chains])
    book = Book(len(chains))
    workers = [Worker(dsn, number, book, deadly) for number in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(LONGEST + 10)
    return book


def test_messages_of_one_task_id_never_overlap(dsn: str, database: Database) -> None:
    chance = random.Random(3)
    chains = [*(CHAINS[number % 7] for number in range(420)), *[None] * 80]
    chance.shuffle(chains)
    book = work_off(dsn, [(chain, chain) for chain in chains], deadly=0.05)
    assert (book.errors, book.overlaps, book.left) == ([], [], 0)
    assert len(book.ended) == 500 and set(book.ended.values()) == {1}, "each ended once"
    assert book.deaths > 10 and book.largest > 3, "there was something to see"
    assert database.run("SELECT count(*) FROM miq_queue").fetchone() == (0,)


def test_many_chains_by_the_hundred_stop_nobody(dsn: str, database: Database) -> None:
    """Who takes and who ends so many at once may lock each other out; neither worker is bothered by it."""
    with database.session() as session:
        put_many(session, [Message("Test", "note", task_id=f"chain {number % 600}") for number in range(3000)])
    book = Book(3000)

    def work(number: int) -> None:
        handler = Handler("MiqWorker", number)
        with closing(Database(dsn)) as mine:
            try:
                while book.left > 0:
                    if taken := claim(mine, handler, ROUTE, limit=500):
                        finish(mine, handler, taken)
                    with book.lock:
                        book.left -= len(taken)
                        book.ended.update(message.id for message in taken)
            except Exception as error:
                book.left = 0
                book.errors.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONGEST)
    assert (book.errors, book.left) == ([], 0)
    assert len(book.ended) == 3000 and set(book.ended.values()) == {1}


def test_the_check_finds_an_overlap(dsn: str) -> None:
    book = work_off(dsn, [(CHAINS[number % 7], None) for number in range(500)], deadly=0.05)
    assert book.errors == [] and book.left == 0
    assert book.overlaps
