"""Queue methods that leave a trace, for the mold of a test's server to preload, and what the trace says.

Each start and each end is one line of a file in MIQ_HOME, appended by one write, so that neither a killed worker nor a
killed database can take it back: a message that has begun twice has two starts. Times are CLOCK_MONOTONIC, which all
processes of a machine share.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from miq import paths
from miq.queue.methods import queue_method

MODULE = __name__
_FILE = "queue.trace"


@dataclass(frozen=True)
class Run:
    """One start of a message's code; `ended` None: it never came to its end. Seconds."""

    number: int
    pid: int
    began: float
    ended: float | None = None


def _note(what: str, number: int) -> None:
    with (paths.home().path / _FILE).open("ab", buffering=0) as file:
        file.write(f"{what} {number} {os.getpid()} {time.monotonic()}\n".encode())


def _work(number: int, seconds: float) -> None:
    _note("began", number)
    time.sleep(seconds)
    _note("ended", number)


@queue_method("Trace", "again", idempotent=True)
def again(session: Session, record: None, number: int, seconds: float) -> None:
    """May run twice."""
    _work(number, seconds)


@queue_method("Trace", "once", idempotent=False)
def once(session: Session, record: None, number: int, seconds: float) -> None:
    """Must not."""
    _work(number, seconds)


@queue_method("Trace", "hang", idempotent=True)
def hang(session: Session, record: None, number: int) -> None:
    """Sleeps in C code that no signal interrupts."""
    _note("began", number)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM, signal.SIGTERM})
    ctypes.CDLL(None).sleep(120)


@queue_method("Trace", "told", idempotent=True)
def told(session: Session, record: None, number: int, status: str, text: str, result: object) -> None:
    """A callback: the number and status of who ended it."""
    _note(f"told:{status}", number)


def runs(home: Path) -> list[Run]:
    """Every start, with its end if it had one."""
    found: list[Run] = []
    at: dict[tuple[int, int], int] = {}
    for what, number, pid, moment in _lines(home):
        if what == "began":
            at[number, pid] = len(found)
            found.append(Run(number, pid, moment))
        elif what == "ended":
            begun = at.pop((number, pid))
            found[begun] = Run(number, pid, found[begun].began, moment)
    return found


def whom_told(home: Path) -> list[tuple[int, str]]:
    """Numbers and statuses that callbacks were called with."""
    return [(number, what.removeprefix("told:")) for what, number, _, _ in _lines(home) if what.startswith("told:")]


def _lines(home: Path) -> Iterable[tuple[str, int, int, float]]:
    path = home / _FILE
    for line in path.read_text().splitlines() if path.exists() else ():
        what, number, pid, moment = line.split()
        yield what, int(number), int(pid), float(moment)


def overlaps(found: Iterable[Run], chain_of: Mapping[int, str], killed: Mapping[int, float]) -> list[tuple[Run, Run]]:
    """Pairs of one chain that ran at the same time. One without an end ran until its process was killed."""
    chains: dict[str, list[Run]] = defaultdict(list)
    for run in sorted(found, key=lambda run: run.began):
        if run.number in chain_of:
            chains[chain_of[run.number]].append(run)
    return [
        (earlier, later)
        for chain in chains.values()
        for index, later in enumerate(chain)
        for earlier in chain[:index]
        if (killed[earlier.pid] if earlier.ended is None else earlier.ended) > later.began
    ]
