"""How many messages at once: quick to take fewer, slow to take more, never more work than the budget."""

from __future__ import annotations

import random

import pytest

from miq.queue.appetite import Appetite

BUDGET, MOST = 0.2, 500


def fed(each: float, rounds: int = 30) -> Appetite:
    """An appetite that has met so many full claims of messages that take `each` seconds."""
    appetite = Appetite(MOST, BUDGET)
    for _ in range(rounds):
        appetite.learn(appetite.limit, appetite.limit * each)
    return appetite


def test_it_begins_with_one_and_doubles_while_messages_are_short() -> None:
    appetite, limits = Appetite(MOST, BUDGET), []
    for _ in range(11):
        limits.append(appetite.limit)
        appetite.learn(appetite.limit, appetite.limit * 1e-5)
    assert limits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 500, 500]


@pytest.mark.parametrize(("each", "limit"), [(0.0, MOST), (1e-4, MOST), (1e-3, 200), (0.015, 13), (0.19, 1), (60.0, 1)])
def test_it_settles_at_what_fits_the_budget(each: float, limit: int) -> None:
    assert fed(each).limit == limit


def test_one_long_round_is_believed_at_once_and_short_ones_only_bit_by_bit() -> None:
    appetite = fed(1e-4)
    appetite.learn(500, 500 * 0.1)
    assert appetite.limit == 2
    limits = []
    for _ in range(12):
        appetite.learn(appetite.limit, appetite.limit * 1e-4)
        limits.append(appetite.limit)
    assert limits == sorted(limits) and limits[0] <= 4, "it grows, and by no leap"
    assert limits[-1] > 50


def test_a_claim_that_came_back_half_empty_does_not_raise_the_limit() -> None:
    appetite = Appetite(MOST, BUDGET, limit=8)
    appetite.learn(3, 3e-5)
    assert appetite.limit == 8
    appetite.learn(8, 8e-5)
    assert appetite.limit == 16


def test_nothing_taken_teaches_nothing() -> None:
    appetite = fed(0.015)
    before = appetite.limit
    for _ in range(100):
        appetite.learn(0, 30.0)
    assert appetite.limit == before


def test_whatever_it_meets_the_limit_stays_between_one_and_most() -> None:
    chance = random.Random(7)
    appetite = Appetite(50, BUDGET)
    for _ in range(5000):
        taken = chance.randint(0, appetite.limit)
        appetite.learn(taken, taken * 10.0 ** chance.uniform(-7, 3))
        assert 1 <= appetite.limit <= 50


def test_messages_are_expected_to_be_brief_once_they_were() -> None:
    assert not Appetite(MOST, BUDGET).brief, "nothing is known yet"
    assert fed(1e-3).brief and fed(0.04).brief
    assert not fed(0.06).brief and not fed(60.0).brief
