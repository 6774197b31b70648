"""The supervisor: acts on what `sync`, `validation` and `backoff` decide, and has `rows` record it.

It holds the book of children, their channels and slots, and the deaths that are not recorded yet. Everything here
works from memory when the database is away, except what needs a row: new workers and the record of deaths, which
wait.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from miq import process
from miq.channel import Channel, InHand, Slot
from miq.db import Database
from miq.launch import Launch, Place
from miq.models import WorkerStatus
from miq.models.worker_types import WorkerType, worker_type, worker_types
from miq.paths import Home
from miq.server import backoff, rows, sync
from miq.server.backoff import DeathFacts, Policy
from miq.server.children import Child, Children, Exit
from miq.server.strategy.process import ProcessStrategy
from miq.server.sync import Key, Present
from miq.server.validation import Limits, Verdict, grace, validate
from miq.settings import Settings

log = logging.getLogger(__name__)


@dataclass
class Wires:
    """What connects us to one child."""

    channel: Channel
    slot: Slot


@dataclass
class Failing:
    """A key whose workers die in vain: how often in a row, and when the next may start (CLOCK_MONOTONIC)."""

    deaths: int = 0
    until: float = 0.0


@dataclass
class Supervisor:
    """The workers of one server."""

    home: Home
    database: Database
    server_id: int
    strategy: ProcessStrategy
    settings: Settings
    #: the place of a worker with this row id
    place_of: Callable[[int], Place]
    watch: Callable[[Channel, Child], None]
    unwatch: Callable[[Channel], None]
    children: Children = field(default_factory=Children)
    wires: dict[str, Wires] = field(default_factory=dict)
    failing: dict[Key, Failing] = field(default_factory=dict)
    ended: list[rows.Ended] = field(default_factory=list)
    accepting: bool = True
    _oom_kills: int = field(default_factory=process.oom_kills)

    # -- sync ----------------------------------------------------------------------------------------------------------

    def sync(self, zone_id: int, active_roles: list[str]) -> None:
        """Start what is wanted and missing, stop what is not wanted. One bad type does not stop the others."""
        if not self.accepting:
            return
        now = time.monotonic()
        want = sync.wanted(
            worker_types().values(), active_roles, rows.valid_managers(self.database, zone_id), self.count_of
        )
        exclusive = [name for name, kind in worker_types().items() if kind.per != "pool"]
        held = [key for key, failing in self.failing.items() if failing.until > now]
        todo = sync.plan(want, self._present(), exclusive, held)
        if todo.starts or todo.stops:
            log.info(
                "MIQ(MiqServer#sync_workers) Workers are being synchronized: Current #: [%s], Desired #: [%s]",
                len(self.children),
                sum(want.values()),
            )
        for guid, reason in todo.stops:
            self.stop(self.children.by_guid[guid], reason)
        for key in todo.starts:
            self.start(key)

    def count_of(self, kind: type[WorkerType]) -> int:
        """The setting `count` of a type."""
        return int(self.settings.worker_number(kind.settings_path, "count"))

    def _present(self) -> list[Present]:
        mine = [
            Present(child.key, child.guid, stopping=child.status == WorkerStatus.STOPPING) for child in self.children
        ]
        others = [
            Present((row.type_name, row.queue_name), row.guid, mine=False)
            for row in rows.worker_rows(self.database, self.server_id)
            if row.unsupervised and self._lives(row)
        ]
        return [*mine, *others]

    def _lives(self, row: rows.WorkerRow) -> bool:
        """Whether an unsupervised worker still runs; one that was killed leaves its row to us."""
        if row.pid is None or row.runs():
            return True
        self.clear_row(row, f"unsupervised worker with pid {row.pid} is gone")
        return False

    def start(self, key: Key) -> None:
        """A row, a slot, a channel, and the word to the mold."""
        worker_id, guid = rows.create_worker(self.database, self.server_id, key)
        child = Child(guid, worker_id, *key, born=time.monotonic())
        self.children.add(child)
        launch = Launch(
            guid, *key, dsn=self.database.dsn, home=str(self.home.path),
            place=self.place_of(worker_id), settings=self.settings.values,
        )  # fmt: skip
        channel = self.strategy.start(launch.as_json())
        self.wires[guid] = Wires(channel, Slot(self.home.slots / guid))
        self.watch(channel, child)

    def stop(self, child: Child, reason: str, kill_at: float | None = None) -> None:
        """Ask a worker to finish what it has in hand and leave."""
        limits = self.limits(child)
        when = kill_at if kill_at is not None else grace(Verdict.WELL, self.in_hand(child), limits, time.monotonic())
        first = child.status != WorkerStatus.STOPPING
        self.children.stopping(child, reason, when)
        if first:
            log.info(
                "MIQ(MiqServer#stop_worker) Worker [%s] with ID: [%s], %s", child.type_name, child.worker_id, reason
            )
            rows.mark_stopping(self.database, child.worker_id)
        if self.strategy.forget(child.guid):
            self.end(child, Exit(0, None))
            return
        self.wires[child.guid].channel.send("stop", reason=reason)
        if child.pid is not None:
            self.strategy.terminate(child.pid)

    # -- what children do ----------------------------------------------------------------------------------------------

    def heard(self, child: Child) -> bool:
        """Read a child's channel; True when a worker came up. End-of-file is left to the death that follows."""
        wires = self.wires.get(child.guid)
        if wires is None:
            return False
        came_up = False
        while message := wires.channel.receive():
            came_up |= self.children.heard(child, message, time.monotonic())
            if message.get("kind") == "forked" and child.status == WorkerStatus.STOPPING and child.pid:
                self.strategy.terminate(child.pid)
        if message is None:
            self.unwatch(wires.channel)
        return came_up

    def died(self, pid: int, status: int) -> bool:
        """A process was reaped; True when it was a worker."""
        child = self.children.of_pid(pid)
        if child is None:
            return False
        self.heard(child)
        self.end(child, Exit.from_status(status))
        return True

    def lost(self, guid: str, reason: str) -> None:
        """A worker that never came to be."""
        child = self.children.by_guid.get(guid)
        if child is not None:
            child.said = reason
            self.end(child, Exit(1, None))

    def end(self, child: Child, exit_: Exit) -> None:
        """Judge a death, put it on the list of those to record, and let go of the wires."""
        wires = self.wires.pop(child.guid)
        in_hand = wires.slot.read()
        self.unwatch(wires.channel)
        wires.channel.close()
        wires.slot.remove()
        self.children.remove(child.guid)
        out_of_memory = self._was_oom(exit_) or child.stop_reason == Verdict.MEMORY
        failing = self._judge(child, exit_, in_hand, out_of_memory)
        self.ended.append(
            rows.Ended(
                child,
                exit_,
                in_hand,
                self._reason(child, exit_, out_of_memory),
                counts=child.stop_reason in (None, Verdict.NOT_RESPONDING, Verdict.NOT_STARTED),
                deaths_in_vain=failing.deaths,
                back_off=max(0.0, failing.until - time.monotonic()),
            )
        )

    def _was_oom(self, exit_: Exit) -> bool:
        kills = process.oom_kills()
        grown, self._oom_kills = kills > self._oom_kills, kills
        return grown and exit_.signal == signal.SIGKILL

    def _judge(self, child: Child, exit_: Exit, in_hand: InHand, out_of_memory: bool) -> Failing:
        facts = DeathFacts(
            started=child.started,
            finished=in_hand.finished,
            out_of_memory=out_of_memory,
            commanded=child.stop_reason is not None and not out_of_memory,
            clean=exit_.code == 0,
            killed_idle=exit_.signal == signal.SIGKILL and not in_hand.message_id,
        )
        if not backoff.in_vain(facts):
            self.failing.pop(child.key, None)
            return Failing()
        policy = self.policy()
        failing = self.failing.setdefault(child.key, Failing())
        failing.deaths += 1
        failing.until = time.monotonic() + backoff.delay(failing.deaths, policy)
        if backoff.in_crash_loop(failing.deaths, policy):
            log.error(
                "MIQ(MiqServer#sync_workers) Worker [%s], queue [%s] is in a crash loop: %s deaths in a row, %s",
                child.type_name, child.queue_name, failing.deaths, self._reason(child, exit_, out_of_memory),
            )  # fmt: skip
        return failing

    @staticmethod
    def _reason(child: Child, exit_: Exit, out_of_memory: bool) -> str:
        if child.stop_reason:
            return child.stop_reason + (", killed" if child.killed else "")
        if exit_.signal is not None:
            name = signal.Signals(exit_.signal).name
            return f"{name}, out of memory" if out_of_memory else name
        return child.said or f"exit code {exit_.code}"

    def policy(self) -> Policy:
        """The back-off settings."""
        section = "server.worker_monitor"
        return Policy(
            self.settings.number(f"{section}.back_off_base"),
            self.settings.number(f"{section}.back_off_max"),
            int(self.settings.number(f"{section}.crash_loop_limit")),
        )

    def record_deaths(self) -> bool:
        """Write what is on the list; True when there was any. Raises psycopg.OperationalError and keeps the rest."""
        any_ = bool(self.ended)
        while self.ended:
            rows.record_end(self.database, self.server_id, self.ended[0])
            self.ended.pop(0)
        return any_

    # -- health --------------------------------------------------------------------------------------------------------

    def limits(self, child: Child) -> Limits:
        """The limits of its type."""
        effective = worker_type(child.type_name).settings_path

        def number(key: str) -> float:
            return self.settings.worker_number(effective, key)

        return Limits(
            number("heartbeat_timeout"), number("starting_timeout"), number("stopping_timeout"),
            number("memory_threshold"), number("poll"), self.settings.number("server.worker_monitor_frequency"),
        )  # fmt: skip

    def in_hand(self, child: Child) -> InHand:
        """What the child's slot says."""
        return self.wires[child.guid].slot.read()

    def look_at_all(self) -> None:
        """One pass: sample every worker, judge it, write all heartbeats with one statement."""
        now = time.monotonic()
        beats = []
        for child in self.children:
            info = process.info(child.pid) if child.pid is not None else None
            child.memory = info.unique_set_size if info else child.memory
            beats.append((child.worker_id, now - child.last_beat, info))
            self._judge_health(child, now)
        rows.write_beats(self.database, beats)

    def _judge_health(self, child: Child, now: float) -> None:
        limits, in_hand = self.limits(child), self.in_hand(child)
        verdict = validate(child, in_hand, limits, now)
        if verdict is Verdict.WELL:
            return
        log.warning(
            "MIQ(MiqServer#validate_worker) Worker [%s] with ID: [%s], PID: [%s], GUID: [%s] %s"
            " (memory [%s] of [%s] bytes, silent for %.0f seconds), asking it to exit",
            child.type_name, child.worker_id, child.pid, child.guid, verdict, child.memory,
            int(limits.memory_threshold), now - child.last_beat,
        )  # fmt: skip
        self.stop(child, verdict, grace(verdict, in_hand, limits, now))

    def kill_overdue(self) -> None:
        """SIGKILL those that were told to stop and did not within their time."""
        now = time.monotonic()
        for child in self.children:
            if child.kill_at is not None and child.kill_at <= now and not child.killed:
                self.kill(child)

    def kill(self, child: Child) -> None:
        """SIGKILL, with its session. One that was never forked is given up."""
        child.killed = True
        log.warning(
            "MIQ(MiqServer#kill_worker) Worker [%s] with ID: [%s], PID: [%s], GUID: [%s] being killed, %s",
            child.type_name, child.worker_id, child.pid, child.guid, child.stop_reason,
        )  # fmt: skip
        if child.pid is not None:
            self.strategy.kill(child.pid)
        else:
            self.strategy.forget(child.guid)
            self.end(child, Exit(None, signal.SIGKILL))

    # -- what earlier servers left -------------------------------------------------------------------------------------

    def clear_leftovers(self) -> None:
        """At start: kill what an earlier server of ours left running, sweep its messages, delete its rows.

        The server's death is no attempt of the messages that its workers had in hand.
        """
        for row in rows.worker_rows(self.database, self.server_id):
            if row.unsupervised and row.runs():
                continue
            if row.runs() and row.pid is not None:
                self.strategy.kill(row.pid)
            self.clear_row(row, "its server died")

    def clear_row(self, row: rows.WorkerRow, reason: str) -> None:
        """Record the end of a worker that is not in the book."""
        path = self.home.slots / row.guid
        slot = Slot(path) if path.exists() else None
        in_hand = slot.read() if slot else InHand(0, 0.0, False, 0)
        child = Child(row.guid, row.id, row.type_name, row.queue_name, born=0.0, pid=row.pid)
        rows.record_end(
            self.database,
            self.server_id,
            rows.Ended(child, Exit(None, None), in_hand, reason, counts=False, deaths_in_vain=0, back_off=0.0),
        )
        if slot:
            slot.remove()

    def remember_back_offs(self) -> None:
        """A restart of the server forgives no crash loop."""
        now = time.monotonic()
        for key, (deaths, left) in rows.recent_deaths(self.database, self.server_id).items():
            self.failing[key] = Failing(deaths, now + left)

    def next_retry(self) -> float | None:
        """When the first back-off ends."""
        now = time.monotonic()
        return min((each.until for each in self.failing.values() if each.until > now), default=None)
