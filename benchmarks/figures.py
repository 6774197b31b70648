"""How figures are told: one JSON object a line, last on standard output, with the bar that they are held to."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One measured figure. `bar` is the most it may be, or the least with `least`."""

    name: str
    value: float
    unit: str
    bar: float
    least: bool = False

    @property
    def ok(self) -> bool:
        return self.value >= self.bar if self.least else self.value <= self.bar

    def line(self) -> str:
        """As `make bench` reads it."""
        return json.dumps(
            {"figure": self.name, "value": round(self.value, 3), "unit": self.unit, "bar": self.bar, "ok": self.ok}
        )


def tell(figures: list[Figure]) -> int:
    """Print them; 0 when every bar holds."""
    for figure in figures:
        print(figure.line())
    return 0 if all(figure.ok for figure in figures) else 1


def progress(text: str) -> None:
    """A line for whoever waits, on standard error."""
    print(text, file=sys.stderr, flush=True)


def percentile(values: list[float], share: float) -> float:
    """The value that `share` of them do not pass."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
