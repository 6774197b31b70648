"""A connection that breaks while a claim is under way: what the claim takes after that is given back, too."""

from __future__ import annotations

import os
import socket
import threading
from contextlib import closing

import psycopg
import pytest
from sqlalchemy.orm import Session

from miq.db import Database
from miq.queue.batch import Batch
from miq.queue.claim import Handler, Route, claim
from miq.queue.deliver import Delivery
from miq.queue.methods import queue_method
from miq.session import run_in
from tests.process.appliance import eventually

ME = Handler("MiqWorker", 1)
ROUTE = Route("generic", None, [], None)
NAME = "MIQ|4711|1|1|1|GenericWorker|default"


def test_a_claim_goes_on_in_the_database_after_its_connection_broke(dsn: str, database: Database) -> None:
    errors: list[Exception] = []

    def take(mine: Database) -> None:
        try:
            claim(mine, ME, ROUTE, limit=10)
        except psycopg.OperationalError as error:
            errors.append(error)

    with closing(Database(dsn, NAME)) as mine, psycopg.connect(dsn) as locker:
        locker.execute("INSERT INTO miq_queue (class_name, method_name) VALUES ('Test', 'note'), ('Test', 'note')")
        locker.execute("LOCK TABLE miq_queue IN SHARE MODE")
        assert mine.backend_pid
        thread = threading.Thread(target=take, args=(mine,))
        thread.start()
        waits = "SELECT pid FROM pg_stat_activity WHERE application_name = %(name)s AND wait_event_type = 'Lock'"
        eventually(lambda: database.run(waits, {"name": NAME}).fetchone(), seconds=10, what="the claim waits")
        with socket.socket(fileno=os.dup(mine.fileno())) as wire:
            wire.shutdown(socket.SHUT_RDWR)
        thread.join(10)
        assert len(errors) == 1
        Batch(Delivery(mine, ME), lambda: False).recover()
        locker.commit()
        gone = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %(name)s"
        eventually(lambda: database.run(gone, {"name": NAME}).fetchone() == (1,), seconds=10, what="the old one ended")
    assert database.run("SELECT state, handler_id FROM miq_queue").fetchall() == [("ready", None)] * 2


def test_a_message_that_ends_its_connection_every_time_ends_after_three_attempts(database: Database) -> None:
    def poison(session: Session, record: None) -> None:
        run_in(session, "SELECT pg_terminate_backend(pg_backend_pid())")

    queue_method("Test", "poison", idempotent=True)(poison)
    database.run("INSERT INTO miq_queue (class_name, method_name) VALUES ('Test', 'poison')")
    batch = Batch(Delivery(database, ME), lambda: False)
    for _ in range(3):
        with pytest.raises(psycopg.OperationalError):
            batch.work(claim(database, ME, ROUTE))
        batch.recover()
    assert claim(database, ME, ROUTE) == []
    assert database.run("SELECT state, attempts FROM miq_queue").fetchall() == [("error", 3)]
