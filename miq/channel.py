"""The two wires between the server and a worker: a channel of small messages, and a slot of shared memory.

Channel: a SOCK_SEQPACKET pair made before the fork. The worker says `forked`, `started`, `heartbeat`; the server says
`stop`; end-of-file means death. Sends never block: a full channel is news for the caller, not a stall.
Slot: one page of a file that both map, where the worker notes the message in hand before it starts it. It costs
a fraction of a microsecond, needs no system call, and outlives both processes, so that the sweep knows what was
running.
"""

from __future__ import annotations

import json
import mmap
import os
import socket
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LARGEST = 4096


class Channel:
    """One end of the pair."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        end.setblocking(False)

    @classmethod
    def pair(cls) -> tuple[Channel, socket.socket]:
        """Our end, and the other as a plain socket to hand over."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), theirs

    def fileno(self) -> int:
        return self._end.fileno()

    def send(self, kind: str, **fields: Any) -> bool:  # noqa: ANN401 - any JSON value
        """False when the channel is full or the other side is gone."""
        try:
            self._end.send(json.dumps({"kind": kind, **fields}).encode())
        except (BlockingIOError, BrokenPipeError, ConnectionError, OSError):
            return False
        return True

    def receive(self) -> dict[str, Any] | None:
        """The next message; {} when there is none now; None at end-of-file."""
        try:
            data = self._end.recv(_LARGEST)
        except BlockingIOError:
            return {}
        except OSError:
            return None
        if not data:
            return None
        message: dict[str, Any] = json.loads(data)
        return message

    def close(self) -> None:
        self._end.close()


@dataclass(frozen=True)
class InHand:
    """What a worker is doing: the message, when it has to be over (CLOCK_MONOTONIC seconds), whether it may run again.

    `over`: its code has ended, and its end is still to be written. `finished` counts messages that ended.
    """

    message_id: int
    deadline: float
    idempotent: bool
    finished: int
    over: bool = False


IDLE = InHand(0, 0.0, False, 0)


def _boot_id() -> bytes:
    """This boot of the machine: a slot of an earlier one tells nothing, its last page may never have been written."""
    try:
        return uuid.UUID(Path("/proc/sys/kernel/random/boot_id").read_text().strip()).bytes
    except (OSError, ValueError):
        return bytes(16)


class Slot:
    """The shared page of one worker. `finished` counts messages that ended, for the crash-loop rule.

    Written while others read it, and its writer may die between any two stores. So every field is one aligned 8-byte
    store, and their order leaves the page true after each of them: a message's id is set after its deadline and flags,
    and taken away before anything else changes.
    """

    _ID, _FINISHED, _DEADLINE, _FLAGS = range(4)
    _IDEMPOTENT, _OVER = 1, 2
    _BOOT = slice(64, 80)
    _SIZE = mmap.PAGESIZE

    def __init__(self, path: Path) -> None:
        self.path = path
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            new = os.fstat(descriptor).st_size < self._SIZE
            if new:
                os.ftruncate(descriptor, self._SIZE)
            self._page = mmap.mmap(descriptor, self._SIZE)
        finally:
            os.close(descriptor)
        if new:
            self._page[self._BOOT] = _boot_id()
        self._numbers = memoryview(self._page).cast("q")
        self._times = memoryview(self._page).cast("d")

    def begin(self, message_id: int, deadline: float, idempotent: bool) -> None:
        """Note the message before its code starts."""
        self._numbers[self._ID] = 0
        self._times[self._DEADLINE] = deadline
        self._numbers[self._FLAGS] = self._IDEMPOTENT if idempotent else 0
        self._numbers[self._ID] = message_id

    def over(self) -> None:
        """Note that the code of a message that must not run twice has ended, and its end is not written yet."""
        self._numbers[self._FLAGS] = self._OVER
        self._numbers[self._FINISHED] += 1

    def rest(self) -> None:
        """Note that the end of what was over is written."""
        self._numbers[self._ID] = 0

    def end(self) -> None:
        """Note that nothing is in hand."""
        self._numbers[self._ID] = 0
        self._numbers[self._FINISHED] += 1

    def read(self) -> InHand:
        """What stands there now; `message_id` 0 means idle."""
        numbers = self._numbers
        message_id = -1
        while message_id != numbers[self._ID]:  # another message has begun while we read
            message_id = numbers[self._ID]
            finished, flags, deadline = numbers[self._FINISHED], numbers[self._FLAGS], self._times[self._DEADLINE]
        if not message_id:
            return InHand(0, 0.0, False, finished)
        return InHand(message_id, deadline, bool(flags & self._IDEMPOTENT), finished, bool(flags & self._OVER))

    @classmethod
    def peek(cls, path: Path) -> InHand | None:
        """What the slot of another process says; None when nobody can know: it is gone, or of an earlier boot."""
        if not path.exists():
            return None
        slot = cls(path)
        try:
            return slot.read() if slot._page[cls._BOOT] == _boot_id() else None
        finally:
            slot.close()

    def close(self) -> None:
        for view in (self._numbers, self._times):
            view.release()
        self._page.close()

    def remove(self) -> None:
        """Close it and delete the file."""
        self.close()
        self.path.unlink(missing_ok=True)
