"""How many messages a worker takes at once. Pure.

It begins with one, doubles as long as they turn out to be short, and never holds more work than fits `budget` seconds:
a worker that holds long messages would keep them from those that are idle.
"""

from __future__ import annotations

from dataclasses import dataclass

#: seconds
BRIEF = 0.05


@dataclass
class Appetite:
    """The next claim's limit, learnt from the last ones. `budget` is in seconds, `most` in messages."""

    most: int
    budget: float
    limit: int = 1
    _each: float = 0.0

    @property
    def brief(self) -> bool:
        """Whether the next ones are expected to take a moment only."""
        return 0.0 < self._each < BRIEF

    def learn(self, taken: int, seconds: float) -> None:
        """`taken` messages took `seconds`, with all that belongs to them."""
        if not taken:
            return
        each = seconds / taken
        # Quick to believe that they are long, slow to believe that they are short.
        self._each = max(each, 0.7 * self._each + 0.3 * each)
        fitting = int(self.budget / self._each) if self._each > 0 else self.most
        grown = self.limit * 2 if taken >= self.limit else self.limit
        self.limit = max(1, min(grown, fitting, self.most))
