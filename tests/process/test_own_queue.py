"""Words to the server itself, by plain SQL on its own queue."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.process.appliance import appliance, eventually

pytestmark = pytest.mark.timeout(120)

WORD = (
    "INSERT INTO miq_queue (class_name, method_name, queue_name, server_guid)"
    " SELECT 'MiqServer', %s, 'miq_server', guid FROM miq_servers RETURNING id"
)


def test_a_server_does_what_its_own_queue_says(dsn: str, tmp_path: Path) -> None:
    with appliance(dsn, tmp_path / "home") as server:
        server.wait_for_workers(3)
        server.sql("UPDATE miq_servers SET memory_usage = NULL")
        server.sql(WORD, "status_update")
        eventually(lambda: server.sql("SELECT 1 FROM miq_servers WHERE memory_usage > 0"), what="its row is written")
        server.sql(WORD, "log_status")
        eventually(lambda: "MiqServer#log_status" in server.log(), what="the lines of health")
        server.sql(WORD.replace("'MiqServer'", "'Diagnostics'"), "noop")
        refused = eventually(lambda: server.sql("SELECT last_error FROM miq_queue WHERE state = 'error'"))
        assert "Diagnostics.noop is not a queue method" in str(refused[0][0])
        server.sql(WORD, "shutdown_and_exit")
        assert server.process.wait(30) == 0
        assert server.sql("SELECT status FROM miq_servers") == [("stopped",)]
        assert server.sql("SELECT count(*) FROM miq_queue WHERE state <> 'error'") == [(0,)]


def test_a_word_to_stop_is_for_the_run_that_heard_it(dsn: str, tmp_path: Path) -> None:
    with appliance(dsn, tmp_path / "home") as server:
        server.wait_for_workers(3)
        assert server.stop() == 0
        server.sql(WORD, "shutdown_and_exit")
        (held,) = server.sql(WORD, "status_update")
        server.sql(
            "UPDATE miq_queue SET state = 'dequeue', handler_type = 'MiqServer', handler_id = s.id"
            " FROM miq_servers s WHERE miq_queue.id = %s", held[0],
        )  # fmt: skip
    with appliance(dsn, tmp_path / "home") as server:
        server.wait_for_workers(3)
        assert server.process.poll() is None
        assert server.sql("SELECT method_name, state FROM miq_queue") == [("status_update", "error")]


def test_a_worker_does_not_do_what_only_a_server_does(dsn: str, tmp_path: Path) -> None:
    with appliance(dsn, tmp_path / "home") as server:
        server.wait_for_workers(3)
        server.sql("INSERT INTO miq_queue (class_name, method_name) VALUES ('MiqServer', 'shutdown_and_exit')")
        kept = eventually(lambda: server.sql("SELECT last_error FROM miq_queue WHERE state = 'error'"))
        assert "put it on queue 'miq_server'" in str(kept[0][0])
        assert server.process.poll() is None
