"""What a server may be asked by message, on its own queue `miq_server` (reference 0.12, 2.2): registered here only.

INSERT INTO miq_queue (class_name, method_name, queue_name, server_guid)
VALUES ('MiqServer', 'shutdown_and_exit', 'miq_server', 'GUID');
"""

from __future__ import annotations

from typing import Protocol

from sqlalchemy.orm import Session

from miq.errors import BadMessage
from miq.models import MiqServer
from miq.queue.methods import queue_method

QUEUE = "miq_server"


class Server(Protocol):
    """The server process behind the words."""

    def shutdown_and_exit(self) -> None: ...
    def reload_settings(self) -> None: ...
    def status_update(self) -> None: ...
    def log_status(self) -> None: ...


def _server(session: Session) -> Server:
    server: Server | None = session.info.get("server")
    if server is None:
        raise BadMessage(f"only a server does this: put it on queue {QUEUE!r}, with the server's guid")
    return server


@queue_method("MiqServer", "shutdown_and_exit", idempotent=True, model=MiqServer)
def shutdown_and_exit(session: Session, row: MiqServer | None) -> None:
    """Quiesce, as SIGTERM does."""
    _server(session).shutdown_and_exit()


@queue_method("MiqServer", "reload_settings", idempotent=True, model=MiqServer)
def reload_settings(session: Session, row: MiqServer | None) -> None:
    """Read settings and roles anew, as SIGHUP does."""
    _server(session).reload_settings()


@queue_method("MiqServer", "status_update", idempotent=True, model=MiqServer)
def status_update(session: Session, row: MiqServer | None) -> None:
    """Write heartbeat and process info into the server's row."""
    _server(session).status_update()


@queue_method("MiqServer", "log_status", idempotent=True, model=MiqServer)
def log_status(session: Session, row: MiqServer | None) -> None:
    """Write the lines of health into the log."""
    _server(session).log_status()
