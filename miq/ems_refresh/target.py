"""Targets of a refresh: `[class_name, id]` pairs, as messages carry them. Pure.

Two requests for one manager become one message, so their targets are united; the order of arrival stays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from miq.errors import BadMessage

Target = tuple[str, int]


def read(pairs: Any) -> list[Target]:  # noqa: ANN401 - whatever stands in a message
    """The targets of a message. Raises BadMessage for anything else."""
    if not isinstance(pairs, list):
        raise BadMessage(f"targets are {type(pairs).__name__}, not an array of [class_name, id] pairs")
    targets = []
    for pair in pairs:
        match pair:
            case [str() as class_name, int() as record_id]:
                targets.append((class_name, record_id))
            case _:
                raise BadMessage(f"{pair!r} is not a [class_name, id] pair")
    return union(targets)


def union(*lists: Iterable[Sequence[Any]]) -> list[Target]:
    """Every target once, in the order of first mention."""
    return list(dict.fromkeys((pair[0], pair[1]) for targets in lists for pair in targets))


def unite_causes(first: str | None, second: str | None) -> str | None:
    """`schedule, user`: every cause once."""
    causes = [cause.strip() for text in (first, second) if text for cause in text.split(",")]
    return ", ".join(dict.fromkeys(causes)) or None
