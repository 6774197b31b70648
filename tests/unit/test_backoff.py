"""Which deaths count, and how long they hold a worker back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from miq.server.backoff import DeathFacts, Policy, delay, in_crash_loop, in_vain

POLICY = Policy(base=1.0, longest=300.0, limit=5)
CRASH = DeathFacts(started=True, finished=0, out_of_memory=False, commanded=False, clean=False, killed_idle=False)


@pytest.mark.parametrize(
    ("facts", "counts"),
    [
        (CRASH, True),
        (replace(CRASH, started=False), True),
        (replace(CRASH, started=False, killed_idle=True), True),
        (replace(CRASH, finished=1), False),
        (replace(CRASH, killed_idle=True), False),
        (replace(CRASH, clean=True), False),
        (replace(CRASH, commanded=True), False),
        (replace(CRASH, finished=7, out_of_memory=True), True),
        (replace(CRASH, commanded=True, started=False), False),
    ],
)
def test_which_deaths_count(facts: DeathFacts, counts: bool) -> None:
    assert in_vain(facts) is counts


def test_the_first_failure_is_retried_at_once_then_doubled_up_to_the_longest() -> None:
    assert [delay(deaths, POLICY) for deaths in range(0, 6)] == [0, 0, 1, 2, 4, 8]
    assert delay(50, POLICY) == 300


def test_crash_loop() -> None:
    assert [in_crash_loop(deaths, POLICY) for deaths in (4, 5)] == [False, True]
