"""The book of children: what the server knows of its workers in memory. No system call, no database: pure book-keeping.

Supervision goes on from here while the database is away. A child is in the book from before its fork until its death
has been judged.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from miq.models import WorkerStatus
from miq.process import ProcessInfo


@dataclass
class Child:
    """One worker of this server. Times are CLOCK_MONOTONIC seconds."""

    guid: str
    worker_id: int
    type_name: str
    queue_name: str | None
    #: set before the fork, so that one that hangs at its birth is noticed too
    born: float
    status: WorkerStatus = WorkerStatus.CREATING
    pid: int | None = None
    pid_start: int | None = None
    last_beat: float = 0.0
    started: bool = False
    #: why it was told to stop, and when it is killed if it does not
    stop_reason: str | None = None
    kill_at: float | None = None
    killed: bool = False
    said: str | None = None
    #: the last sample of its process, and when it was taken
    info: ProcessInfo | None = None
    sampled: float = 0.0

    @property
    def memory(self) -> int | None:
        """Bytes that are its own, as last sampled."""
        return self.info.unique_set_size if self.info else None

    @property
    def key(self) -> tuple[str, str | None]:
        """What a replacement has in common with it."""
        return (self.type_name, self.queue_name)


@dataclass(frozen=True)
class Exit:
    """How a process ended: an exit code, or the signal that ended it."""

    code: int | None
    signal: int | None

    @classmethod
    def from_status(cls, status: int) -> Exit:
        """From `waitpid`'s status."""
        if os.WIFSIGNALED(status):
            return cls(None, os.WTERMSIG(status))
        return cls(os.WEXITSTATUS(status), None)


@dataclass
class Children:
    """All of them, by guid."""

    by_guid: dict[str, Child] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Child]:
        return iter(list(self.by_guid.values()))

    def __len__(self) -> int:
        return len(self.by_guid)

    def add(self, child: Child) -> None:
        """A child to be."""
        child.last_beat = child.born
        self.by_guid[child.guid] = child

    def remove(self, guid: str) -> None:
        """Its death is recorded."""
        self.by_guid.pop(guid, None)

    def of_pid(self, pid: int) -> Child | None:
        """The child with this pid."""
        return next((child for child in self if child.pid == pid), None)

    def heard(self, child: Child, message: dict[str, object], now: float) -> None:
        """Take in one message of its channel."""
        child.last_beat = now
        kind = message.get("kind")
        if kind == "forked":
            child.pid = int(str(message["pid"]))
            start = message.get("pid_start")
            child.pid_start = int(str(start)) if start is not None else None
        elif kind == "started":
            child.started = True
            if child.status in (WorkerStatus.CREATING, WorkerStatus.STARTING):
                child.status = WorkerStatus.STARTED
        elif kind == "exiting":
            child.said = str(message.get("reason") or "")

    def stopping(self, child: Child, reason: str, kill_at: float) -> None:
        """It was told to stop; an earlier kill stands."""
        child.status = WorkerStatus.STOPPING
        child.stop_reason = child.stop_reason or reason
        child.kill_at = kill_at if child.kill_at is None else min(child.kill_at, kill_at)

    def next_deadline(self) -> float | None:
        """When the first of them is to be killed."""
        return min((child.kill_at for child in self if child.kill_at is not None and not child.killed), default=None)
