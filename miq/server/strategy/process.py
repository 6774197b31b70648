"""Workers as child processes, forked by the mold. System calls only: no rows, no decisions.

The mold is exec'ed, and exec'ed again when it dies; launches wait until it is ready. The server is the child
subreaper, so the workers, whose parents leave at once, become its children: it can wait for them, and their pids
cannot be reused before.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from miq import process
from miq.channel import Channel

log = logging.getLogger(__name__)


class ProcessStrategy:
    """The mold and what comes out of it."""

    def __init__(self, env: dict[str, str], preload: Sequence[str]) -> None:
        self._env = env
        self._preload = list(preload)
        self._mold: subprocess.Popen[bytes] | None = None
        self._wire: socket.socket | None = None
        self._waiting: list[tuple[dict[str, Any], socket.socket]] = []
        self.ready = False
        process.become_subreaper()

    @property
    def mold_pid(self) -> int | None:
        return self._mold.pid if self._mold else None

    def start_mold(self) -> socket.socket:
        """Exec the mold; the wire to it, to be watched."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            self._mold = subprocess.Popen(
                [sys.executable, "-m", "miq.workers.mold", str(theirs.fileno()), str(os.getpid()), *self._preload],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                env=self._env,
                start_new_session=True,
            )
        self._wire = ours
        self.ready = False
        return ours

    def mold_died(self, status: int) -> None:
        """It was reaped. Launches that wait go on waiting for the next one."""
        if self._mold is not None:
            self._mold.returncode = os.waitstatus_to_exitcode(status)
        if self._wire is not None:
            self._wire.close()
        self._mold, self._wire, self.ready = None, None, False

    def hear_mold(self) -> dict[str, Any] | None:
        """One message of the mold: ready, failed; None when there is none."""
        assert self._wire is not None
        try:
            data = self._wire.recv(65536)
        except (BlockingIOError, ConnectionError):
            return None
        if not data:
            return None
        message: dict[str, Any] = json.loads(data)
        if message["kind"] == "ready":
            self.ready = True
            self._send_waiting()
        return message

    def start(self, launch: dict[str, Any]) -> Channel:
        """Ask for a worker; our end of its channel, made before the fork."""
        ours, theirs = Channel.pair()
        self._waiting.append((launch, theirs))
        if self.ready:
            self._send_waiting()
        return ours

    def _send_waiting(self) -> None:
        while self._waiting and self._wire is not None:
            launch, end = self._waiting[0]
            try:
                socket.send_fds(self._wire, [json.dumps(launch).encode()], [end.fileno()])
            except (BlockingIOError, ConnectionError):
                return
            end.close()
            self._waiting.pop(0)

    def waits(self) -> bool:
        """Whether a launch could not be sent yet."""
        return bool(self._waiting)

    def retry_waiting(self) -> None:
        """Send what did not fit before."""
        if self.ready:
            self._send_waiting()

    def forget(self, guid: str) -> bool:
        """Take back a launch that was not sent yet; False when it is too late."""
        for index, (launch, end) in enumerate(self._waiting):
            if launch["guid"] == guid:
                end.close()
                del self._waiting[index]
                return True
        return False

    def terminate(self, pid: int) -> None:
        """SIGTERM to one worker; it is our unreaped child, so the pid is its own."""
        _signal(pid, signal.SIGTERM)

    def kill(self, pid: int) -> None:
        """SIGKILL to a worker and everything in its session."""
        try:
            os.killpg(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            _signal(pid, signal.SIGKILL)

    def stop_mold(self) -> None:
        """End of service: the mold leaves at the end of its wire."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None
        if self._mold is not None:
            try:
                self._mold.wait(5)
            except subprocess.TimeoutExpired:
                self._mold.kill()
                self._mold.wait(5)
            self._mold = None


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        log.debug("MIQ(ProcessStrategy) pid %s is gone before %s", pid, number.name)
