"""Worker types: one small class per `type` of a worker row.

A type is what the supervisor knows: how many, for whom, on which queue, with which limits, and the *name* of its runner
(`runner`), a string, so that the server imports no runner and no SDK. The way back is `WorkerBase.worker_type`.
Core types are here; a provider's stand in its `manager.py` and come through its record.
"""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar, Literal

from miq import names, plugins
from miq.errors import UnknownWorkerType

Multiplicity = Literal["pool", "manager", "single"]


class WorkerType:
    """The base of all types, and what a row of an unknown type is taken for."""

    name: ClassVar[str] = "MiqWorker"
    runner: ClassVar[str] = ""
    #: pool: `count` of the settings; manager: one for each valid manager of `manager`; single: exactly one.
    per: ClassVar[Multiplicity] = "pool"
    manager: ClassVar[str] = ""
    queue_name: ClassVar[str | None] = None
    required_roles: ClassVar[tuple[str, ...]] = ()
    settings_path: ClassVar[tuple[str, ...]] = ("worker_base",)
    #: low numbers are stopped first when memory is short
    kill_priority: ClassVar[int] = 50
    maximum_count: ClassVar[int | None] = None
    #: only messages at least this urgent
    max_priority: ClassVar[int] = 200

    @classmethod
    def runner_class(cls) -> Any:  # noqa: ANN401 - a runner; importing it here would import its SDK
        """The class that runs in the process. Imports it: for workers only."""
        return plugins.load(cls.runner)


class MiqGenericWorker(WorkerType):
    """Takes whatever stands in queue `generic`."""

    name = "MiqGenericWorker"
    runner = "miq.workers.queue_runners:GenericWorker"
    queue_name = "generic"
    settings_path = ("worker_base", "queue_worker_base", "generic_worker")


class MiqScheduleWorker(WorkerType):
    """Turns timers into messages."""

    name = "MiqScheduleWorker"
    runner = "miq.workers.schedule_worker:ScheduleWorker"
    per = "single"
    settings_path = ("worker_base", "schedule_worker")
    kill_priority = 80


class BaseRefreshWorker(WorkerType):
    """Keeps the inventory of one manager; every provider derives its own."""

    runner = "miq.workers.refresh_worker:RefreshWorker"
    per = "manager"
    required_roles = ("ems_inventory",)
    settings_path = ("worker_base", "queue_worker_base", "ems_refresh_worker")
    kill_priority = 70


CORE_TYPES: tuple[type[WorkerType], ...] = (MiqGenericWorker, MiqScheduleWorker)


@cache
def worker_types() -> dict[str, type[WorkerType]]:
    """Every type that this installation knows, by full name, core first."""
    known = {kind.name: kind for kind in CORE_TYPES}
    for record in plugins.providers().values():
        known |= {kind.name: kind for kind in record.worker_types}
    return known


def worker_type(name: str | None) -> type[WorkerType]:
    """The type of a row; the base class when no installed plug-in knows it."""
    return worker_types().get(name or "", WorkerType)


def find_worker_type(name: str) -> type[WorkerType]:
    """The type that a user named, in full or short. Raises UnknownWorkerType."""
    for full, kind in worker_types().items():
        if name in names.spellings(full):
            return kind
    raise UnknownWorkerType(f"unknown worker class {name!r}: `miq-worker -l` lists them")
