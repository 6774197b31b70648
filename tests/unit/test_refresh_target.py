"""Targets and causes of refreshes that become one."""

from __future__ import annotations

from typing import Any

import pytest

from miq.ems_refresh import target
from miq.errors import BadMessage


def test_union_names_everyone_once_in_order() -> None:
    assert target.union([["A", 2], ["A", 1]], [("A", 1), ("B", 1)]) == [("A", 2), ("A", 1), ("B", 1)]


def test_reading_a_message() -> None:
    assert target.read([["A", 1], ["A", 1], ["B", 2]]) == [("A", 1), ("B", 2)]


@pytest.mark.parametrize("bad", [None, "A", {"A": 1}, [["A"]], [["A", "1"]], [[1, "A"]], ["A"]])
def test_anything_else_is_refused(bad: Any) -> None:
    with pytest.raises(BadMessage):
        target.read(bad)


def test_causes_are_united() -> None:
    assert target.unite_causes("schedule", "user") == "schedule, user"
    assert target.unite_causes("schedule, user", "user") == "schedule, user"
    assert target.unite_causes(None, "user") == "user"
    assert target.unite_causes(None, None) is None
