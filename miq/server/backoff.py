"""When a worker that keeps dying may be started again. Pure: a history of deaths in, a time out.

Only deaths in vain count: before `started`, for want of memory, or without any finished work. A worker that had worked
and is killed from outside is replaced at once, always.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Policy:
    """`base` and `longest` are seconds; `limit` deaths in a row make a crash loop."""

    base: float
    longest: float
    limit: int


@dataclass(frozen=True)
class DeathFacts:
    """What the rule looks at."""

    started: bool
    finished: int
    out_of_memory: bool
    commanded: bool
    clean: bool
    #: killed from outside (SIGKILL, not for want of memory) while it had nothing in hand
    killed_idle: bool


def in_vain(death: DeathFacts) -> bool:
    """Whether this death counts."""
    if death.commanded:
        return False
    if death.out_of_memory or not death.started:
        return True
    return not death.clean and not death.killed_idle and death.finished == 0


def delay(deaths_in_a_row: int, policy: Policy) -> float:
    """Seconds until the next start: the first failure is retried at once, then doubled up to the longest."""
    if deaths_in_a_row <= 1:
        return 0.0
    return float(min(policy.longest, policy.base * 2.0 ** (deaths_in_a_row - 2)))


def in_crash_loop(deaths_in_a_row: int, policy: Policy) -> bool:
    """Whether people have to look at it."""
    return deaths_in_a_row >= policy.limit
