"""The supervisor: acts on what `sync`, `validation` and `backoff` decide, and has `rows` record it.

It holds the book of children, their channels and slots, and the deaths that are not recorded yet. Everything here
works from memory when the database is away, except what needs a row: new workers and the record of deaths, which
wait.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from miq import process, settings_loader
from miq.channel import Channel, InHand, Slot
from miq.db import Database
from miq.errors import SettingsError
from miq.launch import Launch
from miq.models import WorkerStatus
from miq.models.worker_types import WorkerType, worker_type, worker_types
from miq.paths import Home
from miq.server import rows, sync
from miq.server.backoff import Policy
from miq.server.children import Child, Children, Exit
from miq.server.enrolment import Identity
from miq.server.failures import Failures
from miq.server.leftovers import close_row
from miq.server.strategy.process import ProcessStrategy
from miq.server.sync import Key, Present
from miq.server.validation import Limits, Verdict, grace, overdue_at, running, validate
from miq.settings import Settings

log = logging.getLogger(__name__)


@dataclass
class Wires:
    """What connects us to one child."""

    channel: Channel
    slot: Slot


@dataclass
class Supervisor:
    """The workers of one server."""

    home: Home
    database: Database
    server_id: int
    strategy: ProcessStrategy
    settings: Settings
    watch: Callable[[Channel, Child], None]
    unwatch: Callable[[Channel], None]
    children: Children = field(default_factory=Children)
    wires: dict[str, Wires] = field(default_factory=dict)
    failures: Failures = field(default_factory=Failures)
    ended: list[rows.Ended] = field(default_factory=list)

    # -- sync ----------------------------------------------------------------------------------------------------------

    def sync(self, identity: Identity, active_roles: Sequence[str]) -> None:
        """Start what is wanted and missing, stop what is not wanted."""
        managers = rows.valid_managers(self.database, identity.zone_id)
        want = sync.wanted(worker_types().values(), active_roles, managers, self.count_of)
        exclusive = [name for name, kind in worker_types().items() if kind.per != "pool"]
        todo = sync.plan(want, self._present(), exclusive, self.failures.held_back())
        if todo.starts or todo.stops:
            log.info(
                "MIQ(MiqServer#sync_workers) Workers are being synchronized: Current #: [%s], Desired #: [%s]",
                len(self.children),
                sum(want.values()),
            )
        for guid, reason in todo.stops:
            self.stop(self.children.by_guid[guid], reason)
        for key in todo.starts:
            self.start(key, identity, active_roles)

    def count_of(self, kind: type[WorkerType]) -> int:
        """The setting `count` of a type; garbage there is named, and the shipped count stands: the others go on."""
        try:
            return int(self.settings.worker_number(kind.settings_path, "count"))
        except SettingsError as error:
            log.error("MIQ(MiqServer#sync_workers) %s", error)
            return int(settings_loader.defaults().worker_number(kind.settings_path, "count"))

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
        reason = f"unsupervised worker with pid {row.pid} is gone"
        close_row(self.database, self.home, self.server_id, row, Exit(None, None), reason)
        return False

    def start(self, key: Key, identity: Identity, active_roles: Sequence[str]) -> None:
        """A row, a slot, a channel, and the word to the mold."""
        worker_id, guid = rows.create_worker(self.database, self.server_id, key)
        child = Child(guid, worker_id, *key, born=time.monotonic())
        self.children.add(child)
        launch = Launch(
            guid, *key, dsn=self.database.dsn, home=str(self.home.path),
            place=identity.place_of(worker_id, active_roles), settings=self.settings.values,
        )  # fmt: skip
        channel = self.strategy.start(launch.as_json())
        self.wires[guid] = Wires(channel, Slot(self.home.slots / guid))
        self.watch(channel, child)

    def stop(self, child: Child, reason: str, kill_at: float | None = None) -> None:
        """Ask a worker to finish what it has in hand and leave, and record that we did."""
        self.ask_to_stop(child, reason, kill_at)
        self.record_stopping(child)

    def ask_to_stop(self, child: Child, reason: str, kill_at: float | None = None) -> None:
        """The asking alone: needs no database."""
        if kill_at is None:
            kill_at = grace(Verdict.WELL, self.in_hand(child), self.limits(child), time.monotonic())
        self.children.stopping(child, reason, kill_at)
        log.info("MIQ(MiqServer#stop_worker) Worker [%s] with ID: [%s], %s", child.type_name, child.worker_id, reason)
        if self.strategy.forget(child.guid):
            self.end(child, Exit(0, None))
            return
        self.wires[child.guid].channel.send("stop", reason=reason)
        if child.pid is not None:
            self.strategy.terminate(child.pid)

    def record_stopping(self, child: Child) -> None:
        """The row says `stopping`."""
        rows.mark_stopping(self.database, child.worker_id)

    # -- what children do ----------------------------------------------------------------------------------------------

    def heard(self, child: Child) -> None:
        """Read a child's channel. End-of-file is left to the death that follows."""
        wires = self.wires.get(child.guid)
        if wires is None:
            return
        while message := wires.channel.receive():
            self.children.heard(child, message, time.monotonic())
            if message.get("kind") == "forked" and child.status == WorkerStatus.STOPPING and child.pid:
                self.strategy.terminate(child.pid)
        if message is None:
            self.unwatch(wires.channel)

    def died(self, pid: int, status: int) -> None:
        """A process was reaped; one that is not a worker of ours is nothing to us."""
        child = self.children.of_pid(pid)
        if child is not None:
            self.heard(child)
            self.end(child, Exit.from_status(status))

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
        failing, reason = self.failures.judge(child, exit_, in_hand, self.policy())
        self.ended.append(
            rows.Ended(
                child,
                exit_,
                in_hand,
                reason,
                counts=child.stop_reason in (None, Verdict.NOT_RESPONDING, Verdict.NOT_STARTED, Verdict.TIMED_OUT),
                deaths_in_vain=failing.deaths,
                back_off=max(0.0, failing.until - time.monotonic()),
                timed_out=child.killed and running(in_hand) and time.monotonic() >= in_hand.deadline,
            )
        )

    def policy(self) -> Policy:
        """The back-off settings."""
        section = "server.worker_monitor"
        return Policy(
            self.settings.number(f"{section}.back_off_base"),
            self.settings.number(f"{section}.back_off_max"),
            int(self.settings.number(f"{section}.crash_loop_limit")),
        )

    def record_deaths(self) -> None:
        """Write what is on the list. Raises psycopg.OperationalError and keeps the rest."""
        while self.ended:
            rows.record_end(self.database, self.server_id, self.ended[0])
            self.ended.pop(0)

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
        """One pass: judge every worker by what is known of it, write all heartbeats with one statement."""
        now = time.monotonic()
        for child in self.children:
            self._judge_health(child, now)
        rows.write_beats(
            self.database, [(child.worker_id, now - child.last_beat, child.info) for child in self.children]
        )

    def sample_next(self) -> None:
        """Look at the process of one worker, the one not looked at for longest.

        The kernel walks all pages of a process for it, which takes milliseconds: for fifty workers at once the loop
        would stand still for a tenth of a second, so they take turns.
        """
        child = min(self.children, key=lambda each: each.sampled, default=None)
        if child is not None:
            child.sampled = time.monotonic()
            child.info = process.info(child.pid) if child.pid is not None else None

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

    def next_deadline(self) -> float | None:
        """When the first of them has to be killed, if nothing changes."""
        messages = (overdue_at(self.in_hand(child)) for child in self.children if not child.killed)
        times = [self.children.next_deadline(), *messages]
        return min((each for each in times if each is not None), default=None)

    def kill_overdue(self) -> None:
        """SIGKILL those that were told to stop and did not within their time, and those whose message hangs."""
        now = time.monotonic()
        for child in self.children:
            overdue = overdue_at(self.in_hand(child))
            if overdue is not None and overdue <= now and not child.killed:
                self.ask_to_stop(child, Verdict.TIMED_OUT, now)
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
