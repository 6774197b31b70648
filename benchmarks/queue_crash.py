"""A worker killed with SIGKILL: how long until the message that it ran runs again.

The clock starts before the signal and stops when another worker's slot names the same message. Twelve rounds each, in
turn: a message alone, and one in the middle of a batch that its worker had taken in one go. The rest of a batch, which
was only held, goes through as well, and without an attempt. Before each round both workers have finished something, so
that no death of theirs is in vain and holds the replacement back.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from benchmarks.figures import Figure, percentile, progress, tell
from benchmarks.queue_rounds import GENERIC, wait_idle
from benchmarks.stand import fresh_home, migrated
from miq.channel import IDLE, InHand, Slot
from tests.process.appliance import Appliance, appliance, eventually

ROUNDS, WORKERS = 12, 2
#: messages of a batch before and behind the one that is killed
AROUND = 40
PUT = "INSERT INTO miq_queue (class_name, method_name, args) SELECT 'Diagnostics', %s, %s FROM generate_series(1, %s)"


def in_hand(server: Appliance, guid: str) -> InHand:
    """What a worker's slot says; nothing when it has none yet."""
    return Slot.peek(server.home / "run" / "slots" / guid) or IDLE


def runs(server: Appliance, message_id: int) -> tuple[int, int] | None:
    """(worker, pid) that has begun this message; None while nobody has."""
    for worker_id, pid, guid in server.sql(
        "SELECT id, pid, guid FROM miq_workers WHERE type = %s AND pid IS NOT NULL", GENERIC
    ):
        if in_hand(server, guid).message_id == message_id:
            return worker_id, pid
    return None


def warm(server: Appliance) -> None:
    """Until each worker that is there has finished a message."""

    def finished() -> bool:
        server.sql(PUT, "noop", "[]", 1000)  # short ones, so that they take many at once again
        eventually(lambda: not server.sql("SELECT 1 FROM miq_queue"), what="an empty queue")
        guids = server.sql("SELECT guid FROM miq_workers WHERE type = %s", GENERIC)
        return all(in_hand(server, guid).finished for (guid,) in guids)

    wait_idle(server, WORKERS)
    eventually(finished, seconds=30, what="work for every worker")


def put_one(server: Appliance) -> int:
    """A message alone."""
    ((message_id,),) = server.sql(f"{PUT} RETURNING id", "sleep", "[0.5]", 1)
    return int(message_id)


def put_batch(server: Appliance) -> int:
    """One among many that are put at once."""
    with server.connection.transaction():
        server.sql(PUT, "noop", "[]", AROUND)
        message_id = put_one(server)
        server.sql(PUT, "noop", "[]", AROUND)
    return message_id


def kill(server: Appliance, message_id: int) -> tuple[float, int]:
    """Kill whoever runs it; the milliseconds until another does, and how many more the victim held."""
    victim = eventually(lambda: runs(server, message_id), what="somebody runs it")
    assert victim is not None
    worker_id, pid = victim
    ((held,),) = server.sql(
        "SELECT count(*) FROM miq_queue WHERE state = 'dequeue' AND handler_id = %s AND id <> %s", worker_id, message_id
    )
    began = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    while (again := runs(server, message_id)) is None or again[0] == worker_id:
        assert time.monotonic() - began < 30, f"message {message_id} does not run again"
        time.sleep(0.001)
    took = (time.monotonic() - began) * 1000
    ((attempts, others),) = server.sql(
        "SELECT max(attempts) FILTER (WHERE id = %s), max(attempts) FILTER (WHERE id <> %s) FROM miq_queue",
        message_id,
        message_id,
    )
    assert attempts == 1 and not others, f"attempts: {attempts} of the message, {others} of those that were held"
    eventually(lambda: not server.sql("SELECT 1 FROM miq_queue"), what="all went through")
    return took, held


def measure(server: Appliance) -> float:
    """The worse p95 of the two."""
    alone, batched, batches = [], [], []
    for _ in range(ROUNDS):
        warm(server)
        alone.append(kill(server, put_one(server))[0])
        warm(server)
        took, held = kill(server, put_batch(server))
        batched.append(took)
        batches.append(held)
    for name, values in (("alone", alone), ("in a batch", batched)):
        progress(f"{name}: {min(values):.1f}..{max(values):.1f} ms, p50 {percentile(values, 0.5):.1f}")
    progress(f"held beside the one that ran: {min(batches)}..{max(batches)} messages")
    return max(percentile(alone, 0.95), percentile(batched, 0.95))


def main() -> int:
    """One server with its default workers."""
    with fresh_home() as home, migrated(home) as dsn, appliance(dsn, home.path) as server:
        worst = measure(server)
        assert server.stop(seconds=60) == 0
    return tell([Figure("crash_rerun_ms", worst, "ms", 200)])


if __name__ == "__main__":
    sys.exit(main())
