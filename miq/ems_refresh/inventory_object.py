"""What a parser hands to a collection: values that fit their columns, and lazy references to other objects.

A lazy reference names an object by its identity, not by its id: nobody has looked it up, and it need not exist. The
saver resolves them all at once, in SQL. Values are checked here, one object at a time, so that one that does not fit
costs its own object and never the page that it stands in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from psycopg.types.json import Jsonb
from sqlalchemy import ARRAY, BigInteger, Boolean, Column, DateTime, Double, Integer, Numeric, String
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeEngine

from miq.errors import MiqError

Check = Callable[[Any], Any]


class BadObject(MiqError):
    """An object that cannot be saved: it is skipped, named and counted."""


@dataclass(frozen=True, slots=True)
class Lazy:
    """A reference to the object of `collection` whose identity, down to plain values, is `leaves`."""

    collection: str
    leaves: tuple[str | None, ...]


def check_for(column: Column[Any]) -> Check:
    """What turns a value into one that the column takes, or raises ValueError."""
    kind: TypeEngine[Any] = column.type
    if isinstance(kind, BigInteger):
        return _whole_number(63)
    if isinstance(kind, Integer):
        return _whole_number(31)
    for known, check in _CHECKS:
        if isinstance(kind, known):
            return check
    raise TypeError(f"column {column}: the inventory knows no {kind!r}")


def _whole_number(bits: int) -> Check:
    low, high = -(2**bits), 2**bits - 1

    def check(value: Any) -> int:  # noqa: ANN401
        number = int(value)
        if not low <= number <= high:
            raise ValueError(f"{number} does not fit into {bits + 1} bits")
        return number

    return check


def _text(value: Any) -> str:  # noqa: ANN401
    text = value if type(value) is str else str(value)
    if "\0" in text:
        raise ValueError("a NUL character cannot be stored")
    if not text.isascii():
        text.encode()
    return text


def _boolean(value: Any) -> bool:  # noqa: ANN401
    if value is True or value is False:
        return bool(value)
    raise ValueError(f"{value!r} is neither true nor false")


def _moment(value: Any) -> datetime:  # noqa: ANN401
    if not isinstance(value, datetime):
        raise ValueError(f"{value!r} is not a time")
    return value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value


def _json(value: Any) -> Jsonb:  # noqa: ANN401
    if "\\u0000" in repr(value):
        raise ValueError("a NUL character cannot be stored")
    return Jsonb(value)


_CHECKS: tuple[tuple[type[TypeEngine[Any]], Check], ...] = (
    (String, _text),
    (Boolean, _boolean),
    (DateTime, _moment),
    (Double, float),
    (Numeric, float),
    (JSONB, _json),
    (ARRAY, lambda value: [_text(item) for item in value]),
)
