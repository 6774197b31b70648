"""`sd_notify`: tell the service manager that we are ready, alive or stopping. Silent where nobody listens."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> bool:
    """Send `READY=1`, `WATCHDOG=1`, `STOPPING=1` ... to NOTIFY_SOCKET; False when there is none or it is gone."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            out.connect(address)
            out.send(state.encode())
    except OSError:
        return False
    return True


def watchdog_seconds() -> float | None:
    """How often the service manager wants to hear from us (half its limit), None when it does not watch."""
    limit = os.environ.get("WATCHDOG_USEC", "")
    pid = os.environ.get("WATCHDOG_PID")
    if not limit.isdigit() or (pid and pid != str(os.getpid())):
        return None
    return int(limit) / 2e6
