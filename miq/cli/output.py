"""What the commands print: tables for people, JSON for programs, and a word while somebody waits.

Results go to standard output, everything else to standard error, so that `--json` is a document and nothing else. Rich
draws on a terminal; into a pipe or file go plain lines, one row a line, as wide as they are.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any

import typer

from miq.models.base import Base

AsJson = Annotated[bool, typer.Option("--json", help="Print a JSON document.")]


def print_json(value: object) -> None:
    """One JSON document on standard output; times are ISO 8601 in UTC."""
    json.dump(value, sys.stdout, indent=2, default=_plain, ensure_ascii=False)
    sys.stdout.write("\n")


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat() + ("" if value.tzinfo else "Z")
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Base):
        return columns_of(value)
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return str(value)


def columns_of(row: Base) -> dict[str, Any]:
    """A row's columns by name; what is binary is left out."""
    values = {column.key: getattr(row, column.key) for column in type(row).__table__.columns}
    return {key: value for key, value in values.items() if not isinstance(value, bytes)}


def moment(value: datetime | None, now: datetime) -> str:
    """A time as `evm:status` writes it: the hour when it is younger than a day, else the date; UTC."""
    if value is None:
        return ""
    return value.strftime("%Y-%m-%d") if now - value > timedelta(days=1) else value.strftime("%H:%M:%SUTC")


_AGES = ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h"), (float("inf"), 86_400, "d"))


def age(seconds: float | None) -> str:
    """Seconds as `45 s`, `12 min`, `5 h` or `3 d`; nothing for None, or for ever."""
    if seconds is None or math.isinf(seconds):
        return ""
    step, unit = next((step, unit) for limit, step, unit in _AGES if seconds < limit)
    return f"{max(0, int(seconds)) // step} {unit}"


def text(value: object) -> str:
    """A cell: nothing for None, words for booleans."""
    if value is None:
        return ""
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else " ".join(str(value).split())


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, right: Sequence[str] = ()) -> None:
    """A table with a line of headings; the columns in `right` are numbers."""
    cells = [[text(value) for value in row] for row in rows]
    if sys.stdout.isatty():
        _draw(columns, cells, right)
        return
    widths = [max(len(name), *(len(row[at]) for row in cells), 0) for at, name in enumerate(columns)]
    for line in [list(columns), ["-" * width for width in widths], *cells]:
        padded = [
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(columns, line, widths, strict=True)
        ]
        print("  ".join(padded).rstrip())


def _draw(columns: Sequence[str], cells: Sequence[Sequence[str]], right: Sequence[str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for name in columns:
        table.add_column(name, justify="right" if name in right else "left", no_wrap=True)
    for row in cells:
        table.add_row(*row)
    console = Console(markup=False, highlight=False, emoji=False)
    # A row stays a row: what is wider than the terminal is the terminal's to wrap.
    console.width = max(console.width, console.measure(table, options=console.options.update(width=10_000)).maximum)
    console.print(table)


def print_facts(facts: Sequence[tuple[str, object]]) -> None:
    """Names and values, one a line; those without a value are left out."""
    shown = [(name, text(value)) for name, value in facts if text(value)]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        print(f"{name:<{width}}  {value}")


def say(line: str) -> None:
    """A word beside the result."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def progress(about: str) -> Iterator[Callable[[str], None]]:
    """While something is waited for: a spinner with its seconds on a terminal, else a line for every new word."""
    if not sys.stderr.isatty():
        said: list[str] = []

        def tell(word: str) -> None:
            if not said or said[-1] != word:
                said.append(word)
                say(f"{about}: {word}")

        yield tell
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    shape = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*shape, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(about), total=None)
        yield lambda word: bar.update(task, description=escape(f"{about}: {word}"))
