"""Which assignments of a role are active."""

from __future__ import annotations

from miq.server.roles import Assigned, decide


def test_unlimited_is_active_wherever_assigned() -> None:
    assert decide([Assigned(1, 1, 2, False), Assigned(2, 2, 3, True)], 0) == {1, 2}


def test_the_smallest_number_wins_and_null_counts_as_two() -> None:
    assert decide([Assigned(1, 1, 3, True), Assigned(2, 2, None, False)], 1) == {2}
    assert decide([Assigned(1, 1, None, False), Assigned(2, 2, 1, False)], 1) == {2}


def test_equal_numbers_never_migrate() -> None:
    assert decide([Assigned(1, 1, 2, False), Assigned(2, 2, 2, True)], 1) == {2}


def test_without_anybody_there_is_nothing_to_activate() -> None:
    assert decide([], 1) == set()
