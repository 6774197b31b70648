"""The changes of the simulated account, and their log: one JSON object a line in MIQ_HOME/demo/changes.jsonl.

The simulator forgets everything when it stops. Replaying the log against a fresh one gives the same account with the
same ids, because each change is made with random numbers that depend on its step alone, and at the time that it was
made first. The log is only ever appended to, but for `rewrite`, which puts a shorter one that means the same in its
place.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from miq.errors import UsageError


class Verb(StrEnum):
    """What can happen to a machine."""

    LAUNCH = "launch"
    START = "start"
    STOP = "stop"
    TAG = "tag"
    RESIZE = "resize"
    TERMINATE = "terminate"
    #: nothing happens: the steps up to this one are taken
    SKIP = "skip"


@dataclass(frozen=True)
class Change:
    """One step in the life of the account: something happens to the machine of that name."""

    step: int
    verb: Verb
    name: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)
    #: seconds since 1970 when it was made, 0 while it is planned
    at: int = 0

    def as_json(self) -> str:
        """One line of the log."""
        return json.dumps({"step": self.step, "at": self.at, "verb": self.verb, "name": self.name, **self.values})

    @classmethod
    def from_json(cls, line: str) -> Change:
        """Raises ValueError or KeyError for a line that is no change."""
        values = json.loads(line)
        step, at = int(values.pop("step")), int(values.pop("at"))
        return cls(step, Verb(values.pop("verb")), values.pop("name"), values, at)

    def __str__(self) -> str:
        words = [self.verb, self.name]
        if self.verb is Verb.TAG:
            words.append(f"{self.values['key']}={self.values['value']}")
        if self.verb in (Verb.RESIZE, Verb.LAUNCH):
            words.append(str(self.values["type"]))
        return " ".join(words)


class ChangeLog:
    """The file. A last line that a crash has cut short counts as not written."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> list[Change]:
        """Every change, oldest first; none when there is no file yet. Raises UsageError for a file that is no log."""
        lines = self._path.read_text().splitlines(keepends=True) if self._path.exists() else []
        if lines and not lines[-1].endswith("\n"):
            lines.pop()
            self._replace("".join(lines))
        try:
            return [Change.from_json(line) for line in lines]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UsageError(f"{self._path} is no log of changes: remove it, the demo then begins anew") from None

    def append(self, change: Change) -> None:
        with self._path.open("a") as file:
            file.write(change.as_json() + "\n")

    def rewrite(self, changes: Iterable[Change]) -> None:
        """Put these in place of all, at once."""
        self._replace("".join(change.as_json() + "\n" for change in changes))

    def _replace(self, text: str) -> None:
        beside = self._path.with_suffix(".new")
        beside.write_text(text)
        beside.replace(self._path)
