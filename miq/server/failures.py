"""Which kinds of workers keep dying, and until when each is held back: the memory that `backoff`'s rules work on."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from miq import process
from miq.channel import InHand
from miq.server import backoff
from miq.server.backoff import DeathFacts, Policy
from miq.server.children import Child, Exit
from miq.server.sync import Key
from miq.server.validation import Verdict

log = logging.getLogger(__name__)


@dataclass
class Failing:
    """A key whose workers die in vain: how often in a row, and when the next may start (CLOCK_MONOTONIC)."""

    deaths: int = 0
    until: float = 0.0


@dataclass
class Failures:
    """All of them, by type and queue."""

    by_key: dict[Key, Failing] = field(default_factory=dict)
    _oom_kills: int = field(default_factory=process.oom_kills)

    def judge(self, child: Child, exit_: Exit, in_hand: InHand, policy: Policy) -> tuple[Failing, str]:
        """What a death makes of its key, and the death in words."""
        out_of_memory = self._was_oom(exit_) or child.stop_reason == Verdict.MEMORY
        reason = _reason(child, exit_, out_of_memory)
        facts = DeathFacts(
            started=child.started,
            finished=in_hand.finished,
            out_of_memory=out_of_memory,
            commanded=child.stop_reason is not None and not out_of_memory,
            clean=exit_.code == 0,
            killed_idle=exit_.signal == signal.SIGKILL and not in_hand.message_id,
        )
        if not backoff.in_vain(facts):
            self.by_key.pop(child.key, None)
            return Failing(), reason
        failing = self.by_key.setdefault(child.key, Failing())
        failing.deaths += 1
        failing.until = time.monotonic() + backoff.delay(failing.deaths, policy)
        if backoff.in_crash_loop(failing.deaths, policy):
            log.error(
                "MIQ(MiqServer#sync_workers) Worker [%s], queue [%s] is in a crash loop: %s deaths in a row, %s",
                child.type_name, child.queue_name, failing.deaths, reason,
            )  # fmt: skip
        return failing, reason

    def _was_oom(self, exit_: Exit) -> bool:
        """The kernel's own count has grown, and this was a SIGKILL."""
        kills = process.oom_kills()
        grown, self._oom_kills = kills > self._oom_kills, kills
        return grown and exit_.signal == signal.SIGKILL

    def remember(self, deaths: Mapping[Key, tuple[int, float]]) -> None:
        """Take over what an earlier server had: a restart forgives no crash loop."""
        now = time.monotonic()
        for key, (count, seconds_left) in deaths.items():
            self.by_key[key] = Failing(count, now + seconds_left)

    def held_back(self) -> list[Key]:
        """Keys that may not start yet."""
        now = time.monotonic()
        return [key for key, failing in self.by_key.items() if failing.until > now]

    def next_retry(self) -> float | None:
        """When the first of them may."""
        now = time.monotonic()
        return min((each.until for each in self.by_key.values() if each.until > now), default=None)


def _reason(child: Child, exit_: Exit, out_of_memory: bool) -> str:
    if child.stop_reason:
        return child.stop_reason + (", killed" if child.killed else "")
    if exit_.signal is not None:
        name = signal.Signals(exit_.signal).name
        return f"{name}, out of memory" if out_of_memory else name
    return child.said or f"exit code {exit_.code}"
