"""Is a worker well: the book and the slot against the limits."""

from __future__ import annotations

import pytest

from miq.channel import InHand
from miq.models import WorkerStatus
from miq.process import ProcessInfo
from miq.server.children import Child
from miq.server.validation import Limits, Verdict, grace, validate

LIMITS = Limits(
    heartbeat_timeout=120, starting_timeout=600, stopping_timeout=600, memory_threshold=1000, poll=3, kill_grace=15
)
IDLE = InHand(0, 0.0, False, 0)


def sample(memory: int) -> ProcessInfo:
    return ProcessInfo(0, 0, 0, memory, 0.0, 0.0, 0.0, 20)


def child(*, beat: float = 0.0, memory: int | None = None, started: bool = True) -> Child:
    info = sample(memory) if memory is not None else None
    return Child(
        "g", 1, "MiqGenericWorker", "generic", born=0.0, last_beat=beat, info=info, started=started,
        status=WorkerStatus.STARTED if started else WorkerStatus.STARTING,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("worker", "in_hand", "now", "verdict"),
    [
        (child(), IDLE, 120, Verdict.WELL),
        (child(), IDLE, 121, Verdict.NOT_RESPONDING),
        (child(), InHand(7, 600.0, True, 0), 602, Verdict.WELL),
        (child(), InHand(7, 600.0, True, 0), 604, Verdict.NOT_RESPONDING),
        (child(started=False), IDLE, 600, Verdict.WELL),
        (child(started=False), IDLE, 601, Verdict.NOT_STARTED),
        (child(memory=1000), IDLE, 1, Verdict.WELL),
        (child(memory=1001), IDLE, 1, Verdict.MEMORY),
    ],
)
def test_verdict(worker: Child, in_hand: InHand, now: float, verdict: Verdict) -> None:
    assert validate(worker, in_hand, LIMITS, now) is verdict


def test_a_stopping_worker_is_left_to_its_deadline() -> None:
    worker = child(memory=10**9)
    worker.status = WorkerStatus.STOPPING
    assert validate(worker, IDLE, LIMITS, 10**6) is Verdict.WELL


def test_the_silent_are_killed_soon_the_others_after_their_message() -> None:
    assert grace(Verdict.NOT_RESPONDING, IDLE, LIMITS, 100) == 115
    assert grace(Verdict.MEMORY, IDLE, LIMITS, 100) == 700
    assert grace(Verdict.MEMORY, InHand(7, 7300.0, True, 0), LIMITS, 100) == 7300
