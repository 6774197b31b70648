"""What a worker hears while it works and while it waits: signals, its server's channel, its database's notifications.

A signal handler only notes that it was asked and wakes the select. `stop_reason` is set once, by whoever asks first;
loops and long work look at it. Sleeping is waiting on all of them: nothing that matters is slept through.
"""

from __future__ import annotations

import logging
import select
import signal
import socket
from types import FrameType

import psycopg

from miq.channel import Channel
from miq.db import Database

log = logging.getLogger(__name__)


class Wires:
    """The ears of one worker process. Without a server there is no channel, and nothing is missed."""

    def __init__(self, channel: Channel | None) -> None:
        self.stop_reason: str | None = None
        self._channel = channel
        self._wake_r, self._wake_w = socket.socketpair()

    def catch_signals(self) -> None:
        """SIGTERM and SIGINT ask for a stop from now on."""
        for each in (self._wake_r, self._wake_w):
            each.setblocking(False)
        signal.set_wakeup_fd(self._wake_w.fileno(), warn_on_full_buffer=False)

        def asked(number: int, frame: FrameType | None) -> None:
            self.ask_to_stop(signal.Signals(number).name)

        signal.signal(signal.SIGTERM, asked)
        signal.signal(signal.SIGINT, asked)

    def ask_to_stop(self, reason: str) -> None:
        """The first reason stands."""
        self.stop_reason = self.stop_reason or reason

    def tell(self, kind: str, **fields: object) -> None:
        """A word to the server, if there is one; a full channel is news, not a stall."""
        if self._channel is not None and not self._channel.send(kind, **fields):
            log.warning("MIQ(Wires#tell) the server does not listen to %s", kind)

    def wait(self, seconds: float, database: Database | None = None) -> None:
        """Until something is heard, at most `seconds`. Raises psycopg.OperationalError when the database went away."""
        sources = [self._wake_r.fileno(), *([self._channel.fileno()] if self._channel else [])]
        notices = _fileno(database)
        ready, _, _ = select.select([*sources, *([notices] if notices is not None else [])], [], [], max(0.0, seconds))
        if self._wake_r.fileno() in ready:
            self._wake_r.recv(1024)
        if self._channel is not None and self._channel.fileno() in ready:
            self._hear_server(self._channel)
        if database is not None and notices in ready:
            database.take_notifications()

    def _hear_server(self, channel: Channel) -> None:
        while message := channel.receive():
            if message.get("kind") == "stop":
                self.ask_to_stop(str(message.get("reason") or "stopped by the server"))
        if message is None:
            self.ask_to_stop("the server is gone")
            channel.close()
            self._channel = None


def _fileno(database: Database | None) -> int | None:
    try:
        return database.fileno() if database is not None else None
    except psycopg.Error:
        return None
