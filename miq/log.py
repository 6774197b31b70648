"""Log lines in ManageIQ's shape, so that its operators' greps go on working.

    [----] I, [2019-12-05T13:44:53.486372 #25740:bf0f68]  INFO -- evm: MIQ(MiqServer#start) ...

One line per record, traceback lines joined with a visible mark: a secret-free, append-only file that many
processes write to. `configure` is called once per process; nothing else here touches the logging tree.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

_LEVELS = {"DEBUG": "D", "INFO": "I", "WARNING": "W", "ERROR": "E", "CRITICAL": "F"}
_NAMES = {"WARNING": "WARN", "CRITICAL": "FATAL"}


class LineFormatter(logging.Formatter):
    """The line head of ManageIQ's `evm.log`."""

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
        level = _NAMES.get(record.levelname, record.levelname)
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        thread = f"{(threading.get_ident() >> 8) & 0xFFFFFF:06x}"
        head = f"[----] {_LEVELS.get(record.levelname, 'U')}, [{moment} #{os.getpid()}:{thread}] {level:>5} -- evm: "
        return head + text.replace("\n", " | ")


def hold_back() -> None:
    """Say nothing until `configure` is called: Python would print bare messages, tracebacks and all, on its own."""
    logging.getLogger("miq").addHandler(logging.NullHandler())


def configure(log_file: Path | None, level: str = "info", terminal: bool = False) -> None:
    """Send the `miq` loggers to the file (appended), to standard error, or to both.

    Raises nothing for an unwritable file: the lines then go to standard error, with a line that says so.
    """
    root = logging.getLogger("miq")
    for handler in list(root.handlers):
        root.removeHandler(handler)
        handler.close()
    root.propagate = False
    root.setLevel(getattr(logging, str(level).upper(), logging.INFO))
    handlers: list[logging.Handler] = []
    trouble: OSError | None = None
    if log_file is not None:
        try:
            handlers.append(logging.FileHandler(log_file, delay=False))
        except OSError as error:
            trouble = error
    if terminal or not handlers:
        handlers.append(logging.StreamHandler(sys.stderr))
    for handler in handlers:
        handler.setFormatter(LineFormatter())
        root.addHandler(handler)
    if trouble:
        root.warning("MIQ(Log.configure) %s cannot be written: %s", log_file, trouble)
