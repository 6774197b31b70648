"""Is this worker well? Pure: what the book and the slot say, against the limits of its type (reference 3.6)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from miq.channel import InHand
from miq.models import WorkerStatus
from miq.server.children import Child


@dataclass(frozen=True)
class Limits:
    """Of one worker type, in seconds and bytes."""

    heartbeat_timeout: float
    starting_timeout: float
    stopping_timeout: float
    memory_threshold: float
    poll: float
    #: how long one that does not answer is given after the request to exit: until the next pass
    kill_grace: float


class Verdict(StrEnum):
    """What is wrong with a worker."""

    WELL = "well"
    NOT_STARTED = "did not start in time"
    NOT_RESPONDING = "not responding"
    TIMED_OUT = "message timed out"
    MEMORY = "memory exceeded"


#: seconds after its deadline that a worker has to end a message itself; past them it hangs in code that cannot be
#: interrupted
OVERDUE = 3.0


def running(in_hand: InHand) -> bool:
    """Whether the code of a message runs now."""
    return bool(in_hand.message_id) and not in_hand.over


def overdue_at(in_hand: InHand) -> float | None:
    """When the server has to end the message in hand, since its worker does not; None when nothing runs."""
    return in_hand.deadline + OVERDUE if running(in_hand) else None


def validate(child: Child, in_hand: InHand, limits: Limits, now: float) -> Verdict:
    """One look. A worker that is stopping already is the kill timer's business."""
    if child.status == WorkerStatus.STOPPING:
        return Verdict.WELL
    if not child.started:
        return Verdict.WELL if now - child.born <= limits.starting_timeout else Verdict.NOT_STARTED
    silent_until = child.last_beat + limits.heartbeat_timeout
    if running(in_hand):
        silent_until = max(silent_until, in_hand.deadline + limits.poll)
    if now > silent_until:
        return Verdict.NOT_RESPONDING
    if child.memory is not None and 0 < limits.memory_threshold < child.memory:
        return Verdict.MEMORY
    return Verdict.WELL


def grace(verdict: Verdict, in_hand: InHand, limits: Limits, now: float) -> float:
    """When a worker that was told to stop is killed.

    At once-and-a-bit when it does not answer, else after its message.
    """
    if verdict in (Verdict.NOT_RESPONDING, Verdict.NOT_STARTED):
        return now + limits.kill_grace
    rest = in_hand.deadline - now if running(in_hand) else 0.0
    return now + max(limits.stopping_timeout, rest)
